//! The files that a run writes, each for itself and all beside each other and those it reads: what cannot be written, or would take
//! another's place, is refused before anything is loaded.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
};

use super::{args::OutputArgs, batch_args::ProgressArgs, items::Planned, paths};
use crate::{
    base::paths::parent,
    error::{Error, Result},
    output::{self, Format},
};

/// The flag of the latents' file.
const LATENTS: &str = "--save-latents";
/// The flag of the preview's file.
const PREVIEW: &str = "--preview";

/// Checks what names say: that every picture fits its format, that a stream gets one picture and nothing else, and that no file
/// takes the place of another, or of a picture that one begins with. Writes nothing.
///
/// # Errors
/// [`Error::Request`] for what makes no sense.
pub fn check(planned: &[Planned], output: &OutputArgs, progress: &ProgressArgs) -> Result<()> {
    for Planned { wish, path, .. } in planned {
        wish.target.check(wish.draft()?.size()).map_err(|error| wish.named(error))?;
        if output::is_stream(path) {
            check_stream(path, planned.len(), output.json).map_err(|error| wish.named(error))?;
        }
    }
    for (flag, file) in others(output, progress) {
        check_other(flag, file, planned.len())?;
    }
    if let Some(preview) = &progress.preview {
        Format::from_path(preview)?;
        check_replaced(preview, output.overwrite)?;
    }
    check_apart(planned, output, progress)
}

/// Checks that every file can get its name, and every folder be written to. Makes the folders.
///
/// # Errors
/// As [`output::check_place`]; [`Error::Request`] for a picture that would go to the terminal.
pub fn check_places(planned: &[Planned], output: &OutputArgs, progress: &ProgressArgs) -> Result<()> {
    let mut folders = HashSet::new();
    for Planned { wish, path, number, .. } in planned {
        if output::is_stdout(path) && std::io::stdout().is_terminal() {
            let what = "the picture would go to the terminal";
            return Err(Error::request(what, "send it to a file or a program, such as with \"| magick - x.jpg\""));
        }
        output::check_place(path, *number, output.overwrite, &mut folders).map_err(|error| wish.named(error))?;
    }
    for (flag, file) in others(output, progress) {
        output::check_place(file, 1, output.overwrite || flag == PREVIEW, &mut folders)?;
    }
    Ok(())
}

/// The files beside the pictures, with their flags.
fn others<'a>(output: &'a OutputArgs, progress: &'a ProgressArgs) -> impl Iterator<Item = (&'static str, &'a Path)> {
    let files = [(LATENTS, &output.save_latents), (PREVIEW, &progress.preview)];
    files.into_iter().filter_map(|(flag, file)| Some((flag, file.as_deref()?)))
}

/// Checks that a stream gets one picture and nothing else.
fn check_stream(path: &Path, pictures: usize, as_json: bool) -> Result<()> {
    let name = path.display();
    if pictures > 1 {
        let what = format!("{pictures} pictures cannot all go to {name}, which holds one");
        return Err(Error::request(what, "name a folder, with \"/\" at its end"));
    }
    if output::is_stdout(path) && as_json {
        return Err(Error::request("--json and the picture both want stdout", "name a file with --output"));
    }
    Ok(())
}

/// Checks that a file beside the pictures is one.
fn check_other(flag: &str, file: &Path, pictures: usize) -> Result<()> {
    let name = file.display();
    if output::is_stdout(file) {
        let what = format!("{flag} {name}: stdout is for the pictures, or for where they are");
        return Err(Error::request(what, "name a file"));
    }
    if file.is_dir() || paths::ends_in_separator(file) {
        return Err(Error::request(format!("{flag} {name} is a folder"), "name a file in it"));
    }
    if flag == LATENTS && pictures > 1 && output::is_stream(file) {
        let what = format!("the latents of {pictures} pictures cannot all go to {name}, which holds those of one");
        return Err(Error::request(what, "name a file: each picture's latents get a name of their own from it"));
    }
    Ok(())
}

/// Checks that what a preview replaces is a preview.
fn check_replaced(preview: &Path, overwrite: bool) -> Result<()> {
    if overwrite || output::is_stream(preview) || !preview.exists() || output::is_preview(preview) {
        return Ok(());
    }
    let what = format!("{PREVIEW} {}: this file is there already, and is no preview", preview.display());
    Err(Error::request(what, "name another file, or add --overwrite: each preview takes the place of the one before"))
}

/// Checks that no file takes the place of another of this run, or of a picture that one of it begins with.
fn check_apart(planned: &[Planned], output: &OutputArgs, progress: &ProgressArgs) -> Result<()> {
    let (mut pictures, mut begun) = (HashMap::new(), HashMap::new());
    for (index, Planned { wish, path, number, .. }) in planned.iter().enumerate() {
        if !output::is_stream(path) {
            // A name that is taken stays whose it is: the picture itself gets its number.
            pictures.insert(place(&output::numbered(path, *number)), index);
            pictures.entry(place(path)).or_insert(index);
        }
        if let Some(image) = &wish.asked.wanted.image {
            begun.insert(place(Path::new(&image.path)), index);
        }
    }
    let mut latents = HashSet::new();
    if let Some(file) = output.save_latents.as_deref().filter(|file| !output::is_stream(file)) {
        latents.extend(planned.iter().map(|one| place(&output::numbered(file, one.index as u64 + 1))));
    }
    let preview = progress.preview.as_deref().map(place);
    for (flag, place) in
        latents.iter().map(|place| (LATENTS, place)).chain(preview.iter().map(|place| (PREVIEW, place)))
    {
        if pictures.contains_key(place) {
            return Err(taken(flag, place, "a picture goes to this file"));
        }
        if begun.contains_key(place) {
            return Err(taken(flag, place, "a picture begins with this file"));
        }
        if flag == PREVIEW && latents.contains(place) {
            return Err(taken(flag, place, "latents go to this file"));
        }
    }
    let lost = |(place, begins): (&PathBuf, &usize)| pictures.get(place).is_some_and(|index| index != begins);
    match begun.iter().find(|(place, index)| output.overwrite && lost((place, index))) {
        Some((place, _)) => {
            Err(taken("--overwrite of", place, "one picture would take the place of what another begins with"))
        }
        None => Ok(()),
    }
}

fn taken(flag: &str, place: &Path, why: &str) -> Error {
    Error::request(format!("{flag} {}: {why}", place.display()), "name another file")
}

/// Where a file is, whatever names lead there.
fn place(path: &Path) -> PathBuf {
    let beside = || {
        let name = path.file_name()?;
        Some(fs::canonicalize(parent(path)).ok()?.join(name))
    };
    fs::canonicalize(path).ok().or_else(beside).unwrap_or_else(|| path.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{items::Wish, target::Target},
        recipe::{ImageChoice, Merged, Source, Wanted},
    };

    fn planned(path: &Path, number: u64, image: Option<&Path>) -> Planned {
        let wanted = Wanted { image: image.map(ImageChoice::at), ..Wanted::default() };
        let wish =
            Wish { asked: Merged::of(Source::Flag, &wanted), target: Target::File(path.to_path_buf()), origin: None };
        Planned { wish, path: path.to_path_buf(), number, index: number as usize - 1 }
    }

    #[test]
    fn no_file_takes_the_place_of_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("in.png"), "").expect("written");
        let (again, input) = (folder.path().join("./a_2.png"), path("in.png"));
        let pictures = [planned(&path("a.png"), 1, Some(&input)), planned(&path("a.png"), 2, Some(&input))];
        let checked = |latents: Option<&Path>, preview: Option<&Path>, overwrite| {
            let output =
                OutputArgs { save_latents: latents.map(Path::to_path_buf), overwrite, ..OutputArgs::default() };
            let progress = ProgressArgs { preview: preview.map(Path::to_path_buf), ..ProgressArgs::default() };
            check(&pictures, &output, &progress).map_err(|error| error.to_string())
        };
        checked(Some(&path("l.safetensors")), Some(&path("p.png")), true).expect("all apart");
        for (latents, preview, why) in [
            (None, Some(again.as_path()), "a picture goes to"),
            (Some(path("a.png")), None, "a picture goes to"),
            (None, Some(input.as_path()), "no preview"),
            (Some(path("p.png")), Some(path("p_2.png").as_path()), "latents go to"),
            (None, Some(Path::new("-")), "stdout is for"),
            (Some(path("new/")), None, "is a folder"),
            (Some("/dev/null".into()), None, "holds those of one"),
        ] {
            let error = checked(latents.as_deref(), preview, false).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
        let error = checked(None, Some(&input), true).expect_err("a picture that is begun with");
        assert!(error.contains("begins with this file"), "{error}");
    }

    #[test]
    fn what_a_later_picture_begins_with_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let input = folder.path().join("in.png");
        fs::write(&input, "").expect("written");
        let (output, progress) = (OutputArgs { overwrite: true, ..OutputArgs::default() }, ProgressArgs::default());
        let one = [planned(&input, 1, Some(&input))];
        check(&one, &output, &progress).expect("it is read before it is replaced");
        let two = [planned(&input, 1, Some(&input)), planned(&input, 2, Some(&input))];
        assert_eq!(check(&two, &output, &progress).expect_err("lost to the second").exit_code(), 2);
        check(&two, &OutputArgs::default(), &progress).expect("names of their own");
    }
}
