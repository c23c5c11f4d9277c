//! From `--image` to a picture on this disk, to the size of what is made of it, and to what pictures say of it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::items::Wish;
use crate::{
    base::{
        geometry::ImageSize,
        progress::{Observer, Once},
    },
    error::{Error, Result},
    input::{self, Seen},
    plan::Encoding,
    recipe::{ImageChoice, Recipe, Source, UPSCALE_STRENGTH, Wanted, declared},
};

/// How far the shape of what is made may be from that of the picture before it is told.
const SHAPE_TOLERANCE: f64 = 0.01;

/// The pictures that a run's pictures begin with, by the paths that hold from everywhere.
#[derive(Default)]
pub struct ImageSource {
    seen: BTreeMap<String, Seen>,
}

impl ImageSource {
    /// Reads every picture that is asked for. In `wishes` its path becomes the one that holds from everywhere, with what the file
    /// holds; sides that nobody asks for follow it, `upscale` times as long. Tells what is made of it that may not be expected.
    ///
    /// # Errors
    /// [`Error::Disk`] for a file that cannot be read; [`Error::Request`] for one that is no picture or no longer the one a
    /// picture was made from, and for `upscale` without a picture.
    pub fn find(wishes: &mut [Wish], upscale: Option<f64>, observer: &dyn Observer) -> Result<Self> {
        let (mut source, mut once) = (Self::default(), Once::new(observer));
        for wish in wishes {
            let notes = source.settle(wish, upscale).map_err(|error| wish.named(error))?;
            notes.into_iter().for_each(|note| once.note(note));
        }
        Ok(source)
    }

    /// Settles one wish; gives what to tell of it.
    fn settle(&mut self, wish: &mut Wish, upscale: Option<f64>) -> Result<Vec<String>> {
        let Some(asked) = wish.asked.wanted.image.clone() else {
            return upscale.map_or_else(|| Ok(Vec::new()), |_| Err(nothing_to_upscale()));
        };
        let (choice, seen) = self.found(&asked)?;
        let mut settled = Wanted { image: Some(choice.clone()), ..Wanted::default() };
        if upscale.is_some() && wish.asked.wanted.strength.is_none() {
            settled.strength = Some(UPSCALE_STRENGTH);
        }
        let wanted = &wish.asked.wanted;
        let [height, width] = sides(seen.size, [wanted.height, wanted.width], upscale.unwrap_or(1.0));
        (settled.height, settled.width) = (Some(height), Some(width));
        let notes = notes(&choice.path, seen, [height, width]);
        // Who asked for a setting is still who asked for it.
        let by = wish.asked.by(declared::image.key).unwrap_or(Source::Flag);
        wish.asked = wish.asked.clone().with(by, &settled);
        Ok(notes)
    }

    fn found(&mut self, asked: &ImageChoice) -> Result<(ImageChoice, &Seen)> {
        let path = Path::new(&asked.path);
        // Where it is in text; a folder above it may have a name that is none.
        let absolute = std::path::absolute(path).ok().and_then(|path| path.to_str().map(str::to_owned));
        let absolute = absolute.unwrap_or_else(|| asked.path.clone());
        if !self.seen.contains_key(&absolute) {
            let seen = input::look(path).map_err(|error| missing(error, asked))?;
            self.seen.insert(absolute.clone(), seen);
        }
        let seen = &self.seen[&absolute];
        match &asked.sha256 {
            Some(sha256) if *sha256 != seen.sha256 => Err(input::changed(path, sha256, &seen.sha256)),
            _ => Ok((ImageChoice { path: absolute, sha256: Some(seen.sha256.clone()) }, seen)),
        }
    }

    /// What is held of the picture that a recipe begins with.
    pub fn encoding(&self, recipe: &Recipe) -> Option<Encoding> {
        let seen = self.seen.get(&recipe.image.as_ref()?.path)?;
        let size = recipe.size();
        let picture_bytes = 3 * (size.height_px * size.width_px) as u64;
        Some(Encoding { ready_bytes: seen.ready_bytes(size), picture_bytes })
    }
}

/// A path of a file of prompts: one that is not absolute is looked for beside that file, then where the program runs.
pub fn beside(prompts: &Path, path: &str) -> String {
    let near = prompts.parent().map(|folder| folder.join(path)).filter(|near| near.exists());
    near.map_or_else(|| path.to_owned(), |near| near.to_string_lossy().into_owned())
}

/// The picture that a picture says it begins with: where it was, else beside the picture that says so.
pub fn from_here(said: ImageChoice, picture: &Path) -> ImageChoice {
    if Path::new(&said.path).exists() {
        return said;
    }
    // Of another system too.
    let name = said.path.rsplit(['/', '\\']).next().unwrap_or_default();
    let near: Option<PathBuf> = picture.parent().map(|folder| folder.join(name)).filter(|near| near.is_file());
    match near {
        Some(near) => ImageChoice { sha256: said.sha256, ..ImageChoice::at(&near) },
        None => said,
    }
}

/// A file that is not there is named with what it held, where that is known.
fn missing(error: Error, asked: &ImageChoice) -> Error {
    match (&asked.sha256, error) {
        (Some(sha256), Error::Disk { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            let what =
                format!("the picture {} (sha256 {sha256}), which this one begins with, is not there", asked.path);
            Error::request(what, "put it there, or name it with --image FILE")
        }
        (_, Error::Disk { source, .. }) if asked.path.contains(char::REPLACEMENT_CHARACTER) => {
            let what = format!("cannot read the picture {}: {source}; a part of its path is no UTF-8 text", asked.path);
            Error::request(what, "change into its folder, or rename it: pictures say what they begin with in text")
        }
        (_, error) => error,
    }
}

fn nothing_to_upscale() -> Error {
    Error::request("--upscale needs a picture", "name it with --image FILE")
}

/// Height and width: what is asked for, else what keeps the shape of the picture, else its own times `factor`.
fn sides(picture: ImageSize, asked: [Option<usize>; 2], factor: f64) -> [usize; 2] {
    let [height, width] = [picture.height_px, picture.width_px].map(|px| px as f64);
    let whole = |px: f64| (px.round() as usize).max(1);
    match asked {
        [Some(height_px), Some(width_px)] => [height_px, width_px],
        [Some(height_px), None] => [height_px, whole(height_px as f64 * width / height)],
        [None, Some(width_px)] => [whole(width_px as f64 * height / width), width_px],
        [None, None] => [whole(height * factor), whole(width * factor)],
    }
}

fn notes(path: &str, seen: &Seen, [height, width]: [usize; 2]) -> Vec<String> {
    let ImageSize { height_px, width_px } = seen.size;
    let stretched = (height as f64 / height_px as f64) / (width as f64 / width_px as f64);
    let mut notes = Vec::new();
    if (stretched - 1.0).abs() > SHAPE_TOLERANCE {
        notes.push(format!(
            "{path} has {height_px} x {width_px} px and is stretched to {height} x {width}; give only one of --height and --width \
             to keep its shape"
        ));
    }
    if seen.is_animated {
        notes.push(format!("{path} moves: its first frame is taken"));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_nobody_asks_for_follow_the_picture() {
        let picture = ImageSize { height_px: 667, width_px: 1000 };
        for (asked, factor, expected) in [
            ([None, None], 1.0, [667, 1000]),
            ([None, None], 4.0, [2668, 4000]),
            ([None, Some(4096)], 1.0, [2732, 4096]),
            ([Some(100), None], 4.0, [100, 150]),
            ([Some(64), Some(64)], 4.0, [64, 64]),
        ] {
            assert_eq!(sides(picture, asked, factor), expected, "{asked:?} {factor}");
        }
    }

    #[test]
    fn only_what_changes_the_shape_is_told() {
        let seen = |is_animated| {
            let mut seen = Seen::of(ImageSize { height_px: 667, width_px: 1000 });
            seen.is_animated = is_animated;
            seen
        };
        assert!(notes("x.png", &seen(false), [2732, 4096]).is_empty());
        assert!(notes("x.png", &seen(false), [64, 64])[0].contains("stretched to 64 x 64"));
        assert!(notes("x.png", &seen(true), [667, 1000])[0].contains("first frame"));
    }
}
