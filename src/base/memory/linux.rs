//! What Linux says of memory, read from `/proc` and `/sys` below a root: `/`, or a folder of a test.

use std::{fs, path::Path};

use super::groups;

/// What the allocator reserves at once, less where it may not have that: untouched, it counts as data of the process and is there
/// for what comes.
const ALLOCATOR_RESERVES_BYTES: u64 = 1 << 30;

/// What threads that start later map beside what is planned; measured with two of them.
const THREADS_BYTES: u64 = 16 << 20;

/// Bytes that new allocations can take: the least of what the machine has, what every control group above the process allows
/// and what its own limits leave.
pub(super) fn available_bytes(root: &Path) -> Option<u64> {
    let machine = machine_bytes(root)?;
    let left = [groups::headroom(root), process_bytes(root)];
    Some(left.into_iter().flatten().fold(machine, u64::min))
}

/// What the process's own limits leave, where it has any: `ulimit -v`, on all that is mapped, files too, and `ulimit -d`, on what
/// is written to and no file's.
pub(super) fn process_bytes(root: &Path) -> Option<u64> {
    let left = [("Max address space", "VmSize:"), ("Max data size", "VmData:")];
    left.into_iter().filter_map(|(limit, used)| left_of(root, limit, used)).min()
}

/// The most resident memory the process has held so far.
pub(super) fn peak_resident_bytes(root: &Path) -> Option<u64> {
    status(root, "VmHWM:")
}

/// What the machine has left without swapping; kernels before 3.14 do not add it up themselves.
fn machine_bytes(root: &Path) -> Option<u64> {
    let meminfo = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let field = |name| kilobytes(&meminfo, name);
    field("MemAvailable:").or_else(|| {
        let freed = ["Buffers:", "Cached:"].into_iter().filter_map(field).sum::<u64>();
        Some(field("MemFree:")?.saturating_add(freed))
    })
}

/// What one limit leaves.
fn left_of(root: &Path, limit: &str, used: &str) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix(limit))?;
    // The soft limit: a number, or "unlimited".
    let most: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(most.saturating_sub(status(root, used)?.saturating_sub(reserved(root))).saturating_sub(THREADS_BYTES))
}

/// What the allocator has reserved and will use: half of what it has not touched yet, for the rest is lost between pieces, and to
/// the stacks of threads.
fn reserved(root: &Path) -> u64 {
    let data = status(root, "VmData:").unwrap_or(0);
    let touched = status(root, "RssAnon:").or_else(|| status(root, "VmRSS:")).unwrap_or(data);
    data.saturating_sub(touched).min(ALLOCATOR_RESERVES_BYTES) / 2
}

fn status(root: &Path, name: &str) -> Option<u64> {
    kilobytes(&fs::read_to_string(root.join("proc/self/status")).ok()?, name)
}

/// The bytes of a line such as `MemFree:  12 kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
