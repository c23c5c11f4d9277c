//! Numbers of every type, and of the models' tensors, against gguf-py's.

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    base::json::read_json,
    weights::{BlockType, TensorSource},
};
use serde::Deserialize;

use crate::{open, path};

/// What README.md of the fixtures asks: a few multiplications in f32.
const TOLERANCE: f32 = 1e-6;

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("numbers")
}

#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], name: &str) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= TOLERANCE * expected.abs(), "{name} at {index}: {found}, expected {expected}");
    }
}

#[test]
fn every_type_has_the_reference_s_numbers() {
    let golden = candle_core::safetensors::load(path("expected/types.safetensors"), &Device::Cpu).expect("golden");
    let (mut read, mut refused) = (0, 0);
    for (key, expected) in golden {
        let (file, kind) = key.split_once('/').expect("FILE/TYPE");
        let (store, name) = (open(&format!("types/{file}.gguf")), format!("t.{kind}"));
        let expected = numbers(&expected);
        let found = store.load(&name, DType::F32, &Device::Cpu);
        assert_eq!(store.is_weight(&name), found.is_ok(), "{key}");
        match found {
            Ok(found) => {
                assert_eq!(found.dims(), [2, 512], "{key}");
                assert_same(&numbers(&found), &expected, &key);
                let second = store.load_rows(&name, 1..2, DType::F32, &Device::Cpu).expect("a row");
                assert_same(&numbers(&second), &expected[512..], &key);
                let rounded = store.load(&name, DType::BF16, &Device::Cpu).expect("in bf16");
                let once = found.to_dtype(DType::BF16).expect("rounded");
                assert_eq!(numbers(&rounded), numbers(&once), "{key}");
                read += 1;
            }
            Err(error) => {
                assert_eq!(file, "others", "{key}: {error}");
                assert!(error.to_string().contains(&format!("{name}: numbers of type {kind}")), "{error}");
                refused += 1;
            }
        }
    }
    // Of the others IQ4_NL and IQ4_XS.
    assert_eq!((read, refused), (13 + 13 + 3 + 2, 9));
}

/// A tensor of a model as gguf-py reads it.
#[derive(Deserialize)]
struct Expected {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    shape: Vec<usize>,
    norm: f64,
    probes: Vec<(usize, f32)>,
}

#[derive(Deserialize)]
struct ExpectedFile {
    file: String,
    architecture: Option<String>,
    tensors: Vec<Expected>,
}

#[test]
fn every_tensor_of_the_models_has_its_shape_and_numbers() {
    let files: Vec<ExpectedFile> = read_json(&path("expected/tensors.json")).expect("golden");
    assert_eq!(files.len(), 13);
    for ExpectedFile { file, architecture, tensors } in files {
        let store = open(&format!("models/{file}"));
        assert_eq!(store.made_for(), architecture.as_deref(), "{file}");
        assert_eq!(store.names().len(), tensors.len(), "{file}");
        for Expected { name, kind, shape, norm, probes } in tensors {
            let what = format!("{file}: {name}");
            assert_eq!((store.type_name(&name), store.shape(&name)), (Some(kind), Some(shape.clone())), "{what}");
            let found = numbers(&store.load(&name, DType::F32, &Device::Cpu).expect("loads"));
            let squares: f64 = found.iter().map(|x| f64::from(*x).powi(2)).sum();
            assert!((squares.sqrt() - norm).abs() <= 1e-6 * norm, "{what}: norm {}, expected {norm}", squares.sqrt());
            for (index, expected) in probes {
                assert_same(&found[index..=index], &[expected], &what);
            }
            rows_are_those_of_the_whole(&store, &name, &shape, &found);
        }
    }
}

/// Rows, as numbers and in blocks, wherever blocks begin.
fn rows_are_those_of_the_whole(store: &dyn TensorSource, name: &str, shape: &[usize], whole: &[f32]) {
    let (rows, row) = (shape[0], whole.len() / shape[0]);
    let some = rows / 3..rows / 2 + 1;
    let expected = &whole[some.start * row..some.end * row];
    let found = store.load_rows(name, some.clone(), DType::F32, &Device::Cpu).expect("rows");
    assert_eq!(numbers(&found), expected, "{name}");
    let Some(kind) = store.blocks(name) else { return };
    let blocks = store.load_blocks(name, some).expect("blocks");
    let mut decoded = vec![0.0; expected.len()];
    kind.decode(&blocks.flatten_all().and_then(|bytes| bytes.to_vec1::<u8>()).expect("bytes"), &mut decoded);
    assert_eq!(decoded, expected, "{name}");
}

#[test]
fn what_is_stored_in_another_shape_is_no_matrix_of_whole_blocks() {
    let name = "double_blocks.0.img_attn.qkv.weight";
    assert_eq!(open("models/narrow-Q4_K-reshaped.gguf").blocks(name), None);
    assert_eq!(open("models/narrow-Q4_0.gguf").blocks(name), Some(BlockType::Q4_0));
    assert_eq!(open("models/narrow-BF16.gguf").blocks(name), None);
}
