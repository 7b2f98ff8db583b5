//! bpf(2) calls that aya does not have: values too large for the stack, and batches.

#![expect(unsafe_code, reason = "bpf(2) takes addresses as numbers")]

use std::{io, os::fd::AsRawFd as _};

use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd};

/// Writes an element of a map whose keys are `u32`.
///
/// # Panics
/// Where the value has not the map's size.
pub(super) fn update(map: &MapData, key: u32, value: &[u8]) -> io::Result<()> {
    let address = value.as_ptr().addr();
    element(bpf_cmd::BPF_MAP_UPDATE_ELEM, map, key, address, value.len())
}

/// Reads an element of a map whose keys are `u32`.
///
/// # Panics
/// Where the value has not the map's size.
pub(super) fn lookup(map: &MapData, key: u32, value: &mut [u8]) -> io::Result<()> {
    let address = value.as_mut_ptr().addr();
    element(bpf_cmd::BPF_MAP_LOOKUP_ELEM, map, key, address, value.len())
}

fn element(
    command: bpf_cmd,
    map: &MapData,
    key: u32,
    value: usize,
    length: usize,
) -> io::Result<()> {
    assert_eq!(length, value_size(map)?, "a value is as large as its map's");
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = map.fd().as_fd_number();
    attr.__bindgen_anon_2.key = (&raw const key).addr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value as u64;
    call(command, &mut attr)
}

/// Puts maps into an array of maps, with one wait for readers however many they are.
///
/// Kernel 5.14 or later.
pub(super) fn update_inner(outer: &MapData, inner: &[(u32, &MapData)]) -> io::Result<()> {
    let keys: Vec<u32> = inner.iter().map(|(key, _)| *key).collect();
    let values: Vec<u32> = inner
        .iter()
        .map(|(_, map)| map.fd().as_fd_number())
        .collect();
    let mut attr = zeroed();
    attr.batch.map_fd = outer.fd().as_fd_number();
    attr.batch.keys = keys.as_ptr().addr() as u64;
    attr.batch.values = values.as_ptr().addr() as u64;
    attr.batch.count = keys.len() as u32;
    call(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr)
}

/// What [`lookup_batch`] read.
pub(super) struct Read {
    /// How many elements.
    pub(super) count: usize,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<u32>,
}

/// Reads elements of an array that has a value for each CPU, from where an earlier call ended. The
/// values of one element come one after another, for as many CPUs as there can be.
///
/// Kernel 5.13 or later.
///
/// # Panics
/// Where the values are not as many as `keys` and `cpus` ask for, or have not the map's size.
pub(super) fn lookup_per_cpu<V: bytemuck::Pod>(
    map: &MapData,
    from: Option<u32>,
    keys: &mut [u32],
    (values, cpus): (&mut [V], usize),
) -> io::Result<Read> {
    // The kernel rounds each value up to eight bytes.
    assert_eq!(size_of::<V>() % 8, 0, "nothing lies between the values");
    check_sizes::<u32>(map, Some(size_of::<V>()))?;
    assert_eq!(keys.len() * cpus, values.len(), "a value for each CPU");
    batch(
        map,
        from,
        keys.as_mut_ptr().addr(),
        values.as_mut_ptr().addr(),
        keys.len(),
    )
}

/// Reads elements of a hash from where an earlier call ended.
///
/// Kernel 5.6 or later.
///
/// # Panics
/// Where keys or values have not the map's sizes, or are not as many as each other.
pub(super) fn lookup_batch<K: bytemuck::Pod, V: bytemuck::Pod>(
    map: &MapData,
    from: Option<u32>,
    keys: &mut [K],
    values: &mut [V],
) -> io::Result<Read> {
    check_sizes::<K>(map, Some(size_of::<V>()))?;
    assert_eq!(keys.len(), values.len(), "a value for each key");
    batch(
        map,
        from,
        keys.as_mut_ptr().addr(),
        values.as_mut_ptr().addr(),
        keys.len(),
    )
}

/// Reads elements into buffers at these addresses.
fn batch(
    map: &MapData,
    from: Option<u32>,
    keys: usize,
    values: usize,
    count: usize,
) -> io::Result<Read> {
    let mut next = 0_u32;
    let mut attr = zeroed();
    attr.batch.map_fd = map.fd().as_fd_number();
    attr.batch.in_batch = from
        .as_ref()
        .map_or(0, |at| std::ptr::from_ref(at).addr() as u64);
    attr.batch.out_batch = (&raw mut next).addr() as u64;
    attr.batch.keys = keys as u64;
    attr.batch.values = values as u64;
    attr.batch.count = count as u32;
    let result = call(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr);
    // SAFETY: integers; the kernel has written the count, or left what was given.
    let count = unsafe { attr.batch.count } as usize;
    match result {
        Ok(()) => Ok(Read {
            count,
            next: Some(next),
        }),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(Read { count, next: None }),
        Err(e) => Err(e),
    }
}

/// Deletes elements of a hash up to the first that is not there, and answers how many.
///
/// Kernel 5.6 or later.
///
/// # Panics
/// Where keys have not the map's size.
pub(super) fn delete_batch<K: bytemuck::Pod>(map: &MapData, keys: &[K]) -> io::Result<usize> {
    check_sizes::<K>(map, None)?;
    let mut attr = zeroed();
    attr.batch.map_fd = map.fd().as_fd_number();
    attr.batch.keys = keys.as_ptr().addr() as u64;
    attr.batch.count = keys.len() as u32;
    let result = call(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr);
    // SAFETY: integers; the kernel has written the count, or left what was given.
    let count = unsafe { attr.batch.count } as usize;
    match result {
        Err(e) if e.raw_os_error() != Some(libc::ENOENT) => Err(e),
        _ => Ok(count),
    }
}

fn check_sizes<K>(map: &MapData, value: Option<usize>) -> io::Result<()> {
    let info = map.info().map_err(io::Error::other)?;
    assert_eq!(
        size_of::<K>(),
        info.key_size() as usize,
        "a key is as large as its map's"
    );
    if let Some(value) = value {
        assert_eq!(
            value,
            info.value_size() as usize,
            "a value is as large as its map's"
        );
    }
    Ok(())
}

fn value_size(map: &MapData) -> io::Result<usize> {
    map.info()
        .map(|info| info.value_size() as usize)
        .map_err(io::Error::other)
}

trait FdNumber {
    fn as_fd_number(&self) -> u32;
}

impl FdNumber for aya::maps::MapFd {
    fn as_fd_number(&self) -> u32 {
        use std::os::fd::AsFd as _;
        self.as_fd().as_raw_fd() as u32
    }
}

fn zeroed() -> bpf_attr {
    // SAFETY: the union's members are integers and arrays of them, for which zero is valid.
    unsafe { std::mem::zeroed() }
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<()> {
    // SAFETY: the callers' buffers outlive the call, and are as large as the kernel takes them
    // to be: keys are `u32` or checked against the map, values are checked or file descriptors,
    // and where there is a value for each CPU, the one caller counts those that there can be.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            &raw mut *attr,
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
