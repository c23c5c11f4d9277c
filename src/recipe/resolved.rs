//! [`Recipe`]: made from what is wanted, or from what a picture says, by one constructor that checks every value.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::{
    CfgRescale, CfgRule, CfgStart, ModelFacts, Recipe, Wanted,
    facts::MOST_TEXT_TOKENS,
    fields::FIELDS,
    setting::{Field, Gaps, Line, Saved, text},
};
use crate::{
    base::geometry::{ImageSize, MAX_SIDE_PX},
    error::{Error, Result},
    methods::{DypeSettings, Fading, Knobs, PositionScaler},
};

/// Where `dype info` tells of settings that have no line of their own.
const LAST_RANK: u8 = 90;

/// Stands for a model that is not known yet.
const ANY_MODEL: ModelFacts = ModelFacts {
    takes_guidance: true,
    // What is asked for is kept: there is a rule by which it acts.
    cfg_rule: CfgRule { start: CfgStart::Positive, rescale: CfgRescale::OnRequest },
    negative_prompt: None,
    most_text_tokens: MOST_TEXT_TOKENS,
    ..ModelFacts::of(MAX_SIDE_PX)
};

impl Recipe {
    /// The recipe of what is wanted, for a model.
    ///
    /// # Errors
    /// [`Error::Request`] for a value out of range, whoever it comes from.
    pub fn new(wanted: &Wanted, facts: &ModelFacts) -> Result<Self> {
        let refuse = |problem: super::setting::Problem| Error::request(problem.what, problem.hint);
        FIELDS.iter().try_for_each(|field| field.check_wanted(wanted)).map_err(refuse)?;
        let recipe = Self::resolve(&Gaps { wanted: &wanted.completed(), facts });
        FIELDS.iter().try_for_each(|field| field.check_held(&recipe)).map_err(refuse)?;
        recipe.check_sides(facts.most_side_px)?;
        recipe.check_text_tokens(facts.most_text_tokens)?;
        recipe.check_strength()?;
        recipe.check_ladder()?;
        Ok(recipe)
    }

    /// The recipe before its model is known: its size, seed, method and prompt are final, what a model decides is not.
    ///
    /// # Errors
    /// As [`Recipe::new`].
    pub fn draft(wanted: &Wanted) -> Result<Self> {
        Self::new(wanted, &ANY_MODEL)
    }

    /// The recipe of a picture that says this of its settings.
    ///
    /// # Errors
    /// As [`Wanted::of_picture`].
    pub fn of_picture(settings: &Value) -> Result<Self> {
        let wanted = Wanted::of_picture(settings)?;
        let (takes_guidance, cfg) = (wanted.guidance.is_some(), wanted.cfg);
        Self::new(&wanted, &ModelFacts { takes_guidance, cfg, ..ANY_MODEL })
    }

    /// # Errors
    /// [`Error::Request`] for a side that is longer than the model's positions reach.
    fn check_sides(&self, most_px: usize) -> Result<()> {
        match [("height", self.height), ("width", self.width)].into_iter().find(|(_, px)| *px > most_px) {
            Some((name, px)) => {
                let what = format!("{name} {px}: the positions of this model reach {most_px} px");
                Err(Error::request(what, format!("ask for at most {most_px} px a side")))
            }
            None => Ok(()),
        }
    }

    /// # Errors
    /// [`Error::Request`] for more tokens of text than the model reads.
    fn check_text_tokens(&self, most: usize) -> Result<()> {
        let tokens = self.max_sequence_length;
        if tokens <= most {
            return Ok(());
        }
        let what = format!("--max-sequence-length {tokens}: this model reads at most {most} tokens of text");
        Err(Error::request(what, format!("ask for 2 to {most}")))
    }

    /// The picture's size.
    pub fn size(&self) -> ImageSize {
        ImageSize { height_px: self.height, width_px: self.width }
    }

    /// DyPE as a scaler takes it; `None` for a static one.
    pub fn dype_settings(&self) -> Option<DypeSettings> {
        let (scale, exponent, thresholds) = (self.dype_scale, self.dype_exponent, self.dype_thresholds);
        self.dype.then_some(DypeSettings { scale, exponent, thresholds })
    }

    /// What tunes the method beside DyPE.
    pub fn knobs(&self) -> Knobs {
        let fading = Fading { start: self.fading_start };
        Knobs { scaling: self.scaling, amplitude: self.amplitude, fading, text_anchor: self.text_anchor }
    }

    /// The scaler that gives each axis its frequencies.
    pub fn scaler(&self) -> Box<dyn PositionScaler> {
        self.method.tuned(self.dype_settings(), self.knobs())
    }

    /// What `dype info` says of it: name and text of each line.
    pub fn info_lines(&self) -> Vec<(&'static str, String)> {
        let own = |field: &&dyn Field| match field.face().info {
            Some(line) => said(&line, self),
            // A newer setting that differs from the usual is told in any case.
            None if field.face().saved == Saved::UnlessUsual => {
                field.saved(self).map(|value| (LAST_RANK, field.key(), text(&value)))
            }
            None => None,
        };
        let mut lines: Vec<_> = FIELDS.iter().filter_map(own).collect();
        lines.sort_by_key(|(rank, ..)| *rank);
        lines.into_iter().map(|(_, name, text)| (name, text)).collect()
    }

    /// What other tools read of it: rank, name and text of each entry, in the order of declaration.
    pub fn parameters(&self) -> Vec<(u8, &'static str, String)> {
        FIELDS.iter().filter_map(|field| said(&field.face().parameters?.line, self)).collect()
    }

    /// Whether [`Recipe::parameters`] may have an entry of this name.
    pub fn has_entry(name: &str) -> bool {
        FIELDS.iter().filter_map(|field| field.face().parameters).any(|entry| entry.line.name == name)
    }
}

fn said(line: &Line, recipe: &Recipe) -> Option<(u8, &'static str, String)> {
    Some((line.rank, line.name, (line.says)(recipe)?))
}

impl Serialize for Recipe {
    /// The settings as a picture says them, in the order of their declarations.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for field in FIELDS {
            if let Some(value) = field.saved(self) {
                map.serialize_entry(field.key(), &value)?;
            }
        }
        map.end()
    }
}
