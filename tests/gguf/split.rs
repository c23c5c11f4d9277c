//! Models in several files, cut as llama.cpp's gguf-split does it: the first has the keys of the whole, each its own tensors.

use std::{collections::BTreeMap, fs, path::Path};

use dype::testing::weights::{TensorFiles, TensorSource};

use crate::{
    hub_server::{HubServerBuilder, REPO},
    path,
    runs::Golden,
    support::program::Place,
};

/// A GGUF file taken apart: its keys as they are written, how many, and its tensors.
struct Whole<'a> {
    file: &'a [u8],
    keys: (u64, &'a [u8]),
    tensors: Vec<Tensor<'a>>,
}

/// A tensor's description up to its offset, and its bytes.
struct Tensor<'a> {
    described: &'a [u8],
    bytes: &'a [u8],
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(file: &[u8], at: usize) -> usize {
    u64::from_le_bytes(file[at..at + 8].try_into().expect("8 bytes")) as usize
}

/// Behind a value of this type.
fn behind(file: &[u8], kind: u32, at: usize) -> usize {
    match kind {
        0 | 1 | 7 => at + 1,
        2 | 3 => at + 2,
        4..=6 => at + 4,
        8 => at + 8 + u64_at(file, at),
        9 => {
            let kind = u32_at(file, at);
            (0..u64_at(file, at + 4)).fold(at + 12, |at, _| behind(file, kind, at))
        }
        10..=12 => at + 8,
        other => panic!("no such type: {other}"),
    }
}

impl<'a> Whole<'a> {
    fn of(file: &'a [u8]) -> Self {
        let (tensors, keys) = (u64_at(file, 8), u64_at(file, 16));
        let value = |at: usize| {
            let at = at + 8 + u64_at(file, at);
            behind(file, u32_at(file, at), at + 4)
        };
        let keys_end = (0..keys).fold(24, |at, _| value(at));
        let described = |at: usize| {
            let dims = at + 8 + u64_at(file, at);
            dims + 4 + 8 * u32_at(file, dims) as usize + 4
        };
        let mut places = vec![keys_end];
        (0..tensors).for_each(|index| places.push(described(places[index]) + 8));
        let data = places[tensors].next_multiple_of(32);
        let starts: Vec<usize> =
            (0..tensors).map(|index| data + u64_at(file, places[index + 1] - 8)).chain([file.len()]).collect();
        let tensors = (0..tensors).map(|index| Tensor {
            described: &file[places[index]..places[index + 1] - 8],
            bytes: &file[starts[index]..starts[index + 1]],
        });
        Self { file, keys: (keys as u64, &file[24..keys_end]), tensors: tensors.collect() }
    }

    /// The file that stands at `number` of `count` and holds these of the tensors.
    fn part(&self, (number, count): (u16, u16), held: &[Tensor<'a>]) -> Vec<u8> {
        let (keys, whole) = if number == 0 { self.keys } else { (0, &[][..]) };
        let mut part = [&self.file[..8], &(held.len() as u64).to_le_bytes(), &(keys + 3).to_le_bytes(), whole].concat();
        let mut key = |name: &str, kind: u32, value: &[u8]| {
            part.extend((name.len() as u64).to_le_bytes());
            part.extend(name.as_bytes());
            part.extend(kind.to_le_bytes());
            part.extend(value);
        };
        key("split.no", 2, &number.to_le_bytes());
        key("split.count", 2, &count.to_le_bytes());
        key("split.tensors.count", 5, &(self.tensors.len() as i32).to_le_bytes());
        let mut offset = 0;
        for tensor in held {
            part.extend(tensor.described);
            part.extend((offset as u64).to_le_bytes());
            offset += tensor.bytes.len().next_multiple_of(32);
        }
        part.resize(part.len().next_multiple_of(32), 0);
        for tensor in held {
            part.extend(tensor.bytes);
            part.resize(part.len().next_multiple_of(32), 0);
        }
        part
    }
}

/// The files of a model of the fixtures cut into so many, by their names; the first holds no tensor where it is to hold `keys_alone`.
fn split(model: &str, count: u16, keys_alone: bool) -> BTreeMap<String, Vec<u8>> {
    let file = fs::read(path(&format!("models/{model}.gguf"))).expect("a fixture");
    let whole = Whole::of(&file);
    let (from, holders) = if keys_alone { (1, count - 1) } else { (0, count) };
    let each = whole.tensors.len().div_ceil(holders.into());
    let mut held = whole.tensors.chunks(each);
    (0..count)
        .map(|number| {
            let tensors = if number < from { &[] } else { held.next().expect("some tensors") };
            (format!("{model}-{:05}-of-{count:05}.gguf", number + 1), whole.part((number, count), tensors))
        })
        .collect()
}

fn write(folder: &Path, files: &BTreeMap<String, Vec<u8>>) {
    fs::create_dir_all(folder).expect("a folder");
    files.iter().for_each(|(name, bytes)| fs::write(folder.join(name), bytes).expect("written"));
}

/// A tensor's name, shape, type and stored bytes.
type Content = (String, Option<Vec<usize>>, Option<String>, Vec<u8>);

fn contents(source: &dyn TensorSource) -> Vec<Content> {
    let of = |name: String| {
        let mut bytes = Vec::new();
        source.sample(&name, true, &mut |more| bytes.extend(more)).expect("read");
        (name.clone(), source.shape(&name), source.type_name(&name), bytes)
    };
    source.names().into_iter().map(of).collect()
}

#[test]
fn any_of_them_opens_the_whole() {
    for (model, count, keys_alone) in
        [("narrow-Q8_0", 3, false), ("narrow-Q4_K-reshaped", 4, true), ("t5-Q8_0", 2, false)]
    {
        let (place, files) = (Place::new(), split(model, count, keys_alone));
        write(&place.path(""), &files);
        let expected = TensorFiles::open(&[path(&format!("models/{model}.gguf"))]).expect("opens");
        for name in files.keys() {
            let found = TensorFiles::open(&[place.path(name)]).expect("opens");
            assert!(contents(&found) == contents(&expected), "{name}");
            assert_eq!(found.made_for(), expected.made_for());
        }
    }
}

#[test]
fn sets_that_are_not_whole_are_refused_by_what_is_missing() {
    let (place, files) = (Place::new(), split("narrow-Q8_0", 4, false));
    let names: Vec<&String> = files.keys().collect();
    let error = |name: &str| TensorFiles::open(&[place.path(name)]).expect_err("refused");
    write(&place.path(""), &files);
    for name in &names[1..3] {
        fs::remove_file(place.path(name)).expect("removed");
    }
    let lacks = error(names[3]);
    for words in ["number 4 of 4 files", "2 missing", names[1], names[2]] {
        assert!(lacks.to_string().contains(words), "{words}: {lacks}");
    }
    assert!(lacks.hint().is_some_and(|hint| hint.contains("fetch what is missing into")), "{lacks:?}");
    // A name that leads nowhere, and files of another model.
    fs::write(place.path("x.gguf"), &files[names[1]]).expect("written");
    let renamed = error("x.gguf");
    assert!(renamed.to_string().contains("its name does not lead to the others"), "{renamed}");
    assert!(renamed.hint().is_some_and(|hint| hint.contains("NAME-00002-of-00004.gguf")), "{renamed:?}");
    write(&place.path(""), &files);
    fs::write(place.path(names[2]), &files[names[1]]).expect("written");
    assert!(error(names[0]).to_string().contains("this is number 2 of 4 of a model, expected number 3 of 4"));
    fs::copy(path("models/narrow-Q8_0.gguf"), place.path(names[2])).expect("copied");
    assert!(error(names[0]).to_string().contains("this is a whole model, expected number 3 of 4"));
    let other = split("t5-Q8_0", 4, false);
    fs::write(place.path(names[2]), other.values().nth(2).expect("a third")).expect("written");
    assert!(error(names[0]).to_string().contains("expected number 3 of 4"));
}

/// Whole runs, `info` and `convert` take them for the file they were.
#[test]
fn the_program_takes_them_for_one_model() {
    let golden = Golden::of("narrow-Q8_0.gguf");
    let (place, files) = (Place::new(), split("narrow-Q8_0", 3, true));
    write(&place.path("m"), &files);
    let first = place.path("m").join(files.keys().next().expect("a first"));
    let first = first.display().to_string();
    let whole = path("models/narrow-Q8_0.gguf").display().to_string();
    let latents = |model: &str| {
        let mut args = golden.args();
        args[1] = model.to_owned();
        args.push("--overwrite".into());
        place.dype(&args).succeeds();
        fs::read(place.path("x.safetensors")).expect("latents")
    };
    let tensors = |bytes: &[u8]| bytes[8 + u64_at(bytes, 0)..].to_vec();
    assert!(tensors(&latents(&first)) == tensors(&latents(&whole)));
    let info = |model: &str| {
        let said = place.dype(&["info", model, "--json"]).succeeds().stdout.clone();
        let json: serde_json::Value = serde_json::from_str(said.trim()).expect("JSON");
        json
    };
    let (parts, of_whole) = (info(&first), info(&whole));
    assert!(parts["parts"].as_array().is_some_and(|parts| !parts.is_empty()), "{parts}");
    assert_eq!([&parts["parts"], &parts["family"]], [&of_whole["parts"], &of_whole["family"]]);
    // A part's folder may hold a split file and nothing else.
    write(&place.path("t5"), &split("t5-Q8_0", 2, false));
    let encoded = |t5: String| {
        let mut args = golden.args();
        let flag = args.iter().position(|word| word == "--text-encoder-2").expect("its flag");
        args[flag + 1] = t5;
        args.push("--overwrite".into());
        place.dype(&args).succeeds();
        tensors(&fs::read(place.path("x.safetensors")).expect("latents"))
    };
    let folder = place.path("t5").display().to_string();
    assert!(encoded(folder) == encoded(path("models/t5-Q8_0.gguf").display().to_string()));
    let convert = |model: &str, name: &str| {
        place.dype(&["convert", model, "-o", name, "--type", "q4_0"]).succeeds();
        contents(&TensorFiles::open(&[place.path(name)]).expect("opens"))
    };
    assert!(convert(&first, "a.gguf") == convert(&whole, "b.gguf"));
    fs::remove_file(place.path("m").join(files.keys().nth(1).expect("a second"))).expect("removed");
    let mut args = golden.args();
    args[1] = first;
    place.dype(&args).fails(1, &["1 missing: narrow-Q8_0-00002-of-00003.gguf"]);
}

/// From the Hub all of them are fetched for one, and a repository that lacks one is refused before anything is.
#[test]
fn the_hub_gives_all_of_them() {
    let golden = Golden::of("narrow-Q8_0.gguf");
    let (place, files) = (Place::new(), split("narrow-Q8_0", 3, false));
    let second = files.keys().nth(1).expect("a second").clone();
    let repository = || {
        files.iter().fold(HubServerBuilder::default(), |server, (name, bytes)| {
            server.large(&format!("q/{name}"), bytes.clone())
        })
    };
    let run = |server: &crate::hub_server::HubServer, more: &[&str]| {
        let mut args = golden.args();
        args[1] = format!("{REPO}:q/{second}");
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let mut command = place.command(&args);
        command.env("HF_ENDPOINT", &server.endpoint).env("HF_HOME", place.path("hf")).env_remove("HF_HUB_OFFLINE");
        crate::support::program::Run::from(command.output().expect("starts"))
    };
    let broken = repository().without(&format!("q/{second}")).large("q/narrow-Q8_0.gguf", [0; 9]).start();
    run(&broken, &[]).fails(1, &[&second]);
    let third = files.keys().nth(2).expect("a third");
    let broken = repository().without(&format!("q/{third}")).start();
    run(&broken, &[]).fails(1, &["1 of the 3 files", third]);
    let server = repository().start();
    let plan = run(&server, &["--dry-run"]);
    plan.succeeds();
    assert!(files.keys().all(|name| plan.stdout.contains(name.as_str())), "{}", plan.stdout);
    run(&server, &[]).succeeds();
    assert!(place.path("x.png").is_file());
    let mut again = golden.args();
    again[1] = format!("{REPO}:q/{second}");
    again.push("--overwrite".into());
    let mut offline = place.command(&again);
    offline.env("HF_HUB_OFFLINE", "1").env("HF_HOME", place.path("hf"));
    crate::support::program::Run::from(offline.output().expect("starts")).succeeds();
}
