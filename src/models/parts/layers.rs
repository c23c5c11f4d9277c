//! What both text encoders are built of: linear layers, attention in f32 softmax, embedding rows, streamed blocks.

use std::collections::{BTreeSet, HashMap};

use candle_core::{D, DType, Tensor};
use candle_nn::{Linear, Module, ops::softmax_last_dim};

use crate::{
    error::{Error, Result},
    weights::Weights,
};

/// A linear layer without bias: `weight` [to, from].
pub(super) fn linear_no_bias(weights: &Weights, from: usize, to: usize) -> Result<Linear> {
    Ok(Linear::new(weights.get("weight", &[to, from])?, None))
}

/// A linear layer with bias: `weight` [to, from], `bias` [to].
pub(super) fn linear(weights: &Weights, from: usize, to: usize) -> Result<Linear> {
    Ok(Linear::new(weights.get("weight", &[to, from])?, Some(weights.get("bias", &[to])?)))
}

/// Applies `layer` to x [N, from] in the number type of the layer's weights.
pub(super) fn project(layer: &Linear, x: &Tensor) -> Result<Tensor> {
    Ok(layer.forward(&x.to_dtype(layer.weight().dtype())?)?) // [N, to]
}

/// Attention over H heads: `softmax(scale · q·kᵀ + bias)·v` with q, k, v [N, H·D] and an f32 bias that broadcasts to
/// [H, N, N]. Scores are scaled, shifted and normalised in f32 whatever the inputs are.
pub(super) fn attention([q, k, v]: [&Tensor; 3], num_heads: usize, scale: f64, bias: &Tensor) -> Result<Tensor> {
    let (tokens, width) = q.dims2()?;
    let heads = |x: &Tensor| {
        x.reshape((tokens, num_heads, width / num_heads))?.transpose(0, 1)?.contiguous() // [H, N, D]
    };
    let (q, k, v) = (heads(q)?, heads(k)?, heads(v)?);
    let scores = q.matmul(&k.transpose(1, 2)?)?.to_dtype(DType::F32)?; // [H, N, N]
    let scores = if scale == 1.0 { scores } else { (scores * scale)? };
    let weights = softmax_last_dim(&scores.broadcast_add(bias)?)?.to_dtype(v.dtype())?;
    let mixed = weights.matmul(&v)?; // [H, N, D]
    Ok(mixed.transpose(0, 1)?.contiguous()?.reshape((tokens, width))?) // [N, H·D]
}

/// The rows of an embedding table [rows, width] for each list of ids, in f32: one [N, width] per list.
///
/// Each row is read once for all lists; the rest of the table (T5's has 32128 rows of 4096) is never converted.
pub(super) fn embedding_rows(
    weights: &Weights,
    [rows, width]: [usize; 2],
    id_lists: &[Vec<u32>],
) -> Result<Vec<Tensor>> {
    if let Some(id) = id_lists.iter().flatten().find(|id| **id as usize >= rows) {
        let what = format!("token id {id} is beyond the embedding table of {rows} rows");
        return Err(Error::model(what, "the tokenizer belongs to another model than the text encoder"));
    }
    let wanted: BTreeSet<u32> = id_lists.iter().flatten().copied().collect();
    let row = |id: &u32| weights.get_rows("weight", &[rows, width], *id as usize..*id as usize + 1); // [1, width]
    let table = Tensor::cat(&wanted.iter().map(row).collect::<Result<Vec<_>>>()?, 0)?; // [wanted, width]
    let places: HashMap<u32, u32> = wanted.into_iter().zip(0..).collect();
    let gather = |ids: &Vec<u32>| {
        let places: Vec<u32> = ids.iter().map(|id| places[id]).collect();
        let places = Tensor::new(places, weights.device())?;
        Ok(table.index_select(&places, 0)?.to_dtype(DType::F32)?) // [N, width]
    };
    id_lists.iter().map(gather).collect()
}

/// Loads blocks 0..count in order and hands each to `run`, which drops it.
///
/// With `prefetch` the next block is loaded on another thread while the current one computes: two blocks are held at
/// once, and the time to page in and widen the weights hides behind the computation. Without, one block is held.
pub(super) fn for_each_block<B: Send>(
    count: usize,
    prefetch: bool,
    load: impl Fn(usize) -> Result<B> + Sync,
    mut run: impl FnMut(usize, B) -> Result<()>,
) -> Result<()> {
    if !prefetch {
        return (0..count).try_for_each(|index| run(index, load(index)?));
    }
    let load = &load;
    let mut next = (count > 0).then(|| load(0)).transpose()?;
    std::thread::scope(|scope| {
        for index in 1..=count {
            let ahead = (index < count).then(|| scope.spawn(move || load(index)));
            next.take().map_or(Ok(()), |block| run(index - 1, block))?;
            next = ahead
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .transpose()?;
        }
        Ok(())
    })
}

/// Root mean square norm without centring: `x / sqrt(mean(x²) + eps) · weight`, in f32 (Zhang and Sennrich 2019,
/// arXiv 1910.07467). x [N, C] f32, weight [C] f32.
pub(super) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?; // [N, 1]
    Ok(x.broadcast_div(&(mean_square + eps)?.sqrt()?)?.broadcast_mul(weight)?)
}

/// Refuses dimensions no encoder can have, before they are multiplied or divided by.
pub(super) fn check_dimensions(dimensions: &[(&str, usize)]) -> Result<(), String> {
    /// Far above any model, low enough that products of two fit.
    const LARGEST: usize = 1 << 20;
    match dimensions.iter().find(|(_, value)| !(1..=LARGEST).contains(value)) {
        Some((name, value)) => Err(format!("{name} is {value}, expected 1 to {LARGEST}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn blocks_come_in_order_and_at_most_two_are_held() {
        struct Block<'a>(usize, &'a AtomicUsize);
        impl Drop for Block<'_> {
            fn drop(&mut self) {
                self.1.fetch_sub(1, Ordering::SeqCst);
            }
        }
        for (prefetch, most) in [(false, 1), (true, 2)] {
            let (held, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let mut seen = Vec::new();
            let load = |index| {
                peak.fetch_max(held.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                Ok(Block(index, &held))
            };
            let run = |index, block: Block<'_>| {
                assert_eq!(block.0, index);
                seen.push(index);
                Ok(())
            };
            for_each_block(5, prefetch, load, run).expect("runs");
            assert_eq!(seen, [0, 1, 2, 3, 4]);
            assert!(peak.load(Ordering::SeqCst) <= most);
            assert_eq!(held.load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn an_error_of_either_side_ends_the_stream() {
        for prefetch in [false, true] {
            let fails_to_load = |index| if index == 2 { Err(Error::model("missing", "")) } else { Ok(index) };
            let mut ran = 0;
            let count = |_, _| {
                ran += 1;
                Ok(())
            };
            assert!(for_each_block(5, prefetch, fails_to_load, count).is_err());
            assert_eq!(ran, 2);
            let fails_to_run = |_, _| Err(Error::model("broken", ""));
            assert!(for_each_block(5, prefetch, Ok, fails_to_run).is_err());
        }
    }
}
