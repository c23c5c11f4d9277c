//! Several files that might be the part.

use candle_core::{DType, Device, Tensor};

use crate::{
    CLIP, CLIP_CONFIG, MODEL, T5, VAE, cast, fixture, fs, put, put_tokenizers, save,
    support::program::{Place, rgb8},
    tensors,
};

const UNET: &str = "models/unet/flux.safetensors";

/// A tree with everything but what a test is about.
fn tree_without(part: &str) -> Place {
    let place = Place::new();
    let files = [
        ("transformer", UNET, MODEL),
        ("vae", "models/vae/ae.safetensors", VAE),
        ("clip", "models/clip/clip_l.safetensors", CLIP),
        ("config", "models/clip/config.json", CLIP_CONFIG),
        ("t5", "models/clip/t5xxl.safetensors", T5),
    ];
    for (_, to, from) in files.iter().filter(|(name, ..)| *name != part) {
        put(&place, &[(to, from)]);
    }
    put_tokenizers(&place, "models");
    place
}

#[test]
fn an_autoencoder_of_another_model_is_passed_over_with_its_reason() {
    let place = tree_without("vae");
    // SDXL's has four latent channels.
    let mut sdxl = tensors(&fixture(VAE));
    for (name, shape) in [("decoder.conv_in.weight", vec![64, 4, 3, 3]), ("encoder.conv_out.weight", vec![8, 64, 3, 3])]
    {
        sdxl.insert(name.into(), Tensor::zeros(shape, DType::BF16, &Device::Cpu).expect("zeros"));
    }
    save(&place, "models/vae/sdxl_vae.safetensors", &sdxl);
    let reason = "models/vae/sdxl_vae.safetensors (4 latent channels, the transformer takes 16)";
    place.small(&["--model", UNET]).fails(1, &["lacks vae", "passed over: ", reason]);
    // Under the right name it is none either.
    save(&place, "models/unet/ae.safetensors", &sdxl);
    put(&place, &[("models/vae/my-own.safetensors", VAE)]);
    let run = place.small(&["--model", UNET, "-o", "x.png"]);
    run.succeeds().tells(&["note: vae: passed over ", "models/unet/ae.safetensors (4 latent channels", reason]);
    run.tells(&["parts from elsewhere: ", "models/vae/my-own.safetensors"]);
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
}

#[test]
fn of_several_that_fit_the_least_rounded_is_taken_and_it_is_said() {
    let place = tree_without("t5");
    let bf16 = tensors(&fixture(T5));
    let dtypes = [("t5xxl_fp8_e4m3fn", DType::F8E4M3), ("t5xxl_fp16", DType::F16), ("t5xxl_bf16", DType::BF16)];
    for (name, dtype) in dtypes {
        save(&place, &format!("models/clip/{name}.safetensors"), &cast(&bf16, dtype));
    }
    let run = place.small(&["--model", UNET, "--dry-run"]);
    run.succeeds().tells(&[
        "note: text_encoder_2 is ",
        "models/clip/t5xxl_fp16.safetensors (f16), the least rounded of 3 that fit; not taken: ",
        "t5xxl_bf16.safetensors (bf16), ",
        "t5xxl_fp8_e4m3fn.safetensors (f8e4m3). --text-encoder-2 says which",
    ]);
    // A name that everybody knows goes before one that is anybody's.
    save(&place, "models/clip/finetuned-by-somebody.safetensors", &cast(&bf16, DType::F32));
    let run = place.small(&["--model", UNET, "--dry-run"]);
    run.succeeds().tells(&["t5xxl_fp16.safetensors (f16), under a usual name of 4 that fit"]);
    let run = place.small(&["--model", UNET, "--text-encoder-2", "models/clip/t5xxl_bf16.safetensors", "-o", "x.png"]);
    assert!(!run.succeeds().stderr.contains("that fit"), "{}", run.stderr);
    assert!(rgb8(&place.path("x.png")) == place.pixels(&[]));
    // What lies beside the file is nearer than what lies in the tree.
    put(&place, &[("models/unet/t5xxl_q.safetensors", T5)]);
    let run = place.small(&["--model", UNET, "-o", "y.png"]);
    assert!(!run.succeeds().stderr.contains("that fit"), "{}", run.stderr);
    assert!(rgb8(&place.path("y.png")) == place.pixels(&[]));
}

#[test]
fn encoders_of_other_models_are_passed_over() {
    let place = tree_without("t5");
    // Another width, a UMT5's tables in every layer, and a file that ends too early.
    let mut umt5 = tensors(&fixture(T5));
    let table = umt5["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"].clone();
    umt5.insert("encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight".into(), table);
    save(&place, "models/clip/umt5_xxl.safetensors", &umt5);
    let mut narrow = tensors(&fixture(T5));
    let shared = narrow["shared.weight"].narrow(1, 0, 32).and_then(|t| t.contiguous()).expect("narrow");
    narrow.insert("shared.weight".into(), shared);
    save(&place, "models/clip/t5xxl_narrow.safetensors", &narrow);
    let whole = fs::read(fixture(T5)).expect("a file");
    fs::write(place.path("models/clip/t5xxl_half.safetensors"), &whole[..whole.len() / 2]).expect("written");
    place.small(&["--model", UNET]).fails(
        1,
        &[
            "lacks text_encoder_2",
            "umt5_xxl.safetensors (a UMT5, not a T5)",
            "t5xxl_narrow.safetensors (32 numbers a token, the transformer takes 64)",
            "t5xxl_half.safetensors ends at ",
        ],
    );
    // Beside the file it is the one that is meant: it says itself what is wrong with it.
    fs::write(place.path("models/unet/t5xxl.safetensors"), &whole[..whole.len() / 2]).expect("written");
    place.small(&["--model", UNET]).fails(1, &["models/unet/t5xxl.safetensors ends at", "cut short"]);
}

#[test]
fn a_checkpoint_or_a_shard_lends_no_part() {
    let place = tree_without("vae");
    let prefixed = |prefix: &str, file: &str| {
        tensors(&fixture(file))
            .into_iter()
            .map(move |(name, tensor)| (format!("{prefix}{name}"), tensor))
            .collect::<Vec<_>>()
    };
    let mut checkpoint = prefixed("model.diffusion_model.", MODEL);
    checkpoint.extend(prefixed("vae.", VAE));
    save(&place, "models/unet/other.safetensors", &checkpoint.into_iter().collect());
    put(&place, &[("models/vae/model-00001-of-00002.safetensors", VAE)]);
    place.small(&["--model", UNET]).fails(1, &["lacks vae"]);
}
