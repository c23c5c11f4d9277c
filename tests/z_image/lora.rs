//! LoRA files by diffusers' names and by ComfyUI's change the same layers.

use std::{collections::HashMap, path::Path};

use candle_core::{Device, Tensor};

use super::{
    golden,
    support::program::{Place, rgb8},
};

const RANK: usize = 4;

/// Small numbers, the same on every machine.
fn numbers(seed: usize, shape: (usize, usize)) -> Tensor {
    let number = |at: usize| ((seed * 7919 + at * at * 31 + at) as f32).sin() * 0.2;
    Tensor::from_vec((0..shape.0 * shape.1).map(number).collect::<Vec<_>>(), shape, &Device::Cpu).expect("a tensor")
}

fn save(path: &Path, tensors: Vec<(String, Tensor)>) {
    candle_core::safetensors::save(&tensors.into_iter().collect::<HashMap<_, _>>(), path).expect("saved");
}

#[test]
fn fused_and_parted_names_change_the_same_layers() {
    let place = Place::new();
    let (down, ups) = (numbers(1, (RANK, 96)), [2, 3, 4].map(|seed| numbers(seed, (96, RANK))));
    let out = (numbers(5, (RANK, 96)), numbers(6, (96, RANK)));
    let layer = "layers.1.attention";
    let mut parted = Vec::new();
    for (name, up) in ["to_q", "to_k", "to_v"].iter().zip(&ups) {
        parted.push((format!("transformer.{layer}.{name}.lora_A.weight"), down.clone()));
        parted.push((format!("transformer.{layer}.{name}.lora_B.weight"), up.clone()));
    }
    parted.push((format!("transformer.{layer}.to_out.0.lora_A.weight"), out.0.clone()));
    parted.push((format!("transformer.{layer}.to_out.0.lora_B.weight"), out.1.clone()));
    save(&place.path("parted.safetensors"), parted);
    let fused = vec![
        (format!("diffusion_model.{layer}.qkv.lora_A.weight"), down),
        (format!("diffusion_model.{layer}.qkv.lora_B.weight"), Tensor::cat(&ups, 0).expect("one")),
        (format!("diffusion_model.{layer}.out.lora_A.weight"), out.0),
        (format!("diffusion_model.{layer}.out.lora_B.weight"), out.1),
    ];
    save(&place.path("fused.safetensors"), fused);
    let model = golden("tiny").display().to_string();
    let pixels = |name: &str, more: &[&str]| {
        let output = format!("{name}.png");
        let args = ["--model", &model, "--height", "64", "--width", "64", "--steps", "1", "-p", "a cat", "-o", &output];
        place.dype(&[&args[..], &["--device", "cpu", "--dtype", "f32"], more].concat()).succeeds();
        rgb8(&place.path(&output))
    };
    let plain = pixels("plain", &[]);
    let parted = pixels("parted", &["--lora", "parted.safetensors"]);
    let fused = pixels("fused", &["--lora", "fused.safetensors"]);
    assert!(parted != plain, "it acts");
    let most = parted.iter().zip(&fused).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(most <= Some(1), "{most:?}");
}
