//! The picture that a picture begins with, and how much of it is made anew.

use std::{fmt, path::Path};

use serde_json::{Value, json};

use super::{
    Recipe, Wanted,
    kinds::{Kind, Style},
};
use crate::{
    base::hex::is_sha256,
    error::{Error, Result},
};

/// Strength when none is given. Source: diffusers' `FluxImg2ImgPipeline`.
pub const DEFAULT_STRENGTH: f64 = 0.6;
/// The same of a picture that is made larger: what is drawn stays, and gets the detail of its new size.
pub const UPSCALE_STRENGTH: f64 = 0.4;

/// A picture's file.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageChoice {
    /// Its path.
    pub path: String,
    /// The sha256 of the file, in hexadecimal; `None` until it has been read.
    pub sha256: Option<String>,
}

impl ImageChoice {
    /// The file at a path.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_string_lossy().into_owned(), sha256: None }
    }

    /// In words, for people.
    pub fn in_words(&self) -> String {
        match &self.sha256 {
            Some(sha256) => format!("{} (sha256 {})", self.path, &sha256[..12]),
            None => self.path.clone(),
        }
    }

    /// From the text for other tools, which [`fmt::Display`] writes.
    pub(super) fn of_elsewhere(text: &str, wanted: &mut Wanted) -> Option<()> {
        let (sha256, path) = match text.split_once(' ') {
            Some((sha256, path)) if is_sha256(sha256) => (Some(sha256.to_owned()), path),
            _ => (None, text),
        };
        wanted.image = Some(Self { path: path.to_owned(), sha256 }).filter(is_sound);
        wanted.image.is_some().then_some(())
    }
}

impl fmt::Display for ImageChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.sha256 {
            Some(sha256) => write!(f, "{sha256} {}", self.path),
            None => f.write_str(&self.path),
        }
    }
}

fn is_sound(image: &ImageChoice) -> bool {
    let is_hex = |text: &String| is_sha256(text);
    !image.path.is_empty() && !image.path.contains(['\0', '\n', '\r']) && image.sha256.as_ref().is_none_or(is_hex)
}

/// A picture's file.
pub struct Image;

impl Image {
    /// An object in a file of prompts, or of a picture where `is_saved`.
    fn read(value: &Value, is_saved: bool) -> Option<ImageChoice> {
        let map = match value {
            Value::String(path) if !is_saved => return Some(ImageChoice { path: path.clone(), sha256: None }),
            other => other.as_object()?,
        };
        let (mut path, mut sha256) = (None, None);
        for (key, value) in map {
            match key.as_str() {
                "path" => path = value.as_str(),
                "file" if !is_saved => path = value.as_str(),
                "sha256" => sha256 = Some(value.as_str()?.to_owned()),
                _ => return None,
            }
        }
        Some(ImageChoice { path: path?.to_owned(), sha256 })
    }
}

impl Kind<ImageChoice> for Image {
    fn style(&self) -> Style {
        Style::Name
    }

    fn parse(&self, text: &str) -> Result<ImageChoice, String> {
        let image = ImageChoice { path: text.to_owned(), sha256: None };
        if is_sound(&image) { Ok(image) } else { Err("the name of a picture's file is wanted".into()) }
    }

    fn read_json(&self, value: &Value) -> Option<ImageChoice> {
        Self::read(value, false).filter(is_sound)
    }

    fn read_saved(&self, value: &Value) -> Option<ImageChoice> {
        Self::read(value, true).filter(is_sound)
    }

    fn to_json(&self, value: &ImageChoice) -> Value {
        let mut json = json!({ "path": value.path });
        if let Some(sha256) = &value.sha256 {
            json["sha256"] = json!(sha256);
        }
        json
    }

    fn wanted(&self) -> String {
        r#"the name of a picture's file, or {"path": FILE, "sha256": DIGEST}"#.into()
    }

    fn admits(&self, value: &ImageChoice) -> bool {
        is_sound(value)
    }

    /// A file is what it holds, wherever it lies.
    fn known_by(&self, saved: &Value) -> Value {
        saved.get("sha256").map_or_else(|| saved.clone(), |sha256| json!({ "sha256": sha256 }))
    }
}

impl Recipe {
    /// The step of the schedule that the picture begins with, from 0: those before it are left out where it begins with another
    /// picture.
    ///
    /// Source: `get_timesteps` of diffusers' `FluxImg2ImgPipeline`, in f64 as there: the last steps · strength, rounded up.
    pub fn first_step(&self) -> usize {
        let steps = self.steps as f64;
        self.strength.map_or(0, |strength| (steps - (steps * strength).min(steps)).max(0.0) as usize)
    }

    /// # Errors
    /// [`Error::Request`] for a strength that leaves no step to do.
    pub(super) fn check_strength(&self) -> Result<()> {
        let Some(strength) = self.strength.filter(|_| self.first_step() >= self.steps) else { return Ok(()) };
        let what = format!("--strength {strength} of {} steps leaves no step to do", self.steps);
        Err(Error::request(what, "0.3 keeps most of a picture, 0.6 its shapes; 1 keeps nothing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, digit: Option<&str>) -> ImageChoice {
        ImageChoice { path: path.to_owned(), sha256: digit.map(|digit| digit.repeat(64)) }
    }

    #[test]
    fn files_of_prompts_say_it_in_several_ways_and_pictures_in_one() {
        let read = |text: &str| Image.read_json(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(read(r#""a b.png""#), Some(image("a b.png", None)));
        assert_eq!(read(r#"{"file": "a.png"}"#), Some(image("a.png", None)));
        for text in
            ["1", r#""""#, "{}", r#"{"path": 1}"#, r#"{"path": "a", "sha256": "xyz"}"#, r#"{"path": "a", "of": 1}"#]
        {
            assert_eq!(read(text), None, "{text}");
        }
        let said = image("x.png", Some("a"));
        assert_eq!(Image.read_saved(&Image.to_json(&said)), Some(said.clone()));
        assert_eq!(Image.read_saved(&json!("x.png")), None);
        let known = |path, digit| Image.known_by(&Image.to_json(&image(path, Some(digit))));
        assert_eq!(known("a", "1"), known("b", "1"));
        assert_ne!(known("a", "1"), known("a", "2"));
    }

    #[test]
    fn the_text_for_other_tools_is_read_back() {
        for said in [image("a, b: c.png", Some("0")), image("x y.png", None)] {
            let mut wanted = Wanted::default();
            ImageChoice::of_elsewhere(&said.to_string(), &mut wanted).expect("its own");
            assert_eq!(wanted.image, Some(said));
        }
    }

    #[test]
    fn the_first_step_is_the_references() {
        let text = include_str!("../../tests/fixtures/img2img/first_steps.json");
        let rows: Vec<(usize, f64, usize)> = serde_json::from_str(text).expect("golden");
        assert_eq!(rows.len(), 98);
        for (steps, strength, first) in rows {
            let wanted = Wanted {
                steps: Some(steps),
                strength: Some(strength),
                image: Some(image("a.png", None)),
                ..Wanted::default()
            };
            match Recipe::draft(&wanted) {
                Ok(recipe) => assert_eq!(recipe.first_step(), first, "{strength} of {steps}"),
                Err(error) => {
                    assert_eq!((first, error.exit_code()), (steps, 2));
                    assert!(error.to_string().contains("leaves no step"), "{error}");
                }
            }
        }
    }

    #[test]
    fn strength_is_nothing_without_a_picture_and_out_of_range_refused() {
        let of = |strength, image| Recipe::draft(&Wanted { strength, image, ..Wanted::default() });
        assert_eq!(of(Some(0.0), None).expect("idle").strength, None);
        let begun = of(None, Some(image("a", None))).expect("usual");
        assert_eq!((begun.strength, begun.first_step()), (Some(DEFAULT_STRENGTH), 11));
        assert_eq!(Recipe::of_picture(&json!(begun)).expect("its own"), begun);
        for strength in [-0.1, 1.1, f64::NAN] {
            assert_eq!(of(Some(strength), Some(image("a", None))).expect_err("out of range").exit_code(), 2);
        }
    }
}
