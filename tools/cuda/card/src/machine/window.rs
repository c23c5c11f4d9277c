//! Where shared and local memory lie among generic addresses: far above what a device addresses.

/// Generic addresses of shared memory begin here.
pub const SHARED: u64 = 1 << 60;
/// Generic addresses of local memory begin here.
pub const LOCAL: u64 = 1 << 61;
