//! First-block caching: where the first block changes the picture's tokens much as it did in the last computed step, the blocks
//! behind it are taken to do what they did then.
//!
//! With r the change that the first block makes to the picture's tokens, kept from the last computed step as the change of all
//! blocks behind it is:
//!
//! ```text
//! mean|r - r_kept| / mean|r_kept| <= threshold:  leave the blocks behind out, add their kept change
//! else:                                          compute them, keep r and their change
//! ```
//!
//! Source: `FirstBlockCacheConfig` of diffusers; ParaAttention's first-block cache.

use std::{cell::RefCell, ops::Range, rc::Rc};

use candle_core::DType;

use crate::{
    error::Result,
    nn::{Array, Blocks, Ledger},
};

/// Tokens that are measured at once.
const CHUNK: usize = 2048;

/// What a first-block cache knows of one picture by one prompt.
#[derive(Debug)]
pub struct FirstBlock {
    threshold: f64,
    kept: Option<Kept>,
    /// Whether the blocks behind the first are left out in this step.
    skips: bool,
    /// Whether that is decided in this evaluation, or was in the one before.
    decides: bool,
}

/// What the last computed step leaves, [N, C] each.
#[derive(Debug)]
struct Kept {
    /// What the first block changed of the picture's tokens.
    first: Array,
    /// What the others did.
    rest: Array,
}

impl FirstBlock {
    /// Which part of the first block's change may differ.
    pub fn new(threshold: f64) -> Self {
        Self { threshold, kept: None, skips: false, decides: true }
    }

    /// Counts a pass of a step for which so many of them are held, one for each prompt; returns the bytes that they hold between
    /// passes. Where there are some, steps before have filled them.
    ///
    /// # Errors
    /// What `pass` says.
    pub(super) fn dry(
        count: usize,
        ledger: &Ledger,
        mut pass: impl FnMut(Option<Rc<RefCell<Self>>>) -> Result<()>,
    ) -> Result<u64> {
        let caches: Vec<_> = (0..count).map(|_| Rc::new(RefCell::new(Self::new(0.0)))).collect();
        ledger.without_work(|| caches.iter().try_for_each(|cache| pass(Some(Rc::clone(cache)))))?;
        pass(caches.first().cloned())?;
        let held = ledger.now_bytes();
        caches.iter().for_each(|cache| cache.borrow_mut().kept = None);
        Ok(held - ledger.now_bytes())
    }

    /// Before each forward pass: whether it is the first evaluation of a step, which decides for the others.
    pub fn begin(&mut self, is_first: bool) {
        self.decides = is_first;
        self.skips &= !is_first;
    }

    /// Whether the last forward pass left blocks out.
    pub fn skipped(&self) -> bool {
        self.skips
    }

    /// Runs all blocks, or with a cache [`FirstBlock::run`].
    ///
    /// # Errors
    /// As [`FirstBlock::run`].
    pub(super) fn run_within<B: Send>(
        cache: Option<&RefCell<Self>>,
        blocks: &Blocks<B>,
        first: usize,
        x: (&Array, Range<usize>),
        visit: impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        match cache {
            Some(cache) => cache.borrow_mut().run(blocks, first, x, visit),
            None => blocks.for_each(visit),
        }
    }

    /// Runs `blocks`, of which `visit` runs one that updates x [.., C] in place; `rows` are those of the picture's tokens, and
    /// `first` is the block that decides.
    ///
    /// # Errors
    /// What reading a block or `visit` says, or when the device fails.
    fn run<B: Send>(
        &mut self,
        blocks: &Blocks<B>,
        first: usize,
        (x, rows): (&Array, Range<usize>),
        mut visit: impl FnMut(usize, &B) -> Result<()>,
    ) -> Result<()> {
        let picture = x.narrow(0, rows.start, rows.len())?; // [N, C], the numbers of x
        let (mut before, mut behind) = (None, None);
        blocks.for_each_while(|index, block| {
            if index == first {
                before = Some(copy(&picture)?);
            }
            visit(index, block)?;
            let Some(before) = before.take().filter(|_| index == first) else { return Ok(true) };
            let change = change_since(before, &picture)?;
            if self.decides {
                self.skips = self.is_alike(&change)?;
            }
            match &self.kept {
                Some(kept) if self.skips => add(x, rows.start, &kept.rest)?,
                _ => {
                    // The changes of the step before go first.
                    self.kept = self.kept.take().filter(|_| !self.decides);
                    behind = self.decides.then(|| copy(&picture)).transpose()?.map(|picture| (change, picture));
                }
            }
            Ok(!self.skips)
        })?;
        if let Some((first, behind)) = behind {
            self.kept = Some(Kept { first, rest: change_since(behind, &picture)? });
        }
        Ok(())
    }

    /// Whether the first block changed the tokens much as it did before.
    fn is_alike(&self, change: &Array) -> Result<bool> {
        let Some(kept) = &self.kept else { return Ok(false) };
        let (mut difference, mut size) = (0.0, 0.0);
        each_chunk(change, |start, count| {
            let before = kept.first.narrow(0, start, count)?.to_dtype(DType::F32)?; // [C', C]
            difference += change.narrow(0, start, count)?.to_dtype(DType::F32)?.sub(&before)?.sum_of_sizes()?;
            size += before.sum_of_sizes()?;
            Ok(())
        })?;
        // A dry pass knows no numbers: 0 / 0 is not alike, and all blocks are computed.
        Ok(difference / size <= self.threshold)
    }
}

/// The same numbers in a buffer of their own.
fn copy(tokens: &Array) -> Result<Array> {
    let own = tokens.place().zeros(tokens.dims(), tokens.dtype())?;
    own.slice_set(tokens, 0, 0)?;
    Ok(own)
}

/// `after - before`, in the buffer of `before`.
fn change_since(before: Array, after: &Array) -> Result<Array> {
    each_chunk(&before, |start, count| {
        let change = after.narrow(0, start, count)?.sub(&before.narrow(0, start, count)?)?; // [C', C]
        before.slice_set(&change, 0, start)
    })?;
    Ok(before)
}

/// Adds `change` [N, C] to the rows of x from `start` on.
fn add(x: &Array, start: usize, change: &Array) -> Result<()> {
    each_chunk(change, |at, count| {
        let sum = x.narrow(0, start + at, count)?.add(&change.narrow(0, at, count)?)?; // [C', C]
        x.slice_set(&sum, 0, start + at)
    })
}

fn each_chunk(tokens: &Array, work: impl FnMut(usize, usize) -> Result<()>) -> Result<()> {
    tokens.place().pieces(0..tokens.dim(0), CHUNK, work)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use candle_core::{Device, Tensor};
    use serde::Deserialize;

    use super::*;
    use crate::{
        base::json::read_json,
        nn::{Parameters, WeightsMode},
    };

    #[derive(Deserialize)]
    struct Golden {
        case: String,
        threshold: f64,
        computed: Vec<u8>,
    }

    /// Blocks that are numbers, in either mode.
    fn blocks(mode: WeightsMode) -> Blocks<usize> {
        Blocks::new(&[2, 1], mode, &Parameters::of_nothing(DType::F32), |index, _| Ok(index)).expect("nothing is read")
    }

    fn array(values: &[f32]) -> Array {
        Tensor::from_slice(values, (values.len(), 1), &Device::Cpu).expect("numbers").into()
    }

    fn values(array: &Array) -> Vec<f32> {
        array.real().and_then(|tensor| Ok(tensor.flatten_all()?.to_vec1()?)).expect("f32")
    }

    #[test]
    fn steps_are_computed_where_diffusers_computes_them() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/expected");
        let cases: Vec<serde_json::Value> = read_json(&folder.join("caches.json")).expect("golden");
        let tensors = candle_core::safetensors::load(folder.join("caches.safetensors"), &Device::Cpu).expect("golden");
        let cases =
            cases.into_iter().filter(|case| case["case"].as_str().is_some_and(|name| name.starts_with("first")));
        let cases: Vec<Golden> = cases.map(|case| serde_json::from_value(case).expect("golden")).collect();
        assert_eq!(cases.len(), 3);
        for Golden { case, threshold, computed } in cases {
            let residuals: Vec<Vec<f32>> = tensors[&format!("{case}/residuals")].to_vec2().expect("[steps, values]");
            let (mut cache, blocks) = (FirstBlock::new(threshold), blocks(WeightsMode::Resident));
            let found = residuals.iter().map(|residual| {
                let x = array(&vec![0.0; residual.len()]);
                let visited = Cell::new(0);
                cache.begin(true);
                let visit = |index: usize, _: &usize| {
                    visited.set(visited.get() + 1);
                    if index == 0 { x.slice_set(&array(residual), 0, 0) } else { Ok(()) }
                };
                cache.run(&blocks, 0, (&x, 0..residual.len()), visit).expect("runs");
                u8::from(visited.get() == 3)
            });
            assert_eq!(found.collect::<Vec<_>>(), computed, "{case}");
        }
    }

    #[test]
    fn what_the_others_did_is_added_to_what_the_first_does() {
        for mode in [WeightsMode::Resident, WeightsMode::Stream] {
            let (mut cache, blocks) = (FirstBlock::new(0.2), blocks(mode));
            // Text is a row before and one behind; the first block doubles the picture's rows, the others add 10 and 100.
            let mut run = |start: f32, is_first: bool| {
                let x = array(&[7.0, start, start, 7.0]);
                cache.begin(is_first);
                let visit = |index: usize, _: &usize| {
                    let own = values(&x);
                    let changed = own.iter().map(|value| match index {
                        0 => value * 2.0,
                        1 => value + 10.0,
                        _ => value + 100.0,
                    });
                    x.slice_set(&array(&changed.collect::<Vec<_>>()), 0, 0)
                };
                cache.run(&blocks, 0, (&x, 1..3), visit).expect("runs");
                (values(&x)[1], cache.skipped())
            };
            assert_eq!(run(1.0, true), (112.0, false));
            assert_eq!(run(1.1, true), (112.2, true), "the first block's change differs by a tenth");
            assert_eq!(run(5.0, false), (120.0, true), "a second evaluation goes as the first");
            assert_eq!(run(1.5, true), (113.0, false), "by half");
            assert_eq!(run(9.0, false), (128.0, false), "and keeps nothing");
            assert_eq!(run(1.6, true), (113.2, true));
        }
    }
}
