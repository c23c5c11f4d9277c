use super::{
    given::{Given, How, IN_TURN, ROWS, THREADS},
    *,
};
use crate::{
    base::device::DeviceKind,
    nn::{Ledger, Place, kernels::compiled},
};

const SOURCE: &str = concat!(include_str!("../numbers.cuh"), include_str!("rows.cu"));
const COMPILED: &str = include_str!("rows.ptx");
const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 0) };

fn zeros(ledger: &Ledger, shape: &[usize], dtype: DType) -> Array {
    Place::Dry(ledger.clone()).zeros(shape, dtype).expect("counted")
}

#[test]
fn what_is_launched_is_what_the_source_compiles_to() {
    compiled::check("rows.cu", SOURCE, COMPILED, &[("THREADS", THREADS), ("ROWS", ROWS), ("IN_TURN", IN_TURN)]);
    for kernel in Kernel::ALL {
        for word in ["f32", "bf16", "f16"] {
            for way in ["wide", "any"] {
                let name = format!("{}_{word}_{way}", kernel.name());
                assert!(COMPILED.contains(&format!(".entry {name}(")), "{name}");
                assert!(COMPILED.contains(&format!("{name}_param_6[{}]", size_of::<How>())), "{name}");
            }
        }
    }
}

#[test]
fn new_cards_take_every_type_that_streams_have() {
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        assert!(Kernel::ALL.iter().all(|kernel| kernel.takes(CARD, dtype)));
        for other in [DeviceKind::Cuda { capability: (7, 5) }, DeviceKind::Metal, DeviceKind::Cpu] {
            assert!(!Kernel::ALL.iter().any(|kernel| kernel.takes(other, dtype)));
        }
    }
    assert!(!Kernel::AddBias.takes(CARD, DType::F64));
}

#[test]
fn what_failed_its_check_is_not_used_again() {
    Kernel::LayerNorm.refuse(DType::F64);
    assert!(REFUSED.has(&(Kernel::LayerNorm, DType::F64)));
    assert!(Kernel::LayerNorm.takes(CARD, DType::F32));
}

#[test]
fn a_norm_holds_its_output_and_a_sum_nothing() {
    let ledger = Ledger::new(CARD);
    let (x, vector) = (zeros(&ledger, &[300, 96], DType::BF16), zeros(&ledger, &[96], DType::BF16));
    let before = ledger.now_bytes();
    let out =
        norm_modulate(&x.narrow(0, 7, 100).expect("rows"), &vector, &vector, 1e-6).expect("counted").expect("taken");
    assert_eq!(out.dims(), [100, 96]);
    assert_eq!((ledger.peak_bytes() - before, ledger.launches()), (2 * 100 * 96, 1));
    assert!(add_gated(&x.narrow(0, 7, 100).expect("rows"), &vector, &out, Some(&vector)).expect("counted"));
    assert!(add_bias(&out, None, true).expect("counted"));
    assert!(silu_gated(&out, &out).expect("counted"), "a dry pass does not look whose numbers they are");
    assert_eq!((ledger.peak_bytes() - before, ledger.launches()), (2 * 100 * 96, 4));
}

#[test]
fn heads_are_made_of_rows_without_what_lies_between() {
    let ledger = Ledger::new(CARD);
    let of = |shape: &[usize], dtype| zeros(&ledger, shape, dtype);
    let (x, out) = (of(&[100, 96], DType::F16), of(&[3, 300, 32], DType::F16));
    let (weight, table) = (of(&[32], DType::F32), of(&[100, 16], DType::F32));
    let rotation = Rotation { weight: &weight, eps: 1e-6, cos: &table, sin: &table };
    let before = ledger.now_bytes();
    assert!(split_heads((&x, None), Some(rotation), &out, 200).expect("counted"));
    assert_eq!((ledger.peak_bytes(), ledger.launches()), (before, 1));
    let heads = heads_of((&x, None), Some(rotation), 3).expect("counted").expect("taken");
    assert_eq!(heads.dims(), [3, 100, 32]);
    assert_eq!((ledger.peak_bytes() - before, ledger.launches()), (2 * 100 * 96, 2));
}

#[test]
fn what_they_do_not_take_is_left_to_others() {
    let ledger = Ledger::new(CARD);
    let of = |shape: &[usize], dtype| zeros(&ledger, shape, dtype);
    let (x, vector) = (of(&[10, 96], DType::BF16), of(&[96], DType::BF16));
    // Rows that do not lie side by side, vectors of another length, a type that is none of theirs, rows of more than a block holds.
    assert!(!add_gated(&x.narrow(1, 0, 48).expect("columns"), &vector, &x, None).expect("counted"));
    assert!(!add_gated(&x, &vector.narrow(0, 0, 48).expect("half"), &x, None).expect("counted"));
    assert!(!add_bias(&of(&[10, 96], DType::F64), None, true).expect("counted"));
    let (wide, long) = (of(&[2, 30_000], DType::BF16), of(&[30_000], DType::BF16));
    assert!(norm_modulate(&wide, &long, &long, 1e-6).expect("counted").is_none());
    assert!(rms_norm(&x, &vector, 1e-6).expect("counted").is_none(), "its weight is f32");
    // Rows behind the last, heads that are no part of a row.
    assert!(!split_heads((&x, None), None, &of(&[3, 12, 32], DType::BF16), 3).expect("counted"));
    assert!(!split_heads((&x, None), None, &of(&[5, 12, 32], DType::BF16), 0).expect("counted"));
}

#[test]
fn bytes_travel_together_where_rows_begin_at_multiples_of_them() {
    let ledger = Ledger::new(CARD);
    let vectors =
        |shape: &[usize], start, count| zeros(&ledger, shape, DType::BF16).narrow(0, start, count).expect("a view");
    let is_wide = |columns: usize, first: usize, start: usize| {
        let (x, vector) = (zeros(&ledger, &[50, columns], DType::BF16), vectors(&[200], start, columns));
        let rows = x.narrow(0, first, 9).expect("rows");
        let given = Given::of_columns(Kernel::AddGated, Some(&rows), [Some(&vector), None], &rows);
        let given = given.expect("counted").expect("taken");
        (given.is_wide(&rows), given.grid(given.is_wide(&rows)))
    };
    assert_eq!(is_wide(96, 7, 96), (true, [2, 1]));
    assert_eq!(is_wide(97, 8, 96), (false, [2, 1]), "rows that begin anywhere");
    assert_eq!(is_wide(136, 7, 4), (false, [2, 2]), "a vector that begins anywhere");
    // f32 numbers are four to 16 bytes.
    let (x, weight) = (zeros(&ledger, &[2, 12], DType::F32), zeros(&ledger, &[24], DType::F32));
    let wide = |start| {
        let weight = weight.narrow(0, start, 12).expect("a view");
        let given = Given::of_rows(Kernel::RmsNorm, &x, [Some(&weight), None], 1e-6).expect("counted").expect("taken");
        (given.is_wide(&x), given.room)
    };
    assert_eq!((wide(4), wide(2)), ((true, 3 * 48), (false, 3 * 48)));
}

#[test]
fn lanes_that_share_a_head_are_as_many_as_its_pieces() {
    let ledger = Ledger::new(CARD);
    let lanes = |dim: usize, dtype: DType| {
        let x = zeros(&ledger, &[4, 3 * dim], dtype);
        Given::of_heads((&x, None), None, [3, 4, 0]).expect("counted").expect("taken").how.lanes
    };
    assert_eq!([32, 64, 128, 512].map(|dim| lanes(dim, DType::BF16)), [4, 8, 16, 32]);
    assert_eq!([32, 128].map(|dim| lanes(dim, DType::F32)), [8, 32]);
    assert_eq!([6, 20, 130].map(|dim| lanes(dim, DType::BF16)), [4, 16, 32]);
}
