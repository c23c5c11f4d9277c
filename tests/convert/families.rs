//! Whole runs of the other families with transformers and text encoders in blocks.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, safetensors};
use dype::testing::weights::TensorSource;

use crate::{
    convert, fixture, open, path,
    support::{copy_folder, program::Place, relative_error, values},
    tensor,
};

/// A family's tiny model.
struct Tiny {
    folder: &'static str,
    /// What GGUF files of its transformer and its text encoder say they were made for.
    made_for: [&'static str; 2],
    /// Flags that a single file does not say.
    more: &'static [&'static str],
}

const FAMILIES: [Tiny; 3] = [
    Tiny { folder: "z-image/tiny", made_for: ["lumina2", "qwen3"], more: &["--cfg", "1"] },
    Tiny {
        folder: "flux2-klein/tiny",
        made_for: ["flux", "qwen3"],
        more: &["--cfg", "1", "--max-sequence-length", "16"],
    },
    Tiny { folder: "qwen-image/tiny", made_for: ["qwen_image", "qwen2vl"], more: &["--cfg", "1"] },
];

impl Tiny {
    fn latents(&self, place: &Place, transformer: &str, text_encoder: &str) -> Vec<f32> {
        self.latents_with(place, transformer, text_encoder, &[])
    }

    fn latents_with(&self, place: &Place, transformer: &str, text_encoder: &str, more: &[&str]) -> Vec<f32> {
        let part = |name: &str| format!("{name}={}", fixture(self.folder).join(name).display());
        let (vae, tokenizer, scheduler) = (part("vae"), part("tokenizer"), part("scheduler"));
        let text = format!("text_encoder={text_encoder}");
        let fixed = ["--model", transformer, "-p", "a lake", "--height", "64", "--width", "64", "--steps", "2"];
        let parts = ["--part", &vae, "--part", &tokenizer, "--part", &scheduler, "--part", &text];
        let out =
            ["--device", "cpu", "--dtype", "f32", "--overwrite", "-o", "x.png", "--save-latents", "l.safetensors"];
        place.dype(&[&fixed[..], &parts, &out, self.more, more].concat()).succeeds();
        values(&dype::testing::output::LatentsFile::read(&place.path("l.safetensors")).expect("latents").latents)
    }
}

#[test]
fn what_is_in_blocks_computes_as_its_numbers_do() {
    for family in FAMILIES {
        let (place, model) = (Place::new(), path(family.folder));
        // Of a language model this small the shapes do not tell all.
        std::fs::copy(fixture(family.folder).join("text_encoder/config.json"), place.path("config.json"))
            .expect("copied");
        let text = ["--part", "text_encoder"];
        for (kind, error_of_blocks) in [("q8_0", 0.05), ("q4_0", 0.6)] {
            convert(&place, &model, "t.gguf", kind, &["--overwrite"]).succeeds();
            convert(&place, &model, "e.gguf", kind, &[&text[..], &["--overwrite"]].concat()).succeeds();
            let files = ["t.gguf", "e.gguf"].map(|file| open(&place.path(file)));
            assert_eq!(files.each_ref().map(|file| file.made_for()), family.made_for.map(Some), "{}", family.folder);
            for file in &files {
                let blocks = file.names().iter().filter(|name| file.blocks(name).is_some()).count();
                assert!(blocks >= 4, "{}: {blocks}", family.folder);
            }
            convert(&place, "t.gguf", "t.safetensors", "f32", &["--overwrite"]).succeeds();
            convert(&place, "e.gguf", "e.safetensors", "f32", &["--overwrite"]).succeeds();
            let found = family.latents(&place, "t.gguf", "e.gguf");
            let error = relative_error(&found, &family.latents(&place, "t.safetensors", "e.safetensors"));
            assert!(error < 1e-4, "{} {kind}: {error:e}", family.folder);
            // And they are near the model itself.
            let folder = fixture(family.folder);
            convert(&place, &model, "own.safetensors", "bf16", &["--overwrite"]).succeeds();
            let own = family.latents(&place, "own.safetensors", &folder.join("text_encoder").display().to_string());
            let error = relative_error(&found, &own);
            assert!(error > 1e-5 && error < error_of_blocks, "{} {kind}: {error:e}", family.folder);
        }
    }
}

/// Layers of a language model that are changed.
const CHANGED: [&str; 2] = ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"];

/// Numbers of either sign that are none of another matrix'.
fn matrix(rows: usize, columns: usize, seed: usize) -> Tensor {
    tensor((0..rows * columns).map(|i| ((i * 37 + seed * 101) % 229) as f32 / 229.0 - 0.5).collect(), &[rows, columns])
}

/// Of each changed layer the names in every spelling.
fn spelt(layer: &str, encoder: &str) -> [String; 4] {
    let short = layer.strip_prefix("model.").expect("a layer");
    [
        format!("text_encoder.{layer}"),
        format!("text_encoder.{short}"),
        format!("text_encoders.{encoder}.transformer.{layer}"),
        format!("lora_te_{}", layer.replace('.', "_")),
    ]
}

#[test]
fn a_lora_of_the_language_model_is_the_same_change_of_its_weights() {
    for (family, encoder) in FAMILIES.iter().zip(["qwen3_4b", "qwen3_4b", "qwen25_7b"]) {
        let (place, folder) = (Place::new(), fixture(family.folder));
        copy_folder(&folder.join("text_encoder"), &place.path("merged"));
        let files = std::fs::read_dir(place.path("merged")).expect("a folder").map(|file| file.expect("a file").path());
        let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
        let load = |file| (safetensors::load(&file, &Device::Cpu).expect("weights"), file);
        let mut shards: Vec<(HashMap<String, Tensor>, _)> = files.map(load).collect();
        let mut loras: [HashMap<String, Tensor>; 4] = Default::default();
        for (index, layer) in CHANGED.into_iter().enumerate() {
            let name = format!("{layer}.weight");
            let (weights, _) = shards.iter_mut().find(|(weights, _)| weights.contains_key(&name)).expect("the layer");
            let weight = weights[&name].to_dtype(DType::F32).expect("f32");
            let (rows, columns) = weight.dims2().expect("a matrix");
            let (down, up) = (matrix(3, columns, 2 * index), matrix(rows, 3, 2 * index + 1));
            let merged = up.matmul(&down).and_then(|change| weight + change).expect("a sum");
            weights.insert(name, merged);
            for (lora, name) in loras.iter_mut().zip(spelt(layer, encoder)) {
                let ends = if name.starts_with("lora_te_") { ["lora_down", "lora_up"] } else { ["lora_A", "lora_B"] };
                for (end, tensor) in ends.into_iter().zip([&down, &up]) {
                    lora.insert(format!("{name}.{end}.weight"), tensor.clone());
                }
            }
        }
        shards.iter().for_each(|(weights, file)| safetensors::save(weights, file).expect("saved"));
        convert(&place, &path(family.folder), "t.safetensors", "bf16", &[]).succeeds();
        let own = folder.join("text_encoder").display().to_string();
        let plain = family.latents(&place, "t.safetensors", &own);
        let expected = family.latents(&place, "t.safetensors", "merged");
        assert!(relative_error(&plain, &expected) > 1e-3, "{}: it acts", family.folder);
        for (index, lora) in loras.iter().enumerate() {
            safetensors::save(lora, place.path("lora.safetensors")).expect("saved");
            let found = family.latents_with(&place, "t.safetensors", &own, &["--lora", "lora.safetensors"]);
            let error = relative_error(&found, &expected);
            assert!(error < 1e-4, "{} {index}: {error:e}", family.folder);
        }
        let args = ["--part", "text_encoder", "--lora", "lora.safetensors"];
        convert(&place, &path(family.folder), "e.safetensors", "f32", &args).succeeds();
        std::fs::copy(folder.join("text_encoder/config.json"), place.path("config.json")).expect("copied");
        let error = relative_error(&family.latents(&place, "t.safetensors", "e.safetensors"), &expected);
        assert!(error < 1e-4, "{}: {error:e}", family.folder);
    }
}
