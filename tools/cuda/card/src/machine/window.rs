//! Where shared and local memory lie among generic addresses: far above what a device addresses.

/// Generic addresses of shared memory begin here.
pub const SHARED: u64 = 1 << 60;
/// In shared memory, what a launch gives beyond what the kernel declares begins here: how much the kernel declares is known
/// only when all of it has been read.
pub const DYNAMIC: u64 = 1 << 24;
/// Generic addresses of local memory begin here.
pub const LOCAL: u64 = 1 << 61;
