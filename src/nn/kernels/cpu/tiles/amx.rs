//! AMX: the matrix unit of Intel's processors from 2023 on.

use std::{
    arch::{
        asm,
        x86_64::{__cpuid, __cpuid_count},
    },
    sync::OnceLock,
};

use super::unit::{MatrixUnit, SIDE};

/// The system's permission to use tiles: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
const XFEATURE_XTILEDATA: libc::c_long = 18;
/// Bits of CPUID's leaf 7, EDX: bf16 products and tiles.
const BF16_AND_TILES: u32 = 1 << 22 | 1 << 24;
/// Bits of XCR0: the system keeps the tiles' configuration and contents.
const TILE_STATE: u64 = 1 << 17 | 1 << 18;
/// CPUID's leaf 1, ECX: XGETBV may be asked.
const OSXSAVE: u32 = 1 << 27;

/// Whether this processor has the unit and the system lets this process use it; it is asked once.
pub fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| is_there() && is_permitted())
}

fn is_there() -> bool {
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & OSXSAVE == 0 {
        return false;
    }
    let (low, high): (u32, u32);
    // SAFETY: OSXSAVE says that the instruction is there and XCR0 may be read.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags)) };
    let kept = u64::from(high) << 32 | u64::from(low);
    kept & TILE_STATE == TILE_STATE && __cpuid_count(7, 0).edx & BF16_AND_TILES == BF16_AND_TILES
}

fn is_permitted() -> bool {
    // SAFETY: asks for a permission, for all threads of the process; nothing of this program is touched.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

/// The tiles' configuration, palette 1: eight tiles of 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static WHOLE_TILES: Configuration = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut tile = 0;
    while tile < 8 {
        row_bytes[tile] = 64;
        rows[tile] = SIDE as u8;
        tile += 1;
    }
    Configuration { palette: 1, start_row: 0, reserved: [0; 14], row_bytes, rows }
};

/// The unit of this thread, configured while this lives.
pub struct Amx {
    /// A unit belongs to its thread.
    _here: std::marker::PhantomData<*const ()>,
}

impl Amx {
    /// Configures the unit.
    ///
    /// # Safety
    /// It is [`available`], and this thread has no other.
    pub unsafe fn new() -> Self {
        // SAFETY: the instruction is there; the configuration is 64 bytes that are valid for palette 1.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const WHOLE_TILES, options(nostack, preserves_flags, readonly)) };
        Self { _here: std::marker::PhantomData }
    }
}

impl Drop for Amx {
    fn drop(&mut self) {
        // SAFETY: there is a unit, or there would be no `Amx`.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

// The compiler uses no tile of its own accord: what one block of assembly leaves in them, the next finds.
impl MatrixUnit for Amx {
    #[inline(always)]
    fn zero<const T: usize>(&mut self) {
        // SAFETY: the unit is configured.
        unsafe { asm!("tilezero tmm{}", const T, options(nomem, nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride: usize) {
        // SAFETY: the unit is configured; the rows may be read, as the caller promises.
        unsafe {
            asm!(
                "tileloadd tmm{tile}, [{from} + {stride}*1]",
                tile = const T, from = in(reg) from, stride = in(reg) stride,
                options(nostack, preserves_flags, readonly),
            );
        }
    }

    #[inline(always)]
    unsafe fn store<const T: usize>(&self, to: *mut u32, stride: usize) {
        // SAFETY: the unit is configured; the rows may be written, as the caller promises.
        unsafe {
            asm!(
                "tilestored [{to} + {stride}*1], tmm{tile}",
                tile = const T, to = in(reg) to, stride = in(reg) stride,
                options(nostack, preserves_flags),
            );
        }
    }

    #[inline(always)]
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        // SAFETY: the unit is configured.
        unsafe {
            asm!(
                "tdpbf16ps tmm{c}, tmm{a}, tmm{b}",
                c = const C, a = const A, b = const B,
                options(nomem, nostack, preserves_flags),
            );
        }
    }
}
