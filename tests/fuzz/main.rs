//! Hostile files by mutation: whatever reads them ends without a panic and within bounded memory.
//!
//! The suite tries a few of each kind. For longer, with other changes every time (seconds for each kind):
//! `DYPE_FUZZ_SECONDS=600 cargo test --test fuzz -- --test-threads 1 --nocapture`. One that is found is tried again, alone, with
//! `DYPE_FUZZ_SEED=SEED cargo test --test fuzz KIND`.

#[path = "../support/counting.rs"]
mod counting;
mod mutate;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use candle_core::{DType, Device};
use counting::{alone, peak_of};
use dype::testing::{
    cli::pictured,
    models::{
        ModelRequest, Registry, adapt,
        flux1::Compute,
        parts::{CLIP_TOKENS, PromptTokenizer},
    },
    nn::Parameters,
    output::{Picture, Provenance, is_whole, read_parameters, save},
    recipe::read_prompts,
    weights::{Files, ShardIndex, TensorFiles, TensorSource, Weights, lora::LoraFile, open_folder},
};
use mutate::{Dice, mutated};
use support::fixture;

/// The most that a file of at most a megabyte may make its reader hold.
const MOST_BYTES: u64 = 192 << 20;

/// Reads changed seeds: `tries` of them, always the same; as long as `DYPE_FUZZ_SECONDS` says; or the one of `DYPE_FUZZ_SEED`.
#[expect(clippy::print_stdout, reason = "who fuzzes for minutes wants to know how much was tried")]
fn hostile(tries: u64, seeds: &[Vec<u8>], read: impl Fn(&[u8])) {
    let _alone = alone();
    let variable = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = variable("DYPE_FUZZ_SEED") {
        return try_one(seed, seeds, &read);
    }
    let Some(seconds) = variable("DYPE_FUZZ_SECONDS").map(Duration::from_secs) else {
        return (0..tries).for_each(|seed| try_one(seed, seeds, &read));
    };
    let first = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos() as u64;
    let started = Instant::now();
    let tried = (0..).take_while(|number| {
        try_one(first.wrapping_add(*number), seeds, &read);
        started.elapsed() < seconds
    });
    println!("{} tries in {} s", tried.count() + 1, seconds.as_secs());
}

fn try_one(seed: u64, seeds: &[Vec<u8>], read: &impl Fn(&[u8])) {
    let bytes = mutated(&mut Dice::new(seed), seeds);
    let taken = peak_of(|| {
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| read(&bytes)));
        assert!(ended.is_ok(), "seed {seed} panics on {}", keep(&bytes));
    });
    assert!(taken < MOST_BYTES, "seed {seed} takes {taken} bytes with {}", keep(&bytes));
}

/// The nets hold: a reader that panics, and one that takes too much, are told of with seed and file.
#[test]
fn canaries() {
    let told = |read: fn(&[u8])| {
        let ended = std::panic::catch_unwind(|| hostile(3, &[b"a seed of some length".to_vec()], read));
        let said = ended.expect_err("found").downcast::<String>().expect("a text");
        let file = said.rsplit(' ').next().expect("a file").to_owned();
        assert!(said.starts_with("seed ") && fs::read(file).is_ok_and(|bytes| !bytes.is_empty()), "{said}");
        *said
    };
    assert!(told(|_| panic!("a canary")).contains("panics on"));
    assert!(told(|_| drop(std::hint::black_box(vec![1u8; MOST_BYTES as usize]))).contains("bytes with"));
}

/// Where the file is kept that a reader stumbled over.
fn keep(bytes: &[u8]) -> String {
    let path = std::env::temp_dir().join(format!("dype-fuzz-{}", std::process::id()));
    fs::write(&path, bytes).map_or_else(|error| error.to_string(), |()| path.display().to_string())
}

fn pictures(ending: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let picture = Picture { height: 4, width: 6, rgb8: vec![90; 72] };
    let seed = |prompt: &str| {
        let json = serde_json::json!({
            "program": "dype", "program_version": "0.1.0", "provenance_version": 1, "device": "cpu", "dtype": "f32",
            "model": {"model": "demo", "revision": "1", "layout": "diffusers", "parts": {}},
            "settings": {
                "prompt": prompt, "height": 64, "width": 64, "steps": 2, "seed": 42, "method": "yarn", "dype": true,
                "guidance": 4.5, "max_sequence_length": 512, "base_resolution": 1024, "dype_scale": 2.0,
                "dype_exponent": 2.0, "rng": "torch-cuda",
            },
        });
        let parameters = format!("{prompt}\nSteps: 2, Sampler: Euler, Seed: 42, Size: 64x64, Model: demo");
        let path = folder.path().join(format!("seed.{ending}"));
        let path = save(&path, &picture, &Provenance { parameters, json }, true).expect("saved");
        fs::read(path).expect("readable")
    };
    let seeds =
        [seed("a lake"), seed("snow, \u{1f3d4} \"quoted\"\nNegative prompt: none"), seed(&"very long ".repeat(3000))];
    let path = folder.path().join(format!("x.{ending}"));
    hostile(400, &seeds, |bytes| {
        fs::write(&path, bytes).expect("written");
        let read = (pictured::read(&path).is_ok(), pictured::json(&path).is_ok(), read_parameters(&path).is_ok());
        let _ = (read, is_whole(&path));
    });
}

#[test]
fn png() {
    pictures("png");
}

#[test]
fn jpeg() {
    pictures("jpg");
}

#[test]
fn webp() {
    pictures("webp");
}

#[test]
fn files_of_prompts() {
    let seeds: Vec<Vec<u8>> = [
        "a lake\n\n# a comment\n  a hill  \r\n",
        "{\"prompt\": \"a lake\", \"seed\": 7, \"steps\": 4, \"method\": \"ntk\", \"dype\": false}\n{\"prompt\": \"b\"}\n",
        "[{\"prompt\": \"a\", \"height\": 64},\n \"b\", {\"prompt\": \"c\", \"guidance\": 3.5}]\n",
        "\u{feff}caf\u{e9}\n{\"prompt\": \"x\", \"mu\": 1.15}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    hostile(2000, &seeds, |bytes| drop(read_prompts("x", bytes)));
}

/// Links every file of tiny-flux into `to`, but for `changed`.
fn linked(from: &Path, to: &Path, changed: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            linked(&path, &to, changed);
        } else if !path.ends_with(changed) {
            fs::copy(&path, &to).expect("copied");
        }
    }
}

fn configs(part: &str, name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let place = Path::new(part).join(name);
    linked(&fixture("tiny-flux"), folder.path(), &place);
    let seeds = [fs::read(fixture("tiny-flux").join(&place)).expect("readable")];
    hostile(60, &seeds, |bytes| {
        fs::write(folder.path().join(&place), bytes).expect("written");
        drop(Registry::default().open(&ModelRequest::new(folder.path())));
    });
}

#[test]
fn configs_of_the_transformer() {
    configs("transformer", "config.json");
}

#[test]
fn configs_of_the_autoencoder() {
    configs("vae", "config.json");
}

#[test]
fn configs_of_text_encoders() {
    configs("text_encoder", "config.json");
    configs("text_encoder_2", "config.json");
}

#[test]
fn configs_of_the_scheduler_and_the_model() {
    configs("scheduler", "scheduler_config.json");
    configs("", "model_index.json");
}

/// Norms that LoRA files change.
const VECTORS: [(usize, &str); 3] = [
    (0, "transformer_blocks.0.attn.norm_q.weight"),
    (1, "text_model.final_layer_norm.bias"),
    (2, "encoder.final_layer_norm.weight"),
];

/// A LoRA file that changes them.
fn of_vectors() -> Vec<u8> {
    let header = r#"{"diffusion_model.double_blocks.0.img_attn.norm.query_norm.scale.diff":{"dtype":"F32","shape":[32],"data_offsets":[0,128]},"lora_te1_text_model_final_layer_norm.b_norm":{"dtype":"BF16","shape":[32],"data_offsets":[128,192]},"text_encoders.t5xxl.transformer.encoder.final_layer_norm.diff":{"dtype":"F16","shape":[64],"data_offsets":[192,320]}}"#;
    support::safetensors(header, 320)
}

/// LoRA files: whatever is taken can be loaded, or says why not.
#[test]
fn loras() {
    /// Layers of each kind of block, and one of an encoder.
    const LAYERS: [(usize, &str); 3] = [
        (0, "transformer_blocks.0.attn.to_q"),
        (0, "single_transformer_blocks.0.proj_mlp"),
        (1, "text_model.encoder.layers.0.mlp.fc1"),
    ];
    let model = support::flux1(&ModelRequest::new(fixture("tiny-flux"))).expect("tiny-flux");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("x.safetensors");
    let names = ["extra-keys", "lokr-kohya", "loha-kohya", "dora-peft", "diff", "peft-rslora"];
    let read = |name: &str| fs::read(fixture(&format!("lora/files/{name}.safetensors"))).expect("readable");
    let mut seeds: Vec<Vec<u8>> = names.map(read).into();
    seeds.push(of_vectors());
    hostile(300, &seeds, |bytes| {
        fs::write(&path, bytes).expect("written");
        let Ok(adapted) = LoraFile::open(&path, &Files::default()).and_then(|file| adapt(&model, &[(file, 0.5)]))
        else {
            return;
        };
        for (network, layer) in LAYERS {
            let source = &adapted.sources[network];
            let shape = source.shape(&format!("{layer}.weight")).expect("a layer");
            let parameters = Parameters::real(&Weights::new(source.clone(), DType::F32, Device::Cpu));
            drop(parameters.linear(layer, shape[1], shape[0], Compute::EXACT_F32));
        }
        for (network, name) in VECTORS {
            drop(adapted.sources[network].load(name, DType::F32, &Device::Cpu));
        }
    });
}

#[test]
fn indexes_of_shards() {
    let folder = tempfile::tempdir().expect("a folder");
    let name = "diffusion_pytorch_model.safetensors.index.json";
    linked(&fixture("tiny-flux/transformer"), folder.path(), Path::new(name));
    let seeds = [fs::read(fixture("tiny-flux/transformer").join(name)).expect("readable")];
    let path = folder.path().join(name);
    hostile(200, &seeds, |bytes| {
        fs::write(&path, bytes).expect("written");
        let _ = (ShardIndex::read(&path).is_ok(), open_folder(folder.path()).is_ok());
    });
}

#[test]
fn gguf_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let files =
        ["types/align64", "types/others", "broken/nested-arrays", "broken/orig-shape-wrong", "broken/incomplete"];
    let seeds = files.map(|name| fs::read(fixture(&format!("gguf/{name}.gguf"))).expect("readable"));
    let path = folder.path().join("x.gguf");
    hostile(600, &seeds, |bytes| {
        let Ok(store) = TensorFiles::from_bytes("x.gguf", bytes.to_vec()) else { return };
        for name in store.names() {
            let rows = store.shape(&name).and_then(|shape| shape.first().copied()).unwrap_or(0);
            let _ = store.load(&name, DType::F32, &Device::Cpu).is_ok();
            let _ = store.load_rows(&name, rows / 3..rows / 2, DType::BF16, &Device::Cpu).is_ok();
            let _ = store.load_blocks(&name, rows / 3..rows).is_ok();
        }
        fs::write(&path, bytes).expect("written");
        drop(Registry::default().open(&ModelRequest::new(&path)));
    });
}

#[test]
fn tokenizers() {
    let encode = |tokenizer: PromptTokenizer| drop(tokenizer.encode("a lake, don't 4K", CLIP_TOKENS));
    for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        let folder = tempfile::tempdir().expect("a folder");
        linked(&fixture("tiny-flux/tokenizer"), folder.path(), Path::new(name));
        let seeds = [fs::read(fixture("tiny-flux/tokenizer").join(name)).expect("readable")];
        hostile(100, &seeds, |bytes| {
            fs::write(folder.path().join(name), bytes).expect("written");
            PromptTokenizer::clip(folder.path(), 1000).map(encode).unwrap_or_default();
        });
    }
    let folder = tempfile::tempdir().expect("a folder");
    let seeds = [fs::read(fixture("tiny-flux/tokenizer_2/tokenizer.json")).expect("readable")];
    hostile(20, &seeds, |bytes| {
        fs::write(folder.path().join("tokenizer.json"), bytes).expect("written");
        PromptTokenizer::t5(folder.path(), 32_128).map(encode).unwrap_or_default();
    });
}
