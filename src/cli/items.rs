//! Which pictures a command line asks for: all combinations of prompts and seeds, checked before anything is loaded.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufReader, IsTerminal},
    path::{Path, PathBuf},
};

use super::{args::OutputArgs, batch_args::SelectArgs, image_source, target::Target};
use crate::{
    error::{Error, Result},
    output,
    recipe::{self, Line, Merged, Recipe, Shard, Source, Wanted},
};

/// A picture that is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What, and who asks for what of it.
    pub asked: Merged,
    /// Where it goes.
    pub target: Target,
    /// The line of a file that asks for it, such as "prompts.txt line 3".
    pub origin: Option<String>,
}

/// A picture that is asked for, with its name.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The picture.
    pub wish: Wish,
    /// Its file, before a number makes the name its own.
    pub path: PathBuf,
    /// Its number among the pictures with that name, from 1.
    pub number: u64,
    /// Its place in the whole batch, from 0, whatever part of it this process makes.
    pub index: usize,
}

/// Pictures in the order of their prompts, and for each prompt of its seeds.
///
/// A line's own keys come before the command line's flags; a line with its own seed takes that one instead of `--seeds`,
/// and that one as the first of `--count`.
///
/// # Errors
/// [`Error::Request`] naming file and line of what makes no sense; [`Error::Disk`] when the file cannot be read.
pub fn wishes(base: &Wish, select: &SelectArgs) -> Result<Vec<Wish>> {
    let Some(file) = &select.prompts else { return with_seeds(base, None, select) };
    let mut wishes = Vec::new();
    for line in read_lines(file)? {
        wishes.extend(with_seeds(&of_line(base, &line, file), line.overrides.seed, select)?);
    }
    Ok(wishes)
}

fn read_lines(file: &Path) -> Result<Vec<Line>> {
    let name = file.to_string_lossy();
    if name == "-" {
        return recipe::read_prompts(&name, std::io::stdin().lock());
    }
    let opened = File::open(file).map_err(|e| Error::disk("cannot read the prompts in", file, e))?;
    recipe::read_prompts(&name, BufReader::new(opened))
}

fn of_line(base: &Wish, line: &Line, file: &Path) -> Wish {
    let name = file.to_string_lossy();
    let name = if name == "-" { "stdin".into() } else { name };
    let origin = Some(format!("{name} line {}", line.number));
    let mut wanted = line.wanted();
    if let Some(image) = &mut wanted.image {
        image.path = image_source::beside(file, &image.path);
    }
    let asked = base.asked.clone().with(Source::Line, &wanted);
    let target = line.output.as_ref().map_or_else(|| base.target.clone(), |output| Target::new(Some(output)));
    Wish { asked, target, origin }
}

fn with_seeds(wish: &Wish, own: Option<u64>, select: &SelectArgs) -> Result<Vec<Wish>> {
    let first = wish.draft()?.seed;
    let seeds = match (&select.seeds, select.count) {
        (Some(seeds), _) if own.is_none() => seeds.0.clone(),
        (_, Some(count)) => recipe::consecutive(first, count).map_err(|error| wish.named(error))?,
        _ => vec![first],
    };
    let seeded = |seed| {
        let asked = wish.asked.clone().with(Source::Flag, &Wanted { seed: Some(seed), ..Wanted::default() });
        Wish { asked, ..wish.clone() }
    };
    Ok(seeds.into_iter().map(seeded).collect())
}

impl Wish {
    /// An error about this picture, with the line that asked for it.
    pub fn named(&self, error: Error) -> Error {
        match (&self.origin, error) {
            (Some(origin), Error::Request { what, hint }) => Error::request(format!("{origin}: {what}"), hint),
            (Some(origin), Error::Memory { what, hint }) => Error::Memory { what: format!("{origin}: {what}"), hint },
            (_, error) => error,
        }
    }

    /// What it will be, as far as no model has to say it.
    ///
    /// # Errors
    /// As [`Recipe::draft`].
    pub fn draft(&self) -> Result<Recipe> {
        Recipe::draft(&self.asked.wanted).map_err(|error| self.named(error))
    }

    /// Whether another asks for the same file with the same settings.
    fn identity(&self) -> String {
        format!("{:?} {:?}", self.asked.wanted.completed(), self.target)
    }
}

/// Names all pictures and takes this process's part of them; a picture that is asked for twice is made once. Also gives
/// the number of those that were left out as repetitions.
///
/// # Errors
/// As [`Wish::draft`].
pub fn arrange(wishes: Vec<Wish>, shard: Shard) -> Result<(Vec<Planned>, usize)> {
    let asked = wishes.len();
    let mut seen = HashSet::new();
    let mut numbers: HashMap<PathBuf, u64> = HashMap::new();
    let mut planned = Vec::new();
    for wish in wishes.into_iter().filter(|wish| seen.insert(wish.identity())) {
        let path = wish.target.file(&wish.draft()?);
        let number = numbers.entry(path.clone()).and_modify(|number| *number += 1).or_insert(1);
        let index = planned.len();
        planned.push(Planned { wish, path, number: *number, index });
    }
    let repeated = asked - planned.len();
    planned.retain(|planned| shard.takes(planned.index));
    Ok((planned, repeated))
}

/// Checks that every picture fits its format, its file can get its name, and every folder can be written to. Makes the folders.
///
/// # Errors
/// As [`Target::check`] and [`output::check_place`]; [`Error::Request`] for several pictures in one stream.
pub fn check(planned: &[Planned], args: &OutputArgs) -> Result<()> {
    let mut folders = HashSet::new();
    for Planned { wish, path, number, .. } in planned {
        wish.target.check(wish.draft()?.size()).map_err(|error| wish.named(error))?;
        if output::is_stream(path) {
            check_stream(path, planned.len(), args.json).map_err(|error| wish.named(error))?;
        }
        output::check_place(path, *number, args.overwrite, &mut folders).map_err(|error| wish.named(error))?;
    }
    Ok(())
}

/// Checks that a stream gets one picture and nothing else.
fn check_stream(path: &Path, pictures: usize, as_json: bool) -> Result<()> {
    let name = path.display();
    if pictures > 1 {
        let what = format!("{pictures} pictures cannot all go to {name}, which holds one");
        return Err(Error::request(what, "name a folder, with \"/\" at its end"));
    }
    if !output::is_stdout(path) {
        return Ok(());
    }
    if as_json {
        return Err(Error::request("--json and the picture both want stdout", "name a file with --output"));
    }
    if std::io::stdout().is_terminal() {
        let what = "the picture would go to the terminal";
        return Err(Error::request(what, "send it to a file or a program, such as with \"| magick - x.jpg\""));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asking(prompt: &str) -> Wish {
        let wanted = Wanted { prompt: Some(prompt.into()), steps: Some(2), ..Wanted::default() };
        Wish { asked: Merged::of(Source::Flag, &wanted), target: Target::Folder("out".into()), origin: None }
    }

    fn seeds(wishes: &[Wish]) -> Vec<u64> {
        wishes.iter().map(|wish| wish.draft().expect("in range").seed).collect()
    }

    #[test]
    fn seeds_come_from_the_list_the_count_or_the_line() {
        let list = SelectArgs { seeds: Some(crate::cli::values::Seeds(vec![3, 1])), ..SelectArgs::default() };
        let count = SelectArgs { count: Some(3), ..SelectArgs::default() };
        let made = |own, select: &SelectArgs| {
            let mut wish = asking("a lake");
            wish.asked = wish.asked.with(Source::Line, &Wanted { seed: own, ..Wanted::default() });
            seeds(&with_seeds(&wish, own, select).expect("valid"))
        };
        assert_eq!(made(None, &list), [3, 1]);
        assert_eq!(made(None, &count), [42, 43, 44]);
        assert_eq!(made(Some(7), &list), [7]);
        assert_eq!(made(Some(7), &count), [7, 8, 9]);
        assert_eq!(made(None, &SelectArgs::default()), [42]);
    }

    #[test]
    fn pictures_with_one_name_are_numbered_and_repeated_ones_made_once() {
        let wishes = vec![asking("a"), asking("b"), asking("a"), asking("c")];
        let (planned, repeated) = arrange(wishes.clone(), Shard::default()).expect("in range");
        assert_eq!(repeated, 1);
        let prompt = |planned: &Planned| planned.wish.asked.wanted.prompt.clone().expect("asked for");
        let names: Vec<_> = planned.iter().map(|p| (prompt(p), p.number)).collect();
        assert_eq!(names, [("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)]);
        let (part, _) = arrange(wishes, Shard::new(2, 2).expect("valid")).expect("in range");
        assert_eq!(part.iter().map(|p| p.number).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_is_usual_and_what_is_asked_for_alike_are_one_picture() {
        let usual = asking("a");
        let asked = Wanted { seed: Some(42), guidance: Some(4.5), dype: Some(true), ..Wanted::default() };
        let same = Wish { asked: usual.asked.clone().with(Source::Line, &asked), ..usual.clone() };
        let other = Wanted { dype: Some(false), ..Wanted::default() };
        let other = Wish { asked: usual.asked.clone().with(Source::Line, &other), ..usual.clone() };
        let (planned, repeated) = arrange(vec![usual, same, other], Shard::default()).expect("in range");
        assert_eq!((planned.len(), repeated), (2, 1));
    }
}
