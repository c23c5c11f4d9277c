//! `dype compare`: one prompt and one noise by several methods, side by side.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use image::{ImageReader, Limits, RgbImage};
use serde_json::{Map, Value, json};

use crate::cli::{
    args::{MachineArgs, ModelArgs, OutputArgs},
    batch_args::ProgressArgs,
    commands::generate,
    execute::{self, Order},
    image_source::ImageSource,
    items::Wish,
    listen::Finished,
    report::Report,
    setting_flags::{AnyMethod, SettingFlags},
    target::Target,
    variants::{self, Variants},
};
use crate::{
    base::progress::{Event, Observer},
    error::{Error, Result},
    lab::{self, EXPLANATIONS, Measures, Page, PagePicture, SheetOptions, Tile},
    methods,
    output::{self, Picture, Provenance},
    recipe::{FIELDS, Field, Ladder, Merged, Recipe, Shard, Source, declared},
};

/// What is compared.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// What is compared, in the order of its columns: methods (base, ntk, yarn, sega, pi; dy_ntk, dy_yarn and dy_pi are those with DyPE), each
    /// with settings of its own behind ":" where they differ, under the names of their flags: base,dy_yarn,dy_yarn:scaling=longest,text-anchor
    #[arg(long, value_name = "LIST", default_value = "base,ntk,dy_ntk,yarn,dy_yarn", value_parser = variants::parse)]
    methods: Variants,
    /// Flags of what the pictures have in common.
    #[command(flatten)]
    settings: SettingFlags<AnyMethod>,
    /// Take an empty prompt as it is, instead of refusing it
    #[arg(long, help_heading = "Picture")]
    allow_empty_prompt: bool,
    /// Flags of what is kept on the way.
    #[command(flatten)]
    pub progress: ProgressArgs,
    /// Model flags.
    #[command(flatten)]
    model: ModelArgs,
    /// Machine flags.
    #[command(flatten)]
    pub machine: MachineArgs,
    /// Output flags.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Put the pictures into the page instead of linking to them: one large file that can be sent alone
    #[arg(long, help_heading = "Output")]
    embed: bool,
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
    // A picture to begin with settles the sides that nobody asks for.
    let mut base = Wish { asked: flags, target: target.clone(), origin: None };
    ImageSource::find(std::slice::from_mut(&mut base), None, report)?;
    let flags = base.asked;
    let common = common(args, &flags, report)?;
    let wishes = args.methods.0.iter().map(|variant| Wish {
        asked: flags.clone().with(Source::Flag, &variant.wanted),
        target: target.clone(),
        origin: Some(variant.text.clone()),
    });
    let order = Order {
        wishes: wishes.collect(),
        shard: Shard::default(),
        model: &args.model,
        machine: &args.machine,
        progress: &args.progress,
        output: &args.output,
        like: None,
        upscale: None,
    };
    let mut finished = Vec::new();
    let outcome = execute::run(order, report, Some(&mut finished));
    if !finished.is_empty() {
        finished.sort_by_key(|finished| finished.index);
        let look = Look { overwrite: args.output.overwrite, embed: args.embed };
        put_together(&finished, &common, folder, look)?.tell(args.output.json, report);
    }
    outcome
}

/// What the pictures have in common: size, and seed and prompt where they do not differ. Tells of settings that change nothing.
///
/// # Errors
/// [`Error::Request`] for a value out of range, and for pictures of more than one size.
fn common(args: &CompareArgs, flags: &Merged, report: &Report) -> Result<Recipe> {
    let mut common = Recipe::draft(&flags.wanted)?;
    for (index, variant) in args.methods.0.iter().enumerate() {
        let recipe = Recipe::draft(&flags.clone().with(Source::Flag, &variant.wanted).wanted)?;
        if index == 0 {
            (common.height, common.width) = (recipe.height, recipe.width);
        } else if recipe.size() != common.size() {
            let sizes = format!("{} px and {} px", common.size(), recipe.size());
            let what = format!("--methods {}: pictures of {sizes} do not fit into one comparison", variant.text);
            return Err(Error::request(what, "ask for one --height and --width for all"));
        }
        // What becomes of `auto` the model says.
        let waits = |field: &dyn Field| {
            variant.wanted.ladder == Some(Ladder::Auto)
                && [declared::ladder.key, declared::ladder_pull.key].contains(&field.key())
        };
        for idle in FIELDS.iter().filter(|field| !field.is_held(&variant.wanted, &recipe) && !waits(**field)) {
            report.on(Event::Note(format!("--methods {}: {} has no effect there", variant.text, idle.key())));
        }
    }
    Ok(common)
}

/// How the files of a comparison are written.
#[derive(Clone, Copy)]
struct Look {
    overwrite: bool,
    embed: bool,
}

/// The files of a comparison.
struct Comparison {
    sheet: PathBuf,
    file: PathBuf,
    page: PathBuf,
    json: Value,
}

impl Comparison {
    /// Tells stdout of it: paths, or the JSON.
    fn tell(&self, as_json: bool, report: &Report) {
        if as_json {
            report.result(&self.json.to_string());
        } else {
            [&self.sheet, &self.file, &self.page].into_iter().for_each(|path| report.path(path));
        }
    }
}

/// The pictures as the sheet, the JSON and the page show them.
#[derive(Default)]
struct Columns {
    tiles: Vec<Tile>,
    pictures: Vec<Value>,
    shown: Vec<PagePicture>,
}

impl Columns {
    /// Measures a picture and adds its column. One picture at a time is in memory; the tile keeps a small copy.
    fn add(&mut self, finished: &Finished, options: &SheetOptions) -> Result<()> {
        let picture = open(&finished.path)?;
        let measures = Measures::of(&picture);
        let method = method(&finished.json["settings"]);
        let label = finished.origin.clone().unwrap_or_else(|| method.clone());
        self.tiles.push(Tile::new(&label, Some(&detail(&measures, &finished.json)), &picture, options)?);
        let mut one = finished.json.clone();
        one["method"] = method.into();
        one["label"] = label.as_str().into();
        one["measures"] = json!(measures);
        let size = [picture.width(), picture.height()];
        let (detail, facts) = (time(&one), facts(&one));
        self.shown.push(PagePicture { label, detail, file: finished.path.clone(), size, facts });
        self.pictures.push(one);
        Ok(())
    }
}

/// Measures the pictures, draws the sheet and writes all three files.
fn put_together(finished: &[Finished], common: &Recipe, folder: &Path, look: Look) -> Result<Comparison> {
    let title = common.prompt.split_whitespace().collect::<Vec<_>>().join(" ");
    let options = SheetOptions { title: Some(title), ..SheetOptions::default() };
    let mut columns = Columns::default();
    finished.iter().try_for_each(|finished| columns.add(finished, &options))?;
    let Columns { tiles, pictures, shown } = columns;
    let sheet = lab::sheet(&tiles, &options)?;
    let seed = common.seed;
    let [width_px, height_px] = shown.first().map_or([0; 2], |picture| picture.size);
    let name = format!("compare_seed_{seed}_res_{height_px}x{width_px}.png");
    let picture = Picture { height: sheet.height() as usize, width: sheet.width() as usize, rgb8: sheet.into_raw() };
    let provenance = Provenance { parameters: common.prompt.clone(), json: Value::Null };
    let sheet = output::save(&folder.join(name), &picture, &provenance, look.overwrite)?;
    let page = Page {
        title: common.prompt.clone(),
        about: format!("{height_px} x {width_px} px, seed {seed}, {}", model(&pictures[0])),
        pictures: shown,
        explanations: &EXPLANATIONS,
        embed: look.embed,
    };
    let place = output::folder_of(&sheet);
    let write = |file: &mut dyn Write| page.write(place, file);
    let page = output::write_atomically(&sheet.with_extension("html"), look.overwrite, write)?;
    let explained: Map<String, Value> =
        EXPLANATIONS.iter().map(|(name, text)| ((*name).to_owned(), Value::from(*text))).collect();
    let (shown_sheet, shown_page) = (sheet.to_string_lossy(), page.to_string_lossy());
    let json = json!({ "sheet": shown_sheet, "page": shown_page, "pictures": pictures, "measures": explained });
    let text = format!("{json:#}\n");
    let write = |file: &mut dyn Write| file.write_all(text.as_bytes());
    let file = output::write_atomically(&sheet.with_extension("json"), look.overwrite, write)?;
    Ok(Comparison { sheet, file, page, json })
}

/// The picture's pixels, whatever its size.
fn open(path: &Path) -> Result<RgbImage> {
    let unreadable = |error| Error::disk("cannot read", path, error);
    let mut reader = ImageReader::open(path).map_err(unreadable)?;
    reader.limits(Limits::no_limits());
    let picture = reader.decode().map_err(|error| unreadable(std::io::Error::other(error)))?;
    Ok(picture.into_rgb8())
}

/// The method of a picture with these settings, in a word.
fn method(settings: &Value) -> String {
    methods::label(settings["method"].as_str().unwrap_or_default(), settings["dype"] == true)
}

/// What a picture's model is called.
fn model(picture: &Value) -> String {
    text(&picture["model"]["model"])
}

/// Below the label: what fits into a column.
fn detail(measures: &Measures, json: &Value) -> String {
    format!("{}, sharpness {:.0}, repetition {:.2}", time(json), measures.sharpness, measures.self_similarity)
}

/// How long a picture took.
fn time(json: &Value) -> String {
    match json["existed"] == true {
        true => "made before".to_owned(),
        false => format!("{:.1} s", json["seconds"]["total"].as_f64().unwrap_or_default()),
    }
}

/// What the page tells of a picture: its time, its measures, its settings.
fn facts(picture: &Value) -> Vec<(String, String)> {
    let mut facts = vec![("time".to_owned(), time(picture))];
    if let Some(seconds) = picture["seconds"]["denoise"].as_f64().filter(|_| picture["existed"] != true) {
        facts.push(("denoising".to_owned(), format!("{seconds:.1} s")));
    }
    for (name, value) in picture["measures"].as_object().into_iter().flatten() {
        facts.push((name.clone(), value.as_f64().map_or("-".to_owned(), |value| format!("{value:.3}"))));
    }
    let settings = picture["settings"].as_object().into_iter().flatten();
    facts.extend(settings.map(|(name, value)| (name.clone(), text(value))));
    facts.push(("model".to_owned(), model(picture)));
    facts
}

/// A value of JSON for people.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
