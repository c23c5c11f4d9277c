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

/// What kernels made of tensors launch is what their walk over shapes counts, whatever is kept and wherever bands end.
#[test]
fn tensors_launch_what_was_foretold() {
    let (config, weights) = tiny();
    let decoder = Decoder::open(config.clone(), weights.clone()).expect("a decoder");
    let encoder = Encoder::open(config.clone(), weights).expect("an encoder");
    let size = LatentSize { height: 10, width: 6 };
    let latents = Tensor::zeros((1, 16, size.height, size.width), DType::F32, &Device::Cpu).expect("latents");
    let counted = |run: &mut dyn FnMut()| {
        let before = launches();
        run();
        launches() - before
    };
    for (keep, band_rows) in [(Keep::All, 16), (Keep::Maps, 5), (Keep::Nothing, 4)] {
        let options = Banding { band_rows, keep: vec![keep; 4] };
        let foretold = |side| cost_of_tensors(&config, side, CPU, size, &options).expect("a walk").launches;
        let decoded = counted(&mut || {
            decoder.decode_on_device(&latents, &options, &mut |_, _| Ok(())).expect("decodes");
        });
        assert_eq!(decoded, foretold(Side::Decoder), "decode, {options:?}");
        let encoded = counted(&mut || {
            let grey = &mut |_, rows: &mut [f32]| {
                rows.fill(0.5);
                Ok(())
            };
            drop(encoder.encode_on_device(size, grey, &options).expect("encodes"));
        });
        assert_eq!(encoded, foretold(Side::Encoder), "encode, {options:?}");
    }
}

#[test]
fn attention_is_told_apart_and_grows_with_the_square() {
    let attention = |side_px, on| {
        let cost = cost(&autoencoder(), Side::Decoder, on, size(side_px), &Banding::default()).expect("an autoencoder");
        assert!(cost.attention_flops < cost.flops);
        cost.attention_flops as f64
    };
    for on in [CPU, CARD] {
        // 4 n² C of 512 channels: 128 x 128 latents at 1024 px.
        assert_eq!(attention(1024, on), 4.0 * 512.0 * 16_384f64.powi(2), "{on:?}");
        assert_eq!(attention(2048, on), 16.0 * attention(1024, on), "{on:?}");
    }
}

#[test]
fn the_best_way_is_the_one_that_walking_them_all_would_find() {
    let config = stages(3, &VaeConfig { block_out_channels: vec![32, 32, 64], ..autoencoder() });
    let size = LatentSize { height: 40, width: 24 };
    // Bands from high to low; no stage keeps more than a coarser one.
    let keeps: Vec<Vec<Keep>> =
        every_keep(3).into_iter().filter(|keep| keep.is_sorted_by(|coarser, finer| coarser >= finer)).collect();
    assert_eq!(keeps.len(), 10);
    let bandings = [32, 16, 8, 4]
        .into_iter()
        .flat_map(|band_rows| keeps.iter().map(move |keep| Banding { band_rows, keep: keep.clone() }));
    let bandings: Vec<Banding> = bandings.collect();
    for (on, side) in [(CPU, Side::Decoder), (CARD, Side::Decoder), (CPU, Side::Encoder), (CARD, Side::Encoder)] {
        let all: Vec<_> =
            bandings.iter().map(|options| cost(&config, side, on, size, options).expect("a walk")).collect();
        let ways = Ways::new(&config, side, on, size).expect("ways");
        for budget in all.iter().map(|cost| cost.memory_bytes).chain([0, u64::MAX]) {
            let fitting = all.iter().filter(|cost| cost.memory_bytes <= budget);
            let expected = fitting.map(|cost| cost.flops).min();
            let found = ways.best(budget);
            assert_eq!(found.map(|way| way.cost.flops), expected, "{on:?}, {side:?}, {budget}");
            let Some(found) = found else { continue };
            assert!(found.cost.memory_bytes <= budget);
            let higher = bandings.iter().zip(&all).filter(|(options, cost)| {
                cost.flops == found.cost.flops
                    && cost.memory_bytes <= budget
                    && options.band_rows > found.options.band_rows
            });
            assert_eq!(higher.count(), 0, "{on:?}, {side:?}, {budget}: {:?}", found.options);
        }
    }
}
