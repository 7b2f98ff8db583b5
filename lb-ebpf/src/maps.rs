//! The maps, as the decision sees them. All map pointers live here.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, PerCpuArray},
    macros::btf_map,
    programs::XdpContext,
};
use aya_log_ebpf::warn;
use lb_common::{
    layout::{self, EndpointCounters, ExitCounters, RECENT_SYNS, RecentSyns, Slot},
    tables::{Counters, Tables},
    verdict::Reason,
};

/// The one pointer that a publication swaps.
///
/// The value is an array of one and not the structure itself: up to Linux 6.1 the kernel refuses
/// to put a map that was made without type information in the place of one whose value is known
/// to be a structure.
#[btf_map]
static TABLES: ArrayOfMaps<Array<[layout::Tables; 1], 1>, 1> = ArrayOfMaps::new();

/// The rings, by the numbers that the tables name them by.
#[btf_map]
static RINGS: ArrayOfMaps<Array<layout::Ring, 1>, { layout::RINGS }> = ArrayOfMaps::new();

/// What each endpoint was sent.
#[btf_map]
static ENDPOINTS: PerCpuArray<EndpointCounters, { layout::ENDPOINTS }> = PerCpuArray::new();

/// What was not sent to an endpoint, and why: the host's row, then one for each service.
#[btf_map]
static EXITS: PerCpuArray<ExitCounters, { layout::EXIT_ROWS }> = PerCpuArray::new();

/// The SYNs seen last.
#[btf_map]
static SYNS: PerCpuArray<RecentSyns, 1> = PerCpuArray::new();

/// The published tables.
pub(crate) struct KernelTables;

impl Tables for KernelTables {
    #[inline(always)]
    fn current(&self) -> Option<&layout::Tables> {
        TABLES.get_value(0, &0).map(|[tables]| tables)
    }

    #[inline(always)]
    fn slot(&self, ring: u32, slot: u16) -> Option<Slot> {
        RINGS
            .get_value(ring, &0)
            .map(|ring| ring[usize::from(slot)])
    }
}

/// This CPU's counters.
pub(crate) struct KernelCounters<'a>(pub(crate) &'a XdpContext);

impl Counters for KernelCounters<'_> {
    #[inline(always)]
    fn forwarded(&self, endpoint: u16, bytes: usize, new_flow: bool) {
        if let Some(counters) = ENDPOINTS.get_ptr_mut(u32::from(endpoint)) {
            // SAFETY: the value is this CPU's own, and no other packet runs on it meanwhile.
            let counters = unsafe { &mut *counters };
            counters.packets += 1;
            counters.bytes += bytes as u64;
            counters.new_flows += u64::from(new_flow);
        }
    }

    #[inline(always)]
    fn exit(&self, row: u32, reason: Reason) {
        if let Some(counters) = EXITS.get_ptr_mut(row) {
            // SAFETY: as above.
            let counters = unsafe { &mut *counters };
            let counter = &mut counters[reason as usize & (Reason::ROW - 1)];
            // The tables should rule these out. The first on each CPU is told, the others only
            // counted: a log line costs more than a packet.
            if *counter == 0 && matches!(reason, Reason::NoTables | Reason::BadTables) {
                warn!(
                    self.0,
                    "a packet met reason {} in row {}", reason as u8, row
                );
            }
            *counter += 1;
        }
    }

    #[inline(always)]
    fn syn_seen(&self, place: usize, fingerprint: u32) -> bool {
        let Some(recent) = SYNS.get_ptr_mut(0) else {
            return false;
        };
        // SAFETY: as above.
        let recent = unsafe { &mut *recent };
        core::mem::replace(&mut recent[place & (RECENT_SYNS - 1)], fingerprint) == fingerprint
    }
}
