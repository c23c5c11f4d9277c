//! Limits that whoever starts the program has set: planned for, or told with what to do.

use std::os::unix::process::CommandExt;

use crate::support::program::{Place, Run, small};

/// The program where a limit of its process is so many bytes.
fn limited(resource: libc::__rlimit_resource_t, bytes: u64, args: &[&str]) -> Run {
    let place = Place::new();
    let mut command = place.command(&small(args));
    let limit = move || {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: async-signal-safe, and touches nothing but this new process.
        match unsafe { libc::setrlimit(resource, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(limit) };
    command.output().expect("starts").into()
}

#[test]
fn too_little_of_a_limited_process_says_which_limit() {
    limited(libc::RLIMIT_DATA, 40_000_000, &[]).fails(1, &["takes at least", "may take", "ulimit -v", "ulimit -d"]);
}

/// Threads, mapped files and allocations all meet it, and which does first depends on the machine.
#[test]
fn a_limited_address_space_is_never_met_without_a_word() {
    for megabytes in [100, 120, 150, 200, 250, 400] {
        let run = limited(libc::RLIMIT_AS, megabytes * 1_000_000, &["-q"]);
        assert!(run.code == Some(0) || run.stderr.contains("ulimit -v"), "{megabytes} MB: {}", run.stderr);
    }
}

#[test]
fn a_limit_that_leaves_enough_is_planned_for() {
    for resource in [libc::RLIMIT_DATA, libc::RLIMIT_AS] {
        let run = limited(resource, 3_000_000_000, &["--dry-run", "--json"]);
        let plan: serde_json::Value = serde_json::from_str(&run.succeeds().stdout).expect("JSON");
        let budget = plan["plan"]["budget_bytes"].as_u64().expect("known");
        assert!((1_000_000_000..2_700_000_000).contains(&budget), "{budget}");
        limited(resource, 3_000_000_000, &[]).succeeds();
    }
}
