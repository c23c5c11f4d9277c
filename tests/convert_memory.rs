//! The memory of `dype convert`, counted by the allocator: some rows at a time, whatever the size of a tensor or a model.

#[path = "support/counting.rs"]
mod counting;
mod support;

use std::collections::BTreeMap;

use counting::{alone, peak_of};
use dype::testing::{
    base::{json::read_json, progress::Silent},
    convert::{Format, Plan, write},
    models::{ModelRequest, Registry},
};
use support::{fixture, write_hollow};

/// A T5 whose table has so many rows.
fn t5(rows: usize) -> BTreeMap<String, Vec<usize>> {
    let lists: serde_json::Value = read_json(&fixture("flux1_dev_tensors.json")).expect("golden");
    let all: BTreeMap<String, Vec<usize>> = serde_json::from_value(lists["text_encoder_2"].clone()).expect("a list");
    let narrow = |size: usize| match size {
        4096 => 64,
        10240 => 128,
        other => other,
    };
    let mut shapes: BTreeMap<String, Vec<usize>> = all
        .into_iter()
        .filter(|(name, _)| !name.starts_with("encoder.block.") || name.starts_with("encoder.block.0."))
        .map(|(name, shape)| (name, shape.into_iter().map(narrow).collect()))
        .collect();
    shapes.insert("shared.weight".into(), vec![rows, 64]);
    shapes
}

#[test]
fn a_large_tensor_is_never_held_whole() {
    let _alone = alone();
    let folder = tempfile::tempdir().expect("a folder");
    let peak = |rows: usize, kind: &str, ending: &str| {
        let file = folder.path().join(format!("t5-{rows}.safetensors"));
        write_hollow(&file, t5(rows));
        let output = folder.path().join(format!("out-{rows}.{ending}"));
        let exchange = Registry::default().exchange(&ModelRequest::new(&file), None).expect("a network");
        let kind = kind.parse().expect("a type");
        let format = Format::of(&output, kind).expect("a kind of file");
        let source = &*exchange.network.source;
        let plan = Plan::new(&exchange, source, kind, format, "x").expect("a plan");
        let peak = peak_of(|| drop(write(&plan, source, &output, true, &Silent).expect("written")));
        assert_eq!(std::fs::metadata(&output).expect("there").len(), plan.bytes);
        peak
    };
    for (kind, ending) in [("q8_0", "gguf"), ("f16", "safetensors")] {
        // 64 MB and 256 MB of f32.
        let (small, large) = (peak(250_000, kind, ending), peak(1_000_000, kind, ending));
        assert!(large < 64 << 20, "{kind}: {large} bytes");
        assert!(large < small + (1 << 20), "{kind}: {small} and {large} bytes");
    }
}
