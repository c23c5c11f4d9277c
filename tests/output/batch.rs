//! Batches from files, split over machines; comparisons of real pictures.

use std::{collections::BTreeSet, fs::File, io::BufReader, path::PathBuf};

use dype::testing::{
    Error,
    lab::{Measures, SheetOptions, Theme, Tile, sheet},
    methods::Method,
    models::flux1::LATENT_RGB,
    recipe::{Shard, consecutive, parse_seeds, read_prompts},
    sampling::preview::preview_rgb,
};
use image::RgbImage;
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn picture(run: usize) -> RgbImage {
    image::open(fixture(&format!("expected/run{run}.png"))).expect("a picture").into_rgb8()
}

#[test]
fn a_file_of_prompts_is_read_from_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("prompts.jsonl");
    let text = "# evening\r\na castle\r\n{\"prompt\": \"a sea\", \"seed\": 7, \"method\": \"ntk\", \"dype\": false, \"width\": 2048}\r\n";
    std::fs::write(&path, text).expect("written");
    let lines = read_prompts("prompts.jsonl", BufReader::new(File::open(&path).expect("opens"))).expect("reads");
    assert_eq!(lines.len(), 2);
    assert_eq!((lines[0].number, lines[0].prompt.as_str()), (2, "a castle"));
    let overrides = &lines[1].overrides;
    assert_eq!((overrides.seed, overrides.method, overrides.dype), (Some(7), Some(Method::NTK), Some(false)));
    assert_eq!((overrides.width, overrides.height), (Some(2048), None));
}

#[test]
fn a_bad_line_is_named_with_file_line_and_fault() {
    let text = "a castle\n\n{\"prompt\": \"p\", \"stesp\": 4}\n";
    let error = read_prompts("prompts.jsonl", text.as_bytes()).expect_err("a bad key");
    assert!(matches!(error, Error::Request { .. }));
    assert_eq!(error.to_string(), "prompts.jsonl line 3: unknown key \"stesp\"");
    assert!(error.hint().expect("a hint").starts_with("did you mean \"steps\"?"));
}

#[test]
fn the_shards_of_a_batch_make_exactly_the_batch() {
    let prompts = read_prompts("-", "a\nb\nc\nd\ne\n".as_bytes()).expect("prompts");
    let seeds = parse_seeds("1,2,5-8").expect("seeds");
    let items: Vec<(&str, u64)> =
        prompts.iter().flat_map(|line| seeds.iter().map(move |seed| (line.prompt.as_str(), *seed))).collect();
    for count in 1..=40 {
        let mut made = Vec::new();
        for index in 1..=count {
            let shard: Shard = format!("{index}/{count}").parse().expect("a shard");
            made.extend(items.iter().enumerate().filter(|(at, _)| shard.takes(*at)).map(|(_, item)| *item));
        }
        assert_eq!(made.len(), items.len(), "{count} shards");
        assert_eq!(made.iter().collect::<BTreeSet<_>>(), items.iter().collect(), "{count} shards");
    }
    assert_eq!(consecutive(5, 4).expect("seeds"), parse_seeds("5-8").expect("seeds"));
}

#[test]
fn pictures_are_measured_and_put_on_one_sheet() {
    let first = picture(0);
    let mut other = first.clone();
    image::imageops::invert(&mut other);
    for theme in [Theme::Dark, Theme::Light] {
        let options = SheetOptions { theme, title: Some("a castle".into()), ..SheetOptions::default() };
        let tile = |label, picture| Tile::new(label, Some("1.5 s"), picture, &options).expect("a tile");
        let image = sheet(&[tile("base", &first), tile("dy_yarn", &other)], &options).expect("a sheet");
        assert!(image.width() > 2 * 256 && image.height() > 256, "{} x {}", image.width(), image.height());
    }
    let (plain, inverted) = (Measures::of(&first), Measures::of(&other));
    // Inverting changes no contrast.
    assert!((plain.sharpness - inverted.sharpness).abs() <= 1e-3 * plain.sharpness);
    assert!((plain.self_similarity - inverted.self_similarity).abs() < 1e-3);
    assert!(plain.sharpness > 0.0 && plain.spectrum_slope.is_some());
}

#[test]
fn the_latents_of_a_run_have_a_preview() {
    let bytes = std::fs::read(fixture("expected/vae.safetensors")).expect("a file");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let latents = tensors.tensor("latents").expect("latents"); // [1, 16, h, w]
    let &[1, 16, h, w] = latents.shape() else { panic!("shape {:?}", latents.shape()) };
    let values: Vec<f32> = latents.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let rgb = preview_rgb(&values, h, w, &LATENT_RGB).expect("a preview");
    assert_eq!(rgb.len(), h * w * 3);
    assert!(rgb.iter().collect::<BTreeSet<_>>().len() > 10, "it shows something");
    assert!(preview_rgb(&values, w, h + 1, &LATENT_RGB).is_err());
}
