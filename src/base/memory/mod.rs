//! Amounts of memory: how they are written, and how much this machine has free.

#[cfg(any(target_os = "linux", test))]
mod groups;
#[cfg(any(target_os = "linux", test))]
mod linux;
#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use super::allocator::kept_bytes;

/// A number of bytes that reads and prints as people write it: `6GB`, `512 MB`, `1.5GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Prefixes of units: kB, MB, GB are powers of 1000; KiB (Ki), MiB (Mi), GiB (Gi) powers of 1024.
const PREFIXES: [char; 5] = ['k', 'm', 'g', 't', 'p'];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = || format!("'{text}' is no amount of memory; write it like 6GB, 512MB or 1.5GiB");
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) =
            lower.split_at(lower.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(lower.len()));
        let number: f64 = number.trim().parse().map_err(|_| wanted())?;
        let bytes = number * unit_bytes(unit).ok_or_else(wanted)?;
        if !(1.0..=1e18).contains(&bytes) {
            return Err(wanted());
        }
        Ok(Self(bytes as u64))
    }
}

/// The bytes of a unit: nothing or `b`, `g`, `gb`, `gi` or `gib`.
fn unit_bytes(unit: &str) -> Option<f64> {
    let Some(prefix) = unit.chars().next().filter(|first| *first != 'b') else {
        return ["", "b", "bytes"].contains(&unit).then_some(1.0);
    };
    let power = PREFIXES.iter().position(|known| *known == prefix)? as i32 + 1;
    match &unit[1..] {
        "" | "b" => Some(1000_f64.powi(power)),
        "i" | "ib" => Some(1024_f64.powi(power)),
        _ => None,
    }
}

impl Bytes {
    /// As it is typed behind a flag: without the space.
    pub fn flag(self) -> String {
        self.to_string().replace(' ', "")
    }

    /// What the next try may take, where a device had no room for these: enough less to matter, whatever was in the way.
    pub fn shrunk(self) -> Self {
        Self(self.0 / 5 * 4)
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

/// Memory that new allocations can take without swapping: what the system calls available, or what a control group above this
/// process, or a limit of its own (`ulimit -v`, `ulimit -d`), leaves of it, and what the allocator keeps for them. `None` where the
/// system does not say.
pub fn available_bytes() -> Option<u64> {
    system::available_bytes().map(|bytes| bytes.saturating_add(kept_bytes()))
}

/// What limits of this process itself (`ulimit -v`, `ulimit -d`) leave, where it has any, and what the allocator keeps. Files that it
/// maps count against the first.
pub fn process_bytes() -> Option<u64> {
    system::process_bytes().map(|bytes| bytes.saturating_add(kept_bytes()))
}

/// The most resident memory this process has held so far, where the system tells.
pub fn peak_resident_bytes() -> Option<u64> {
    system::peak_resident_bytes()
}

#[cfg(target_os = "linux")]
mod system {
    use std::path::Path;

    use super::linux;

    const ROOT: &str = "/";

    pub fn available_bytes() -> Option<u64> {
        linux::available_bytes(Path::new(ROOT))
    }

    pub fn process_bytes() -> Option<u64> {
        linux::process_bytes(Path::new(ROOT))
    }

    pub fn peak_resident_bytes() -> Option<u64> {
        linux::peak_resident_bytes(Path::new(ROOT))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use sysinfo::{MemoryRefreshKind, System};

    pub fn available_bytes() -> Option<u64> {
        let mut system = System::new();
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        Some(system.available_memory()).filter(|bytes| *bytes > 0)
    }

    pub fn process_bytes() -> Option<u64> {
        None
    }

    pub fn peak_resident_bytes() -> Option<u64> {
        None
    }
}
