//! Files that differ from the reference's in what trainers and wrappers change: names, number types, what is missing.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Tensor, safetensors};
use dype::testing::{
    Error, Result,
    models::{self, flux1::Flux1},
    weights::{Files, lora::LoraFile},
};

use super::{
    deltas::weight_and_bias,
    support::{fixture, program::Place, values},
    tiny_flux,
};

type Tensors = BTreeMap<String, Tensor>;

fn tensors(name: &str) -> Tensors {
    let path = fixture(&format!("lora/files/{name}.safetensors"));
    safetensors::load(path, &Device::Cpu).expect("loads").into_iter().collect()
}

fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.clone())).collect()
}

fn write(place: &Place, tensors: &Tensors) -> std::path::PathBuf {
    let path = place.path("l.safetensors");
    let map = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    safetensors::save(&map, &path).expect("written");
    path
}

fn safetensors_with(path: &std::path::Path, tensors: &Tensors, metadata: std::collections::HashMap<String, String>) {
    ::safetensors::serialize_to_file(tensors, Some(metadata), path).expect("written");
}

/// How many layers of the transformer the file changes, and the changed weight of one that every file here changes.
fn changed(model: &Flux1, tensors: &Tensors) -> Result<(usize, Vec<f32>)> {
    const LAYER: &str = "transformer_blocks.0.attn.to_q";
    let place = Place::new();
    let file = LoraFile::open(&write(&place, tensors), &Files::default())?;
    let adapted = models::adapt(model, &[(file, 1.0)])?;
    let transformer = &adapted.sources[0];
    let names = transformer.names();
    let layers = names.iter().filter_map(|name| name.strip_suffix(".weight"));
    let count = layers.filter(|layer| !transformer.adapters(layer).is_empty()).count();
    Ok((count, values(&weight_and_bias(transformer, LAYER)[0])))
}

#[track_caller]
fn same(model: &Flux1, expected: &Tensors, found: &Tensors, what: &str) {
    let [expected, found] = [expected, found].map(|tensors| changed(model, tensors).expect(what));
    assert!(expected.0 > 0 && found == expected, "{what}: {} layers, {} expected", found.0, expected.0);
}

/// Only what is of the transformer: the reference's files change text encoders too.
fn of_the_transformer(name: &str, prefix: &str) -> Tensors {
    let all = tensors(name).into_iter();
    all.filter_map(|(name, tensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor))).collect()
}

#[test]
fn wrappers_and_names_of_adapters_may_stand_in_names() {
    let model = tiny_flux();
    for (file, prefix) in [("peft", "transformer."), ("bfl", "diffusion_model.")] {
        let plain = of_the_transformer(file, prefix);
        for before in ["unet.", "module.", "transformer.module.", "base_model.model.model.", "model._orig_mod.", "net."]
        {
            same(&model, &plain, &renamed(&plain, |name| format!("{before}{name}")), before);
        }
        for adapter in [".default.weight", ".default_0.weight", ".my-lora.weight", ""] {
            same(&model, &plain, &renamed(&plain, |name| name.replace(".weight", adapter)), adapter);
        }
    }
}

#[test]
fn number_types_and_shapes_that_say_the_same_are_the_same() {
    let model = tiny_flux();
    let kohya = tensors("kohya");
    let with = |change: &dyn Fn(&str, &Tensor) -> Tensor| -> Tensors {
        kohya.iter().map(|(name, tensor)| (name.clone(), change(name, tensor))).collect()
    };
    let wide = with(&|_, tensor| tensor.to_dtype(DType::F64).expect("wide"));
    same(&model, &kohya, &wide, "f64");
    let convolutions = with(&|name, tensor| match tensor.dims() {
        [rows, columns] if !name.ends_with(".alpha") => tensor.reshape((*rows, *columns, 1, 1)).expect("the same"),
        _ => tensor.clone(),
    });
    same(&model, &kohya, &convolutions, "convolutions of 1 x 1");
    let alpha =
        |of: &dyn Fn() -> Tensor| with(&|name, tensor| if name.ends_with(".alpha") { of() } else { tensor.clone() });
    let four = alpha(&|| Tensor::new(4_f32, &Device::Cpu).expect("a number"));
    same(&model, &four, &alpha(&|| Tensor::new(4_i64, &Device::Cpu).expect("a number")), "a whole alpha");
    same(&model, &four, &alpha(&|| Tensor::new(&[4_u8], &Device::Cpu).expect("a number")), "a whole alpha of one byte");
    // Without its alpha a layer has alpha = rank, and with one of 0 no change.
    let none = changed(&model, &alpha(&|| Tensor::new(0_f32, &Device::Cpu).expect("a number"))).expect("fits").1;
    let own = values(&weight_and_bias(&model.transformer.source, "transformer_blocks.0.attn.to_q")[0]);
    assert!(none == own);
    // What a file of 8 bits holds is what its numbers say.
    let narrow = with(&|_, tensor| tensor.to_dtype(DType::F8E4M3).expect("narrow"));
    let widened = narrow.iter().map(|(name, tensor)| (name.clone(), tensor.to_dtype(DType::F32).expect("wide")));
    same(&model, &widened.collect(), &narrow, "f8");
}

#[track_caller]
fn refused(model: &Flux1, tensors: &Tensors, words: &[&str]) {
    let Err(error @ Error::Model { .. }) = changed(model, tensors) else { panic!("{words:?}: taken") };
    let all = format!("{error} {}", error.hint().unwrap_or_default());
    for word in words {
        assert!(all.contains(word), "{word:?} is not in: {all}");
    }
}

/// Under two names the same is meant: other programs keep one of them.
#[test]
fn a_layer_under_two_names_is_changed_once() {
    let model = tiny_flux();
    let plain = of_the_transformer("peft", "transformer.");
    let twice = [&plain, &renamed(&plain, |name| format!("base_model.model.{name}"))];
    let twice: Tensors = twice.into_iter().flatten().map(|(name, tensor)| (name.clone(), tensor.clone())).collect();
    same(&model, &plain, &twice, "two names");
}

#[test]
fn what_is_missing_or_no_number_is_told() {
    let model = tiny_flux();
    let kohya = tensors("kohya");
    let mut down_alone = kohya.clone();
    down_alone.retain(|name, _| !name.contains("lora_up"));
    refused(
        &model,
        &down_alone,
        &["none of its 29 layers is whole", "a tensor is missing", "lora_down", "fetch it again"],
    );
    let peft = of_the_transformer("peft", "transformer.");
    let strange = renamed(&peft, |name| format!("controlnet.x.{name}"));
    refused(&model, &strange, &["begin with \"controlnet.x.\"", "not known", "rename"]);
}

#[test]
fn numbers_that_are_not_finite_are_told_with_their_tensor() {
    let (peft, kohya) = (tensors("peft"), tensors("kohya"));
    for (file, name, number) in [
        (&peft, "transformer.transformer_blocks.0.attn.to_q.lora_A.weight", f32::NAN),
        (&peft, "transformer.transformer_blocks.0.attn.to_q.lora_B.weight", f32::INFINITY),
        (&kohya, "lora_unet_double_blocks_0_img_attn_qkv.alpha", f32::NAN),
    ] {
        let place = Place::new();
        let mut broken = file.clone();
        broken.insert(name.to_owned(), Tensor::full(number, file[name].dims(), &Device::Cpu).expect("a tensor"));
        let path = write(&place, &broken).display().to_string();
        place.small(&["--lora", &path]).fails(1, &[name, "not finite", "damaged"]);
    }
    // What peft's header says is a number of a stranger too.
    let place = Place::new();
    let settings = [("lora_adapter_metadata".to_owned(), r#"{"transformer.lora_alpha": 1e300}"#.to_owned())];
    let path = place.path("l.safetensors");
    safetensors_with(&path, &peft, settings.into());
    let path = path.display().to_string();
    place.small(&["--lora", &path]).fails(1, &["l.safetensors", "its header has changes multiplied by"]);
}

#[test]
fn a_strength_is_told_from_a_name_or_asked_for() {
    let place = Place::new();
    let path = write(&place, &tensors("peft"));
    std::fs::copy(&path, place.path("snow:0.5")).expect("copied");
    std::fs::copy(&path, place.path("c:d.safetensors")).expect("copied");
    let run = |lora: &str| place.small(&["--dry-run", "--lora", lora]);
    for lora in ["l.safetensors:-1", "l.safetensors:0", "c:d.safetensors", "c:d.safetensors:.5", "snow:0.5:1"] {
        run(lora).succeeds();
    }
    run("snow:0.5").fails(2, &["--lora snow:0.5", "there is no file snow", "--lora snow:0.5:1"]);
    for end in ["0,5", "50%", "", "half"] {
        let words = [&format!("{end:?} is no strength of l.safetensors"), "a number", "l.safetensors:0.5"];
        run(&format!("l.safetensors:{end}")).fails(2, &words);
    }
    run("C:\\loras\\x.safetensors").fails(2, &["no such file"]);
}
