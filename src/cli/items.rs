//! Which pictures a command line asks for: all combinations of prompts and seeds, checked before anything is loaded.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::{batch_args::SelectArgs, image_source, target::Target};
use crate::{
    error::{Error, Result},
    recipe::{self, Line, Merged, ModelFacts, Recipe, Shard, Source, Wanted},
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
/// and that one as the first of `--count`. A prompt of nothing is refused unless it `may_be_empty`.
///
/// # Errors
/// [`Error::Request`] naming file and line of what makes no sense; [`Error::Disk`] when the file cannot be read.
pub fn wishes(base: &Wish, select: &SelectArgs, may_be_empty: bool) -> Result<Vec<Wish>> {
    let Some(file) = &select.prompts else { return with_seeds(base, None, select) };
    let mut wishes = Vec::new();
    for line in read_lines(file)? {
        let wish = of_line(base, &line, file);
        if line.prompt.is_empty() && !may_be_empty {
            let hint = "say what to draw, or delete the line; --allow-empty-prompt makes a picture of no prompt";
            return Err(wish.named(Error::request("the prompt is empty", hint)));
        }
        wishes.extend(with_seeds(&wish, line.overrides.seed, select)?);
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

/// The pictures that a process makes of a batch, with their names.
pub struct Batch {
    /// They.
    pub planned: Vec<Planned>,
    /// What the whole batch asks for, each once.
    wishes: Vec<Wish>,
}

impl Batch {
    /// Names all pictures and takes this process's part of them; a picture that is asked for twice is made once. Also gives
    /// the number of those that were left out as repetitions.
    ///
    /// # Errors
    /// As [`Wish::draft`].
    pub fn new(mut wishes: Vec<Wish>, shard: Shard) -> Result<(Self, usize)> {
        let (asked, mut seen) = (wishes.len(), HashSet::new());
        wishes.retain(|wish| seen.insert(wish.identity()));
        let repeated = asked - wishes.len();
        let names = names(&wishes, &Wish::draft)?.into_iter().zip(&wishes).enumerate();
        let planned = names
            .filter(|(index, _)| shard.takes(*index))
            .map(|(index, ((path, number), wish))| Planned { wish: wish.clone(), path, number, index })
            .collect();
        Ok((Self { planned, wishes }, repeated))
    }

    /// Names them again, now that a model says the sides that nobody asks for.
    ///
    /// # Errors
    /// As [`Recipe::new`].
    pub fn name_by(&mut self, facts: &ModelFacts) -> Result<()> {
        let recipe = |wish: &Wish| Recipe::new(&wish.asked.wanted, facts).map_err(|error| wish.named(error));
        let names = names(&self.wishes, &recipe)?;
        for one in &mut self.planned {
            (one.path, one.number) = names[one.index].clone();
        }
        Ok(())
    }
}

/// The names that recipes give pictures, with the number of each among those of its name.
fn names(wishes: &[Wish], recipe: &dyn Fn(&Wish) -> Result<Recipe>) -> Result<Vec<(PathBuf, u64)>> {
    let mut numbers: HashMap<PathBuf, u64> = HashMap::new();
    let name = |wish: &Wish| {
        let path = wish.target.file(&recipe(wish)?);
        let number = numbers.entry(path.clone()).and_modify(|number| *number += 1).or_insert(1);
        Ok((path, *number))
    };
    wishes.iter().map(name).collect()
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
        let (Batch { planned, .. }, repeated) = Batch::new(wishes.clone(), Shard::default()).expect("in range");
        assert_eq!(repeated, 1);
        let prompt = |planned: &Planned| planned.wish.asked.wanted.prompt.clone().expect("asked for");
        let names: Vec<_> = planned.iter().map(|p| (prompt(p), p.number)).collect();
        assert_eq!(names, [("a".to_owned(), 1), ("b".to_owned(), 2), ("c".to_owned(), 3)]);
        let (part, _) = Batch::new(wishes, Shard::new(2, 2).expect("valid")).expect("in range");
        assert_eq!(part.planned.iter().map(|p| p.number).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn what_is_usual_and_what_is_asked_for_alike_are_one_picture() {
        let usual = asking("a");
        let asked = Wanted { seed: Some(42), guidance: Some(4.5), dype: Some(true), ..Wanted::default() };
        let same = Wish { asked: usual.asked.clone().with(Source::Line, &asked), ..usual.clone() };
        let other = Wanted { dype: Some(false), ..Wanted::default() };
        let other = Wish { asked: usual.asked.clone().with(Source::Line, &other), ..usual.clone() };
        let (Batch { planned, .. }, repeated) =
            Batch::new(vec![usual, same, other], Shard::default()).expect("in range");
        assert_eq!((planned.len(), repeated), (2, 1));
    }

    /// A model's own sides decide the names of pictures that nobody gives a size.
    #[test]
    fn a_model_s_own_sides_are_in_the_names() {
        let facts = ModelFacts { side_px: 3072, ..ModelFacts::of(1024) };
        let sized = Wanted { height: Some(3072), width: Some(3072), ..Wanted::default() };
        let sized = Wish { asked: asking("b").asked.with(Source::Line, &sized), ..asking("b") };
        let (mut batch, _) = Batch::new(vec![asking("a"), sized], Shard::default()).expect("in range");
        let names = |batch: &Batch| {
            let name = |one: &Planned| format!("{} {}", one.path.display(), one.number);
            batch.planned.iter().map(name).collect::<Vec<_>>()
        };
        assert!(names(&batch)[0].ends_with("4096x4096.png 1") && names(&batch)[1].ends_with("3072x3072.png 1"));
        batch.name_by(&facts).expect("in range");
        assert!(names(&batch)[0].ends_with("3072x3072.png 1") && names(&batch)[1].ends_with("3072x3072.png 2"));
    }
}
