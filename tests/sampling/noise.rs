//! The noise against PyTorch, and the names of its sources.

use std::{collections::HashMap, path::PathBuf};

use candle_core::{Device, Tensor};
use dype::testing::{
    recipe::{Card, Rng},
    sampling::noise,
};

fn golden() -> HashMap<String, Tensor> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/expected/noise_torch_cpu.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).expect("golden")
}

#[test]
fn torch_cpu_is_pytorchs_stream() {
    let golden = golden();
    assert_eq!(golden.len(), 16);
    for (name, expected) in golden {
        let seed = name.strip_prefix("seed").and_then(|rest| rest.split('/').next()).expect("a seed");
        let found = noise(Rng::TorchCpu, seed.parse().expect("a number"), expected.dims());
        let expected: Vec<f32> = expected.flatten_all().and_then(|t| t.to_vec1()).expect("f32");
        assert_eq!(found.len(), expected.len(), "{name}");
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 1e-6, "{name}: {worst}");
    }
}

#[test]
fn any_thread_count_gives_the_same_noise() {
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a pool");
    for rng in [Rng::TorchCpu, "torch-cuda:t4".parse().expect("a card")] {
        let shape = [1, 16, 130, 67];
        assert_eq!(alone.install(|| noise(rng, 9, &shape)), noise(rng, 9, &shape));
    }
}

#[test]
fn torch_cuda_gives_the_values_published_for_seed_0() {
    // torch.randn(3, 4, device="cuda") after manual_seed(0), as AUTOMATIC1111's stable-diffusion-webui lists it in
    // modules/rng_philox.py; up to one launch of threads every card gives the same.
    let published = [
        -0.924_662_59,
        -0.425_344_15,
        -2.643_845_7,
        0.145_183_88,
        -0.120_866_47,
        -0.579_725_64,
        -0.622_851_22,
        -0.328_387_09,
        -1.074_542_31,
        -0.363_144_07,
        -1.671_050_67,
        2.265_504_97,
    ];
    for card in Card::names() {
        let rng: Rng = format!("torch-cuda:{card}").parse().expect("a card");
        for (found, expected) in noise(rng, 0, &[3, 4]).into_iter().zip(published) {
            assert!((f64::from(found) - expected).abs() < 2e-6, "{card}: {found} {expected}");
        }
    }
}

#[test]
fn torch_cuda_depends_on_the_card_beyond_one_launch() {
    // 7 multiprocessors of 1024 threads launch 7168 threads.
    let small: Rng = "torch-cuda:7x1024".parse().expect("a geometry");
    let large: Rng = "torch-cuda:h100".parse().expect("a card");
    let (small, large) = (noise(small, 3, &[20_000]), noise(large, 3, &[20_000]));
    assert_eq!(small[..7168], large[..7168]);
    assert_ne!(small[7168], large[7168]);
}

#[test]
fn noise_is_standard_normal() {
    for rng in [Rng::TorchCpu, "torch-cuda:rtx4090".parse().expect("a card")] {
        let values = noise(rng, 1, &[1 << 20]);
        let count = values.len() as f64;
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / count;
        let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / count;
        let fourth = values.iter().map(|v| f64::from(*v).powi(4)).sum::<f64>() / count;
        assert!(mean.abs() < 0.005, "{rng}: mean {mean}");
        assert!((variance - 1.0).abs() < 0.01, "{rng}: variance {variance}");
        assert!((fourth - 3.0).abs() < 0.1, "{rng}: fourth moment {fourth}");
    }
}

#[test]
fn an_empty_shape_has_no_noise() {
    for rng in [Rng::TorchCpu, "torch-cuda".parse().expect("a source")] {
        assert!(noise(rng, 0, &[0]).is_empty());
        assert_eq!(noise(rng, 0, &[]).len(), 1);
    }
}

#[test]
fn names_of_sources_are_read_and_written() {
    for text in ["torch-cpu", "torch-cuda:h100", "torch-cuda:rtx4090", "torch-cuda:77x1536"] {
        assert_eq!(text.parse::<Rng>().expect("known").to_string(), text);
    }
    for card in Card::names() {
        let card: Card = card.parse().expect("known");
        assert_eq!(card.to_string().parse::<Card>().expect("known"), card);
    }
    assert_eq!("RTX 3080 Ti".parse::<Card>().expect("known").multiprocessors, 80);
}

#[test]
fn the_card_in_use_is_an_h100_where_there_is_none() {
    let rng: Rng = "torch-cuda".parse().expect("known");
    assert_eq!((rng, rng.to_string().as_str()), (Rng::TorchCudaInUse, "torch-cuda"));
    let named = rng.on(&Device::Cpu).expect("no driver is asked");
    assert_eq!(named.to_string(), "torch-cuda:h100");
    assert_eq!(noise(rng, 1, &[4, 5]), noise(named, 1, &[4, 5]));
    assert_eq!(Rng::TorchCpu.on(&Device::Cpu).expect("no card"), Rng::TorchCpu);
}

#[test]
fn an_unknown_card_gets_the_nearest_name() {
    for (asked, nearest) in [("torch-cuda:h10", "h100"), ("torch-cuda:rtx4099", "rtx4090"), ("torch-cuda:l40x", "l40")]
    {
        let error = asked.parse::<Rng>().expect_err("unknown");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(asked), "{error}");
        assert!(error.hint().expect("a hint").contains(nearest), "{:?}", error.hint());
    }
    for text in ["", "cuda", "torch-cpu:h100", "torch-cuda:", "torch-cuda:0x2048", "torch-cuda:132x100"] {
        assert_eq!(text.parse::<Rng>().expect_err("unknown").exit_code(), 2, "{text}");
    }
}
