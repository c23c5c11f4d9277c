//! `dype compare`: one prompt and one noise by several methods, side by side.

use std::path::{Path, PathBuf};

use clap::Args;
use image::{ImageReader, Limits, RgbImage};
use serde_json::{Map, Value, json};

use crate::cli::{
    args::{MachineArgs, ModelArgs, OutputArgs},
    batch_args::ProgressArgs,
    commands::generate,
    execute::{self, Order},
    items::Wish,
    listen::Finished,
    report::Report,
    setting_flags::{AnyMethod, SettingFlags},
    target::Target,
};
use crate::{
    base::geometry::ImageSize,
    error::{Error, Result},
    lab::{self, EXPLANATIONS, Measures, SheetOptions, Tile},
    methods::{self, Label},
    output::{self, Picture, Provenance},
    recipe::{Merged, Recipe, Shard, Source, Wanted},
};

/// What is compared.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// Methods, in the order of their columns: base, ntk, yarn, sega; dy_ntk and dy_yarn are those with DyPE
    #[arg(long, value_name = "LIST", default_value = "base,ntk,dy_ntk,yarn,dy_yarn", value_delimiter = ',')]
    methods: Vec<Label>,
    /// Flags of what the pictures have in common.
    #[command(flatten)]
    settings: SettingFlags<AnyMethod>,
    /// Take an empty prompt as it is, instead of refusing it
    #[arg(long, help_heading = "Picture")]
    allow_empty_prompt: bool,
    /// Flags of what is kept on the way.
    #[command(flatten)]
    progress: ProgressArgs,
    /// Model flags.
    #[command(flatten)]
    model: ModelArgs,
    /// Machine flags.
    #[command(flatten)]
    machine: MachineArgs,
    /// Output flags.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a picture of this label asks for.
fn of_label(Label { method, dype }: Label) -> Wanted {
    Wanted { method: Some(method), dype: Some(dype), ..Wanted::default() }
}

/// Runs `dype compare`.
pub fn run(args: &CompareArgs, report: &Report) -> anyhow::Result<()> {
    let target = Target::new(args.output.output.as_deref());
    let folder = match &target {
        Target::Folder(folder) => folder,
        Target::File(file) => {
            let what = format!("--output {}: a comparison is several files", file.display());
            return Err(Error::request(what, "name a folder, with \"/\" at its end").into());
        }
    };
    let flags = Merged::of(Source::Flag, &generate::with_stdin(&args.settings.wanted, args.allow_empty_prompt)?);
    let common = Recipe::draft(&flags.wanted)?;
    let wish = |label: &Label| Wish {
        asked: flags.clone().with(Source::Flag, &of_label(*label)),
        target: target.clone(),
        origin: None,
    };
    let order = Order {
        wishes: args.methods.iter().map(wish).collect(),
        shard: Shard::default(),
        model: &args.model,
        machine: &args.machine,
        progress: &args.progress,
        output: &args.output,
        like: None,
    };
    let mut finished = Vec::new();
    let outcome = execute::run(order, report, Some(&mut finished));
    if !finished.is_empty() {
        put_together(&finished, &common, folder, args.output.overwrite)?.tell(args.output.json, report);
    }
    outcome
}

/// The two files of a comparison.
struct Comparison {
    sheet: PathBuf,
    file: PathBuf,
    json: Value,
}

impl Comparison {
    /// Tells stdout of it: paths, or the JSON.
    fn tell(&self, as_json: bool, report: &Report) {
        if as_json {
            report.result(&self.json.to_string());
        } else {
            report.path(&self.sheet);
            report.path(&self.file);
        }
    }
}

/// Measures the pictures, draws the sheet and writes both.
fn put_together(finished: &[Finished], common: &Recipe, folder: &Path, overwrite: bool) -> Result<Comparison> {
    let title = common.prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    let options = SheetOptions { title: Some(title), ..SheetOptions::default() };
    let mut order: Vec<&Finished> = finished.iter().collect();
    order.sort_by_key(|finished| finished.index);
    let (mut tiles, mut pictures) = (Vec::new(), Vec::new());
    for finished in order {
        // One picture at a time is in memory; the tile keeps a small copy.
        let picture = open(&finished.path)?;
        let measures = Measures::of(&picture);
        let label = label(&finished.json["settings"]);
        tiles.push(Tile::new(&label, Some(&detail(&measures, &finished.json)), &picture, &options)?);
        let mut one = finished.json.clone();
        one["method"] = label.into();
        one["measures"] = json!(measures);
        pictures.push(one);
    }
    let sheet = lab::sheet(&tiles, &options)?;
    let ImageSize { height_px, width_px } = common.size();
    let name = format!("compare_seed_{}_res_{height_px}x{width_px}.png", common.seed);
    let picture = Picture { height: sheet.height() as usize, width: sheet.width() as usize, rgb8: sheet.into_raw() };
    let explained: Map<String, Value> =
        EXPLANATIONS.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
    let provenance = Provenance { parameters: common.prompt.clone(), json: Value::Null };
    let sheet = output::save(&folder.join(name), &picture, &provenance, overwrite)?;
    let json = json!({ "sheet": sheet.to_string_lossy(), "pictures": pictures, "measures": explained });
    let text = format!("{json:#}\n");
    let file =
        output::write_atomically(&sheet.with_extension("json"), overwrite, |file| file.write_all(text.as_bytes()))?;
    Ok(Comparison { sheet, file, json })
}

/// The picture's pixels, whatever its size.
fn open(path: &Path) -> Result<RgbImage> {
    let unreadable = |error| Error::disk("cannot read", path, error);
    let mut reader = ImageReader::open(path).map_err(unreadable)?;
    reader.limits(Limits::no_limits());
    let picture = reader.decode().map_err(|error| unreadable(std::io::Error::other(error)))?;
    Ok(picture.into_rgb8())
}

/// The label of a picture with these settings.
fn label(settings: &Value) -> String {
    methods::label(settings["method"].as_str().unwrap_or_default(), settings["dype"] == true)
}

/// Below the label: what fits into a column.
fn detail(measures: &Measures, json: &Value) -> String {
    let time = match json["existed"] == true {
        true => "made before".to_owned(),
        false => format!("{:.1} s", json["seconds"]["total"].as_f64().unwrap_or_default()),
    };
    format!("{time}, sharpness {:.0}, repetition {:.2}", measures.sharpness, measures.self_similarity)
}
