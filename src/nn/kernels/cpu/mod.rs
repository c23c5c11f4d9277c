//! The CPU's own kernels, on plain slices of f32: no tensors, no devices.

pub mod attention;
mod attention_pairs;
mod attention_products;
pub mod int8;
pub mod linear;
mod pack;
pub mod pairs;
pub mod rows;
pub mod simd;
mod tiled;
pub mod tiles;

use std::{marker::PhantomData, time::Duration};

use gemm::Parallelism;

/// Rows of one register tile of gemm's f32 product with AVX-512. An operand held as [.., 64], these rows side by side,
/// is read as it lies.
pub(crate) const REGISTER_ROWS: usize = 64;

/// Tells gemm to read such operands in place: its own threshold would copy them once more for every product.
fn use_unpacked_operands() {
    gemm::set_lhs_packing_threshold_single_thread(usize::MAX / REGISTER_ROWS);
}

/// A mutable slice that several tasks write to, each its own places.
pub(crate) struct SharedMut<'a> {
    start: *mut f32,
    len: usize,
    _slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: `slice` is unsafe and asks that no two tasks overlap.
unsafe impl Sync for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), _slice: PhantomData }
    }

    /// `len` numbers from `start` on.
    ///
    /// # Safety
    /// No other slice that overlaps this one is alive.
    pub(crate) unsafe fn slice(&self, start: usize, len: usize) -> &'a mut [f32] {
        assert!(start + len <= self.len, "{start} + {len} is beyond {}", self.len);
        // SAFETY: within the slice this was made from; disjointness is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }

    /// A pointer to the corner of a tile of `rows` x `columns` numbers whose rows are `stride` apart.
    pub(crate) fn corner(&self, start: usize, rows: usize, columns: usize, stride: usize) -> *mut f32 {
        let end = start + rows.saturating_sub(1) * stride + columns;
        assert!(end <= self.len, "{end} is beyond {}", self.len);
        // SAFETY: within the slice this was made from.
        unsafe { self.start.add(start) }
    }
}

/// A matrix somewhere in memory: element (i, j) lies at `start + i·rows + j·columns`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strided<P> {
    pub start: P,
    pub rows: usize,
    pub columns: usize,
}

/// `out [m, n] = (out, if it adds) + a [m, k] · b [k, n]`, on this thread alone; `size` is (m, n, k).
///
/// # Safety
/// All three matrices lie in memory that is theirs, and nobody else uses `out` meanwhile.
pub(crate) unsafe fn product(
    size: (usize, usize, usize),
    out: Strided<*mut f32>,
    adds: bool,
    a: Strided<*const f32>,
    b: Strided<*const f32>,
) {
    let (m, n, k) = size;
    let (rows, columns) = (out.rows as isize, out.columns as isize);
    let (a_rows, a_columns) = (a.rows as isize, a.columns as isize);
    let (b_rows, b_columns) = (b.rows as isize, b.columns as isize);
    // SAFETY: the caller's promise. gemm takes the stride between columns before the one between rows.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.start,
            columns,
            rows,
            adds,
            a.start,
            a_columns,
            a_rows,
            b.start,
            b_columns,
            b_rows,
            1.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Whether one run takes less of this thread's time than another, most of the times that they are timed in turns: how kernels are chosen
/// by a measurement of some milliseconds. Whatever else the machine does meanwhile, two processes should choose the same, or a picture
/// is not made again to the last bit.
pub(crate) fn is_faster(mut run: impl FnMut(), mut than: impl FnMut()) -> bool {
    let wins = (0..ROUNDS).filter(|_| timed(&mut run) < timed(&mut than)).count();
    2 * wins > ROUNDS
}

/// How often two runs are timed.
const ROUNDS: usize = 15;

fn timed(run: impl FnOnce()) -> Duration {
    let start = own_time();
    run();
    own_time().saturating_sub(start)
}

/// The time that this thread has computed, which others do not lengthen.
#[cfg(unix)]
fn own_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it is a place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The time since the first call: here no thread's own time is asked for.
#[cfg(not(unix))]
fn own_time() -> Duration {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    START.get_or_init(std::time::Instant::now).elapsed()
}
