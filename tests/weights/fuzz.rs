//! The three readers of files from elsewhere never panic, whatever the files hold.

use std::fs;

use candle_core::{DType, Device};
use dype::testing::{
    models::ModelRequest,
    weights::{ShardIndex, TensorFiles, TensorSource, open_folder},
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{file, fixture, tiny_flux};

/// Opens the bytes; what opens must also load or be refused.
fn read_everything(bytes: Vec<u8>) {
    let Ok(store) = TensorFiles::from_bytes("fuzz", bytes) else { return };
    for name in store.names() {
        let shape = store.shape(&name).expect("a name of its own");
        let loaded = store.load(&name, DType::F32, &Device::Cpu);
        assert!(loaded.is_err() || loaded.is_ok_and(|t| t.dims() == shape), "{name}");
        let _ = store.load_rows(&name, 0..shape.first().copied().unwrap_or(1), DType::BF16, &Device::Cpu);
        let _ = store.load_rows(&name, 1..3, DType::F16, &Device::Cpu);
    }
}

/// Numbers as headers hold them: mostly near the truth, sometimes at the edges.
fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0_u64..40, 1 => Just(u64::MAX), 1 => Just(u64::MAX / 2), 1 => any::<u64>()]
}

fn entry() -> impl Strategy<Value = Value> {
    let dtype = prop_oneof![
        6 => prop::sample::select(vec!["F32", "BF16", "F16", "F8_E4M3", "F64", "I64", "U8", "F4", "BOOL"]),
        1 => Just("F33"),
    ];
    (dtype, prop::collection::vec(offset(), 0..4), offset(), offset())
        .prop_map(|(dtype, shape, start, end)| json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}))
}

/// Any JSON value of a few levels.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u64..200).prop_map(Value::from),
        Just(json!(u64::MAX)),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map(".{0,4}", inner, 0..3).prop_map(Value::from_iter),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_everything(bytes);
    }

    #[test]
    fn any_header_text(text in ".{0,80}", data in 0_usize..40) {
        read_everything(file(&text, data));
    }

    #[test]
    fn headers_of_odd_entries(
        entries in prop::collection::btree_map("[ab_.]{1,8}|__metadata__|a\\.weight|a\\.scale_weight", entry(), 0..4),
        data in 0_usize..80,
    ) {
        read_everything(file(&Value::from_iter(entries).to_string(), data));
    }

    /// Tensors that lie right, so that loading is reached with every type and shape.
    #[test]
    fn headers_of_good_entries(
        kinds in prop::collection::vec(
            (prop::sample::select(vec![("F32", 4), ("BF16", 2), ("F16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1), ("I64", 8)]),
             prop::collection::vec(0_usize..4, 0..4)), 0..5),
    ) {
        let mut at = 0;
        let entries = kinds.into_iter().enumerate().map(|(i, ((dtype, width), shape))| {
            let (start, end) = (at, at + width * shape.iter().product::<usize>());
            at = end;
            (format!("t{i}"), json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}))
        });
        let header = Value::from_iter(entries).to_string();
        prop_assert!(TensorFiles::from_bytes("fuzz", file(&header, at)).is_ok());
        read_everything(file(&header, at));
    }

    #[test]
    fn a_real_file_with_a_flipped_byte_or_cut_short(
        place in 0_usize..6000, value in any::<u8>(), cut in prop::option::of(0_usize..117_424),
    ) {
        let mut bytes = fs::read(fixture("tiny-flux/text_encoder/model.safetensors")).expect("fixture");
        bytes[place] = value;
        if let Some(cut) = cut {
            bytes.truncate(cut);
        }
        read_everything(bytes);
    }

    #[test]
    fn any_index(map in any_json(), whole in any::<bool>(), shard in "[a./\\\\]{0,6}|model.safetensors") {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("model.safetensors.index.json");
        let json = if whole { map } else { json!({"weight_map": {"a": shard, "b": map}}) };
        fs::write(&path, json.to_string()).expect("written");
        let _ = ShardIndex::read(&path);
        let _ = open_folder(folder.path());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any value under any key of any config: the model resolves or is refused.
    #[test]
    fn any_config(
        part in prop::sample::select(vec!["transformer", "vae", "text_encoder", "text_encoder_2"]),
        pick in any::<prop::sample::Index>(), value in any_json(), whole in prop::bool::weighted(0.1),
    ) {
        let model = tiny_flux();
        let path = model.path().join(part).join("config.json");
        let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).expect("config")).expect("json");
        if whole {
            config = value;
        } else {
            let keys: Vec<String> = config.as_object().expect("object").keys().cloned().collect();
            config[pick.get(&keys).as_str()] = value;
        }
        fs::write(&path, config.to_string()).expect("written");
        let _ = crate::flux1(&ModelRequest::new(model.path()));
    }
}
