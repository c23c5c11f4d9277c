//! LoRA files: fused layers, under the names of both layouts, against the same change made to the weights.

use std::{collections::HashMap, path::Path};

use candle_core::{DType, Device, Tensor, safetensors};
use dype::testing::output::load_latents;

use super::fixture;
use crate::support::{self, program::Place, relative_error, values};

/// The layers that are changed, under diffusers' names and Black Forest Labs', with outputs and inputs.
const LAYERS: [(&str, &str, [usize; 2]); 4] = [
    ("single_transformer_blocks.0.attn.to_qkv_mlp_proj", "single_blocks.0.linear1", [864, 96]),
    ("single_transformer_blocks.1.attn.to_out", "single_blocks.1.linear2", [96, 384]),
    ("transformer_blocks.1.ff.linear_in", "double_blocks.1.img_mlp.0", [576, 96]),
    ("transformer_blocks.0.attn.to_add_out", "double_blocks.0.txt_attn.proj", [96, 96]),
];
const RANK: usize = 4;

/// Numbers of either sign that are none of another matrix'.
fn matrix(rows: usize, columns: usize, seed: usize) -> Tensor {
    let number = |i: usize| ((i * 37 + seed * 101) % 229) as f32 / 229.0 - 0.5;
    Tensor::from_vec((0..rows * columns).map(number).collect(), (rows, columns), &Device::Cpu).expect("a matrix")
}

/// A [rank, in] and B [out, rank] of a layer.
fn low_rank(layer: usize) -> [Tensor; 2] {
    let [outputs, inputs] = LAYERS[layer].2;
    let up = (matrix(outputs, RANK, 2 * layer + 1) * 0.3).expect("scaled");
    [matrix(RANK, inputs, 2 * layer), up]
}

fn write_lora(path: &Path, name: impl Fn(usize) -> String) {
    let tensors = (0..LAYERS.len()).flat_map(|layer| {
        let [down, up] = low_rank(layer);
        [(format!("{}.lora_A.weight", name(layer)), down), (format!("{}.lora_B.weight", name(layer)), up)]
    });
    safetensors::save(&tensors.collect::<HashMap<_, _>>(), path).expect("written");
}

/// The tiny model with B A added to the weights themselves.
fn merged(folder: &Path) {
    support::copy_folder(&fixture("tiny"), folder);
    let path = folder.join("transformer/diffusion_pytorch_model.safetensors");
    let mut tensors = safetensors::load(&path, &Device::Cpu).expect("weights");
    for (layer, (name, ..)) in LAYERS.iter().enumerate() {
        let [down, up] = low_rank(layer);
        let weight = tensors[&format!("{name}.weight")].to_dtype(DType::F32).expect("widened");
        let sum = up.matmul(&down).and_then(|change| weight + change).expect("a sum");
        tensors.insert(format!("{name}.weight"), sum);
    }
    safetensors::save(&tensors, &path).expect("written");
}

#[test]
fn fused_layers_are_changed_under_the_names_of_both_layouts() {
    let place = Place::new();
    write_lora(&place.path("diffusers.safetensors"), |layer| format!("transformer.{}", LAYERS[layer].0));
    write_lora(&place.path("comfy.safetensors"), |layer| format!("diffusion_model.{}", LAYERS[layer].1));
    merged(&place.path("merged"));
    let tiny = fixture("tiny").display().to_string();
    let latents = |model: &str, more: &[&str]| {
        let fixed = ["--model", model, "--prompt", "a lake", "--height", "32", "--width", "32", "--steps", "1"];
        let text = ["--max-sequence-length", "16", "--device", "cpu", "--dtype", "f32", "--overwrite"];
        let out = ["-o", "x.png", "--save-latents", "x.safetensors"];
        place.dype(&[&fixed[..], &text, &out, more].concat()).succeeds();
        values(&load_latents(&place.path("x.safetensors"), 128).expect("latents"))
    };
    let (plain, expected) = (latents(&tiny, &[]), latents("merged", &[]));
    assert!(relative_error(&plain, &expected) > 1e-2, "the change is seen");
    for file in ["diffusers.safetensors", "comfy.safetensors"] {
        let error = relative_error(&latents(&tiny, &["--lora", file]), &expected);
        assert!(error < 1e-5, "{file}: {error:e}");
    }
}
