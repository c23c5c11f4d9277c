//! What several integration tests share.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub mod golden;
pub mod guided;
pub mod manifest;
pub mod program;
pub mod sentencepiece;
pub mod vae;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A path below tests/fixtures.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)
}

/// Copies a folder with everything in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("entry").path();
        let target = to.join(path.file_name().expect("name"));
        if path.is_dir() { copy_folder(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).expect("copy") }
    }
}

/// A copy of tiny-flux that may be broken.
pub fn tiny_flux() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    copy_folder(&fixture("tiny-flux"), folder.path());
    folder
}

/// FLUX.1's parts as this request finds them.
pub fn flux1(
    request: &dype::testing::models::ModelRequest,
) -> dype::testing::Result<dype::testing::models::flux1::Flux1> {
    let (_, found) = dype::testing::models::Registry::default().find(request)?;
    dype::testing::models::flux1::Flux1::open(found)
}

/// The model in this folder below tests/fixtures, of whatever family.
pub fn open_model(folder: &str) -> Box<dyn dype::testing::models::Model> {
    let request = dype::testing::models::ModelRequest::new(fixture(folder));
    let (family, found) = dype::testing::models::Registry::default().find(&request).expect("a model");
    family.open(found).expect("opens")
}

/// A safetensors file of this header and this many zero bytes.
pub fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

/// Writes a safetensors file of bf16 tensors of these shapes, whose numbers are a hole.
pub fn write_hollow(path: &Path, shapes: impl IntoIterator<Item = (String, Vec<usize>)>) {
    let mut end = 0;
    let entry = |(name, shape): (String, Vec<usize>)| {
        let start = end;
        end += 2 * shape.iter().product::<usize>();
        (name, serde_json::json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }))
    };
    let header: serde_json::Map<String, serde_json::Value> = shapes.into_iter().map(entry).collect();
    let start = safetensors(&serde_json::Value::from(header).to_string(), 0);
    fs::write(path, &start).expect("written");
    let file = fs::File::options().write(true).open(path).expect("there");
    file.set_len((start.len() + end) as u64).expect("a hole");
}

/// |a - b| / |b|, Euclidean norms.
pub fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let difference: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let norm: f64 = b.iter().map(|b| f64::from(*b).powi(2)).sum();
    (difference / norm).sqrt()
}

/// The largest |a - b|.
pub fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The numbers of an f32 tensor.
pub fn values(tensor: &candle_core::Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|tensor| tensor.to_vec1()).expect("an f32 tensor")
}
