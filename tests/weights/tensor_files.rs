//! Reading good files.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use dype::testing::weights::{Cut, Float8, Renamed, TensorFiles, TensorSource, Weights, open_folder};

use crate::{file, fixture, refused_with};

fn numbers(t: &Tensor) -> Vec<f32> {
    t.to_dtype(DType::F32).and_then(|t| t.flatten_all()).and_then(|t| t.to_vec1()).expect("numbers")
}

/// Every tensor of the shards, read by candle and by the store.
#[test]
fn shards_read_as_candle_reads_them() {
    let folder = fixture("tiny-flux/transformer");
    let store = open_folder(&folder).expect("opens");
    let mut seen = 0;
    for i in 1..=3 {
        let shard = folder.join(format!("diffusion_pytorch_model-0000{i}-of-00003.safetensors"));
        for (name, theirs) in candle_core::safetensors::load(shard, &Device::Cpu).expect("candle reads it") {
            assert_eq!(store.file_dtype(&name), Some(DType::BF16));
            assert_eq!(store.bytes(&name), Some(2 * theirs.elem_count() as u64));
            for dtype in [DType::F32, DType::BF16] {
                let ours = store.load(&name, dtype, &Device::Cpu).expect("loads");
                assert_eq!((ours.dtype(), ours.dims()), (dtype, theirs.dims()), "{name}");
                assert_eq!(numbers(&ours), numbers(&theirs), "{name}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, store.names().len());
}

#[test]
fn rows_are_the_rows_of_the_whole() {
    let store = open_folder(&fixture("tiny-flux/transformer")).expect("opens");
    let name = "transformer_blocks.1.norm1.linear.weight";
    let whole = store.load(name, DType::F32, &Device::Cpu).expect("loads"); // [768, 128]
    for rows in [0..768, 0..1, 767..768, 128..256, 5..5] {
        let part = store.load_rows(name, rows.clone(), DType::F32, &Device::Cpu).expect("rows");
        assert_eq!(part.dims(), [rows.len(), 128]);
        let expected = whole.narrow(0, rows.start, rows.len()).expect("narrow");
        assert_eq!(numbers(&part), numbers(&expected));
    }
    refused_with(store.load_rows(name, 700..769, DType::F32, &Device::Cpu), &[name, "700..769", "[768, 128]"]);
}

/// What goes to a device as it lies in the file is what loading gives, of whole tensors and of their cuts; and is nothing where loading
/// changes numbers or their order.
#[test]
fn what_is_taken_as_it_is_stored_is_what_is_loaded() {
    let inner: Arc<dyn TensorSource> = Arc::new(open_folder(&fixture("tiny-flux/transformer")).expect("opens"));
    let stored = "transformer_blocks.1.norm1.linear.weight"; // [768, 128] bf16
    let cuts =
        [Cut::Whole, Cut::Rows(0..768), Cut::Rows(3..5), Cut::MatrixRows(767..768), Cut::Matrix, Cut::Rows(5..5)];
    for cut in cuts {
        let renamed = Renamed::new(Arc::clone(&inner), [("x".to_owned(), stored.to_owned(), cut.clone())]);
        let loaded = renamed.load("x", DType::BF16, &Device::Cpu).expect("loads");
        let bits = loaded.flatten_all().and_then(|x| x.to_vec1::<half::bf16>()).expect("numbers");
        let bytes: Vec<_> = bits.iter().flat_map(|x| x.to_bits().to_le_bytes()).collect();
        assert_eq!(renamed.as_stored("x", DType::BF16), Some(bytes.as_slice()), "{cut:?}");
        assert_eq!(renamed.as_stored("x", DType::F32), None, "{cut:?}: another number type");
    }
    let other = |cut| Renamed::new(Arc::clone(&inner), [("x".to_owned(), stored.to_owned(), cut)]);
    assert_eq!(other(Cut::SwappedHalves).as_stored("x", DType::BF16), None);
    assert_eq!(other(Cut::Rows(700..769)).as_stored("x", DType::BF16), None, "beyond the last row");
    let header = r#"{"a.weight":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
        "a.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}"#;
    let scaled = TensorFiles::from_bytes("scaled", file(header, 8)).expect("opens");
    assert_eq!(scaled.as_stored("a.weight", DType::BF16), None, "a scale is applied");
    assert!(scaled.as_stored("a.scale_weight", DType::F32).is_some());
}

#[test]
fn float_8_weights_take_their_scale() {
    let header = r#"{"a.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]},
        "a.scale_weight":{"dtype":"F32","shape":[],"data_offsets":[2,6]},
        "b.weight":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[6,8]}}"#;
    let mut bytes = file(header, 0);
    bytes.extend([0x38, 0x7e]);
    bytes.extend(0.25_f32.to_le_bytes());
    bytes.extend([0x38, 0xb8]);
    let store = TensorFiles::from_bytes("fp8", bytes).expect("opens");
    let load = |name, dtype| numbers(&store.load(name, dtype, &Device::Cpu).expect("loads"));
    assert_eq!(load("a.weight", DType::F32), [0.25, 112.0]);
    assert_eq!(load("a.weight", DType::BF16), [0.25, 112.0]);
    assert_eq!(load("b.weight", DType::F32), [1.0, -1.0]);
}

#[test]
fn floats_of_8_bits_with_5_of_exponent_take_a_scale_of_each_row() {
    let header = r#"{"a.weight":{"dtype":"F8_E5M2","shape":[3,2],"data_offsets":[0,6]},
        "a.weight_scale":{"dtype":"F32","shape":[3,1],"data_offsets":[6,18]},
        "a.input_scale":{"dtype":"F32","shape":[],"data_offsets":[18,22]},
        "scaled_fp8":{"dtype":"F8_E5M2","shape":[0],"data_offsets":[22,22]}}"#;
    let mut bytes = file(header, 0);
    bytes.extend([0x3c, 0xbc, 0x40, 0x3c, 0x7b, 0x01]);
    bytes.extend([0.5_f32, 2.0, 0.25, 7.0].iter().flat_map(|scale| scale.to_le_bytes()));
    let store: Arc<dyn TensorSource> = Arc::new(TensorFiles::from_bytes("fp8", bytes).expect("opens"));
    let load = |store: &dyn TensorSource, name, rows, dtype| {
        numbers(&store.load_rows(name, rows, dtype, &Device::Cpu).expect("loads"))
    };
    let smallest = 2_f32.powi(-16);
    let all = [0.5, -0.5, 4.0, 2.0, 0.25 * 57344.0, 0.25 * smallest];
    assert_eq!(load(&*store, "a.weight", 0..3, DType::F32), all);
    assert_eq!(load(&*store, "a.weight", 1..3, DType::BF16), all[2..]);
    assert_eq!((store.float8("a.weight"), store.scale_count("a.weight")), (Some(Float8::E5M2), 3));
    let codes = store.load("a.weight", DType::U8, &Device::Cpu).expect("codes");
    assert_eq!(numbers(&codes), [0x3c, 0xbc, 0x40, 0x3c, 0x7b, 0x01].map(|code: u8| f32::from(code)));
    // A part of a fused tensor has the scales of its rows.
    let part = |cut| Renamed::new(Arc::clone(&store), [("x".to_owned(), "a.weight".to_owned(), cut)]);
    let rows = part(Cut::Rows(1..3));
    assert_eq!((rows.scales("x").expect("scales"), rows.scale_count("x")), (vec![2.0, 0.25], 2));
    assert_eq!(load(&rows, "x", 0..2, DType::F32), all[2..]);
}

#[test]
fn a_scale_of_other_numbers_is_refused() {
    let header = r#"{"a.weight":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},
        "a.weight_scale":{"dtype":"F32","shape":[2],"data_offsets":[3,11]}}"#;
    let store = TensorFiles::from_bytes("fp8", file(header, 11)).expect("opens");
    refused_with(
        store.load("a.weight", DType::F32, &Device::Cpu),
        &["a.weight_scale", "one of each of 3 rows", "bf16"],
    );
}

#[test]
fn integers_may_be_in_a_file_but_are_no_weights() {
    let header = r#"{"position_ids":{"dtype":"I64","shape":[1,2],"data_offsets":[0,16]}}"#;
    let store = TensorFiles::from_bytes("clip", file(header, 16)).expect("opens");
    assert!(!store.is_weight("position_ids"));
    let header = r#"{"one":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
    let scalar = TensorFiles::from_bytes("one", file(header, 4)).expect("opens");
    refused_with(scalar.load_rows("one", 0..0, DType::F32, &Device::Cpu), &["one", "has no rows 0..0"]);
    refused_with(store.load("position_ids", DType::F32, &Device::Cpu), &["clip", "position_ids", "I64"]);
}

#[test]
fn a_view_sums_what_is_below_it() {
    let source = Arc::new(open_folder(&fixture("tiny-flux/transformer")).expect("opens"));
    let weights = Weights::new(source.clone(), DType::F32, Device::Cpu);
    let all: u64 = source.names().iter().filter_map(|name| source.bytes(name)).sum();
    assert_eq!(weights.bytes(), all);
    let blocks = weights.pp("single_transformer_blocks");
    let by_block: u64 = (0..3).map(|i| blocks.pp(i).bytes()).sum();
    assert_eq!(blocks.bytes(), by_block);
    assert!(by_block < all);
    // 7 h^2 + 7 h, 5 h^2 + h, 3 h^2 + 3 h, and two norms of D, in bf16.
    let (h, d) = (128, 32);
    assert_eq!(blocks.pp(0).bytes(), 2 * (15 * h * h + 11 * h + 2 * d));
    let before = numbers(&blocks.pp(1).get("proj_out.weight", &[128, 640]).expect("loads"));
    weights.release();
    let after = numbers(&blocks.pp(1).get("proj_out.weight", &[128, 640]).expect("loads"));
    assert_eq!(before, after);
}

#[test]
fn missing_and_misshapen_tensors_are_named() {
    let source = Arc::new(open_folder(&fixture("tiny-flux/transformer")).expect("opens"));
    let weights = Weights::new(source, DType::F32, Device::Cpu);
    refused_with(weights.get("x_embedder.scale", &[4]), &["transformer", "x_embedder.scale", "[4]", "config.json"]);
    let words = ["x_embedder.weight", "[128, 64]", "expected [128, 65]"];
    refused_with(weights.get("x_embedder.weight", &[128, 65]), &words);
    refused_with(weights.get_rows("x_embedder.weight", &[128, 65], 0..2), &words);
    refused_with(weights.get_rows("x_embedder.weight", &[128, 64], 0..129), &["x_embedder.weight", "0..129"]);
}

/// candle's CUDA launches count in u32; DESIGN.md wants this held at the seams.
#[test]
fn a_tensor_of_2_to_the_32_elements_is_refused() {
    let folder = tempfile::tempdir().expect("folder");
    let path = folder.path().join("huge.safetensors");
    let header = r#"{"a":{"dtype":"F8_E4M3","shape":[2,2147483648],"data_offsets":[0,4294967296]}}"#;
    std::fs::write(&path, file(header, 0)).expect("written");
    // Sparse: takes no space.
    let opened = std::fs::OpenOptions::new().write(true).open(&path);
    opened.and_then(|f| f.set_len(8 + header.len() as u64 + (1 << 32))).expect("sparse");
    let store = TensorFiles::open(&[path]).expect("opens");
    refused_with(store.load("a", DType::F32, &Device::Cpu), &["tensor a", "2^32"]);
    refused_with(store.load_rows("a", 0..2, DType::F32, &Device::Cpu), &["tensor a", "2^32"]);
    let _ = store.load_rows("a", 0..0, DType::F32, &Device::Cpu).expect("no rows at all");
}
