//! What a dry pass counts, and what the source compiles to.

use super::*;
use crate::{
    base::device::DeviceKind,
    nn::{Ledger, Place, kernels::compiled},
};

const SOURCE: &str = concat!(include_str!("../numbers.cuh"), include_str!("maps.cu"));
const COMPILED: &str = include_str!("maps.ptx");
const CARD: DeviceKind = DeviceKind::Cuda { capability: (8, 6) };
const OLD: DeviceKind = DeviceKind::Cuda { capability: (7, 5) };

#[test]
fn what_is_launched_is_what_the_source_compiles_to() {
    compiled::check("maps.cu", SOURCE, COMPILED, &[("THREADS", THREADS)]);
    for (kernel, param) in Kernel::ALL.iter().copied().zip([4, 2, 2]) {
        for word in ["bf16", "f16", "f32"] {
            for way in ["wide", "any"] {
                let name = format!("{}_{word}_{way}", kernel.name());
                assert!(COMPILED.contains(&format!(".entry {name}(")), "{name}");
                assert!(COMPILED.contains(&format!("{name}_param_{param}[{}]", size_of::<How>())), "{name}");
            }
        }
    }
}

fn zeros(ledger: &Ledger, shape: &[usize], dtype: DType) -> Array {
    Place::Dry(ledger.clone()).zeros(shape, dtype).expect("counted")
}

#[test]
fn each_is_one_launch_and_one_new_array() {
    let ledger = Ledger::new(CARD);
    let x = zeros(&ledger, &[6, 100, 32], DType::BF16);
    let affine = zeros(&ledger, &[2, 32], DType::F32);
    let above = zeros(&ledger, &[2, 102, 32], DType::BF16);
    let taken = |work: &dyn Fn() -> Array| {
        let (before, launches) = (ledger.now_bytes(), ledger.launches());
        let made = work();
        (made.dims().to_vec(), ledger.now_bytes() - before, ledger.launches() - launches)
    };
    let below = Window {
        rows: Some(&x),
        affine: Some((&affine, true)),
        above: Some(&above),
        kept: 2,
        left: 1,
        shape: [8, 102, 32],
    };
    assert_eq!(taken(&|| window(&below).expect("fits").expect("taken")), (vec![8, 102, 32], 2 * 8 * 102 * 32, 1));
    let look = |look, size| taken(&|| taps(&x, look, size).expect("counted").expect("taken"));
    assert_eq!(look(Look::Same, [4, 98]), (vec![4, 98, 288], 2 * 4 * 98 * 288, 1));
    assert_eq!(look(Look::Doubled, [8, 196]), (vec![8, 196, 288], 2 * 8 * 196 * 288, 1));
    assert_eq!(taken(&|| moments(&x).expect("counted").expect("taken").0), (vec![2, 2, 32], 4 * 2 * 2 * 32, 1));
    let parts = |pixels| {
        moments(&zeros(&ledger, &[1, pixels, 1], DType::F32)).expect("counted").map(|(made, each)| (made.dim(0), each))
    };
    assert_eq!([512, 513, 1 << 20, 1 << 24].map(parts), [(1, 512), (2, 512), (1024, 1024), (2048, 8192)].map(Some));
}

#[test]
fn others_are_left_to_operations_of_tensors() {
    let taken = |kind, shape: &[usize], dtype| {
        let ledger = Ledger::new(kind);
        let x = zeros(&ledger, shape, dtype);
        [taps(&x, Look::Same, [1, 1]).expect("counted").is_some(), moments(&x).expect("counted").is_some()]
    };
    assert_eq!(taken(CARD, &[3, 3, 2048], DType::BF16), [true, true]);
    assert_eq!(taken(CARD, &[3, 3, 2056], DType::BF16), [true, false], "more channels than threads go over");
    assert_eq!(taken(CARD, &[3, 3, 257], DType::F32), [true, false]);
    assert_eq!(taken(OLD, &[3, 3, 32], DType::F32), [false; 2]);
    assert_eq!(taken(DeviceKind::Metal, &[3, 3, 32], DType::F32), [false; 2]);
    assert_eq!(taken(DeviceKind::Cpu, &[3, 3, 32], DType::F32), [false; 2]);
    assert_eq!(taken(CARD, &[3, 3, 32], DType::U8), [false; 2]);
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let ledger = Ledger::new(CARD);
    let x = zeros(&ledger, &[6, 100, 32], DType::F16);
    let fits = Window { rows: Some(&x), affine: None, above: None, kept: 1, left: 1, shape: [7, 102, 32] };
    assert!(window(&fits).expect("fits").is_some());
    for wrong in [
        Window { kept: 2, ..fits },
        Window { left: 3, ..fits },
        Window { above: Some(&x), ..fits },
        Window { affine: Some((&x, false)), ..fits },
    ] {
        assert!(window(&wrong).is_err(), "{:?} {}", wrong.shape, wrong.kept);
    }
}

#[test]
fn what_travels_at_once_begins_where_it_can() {
    let ledger = Ledger::new(CARD);
    let (even, odd) = (zeros(&ledger, &[4, 3, 16], DType::BF16), zeros(&ledger, &[4, 3, 12], DType::BF16));
    assert!(is_wide(&[&even, &even.narrow(0, 1, 2).expect("rows")], 16));
    assert!(!is_wide(&[&odd], 12));
    let single = zeros(&ledger, &[5, 1, 8], DType::BF16);
    assert!(!is_wide(&[&single.reshape(&[40]).and_then(|x| x.narrow(0, 4, 8)).expect("numbers")], 8));
}
