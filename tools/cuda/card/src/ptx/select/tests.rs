//! Instructions against values that follow from the ISA's definition.

use super::{Opcode, carry, compute, four, update};

fn value(opcode: &str, a: u64, b: u64, c: u64) -> u64 {
    let f = compute(&Opcode::new(opcode)).unwrap_or_else(|| panic!("'{opcode}' is not known"));
    let mut out = [0; 32];
    f(&[a; 32], &[b; 32], &[c; 32], &mut out);
    assert!(out.iter().all(|lane| *lane == out[0]));
    out[0]
}

fn f(value: f32) -> u64 {
    value.to_bits().into()
}

fn d(value: f64) -> u64 {
    value.to_bits()
}

fn each(cases: &[(&str, u64, u64, u64, u64)]) {
    for (opcode, a, b, c, want) in cases {
        assert_eq!(value(opcode, *a, *b, *c), *want, "{opcode} {a:#x} {b:#x} {c:#x}");
    }
}

const M1: u64 = 0xffff_ffff;

#[test]
fn whole_numbers_wrap_in_their_type() {
    each(&[
        ("add.s32", M1, 2, 0, 1),
        ("add.s64", u64::MAX, 2, 0, 1),
        ("add.s16", 0xffff, 2, 0, 1),
        ("sub.s32", 1, 2, 0, M1),
        ("neg.s32", 5, 0, 0, M1 - 4),
        ("abs.s32", M1 - 4, 0, 0, 5),
        ("mul.lo.s32", 0x1_0001, 0x1_0001, 0, 0x2_0001),
        ("mul.hi.u32", M1, M1, 0, M1 - 1),
        ("mul.hi.s32", M1, M1, 0, 0),
        ("mul.hi.u64", u64::MAX, u64::MAX, 0, u64::MAX - 1),
        ("mul.wide.u32", M1, 2, 0, 0x1_ffff_fffe),
        ("mul.wide.s32", M1, 2, 0, u64::MAX - 1),
        ("mul.wide.u16", 0xffff, 0xffff, 0, 0xfffe_0001),
        ("mad.lo.s32", 3, 4, M1, 11),
        ("mad.wide.u32", M1, 1, 1, 0x1_0000_0000),
        ("div.u32", 7, 2, 0, 3),
        ("div.u32", 7, 0, 0, M1),
        ("div.s64", (-7i64) as u64, 2, 0, (-3i64) as u64),
        ("rem.u64", 7, 4, 0, 3),
        ("min.s32", M1, 1, 0, M1),
        ("min.u32", M1, 1, 0, 1),
        ("max.s64", u64::MAX, 1, 0, 1),
        ("max.u64", u64::MAX, 1, 0, u64::MAX),
    ]);
}

#[test]
fn bits_are_moved_and_counted() {
    each(&[
        ("and.b32", 0b1100, 0b1010, 0, 0b1000),
        ("or.pred", 0, 1, 0, 1),
        ("xor.b64", u64::MAX, 1, 0, u64::MAX - 1),
        ("not.b32", 1, 0, 0, M1 - 1),
        ("not.pred", 1, 0, 0, 0),
        ("shl.b32", 1, 31, 0, 1 << 31),
        ("shl.b32", 1, 32, 0, 0),
        ("shl.b64", 1, 40, 0, 1 << 40),
        ("shr.u32", 1 << 31, 31, 0, 1),
        ("shr.s32", 1 << 31, 31, 0, M1),
        ("shr.s32", 1 << 31, 99, 0, M1),
        ("shr.u64", 1 << 63, 64, 0, 0),
        ("clz.b32", 1, 0, 0, 31),
        ("clz.b64", 0, 0, 0, 64),
        ("popc.b32", 0xff, 0, 0, 8),
        ("brev.b32", 1, 0, 0, 1 << 31),
        ("bfe.u32", 0xabcd, 4, 8, 0xbc),
        ("prmt.b32", 0x3322_1100, 0x7766_5544, 0x7531, 0x7755_3311),
        ("prmt.b32", 0x0000_0080, 0, 0x8888, M1),
        ("shf.l.wrap.b32", 0x8000_0000, 1, 1, 3),
        ("shf.r.wrap.b32", 2, 1, 1, 0x8000_0001),
        ("selp.b32", 7, 8, 1, 7),
        ("selp.b32", 7, 8, 0, 8),
        ("mov.pred", u64::MAX, 0, 0, 1),
    ]);
    let insert = four(&Opcode::new("bfi.b32")).unwrap();
    assert_eq!(insert(0xff, 0, 8, 4), 0xf00);
    assert_eq!(insert(0xff, 0, 28, 8), 0xf000_0000);
    let logic = four(&Opcode::new("lop3.b32")).unwrap();
    // 0xf0 & 0xcc, and 0xf0 ^ 0xcc ^ 0xaa: the ISA's way of naming a table.
    assert_eq!(logic(0b1100, 0b1010, 0, 0xf0 & 0xcc), 0b1000);
    assert_eq!(logic(0b1100, 0b1010, 0b0001, 0xf0 ^ 0xcc ^ 0xaa), 0b0111);
}

#[test]
fn carries_run_through_longer_sums() {
    let of = |opcode| carry(&Opcode::new(opcode)).unwrap();
    assert_eq!(of("add.cc.u32")(M1, 1, 0, 0), (0, 1));
    assert_eq!(of("addc.u32")(1, 1, 0, 1), (3, 0));
    assert_eq!(of("addc.cc.u32")(M1, 0, 0, 1), (0, 1));
    assert_eq!(of("sub.cc.u32")(0, 1, 0, 0), (M1, 1));
    assert_eq!(of("subc.u32")(5, 1, 0, 1), (3, 0));
    assert_eq!(of("mad.lo.cc.u32")(M1, 1, 1, 0), (0, 1));
    assert_eq!(of("madc.hi.u32")(M1, M1, 0, 1), (M1, 0));
    // A register that was loaded with its sign has more bits than the instruction takes.
    assert_eq!(of("madc.hi.u32")(u64::MAX, u64::MAX, 0, 1), (M1, 0));
    assert!(carry(&Opcode::new("add.u32")).is_none());
}

#[test]
fn floats_are_ieee() {
    let nan = 0x7fff_ffff;
    each(&[
        ("add.f32", f(0.1), f(0.2), 0, f(0.1 + 0.2)),
        ("sub.f32", f(f32::INFINITY), f(f32::INFINITY), 0, nan),
        ("mul.f32", f(1e30), f(1e30), 0, f(f32::INFINITY)),
        ("mul.rn.f32", f(3.0), f(0.1), 0, f(3.0 * 0.1)),
        ("fma.rn.f32", f(1.5), f(2.0), f(0.25), f(3.25)),
        ("add.rz.f32", f(1.0), f(-1e-20), 0, f(1f32.next_down())),
        ("fma.rm.f32", f(1.0), f(1.0), f(-1e-20), f(1f32.next_down())),
        ("fma.rp.f32", f(1.0), f(1.0), f(1e-20), f(1f32.next_up())),
        ("div.rn.f32", f(1.0), f(3.0), 0, f(1.0 / 3.0)),
        ("rcp.rn.f32", f(4.0), 0, 0, f(0.25)),
        ("sqrt.rn.f32", f(2.0), 0, 0, f(2f32.sqrt())),
        ("rsqrt.approx.f32", f(4.0), 0, 0, f(0.5)),
        ("ex2.approx.ftz.f32", f(-3.0), 0, 0, f(0.125)),
        ("ex2.approx.ftz.f32", f(-140.0), 0, 0, f(0.0)),
        ("lg2.approx.f32", f(8.0), 0, 0, f(3.0)),
        ("mul.ftz.f32", f(1e-39), f(1.0), 0, f(0.0)),
        ("mul.f32", f(1e-39), f(1.0), 0, f(1e-39)),
        ("min.f32", nan, f(1.0), 0, f(1.0)),
        ("max.f32", f(-0.0), f(0.0), 0, f(0.0)),
        ("min.f32", f(0.0), f(-0.0), 0, f(-0.0)),
        ("max.NaN.f32", f(1.0), nan, 0, nan),
        ("neg.f32", f(1.0), 0, 0, f(-1.0)),
        ("abs.f32", f(-1.0), 0, 0, f(1.0)),
        ("copysign.f32", f(-1.0), f(3.0), 0, f(-3.0)),
        ("add.sat.f32", f(0.75), f(0.75), 0, f(1.0)),
        ("add.f64", d(0.1), d(0.2), 0, d(0.1 + 0.2)),
        ("fma.rn.f64", d(0.1), d(10.0), d(-1.0), d(0.1f64.mul_add(10.0, -1.0))),
        ("max.f64", d(-0.0), d(0.0), 0, d(0.0)),
        ("min.f64", d(0.0), d(-0.0), 0, d(-0.0)),
        ("min.f64", d(f64::NAN), d(1.0), 0, d(1.0)),
        ("max.f64", d(1.0), d(f64::NAN), 0, d(1.0)),
        ("rcp.rn.f64", d(8.0), 0, 0, d(0.125)),
        ("mul.bf16", 0x3f80, 0x4040, 0, 0x4040),
        ("add.f16", 0x3c00, 0x3c00, 0, 0x4000),
        ("fma.rn.f16x2", 0x3c00_4000, 0x4000_4000, 0x0000_3c00, 0x4000_4500),
    ]);
}

#[test]
fn comparisons_know_signs_and_nan() {
    let nan = 0x7fff_ffff;
    each(&[
        ("setp.lt.s32", M1, 1, 0, 1),
        ("setp.lt.u32", M1, 1, 0, 0),
        ("setp.hi.u32", M1, 1, 0, 1),
        ("setp.ge.s64", u64::MAX, 0, 0, 0),
        ("setp.ne.s16", 0x1_0001, 1, 0, 0),
        ("setp.eq.f32", nan, nan, 0, 0),
        ("setp.ne.f32", nan, f(1.0), 0, 0),
        ("setp.neu.f32", nan, f(1.0), 0, 1),
        ("setp.ltu.f32", nan, f(1.0), 0, 1),
        ("setp.gt.f64", d(2.0), d(1.0), 0, 1),
        ("setp.nan.f32", nan, f(1.0), 0, 1),
        ("setp.num.f32", f(2.0), f(1.0), 0, 1),
        ("setp.le.f16", 0x8000, 0x0000, 0, 1),
        ("setp.lt.bf16", 0xbf80, 0x3f80, 0, 1),
        ("set.eq.f16.f16", 0x3c00, 0x3c00, 0, 0x3c00),
        ("set.gt.u32.f32", f(1.0), f(0.0), 0, M1),
    ]);
}

#[test]
fn conversions_round_and_clamp() {
    let nan = 0x7fff_ffff;
    each(&[
        ("cvt.u64.u32", M1, 0, 0, M1),
        ("cvt.s64.s32", M1, 0, 0, u64::MAX),
        ("cvt.u32.u64", 0x1_0000_0005, 0, 0, 5),
        ("cvt.s32.s16", 0x8000, 0, 0, 0xffff_8000),
        ("cvt.sat.u8.s32", 300, 0, 0, 255),
        ("cvt.sat.u8.s32", M1, 0, 0, 0),
        ("cvt.rn.f32.s32", M1, 0, 0, f(-1.0)),
        ("cvt.rn.f32.u32", 16_777_217, 0, 0, f(16_777_216.0)),
        ("cvt.rn.f32.u64", (1 << 60) + 1, 0, 0, f((1u64 << 60) as f32)),
        // Between two f32 by a hair above the tie: 2^60 + 2^36 + 1 rounds up, which two roundings would not.
        ("cvt.rn.f32.u64", (1 << 60) + (1 << 36) + 1, 0, 0, f(2f32.powi(60)).wrapping_add(1)),
        ("cvt.rn.bf16.s32", 257, 0, 0, 0x4380),
        ("cvt.rn.f16.s32", 2049, 0, 0, 0x6800),
        ("cvt.rni.s32.f32", f(2.5), 0, 0, 2),
        ("cvt.rzi.s32.f32", f(-2.9), 0, 0, M1 - 1),
        ("cvt.rmi.s32.f32", f(-2.1), 0, 0, M1 - 2),
        ("cvt.rpi.s32.f32", f(2.1), 0, 0, 3),
        ("cvt.rzi.u32.f32", f(-5.0), 0, 0, 0),
        ("cvt.rzi.u32.f32", f(1e20), 0, 0, M1),
        ("cvt.rzi.s32.f32", nan, 0, 0, 0),
        ("cvt.rzi.s64.f32", nan, 0, 0, 1 << 63),
        ("cvt.rzi.u32.f64", d(f64::NAN), 0, 0, 1 << 31),
        ("cvt.rzi.u64.f64", d(-1.0), 0, 0, 0),
        ("cvt.s8.s32", 0x80, 0, 0, 0xffff_ff80),
        ("cvt.rzi.s16.f32", f(-2.5), 0, 0, M1 - 1),
        ("cvt.rmi.f32.f32", f(-2.1), 0, 0, f(-3.0)),
        ("cvt.rni.f32.f32", f(3.5), 0, 0, f(4.0)),
        ("cvt.sat.f32.f32", f(1.5), 0, 0, f(1.0)),
        ("cvt.sat.f32.f32", nan, 0, 0, f(0.0)),
        ("cvt.rn.f16.f32", f(65520.0), 0, 0, 0x7c00),
        ("cvt.rn.f16.f32", nan, 0, 0, 0x7fff),
        ("cvt.rz.f16.f32", f(65520.0), 0, 0, 0x7bff),
        ("cvt.rn.bf16.f32", f(1.003_906_3), 0, 0, 0x3f80),
        ("cvt.rn.bf16.f32", f(1.011_718_8), 0, 0, 0x3f82),
        ("cvt.f32.f16", 0x0001, 0, 0, f(2f32.powi(-24))),
        ("cvt.f32.bf16", 0x4049, 0, 0, f(3.140625)),
        ("cvt.rn.bf16.f64", d(1.0 + 2f64.powi(-8) + 2f64.powi(-40)), 0, 0, 0x3f81),
        ("cvt.rn.f32.f64", d(0.1), 0, 0, f(0.1)),
        ("cvt.f64.f32", f(0.5), 0, 0, d(0.5)),
        ("cvt.rn.bf16x2.f32", f(1.0), f(2.0), 0, 0x3f80_4000),
        ("cvt.rn.satfinite.e4m3x2.f32", f(1.0), f(-2.0), 0, 0x38c0),
        ("cvt.rn.satfinite.e4m3x2.f32", f(1e9), f(f32::NAN), 0, 0x7e7f),
        ("cvt.rn.satfinite.e4m3x2.f32", f(1.0625), f(1.1875), 0, 0x383a),
    ]);
}

#[test]
fn atomic_operations_replace_what_is_there() {
    let of = |opcode| update(&Opcode::new(opcode)).unwrap();
    assert_eq!(of("atom.global.add.u32")(M1, 2, 0), 1);
    assert_eq!(of("atom.add.f32")(f(1.5), f(2.0), 0), f(3.5));
    assert_eq!(of("atom.add.noftz.bf16")(0x3f80, 0x3f80, 0), 0x4000);
    assert_eq!(of("red.max.s32")(M1, 1, 0), 1);
    assert_eq!(of("atom.cas.b32")(5, 5, 9), 9);
    assert_eq!(of("atom.cas.b32")(5, 6, 9), 5);
    assert_eq!(of("atom.inc.u32")(3, 3, 0), 0);
    assert_eq!(of("atom.exch.b64")(3, 4, 0), 4);
}

#[test]
fn what_is_not_known_is_not_guessed() {
    for opcode in [
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        "cvt.rn.satfinite.e5m2x2.f32",
        "add.sat.s32",
        "div.rz.f32",
        "rcp.rz.f32",
        "min.xorsign.abs.f32",
        "cvt.rni.sat.f32.f32",
        "set.lt.and.u32.f32",
        "fma.rn.ftz.f16",
    ] {
        assert!(compute(&Opcode::new(opcode)).is_none(), "{opcode}");
    }
}
