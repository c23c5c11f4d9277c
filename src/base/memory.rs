//! Amounts of memory: how they are written, and how much this machine has free.

use std::{fmt, str::FromStr};

/// A number of bytes that reads and prints as people write it: `6GB`, `512 MB`, `1.5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Units and their sizes; GB is 10^9 bytes and GiB 2^30.
const UNITS: [(&str, f64); 8] = [
    ("kib", 1024.0),
    ("mib", 1_048_576.0),
    ("gib", 1_073_741_824.0),
    ("kb", 1e3),
    ("mb", 1e6),
    ("gb", 1e9),
    ("g", 1e9),
    ("m", 1e6),
];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.trim().to_ascii_lowercase();
        let wanted = || format!("'{text}' is no amount of memory; write it like 6GB, 512MB or 1.5GiB");
        let (number, size) = UNITS
            .iter()
            .find_map(|(unit, size)| lower.strip_suffix(unit).map(|number| (number, *size)))
            .or_else(|| lower.strip_suffix('b').map(|number| (number, 1.0)))
            .unwrap_or((&lower, 1.0));
        let number: f64 = number.trim().parse().map_err(|_| wanted())?;
        let bytes = number * size;
        if !(1.0..=1e18).contains(&bytes) {
            return Err(wanted());
        }
        Ok(Self(bytes as u64))
    }
}

impl Bytes {
    /// As it is typed behind a flag: without the space.
    pub fn flag(self) -> String {
        self.to_string().replace(' ', "")
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} B", self.0),
            1_000..1_000_000 => write!(f, "{:.0} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.0} MB", bytes / 1e6),
            _ => write!(f, "{:.1} GB", bytes / 1e9),
        }
    }
}

/// Memory that new allocations can take without swapping: what the system calls available, or the limit of this
/// process's control group where that is less. `None` where the system does not say.
pub fn available_bytes() -> Option<u64> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let available = line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024;
    Some(cgroup_headroom().map_or(available, |headroom| headroom.min(available)))
}

/// What a version 2 control group still allows this process, if one limits it.
fn cgroup_headroom() -> Option<u64> {
    let own = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let folder = std::path::Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/'));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(read("memory.max")?.saturating_sub(read("memory.current")?))
}

/// The most resident memory this process has held so far, where the system tells.
pub fn peak_resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_people_write_them() {
        let cases = [
            ("6GB", 6_000_000_000),
            ("1.5GiB", 1_610_612_736),
            ("512 mb", 512_000_000),
            ("8G", 8_000_000_000),
            ("4096", 4096),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "GB", "-1GB", "nanGB", "1e30GB", "0", "six"] {
            assert!(text.parse::<Bytes>().expect_err(text).contains("6GB"));
        }
    }

    #[test]
    fn amounts_print_short() {
        assert_eq!(Bytes(999).to_string(), "999 B");
        assert_eq!(Bytes(23_800_000_000).to_string(), "23.8 GB");
        assert_eq!(Bytes(812_000_000).to_string(), "812 MB");
    }
}
