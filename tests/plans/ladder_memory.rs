//! What a ladder holds beside its networks, counted by the allocator, against what its plan adds for it.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Result,
    base::geometry::{ImageSize, LatentGeometry, TokenGrid},
    sampling::{
        Denoiser, State, StepInfo,
        ladder::{Climb, Climbing, Enlarged, Guide, Pull},
    },
};

use crate::{
    counting::{alone, live, peak_of, peak_towards},
    transformer_memory::assert_near,
};

const GEOMETRY: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };

/// Goes where it stands, for nothing.
struct Still;

impl Denoiser for Still {
    fn velocity(&mut self, latents: &Tensor, _: &StepInfo) -> Result<Tensor> {
        Ok(latents.clone())
    }
}

/// Peaks of so many threads, whatever machine this is.
pub fn on_threads(threads: usize, test: impl FnOnce() + Send) {
    let _alone = alone();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    pool.install(test);
}

fn packed(grid: TokenGrid) -> Tensor {
    Tensor::zeros(&GEOMETRY.packed_shape(grid)[..], DType::F32, &Device::Cpu).expect("zeros")
}

#[test]
fn leading_a_velocity_takes_the_memory_that_was_foretold() {
    let grid = |height_patches, width_patches| TokenGrid { height_patches, width_patches };
    // More than that are not all at their most at once.
    for threads in [1, 2] {
        for grids in [[grid(16, 16), grid(32, 32)], [grid(24, 40), grid(43, 72)], [grid(64, 40), grid(128, 80)]] {
            on_threads(threads, || {
                let [reference, latents] = grids.map(packed);
                let state: State =
                    (1..=2).map(|left| (format!("ladder.reference.{left}"), reference.clone())).collect();
                let before = live();
                let guide = Guide::new(Pull::of_stage(1), 2, GEOMETRY, grids);
                let mut climbing = Climbing::new(Still, Climb { keeps: 0, guide: Some(guide) });
                climbing.restore(state).expect("its own");
                let mut step = |index| {
                    let step = StepInfo { index, steps: 2, t: 0.5, t_next: 0.25, evaluation: 0 };
                    drop(climbing.velocity(&latents, &step).expect("led"));
                };
                step(0);
                let held = live() - before;
                let [held_foretold, led] = Guide::bytes(grids.map(|grid| GEOMETRY.latents(grid)), GEOMETRY.channels);
                let peak = peak_towards(led, 0.1, || step(1));
                let what = format!("{grids:?}, {threads} threads");
                assert_near(held, held_foretold, 0.1, &format!("held, {what}"));
                assert_near(held + peak, held_foretold + led, 0.1, &what);
            });
        }
    }
}

#[test]
fn enlarging_a_picture_takes_the_memory_that_was_foretold() {
    let size = |height_px, width_px| ImageSize { height_px, width_px };
    for (from, to) in
        [(size(256, 256), size(512, 512)), (size(768, 320), size(1152, 480)), (size(96, 512), size(192, 1024))]
    {
        on_threads(2, || {
            let mut band = vec![0.0; 3 * 40 * to.width_px];
            let peak = peak_of(|| {
                let picture = vec![0.5; 3 * from.height_px * from.width_px];
                let enlarged = Enlarged::new(picture, from, to);
                for first in [0, to.height_px - 40] {
                    enlarged.fill(first, &mut band);
                }
            });
            assert_near(peak, Enlarged::bytes(from, to), 0.1, &format!("{from:?} to {to:?}"));
        });
    }
}
