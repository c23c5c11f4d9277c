//! Which pictures a command line asks for: all combinations of prompts and seeds, checked before anything is loaded.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use super::{batch_args::SelectArgs, target::Target};
use crate::{
    base::geometry::ImageSize,
    error::{Error, Result},
    methods::DypeSettings,
    output,
    recipe::settings::Request,
    recipe::{self, Line, Overrides, Shard},
};

/// A picture that is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What.
    pub request: Request,
    /// Where it goes.
    pub target: Target,
    /// The line of a file that asks for it, such as "prompts.txt line 3".
    pub origin: Option<String>,
    /// Whether a guidance scale was asked for: some models take none.
    pub guidance_given: bool,
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
        let wish = of_line(base, &line, file)?;
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

fn of_line(base: &Wish, line: &Line, file: &Path) -> Result<Wish> {
    let name = file.to_string_lossy();
    let name = if name == "-" { "stdin".into() } else { name };
    let origin = format!("{name} line {}", line.number);
    let mut wish = Wish { origin: Some(origin), ..base.clone() };
    wish.request.prompt.clone_from(&line.prompt);
    apply(&mut wish.request, &line.overrides).map_err(|error| wish.named(error))?;
    wish.guidance_given |= line.overrides.guidance.is_some();
    if let Some(output) = &line.overrides.output {
        wish.target = Target::new(Some(output));
    }
    Ok(wish)
}

/// Sets what `overrides` name.
///
/// # Errors
/// [`Error::Request`] for an impossible size.
pub fn apply(request: &mut Request, overrides: &Overrides) -> Result<()> {
    fn set<T: Copy>(place: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *place = value;
        }
    }
    let size = request.size;
    request.size =
        ImageSize::new(overrides.height.unwrap_or(size.height_px), overrides.width.unwrap_or(size.width_px))?;
    set(&mut request.seed, overrides.seed);
    set(&mut request.steps, overrides.steps);
    set(&mut request.guidance, overrides.guidance);
    set(&mut request.method, overrides.method);
    set(&mut request.mu, overrides.mu);
    set(&mut request.rng, overrides.rng);
    request.max_sequence_length = overrides.max_sequence_length.or(request.max_sequence_length);
    request.base_resolution = overrides.base_resolution.or(request.base_resolution);
    request.dype = dype(request.dype, overrides);
    Ok(())
}

/// DyPE with its overrides. Tuning it means that it is on, unless the same line turns it off.
fn dype(base: Option<DypeSettings>, overrides: &Overrides) -> Option<DypeSettings> {
    let is_tuned =
        overrides.dype_scale.is_some() || overrides.dype_exponent.is_some() || overrides.dype_thresholds.is_some();
    let is_on = overrides.dype.unwrap_or(base.is_some() || is_tuned);
    let mut dype = base.unwrap_or_default();
    dype.scale = overrides.dype_scale.or(dype.scale);
    dype.exponent = overrides.dype_exponent.or(dype.exponent);
    dype.thresholds = overrides.dype_thresholds.unwrap_or(dype.thresholds);
    is_on.then_some(dype)
}

fn with_seeds(wish: &Wish, own: Option<u64>, select: &SelectArgs) -> Result<Vec<Wish>> {
    let first = own.unwrap_or(wish.request.seed);
    let seeds = match (&select.seeds, select.count) {
        (Some(seeds), _) if own.is_none() => seeds.0.clone(),
        (_, Some(count)) => recipe::consecutive(first, count).map_err(|error| wish.named(error))?,
        _ => vec![first],
    };
    let seeded = |seed| Wish { request: Request { seed, ..wish.request.clone() }, ..wish.clone() };
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

    /// Whether another asks for the same file with the same settings.
    fn identity(&self) -> String {
        format!("{:?} {:?}", self.request, self.target)
    }
}

/// Names all pictures and takes this process's part of them; a picture that is asked for twice is made once. Also gives
/// the number of those that were left out as repetitions.
pub fn arrange(wishes: Vec<Wish>, shard: Shard) -> (Vec<Planned>, usize) {
    let asked = wishes.len();
    let mut seen = HashSet::new();
    let mut numbers: HashMap<PathBuf, u64> = HashMap::new();
    let mut planned = Vec::new();
    for wish in wishes.into_iter().filter(|wish| seen.insert(wish.identity())) {
        let path = wish.target.file(&wish.request);
        let number = numbers.entry(path.clone()).and_modify(|number| *number += 1).or_insert(1);
        let index = planned.len();
        planned.push(Planned { wish, path, number: *number, index });
    }
    let repeated = asked - planned.len();
    planned.retain(|planned| shard.takes(planned.index));
    (planned, repeated)
}

/// Checks that every picture fits its format, and every folder can be written to. Makes the folders.
///
/// # Errors
/// As [`Target::check`] and [`output::check_writable`].
pub fn check(planned: &[Planned]) -> Result<()> {
    for Planned { wish, .. } in planned {
        wish.target.check(wish.request.size).map_err(|error| wish.named(error))?;
    }
    let folders: BTreeSet<&Path> = planned.iter().map(|planned| planned.wish.target.folder()).collect();
    folders.into_iter().try_for_each(output::check_writable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        methods::Method,
        sampling::{Mu, Rng},
    };

    fn base() -> Wish {
        let request = Request {
            prompt: "a lake".into(),
            size: ImageSize::new(64, 64).expect("valid"),
            steps: 2,
            seed: 42,
            guidance: 4.5,
            max_sequence_length: None,
            rng: Rng::TorchCpu,
            method: Method::YARN,
            dype: Some(DypeSettings::default()),
            base_resolution: None,
            mu: Mu::Pinned,
        };
        Wish { request, target: Target::Folder("out".into()), origin: None, guidance_given: false }
    }

    fn seeds(wishes: &[Wish]) -> Vec<u64> {
        wishes.iter().map(|wish| wish.request.seed).collect()
    }

    #[test]
    fn seeds_come_from_the_list_the_count_or_the_line() {
        let list = SelectArgs { seeds: Some(crate::cli::values::Seeds(vec![3, 1])), ..SelectArgs::default() };
        let count = SelectArgs { count: Some(3), ..SelectArgs::default() };
        let made = |own, select: &SelectArgs| seeds(&with_seeds(&base(), own, select).expect("valid"));
        assert_eq!(made(None, &list), [3, 1]);
        assert_eq!(made(None, &count), [42, 43, 44]);
        assert_eq!(made(Some(7), &list), [7]);
        assert_eq!(made(Some(7), &count), [7, 8, 9]);
        assert_eq!(made(None, &SelectArgs::default()), [42]);
    }

    #[test]
    fn tuning_dype_turns_it_on_unless_the_line_turns_it_off() {
        let off = base().request.dype.filter(|_| false);
        let tuned = Overrides { dype_scale: Some(0.5), ..Overrides::default() };
        assert_eq!(dype(off, &tuned).and_then(|dype| dype.scale), Some(0.5));
        assert_eq!(dype(base().request.dype, &Overrides { dype: Some(false), ..tuned.clone() }), None);
        assert_eq!(dype(off, &Overrides::default()), None);
        assert!(dype(off, &Overrides { dype: Some(true), ..Overrides::default() }).is_some());
    }

    #[test]
    fn pictures_with_one_name_are_numbered_and_repeated_ones_made_once() {
        let other = |prompt: &str| Wish { request: Request { prompt: prompt.into(), ..base().request }, ..base() };
        let wishes = vec![other("a"), other("b"), other("a"), other("c")];
        let (planned, repeated) = arrange(wishes.clone(), Shard::default());
        assert_eq!(repeated, 1);
        let names: Vec<_> = planned.iter().map(|p| (p.wish.request.prompt.as_str(), p.number)).collect();
        assert_eq!(names, [("a", 1), ("b", 2), ("c", 3)]);
        let (part, _) = arrange(wishes, Shard::new(2, 2).expect("valid"));
        assert_eq!(part.iter().map(|p| p.number).collect::<Vec<_>>(), [2]);
    }
}
