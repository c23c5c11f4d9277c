//! A ladder of resolutions as it is asked for: which sizes it climbs, in how many steps, by which guidance. How a pass follows the
//! one below is in `sampling`.
//!
//! Source: HiFlow (arXiv 2504.06232) and its authors' code, which runs FLUX.1-dev in 30, 16 and 10 steps at 1, 2 and 4 thousand
//! pixels with a guidance of 3.5, 4.5 and 6.

use std::{fmt, str::FromStr};

use serde_json::Value;

use super::{
    Recipe, SamplerName,
    kinds::{Kind, Style},
    setting::Gaps,
};
use crate::{
    base::geometry::{ImageSize, MAX_SIDE_PX, MIN_SIDE_PX},
    error::{Error, Result},
};

/// The most stages.
const MOST_STAGES: usize = 8;

/// The stages a picture climbs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Ladder {
    /// None: the picture is made at its size.
    #[default]
    Off,
    /// As many as bring the base resolution to the picture's size by equal factors of at most 2. No recipe holds this.
    Auto,
    /// The longer side of each stage in pixels, from the training size up to that of the picture.
    Sides(Vec<usize>),
}

/// A stage of a ladder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rung {
    /// The size of its picture.
    pub size: ImageSize,
    /// Its steps, the last ones of the first stage's schedule.
    pub steps: usize,
    /// Its guidance scale, where the model takes one.
    pub guidance: Option<f64>,
}

impl Ladder {
    /// From a base resolution to a picture's size; off where the picture has no more pixels than the base.
    pub fn auto(size: ImageSize, base_resolution: usize) -> Self {
        let (longer, side) = (size.longer_px(), mean_side_px(size));
        let growth = side / base_resolution as f64;
        // A side grows by at most 2 from one stage to the next.
        let stages = growth.log2().ceil().max(0.0) as usize;
        let first = longer as f64 / growth;
        let side = |stage: usize| (first * growth.powf(stage as f64 / stages as f64)).round() as usize;
        let sides: Vec<usize> = (0..stages).map(side).chain([longer]).collect();
        if is_climbing(&sides) { Self::Sides(sides) } else { Self::Off }
    }

    /// The longer sides of its stages in pixels; none where it is off.
    pub fn sides(&self) -> &[usize] {
        match self {
            Self::Sides(sides) => sides,
            Self::Off | Self::Auto => &[],
        }
    }

    /// In words, where it is on.
    pub fn in_words(&self) -> Option<String> {
        let sides: Vec<String> = self.sides().iter().map(usize::to_string).collect();
        (!sides.is_empty()).then(|| format!("{} px", sides.join(", ")))
    }
}

/// The side of a square of as many pixels.
fn mean_side_px(size: ImageSize) -> f64 {
    (size.height_px as f64 * size.width_px as f64).sqrt()
}

fn is_climbing(sides: &[usize]) -> bool {
    (2..=MOST_STAGES).contains(&sides.len())
        && sides.is_sorted_by(|below, above| below < above)
        && sides.iter().all(|side| (MIN_SIDE_PX..=MAX_SIDE_PX).contains(side))
}

impl FromStr for Ladder {
    type Err = Error;

    /// `off`, `auto`, or sides such as `1024,2048,4096`.
    fn from_str(text: &str) -> Result<Self> {
        let sides = || text.split(',').map(|side| side.trim().parse().ok()).collect::<Option<Vec<usize>>>();
        match text.trim() {
            "off" => Ok(Self::Off),
            "auto" => Ok(Self::Auto),
            _ => sides().filter(|sides| is_climbing(sides)).map(Self::Sides).ok_or_else(|| {
                Error::request(format!("--ladder {text}: no ladder"), format!("it is {}", Sizes.wanted()))
            }),
        }
    }
}

impl fmt::Display for Ladder {
    /// As a flag takes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Auto => f.write_str("auto"),
            Self::Sides(sides) => f.write_str(&sides.iter().map(usize::to_string).collect::<Vec<_>>().join(",")),
        }
    }
}

/// Sizes of a ladder.
pub struct Sizes;

impl Kind<Ladder> for Sizes {
    fn style(&self) -> Style {
        Style::Name
    }

    fn parse(&self, text: &str) -> Result<Ladder, String> {
        text.parse().map_err(|_| format!("a ladder is {}", self.wanted()))
    }

    /// A list of numbers does too.
    fn read_json(&self, value: &Value) -> Option<Ladder> {
        let numbers =
            |list: &Vec<Value>| list.iter().map(|one| Some(one.as_u64()?.to_string())).collect::<Option<Vec<_>>>();
        match value {
            Value::Array(list) => numbers(list)?.join(",").parse().ok(),
            _ => value.as_str()?.parse().ok(),
        }
    }

    fn to_json(&self, value: &Ladder) -> Value {
        value.to_string().into()
    }

    fn wanted(&self) -> String {
        format!(
            "auto, off, or 2 to {MOST_STAGES} sides in pixels that grow, the last the picture's longer one, such as 1024,2048,4096"
        )
    }

    fn admits(&self, value: &Ladder) -> bool {
        !matches!(value, Ladder::Sides(sides) if !is_climbing(sides))
    }
}

impl Gaps<'_> {
    /// Height or width in pixels where that one is not asked for: what a ladder ends at, else the model's.
    pub(super) fn side_px(&self) -> usize {
        let asked = self.wanted.ladder.as_ref().and_then(|ladder| ladder.sides().last());
        asked.copied().unwrap_or(self.facts.side_px)
    }

    /// The ladder with its sizes known.
    pub(super) fn ladder(&self) -> Ladder {
        match &self.wanted.ladder {
            Some(Ladder::Auto) => {
                let side = |asked: Option<usize>| asked.unwrap_or_else(|| self.side_px());
                let [height_px, width_px] = [self.wanted.height, self.wanted.width].map(side);
                let base = self.wanted.base_resolution.unwrap_or(self.facts.base_resolution);
                Ladder::auto(ImageSize { height_px, width_px }, base)
            }
            asked => asked.clone().unwrap_or_default(),
        }
    }
}

impl Recipe {
    /// The stages of its ladder in whole tokens of so many pixels, the last the picture itself; none where it is off.
    pub fn rungs(&self, px_per_token: usize) -> Vec<Rung> {
        let (size, sides) = (self.size(), self.ladder.sides());
        let of_stage = |(stage, side): (usize, &usize)| Rung {
            size: if stage + 1 == sides.len() { size } else { scaled(size, *side, px_per_token) },
            steps: steps(self.steps, stage),
            guidance: self.guidance_at(stage),
        };
        sides.iter().enumerate().map(of_stage).collect()
    }

    /// The guidance scale of a stage of a ladder, where the model takes one: with the usual 4.5 the authors' 3.5, 4.5 and 6, and
    /// in proportion with another.
    pub fn guidance_at(&self, stage: usize) -> Option<f64> {
        let scale = self.guidance?;
        Some(match stage {
            0 => scale * 7.0 / 9.0,
            1 => scale,
            _ => scale * 4.0 / 3.0,
        })
    }

    /// # Errors
    /// [`Error::Request`] for a ladder that ends elsewhere than at the picture.
    pub(super) fn check_ladder(&self) -> Result<()> {
        if self.ladder != Ladder::Off && self.image.is_some() {
            let what = "--ladder begins with a picture at the training size, and --image with another";
            return Err(Error::request(what, "leave one of them away"));
        }
        if self.ladder_pull.is_some_and(|pull| pull > 0.0) && self.sampler != SamplerName::Euler {
            let what = format!("--ladder leads the steps of Euler's sampler, not those of --sampler {}", self.sampler);
            return Err(Error::request(what, "leave --sampler away, or climb without being led: --ladder-pull 0"));
        }
        let longer = self.size().longer_px();
        match self.ladder.sides().last() {
            Some(last) if *last != longer => {
                let what =
                    format!("--ladder {} ends at {last} px, and the picture's longer side is {longer} px", self.ladder);
                Err(Error::request(what, format!("end it with {longer}, or say --ladder auto")))
            }
            _ => Ok(()),
        }
    }
}

/// A picture's shape with this longer side, each side the nearest multiple, and at least one.
fn scaled(size: ImageSize, longer_px: usize, multiple: usize) -> ImageSize {
    let whole = size.longer_px();
    // Halves go up.
    let side = |px: usize| ((2 * px * longer_px + whole * multiple) / (2 * whole * multiple)).max(1) * multiple;
    ImageSize { height_px: side(size.height_px), width_px: side(size.width_px) }
}

/// Steps of a stage where the first takes this many: all, then 16 of 30, then a third; rounded up, so that none starts nearer to
/// its end than the authors' do.
fn steps(first: usize, stage: usize) -> usize {
    match stage {
        0 => first,
        1 => (16 * first).div_ceil(30),
        _ => first.div_ceil(3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{ModelFacts, Wanted};

    fn size(height_px: usize, width_px: usize) -> ImageSize {
        ImageSize { height_px, width_px }
    }

    fn recipe(ladder: &str, [height, width]: [Option<usize>; 2]) -> Result<Recipe> {
        let wanted = Wanted { ladder: ladder.parse().ok(), height, width, steps: Some(30), ..Wanted::default() };
        Recipe::new(&wanted, &ModelFacts { takes_guidance: true, ..ModelFacts::of(1024) })
    }

    #[test]
    fn a_ladder_grows_by_equal_factors_of_at_most_two() {
        let auto = |height, width| Ladder::auto(size(height, width), 1024).to_string();
        assert_eq!(auto(4096, 4096), "1024,2048,4096");
        assert_eq!(auto(2048, 2048), "1024,2048");
        assert_eq!(auto(1536, 1536), "1024,1536");
        assert_eq!(auto(3072, 3072), "1024,1774,3072");
        // The first stage has the pixels of the base, whatever the shape.
        assert_eq!(auto(2048, 4096), "1448,2435,4096");
        for (height, width) in [(1024, 1024), (512, 2048), (64, 64)] {
            assert_eq!(auto(height, width), "off", "{height} x {width}");
        }
        assert_eq!(auto(65_536, 65_536), "1024,2048,4096,8192,16384,32768,65536");
    }

    #[test]
    fn stages_are_the_authors_at_their_sizes() {
        let rungs = recipe("auto", [None, None]).expect("a ladder").rungs(16);
        let said: Vec<_> = rungs.iter().map(|rung| (rung.size.height_px, rung.steps, rung.guidance)).collect();
        assert_eq!(said, [(1024, 30, Some(3.5)), (2048, 16, Some(4.5)), (4096, 10, Some(6.0))]);
        let wide = recipe("auto", [Some(2048), Some(4090)]).expect("a ladder").rungs(16);
        let sizes: Vec<_> = wide.iter().map(|rung| rung.size).collect();
        assert_eq!(sizes, [size(720, 1440), size(1216, 2432), size(2048, 4090)]);
        assert_eq!(
            (steps(28, 1), steps(28, 2), steps(4, 1), steps(4, 2), steps(1, 1), steps(1, 2)),
            (15, 10, 3, 2, 1, 1)
        );
    }

    #[test]
    fn a_ladder_says_the_size_where_nothing_else_does_and_must_end_at_it() {
        let ends = |ladder, sides| recipe(ladder, sides).map(|recipe| recipe.size());
        assert_eq!(ends("512,2048", [None, None]).expect("a size"), size(2048, 2048));
        assert_eq!(ends("512,2048", [None, Some(1024)]).expect("a size"), size(2048, 1024));
        assert_eq!(ends("off", [None, None]).expect("a size"), size(4096, 4096));
        let error = ends("512,2048", [Some(4096), Some(1024)]).expect_err("another end");
        assert!(error.to_string().contains("ends at 2048 px") && error.to_string().contains("4096 px"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn a_resolved_ladder_is_the_same_again() {
        let recipe = recipe("auto", [None, None]).expect("a ladder");
        assert_eq!(Recipe::new(&Wanted::from(&recipe), &ModelFacts::of(512)).expect("again").ladder, recipe.ladder);
        assert_eq!(recipe.ladder_pull, Some(1.0));
        let low = Wanted { ladder: Some(Ladder::Auto), height: Some(512), width: Some(512), ..Wanted::default() };
        let low = Recipe::new(&low, &ModelFacts::of(1024)).expect("no ladder");
        assert_eq!((low.ladder, low.ladder_pull), (Ladder::Off, None));
    }

    #[test]
    fn what_does_not_climb_is_refused_with_what_would() {
        for text in ["", "1024", "2048,1024", "1024,1024", "8,1024", "1024,70000", "1024;2048", "auto,2048", "1,2,3"] {
            let message = Sizes.parse(text).expect_err(text);
            assert!(message.contains("1024,2048,4096"), "{message}");
        }
        assert_eq!(Sizes.parse(" 512, 1024 "), Ok(Ladder::Sides(vec![512, 1024])));
        let read = |json: Value| Sizes.read_json(&json);
        assert_eq!(read(serde_json::json!([512, 1024])), Some(Ladder::Sides(vec![512, 1024])));
        assert_eq!(read(serde_json::json!("auto")), Some(Ladder::Auto));
        assert_eq!([serde_json::json!([512, "x"]), serde_json::json!(3)].map(read), [None, None]);
    }
}
