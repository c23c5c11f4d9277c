//! `dype convert`: names and types against the lists of real models and of other programs' files, whole runs with what was
//! converted, and what is refused.

mod families;
mod hub;
#[path = "../support/hub_server.rs"]
#[allow(dead_code, reason = "each test binary uses its own part of this")]
mod hub_server;
mod loras;
mod names;
mod refused;
#[cfg(unix)]
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod types;

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use dype::testing::weights::{TensorFiles, TensorSource};
use support::{
    fixture,
    program::{Place, Run},
    values,
};

/// FLUX.1 as a single file and as a folder: the same numbers.
const FILE: &str = "tiny-bfl/flux1-tiny.safetensors";
const FOLDER: &str = "tiny-flux";

fn path(name: &str) -> String {
    fixture(name).display().to_string()
}

/// `dype convert` of a fixture in a place.
fn convert(place: &Place, model: &str, output: &str, kind: &str, more: &[&str]) -> Run {
    place.dype(&[&["convert", model, "-o", output, "--type", kind][..], more].concat())
}

fn open(path: &Path) -> TensorFiles {
    TensorFiles::open(&[path.to_path_buf()]).expect("opens")
}

/// All numbers of a tensor.
fn numbers(source: &dyn TensorSource, name: &str) -> Vec<f32> {
    values(&source.load(name, DType::F32, &Device::Cpu).expect("loads"))
}

fn tensor(numbers: Vec<f32>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(numbers, shape, &Device::Cpu).expect("a tensor")
}

/// The latents of one step with a transformer in a file, the rest tiny-flux's.
fn latents(place: &Place, transformer: &str, more: &[&str]) -> Vec<f32> {
    let mut args: Vec<String> = Vec::new();
    for part in ["vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"] {
        let is_given = more.iter().any(|word| word.starts_with(&format!("{part}=")));
        if !is_given {
            args.extend(["--part".to_owned(), format!("{part}={}", fixture(FOLDER).join(part).display())]);
        }
    }
    let fixed =
        ["--model", transformer, "--dtype", "f32", "--overwrite", "-o", "x.png", "--save-latents", "l.safetensors"];
    args.extend(fixed.iter().chain(more).map(|word| (*word).to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    place.small(&args).succeeds();
    values(&dype::testing::output::load_latents(&place.path("l.safetensors"), 64).expect("latents"))
}
