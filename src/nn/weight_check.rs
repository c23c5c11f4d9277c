//! Weights that kernels read where they lie, as codes or as some of a weight's columns, are held against the plain way before a picture
//! depends on it.

use candle_core::{DType, Device, Tensor};

use super::{
    Array, Place,
    kernel_check::{self, distance, found, most_error, with_f32, worse},
    kernels::{
        columns, tensors,
        widen::{self, Codes},
    },
    mismatch,
};
use crate::{
    base::{
        device::DeviceKind,
        progress::{Event, Observer},
    },
    error::{Error, Result},
    weights::lora::Network,
};

/// Rows of codes, or of x, that are compared.
const ROWS: usize = 3;
/// Blocks of a row.
const BLOCKS: usize = 2;

/// Holds the kernels that would widen weights of `networks` against the processor's numbers, and products with some of a weight's
/// columns against those with a copy of them, in `dtype` and in f32, and tells what was found. Where such products are not right, copies
/// are made.
///
/// # Errors
/// [`Error::Request`] where weights of a type are not widened right: on such a card nothing else reads them.
pub fn settle_weights(
    networks: impl FnOnce() -> Result<Vec<Network>>,
    dtype: DType,
    device: &Device,
    observer: &dyn Observer,
) -> Result<()> {
    if !widen::is_on(DeviceKind::of(device)) {
        return Ok(());
    }
    let kinds = kinds(&networks()?);
    for &dtype in with_f32(&dtype) {
        for &kind in &kinds {
            observer.on(widening(kind, dtype, error_of(kind, dtype, device))?);
        }
        let error = columns_error(dtype, device);
        let is_used = error.as_ref().is_ok_and(|error| *error <= most_error(dtype));
        if !is_used {
            columns::refuse(dtype);
        }
        observer.on(by_columns(dtype, &found(&error), is_used));
    }
    Ok(())
}

/// Each kind of codes that some layer is held in.
fn kinds(networks: &[Network]) -> Vec<Codes> {
    let mut kinds = Vec::new();
    for network in networks {
        for layer in &network.layers {
            let weight = format!("{}.weight", layer.name);
            let blocks = network.source.blocks(&weight).map(Codes::Blocks);
            let kind = blocks.or_else(|| network.source.float8(&weight).map(Codes::Float8));
            kinds.extend(kind.filter(|kind| !kinds.contains(kind)));
        }
    }
    kinds
}

fn widening(kind: Codes, dtype: DType, error: Result<f64>) -> Result<Event> {
    let (kind, dtype_name) = (kind.word(), dtype.as_str());
    let what = format!("weights in {kind} as numbers by dype's own kernel ({dtype_name}) {}", found(&error));
    if error.is_ok_and(|error| error <= most_error(dtype)) {
        return Ok(Event::Detail(what));
    }
    let hint = "give the model in bf16 or f16 (`dype convert MODEL -o FILE --type bf16` writes such a file), or try a newer driver";
    Err(Error::request(format!("{what} on this card"), hint))
}

fn by_columns(dtype: DType, found: &str, is_used: bool) -> Event {
    let what = format!("a product with some of a weight's columns ({}) {found}", dtype.as_str());
    if is_used {
        return Event::Detail(what);
    }
    Event::Warning(format!(
        "{what} on this card: they are copied for each product instead, which takes time and memory"
    ))
}

/// The largest of a kernel's errors over rows of codes, with one scale for all and one for each.
fn error_of(kind: Codes, dtype: DType, device: &Device) -> Result<f64> {
    let columns = match kind {
        Codes::Blocks(blocks) => BLOCKS * blocks.numbers(),
        Codes::Float8(_) => 96,
    };
    let rows: Vec<Vec<u8>> = (0..ROWS).map(|row| codes_of(kind, columns, row)).collect();
    let codes = Array::from(Tensor::from_vec(rows.concat(), (ROWS, rows[0].len()), device)?);
    let place = Place::Real(device.clone());
    // Not all of a row, as where one weight is multiplied in two parts.
    let (first, count) = (16, columns - 16);
    let mut most = 0.0;
    let scales: &[&[f32]] = match kind {
        Codes::Blocks(_) => &[&[]],
        Codes::Float8(_) => &[&[0.003], &[0.003, 0.02, 0.0007]],
    };
    for scales in scales {
        let shape: &[usize] = if scales.len() == 1 { &[1] } else { &[ROWS, 1] };
        let scale = (!scales.is_empty()).then(|| place.floats(shape, || scales.to_vec())).transpose()?;
        let found = widen::widened(&codes, kind, (first, count), scale.as_ref(), dtype)?.to_floats()?;
        for (row, (codes, found)) in rows.iter().zip(found.chunks(count)).enumerate() {
            let scale = scales.get(row).or(scales.first()).copied().unwrap_or(1.0);
            let wanted = || numbers(kind, codes, columns)[first..].iter().map(|x| x * scale).collect();
            // By way of the device: one that is asked about sizes alone gives zeros of everything.
            most = worse(most, distance(found, &place.floats(&[count], wanted)?.to_floats()?));
        }
    }
    Ok(most)
}

/// A row of codes of every value whose numbers any type holds: of blocks some are left out whose scales are none, or far from 1.
fn codes_of(kind: Codes, columns: usize, row: usize) -> Vec<u8> {
    // Without any order that a kernel could profit from: the upper bits of products with an odd number (Knuth's, 6.4).
    let mut next = (row as u32).wrapping_mul(977);
    let mut byte = || {
        next = next.wrapping_add(1);
        (next.wrapping_mul(2_654_435_761) >> 24) as u8
    };
    let piece = match kind {
        Codes::Blocks(blocks) => (blocks.bytes(), blocks.numbers()),
        Codes::Float8(_) => (1, 1),
    };
    let mut codes = Vec::new();
    for _ in 0..columns / piece.1 {
        let fits = |bytes: &[u8]| {
            let most = numbers(kind, bytes, piece.1)
                .iter()
                .fold(0.0, |most: f32, x| worse(most.into(), x.abs().into()) as f32);
            matches!(kind, Codes::Float8(_)) && most.is_finite() || (0.01..1000.0).contains(&most)
        };
        let mut bytes: Vec<u8> = (0..piece.0).map(|_| byte()).collect();
        while !fits(&bytes) {
            bytes.fill_with(&mut byte);
        }
        codes.append(&mut bytes);
    }
    codes
}

/// What a row of codes stands for, by the processor.
fn numbers(kind: Codes, codes: &[u8], columns: usize) -> Vec<f32> {
    match kind {
        Codes::Blocks(blocks) => {
            let mut numbers = vec![0.0; columns];
            blocks.decode(codes, &mut numbers);
            numbers
        }
        Codes::Float8(kind) => codes.iter().map(|code| kind.numbers()[usize::from(*code)]).collect(),
    }
}

/// How far a product with columns where they lie is from one with a copy of them in f32.
fn columns_error(dtype: DType, device: &Device) -> Result<f64> {
    let (inputs, outputs, apart) = (48, 20, 80);
    let place = Place::Real(device.clone());
    let array = |shape: &[usize], step: f32| {
        place.floats(shape, || kernel_check::numbers(shape.iter().product(), step))?.to_dtype(dtype)
    };
    let (x, weight) = (array(&[ROWS, inputs], 0.618_034)?, array(&[outputs, apart], 0.414_214)?);
    let weight = weight.narrow(1, 16, inputs)?;
    let found = columns::product(&x, &weight)?.ok_or_else(|| mismatch("columns where they lie are not taken"))?;
    let plain = tensors::product(&x.to_dtype(DType::F32)?, &weight.to_dtype(DType::F32)?.contiguous()?)?;
    Ok(distance(&found.to_floats()?, &plain.to_floats()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        nn::kernel_check::Untold,
        weights::{BlockType, Float8},
    };

    fn all() -> impl Iterator<Item = Codes> {
        BlockType::ALL.map(Codes::Blocks).into_iter().chain([Float8::E4M3, Float8::E5M2].map(Codes::Float8))
    }

    #[test]
    fn what_is_compared_is_numbers_of_all_codes_that_any_type_holds() {
        for kind in all() {
            let columns = if let Codes::Blocks(blocks) = kind { BLOCKS * blocks.numbers() } else { 96 };
            let rows: Vec<_> = (0..ROWS).map(|row| codes_of(kind, columns, row)).collect();
            assert!(rows[0] != rows[1] && rows[1] != rows[2], "{kind:?}");
            for codes in rows {
                let found = numbers(kind, &codes, columns);
                assert!(found.iter().all(|x| x.abs() < 60_000.0), "{kind:?}: {found:?}");
                let mut kept: Vec<u32> = found.iter().map(|x| x.to_bits()).collect();
                kept.sort_unstable();
                kept.dedup();
                assert!(kept.len() > 5, "{kind:?}: {} different numbers", kept.len());
            }
        }
    }

    #[test]
    fn weights_that_are_not_widened_right_are_refused_and_columns_are_copied() {
        let kind = Codes::Blocks(BlockType::Q4K);
        for error in [Ok(0.1), Ok(f64::NAN), Err(mismatch("no such kernel"))] {
            let refused = widening(kind, DType::BF16, error).expect_err("far off");
            assert!(refused.to_string().contains("q4_k") && refused.hint().expect("advice").contains("--type bf16"));
        }
        assert!(matches!(widening(kind, DType::BF16, Ok(0.003)), Ok(Event::Detail(_))));
        assert!(widening(kind, DType::F32, Ok(0.003)).is_err());
        assert!(matches!(by_columns(DType::F16, "is 1.0e0 from the plain one", false), Event::Warning(_)));
    }

    #[test]
    fn a_processor_has_nothing_to_settle() {
        let networks = || panic!("not asked for");
        settle_weights(networks, DType::F32, &Device::Cpu, &Untold).expect("nothing");
    }
}
