//! Text encoders under llama.cpp's names.

use std::{collections::HashMap, sync::Arc};

use candle_core::{DType, Device, Tensor};
use dype::testing::{
    models::parts::text_names,
    weights::{TensorFiles, TensorSource},
};

use crate::support::fixture;

/// What llama.cpp's converter writes for a part of a name (`gguf-py/gguf/tensor_mapping.py`).
const WORDS: [(&str, &str); 13] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("model.layers", "blk"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.", "ffn_"),
    ("_proj.", "."),
];

#[test]
fn a_qwen3_in_llama_cpp_s_names_is_the_same_encoder() {
    let file = fixture("z-image/tiny/text_encoder/model.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).expect("a fixture");
    let numbers = |tensor: &Tensor| -> Vec<f32> {
        tensor.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("numbers")
    };
    let renamed = |name: &str| WORDS.iter().fold(name.to_owned(), |name, (ours, theirs)| name.replace(ours, theirs));
    let stored: HashMap<_, _> = tensors.iter().map(|(name, tensor)| (renamed(name), tensor.clone())).collect();
    assert!(stored.contains_key("blk.0.attn_output.weight") && stored.contains_key("blk.1.ffn_gate.weight"));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("qwen3.safetensors");
    candle_core::safetensors::save(&stored, &file).expect("written");
    let source: Arc<dyn TensorSource> = Arc::new(TensorFiles::open(&[file]).expect("opens"));
    assert!(text_names::qwen25_vl(Arc::clone(&source)).is_none(), "it has no biases");
    let named = text_names::qwen3(source).expect("a Qwen3");
    assert_eq!(named.unused(), [""; 0]);
    for (name, tensor) in &tensors {
        let found = named.load(name, DType::F32, &Device::Cpu).expect("answers to its name");
        assert_eq!(numbers(&found), numbers(tensor), "{name}");
    }
}
