//! Whole differences of norms and biases, against the same numbers added by hand to a copy of the model.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use candle_core::{DType, Device, Tensor, safetensors};
use dype::testing::output::LatentsFile;
use serde_json::{Value, json};

use super::support::{copy_folder, fixture, program::Place, relative_error, values};

/// Of latents, between what is added as it is read and what a file holds.
const TOLERANCE: f64 = 1e-5;

type Tensors = HashMap<String, Tensor>;

/// Numbers of either sign that are no other tensor's.
fn numbers(shape: &[usize], seed: usize) -> Tensor {
    let count: usize = shape.iter().product();
    let number = |i: usize| ((i * 37 + seed * 101) % 229) as f32 / 229.0 - 0.5;
    Tensor::from_vec((0..count).map(number).collect::<Vec<_>>(), shape, &Device::Cpu).expect("a tensor")
}

/// What is added to each tensor of a model's folder, by its part and its name there.
type Changes = BTreeMap<(String, String), Tensor>;

/// Adds them, times a strength, to the files of a copy of a model. In f32: it holds every sum.
fn merge(folder: &Path, changes: &Changes, strength: f64) {
    let mut left = changes.clone();
    let parts: Vec<String> = changes.keys().map(|(part, _)| part.clone()).collect();
    for part in parts.iter().collect::<std::collections::BTreeSet<_>>() {
        let files = fs::read_dir(folder.join(part)).expect("a folder").map(|file| file.expect("a file").path());
        for file in files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors")) {
            let mut tensors: Tensors = safetensors::load(&file, &Device::Cpu).expect("weights");
            for (name, tensor) in &mut tensors {
                if let Some(change) = left.remove(&(part.clone(), name.clone())) {
                    let added = (change * strength).and_then(|change| tensor.to_dtype(DType::F32)? + change);
                    *tensor = added.expect("a sum");
                }
            }
            safetensors::save(&tensors, &file).expect("saved");
        }
    }
    assert!(left.is_empty(), "{:?}", left.keys());
}

/// The latents of a model with each of these LoRA files at its strength, made in one batch.
fn latents(place: &Place, model: &str, loras: &[(&str, f64)], more: &[&str]) -> Vec<Vec<f32>> {
    let line = |(file, strength): &(&str, f64)| match *file {
        "" => json!({ "prompt": "a lake", "seed": 3 }).to_string(),
        file => json!({ "prompt": "a lake", "seed": 3, "lora": { "file": file, "strength": strength } }).to_string(),
    };
    fs::write(place.path("p.jsonl"), loras.iter().map(line).collect::<Vec<_>>().join("\n")).expect("written");
    let size = ["--height", "64", "--width", "64", "--steps", "2", "--cfg", "1", "--max-sequence-length", "32"];
    let out = ["-o", "x.png", "--save-latents", "x.safetensors", "--overwrite", "--device", "cpu", "--dtype", "f32"];
    place.dype(&[&["--model", model, "--prompts", "p.jsonl"][..], &size, &out, more].concat()).succeeds();
    let name = |i: usize| if i == 0 { "x.safetensors".to_owned() } else { format!("x_{}.safetensors", i + 1) };
    let read = |i| values(&LatentsFile::read(&place.path(name(i))).expect("latents").latents);
    (0..loras.len()).map(read).collect()
}

/// A model with these changes, added by hand.
fn expected(place: &Place, model: &str, changes: &Changes, strength: f64) -> Vec<f32> {
    let copy = place.path("merged");
    copy_folder(&fixture(model), &copy);
    merge(&copy, changes, strength);
    let found = latents(place, "merged", &[("", 0.0)], &[]).remove(0);
    fs::remove_dir_all(copy).expect("removed");
    found
}

/// A tensor of FLUX.1 in every name that LoRA files have for it, without its dialect's prefix.
struct Named {
    part: &'static str,
    /// In the model's folder, without `.weight` or `.bias`.
    own: &'static str,
    /// In Black Forest Labs' files.
    bfl: &'static str,
    kind: &'static str,
}

const fn weight(part: &'static str, own: &'static str, bfl: &'static str) -> Named {
    Named { part, own, bfl, kind: "weight" }
}

const fn bias(part: &'static str, own: &'static str, bfl: &'static str) -> Named {
    Named { part, own, bfl, kind: "bias" }
}

const CLIP: &str = "text_encoder";
const T5: &str = "text_encoder_2";

const FLUX1: [Named; 12] = [
    weight("transformer", "transformer_blocks.0.attn.norm_q", "double_blocks.0.img_attn.norm.query_norm"),
    weight("transformer", "transformer_blocks.1.attn.norm_added_k", "double_blocks.1.txt_attn.norm.key_norm"),
    weight("transformer", "single_transformer_blocks.2.attn.norm_k", "single_blocks.2.norm.key_norm"),
    bias("transformer", "transformer_blocks.0.attn.to_out.0", "double_blocks.0.img_attn.proj"),
    bias("transformer", "norm_out.linear", "final_layer.adaLN_modulation.1"),
    weight(CLIP, "text_model.encoder.layers.0.layer_norm1", ""),
    bias(CLIP, "text_model.encoder.layers.0.layer_norm1", ""),
    bias(CLIP, "text_model.final_layer_norm", ""),
    bias(CLIP, "text_model.encoder.layers.1.mlp.fc1", ""),
    weight(T5, "encoder.block.0.layer.0.layer_norm", ""),
    weight(T5, "encoder.final_layer_norm", ""),
    weight(T5, "encoder.block.0.layer.0.SelfAttention.relative_attention_bias", ""),
];

/// A way to name tensors.
struct Dialect {
    /// Of transformer, CLIP and T5.
    prefixes: [&'static str; 3],
    is_bfl: bool,
    is_flat: bool,
    /// Of the weights of norms, of all else's, of biases.
    ends: [&'static str; 3],
}

const COMFY: [&str; 3] = ["diffusion_model.", "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."];
const DIFFUSERS: [&str; 3] = ["transformer.", "text_encoder.", "text_encoder_2."];

const fn dotted(prefixes: [&'static str; 3], is_bfl: bool, ends: [&'static str; 3]) -> Dialect {
    Dialect { prefixes, is_bfl, is_flat: false, ends }
}

const fn flat(prefixes: [&'static str; 3], is_bfl: bool, ends: [&'static str; 3]) -> Dialect {
    Dialect { prefixes, is_bfl, is_flat: true, ends }
}

const DIALECTS: [Dialect; 9] = [
    dotted(COMFY, true, [".scale.diff", ".diff", ".diff_b"]),
    dotted(COMFY, true, [".diff", ".diff", ".bias.diff"]),
    dotted(["base_model.model.", COMFY[1], COMFY[2]], true, [".scale.diff", ".diff", ".diff_b"]),
    dotted(["", COMFY[1], COMFY[2]], true, [".scale.diff", ".weight.diff", ".bias.diff"]),
    dotted(DIFFUSERS, false, [".diff", ".diff", ".diff_b"]),
    dotted(DIFFUSERS, false, [".weight.diff", ".weight.diff", ".bias.diff"]),
    flat(["lora_unet_", "lora_te1_", "lora_te3_"], true, [".w_norm", ".w_norm", ".diff_b"]),
    flat(["lora_transformer_", "lora_te1_", "lora_te2_"], false, [".diff", ".diff", ".diff_b"]),
    flat(["lycoris_", "lora_te1_", "lora_te3_"], false, [".w_norm", ".w_norm", ".b_norm"]),
];

impl Dialect {
    /// A tensor's change as a file of this dialect has it.
    fn spelt(&self, named: &Named, change: &Tensor) -> (String, Tensor) {
        let part = ["transformer", CLIP, T5].iter().position(|part| *part == named.part).expect("a part");
        let stem = if self.is_bfl && part == 0 { named.bfl } else { named.own };
        let stem = if self.is_flat { stem.replace('.', "_") } else { stem.to_owned() };
        let [norm, other, bias] = self.ends;
        let end = if named.kind == "bias" {
            bias
        } else if part == 0 {
            norm
        } else {
            other
        };
        // There shift stands before scale.
        let half = change.dim(0).expect("rows") / 2;
        let swapped = || Tensor::cat(&[change.narrow(0, half, half)?, change.narrow(0, 0, half)?], 0);
        let is_swapped = self.is_bfl && named.own == "norm_out.linear";
        let tensor = if is_swapped { swapped().expect("halves") } else { change.clone() };
        (format!("{}{stem}{end}", self.prefixes[part]), tensor)
    }
}

/// What is added to each of [`FLUX1`].
fn changes_of_flux1() -> Vec<Tensor> {
    let mut all = Tensors::new();
    for part in ["transformer", CLIP, T5] {
        for file in fs::read_dir(fixture("tiny-flux").join(part)).expect("a folder") {
            let file = file.expect("a file").path();
            if file.extension().is_some_and(|ending| ending == "safetensors") {
                let tensors = safetensors::load(file, &Device::Cpu).expect("weights");
                all.extend(tensors.into_iter().map(|(name, tensor)| (format!("{part} {name}"), tensor)));
            }
        }
    }
    let change = |(seed, named): (usize, &Named)| {
        numbers(all[&format!("{} {}.{}", named.part, named.own, named.kind)].dims(), seed)
    };
    FLUX1.iter().enumerate().map(change).collect()
}

fn by_tensor(tensors: &[Tensor]) -> Changes {
    let key = |named: &Named| (named.part.to_owned(), format!("{}.{}", named.own, named.kind));
    FLUX1.iter().map(key).zip(tensors.iter().cloned()).collect()
}

#[test]
fn every_dialect_changes_norms_and_biases() {
    let (place, tensors) = (Place::new(), changes_of_flux1());
    let model = fixture("tiny-flux").display().to_string();
    for (index, dialect) in DIALECTS.iter().enumerate() {
        let file: Tensors = FLUX1.iter().zip(&tensors).map(|(named, tensor)| dialect.spelt(named, tensor)).collect();
        assert_eq!(file.len(), FLUX1.len());
        safetensors::save(&file, place.path(format!("{index}.safetensors"))).expect("saved");
    }
    let plain = latents(&place, &model, &[("", 0.0)], &[]).remove(0);
    let names: Vec<String> = (0..DIALECTS.len()).map(|index| format!("{index}.safetensors")).collect();
    for (strength, names, weights) in [
        (0.6, &names[..], "resident"),
        (0.6, &names[..1], "stream"),
        (-0.5, &names[..1], "resident"),
        (-0.5, &names[6..7], "stream"),
    ] {
        let expected = expected(&place, "tiny-flux", &by_tensor(&tensors), strength);
        assert!(relative_error(&plain, &expected) > 0.01, "it acts");
        // Between them the model as it is: what is held of it is not what was made of it.
        let mut loras: Vec<_> = names.iter().map(|name| (name.as_str(), strength)).collect();
        loras.insert(1, ("", 0.0));
        for (found, (name, _)) in latents(&place, &model, &loras, &["--weights", weights]).iter().zip(&loras) {
            let error = relative_error(found, if name.is_empty() { &plain } else { &expected });
            assert!(error < TOLERANCE, "{name} at {strength}, {weights}: {error:e}");
        }
    }
}

/// The same of a model in blocks, whose norms are in f32; and of files that are made of both.
#[test]
fn a_file_that_is_written_holds_the_changed_norms_and_biases() {
    let (place, tensors) = (Place::new(), changes_of_flux1());
    let changes: Changes = by_tensor(&tensors).into_iter().filter(|((part, _), _)| part == "transformer").collect();
    let of_transformer = || FLUX1.iter().zip(&tensors).filter(|(named, _)| named.part == "transformer");
    let file: Tensors = of_transformer().map(|(named, tensor)| DIALECTS[0].spelt(named, tensor)).collect();
    safetensors::save(&file, place.path("l.safetensors")).expect("saved");
    let folder = fixture("tiny-flux");
    copy_folder(&folder, &place.path("merged"));
    merge(&place.path("merged"), &changes, 0.6);
    let convert = |model: &str, file: &str, kind: &str, more: &[&str]| {
        place.dype(&[&["convert", model, "-o", file, "--type", kind][..], more].concat()).succeeds();
    };
    let part = |name: &str| format!("{name}={}", folder.join(name).display());
    let parts = ["vae", CLIP, T5, "tokenizer", "tokenizer_2", "scheduler"].map(part);
    let parts: Vec<&str> = parts.iter().flat_map(|part| ["--part", part]).collect();
    let of = |file: &str, lora: &str| latents(&place, file, &[(lora, 0.6)], &parts).remove(0);
    for kind in ["q8_0", "f32"] {
        let ending = if kind == "f32" { "safetensors" } else { "gguf" };
        let [own, by_hand, by_lora] = ["own", "hand", "lora"].map(|name| format!("{name}.{ending}"));
        let folder = folder.display().to_string();
        convert(&folder, &own, kind, &[]);
        convert("merged", &by_hand, kind, &[]);
        convert(&folder, &by_lora, kind, &["--lora", "l.safetensors:0.6"]);
        let expected = of(&by_hand, "");
        assert!(relative_error(&of(&own, ""), &expected) > 0.01, "{kind}: it acts");
        for (what, found) in [("beside", of(&own, "l.safetensors")), ("merged", of(&by_lora, ""))] {
            let error = relative_error(&found, &expected);
            assert!(error < TOLERANCE, "{kind} {what}: {error:e}");
        }
    }
}

/// Every vector of a part's files, and what is added to it.
fn vectors(model: &str, part: &str) -> Changes {
    let files = fs::read_dir(fixture(model).join(part)).expect("a folder").map(|file| file.expect("a file").path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    let tensors = files.flat_map(|file| safetensors::load(file, &Device::Cpu).expect("weights"));
    let is_vector = |tensor: &Tensor| tensor.dims().iter().filter(|size| **size > 1).count() == 1;
    let vectors: BTreeMap<_, _> = tensors.filter(|(_, tensor)| is_vector(tensor)).collect();
    let change =
        |(seed, (name, tensor)): (usize, (String, Tensor))| ((part.to_owned(), name), numbers(tensor.dims(), seed));
    vectors.into_iter().enumerate().map(change).collect()
}

/// ComfyUI's name of a transformer's norm in files of its own layout, where that differs.
fn in_single_files(model: &str, stem: &str) -> Option<String> {
    let swap = |pairs: &[(&str, &str)]| {
        pairs.iter().find_map(|(own, stored)| Some(format!("{}{stored}", stem.strip_suffix(own)?)))
    };
    match model {
        "z-image/tiny" => swap(&[(".norm_q", ".q_norm"), (".norm_k", ".k_norm")]),
        "flux2-klein/tiny" => {
            let stem = match stem.strip_prefix("single_transformer_blocks.") {
                Some(rest) => format!("single_blocks.{}", rest.replace(".attn.norm_", ".norm.norm_")),
                None => {
                    let rest = stem.strip_prefix("transformer_blocks.")?;
                    let rest = rest.replace(".attn.norm_added_", ".txt_attn.norm.norm_");
                    format!("double_blocks.{}", rest.replace(".attn.norm_", ".img_attn.norm.norm_"))
                }
            };
            Some(stem.replace("norm_q", "query_norm.scale").replace("norm_k", "key_norm.scale"))
        }
        _ => None,
    }
}

#[test]
fn every_family_takes_whole_differences_of_all_its_vectors() {
    for (model, text) in [
        ("z-image/tiny", "text_encoders.qwen3_4b.transformer."),
        ("flux2-klein/tiny", "text_encoders.qwen3_4b.transformer."),
        ("qwen-image/tiny", "text_encoders.qwen25_7b.transformer."),
    ] {
        let place = Place::new();
        let mut changes = vectors(model, "transformer");
        changes.extend(vectors(model, "text_encoder"));
        let spelt = |single: bool| -> Tensors {
            let of = |((part, name), change): (&(String, String), &Tensor)| {
                let (stem, end) = match name.rsplit_once('.') {
                    Some((stem, "weight")) => (stem, "diff"),
                    Some((stem, "bias")) => (stem, "diff_b"),
                    _ => (name.as_str(), "diff"),
                };
                let name = if part == "transformer" {
                    let other = in_single_files(model, stem).filter(|_| single);
                    format!("diffusion_model.{}", other.as_deref().unwrap_or(stem))
                } else {
                    format!("{}{stem}", if single { text } else { "text_encoder." })
                };
                (format!("{name}.{end}"), change.clone())
            };
            changes.iter().map(of).collect()
        };
        safetensors::save(&spelt(false), place.path("own.safetensors")).expect("saved");
        safetensors::save(&spelt(true), place.path("single.safetensors")).expect("saved");
        let folder = fixture(model).display().to_string();
        let plain = latents(&place, &folder, &[("", 0.0)], &[]).remove(0);
        for (strength, weights) in [(0.6, "resident"), (-0.5, "stream")] {
            let expected = expected(&place, model, &changes, strength);
            assert!(relative_error(&plain, &expected) > 0.01, "{model}: it acts");
            let loras = [("own.safetensors", strength), ("", 0.0), ("single.safetensors", strength)];
            for (found, (name, _)) in latents(&place, &folder, &loras, &["--weights", weights]).iter().zip(&loras) {
                let error = relative_error(found, if name.is_empty() { &plain } else { &expected });
                assert!(error < TOLERANCE, "{model} {name} at {strength}, {weights}: {error:e}");
            }
        }
    }
}

#[test]
fn what_no_norm_takes_is_told() {
    let place = Place::new();
    let norm = "diffusion_model.double_blocks.0.img_attn.norm.query_norm";
    let run = |tensors: &[(&str, Tensor)]| {
        let named: Tensors = tensors.iter().map(|(end, tensor)| (format!("{norm}{end}"), tensor.clone())).collect();
        safetensors::save(&named, place.path("l.safetensors")).expect("saved");
        place.small(&["--lora", "l.safetensors", "--overwrite", "-o", "x.png"])
    };
    let head = 32;
    run(&[(".diff", numbers(&[head + 1], 0))]).fails(1, &["query_norm.diff", "[33]", "takes 32 numbers"]);
    run(&[(".diff", Tensor::full(f32::NAN, head, &Device::Cpu).expect("a tensor"))])
        .fails(1, &["query_norm.diff", "not finite"]);
    let pair = [(".lora_A.weight", numbers(&[4, head], 0)), (".lora_B.weight", numbers(&[head, 4], 1))];
    run(&pair).fails(1, &["query_norm.lora_A.weight", "[4, 32]"]);
    let decomposed = [
        (".lora_down.weight", numbers(&[4, 1], 0)),
        (".lora_up.weight", numbers(&[head, 4], 1)),
        (".dora_scale", numbers(&[head], 2)),
    ];
    run(&decomposed).fails(1, &["query_norm", "DoRA"]);
    // A root mean square norm has no bias.
    run(&[(".diff_b", numbers(&[head], 0))]).fails(1, &["this model has none", "query_norm.diff_b"]);
    let both = [(".diff", numbers(&[1, head], 0)), (".diff_b", numbers(&[head], 0))];
    run(&both).succeeds().tells(&["1 of its 2 tensors", "query_norm.diff_b"]);
}

/// They take no memory and no operations of their own.
#[test]
fn a_plan_with_changed_norms_is_the_plan_without() {
    let (place, tensors) = (Place::new(), changes_of_flux1());
    let is_norm = |named: &&Named| named.kind == "weight";
    let file: Tensors = FLUX1
        .iter()
        .zip(&tensors)
        .filter(|(named, _)| is_norm(named))
        .map(|(named, tensor)| DIALECTS[0].spelt(named, tensor))
        .collect();
    safetensors::save(&file, place.path("l.safetensors")).expect("saved");
    let plan = |more: &[&str]| -> Value {
        let run = place.small(&[&["--dry-run", "--json"], more].concat());
        let json: Value = serde_json::from_str(run.succeeds().stdout.trim()).expect("JSON");
        ["step_flops", "transformer_bytes", "peak_bytes"].map(|key| json["plan"][key].clone()).to_vec().into()
    };
    assert_eq!(plan(&["--lora", "l.safetensors"]), plan(&[]));
}
