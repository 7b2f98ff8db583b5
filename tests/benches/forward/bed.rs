//! The programs in the kernel, and the clock.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::{Duration, Instant},
};

use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{Array, Map, MapData, PerCpuArray, ProgramArray},
    programs::{TestRun as _, Xdp},
};
use evenkeel_tests::run_dir::RunDir;
use lb_common::{
    bench::{Case, target},
    flow::Flow,
    layout::FlowEntry,
};
use lb_userspace::{
    balance::image::Image,
    dataplane::{BENCH_OBJECT, DataPlane as _, OBJECT, kernel::Kernel, pin},
    model::{DataPlaneConfig, Evenness, OnDrift, ProbeMark, Tracking, XdpMode},
};

use crate::homes;

/// Room for a million flows in both directions.
const ESTABLISHED: u32 = 1 << 21;
/// [`Case`] in words, of which aya knows that they are plain.
const WORDS: usize = size_of::<Case>() / 4;

/// The product's program and those that make its frames.
pub(crate) struct Bed {
    kernel: Kernel,
    frames: Ebpf,
    case: Array<MapData, [u32; WORDS]>,
    tracking: PerCpuArray<MapData, [u64; 4]>,
    flows: [MapData; 2],
    _targets: ProgramArray<MapData>,
    _dir: RunDir,
    /// What the kernel says of each program.
    pub(crate) programs: Vec<Program>,
}

/// What the kernel says of a program.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    /// How many instructions the verifier went through.
    pub(crate) verified: u32,
    /// How long that and the translation took.
    pub(crate) took: Duration,
    /// Its size in bytes, once translated.
    pub(crate) jited: u32,
}

impl Bed {
    pub(crate) fn new() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this loads a program into the kernel: run it as root"
        );
        let dir = RunDir::create(0).expect("a bpffs");
        let pins = dir.bpf().join("evenkeel");
        fs::create_dir_all(&pins).expect("a folder for the pins");
        let mut programs = Vec::new();
        // First, so that the table is as large as it takes here; the product takes over what is
        // pinned.
        let mut object = loader(&pins, &["ESTABLISHED", "FRESH"])
            .map_max_entries("ESTABLISHED", ESTABLISHED)
            .load(OBJECT)
            .expect("the kernel takes the object");
        programs.push(load(&mut object, "evenkeel"));
        programs.push(load(&mut object, "empty"));
        let config = DataPlaneConfig {
            interfaces: Vec::new(),
            xdp_mode: XdpMode::Generic,
            pins: pins.clone(),
            hash_seed: 0,
            evenness: Evenness::DEFAULT,
            probe_mark: ProbeMark::DEFAULT,
            on_drift: OnDrift::default(),
        };
        let mut kernel =
            Kernel::open(&config, &Tracking::default()).unwrap_or_else(|error| panic!("{error}"));
        let mut frames = loader(&pins, &["ESTABLISHED"])
            .load(BENCH_OBJECT)
            .expect("the kernel takes the benchmark's object");
        for name in [
            "tested",
            "floor",
            "swap",
            "forget",
            "bare",
            "parse_and_swap",
        ] {
            let program = load(&mut frames, name);
            if name == "parse_and_swap" {
                programs.push(program);
            }
        }
        let targets = frames.take_map("TARGETS").expect("the object has it");
        let mut targets = ProgramArray::try_from(targets).expect("its type");
        let tested = kernel.program().expect("the object has its program");
        targets
            .set(target::TESTED, tested.fd().expect("it is loaded"), 0)
            .expect("the kernel takes it");
        for (place, name) in [(target::BARE, "bare"), (target::SWAP, "parse_and_swap")] {
            let program = homes::program(&frames, name);
            targets
                .set(place, program.fd().expect("it is loaded"), 0)
                .expect("the kernel takes it");
        }
        let case = frames.take_map("CASE").expect("the object has it");
        let pinned = |name: &str| MapData::from_pin(pin(&pins, name)).expect("it is pinned");
        let tracking = Map::from_map_data(pinned("TRACKING")).expect("a known type");
        Self {
            case: Array::try_from(case).expect("its type"),
            tracking: PerCpuArray::try_from(tracking).expect("its type"),
            flows: ["ESTABLISHED", "FRESH"].map(pinned),
            kernel,
            frames,
            _targets: targets,
            _dir: dir,
            programs,
        }
    }

    pub(crate) fn publish(&mut self, image: &Image) {
        self.kernel
            .publish(image)
            .unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets a program have so many frames: the nanoseconds that each took, and the last action.
    pub(crate) fn run(&mut self, name: &str, case: &mut Case, repeat: u32) -> (f64, u32) {
        let before: &[u32; WORDS] = bytemuck::cast_ref(case);
        self.case.set(0, before, 0).expect("the kernel takes it");
        let frame = vec![0; case.length as usize];
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat,
            ..TestRunOptions::default()
        };
        let program = homes::program(&self.frames, name);
        let before = processor_time();
        let result = program.test_run(options).expect("the kernel runs it");
        let spent = processor_time() - before;
        *case = bytemuck::cast(self.case.get(&0, 0).expect("the kernel gives it"));
        (spent / f64::from(repeat), result.return_value)
    }

    /// How many entries were made since the maps are there: for first packets, for others.
    pub(crate) fn entries_made(&self) -> (u64, u64) {
        let values = self.tracking.get(&0, 0).expect("a counter");
        let sum = |at: usize| values.iter().map(|cpu| cpu[at]).sum();
        (sum(0), sum(1))
    }

    /// Forgets all flows.
    pub(crate) fn forget_all(&self) {
        self.flows.iter().for_each(clear);
    }
}

fn loader<'m>(pins: &Path, maps: &[&'m str]) -> EbpfLoader<'m> {
    let mut loader = EbpfLoader::new();
    for map in maps {
        loader.map_pin_path(map, pin(pins, map));
    }
    loader
}

#[expect(clippy::disallowed_methods, reason = "it is what is measured")]
fn load(object: &mut Ebpf, name: &'static str) -> Program {
    let program = object.program_mut(name).expect("the object has it");
    let program: &mut Xdp = program.try_into().expect("an XDP program");
    let begin = Instant::now();
    program
        .load()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let took = begin.elapsed();
    let info = program.info().expect("the kernel tells");
    Program {
        name,
        verified: info.verified_instruction_count().unwrap_or(0),
        took,
        jited: info.size_jitted(),
    }
}

/// What this thread has used, in nanoseconds: what other processes take is left out.
fn processor_time() -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the call writes one `timespec`, which outlives it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "a thread has a clock");
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// `BPF_MAP_LOOKUP_AND_DELETE_BATCH` of linux/bpf.h.
const TAKE_BATCH: libc::c_long = 25;

/// The part of `bpf_attr` that batches take.
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Empties a table of flows: key by key, a million of them would take seconds.
fn clear(map: &MapData) {
    const COUNT: usize = 1 << 16;
    let (mut keys, mut values) = (
        vec![0u8; COUNT * size_of::<Flow>()],
        vec![0u8; COUNT * size_of::<FlowEntry>()],
    );
    let (mut place, mut first) = (0u32, true);
    loop {
        let place_address = (&raw mut place).addr() as u64;
        let mut batch = Batch {
            from: if first { 0 } else { place_address },
            to: place_address,
            keys: keys.as_mut_ptr().addr() as u64,
            values: values.as_mut_ptr().addr() as u64,
            count: COUNT as u32,
            map: map.fd().as_fd().as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: the buffers outlive the call and hold as many keys and values as it says.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                TAKE_BATCH,
                &raw mut batch,
                size_of::<Batch>(),
            )
        };
        if result < 0 {
            let error = std::io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return;
        }
        first = false;
    }
}
