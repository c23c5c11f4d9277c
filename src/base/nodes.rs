//! Machines whose memory lies on several nodes (NUMA), each nearer to some of the processors.

use std::{fs, path::Path};

use super::processor::allowed;

/// Lays the memory of this process and of its threads to come on all nodes whose processors it may use, page after page in turn: every
/// thread reads every weight, and pages that lie where one thread first touched them would keep one node's memory busy and the others'
/// idle. Where somebody chose otherwise (`numactl`, `taskset` to one node), or the system lets nobody choose, nothing changes.
pub fn interleave_memory() {
    let Some(allowed) = allowed() else { return };
    let nodes = nodes_of(&allowed, &lists(Path::new("/sys/devices/system/node")));
    if nodes.len() > 1 && !is_chosen() {
        interleave(&nodes);
    }
}

/// The nodes' numbers, with what the system says of the processors of each.
fn lists(folder: &Path) -> Vec<(usize, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let list = |entry: fs::DirEntry| {
        let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
        Some((node, fs::read_to_string(entry.path().join("cpulist")).ok()?))
    };
    let mut lists: Vec<_> = entries.filter_map(list).collect();
    lists.sort_unstable();
    lists
}

/// Those with one of these processors.
fn nodes_of(allowed: &[usize], lists: &[(usize, String)]) -> Vec<usize> {
    let has_one = |list: &str| allowed.iter().any(|cpu| is_listed(*cpu, list));
    lists.iter().filter(|(_, list)| has_one(list)).map(|(node, _)| *node).collect()
}

/// Whether a list such as `0-3,8` has a number.
fn is_listed(number: usize, list: &str) -> bool {
    list.trim().split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        matches!((first.parse(), last.parse()), (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}

/// Whether this process was given a policy.
fn is_chosen() -> bool {
    let mut policy: libc::c_int = libc::MPOL_DEFAULT;
    let none = std::ptr::null_mut::<libc::c_ulong>();
    // SAFETY: writes the policy, and with no place for nodes nothing else.
    let failed = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut policy, none, 0, none, 0) } != 0;
    failed || policy != libc::MPOL_DEFAULT
}

/// Asks the system to take this thread's pages from these nodes in turn, and says whether it does; a refusal costs speed alone.
fn interleave(nodes: &[usize]) -> bool {
    const BITS: usize = libc::c_ulong::BITS as usize;
    let mut mask = vec![0 as libc::c_ulong; nodes.iter().max().map_or(0, |most| most / BITS + 1)];
    for node in nodes {
        mask[node / BITS] |= 1 << (node % BITS);
    }
    // The kernel reads one bit less than it is told.
    let bits = mask.len() * BITS + 1;
    // SAFETY: the mask has as many bits as are read; the policy changes where later pages lie, and nothing else.
    unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_INTERLEAVE, mask.as_ptr(), bits) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> Vec<(usize, String)> {
        vec![(0, "0-3,8-11\n".into()), (1, "4-7,12-15\n".into()), (2, "\n".into())]
    }

    #[test]
    fn nodes_are_those_whose_processors_may_be_used() {
        assert_eq!(nodes_of(&(0..16).collect::<Vec<_>>(), &two()), [0, 1], "a node of memory alone has no processor");
        assert_eq!(nodes_of(&[4, 12], &two()), [1]);
        assert_eq!(nodes_of(&[11, 15], &two()), [0, 1]);
        assert!(nodes_of(&[99], &two()).is_empty());
    }

    #[test]
    fn a_policy_that_is_taken_is_one_that_was_chosen() {
        // A thread has its own; containers may refuse.
        let taken = std::thread::spawn(|| (is_chosen(), interleave(&[0]), is_chosen())).join().expect("a policy");
        assert!(matches!(taken, (false, true, true) | (_, false, _)), "{taken:?}");
    }

    #[test]
    fn lists_are_read_from_the_system_s_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, list) in [("node1", "2-3\n"), ("node0", "0-1\n"), ("possible", "")] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join("cpulist"), list).expect("written");
        }
        assert_eq!(lists(folder.path()), [(0, "0-1\n".to_owned()), (1, "2-3\n".to_owned())]);
        assert!(lists(&folder.path().join("none")).is_empty());
    }
}
