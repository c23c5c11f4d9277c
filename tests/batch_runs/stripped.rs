//! Pictures that have kept their text for other tools and nothing else, and pictures of other programs.

use std::{fs, io::Cursor, path::Path};

use serde_json::json;

use crate::{
    dype, names, provenance,
    support::{
        fixture,
        program::{Place, rgb8},
    },
};

/// A picture whose text says all that matters: where it says nothing, it is the usual.
const SAID: [&str; 12] = [
    "--prompt",
    "a lake, still\nNegative prompt: of a mountain",
    "--steps",
    "2",
    "--seed",
    "18446744073709551615",
    "--method",
    "ntk",
    "--guidance",
    "3.3",
    "--width",
    "80",
];

/// Which text chunk an editor writes.
#[derive(Debug, Clone, Copy)]
enum Chunk {
    Text,
    Packed,
    International,
}

/// A PNG file as an editor writes it: the pixels, and this text.
fn png_with(text: &str, chunk: Chunk) -> Vec<u8> {
    let mut bytes = vec![];
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Rgb);
    let (keyword, text) = ("parameters".to_owned(), text.to_owned());
    match chunk {
        Chunk::Text => encoder.add_text_chunk(keyword, text),
        Chunk::Packed => encoder.add_ztxt_chunk(keyword, text),
        Chunk::International => encoder.add_itxt_chunk(keyword, text),
    }
    .expect("a text");
    encoder.write_header().expect("in memory").write_image_data(&[0; 3]).expect("in memory");
    bytes
}

/// The text for other tools of a PNG file.
fn parameters(path: &Path) -> String {
    let bytes = fs::read(path).expect("read");
    let reader = png::Decoder::new(Cursor::new(&bytes)).read_info().expect("a PNG");
    reader
        .info()
        .uncompressed_latin1_text
        .iter()
        .find(|text| text.keyword == "parameters")
        .expect("its text")
        .text
        .clone()
}

/// A JPEG or WebP file without its XMP.
fn without_xmp(bytes: &[u8]) -> Vec<u8> {
    let find = |what: &[u8]| bytes.windows(what.len()).position(|window| window == what).expect("there");
    if bytes.starts_with(b"RIFF") {
        let mut kept = bytes[..find(b"XMP ")].to_vec();
        let length = (kept.len() as u32 - 8).to_le_bytes();
        kept[4..8].copy_from_slice(&length);
        return kept;
    }
    let at = find(b"http://ns.adobe.com/xap/1.0/\0") - 4;
    let length = usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
    [&bytes[..at], &bytes[at + 2 + length..]].concat()
}

#[test]
fn a_picture_that_lost_its_own_settings_is_replayed_from_its_text() {
    let place = Place::new();
    for name in ["x.png", "x.jpg", "x.webp"] {
        dype(&place, &[&SAID[..], &["-o", name]].concat()).succeeds();
    }
    let text = parameters(&place.path("x.png"));
    let model = fixture("tiny-flux").display().to_string();
    // The text says which model it was, not where it lies.
    let given = ["--model", &model, "--overwrite"];
    for (name, chunk) in [("a.png", Chunk::Text), ("b.png", Chunk::Packed), ("c.png", Chunk::International)] {
        fs::write(place.path(name), png_with(&text, chunk)).expect("written");
    }
    for (name, from) in [("d.jpg", "x.jpg"), ("e.webp", "x.webp")] {
        fs::write(place.path(name), without_xmp(&fs::read(place.path(from)).expect("read"))).expect("written");
    }
    for name in ["a.png", "b.png", "c.png", "d.jpg", "e.webp"] {
        place.dype(&["replay", name]).fails(2, &[name, "a model called \"tiny-flux\"", "where it lies", "--model"]);
        let run = place.dype(&[&["replay", name, "-o", "y.png"], &given[..]].concat());
        run.succeeds().tells(&["has kept only its text", "device", "dtype"]);
        assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")), "{name}");
        assert_eq!(provenance(&place.path("y.png"))["settings"], provenance(&place.path("x.png"))["settings"]);
    }
    let run = place.dype(&[&["replay", "a.png", "--seed", "7", "-o", "z.png"], &given[..]].concat());
    run.succeeds();
    assert_eq!(provenance(&place.path("z.png"))["settings"]["seed"], 7, "what is typed counts");
}

#[test]
fn info_tells_what_the_text_says_and_what_is_not_known() {
    let place = Place::new();
    dype(&place, &[&SAID[..], &["--no-dype", "--rng", "torch-cuda:a100", "-o", "x.png"]].concat()).succeeds();
    fs::write(place.path("a.png"), png_with(&parameters(&place.path("x.png")), Chunk::Packed)).expect("written");
    let run = place.dype(&["info", "a.png"]);
    let told = &run.succeeds().stdout;
    for line in [
        "prompt     a lake, still\n           Negative prompt: of a mountain\n",
        "Steps      2\n",
        "Seed       18446744073709551615\n",
        "Size       80x64\n",
        "Distilled CFG Scale 3.3\n",
        "Position   ntk\n",
        "Shift mu   pinned\n",
        "RNG        GPU\n",
        "Model      tiny-flux\n",
        concat!("made by    dype ", env!("CARGO_PKG_VERSION"), "\n"),
        "unknown    the card of its noise, device, dtype, the weights' contents",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("negative"), "dype takes no negative prompt: {told}");
    let run = place.dype(&["info", "--json", "a.png"]);
    let said: serde_json::Value = serde_json::from_str(&run.succeeds().stdout).expect("JSON");
    assert_eq!(said["parameters"]["prompt"], SAID[1]);
    assert_eq!(said["parameters"]["settings"]["Seed"], SAID[5]);
}

/// A name with a revision says where the model is: the Hub's, or the one inside.
#[test]
fn a_text_that_says_where_its_model_is_needs_no_flag() {
    let place = Place::new();
    place
        .dype(&["--model", "demo", "--prompt", "p", "--width", "16", "--height", "16", "--steps", "1", "-o", "x.png"])
        .succeeds();
    let text = parameters(&place.path("x.png"));
    assert!(text.contains("Model: demo@"), "{text}");
    fs::write(place.path("a.png"), png_with(&text, Chunk::Text)).expect("written");
    place.dype(&["replay", "a.png", "-o", "y.png"]).succeeds();
    assert!(rgb8(&place.path("y.png")) == rgb8(&place.path("x.png")));
    let other = text.replace("Model: demo@", "Model: demo@0");
    fs::write(place.path("b.png"), png_with(&other, Chunk::Text)).expect("written");
    let run = place.dype(&["replay", "b.png", "-o", "z.png"]);
    assert_eq!(run.code, Some(1));
    run.tells(&["the model inside this dype is demo@"]);
}

#[test]
fn what_no_flag_may_say_no_text_may_say() {
    let place = Place::new();
    let text = |line: &str| format!("p\n{line}, Sampler: Euler, CFG scale: 1, Model: demo, Version: dype 9.1.0");
    for (line, words) in [
        ("Steps: 10000000000000000000", "steps is 10000000000000000000"),
        ("Steps: 100000000000000000000", "Steps is \"100000000000000000000\""),
        ("Steps: 0", "steps is 0"),
        ("Seed: -1", "Seed is \"-1\""),
        ("Size: 64", "Size is \"64\""),
        ("Size: 8x64", "width is 8"),
        ("Distilled CFG Scale: 1e300", "guidance is 1e+300"),
        ("Position: dy_yam", "Position is \"dy_yam\""),
        ("Schedule type: Karras", "Schedule type is \"Karras\""),
        ("Strength of the future: 3", "\"Strength of the future: 3\" is no setting of this version"),
    ] {
        fs::write(place.path("odd.png"), png_with(&text(line), Chunk::Text)).expect("written");
        for command in ["info", "replay"] {
            place.dype(&[command, "odd.png"]).fails(2, &["odd.png: its settings make no sense", words]);
        }
        assert!(place.dype(&["info", "--json", "odd.png"]).succeeds().stdout.contains("9.1.0"));
    }
}

#[test]
fn pictures_of_other_programs_are_told_and_not_replayed() {
    let place = Place::new();
    let text = "a cat, (best:1.3)\nNegative prompt: dog,\nblurry\u{1b}[2J\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, \
                Distilled CFG Scale: 3.5, Seed: 7, Size: 64x64, Model hash: 6ce0161689, Model: flux1-dev, Lora hashes: \"a: 1, b: 2\", \
                Version: f2.0.1v1.10.1";
    fs::write(place.path("forge.png"), png_with(text, Chunk::Text)).expect("written");
    let run = place.dype(&["info", "forge.png"]);
    let told = &run.succeeds().stdout;
    for line in [
        "prompt     a cat, (best:1.3)\nnegative   dog,\n           blurry\\u{1b}[2J\nSteps      20\n",
        "Schedule type Simple\n",
        "Model      flux1-dev\nLora hashes a: 1, b: 2\nmade by    another program (Version f2.0.1v1.10.1)\n",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert!(!told.contains("unknown"), "{told}");
    let run = place.dype(&["info", "--json", "forge.png"]);
    let said: serde_json::Value = serde_json::from_str(&run.succeeds().stdout).expect("JSON");
    assert_eq!(said["parameters"]["negative_prompt"], "dog,\nblurry\u{1b}[2J");
    let words =
        ["forge.png was made by another program (Version f2.0.1v1.10.1) with the model \"flux1-dev\"", "dype info"];
    // Another model and another program's noise: not even where a model is given would it be the same picture.
    place.dype(&["replay", "forge.png"]).fails(2, &words);
    place.dype(&["replay", "forge.png", "--model", "demo"]).fails(2, &words);
    let odd = "a cat\nSteps: 20, Sampler: Euler, Seed: 7, Version: \"v1\\u001b[2J\"";
    fs::write(place.path("odd.png"), png_with(odd, Chunk::Packed)).expect("written");
    for command in ["info", "replay"] {
        let run = place.dype(&[command, "odd.png"]);
        let is_odd = |c: char| c.is_control() && c != '\n';
        assert!(!run.stdout.contains(is_odd) && !run.stderr.contains(is_odd), "{} {}", run.stdout, run.stderr);
    }
    // Others write JSON there: it is shown as it is.
    let swarm = "{\"sui_image_params\": {\"prompt\": \"a cat\"}}";
    fs::write(place.path("swarm.png"), png_with(swarm, Chunk::International)).expect("written");
    let run = place.dype(&["info", "swarm.png"]);
    assert_eq!(run.succeeds().stdout, format!("prompt     {swarm}\nmade by    another program\n"));
    place.dype(&["replay", "swarm.png"]).fails(2, &["another program: dype cannot make it again"]);
    assert!(!names(&place.path("")).contains(&"outputs".to_owned()), "nothing was begun");
}

/// A JPEG or WebP file that became a PNG file with its EXIF block.
#[test]
fn an_exif_block_is_read_wherever_it_stands() {
    let place = Place::new();
    let picture = dype::testing::output::Picture { height: 1, width: 1, rgb8: vec![0; 3] };
    let said = "a lake, 山\nSteps: 1, Seed: 2, Size: 64x64, Version: dype 0.1.0";
    let said = dype::testing::output::Provenance { parameters: said.into(), json: json!(null) };
    dype::testing::output::save(&place.path("x.webp"), &picture, &said, false).expect("saved");
    let bytes = fs::read(place.path("x.webp")).expect("read");
    let at = bytes.windows(4).position(|window| window == b"EXIF").expect("there") + 8;
    let end = bytes.windows(4).position(|window| window == b"XMP ").expect("there");
    let mut png = png_with("p", Chunk::Text);
    let text = png.windows(4).position(|window| window == b"tEXt").expect("there") - 4;
    let length =
        12 + usize::try_from(u32::from_be_bytes(png[text..text + 4].try_into().expect("four"))).expect("small");
    let exif = [&((end - at) as u32).to_be_bytes()[..], b"eXIf", &bytes[at..end], &[0; 4]].concat();
    png.splice(text..text + length, exif);
    fs::write(place.path("y.png"), png).expect("written");
    for name in ["x.webp", "y.png"] {
        let run = place.dype(&["info", name]);
        run.succeeds();
        assert!(run.stdout.starts_with("prompt     a lake, 山\nSteps      1\nSeed       2\n"), "{}", run.stdout);
        place.dype(&["replay", name]).fails(2, &["does not say which model it was made with", "--model"]);
    }
}

/// Camera and phone programs write user comments too.
#[test]
fn a_comment_without_settings_is_none() {
    let place = Place::new();
    let picture = dype::testing::output::Picture { height: 1, width: 1, rgb8: vec![0; 3] };
    for name in ["photo.jpg", "photo.webp"] {
        let said = dype::testing::output::Provenance { parameters: "Screenshot".into(), json: json!(null) };
        dype::testing::output::save(&place.path(name), &picture, &said, false).expect("saved");
        for command in ["info", "replay"] {
            place.dype(&[command, name]).fails(2, &[name, "does not say how it was made"]);
        }
    }
}
