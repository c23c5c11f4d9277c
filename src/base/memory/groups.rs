//! What Linux control groups still allow: versions 1 and 2, all groups above the process as far as it can see them.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

/// What the tightest group above the process still allows, where any limits it.
///
/// A group allows its limit, less what it uses, and what the kernel gives back before it runs out: pages of files and
/// reclaimable kernel memory. After a large download nearly all that a group "uses" is such pages.
pub(super) fn headroom(root: &Path) -> Option<u64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = mounts(root);
    let memberships = own.lines().filter_map(Membership::of);
    let levels = memberships.flat_map(|group| group.levels(root, &mounts));
    levels.filter_map(|(version, folder)| version.headroom(&folder)).min()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A group that the process is in, as `/proc/self/cgroup` says it.
struct Membership<'a> {
    version: Version,
    path: &'a str,
}

impl<'a> Membership<'a> {
    /// Of a line `0::/path` (version 2) or `4:memory:/path`; other controllers say nothing of memory.
    fn of(line: &'a str) -> Option<Self> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let version = match controllers {
            "" if number == "0" => Version::Two,
            controllers if controllers.split(',').any(|controller| controller == "memory") => Version::One,
            _ => return None,
        };
        Some(Self { version, path })
    }

    /// The group's folder and those above it, up to where its hierarchy is mounted.
    fn levels(&self, root: &Path, mounts: &[Mount]) -> Vec<(Version, PathBuf)> {
        let mut of_version = mounts.iter().filter(|mount| mount.version == self.version);
        // A container may see its own group as the root of the mount, or the host's path of it without the folders.
        let below = |mount: &Mount| Path::new(self.path).strip_prefix(&mount.root).ok().map(Path::to_path_buf);
        let found = of_version.clone().find_map(|mount| Some((mount, below(mount)?)));
        let Some((mount, path)) = found.or_else(|| Some((of_version.next()?, PathBuf::new()))) else {
            return Vec::new();
        };
        let top = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
        let is_below = path.components().all(|part| matches!(part, Component::Normal(_)));
        let lowest = if is_below { top.join(path) } else { top.clone() };
        let levels = lowest.ancestors().take_while(|folder| folder.starts_with(&top));
        levels.map(|folder| (self.version, folder.to_path_buf())).collect()
    }
}

impl Version {
    /// What one group allows; `None` where it has no limit.
    fn headroom(self, folder: &Path) -> Option<u64> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        // Version 2 writes "max" for no limit.
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        let statistics = read("memory.stat").unwrap_or_default();
        let counted = |name: &str| {
            let line = statistics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
            line.trim().parse::<u64>().ok()
        };
        let (limits, used, given_back) = match self {
            Self::One => (
                // The second is the least of all groups above, some of which a container cannot see.
                [number("memory.limit_in_bytes"), counted("hierarchical_memory_limit")],
                number("memory.usage_in_bytes")?,
                &["total_inactive_file", "total_active_file"][..],
            ),
            Self::Two => (
                // Above the second the kernel slows a process down until it stands still.
                [number("memory.max"), number("memory.high")],
                number("memory.current")?,
                &["inactive_file", "active_file", "slab_reclaimable"][..],
            ),
        };
        /// Version 1 writes the largest number of whole pages for no limit.
        const NO_LIMIT: u64 = 1 << 62;
        let limit = limits.into_iter().flatten().filter(|limit| *limit < NO_LIMIT).min()?;
        let given_back: u64 = given_back.iter().filter_map(|name| counted(name)).fold(0, u64::saturating_add);
        Some(limit.saturating_add(given_back).saturating_sub(used).min(limit))
    }
}

/// A place where a hierarchy of groups is mounted.
struct Mount {
    version: Version,
    /// The group that is seen there.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

/// The hierarchies that know of memory; where the system does not list its mounts, the usual places.
fn mounts(root: &Path) -> Vec<Mount> {
    if let Ok(text) = fs::read_to_string(root.join("proc/self/mountinfo")) {
        return text.lines().filter_map(mount).collect();
    }
    let usual = |version, point: &str| Mount { version, root: "/".into(), point: point.into() };
    vec![usual(Version::Two, "/sys/fs/cgroup"), usual(Version::One, "/sys/fs/cgroup/memory")]
}

/// Of a line `ID PARENT DEVICE ROOT POINT OPTIONS... - TYPE SOURCE OPTIONS`.
fn mount(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (root, point) = (unescaped(before.next()?), unescaped(before.next()?));
    let mut after = after.split(' ');
    let version = match (after.next()?, after.nth(1)?) {
        ("cgroup2", _) => Version::Two,
        ("cgroup", options) if options.split(',').any(|option| option == "memory") => Version::One,
        _ => return None,
    };
    Some(Mount { version, root: root.into(), point: point.into() })
}

/// Blanks and backslashes are written as three octal digits there.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (code, meant)| text.replace(code, meant))
}
