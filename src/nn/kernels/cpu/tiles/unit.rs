//! What a matrix unit does: eight tiles of 16 rows of 64 bytes, products of bf16 with f32 sums. Source: Intel's manual, volume 2,
//! TDPBF16PS, TILELOADD, TILESTORED.

/// Rows of a tile, and numbers of f32 or pairs of bf16 in one of them.
pub const SIDE: usize = 16;
/// Numbers of bf16 in a row.
pub const DEPTH: usize = 2 * SIDE;

/// 16 x 16 numbers of f32, or pairs of bf16, low half first.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Tile(pub [[u32; SIDE]; SIDE]);

/// A matrix unit of one thread.
pub trait MatrixUnit {
    /// Tile `T` becomes zero.
    fn zero<const T: usize>(&mut self);

    /// Tile `T` becomes 16 rows of 64 bytes, `stride` bytes apart.
    ///
    /// # Safety
    /// They may be read.
    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride: usize);

    /// Tile `T` is written to 16 rows of 64 bytes, `stride` bytes apart.
    ///
    /// # Safety
    /// They may be written.
    unsafe fn store<const T: usize>(&self, to: *mut u32, stride: usize);

    /// Adds to the f32 sums [16, 16] of tile `C` the product of `A`, rows of pairs [16, 16], and `B`, whose row k holds pair k of
    /// 16 columns.
    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self);
}

/// A unit in plain Rust, exact to the manual but for denormal numbers: what is built on tiles is tested with it anywhere.
pub struct Model {
    tiles: Box<[Tile; 8]>,
}

impl Model {
    /// With tiles of zeros.
    pub fn new() -> Self {
        Self { tiles: Box::new([Tile([[0; SIDE]; SIDE]); 8]) }
    }
}

impl MatrixUnit for Model {
    fn zero<const T: usize>(&mut self) {
        self.tiles[T] = Tile([[0; SIDE]; SIDE]);
    }

    unsafe fn load<const T: usize>(&mut self, from: *const u32, stride: usize) {
        for (row, values) in self.tiles[T].0.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *values = unsafe { from.byte_add(row * stride).cast::<[u32; SIDE]>().read_unaligned() };
        }
    }

    unsafe fn store<const T: usize>(&self, to: *mut u32, stride: usize) {
        for (row, values) in self.tiles[T].0.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.byte_add(row * stride).cast::<[u32; SIDE]>().write_unaligned(*values) };
        }
    }

    fn multiply<const C: usize, const A: usize, const B: usize>(&mut self) {
        let (a, b) = (self.tiles[A], self.tiles[B]);
        let low = |pair: u32| f32::from_bits(pair << 16);
        let high = |pair: u32| f32::from_bits(pair & 0xFFFF_0000);
        for (sums, a) in self.tiles[C].0.iter_mut().zip(&a.0) {
            // Products of even numbers and of odd ones are summed apart.
            let (mut even, mut odd) = ([0.0_f32; SIDE], [0.0_f32; SIDE]);
            for (a, b) in a.iter().zip(&b.0) {
                for (n, b) in b.iter().enumerate() {
                    even[n] += low(*a) * low(*b);
                    odd[n] += high(*a) * high(*b);
                }
            }
            for (n, sum) in sums.iter_mut().enumerate() {
                *sum = (f32::from_bits(*sum) + (even[n] + odd[n])).to_bits();
            }
        }
    }
}
