//! Text encoders of two sizes are lent by repositories of their own, each to the transformer that it goes with.

use std::collections::BTreeMap;

use dype::testing::base::json::read_json;
use serde_json::Value;

use super::{
    cached, command, published, put, run,
    support::{fixture, program::Place, write_hollow},
};

fn shapes(value: &Value) -> BTreeMap<String, Vec<usize>> {
    serde_json::from_value(value.clone()).expect("names and shapes")
}

#[test]
fn the_encoder_that_fits_is_lent() {
    let place = Place::new();
    let real: Value = read_json(&fixture("flux2-klein/real_tensors.json")).expect("lists");
    for (repo, size) in [("Qwen/Qwen3-4B", "4B"), ("Qwen/Qwen3-8B", "9B")] {
        let copy = cached(&place, repo);
        let (_, known) = published(&format!("black-forest-labs/FLUX.2-klein-{size}"));
        let config = known.configs.iter().find(|(path, _)| path.starts_with("text_encoder/")).expect("a config");
        // In the root, as language models are published.
        put(&copy, "config.json", config.1);
        write_hollow(&copy.join("model.safetensors"), shapes(&real[size]["text_encoder"]));
    }
    let own = cached(&place, "black-forest-labs/FLUX.2-klein-4B");
    put(&own, "vae/config.json", real["vae"]["config"].to_string());
    write_hollow(&own.join("vae/diffusion_pytorch_model.safetensors"), shapes(&real["vae"]["tensors"]));
    for name in ["vocab.json", "merges.txt", "tokenizer.json"] {
        put(&own, &format!("tokenizer/{name}"), "");
    }
    for (size, lender) in [("4B", "Qwen/Qwen3-4B"), ("9B", "Qwen/Qwen3-8B")] {
        let file = format!("{size}.safetensors");
        write_hollow(&place.path(&file), shapes(&real[size]["single_file"]));
        let args = ["--model", &file, "--dry-run", "--json", "-p", "a cat", "--device", "cpu", "--memory", "80GB"];
        let planned = run(command(&place, &[&args[..], &["--height", "256", "--width", "256"]].concat()));
        let said: Value = serde_json::from_str(&planned.succeeds().stdout).expect("JSON");
        let from = said["parts"]["text_encoder"].as_str().expect("said");
        assert!(from.starts_with(&format!("{lender}@")), "{size}: {from}");
    }
}
