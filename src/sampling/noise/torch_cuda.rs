//! `torch.randn(shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda", dtype=torch.float32)` on a given card.
//!
//! Source: `calc_execution_policy` and `distribution_elementwise_grid_stride_kernel` in PyTorch's
//! `aten/src/ATen/native/cuda/DistributionTemplates.h` (as of 2.15), and `curand_normal4` of cuRAND's device headers.
//!
//! The kernel runs at most as many threads as the card holds at once. Thread `i` of `T` has its own Philox sequence
//! (counter words 2 and 3 hold i); its call k makes four values, which go to the places `4·T·k + T·j + i`, j = 0..4. So the
//! picture of a seed depends on the card as soon as the tensor is larger than T.
//!
//! cuRAND takes sine and cosine with the card's fast instructions (absolute error 2^-21); here they are exact to f32, so values
//! agree to about 1e-5, not bit for bit. PyTorch splits tensors beyond 2^31 bytes (pictures beyond 46,000 px a side) into several
//! launches; that is not reproduced.

use std::f64::consts::TAU;

use rayon::prelude::*;

use super::{Card, philox::philox4x32};

/// Threads of one block: `block_size_bound`.
const BLOCK_THREADS: usize = 256;
/// Values that one call makes: the components of a `float4`.
const UNROLL: u64 = 4;
/// Values that one parallel task makes at least.
const MIN_TASK: usize = 4096;
/// 2^-32, cuRAND's `CURAND_2POW32_INV`.
const INV_2_POW_32: f64 = 1.0 / 4_294_967_296.0;

/// `count` standard normal values, after draws of so many values each: a draw moves the generator's offset by what its threads
/// have called for.
pub fn randn(card: &Card, seed: u64, before: &[usize], count: usize) -> Vec<f32> {
    let threads = launched_threads(card, count) as u64;
    let first_call: u64 = before.iter().map(|count| calls(card, *count)).sum();
    let key = [seed as u32, (seed >> 32) as u32];
    // Each place runs its thread's Philox again: a fourth of the work wasted, and every place independent of the others.
    (0..count)
        .into_par_iter()
        .with_min_len(MIN_TASK)
        .map(|place| {
            let (thread, row) = (place as u64 % threads, place as u64 / threads);
            let (call, component) = (first_call + row / UNROLL, row % UNROLL);
            let counter = [call as u32, (call >> 32) as u32, thread as u32, (thread >> 32) as u32];
            normal4(philox4x32(counter, key), component)
        })
        .collect()
}

/// Calls of each thread of a launch for so many values.
fn calls(card: &Card, count: usize) -> u64 {
    (count as u64).div_ceil(launched_threads(card, count) as u64 * UNROLL)
}

/// Threads of the launch: one for each value, whole blocks, but no more than the card holds at once (and one for an empty tensor).
fn launched_threads(card: &Card, count: usize) -> usize {
    let resident = card.multiprocessors * (card.threads_per_multiprocessor / BLOCK_THREADS);
    count.div_ceil(BLOCK_THREADS).clamp(1, resident.max(1)) * BLOCK_THREADS
}

/// One component of `curand_normal4`: Box-Muller on the first and on the second pair of words, sine first.
fn normal4(words: [u32; 4], component: u64) -> f32 {
    match component {
        0 => box_muller(words[0], words[1], f64::sin),
        1 => box_muller(words[0], words[1], f64::cos),
        2 => box_muller(words[2], words[3], f64::sin),
        _ => box_muller(words[2], words[3], f64::cos),
    }
}

/// `_curand_box_muller`. The compiler contracts each product and sum of its source into one fused operation.
fn box_muller(x: u32, y: u32, wave: fn(f64) -> f64) -> f32 {
    const SCALE: f32 = INV_2_POW_32 as f32;
    const SCALE_TAU: f32 = (INV_2_POW_32 * TAU) as f32;
    let u = (x as f32).mul_add(SCALE, SCALE / 2.0); // in (0, 1]
    let v = (y as f32).mul_add(SCALE_TAU, SCALE_TAU / 2.0); // in (0, 2·pi]
    let radius = (-2.0 * f64::from(u).ln() as f32).sqrt();
    radius * wave(f64::from(v)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_place_are_one_philox_call() {
        // Two multiprocessors of 512 threads: 4 blocks, 1024 threads. 10,000 values: calls 0 to 2, the last cut off.
        let card = Card::custom(2, 512).expect("a card");
        let seed = (5u64 << 32) + 7;
        let values = randn(&card, seed, &[], 10_000);
        for (call, component, thread) in [(0, 0, 0), (0, 1, 0), (0, 3, 1023), (1, 2, 77), (2, 0, 1023), (2, 1, 783)] {
            let words = philox4x32([call, 0, thread, 0], [7, 5]);
            let place = 4 * 1024 * call as usize + 1024 * component as usize + thread as usize;
            assert_eq!(values[place], normal4(words, component), "{call} {component} {thread}");
        }
    }

    #[test]
    fn a_later_draw_begins_behind_the_calls_of_those_before() {
        // 10,000 values over 1024 threads are 3 calls of each; 300 over 512 threads are 1.
        let card = Card::custom(2, 512).expect("a card");
        let values = randn(&card, 7, &[10_000, 300, 0], 5000);
        for (call, component, thread) in [(0, 0, 0), (0, 3, 1023), (1, 0, 77)] {
            let words = philox4x32([4 + call, 0, thread, 0], [7, 0]);
            let place = 4 * 1024 * call as usize + 1024 * component as usize + thread as usize;
            assert_eq!(values[place], normal4(words, component), "{call} {component} {thread}");
        }
    }

    #[test]
    fn a_launch_is_as_wide_as_the_card_or_the_tensor() {
        let h100: Card = "h100".parse().expect("a card");
        assert_eq!(launched_threads(&h100, 0), 256);
        assert_eq!(launched_threads(&h100, 1), 256);
        assert_eq!(launched_threads(&h100, 257), 512);
        assert_eq!(launched_threads(&h100, 1 << 30), 132 * 2048);
        let rtx4090: Card = "rtx4090".parse().expect("a card");
        assert_eq!(launched_threads(&rtx4090, 1 << 30), 128 * 1536);
    }
}
