//! Qwen3 and Qwen2.5-VL as text encoders, and their tokenizers: three families read them, each in its own way.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error, Result,
    base::{device::DeviceKind, json::read_json},
    models::parts::{
        ChatTemplate, ChatTokenizer, HiddenStates, Qwen3Config, Qwen25VlConfig, QwenConfig, QwenEncoder, Sequence,
        qwen_tensors, text_names,
    },
    nn::{Ledger, launches},
    weights::{TensorFiles, TensorSource, Weights},
};
use serde::Deserialize;

use crate::support::{fixture, manifest::ManifestSource, relative_error, values};

/// What a family reads.
struct Reader {
    family: &'static str,
    template: ChatTemplate,
    most: usize,
    /// Whether all prompts are padded to as many.
    pads: bool,
    /// Tokens at the start that are dropped.
    dropped: usize,
    reads: fn(&QwenConfig) -> HiddenStates,
}

const Z_IMAGE: Reader = Reader {
    family: "z-image",
    template: ChatTemplate { before: "<|im_start|>user\n", after: "<|im_end|>\n<|im_start|>assistant\n" },
    most: 512,
    pads: false,
    dropped: 0,
    reads: |config| HiddenStates::After(vec![config.num_hidden_layers - 1]),
};

const KLEIN: Reader = Reader {
    family: "flux2-klein",
    template: ChatTemplate {
        before: "<|im_start|>user\n",
        after: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    },
    most: 512,
    pads: true,
    dropped: 0,
    reads: |_| HiddenStates::After(vec![9, 18, 27]),
};

const QWEN_IMAGE: Reader = Reader {
    family: "qwen-image",
    template: ChatTemplate {
        before: "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
        after: "<|im_end|>\n<|im_start|>assistant\n",
    },
    most: 34 + 512,
    pads: false,
    dropped: 34,
    reads: |_| HiddenStates::Last,
};

const ALL: [Reader; 3] = [Z_IMAGE, KLEIN, QWEN_IMAGE];

/// A prompt, and what the reference makes of it.
#[derive(Deserialize)]
struct Case {
    #[serde(default)]
    name: String,
    prompt: String,
    templated: String,
    ids: Vec<u32>,
    /// The rows of the padded sequence that were kept.
    #[serde(default)]
    rows: serde_json::Value,
}

impl Reader {
    fn path(&self, path: &str) -> PathBuf {
        fixture(self.family).join(path)
    }

    fn cases(&self) -> Vec<Case> {
        read_json(&self.path("expected/text.json")).expect("fixture")
    }

    fn config(&self) -> QwenConfig {
        let path = self.path("tiny/text_encoder/config.json");
        match self.family {
            "qwen-image" => Qwen25VlConfig::read(&path).expect("fixture").0,
            _ => Qwen3Config::read(&path).expect("fixture").0,
        }
    }

    fn tokenizer(&self) -> ChatTokenizer {
        let rows = self.config().vocab_size;
        ChatTokenizer::qwen(&self.path("tiny/tokenizer"), self.template, rows).expect("fixture")
    }

    fn source(&self) -> TensorFiles {
        let files = fs::read_dir(self.path("tiny/text_encoder")).expect("fixture").map(|entry| entry.expect("entry"));
        let mut paths: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
        paths.sort();
        TensorFiles::open(&paths).expect("fixture")
    }

    fn encoder(&self, dtype: DType) -> QwenEncoder {
        let (config, weights) = (self.config(), Weights::new(Arc::new(self.source()), dtype, Device::Cpu));
        QwenEncoder::open(config.clone(), (self.reads)(&config), weights)
    }

    fn sequence(&self, tokenizer: &ChatTokenizer, prompt: &str, most: usize) -> Sequence {
        let ids = tokenizer.encode(prompt, most).expect("encodes").ids;
        if self.pads { Sequence::padded(ids, most, tokenizer.pad()) } else { Sequence::whole(ids) }
    }

    fn kept(&self, index: usize, case: &Case) -> Kept {
        let name = match self.family {
            "z-image" => format!("{}.cap_feats", case.name),
            "qwen-image" => format!("p{index}/prompt_embeds"),
            _ => format!("{}.prompt_embeds", case.name),
        };
        (name, serde_json::from_value(case.rows.clone()).ok())
    }
}

/// What the fixtures hold of the states of a prompt: what it is called, and its rows where they are not all.
type Kept = (String, Option<Vec<u32>>);

fn expected(reader: &Reader) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(reader.path("expected/text.safetensors"), &Device::Cpu).expect("fixture")
}

/// The most that some states of a reader are from the reference's, of so many of the prompts whose states the fixtures hold.
fn largest_error(reader: &Reader, dtype: DType, prompts: usize) -> f64 {
    let (tokenizer, expected, cases) = (reader.tokenizer(), expected(reader), reader.cases());
    let kept: Vec<_> = cases.iter().enumerate().map(|(index, case)| (case, reader.kept(index, case))).collect();
    let mut kept: Vec<_> = kept.into_iter().filter(|(_, (name, _))| expected.contains_key(name)).collect();
    assert_eq!(kept.len(), expected.len(), "{}", reader.family);
    kept.truncate(prompts);
    let prompts: Vec<_> = kept.iter().map(|(case, _)| reader.sequence(&tokenizer, &case.prompt, reader.most)).collect();
    let found = reader.encoder(dtype).encode(&prompts, |_| ()).expect("encodes");
    let error = |(found, (name, rows)): (Tensor, &Kept)| {
        let found = found.squeeze(0).expect("one prompt");
        let all = reader.dropped as u32..found.dims()[0] as u32;
        let rows = Tensor::new(rows.clone().unwrap_or_else(|| all.collect()), &Device::Cpu).expect("rows");
        let found = found.index_select(&rows, 0).expect("rows");
        assert_eq!(found.dims(), expected[name].dims(), "{name}");
        relative_error(&values(&found), &values(&expected[name]))
    };
    found.into_iter().zip(kept.iter().map(|(_, kept)| kept)).map(error).fold(0.0, f64::max)
}

#[test]
fn ids_equal_the_reference() {
    for reader in ALL {
        let tokenizer = reader.tokenizer();
        for case in reader.cases() {
            let ChatTemplate { before, after } = reader.template;
            assert_eq!(format!("{before}{}{after}", case.prompt), case.templated);
            let found = tokenizer.encode(&case.prompt, reader.most).expect("encodes");
            assert_eq!(found.ids, case.ids, "{} {:?}", reader.family, case.prompt);
            assert_eq!(found.lost.is_some(), case.name == "very_long", "{:?}", found.lost);
            let pieces = tokenizer.pieces(&found.ids);
            assert!(pieces.iter().zip(&found.ids).all(|(piece, id)| piece.id == *id && !piece.piece.is_empty()));
        }
    }
}

#[test]
fn states_meet_the_reference() {
    for reader in ALL {
        let error = largest_error(&reader, DType::F32, 9);
        assert!(error < 1e-5, "{} off by {error:e}", reader.family);
    }
}

/// Products in bf16 with f32 sums: what no processor is asked to beat.
#[test]
fn states_in_bf16_stay_near() {
    for reader in ALL {
        let error = largest_error(&reader, DType::BF16, 1);
        assert!(error < 3e-2, "{} off by {error:e}", reader.family);
    }
}

/// Of one tokenizer both forms of its files give the same ids.
#[test]
fn tokenizer_json_and_vocabulary_with_merges_are_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
        fs::copy(Z_IMAGE.path("tiny/tokenizer").join(file), folder.path().join(file)).expect("copy");
    }
    let open = |path: &Path| ChatTokenizer::qwen(path, Z_IMAGE.template, 960).expect("opens");
    let (json, parts) = (open(&Z_IMAGE.path("tiny/tokenizer/tokenizer.json")), open(folder.path()));
    for case in ALL.iter().flat_map(Reader::cases) {
        let of = |tokenizer: &ChatTokenizer| tokenizer.encode(&case.prompt, 4096).expect("encodes").ids;
        assert_eq!(of(&json), of(&parts), "{:?}", case.prompt);
    }
    // Where tokenizer_config.json says nothing of them, added_tokens.json does.
    let folder = tempfile::tempdir().expect("a folder");
    for file in ["vocab.json", "merges.txt", "added_tokens.json"] {
        fs::copy(QWEN_IMAGE.path("tiny/tokenizer").join(file), folder.path().join(file)).expect("copy");
    }
    let parts = ChatTokenizer::qwen(folder.path(), QWEN_IMAGE.template, 800).expect("opens");
    assert_eq!(parts.pad(), QWEN_IMAGE.tokenizer().pad());
    for case in QWEN_IMAGE.cases() {
        assert_eq!(parts.encode(&case.prompt, 4096).expect("encodes").ids, case.ids);
    }
}

#[test]
fn a_cut_prompt_says_which_of_its_own_words_were_lost() {
    let tokenizer = Z_IMAGE.tokenizer();
    let whole = tokenizer.encode("a cat on a hill", 512).expect("encodes");
    let after = 5; // <|im_end|>, newline, <|im_start|>, assistant, newline
    for (most, lost) in [(whole.ids.len(), None), (whole.ids.len() - after, None), (3, Some("a cat on a hill"))] {
        let found = tokenizer.encode("a cat on a hill", most).expect("encodes");
        assert_eq!((found.ids.as_slice(), found.lost.as_deref()), (&whole.ids[..most], lost));
    }
    let found = tokenizer.encode("a cat on a hill", whole.ids.len() - after - 1).expect("encodes");
    assert_eq!(found.lost.as_deref(), Some("hill"));
    assert_eq!(tokenizer.encode("a cat", 0).expect_err("no room").exit_code(), 2);
}

#[test]
fn broken_tokenizers_are_one_error_that_names_the_file() {
    let open = |file: &str, text: &str| -> Result<ChatTokenizer> {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["vocab.json", "merges.txt", "tokenizer_config.json"] {
            fs::copy(QWEN_IMAGE.path("tiny/tokenizer").join(name), folder.path().join(name)).expect("copy");
        }
        fs::write(folder.path().join(file), text).expect("write");
        ChatTokenizer::qwen(folder.path(), QWEN_IMAGE.template, 800)
    };
    let vocab = fs::read_to_string(QWEN_IMAGE.path("tiny/tokenizer/vocab.json")).expect("fixture");
    let config = fs::read_to_string(QWEN_IMAGE.path("tiny/tokenizer/tokenizer_config.json")).expect("fixture");
    let (gap, no_id) = (config.replace("\"777\"", "\"799\""), config.replace("\"777\"", "\"many\""));
    let unigram = r#"{"model": {"type": "Unigram", "vocab": []}}"#;
    for (file, text) in [
        ("vocab.json", &vocab[..vocab.len() / 2]),
        ("vocab.json", "[]"),
        ("merges.txt", "#version: 0.2\nlonely"),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", &gap),
        ("tokenizer_config.json", &no_id),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", unigram),
    ] {
        let error = open(file, text).err().unwrap_or_else(|| panic!("{file}: {text:.40}"));
        assert!(matches!(error, Error::Model { .. }) && error.to_string().contains(file), "{file}: {error}");
    }
    let nothing = tempfile::tempdir().expect("a folder");
    let error = ChatTokenizer::qwen(nothing.path(), QWEN_IMAGE.template, 800).err().expect("nothing there");
    assert!(error.to_string().contains("vocab.json"), "{error}");
    let error = ChatTokenizer::qwen(&QWEN_IMAGE.path("tiny/tokenizer"), QWEN_IMAGE.template, 700).err();
    assert!(error.expect("few rows").to_string().contains("700 rows"));
}

/// What is read of the real models is what their loaders ask for, and nothing of the rest.
#[test]
fn the_real_models_are_asked_for_what_is_read_and_no_more() {
    let sorted = |listed: Vec<(String, Vec<usize>)>| listed.into_iter().collect::<BTreeMap<_, _>>();
    let text: String = fs::read_to_string(fixture("qwen3_4b_tensors.json")).expect("fixture");
    let mut all: BTreeMap<String, Vec<usize>> = serde_json::from_str(&text).expect("fixture");
    let source = ManifestSource::new(all.clone());
    let config = dimensions(&source);
    let found = sorted(qwen_tensors(&config, &HiddenStates::After(vec![35])).expect("a configuration"));
    all.retain(|name, _| name != "model.norm.weight" && !name.starts_with("model.layers.35."));
    assert!(found == all);

    let source = ManifestSource::fixture("qwen-image/real_tensors.json", "text_encoder");
    let mut all = source.shapes().clone();
    let config = dimensions(&source);
    let found = sorted(qwen_tensors(&config, &HiddenStates::Last).expect("a configuration"));
    all.retain(|name, _| !name.starts_with("visual.") && name != "lm_head.weight");
    assert!(found == all);
    let error = qwen_tensors(&config, &HiddenStates::After(vec![29])).expect_err("28 layers");
    assert!(error.to_string().contains("28 layers"), "{error}");
}

/// The dimensions of a real model, by what its config says.
fn dimensions(source: &ManifestSource) -> QwenConfig {
    let shapes = source.shapes();
    let of = |name: &str, axis: usize| shapes[&format!("model.{name}.weight")][axis];
    let is_3 = shapes.contains_key("model.layers.0.self_attn.q_norm.weight");
    let layers = (0..).take_while(|i| shapes.contains_key(&format!("model.layers.{i}.mlp.up_proj.weight"))).count();
    let said = serde_json::json!({
        "vocab_size": of("embed_tokens", 0), "hidden_size": of("embed_tokens", 1), "num_hidden_layers": layers,
        "intermediate_size": of("layers.0.mlp.up_proj", 0), "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "num_attention_heads": of("layers.0.self_attn.q_proj", 0) / 128,
        "num_key_value_heads": of("layers.0.self_attn.k_proj", 0) / 128,
    });
    if is_3 { read_3(&said).expect("reads").0 } else { read_25(&said).expect("reads").0 }
}

fn written(said: &serde_json::Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    fs::write(&path, said.to_string()).expect("write");
    (folder, path)
}

fn read_3(said: &serde_json::Value) -> Result<Qwen3Config> {
    let (_folder, path) = written(said);
    Qwen3Config::read(&path)
}

fn read_25(said: &serde_json::Value) -> Result<Qwen25VlConfig> {
    let (_folder, path) = written(said);
    Qwen25VlConfig::read(&path)
}

/// transformers 4.51 and 4.56 say theta on top, 5 in an object of its own; Qwen2.5-VL's fields lie on top, in `text_config`, or
/// in both.
#[test]
fn every_spelling_of_a_config_is_read_alike() {
    let all: serde_json::Value = read_json(&Z_IMAGE.path("tiny/text_encoder/config.json")).expect("fixture");
    let (wanted, mut new) = (read_3(&all).expect("reads"), all.clone());
    let of = |value: &mut serde_json::Value| value.as_object_mut().expect("an object").clone();
    let mut object = of(&mut new);
    object.remove("rope_theta");
    object.insert("rope_parameters".into(), serde_json::json!({"rope_theta": 1_000_000.0, "rope_type": "default"}));
    assert_eq!(read_3(&object.clone().into()).expect("reads"), wanted);
    object.remove("rope_parameters");
    assert_ne!(read_3(&object.clone().into()).expect("reads"), wanted, "the class's own theta");
    for (key, value) in [
        ("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 4.0})),
        ("rope_parameters", serde_json::json!({"rope_type": "linear", "rope_theta": 1e6})),
        ("rope_parameters", serde_json::json!(4)),
        ("use_sliding_window", true.into()),
        ("layer_types", serde_json::json!(["full_attention", "sliding_attention"])),
        ("attention_bias", true.into()),
        ("hidden_act", "gelu".into()),
        ("num_key_value_heads", 3.into()),
        ("head_dim", 7.into()),
        ("rope_theta", serde_json::json!(0.5)),
    ] {
        let mut said = of(&mut all.clone());
        said.insert(key.into(), value);
        assert!(read_3(&said.into()).is_err(), "{key}");
    }

    let all: serde_json::Value = read_json(&QWEN_IMAGE.path("tiny/text_encoder/config.json")).expect("fixture");
    let wanted = read_25(&all).expect("reads");
    assert_eq!(wanted.0.head_dim(), 16);
    let mut on_top = of(&mut all.clone());
    let mut inner = on_top.remove("text_config").expect("an object");
    assert_eq!(read_25(&on_top.into()).expect("reads"), wanted);
    let within = serde_json::json!({"model_type": "qwen2_5_vl", "text_config": inner});
    assert_eq!(read_25(&within).expect("reads"), wanted);
    let inner = inner.as_object_mut().expect("an object");
    inner.remove("rope_theta");
    inner.remove("rope_scaling");
    let rope = serde_json::json!({"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e6});
    inner.insert("rope_parameters".into(), rope);
    assert_eq!(read_25(&serde_json::json!({"text_config": inner})).expect("reads"), wanted);
}

#[test]
fn names_are_found_whatever_stands_before_them() {
    let source: Arc<dyn TensorSource> = Arc::new(QWEN_IMAGE.source());
    let own: BTreeMap<_, _> = source.names().into_iter().map(|name| (name.clone(), source.shape(&name))).collect();
    for prefix in
        ["model.", "model.language_model.", "language_model.model.", "", "text_encoders.qwen.transformer.model."]
    {
        let renamed = own.iter().map(|(name, shape)| {
            let name = name.strip_prefix("model.").expect("a name of the fixture");
            (format!("{prefix}{name}"), shape.clone().expect("a shape"))
        });
        let file: Arc<dyn TensorSource> = Arc::new(ManifestSource::new(renamed));
        assert!(text_names::qwen3(Arc::clone(&file)).is_none());
        let found = text_names::qwen25_vl(file).expect("Qwen2.5-VL");
        let found: BTreeMap<_, _> = found.names().into_iter().map(|name| (name.clone(), found.shape(&name))).collect();
        assert_eq!(found, own, "{prefix}");
    }
    let qwen3: Arc<dyn TensorSource> = Arc::new(KLEIN.source());
    assert!(text_names::qwen3(Arc::clone(&qwen3)).is_some() && text_names::qwen25_vl(qwen3).is_none());
}

/// The dry pass launches what the real one launches, at both kinds of streams.
#[test]
fn the_dry_pass_is_the_real_one() {
    for (reader, dtype) in ALL.iter().flat_map(|reader| [(reader, DType::F32), (reader, DType::F16)]) {
        let (tokenizer, encoder) = (reader.tokenizer(), reader.encoder(dtype));
        let prompts = ["a cat", "a longer prompt than that"].map(|prompt| reader.sequence(&tokenizer, prompt, 60));
        let before = launches();
        let found = encoder.encode(&prompts, |_| ()).expect("encodes");
        let real = launches() - before;
        let ledger = Ledger::new(DeviceKind::Cpu);
        let dry = encoder.dry(&prompts, &ledger).expect("a dry pass");
        assert_eq!(ledger.launches(), real, "{} {dtype:?}", reader.family);
        for (found, dry) in found.iter().zip(&dry) {
            assert_eq!(found.dims(), dry.dims());
        }
    }
}

/// A prompt of a batch is what it is alone, whatever stands beside it.
#[test]
fn prompts_do_not_see_each_other() {
    for reader in ALL {
        let (tokenizer, encoder) = (reader.tokenizer(), reader.encoder(DType::F32));
        let prompts = ["a cat", "a dog in the rain, at night"].map(|prompt| reader.sequence(&tokenizer, prompt, 60));
        let together = encoder.encode(&prompts, |_| ()).expect("encodes");
        let alone = encoder.encode(&prompts[1..], |_| ()).expect("encodes");
        assert_eq!(values(&together[1]), values(&alone[0]));
    }
}
