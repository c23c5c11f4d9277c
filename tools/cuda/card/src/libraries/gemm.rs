//! Matrix products: half-precision or f32 operands, f32 sums, the result rounded once.

use crate::{
    device::memory::{BASE, Memory},
    float::{bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16},
    machine::{Fault, FaultKind},
};

/// Number types of operands. Source: library_types.h, `cudaDataType_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `CUDA_R_32F`
    F32,
    /// `CUDA_R_16F`
    F16,
    /// `CUDA_R_16BF`
    BF16,
}

impl Kind {
    /// What a number of `cudaDataType_t` means.
    pub fn new(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::F32),
            2 => Some(Self::F16),
            14 => Some(Self::BF16),
            _ => None,
        }
    }

    fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }

    fn read(self, bytes: &[u8], out: &mut [f32]) {
        let short = |pair: &[u8]| u64::from(u16::from_le_bytes([pair[0], pair[1]]));
        match self {
            Self::F32 => {
                for (out, four) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *out = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                }
            }
            Self::F16 => out.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(out, two)| *out = f16_to_f32(short(two))),
            Self::BF16 => {
                out.iter_mut().zip(bytes.chunks_exact(2)).for_each(|(out, two)| *out = bf16_to_f32(short(two)))
            }
        }
    }

    fn write(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16 => values.iter().flat_map(|value| (f32_to_f16(*value) as u16).to_le_bytes()).collect(),
            Self::BF16 => values.iter().flat_map(|value| (f32_to_bf16(*value) as u16).to_le_bytes()).collect(),
        }
    }
}

/// A matrix in memory, column by column.
#[derive(Debug, Clone, Copy)]
pub struct Matrix {
    /// Where it begins.
    pub at: u64,
    /// Its number type.
    pub kind: Kind,
    /// Elements from one column to the next.
    pub leading: usize,
    /// Elements from one of the batch to the next.
    pub stride: i64,
}

/// C = alpha · op(A) · op(B) + beta · C for a batch; op(A) is [m, k], op(B) [k, n].
#[derive(Debug, Clone)]
pub struct Gemm {
    /// Whether A and B are transposed.
    pub transposed: (bool, bool),
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of what C holds.
    pub beta: f32,
    /// The operands.
    pub a: Matrix,
    /// The operands.
    pub b: Matrix,
    /// The result.
    pub c: Matrix,
    /// How many products.
    pub batch: usize,
}

impl Gemm {
    /// Whether half-precision units compute it.
    pub fn is_half(&self) -> bool {
        self.a.kind != Kind::F32
    }

    /// A name for the report.
    pub fn name(&self) -> &'static str {
        match self.a.kind {
            Kind::F32 => "gemm_f32",
            Kind::F16 => "gemm_f16",
            Kind::BF16 => "gemm_bf16",
        }
    }

    /// Numbers of all results.
    pub fn outputs(&self) -> u64 {
        (self.m * self.n * self.batch) as u64
    }

    /// Two for each product and sum.
    pub fn flops(&self) -> u64 {
        2 * self.outputs() * self.k as u64
    }

    /// Bytes of A and B, each read once; a matrix that all of the batch share is read once.
    pub fn bytes_read(&self) -> u64 {
        let of = |matrix: Matrix, elements: usize| {
            (elements * matrix.kind.bytes() * if matrix.stride == 0 { 1 } else { self.batch }) as u64
        };
        of(self.a, self.m * self.k) + of(self.b, self.k * self.n)
    }

    /// Bytes of C.
    pub fn bytes_written(&self) -> u64 {
        self.outputs() * self.c.kind.bytes() as u64
    }

    /// Computes it; where operands are only shapes, checks that they lie in memory.
    ///
    /// # Errors
    /// When an operand does not.
    pub fn run(&self, memory: &Memory, shapes: bool) -> Result<(), Fault> {
        let (a, b) = self.stored();
        for index in 0..self.batch {
            let hollow = hollow(memory, self.a, index, a)? | hollow(memory, self.b, index, b)?;
            if hollow | hollow_target(memory, self.c, index, (self.m, self.n))? {
                if !shapes {
                    return Err(Fault::new(FaultKind::IllegalAddress, "a product of shapes outside shape-only mode"));
                }
                continue;
            }
            self.one(memory, index)?;
        }
        Ok(())
    }

    /// Rows and columns of A and B as they lie in memory.
    fn stored(&self) -> ((usize, usize), (usize, usize)) {
        let turned = |yes: bool, shape: (usize, usize)| if yes { (shape.1, shape.0) } else { shape };
        (turned(self.transposed.0, (self.m, self.k)), turned(self.transposed.1, (self.k, self.n)))
    }

    fn one(&self, memory: &Memory, index: usize) -> Result<(), Fault> {
        let (m, n, k) = (self.m, self.n, self.k);
        if m == 0 || n == 0 {
            return Ok(());
        }
        let (stored_a, stored_b) = self.stored();
        // Rows of op(A) and columns of op(B), each k numbers.
        let rows = lines(memory, self.a, index, stored_a, !self.transposed.0)?;
        let columns = lines(memory, self.b, index, stored_b, self.transposed.1)?;
        let mut out = vec![0f32; m * n];
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let each = n.div_ceil(cores).max(1);
        let work = |from: usize, out: &mut [f32]| {
            for (at, column) in out.chunks_exact_mut(m).enumerate() {
                let b = &columns[(from + at) * k..][..k];
                for (value, a) in column.iter_mut().zip(rows.chunks_exact(k.max(1))) {
                    *value = self.alpha * dot(a, b);
                }
            }
        };
        if m * n * k < 1 << 16 {
            work(0, &mut out);
        } else {
            std::thread::scope(|scope| {
                for (part, out) in out.chunks_mut(each * m).enumerate() {
                    let work = &work;
                    scope.spawn(move || work(part * each, out));
                }
            });
        }
        let bytes = self.c.kind.bytes();
        for (column, values) in out.chunks_exact_mut(m).enumerate() {
            let at = address(self.c, index, column);
            if self.beta != 0.0 {
                let mut old = vec![0.0; m];
                self.c.kind.read(memory.slice(at, m * bytes)?, &mut old);
                values.iter_mut().zip(&old).for_each(|(value, old)| *value += self.beta * old);
            }
            memory.upload(at, &self.c.kind.write(values))?;
        }
        Ok(())
    }
}

fn address(matrix: Matrix, index: usize, column: usize) -> u64 {
    let elements = matrix.stride * index as i64 + (matrix.leading * column) as i64;
    matrix.at.wrapping_add((elements * matrix.kind.bytes() as i64) as u64)
}

/// Whether a matrix is a shape only.
fn hollow(memory: &Memory, matrix: Matrix, index: usize, shape: (usize, usize)) -> Result<bool, Fault> {
    hollow_target(memory, matrix, index, shape)
}

fn hollow_target(
    memory: &Memory,
    matrix: Matrix,
    index: usize,
    (rows, columns): (usize, usize),
) -> Result<bool, Fault> {
    if rows == 0 || columns == 0 {
        return Ok(false);
    }
    if matrix.at < BASE {
        return Err(Fault::new(FaultKind::IllegalAddress, format!("a matrix at {:#x}", matrix.at)));
    }
    let elements = matrix.leading * (columns - 1) + rows;
    Ok(memory.find(address(matrix, index, 0), elements * matrix.kind.bytes())?.1.hollow)
}

/// The matrix's columns one after the other as f32, or with `turned` its rows.
fn lines(
    memory: &Memory,
    matrix: Matrix,
    index: usize,
    (rows, columns): (usize, usize),
    turned: bool,
) -> Result<Vec<f32>, Fault> {
    let mut out = vec![0f32; rows * columns];
    for column in 0..columns {
        let bytes = memory.slice(address(matrix, index, column), rows * matrix.kind.bytes())?;
        matrix.kind.read(bytes, &mut out[column * rows..][..rows]);
    }
    if !turned {
        return Ok(out);
    }
    let mut across = vec![0f32; rows * columns];
    for (column, values) in out.chunks_exact(rows.max(1)).enumerate() {
        for (row, value) in values.iter().enumerate() {
            across[row * columns + column] = *value;
        }
    }
    Ok(across)
}

/// The sum of products, in eight sums side by side.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const SUMS: usize = 16;
    let mut sums = [0f32; SUMS];
    let (blocks_a, blocks_b) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
    let rest: f32 = blocks_a.remainder().iter().zip(blocks_b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in blocks_a.zip(blocks_b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [[1, 2, 3], [4, 5, 6]] · [[1, 0], [0, 1], [2, 2]] in every way of laying the operands out.
    #[test]
    fn products_follow_the_layout() {
        let mut memory = Memory::new(false);
        let at = |slot: u64| BASE + 4096 * (slot + 1);
        for slot in 0..3 {
            memory.allocate(at(slot), 256);
        }
        let upload = |slot: u64, values: &[f32]| memory.upload(at(slot), &Kind::F32.write(values)).unwrap();
        for transposed in [(false, false), (true, false), (false, true), (true, true)] {
            upload(0, if transposed.0 { &[1., 2., 3., 4., 5., 6.] } else { &[1., 4., 2., 5., 3., 6.] });
            upload(1, if transposed.1 { &[1., 0., 0., 1., 2., 2.] } else { &[1., 0., 2., 0., 1., 2.] });
            let matrix = |slot: u64, leading: usize| Matrix { at: at(slot), kind: Kind::F32, leading, stride: 0 };
            let leading = |turned: bool, plain: usize, other: usize| if turned { other } else { plain };
            let gemm = Gemm {
                transposed,
                m: 2,
                n: 2,
                k: 3,
                alpha: 1.0,
                beta: 0.0,
                a: matrix(0, leading(transposed.0, 2, 3)),
                b: matrix(1, leading(transposed.1, 3, 2)),
                c: matrix(2, 2),
                batch: 1,
            };
            // Columns of the result: [1·1+3·2, 4·1+6·2] = [7, 16], [2+6, 5+12] = [8, 17].
            gemm.run(&memory, false).unwrap();
            let mut out = [0f32; 4];
            Kind::F32.read(memory.slice(at(2), 16).unwrap(), &mut out);
            assert_eq!(out, [7.0, 16.0, 8.0, 17.0], "{transposed:?}");
            let more = Gemm { beta: 1.0, alpha: 2.0, ..gemm };
            more.run(&memory, false).unwrap();
            Kind::F32.read(memory.slice(at(2), 16).unwrap(), &mut out);
            assert_eq!(out, [21.0, 48.0, 24.0, 51.0]);
        }
    }

    #[test]
    fn what_was_never_written_is_not_multiplied() {
        let mut memory = Memory::new(false);
        memory.allocate(BASE, 64);
        let matrix = Matrix { at: BASE, kind: Kind::BF16, leading: 2, stride: 0 };
        let gemm = Gemm {
            transposed: (false, false),
            m: 2,
            n: 2,
            k: 2,
            alpha: 1.0,
            beta: 0.0,
            a: matrix,
            b: matrix,
            c: matrix,
            batch: 1,
        };
        assert_eq!(gemm.run(&memory, false).unwrap_err().kind, FaultKind::Uninitialised);
        let outside = Gemm { m: 2, c: Matrix { at: BASE + 60, ..matrix }, ..gemm };
        assert_eq!(outside.run(&memory, false).unwrap_err().kind, FaultKind::IllegalAddress);
    }
}
