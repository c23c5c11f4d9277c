use std::{fs, path::Path};

use super::{Bytes, groups, linux};

#[test]
fn amounts_are_read_as_people_write_them() {
    let cases = [
        ("6GB", 6_000_000_000),
        ("1.5GiB", 1_610_612_736),
        ("512 mb", 512_000_000),
        ("8G", 8_000_000_000),
        ("512M", 512_000_000),
        ("4096", 4096),
        ("4096 B", 4096),
        ("6Gi", 6_442_450_944),
        ("6 gi", 6_442_450_944),
        ("512Mi", 536_870_912),
        ("6TB", 6_000_000_000_000),
        ("2T", 2_000_000_000_000),
        ("2TiB", 2_199_023_255_552),
        ("1Pi", 1_125_899_906_842_624),
        ("900K", 900_000),
        ("900kB", 900_000),
        ("900Ki", 921_600),
        ("6e9", 6_000_000_000),
        (" 0.5tb ", 500_000_000_000),
    ];
    for (text, bytes) in cases {
        assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
    }
}

#[test]
fn what_is_no_amount_is_refused() {
    let cases = [
        "", "GB", "-1GB", "nanGB", "inf", "1e30GB", "0", "six", "6GBB", "6Gib5", "6 G B", "6X", "6iB", "6%", "6,5GB",
        "1 2GB",
    ];
    for text in cases {
        assert!(text.parse::<Bytes>().expect_err(text).contains("6GB"), "{text}");
    }
}

#[test]
fn amounts_print_short() {
    assert_eq!(Bytes(999).to_string(), "999 B");
    assert_eq!(Bytes(23_800_000_000).to_string(), "23.8 GB");
    assert_eq!(Bytes(812_000_000).to_string(), "812 MB");
}

/// A folder that stands for `/`, with these files in it.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a folder");
    for (path, text) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }
    root
}

const V2: &str =
    "31 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
const V1: &str = "20 1 0:19 / / rw - ext4 /dev/sda rw\n\
    32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

/// What groups allow on a machine with these mounts, memberships and files.
fn headroom(mounts: &str, own: &str, files: &[(&str, &str)]) -> Option<u64> {
    let system = [("proc/self/mountinfo", mounts), ("proc/self/cgroup", own)];
    groups::headroom(machine(&[&system, files].concat()).path())
}

#[test]
fn pages_of_files_do_not_count_as_used() {
    let files = [
        ("sys/fs/cgroup/box/memory.max", "64000000000\n"),
        ("sys/fs/cgroup/box/memory.high", "max\n"),
        ("sys/fs/cgroup/box/memory.current", "63900000000\n"),
        (
            "sys/fs/cgroup/box/memory.stat",
            "anon 300000000\nfile 63500000000\nshmem 500000000\ninactive_file 60000000000\nactive_file 3000000000\n\
             slab_reclaimable 50000000\nslab 70000000\n",
        ),
    ];
    assert_eq!(headroom(V2, "0::/box\n", &files), Some(63_150_000_000), "shared memory stays used");
}

#[test]
fn every_group_above_counts_in_both_versions() {
    let two = [
        ("sys/fs/cgroup/slurm/job_77/memory.max", "200000000"),
        ("sys/fs/cgroup/slurm/job_77/memory.current", "50000000"),
        ("sys/fs/cgroup/slurm/job_77/step_0/memory.max", "max"),
        ("sys/fs/cgroup/slurm/job_77/step_0/memory.current", "50000000"),
        ("sys/fs/cgroup/slurm/job_77/step_0/task_0/memory.max", "900000000"),
        ("sys/fs/cgroup/slurm/job_77/step_0/task_0/memory.current", "50000000"),
    ];
    assert_eq!(headroom(V2, "0::/slurm/job_77/step_0/task_0\n", &two), Some(150_000_000));
    let one = [
        ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "150000000"),
        ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "140000000"),
        (
            "sys/fs/cgroup/memory/job/memory.stat",
            "cache 1\ninactive_file 1\ntotal_inactive_file 80000000\ntotal_active_file 20000000\n",
        ),
        ("sys/fs/cgroup/memory/job/step/memory.limit_in_bytes", "9223372036854771712"),
        ("sys/fs/cgroup/memory/job/step/memory.usage_in_bytes", "10"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "10"),
    ];
    assert_eq!(headroom(V1, "5:cpu:/other\n4:memory:/job/step\n", &one), Some(110_000_000));
    assert_eq!(headroom(V1, "4:cpuset,memory:/job/step\n", &one), Some(110_000_000), "mounted with another controller");
    assert_eq!(headroom(V1, "4:memory:/\n", &one), None, "no limit is no limit");
}

#[test]
fn what_slows_down_counts_as_a_limit() {
    let files = |high| {
        [
            ("sys/fs/cgroup/a/memory.max", "800"),
            ("sys/fs/cgroup/a/memory.high", high),
            ("sys/fs/cgroup/a/memory.current", "100"),
        ]
    };
    assert_eq!(headroom(V2, "0::/a\n", &files("500")), Some(400));
    assert_eq!(headroom(V2, "0::/a\n", &files("max")), Some(700));
    assert_eq!(headroom(V2, "0::/a\n", &files("50")), Some(0), "used up");
}

#[test]
fn containers_see_their_group_in_several_ways() {
    let one =
        [("sys/fs/cgroup/memory/memory.limit_in_bytes", "500"), ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100")];
    let docker = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    assert_eq!(headroom(docker, "4:memory:/docker/abc\n", &one), Some(400), "the mount is the group itself");
    let below = [
        ("sys/fs/cgroup/memory/sub/memory.limit_in_bytes", "300"),
        ("sys/fs/cgroup/memory/sub/memory.usage_in_bytes", "0"),
    ];
    assert_eq!(headroom(docker, "4:memory:/docker/abc/sub\n", &[&one[..], &below].concat()), Some(300));
    assert_eq!(headroom(docker, "4:memory:/kubepods/pod1/x\n", &one), Some(400), "the host's path, which is not there");
    let hidden = [one[0], one[1], ("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 250\n")];
    assert_eq!(headroom(docker, "4:memory:/docker/abc\n", &hidden), Some(150), "a limit above what is seen");
    let two = [("sys/fs/cgroup/memory.max", "500"), ("sys/fs/cgroup/memory.current", "100")];
    assert_eq!(headroom(V2, "0::/\n", &two), Some(400), "a namespace of its own");
    assert_eq!(headroom(V2, "0::/../other\n", &two), Some(400), "moved out of its namespace");
    let elsewhere = "31 24 0:26 / /my\\040groups/v2 rw - cgroup2 none rw\n".replace("\\\\", "\\");
    let two = [("my groups/v2/a/memory.max", "500"), ("my groups/v2/a/memory.current", "100")];
    assert_eq!(headroom(&elsewhere, "0::/a\n", &two), Some(400), "mounted elsewhere, with a blank");
}

#[test]
fn both_versions_at_once_and_neither() {
    let both = [V1, "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"].concat();
    let files = [
        ("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "700"),
        ("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "100"),
        ("sys/fs/cgroup/unified/job/memory.max", "500"),
        ("sys/fs/cgroup/unified/job/memory.current", "100"),
    ];
    assert_eq!(headroom(&both, "4:memory:/job\n1:name=systemd:/job\n0::/job\n", &files), Some(400));
    assert_eq!(headroom(&both, "4:memory:/job\n0::/\n", &files), Some(600));
    assert_eq!(headroom("", "0::/job\n", &files), None, "nothing mounted");
    assert_eq!(groups::headroom(Path::new("/no/such/root")), None);
}

const MEMINFO: &str =
    "MemTotal: 24000000 kB\nMemFree: 1000 kB\nMemAvailable: 20000 kB\nBuffers: 200 kB\nCached: 300 kB\n";
const STATUS: &str =
    "VmPeak: 9000 kB\nVmSize: 800000 kB\nVmHWM: 3000 kB\nVmRSS: 2500 kB\nRssAnon: 200000 kB\nVmData: 500000 kB\n";

fn limits(data: &str, space: &str) -> String {
    format!(
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max data size             {data}            unlimited            bytes     \n\
         Max address space         {space}            unlimited            bytes     \n"
    )
}

/// What is available with this meminfo, status and limits.
fn available(meminfo: &str, status: &str, limits: &str) -> Option<u64> {
    let files = [("proc/meminfo", meminfo), ("proc/self/status", status), ("proc/self/limits", limits)];
    linux::available_bytes(machine(&files).path())
}

#[test]
fn the_machine_and_the_limits_of_the_process_count() {
    const KB: u64 = 1024;
    let meminfo = MEMINFO.replace("20000 kB", "20000000 kB");
    let free = limits("unlimited", "unlimited");
    assert_eq!(available(&meminfo, STATUS, &free), Some(20_000_000 * KB));
    let old = meminfo.replace("MemAvailable: 20000000 kB\n", "");
    assert_eq!(available(&old, STATUS, &free), Some(1_500 * KB), "a kernel that does not add it up");
    let kilobytes = |number: u64| (number * KB).to_string();
    // 150 MB of what is mapped are the untouched half of what the allocator holds; 16 MiB are left to threads.
    let space = limits("unlimited", &kilobytes(900_000));
    assert_eq!(available(&meminfo, STATUS, &space), Some((900_000 - 650_000 - 16_384) * KB));
    let data = limits(&kilobytes(700_000), "unlimited");
    assert_eq!(available(&meminfo, STATUS, &data), Some((700_000 - 350_000 - 16_384) * KB));
    assert_eq!(available(&meminfo, STATUS, &limits("4096", "unlimited")), Some(0));
    assert_eq!(available("", STATUS, &free), None);
    let process = |limits: &str| {
        linux::process_bytes(machine(&[("proc/self/status", STATUS), ("proc/self/limits", limits)]).path())
    };
    assert_eq!(process(&limits(&kilobytes(700_000), &kilobytes(900_000))), Some((250_000 - 16_384) * KB));
    assert_eq!(process(&free), None);
    let root = machine(&[("proc/self/status", STATUS)]);
    assert_eq!(linux::peak_resident_bytes(root.path()), Some(3_000 * KB));
}

#[test]
fn no_more_than_one_reserve_of_the_allocator_counts_as_free() {
    const KB: u64 = 1024;
    let status = "VmSize: 9000000 kB\nRssAnon: 50000 kB\nVmData: 6000000 kB\n";
    let limits = limits(&(8_000_000 * KB).to_string(), "unlimited");
    let found = available("MemAvailable: 20000000 kB\n", status, &limits);
    assert_eq!(found, Some((8_000_000 - 6_000_000 + (1 << 19) - 16_384) * KB));
}
