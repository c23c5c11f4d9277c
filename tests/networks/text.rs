//! Tokenizers and text encoders against what transformers 5 computes in float32 (tests/fixtures/README.md).

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use crate::support::{fixture, manifest::ManifestSource, relative_error, sentencepiece, values};
use candle_core::{DType, Device, Tensor};
use dype::testing::{
    Error, Result,
    base::progress::{Event, Observer, Silent, Stage},
    models::{
        flux1::text::TextEncoders,
        parts::{
            CLIP_TOKENS, ClipConfig, ClipEncoder, PromptTokenizer, T5Config, T5Encoder, Tokenizers, clip_tensors,
            t5_tensors,
        },
    },
    weights::{TensorFiles, Weights},
};

const CLIP_ROWS: usize = 865;
const T5_ROWS: usize = 295;

fn tiny(part: &str) -> PathBuf {
    fixture("tiny-flux").join(part)
}

fn weights(part: &str) -> Weights {
    let store = TensorFiles::open(&[tiny(part).join("model.safetensors")]).expect("fixture");
    Weights::new(Arc::new(store), DType::F32, Device::Cpu)
}

fn tokenizers() -> Tokenizers {
    Tokenizers::open(&tiny("tokenizer"), CLIP_ROWS, &tiny("tokenizer_2"), T5_ROWS).expect("fixture")
}

fn encoders() -> TextEncoders {
    let clip = ClipConfig::read(&tiny("text_encoder/config.json")).expect("fixture");
    let t5 = T5Config::read(&tiny("text_encoder_2/config.json")).expect("fixture");
    TextEncoders {
        tokenizers: tokenizers(),
        clip: ClipEncoder::open(clip, weights("text_encoder")),
        t5: T5Encoder::open(t5, weights("text_encoder_2")),
    }
}

fn prompts() -> Vec<String> {
    let text = fs::read_to_string(fixture("expected/text.json")).expect("fixture");
    serde_json::from_str(&text).expect("a list of prompts")
}

fn expected() -> HashMap<String, Tensor> {
    let path = fixture("expected/text.safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).expect("fixture")
}

fn ids(tensor: &Tensor) -> Vec<u32> {
    let ids = tensor.flatten_all().and_then(|t| t.to_vec1::<i64>()).expect("ids");
    ids.into_iter().map(|id| u32::try_from(id).expect("an id")).collect()
}

/// |found - wanted| / |wanted|, over the whole tensors.
fn relative_difference(found: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(found.dims(), wanted.dims());
    relative_error(&values(found), &values(wanted))
}

#[derive(Default)]
struct Recorder(Mutex<Vec<Event>>);

impl Observer for Recorder {
    fn on(&self, event: Event) {
        self.0.lock().expect("not poisoned").push(event);
    }
}

#[test]
fn ids_equal_the_reference() {
    let (tokenizers, expected) = (tokenizers(), expected());
    for (i, prompt) in prompts().iter().enumerate() {
        let clip = tokenizers.clip.encode(prompt, CLIP_TOKENS).expect("encodes");
        assert_eq!(clip.ids, ids(&expected[&format!("p{i}/clip_ids")]), "CLIP, prompt {i}");
        let t5 = tokenizers.t5.encode(prompt, 512).expect("encodes");
        assert_eq!(t5.ids, ids(&expected[&format!("p{i}/t5_ids")]), "T5, prompt {i}");
        assert_eq!(t5.lost, None);
    }
}

/// Ids from transformers 5.23 `CLIPTokenizer` and `T5TokenizerFast` on the same files.
#[test]
fn unusual_text_equals_the_reference() {
    let tokenizers = tokenizers();
    let clip: [(&str, &[u32]); 7] = [
        ("<|endoftext|> hi", &[863, 864, 71, 328, 864]),
        ("it's  A\u{a0}castle'S 123 4", &[863, 72, 339, 6, 338, 320, 785, 6, 338, 272, 273, 274, 275, 864]),
        ("x\n\ny", &[863, 343, 344, 864]),
        ("!!'s ... don't", &[863, 0, 0, 262, 338, 13, 13, 269, 67, 528, 6, 339, 864]),
        ("e\u{301} caf\u{e9}", &[863, 127, 358, 538, 69, 127, 358, 864]),
        ("\u{1f642} ok", &[863, 172, 253, 247, 480, 78, 330, 864]),
        ("a<|startoftext|>b", &[863, 320, 863, 321, 864]),
    ];
    for (prompt, wanted) in clip {
        let found = tokenizers.clip.encode(prompt, CLIP_TOKENS).expect("encodes").ids;
        assert_eq!(&found[..wanted.len()], wanted, "{prompt:?}");
        assert!(found[wanted.len()..].iter().all(|id| *id == 864), "{prompt:?}");
    }
    let t5: [(&str, &[u32]); 4] = [
        ("tab\tx", &[6, 151, 293, 284, 6, 7, 1]),
        ("  lead", &[6, 290, 249, 293, 289, 1]),
        ("</s> hi <pad>", &[1, 6, 286, 292, 0, 1]),
        ("ﬁ ½ Ⅷ", &[6, 175, 292, 6, 2, 142, 256, 256, 256, 1]),
    ];
    for (prompt, wanted) in t5 {
        let found = tokenizers.t5.encode(prompt, 64).expect("encodes").ids;
        assert_eq!(&found[..wanted.len()], wanted, "{prompt:?}");
        assert!(found[wanted.len()..].iter().all(|id| *id == 0), "{prompt:?}");
    }
}

#[test]
fn a_cut_prompt_says_which_words_were_lost() {
    let tokenizers = tokenizers();
    let prompt = format!("{}castle on a  hill", "a ".repeat(75));
    let clip = tokenizers.clip.encode(&prompt, CLIP_TOKENS).expect("encodes");
    assert_eq!(clip.lost.as_deref(), Some("castle on a  hill"));
    assert_eq!(clip.ids.len(), CLIP_TOKENS);
    assert_eq!(clip.ids.last(), Some(&864), "the end token is kept");

    let whole = tokenizers.t5.encode("A small castle by the sea", 64).expect("encodes");
    assert_eq!(whole.lost, None);
    let used = whole.ids.iter().take_while(|id| **id != 1).count();
    let fits = tokenizers.t5.encode("A small castle by the sea", used + 1).expect("encodes");
    assert_eq!((fits.ids.len(), fits.lost), (used + 1, None), "exactly full");
    let cut = tokenizers.t5.encode("A small castle by the sea", used).expect("encodes");
    assert_eq!(cut.ids.last(), Some(&1), "the end token is kept");
    assert_eq!(cut.ids[..used - 1], whole.ids[..used - 1]);
    assert_eq!(cut.lost.as_deref(), Some("sea"), "the word, though its first pieces fit");
}

#[test]
fn embeddings_meet_the_reference() {
    let (prompts, expected) = (prompts(), expected());
    let found = encoders().encode(&prompts, 512, &Silent).expect("encodes");
    assert_eq!(found.len(), prompts.len());
    for (i, found) in found.iter().enumerate() {
        assert_eq!(found.prompt_embeds.dims(), [1, 512, 64]);
        let rows = found.prompt_embeds.narrow(1, 0, 64).expect("64 rows");
        let off = relative_difference(&rows, &expected[&format!("p{i}/prompt_embeds")]);
        assert!(off < 1e-4, "prompt_embeds of prompt {i} off by {off:e}");
        let off = relative_difference(&found.pooled, &expected[&format!("p{i}/pooled")]);
        assert!(off < 1e-4, "pooled of prompt {i} off by {off:e}");
    }
}

#[test]
fn a_batch_gives_what_single_prompts_give_and_tells_its_way() {
    let (encoders, prompts) = (encoders(), prompts());
    let recorder = Recorder::default();
    let together = encoders.encode(&prompts[2..4], 32, &recorder).expect("encodes");
    let alone = encoders.encode(&prompts[3..4], 32, &Silent).expect("encodes");
    assert_eq!(relative_difference(&together[1].prompt_embeds, &alone[0].prompt_embeds), 0.0);
    assert_eq!(relative_difference(&together[1].pooled, &alone[0].pooled), 0.0);

    let events = recorder.0.into_inner().expect("not poisoned");
    assert_eq!(events.first(), Some(&Event::Begin { stage: Stage::Text, total: 6 }));
    assert!(matches!(events.last(), Some(Event::End { stage: Stage::Text, .. })));
    let told = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    assert_eq!(told(|e| matches!(e, Event::Advance { .. })), 6);
    assert_eq!(told(|e| matches!(e, Event::Note(text) if text.contains("castle"))), 1);
    assert_eq!(told(|e| matches!(e, Event::Warning(text) if text.contains("castle"))), 1);
}

#[test]
fn ids_beyond_the_embedding_table_are_an_error() {
    let encoders = encoders();
    assert!(matches!(encoders.t5.encode(&[vec![295, 1]], |_| ()), Err(Error::Model { .. })));
    assert!(matches!(encoders.clip.encode(&[vec![865]], |_| ()), Err(Error::Model { .. })));
    assert!(matches!(encoders.clip.encode(&[vec![0; 78]], |_| ()), Err(Error::Model { .. })));
    let open = |rows| PromptTokenizer::clip(&tiny("tokenizer"), rows);
    assert_names(open(864).map(drop), "vocab.json");
    assert_names(PromptTokenizer::t5(&tiny("tokenizer_2"), 294).map(drop), "tokenizer.json");
}

#[test]
fn the_real_model_is_asked_for_exactly_its_tensors() {
    let clip = clip_tensors(&ClipConfig::clip_l()).expect("a configuration");
    let t5 = t5_tensors(&T5Config::t5_xxl()).expect("a configuration");
    for (listed, part) in [(clip, "text_encoder"), (t5, "text_encoder_2")] {
        let listed: BTreeMap<_, _> = listed.into_iter().collect();
        assert_eq!(listed, *ManifestSource::diffusers(part).shapes());
    }
}

/// What is shown of a prompt is what is computed with: each id by its piece, the padding counted, the rest told.
#[test]
fn pieces_are_the_ids_that_are_read() {
    let tokenizers = tokenizers();
    for prompt in prompts() {
        for (tokenizer, length) in [(&tokenizers.clip, CLIP_TOKENS), (&tokenizers.t5, 512), (&tokenizers.t5, 5)] {
            let (pieces, padding, cut) = tokenizer.pieces(&prompt, length).expect("pieces");
            let read = tokenizer.encode(&prompt, length).expect("encodes");
            let ids: Vec<u32> = pieces.iter().map(|piece| piece.id).collect();
            assert_eq!((ids.len() + padding, &cut), (length, &read.lost), "{prompt}");
            assert_eq!(ids, read.ids[..ids.len()], "{prompt}");
            assert!(pieces.iter().all(|piece| !piece.piece.is_empty()), "{pieces:?}");
        }
    }
    let (pieces, padding, _) = tokenizers.clip.pieces("x", 6).expect("pieces");
    let words: Vec<&str> = pieces.iter().map(|piece| piece.piece.as_str()).collect();
    assert_eq!((words.as_slice(), padding), (["<|startoftext|>", "x</w>", "<|endoftext|>"].as_slice(), 3));
}

/// One clear error of the right kind that names the file.
fn assert_names(result: Result<()>, file: &str) {
    let error = result.expect_err("broken");
    assert!(matches!(error, Error::Model { .. }), "{error:?}");
    assert!(error.to_string().contains(file), "{error} does not name {file}");
    assert!(error.hint().is_some(), "{error} says nothing to do");
}

/// A copy of a fixture's tokenizer folder with one file replaced (or, without text, removed).
fn changed(part: &str, file: &str, text: Option<&str>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(tiny(part)).expect("fixture") {
        let entry = entry.expect("entry");
        fs::copy(entry.path(), folder.path().join(entry.file_name())).expect("copy");
    }
    match text {
        Some(text) => fs::write(folder.path().join(file), text).expect("write"),
        None => fs::remove_file(folder.path().join(file)).expect("remove"),
    }
    folder
}

#[test]
fn broken_clip_tokenizers_are_one_error_that_names_the_file() {
    let vocab = fs::read_to_string(tiny("tokenizer/vocab.json")).expect("fixture");
    let open = |folder: &tempfile::TempDir| PromptTokenizer::clip(folder.path(), CLIP_ROWS).map(drop);
    let cut = &vocab[..vocab.len() / 2];
    let no_end = vocab.replace("<|endoftext|>", "<|fin|>");
    let no_start = vocab.replace("<|startoftext|>", "<|begin|>");
    let huge = vocab.replace("864", "4000000000");
    let negative = vocab.replace("864", "-1");
    for text in ["", "[]", "{}", "<html>404</html>", cut, &no_end, &no_start, &huge, &negative] {
        assert_names(open(&changed("tokenizer", "vocab.json", Some(text))), "vocab.json");
    }
    let longest = "meadow</w> meadow</w>";
    for text in ["#version: 0.2\ni n\nlonely", "i n x", "q\u{0} zz", "<html> <head>", longest, "i  n"] {
        assert_names(open(&changed("tokenizer", "merges.txt", Some(text))), "merges.txt");
    }
    for text in ["{", r#"{"pad_token": 7}"#] {
        assert_names(open(&changed("tokenizer", "tokenizer_config.json", Some(text))), "tokenizer_config.json");
    }
    let unknown_pad = changed("tokenizer", "tokenizer_config.json", Some(r#"{"pad_token": "<nothing>"}"#));
    assert_names(open(&unknown_pad), "tokenizer_config.json");
    assert_names(open(&changed("tokenizer", "vocab.json", None)), "vocab.json");
    assert!(matches!(PromptTokenizer::clip(Path::new("/nowhere"), CLIP_ROWS), Err(Error::Disk { .. })));
}

#[test]
fn the_pad_token_is_the_configs() {
    let text = r#"{"pad_token": {"content": "!", "lstrip": false}}"#;
    let folder = changed("tokenizer", "tokenizer_config.json", Some(text));
    let tokenizer = PromptTokenizer::clip(folder.path(), CLIP_ROWS).expect("opens");
    assert_eq!(tokenizer.encode("x", 6).expect("encodes").ids, [863, 343, 864, 0, 0, 0]);
}

#[test]
fn clip_reads_tokenizer_json_too() {
    let vocab = fs::read_to_string(tiny("tokenizer/vocab.json")).expect("fixture");
    let merges = fs::read_to_string(tiny("tokenizer/merges.txt")).expect("fixture");
    let lines: Vec<&str> = merges.lines().skip(1).filter(|line| !line.is_empty()).collect();
    let pairs: Vec<Vec<&str>> = lines.iter().map(|line| line.split(' ').collect()).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tokenizer.json");
    let (wanted, prompts) = (tokenizers().clip, prompts());
    for merges in [serde_json::json!(lines), serde_json::json!(pairs)] {
        let vocab: serde_json::Value = serde_json::from_str(&vocab).expect("json");
        let json = serde_json::json!({"model": {"type": "BPE", "vocab": vocab, "merges": merges}});
        fs::write(&file, json.to_string()).expect("write");
        for path in [folder.path(), &file] {
            let tokenizer = PromptTokenizer::clip(path, CLIP_ROWS).expect("opens");
            for prompt in &prompts {
                let tokens = tokenizer.encode(prompt, CLIP_TOKENS).expect("encodes");
                assert_eq!(tokens, wanted.encode(prompt, CLIP_TOKENS).expect("encodes"));
            }
        }
    }
    let t5 = tiny("tokenizer_2");
    assert_names(PromptTokenizer::clip(&t5, CLIP_ROWS).map(drop), "tokenizer.json");
}

#[test]
fn broken_t5_tokenizers_are_one_error_that_names_the_file() {
    let text = fs::read_to_string(tiny("tokenizer_2/tokenizer.json")).expect("fixture");
    let open = |text: &str| {
        let folder = changed("tokenizer_2", "tokenizer.json", Some(text));
        let tokenizer = PromptTokenizer::t5(folder.path(), T5_ROWS)?;
        tokenizer.encode("Ünïcödé ﬁ ½ \u{10ffff}", 64).map(drop)
    };
    open(&text).expect("the fixture is whole");
    let mut no_end: serde_json::Value = serde_json::from_str(&text).expect("json");
    no_end["added_tokens"] = serde_json::json!([]);
    no_end["model"]["vocab"][1][0] = "<end>".into();
    let mut no_unknown: serde_json::Value = serde_json::from_str(&text).expect("json");
    no_unknown["model"]["unk_id"] = serde_json::Value::Null;
    let mut far_unknown = no_unknown.clone();
    far_unknown["model"]["unk_id"] = 100_000.into();
    let mut no_charsmap = no_unknown.clone();
    no_charsmap["normalizer"]["normalizers"][0]["precompiled_charsmap"] = "AAAAAA==".into();
    let clip = r#"{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}}"#;
    let cut = &text[..text.len() / 2];
    let changed = [no_end.to_string(), no_unknown.to_string(), far_unknown.to_string(), no_charsmap.to_string()];
    let plain = ["", "{}", "[]", r#"{"model": 3}"#, "<html>404</html>", cut, clip];
    for text in plain.into_iter().chain(changed.iter().map(String::as_str)) {
        assert_names(open(text), "tokenizer.json");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Damaged or hostile sentencepiece models open or are refused, and nothing panics past the reader.
    #[test]
    fn any_sentencepiece_model(
        pieces in proptest::collection::vec((".{0,4}", proptest::num::f32::ANY, 0_u64..7), 0..12),
        table in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
        change in (0_usize..400, proptest::num::u8::ANY),
        cut in 0_usize..600,
        prompt in ".{0,20}",
    ) {
        use sentencepiece::{bytes_field, number_field, piece};
        let special = [piece("<pad>", 0.0, 3), piece("</s>", 0.0, 3), piece("<unk>", 0.0, 2)].concat();
        let pieces: Vec<u8> = pieces.iter().flat_map(|(text, score, kind)| piece(text, *score, *kind)).collect();
        let mut model = [special, pieces, bytes_field(3, &bytes_field(2, &table)), number_field(9, 7)].concat();
        if let Some(byte) = model.get_mut(change.0) {
            *byte = change.1;
        }
        model.truncate(cut);
        let folder = only_pieces(&model);
        if let Ok(tokenizer) = PromptTokenizer::t5(folder.path(), 1000) {
            let _ = tokenizer.encode(&prompt, 16);
        }
    }
}

/// Room for a table is not made because a file says so: 4 GB of a trie in a file of some bytes.
#[test]
fn a_normalisation_table_that_says_too_much_is_refused() {
    use sentencepiece::{bytes_field, piece};
    let table = [&u32::MAX.to_le_bytes()[..], &[0; 8]].concat();
    let special = [piece("<pad>", 0.0, 3), piece("</s>", 0.0, 3), piece("<unk>", 0.0, 2)].concat();
    let folder = only_pieces(&[special, bytes_field(3, &bytes_field(2, &table))].concat());
    let error = PromptTokenizer::t5(folder.path(), 1000).err().expect("refused").to_string();
    assert!(error.contains("says 4294967295 bytes of a trie and has 8"), "{error}");
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(tiny("tokenizer_2/tokenizer.json")).expect("fixture")).expect("JSON");
    let step = serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "/////wAAAAAAAAAA" });
    json["normalizer"] = serde_json::json!({ "type": "Sequence", "normalizers": [step] });
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("tokenizer.json"), json.to_string()).expect("written");
    let error = PromptTokenizer::t5(folder.path(), 1000).err().expect("refused").to_string();
    assert!(error.contains("says 4294967295 bytes of a trie and has 8"), "{error}");
}

/// A folder with nothing but this spiece.model.
fn only_pieces(model: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("spiece.model"), model).expect("written");
    folder
}

#[test]
fn a_sentencepiece_model_gives_the_ids_of_the_tokenizer_json_made_of_it() {
    let json = fs::read(tiny("tokenizer_2/tokenizer.json")).expect("fixture");
    let folder = only_pieces(&sentencepiece::of_tokenizer_json(&json));
    let expected = PromptTokenizer::t5(&tiny("tokenizer_2"), T5_ROWS).expect("fixture");
    let prompts = [
        "a castle above a stormy sea, 4096 x 4096, dramatic light!",
        "  lead and   trail  ",
        "tab\tx\n\nnew  line",
        "</s> hi <pad> <unk> there",
        "ﬁ ½ Ⅷ ｆｕｌｌ",
        "Ünïcödé caf\u{e9} e\u{301} \u{1f642} \u{10ffff} 山水",
        "<extra_id_0> x",
        "▁ marks ▁▁",
        "",
        " ",
        "\u{a0}\u{3000}\u{200b}\u{ad}wide",
    ];
    // The sentinels of the other 100 have no row in this table.
    for path in [folder.path().to_path_buf(), folder.path().join("spiece.model")] {
        let tokenizer = PromptTokenizer::t5(&path, T5_ROWS).expect("opens");
        for prompt in prompts {
            for length in [64, 5] {
                let (found, wanted) = (tokenizer.encode(prompt, length), expected.encode(prompt, length));
                assert_eq!(found.expect("encodes"), wanted.expect("encodes"), "{prompt:?}");
            }
        }
    }
    // A tokenizer.json beside it goes first.
    fs::write(folder.path().join("tokenizer.json"), "{}").expect("written");
    assert_names(PromptTokenizer::t5(folder.path(), T5_ROWS).map(drop), "tokenizer.json");
}

#[test]
fn sentinels_stand_behind_the_pieces_as_many_as_the_config_says() {
    let json = fs::read(tiny("tokenizer_2/tokenizer.json")).expect("fixture");
    let folder = only_pieces(&sentencepiece::of_tokenizer_json(&json));
    let first = |rows: usize| {
        let tokenizer = PromptTokenizer::t5(folder.path(), rows).expect("opens");
        tokenizer.encode("<extra_id_0>", 64).expect("encodes").ids[0]
    };
    // transformers counts them down: <extra_id_0> is the last.
    assert_eq!(first(1000), 295 + 99);
    fs::write(folder.path().join("tokenizer_config.json"), r#"{"extra_ids": 7}"#).expect("written");
    assert_eq!(first(1000), 295 + 6);
    assert_eq!(first(297), 295 + 1, "no more than have a row");
}

#[test]
fn what_is_no_sentencepiece_model_of_t5_is_one_error_that_names_the_file() {
    use sentencepiece::{bytes_field, number_field, piece};
    let folder = tempfile::tempdir().expect("a folder");
    let neither = PromptTokenizer::t5(folder.path(), T5_ROWS).map(drop).expect_err("no tokenizer");
    assert!(neither.to_string().contains("neither tokenizer.json nor spiece.model"), "{neither}");
    let whole = sentencepiece::of_tokenizer_json(&fs::read(tiny("tokenizer_2/tokenizer.json")).expect("fixture"));
    let special = [piece("<pad>", 0.0, 3), piece("</s>", 0.0, 3), piece("<unk>", 0.0, 2), piece("a", -1.0, 1)].concat();
    let cases: [(Vec<u8>, &str); 10] = [
        (b"<html>Sign in</html>".to_vec(), "no sentencepiece model; it says \"Sign in\""),
        (b"".to_vec(), "without pieces"),
        (b"{}".to_vec(), "no sentencepiece model"),
        (whole[..whole.len() / 2].to_vec(), "in the middle of a field"),
        ([&special[..], &bytes_field(2, &number_field(3, 2))].concat(), "of kind BPE"),
        ([&special[..], &piece("b", f32::NAN, 1)].concat(), "the score of \"b\" is NaN"),
        ([&special[..], &bytes_field(1, &bytes_field(1, b"\xff"))].concat(), "not UTF-8"),
        ([&special[..], &bytes_field(3, &bytes_field(2, &[0, 0, 0, 0]))].concat(), "spiece.model"),
        (piece("a", -1.0, 1), "no token </s>"),
        (vec![0xff; 30], "too long"),
    ];
    for (model, says) in cases {
        let folder = only_pieces(&model);
        let opened = PromptTokenizer::t5(folder.path(), T5_ROWS).and_then(|it| it.encode("ﬁ a", 64).map(drop));
        let error = opened.expect_err(says);
        assert!(matches!(error, Error::Model { .. }), "{error}");
        assert!(error.to_string().contains("spiece.model") && error.to_string().contains(says), "{says}: {error}");
    }
}
