//! What a walk is said to take, and what is chosen within a budget.

use super::*;

const CPU: (DeviceKind, DType) = (DeviceKind::Cpu, DType::F32);
const CARD: (DeviceKind, DType) = (DeviceKind::Cuda { capability: (9, 0) }, DType::BF16);
const GB: u64 = 1_000_000_000;

fn size(side_px: usize) -> LatentSize {
    LATENTS.latents(LATENTS.tokens(ImageSize::new(side_px, side_px).expect("a size")))
}

fn tiny_config() -> VaeConfig {
    VaeConfig { block_out_channels: vec![32, 32, 64, 64], ..autoencoder() }
}

fn cost_of(
    config: &VaeConfig,
    side: Side,
    side_px: usize,
    options: &Banding,
) -> dype::testing::models::parts::kl::Cost {
    cost(config, side, CPU, size(side_px), options).expect("an autoencoder")
}

#[test]
fn no_buffer_reaches_what_a_device_can_count() {
    for config in [autoencoder(), tiny_config()] {
        for side_px in [4096, 8192] {
            for keep in every_keep(4) {
                let cost = cost_of(&config, Side::Decoder, side_px, &Banding { band_rows: 32, keep });
                assert!(cost.largest_elements < 1 << 32, "{side_px} px: {}", cost.largest_elements);
            }
        }
    }
}

#[test]
fn only_a_device_shrinks_its_bands_to_what_it_can_count() {
    // 32 rows of 256 channels, doubled from 16,384 latents a row: nine taps of a band are above 2^32 numbers.
    let (config, wide) = (autoencoder(), LatentSize { height: 64, width: 16_384 });
    let best = |on| Ways::new(&config, Side::Decoder, on, wide).expect("ways").best(u64::MAX).cloned().expect("a way");
    assert_eq!(best(CPU).options.band_rows, 32);
    let card = best(CARD);
    assert!(card.options.band_rows < 32 && card.cost.largest_elements < 1 << 32, "{card:?}");
}

#[test]
fn the_real_autoencoder_fits_a_machine_of_24_gb_at_4096_px() {
    let config = autoencoder();
    let all = cost_of(&config, Side::Decoder, 4096, &Banding::default()).memory_bytes;
    assert!(all > 16 * GB, "keeping all takes two maps of 8.6 GB: {all}");
    for side in [Side::Decoder, Side::Encoder] {
        let ways = Ways::new(&config, side, CPU, size(4096)).expect("an autoencoder");
        let best = ways.best_within(12 * GB).expect("fits");
        assert!(best.cost.memory_bytes <= 12 * GB);
        let once = cost_of(&config, side, 4096, &Banding::default()).flops;
        assert!((best.cost.flops as f64) < 1.4 * once as f64, "{side:?}: {} of {once}", best.cost.flops);
        assert!(ways.least().expect("ways").cost.memory_bytes < 5 * GB);
    }
}

#[test]
fn the_tiny_autoencoder_needs_little_more_than_a_gigabyte_at_4096_px() {
    for side in [Side::Decoder, Side::Encoder] {
        let ways = Ways::new(&tiny_config(), side, CPU, size(4096)).expect("an autoencoder");
        assert!(ways.best(GB).is_some(), "{side:?}: {:?}", ways.least());
    }
}

#[test]
fn too_small_a_budget_is_an_error_that_says_the_least() {
    for (side, doing) in [(Side::Decoder, "decoding"), (Side::Encoder, "encoding")] {
        let ways = Ways::new(&autoencoder(), side, CPU, size(4096)).expect("an autoencoder");
        let error = ways.best_within(GB / 10).expect_err("100 MB");
        assert!(matches!(error, Error::Memory { .. }));
        assert!(error.to_string().contains("at least") && error.to_string().starts_with(doing), "{error}");
    }
}

#[test]
fn work_grows_with_the_picture() {
    // 1024 px: 10.4 TFLOP, of which attention over 128 x 128 latents 0.55; counted by hand from the layers.
    let flops = cost_of(&autoencoder(), Side::Decoder, 1024, &Banding::default()).flops as f64;
    assert!((flops / 1e12 - 10.4).abs() < 0.2, "{flops}");
}
