//! Matrices in the registers of a warp, and copies that a thread waits for.

use super::{INPUT, OUTPUT, kernel};
use crate::{
    device::memory::Memory,
    float::{BF16, F16, Format, Rounding, e4m3_to_f32, f32_to_e4m3},
    machine::{Fault, FaultKind, Launch},
    ptx::code::LANES,
};

/// What one warp leaves of so many words, which it is given.
fn run(body: &str, input: &[u32], outputs: usize) -> Result<Vec<u32>, Fault> {
    let mut memory = Memory::new(false);
    memory.allocate(INPUT, 4 * input.len());
    memory.allocate(OUTPUT, 4 * outputs);
    memory.upload(INPUT, &input.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>())?;
    let kernel = kernel(body);
    let parameters = [&INPUT.to_le_bytes()[..], &OUTPUT.to_le_bytes(), &0u32.to_le_bytes()].concat();
    let launch = Launch {
        kernel: &kernel,
        grid: [1; 3],
        block: [LANES as u32, 1, 1],
        dynamic_shared: 0,
        parameters: &parameters,
        seed: 0,
    };
    launch.run(&memory)?;
    let bytes = memory.slice(OUTPUT, 4 * outputs)?;
    Ok(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}

/// c of a product, as lanes hold it, for a [16, 16], b [16, 8], c [16, 8]: where each number lies is said in the words of the ISA.
fn product(
    (kind, format): (&str, Format),
    a: impl Fn(usize, usize) -> f64,
    b: impl Fn(usize, usize) -> f64,
    c: impl Fn(usize, usize) -> f32,
) -> Vec<Vec<f32>> {
    let bits = |value: f64| format.round(value, Rounding::Nearest) as u32;
    let pair = |low: f64, high: f64| bits(low) | bits(high) << 16;
    let mut input = Vec::new();
    for lane in 0..LANES {
        let (group, thread) = (lane >> 2, lane % 4);
        let of_a = |i: usize| {
            let row = if i < 2 || (4..6).contains(&i) { group } else { group + 8 };
            let column = if i < 4 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 };
            a(row, column)
        };
        let of_b = |i: usize| b(if i < 2 { thread * 2 + (i & 1) } else { thread * 2 + (i & 1) + 8 }, group);
        let of_c = |i: usize| c(if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1));
        input.extend((0..4).map(|i| pair(of_a(2 * i), of_a(2 * i + 1))));
        input.extend((0..2).map(|i| pair(of_b(2 * i), of_b(2 * i + 1))));
        input.extend((0..4).map(|i| of_c(i).to_bits()));
    }
    multiply(&format!("m16n8k16.row.col.f32.{kind}.{kind}.f32"), &input)
}

/// The same of e4m3, for a [16, 32] and b [32, 8].
fn product_of_e4m3(
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
    c: impl Fn(usize, usize) -> f32,
) -> Vec<Vec<f32>> {
    let four = |number: &dyn Fn(usize) -> f32, i: usize| {
        (0..4).fold(0, |bits, at| bits | (f32_to_e4m3(number(4 * i + at)) as u32) << (8 * at))
    };
    let mut input = Vec::new();
    for lane in 0..LANES {
        let (group, thread) = (lane >> 2, lane % 4);
        let of_a = |i: usize| {
            let row = if i < 4 || (8..12).contains(&i) { group } else { group + 8 };
            let column = if i < 8 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 };
            a(row, column)
        };
        let of_b = |i: usize| b(if i < 4 { thread * 4 + (i & 3) } else { thread * 4 + (i & 3) + 16 }, group);
        let of_c = |i: usize| c(if i < 2 { group } else { group + 8 }, thread * 2 + (i & 1));
        input.extend((0..4).map(|i| four(&of_a, i)));
        input.extend((0..2).map(|i| four(&of_b, i)));
        input.extend((0..4).map(|i| of_c(i).to_bits()));
    }
    multiply("m16n8k32.row.col.f32.e4m3.e4m3.f32", &input)
}

/// d of a product of what lanes hold, as rows.
fn multiply(kind: &str, input: &[u32]) -> Vec<Vec<f32>> {
    let body = format!(
        "mul.lo.s32 %r6, %r5, 40; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd1, %rd6;
        ld.global.u32 %r10, [%rd6]; ld.global.u32 %r11, [%rd6+4]; ld.global.u32 %r12, [%rd6+8]; ld.global.u32 %r13, [%rd6+12];
        ld.global.u32 %r14, [%rd6+16]; ld.global.u32 %r15, [%rd6+20]; ld.global.f32 %f1, [%rd6+24];
        ld.global.f32 %f2, [%rd6+28]; ld.global.f32 %f3, [%rd6+32]; ld.global.f32 %f4, [%rd6+36];
        mma.sync.aligned.{kind}
            {{%f1, %f2, %f3, %f4}}, {{%r10, %r11, %r12, %r13}}, {{%r14, %r15}}, {{%f1, %f2, %f3, %f4}};
        shl.b32 %r6, %r5, 4; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd2, %rd6;
        st.global.v4.f32 [%rd6], {{%f1, %f2, %f3, %f4}}; ret;"
    );
    let out = run(&body, input, 4 * LANES).unwrap();
    let mut rows = vec![vec![f32::NAN; 8]; 16];
    for (index, word) in out.iter().enumerate() {
        let (lane, i) = (index / 4, index % 4);
        rows[(lane >> 2) + 8 * usize::from(i >= 2)][lane % 4 * 2 + (i & 1)] = f32::from_bits(*word);
    }
    rows
}

#[test]
fn a_warp_multiplies_matrices() {
    let a = |row: usize, k: usize| ((row * 16 + k) % 11) as f64 - 5.0;
    let b = |k: usize, column: usize| ((k * 8 + column) % 7) as f64 - 3.0;
    let c = |row: usize, column: usize| (100 * row + column) as f32;
    for kind in [("bf16", BF16), ("f16", F16)] {
        let found = product(kind, a, b, c);
        for (row, numbers) in found.iter().enumerate() {
            for (column, found) in numbers.iter().enumerate() {
                let want = (0..16).map(|k| a(row, k) * b(k, column)).sum::<f64>() + f64::from(c(row, column));
                assert_eq!(f64::from(*found), want, "{} {row} {column}", kind.0);
            }
        }
    }
}

#[test]
fn a_warp_multiplies_matrices_of_e4m3() {
    let a = |row: usize, k: usize| ((row * 32 + k) % 13) as f32 - 6.0;
    let b = |k: usize, column: usize| ((k * 8 + column) % 9) as f32 / 8.0 - 0.5;
    let c = |row: usize, column: usize| (100 * row + column) as f32;
    let found = product_of_e4m3(a, b, c);
    for (row, numbers) in found.iter().enumerate() {
        for (column, found) in numbers.iter().enumerate() {
            let want = (0..32).map(|k| a(row, k) * b(k, column)).sum::<f32>() + c(row, column);
            assert_eq!(*found, want, "{row} {column}");
        }
    }
    // The largest and the smallest code, each squared; 1.875² has 8 bits; NaN is NaN.
    let alone = |x: f32| product_of_e4m3(move |_, k| if k == 17 { x } else { 0.0 }, move |_, _| x, |_, _| 0.0)[9][3];
    for x in [448.0, 0.001_953_125, 1.875] {
        assert_eq!(alone(x), x * x);
    }
    assert!(alone(f32::NAN).is_nan());
    // 32 ones beside 2^24, each lost by itself.
    assert_eq!(product_of_e4m3(|_, _| 1.0, |_, _| 1.0, |_, _| 16_777_216.0)[15][7], 16_777_216.0);
    assert_eq!(e4m3_to_f32(f32_to_e4m3(1.0)), 1.0);
}

#[test]
fn products_are_exact_and_sums_are_of_f32() {
    // (1 + 2^-7)² has 15 bits, which neither 16-bit type holds.
    let one_more = |_: usize, k: usize| if k == 0 { 1.0 + 1.0 / 128.0 } else { 0.0 };
    let its_column = |k: usize, _: usize| if k == 0 { 1.0 + 1.0 / 128.0 } else { 0.0 };
    let found = product(("bf16", BF16), one_more, its_column, |_, _| 0.0);
    assert_eq!(found[3][5], 1.0 + 1.0 / 64.0 + 1.0 / 16384.0);
    // 16 ones beside 2^24, each lost by itself.
    let found = product(("f16", F16), |_, _| 1.0, |_, _| 1.0, |_, _| 16_777_216.0);
    assert_eq!(found[15][7], 16_777_216.0);
    // Far beyond what f16 holds.
    let largest = |_: usize, k: usize| if k == 3 { 65504.0 } else { 0.0 };
    let found = product(("f16", F16), largest, |_, _| 65504.0, |_, _| 0.0);
    assert_eq!(found[0][0], 65504.0 * 65504.0);
}

/// Row r of tile (16 bytes) holds 8r .. 8r + 7; lane l names row 31 - l.
const ROWS: &str = "
    mov.u32 %r9, tile; shl.b32 %r6, %r5, 3; shl.b32 %r7, %r5, 4; add.s32 %r7, %r9, %r7;
    add.s32 %r8, %r6, 1; shl.b32 %r8, %r8, 16; or.b32 %r10, %r6, %r8; add.s32 %r11, %r10, 0x20002;
    add.s32 %r12, %r10, 0x40004; add.s32 %r13, %r10, 0x60006; st.shared.v4.b32 [%r7], {%r10, %r11, %r12, %r13};
    bar.warp.sync -1;
    sub.s32 %r7, 31, %r5; shl.b32 %r7, %r7, 4; add.s32 %r7, %r9, %r7;";

#[test]
fn matrices_are_loaded_by_rows_and_by_columns() {
    let body = |trans: &str| {
        format!(
            "{ROWS} ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r14, %r15, %r16, %r17}}, [%r7];
            shl.b32 %r6, %r5, 4; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd2, %rd6;
            st.global.v4.b32 [%rd6], {{%r14, %r15, %r16, %r17}}; ret;"
        )
    };
    let number = |matrix: usize, row: usize, column: usize| 8 * (31 - (8 * matrix + row)) + column;
    let plain = run(&body(""), &[0; LANES], 4 * LANES).unwrap();
    let transposed = run(&body(".trans"), &[0; LANES], 4 * LANES).unwrap();
    for lane in 0..LANES {
        for matrix in 0..4 {
            let (row, column) = (lane / 4, lane % 4 * 2);
            let pair = |low: usize, high: usize| (low | high << 16) as u32;
            let want = pair(number(matrix, row, column), number(matrix, row, column + 1));
            assert_eq!(plain[4 * lane + matrix], want, "lane {lane}, matrix {matrix}");
            let want = pair(number(matrix, column, row), number(matrix, column + 1, row));
            assert_eq!(transposed[4 * lane + matrix], want, "lane {lane}, matrix {matrix}, transposed");
        }
    }
    let fault = run(&body("").replace("[%r7];", "[%r7+8];"), &[0; LANES], 4 * LANES).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Misaligned);
    let some = body("").replace("ldmatrix", "setp.lt.u32 %p1, %r5, 16; @%p1 ldmatrix");
    assert_eq!(run(&some, &[0; LANES], 4 * LANES).unwrap_err().kind, FaultKind::Deadlock);
}

/// Lane l copies 16 bytes, so many of which are of the source, to place l of `tile`; `%r9` is where, `%rd6` from where.
const COPY: &str = "
    mov.u32 %r9, tile; shl.b32 %r6, %r5, 4; add.s32 %r9, %r9, %r6; cvt.u64.u32 %rd6, %r6; add.s64 %rd6, %rd1, %rd6;
    cp.async.cg.shared.global.L2::128B [%r9], [%rd6], 16, %r7;";

#[test]
fn a_copy_is_there_when_it_was_waited_for() {
    let input: Vec<u32> = (0..4 * LANES as u32).map(|i| i + 1).collect();
    let body = |wait: &str| {
        format!(
            "mul.lo.s32 %r7, %r5, 4; min.s32 %r7, %r7, 16; {COPY} {wait}
            ld.shared.u32 %r8, [%r9+8]; st.global.u32 [%rd4], %r8; ret;"
        )
    };
    let want: Vec<_> = (0..LANES as u32).map(|lane| if lane < 3 { 0 } else { 4 * lane + 3 }).collect();
    for wait in ["cp.async.wait_all;", "cp.async.commit_group; cp.async.wait_group 0;"] {
        assert_eq!(run(&body(wait), &input, LANES).unwrap(), want, "{wait}");
    }
    for wait in
        ["", "cp.async.commit_group;", "cp.async.wait_group 0;", "cp.async.commit_group; cp.async.wait_group 1;"]
    {
        assert_eq!(run(&body(wait), &input, LANES).unwrap_err().kind, FaultKind::Uninitialised, "{wait}");
    }
}

#[test]
fn groups_of_copies_arrive_in_their_order() {
    let input: Vec<u32> = (0..4 * LANES as u32).collect();
    let body = |read: &str| {
        format!(
            "mov.u32 %r7, 16; {COPY} cp.async.commit_group;
            add.s32 %r10, %r9, 1024; cp.async.ca.shared.global [%r10], [%rd6], 4; cp.async.commit_group;
            cp.async.wait_group 1; ld.shared.u32 %r8, [{read}]; st.global.u32 [%rd4], %r8; ret;"
        )
    };
    assert_eq!(run(&body("%r9+4"), &input, LANES).unwrap()[5], 21);
    assert_eq!(run(&body("%r10"), &input, LANES).unwrap_err().kind, FaultKind::Uninitialised);
}

#[test]
fn a_copy_stays_within_what_is_allocated_and_what_it_copies() {
    let body = |bytes: &str| format!("mov.u32 %r7, {bytes}; {COPY} cp.async.wait_all; ret;");
    assert_eq!(run(&body("17"), &[0; 4 * LANES], 1).unwrap_err().kind, FaultKind::Instruction);
    assert_eq!(run(&body("16"), &[0; 4 * LANES - 1], 1).unwrap_err().kind, FaultKind::IllegalAddress);
    let far = body("16").replace("[%rd6], 16", "[%rd6+8], 16");
    assert_eq!(run(&far, &[0; 5 * LANES], 1).unwrap_err().kind, FaultKind::Misaligned);
}
