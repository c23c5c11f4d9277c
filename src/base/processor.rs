//! The processor: how many threads serve.

use std::{sync::OnceLock, thread};

/// The most threads that are started: as many as `--threads` takes.
pub const MOST_THREADS: usize = 1024;

/// How many threads compute where nobody says: one for each core that this process may use, for two on one core take turns at its units
/// of arithmetic; and no more than a container's quota of processor time serves.
pub fn usual_threads() -> usize {
    let logical = thread::available_parallelism().map_or(1, |n| n.get());
    cores().unwrap_or(logical).clamp(1, logical.min(MOST_THREADS))
}

/// Of so many threads, those that are in the midst of their work at once, and hold what they compute in: where there are more of them than
/// logical processors, twice as many as these. Measured with 8 and 32 threads on two.
pub fn threads_at_once(threads: usize) -> usize {
    static LOGICAL: OnceLock<usize> = OnceLock::new();
    threads.min(2 * LOGICAL.get_or_init(|| thread::available_parallelism().map_or(1, |n| n.get())))
}

/// The cores that this process may use.
#[cfg(target_os = "linux")]
fn cores() -> Option<usize> {
    let siblings = |cpu: usize| {
        std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
    };
    distinct(allowed()?.into_iter(), siblings)
}

#[cfg(not(target_os = "linux"))]
fn cores() -> Option<usize> {
    sysinfo::System::physical_core_count()
}

/// The logical processors that this process may run on (`taskset`, `numactl`, a container's cpuset); `None` where the system does not say.
#[cfg(target_os = "linux")]
pub(super) fn allowed() -> Option<Vec<usize>> {
    const WORD: usize = libc::c_ulong::BITS as usize;
    // The kernel refuses a set that has no place for a processor there might be.
    for words in (0..10).map(|doubled| (1024 / WORD) << doubled) {
        let mut set: Vec<libc::c_ulong> = vec![0; words];
        // SAFETY: the set is as many bytes as it is said to be, of numbers for which all are values, and lives as long as the call.
        let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set[..]), set.as_mut_ptr().cast()) } != 0;
        if !failed {
            let is_in = |cpu: &usize| set[cpu / WORD] >> (cpu % WORD) & 1 == 1;
            return Some((0..words * WORD).filter(is_in).collect());
        }
    }
    None
}

/// How many cores these logical processors are on, by what the system says of the siblings of each; `None` where it says nothing.
#[cfg(any(target_os = "linux", test))]
fn distinct(cpus: impl Iterator<Item = usize>, siblings: impl Fn(usize) -> Option<String>) -> Option<usize> {
    let cores: Option<std::collections::BTreeSet<String>> = cpus.map(siblings).collect();
    cores.map(|cores| cores.len()).filter(|count| *count > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two threads a core, numbered as most servers do it: 0 and 4 are siblings.
    fn of_eight(cpu: usize) -> Option<String> {
        (cpu < 8).then(|| format!("{},{}\n", cpu % 4, cpu % 4 + 4))
    }

    #[test]
    fn siblings_are_one_core() {
        assert_eq!(distinct(0..8, of_eight), Some(4));
        assert_eq!(distinct([0, 4].into_iter(), of_eight), Some(1), "both of one core");
        assert_eq!(distinct([0, 5, 6].into_iter(), of_eight), Some(3), "halves of three");
    }

    #[test]
    fn a_system_that_does_not_say_is_not_guessed_at() {
        assert_eq!(distinct(0..9, of_eight), None);
        assert_eq!(distinct(std::iter::empty(), of_eight), None);
    }

    #[test]
    fn there_is_a_thread_and_no_more_than_the_system_gives() {
        let logical = thread::available_parallelism().map_or(1, |n| n.get());
        assert!((1..=logical).contains(&usual_threads()));
    }
}
