//! What is asked for, by whom, and what comes of it where several ask.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Wanted,
    fields::{FIELDS, declared},
    setting::{Face, Problem, Saved},
};
use crate::error::{Error, Result};

/// Characters that are shown of a value that makes no sense.
const SHOWN: usize = 40;

/// Who asks for a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A picture that is made again.
    Picture,
    /// A flag, or the variable that stands behind it.
    Flag,
    /// A line of a file of prompts.
    Line,
}

/// What several sources want together: of each setting what the last that asked for it says.
#[derive(Debug, Clone, Default)]
pub struct Merged {
    /// What they want.
    pub wanted: Wanted,
    /// Who said it, by the setting's key.
    by: BTreeMap<&'static str, Source>,
}

/// What makes settings, as a picture says them, the same as others.
pub fn known_by(settings: &Value) -> Value {
    let mut known = settings.clone();
    for field in FIELDS {
        if let Some(value) = known.get_mut(field.key()) {
            *value = field.known_by(value);
        }
    }
    known
}

impl Wanted {
    /// What a picture says of its settings.
    ///
    /// # Errors
    /// [`Error::Request`] when a setting is missing, is none this version knows, or has a value of another type or out of
    /// range.
    pub fn of_picture(settings: &Value) -> Result<Self> {
        let refuse = |problem: Problem| Error::request(problem.what, problem.hint);
        let said = settings.as_object().ok_or_else(|| Error::request("they are no JSON object", ""))?;
        let mut wanted = Self::default();
        for field in FIELDS {
            field.set_saved(&mut wanted, said.get(field.key())).map_err(refuse)?;
        }
        match said.keys().find(|key| FIELDS.iter().all(|field| field.key() != *key)) {
            Some(key) => Err(Error::request(format!("{key:?} is no setting of this version"), "update dype")),
            None => Ok(wanted),
        }
    }

    /// What the text for other tools says of a picture's settings: `said` has the value of each entry. It leaves out what the
    /// text does not say.
    ///
    /// # Errors
    /// [`Error::Request`] for a value of another type or out of range.
    pub fn of_parameters<'a>(prompt: &str, said: impl Fn(&str) -> Option<&'a str>) -> Result<Self> {
        let refuse = |problem: Problem| Error::request(problem.what, problem.hint);
        let mut wanted = Self { prompt: Some(prompt.to_owned()), ..Self::default() };
        for entry in FIELDS.iter().filter_map(|field| field.face().parameters) {
            let Some(text) = said(entry.line.name) else { continue };
            (entry.reads)(text, &mut wanted).ok_or_else(|| {
                let shown = Value::from(text.chars().take(SHOWN).collect::<String>());
                Error::request(format!("{} is {shown}", entry.line.name), "dype writes nothing like that")
            })?;
        }
        FIELDS.iter().try_for_each(|field| field.check_wanted(&wanted)).map_err(refuse)?;
        Ok(wanted)
    }

    /// Keys of the settings that are not said, and matter to the picture.
    pub fn unsaid(&self) -> Vec<&'static str> {
        // How DyPE acts means nothing where it is off.
        let is_idle = |key: &str| {
            (self.dype == Some(false) && Self::tuning().contains(&key))
                // Its line stands above the settings.
                || key == declared::negative_prompt.key
        };
        // Where the text has an entry for what is not usual, saying nothing says that it is.
        let is_usual = |face: &Face| face.saved == Saved::UnlessUsual && face.parameters.is_some();
        let unsaid =
            FIELDS.iter().filter(|field| !field.is_set(self) && !is_idle(field.key()) && !is_usual(field.face()));
        unsaid.map(|field| field.key()).collect()
    }

    /// With the usual value of each setting that nobody asks for, where the model has no say in it. How DyPE acts is nobody's
    /// where it is off.
    pub fn completed(&self) -> Self {
        let mut wanted = self.clone();
        FIELDS.iter().for_each(|field| field.fill(&mut wanted));
        if wanted.dype == Some(false) {
            wanted.forget_tuning();
        }
        wanted
    }
}

impl Merged {
    /// What one source wants.
    pub fn of(source: Source, wanted: &Wanted) -> Self {
        Self::default().with(source, wanted)
    }

    /// What `source` wants goes before what is there. Tuning DyPE means that it is on, unless the same source turns it off;
    /// how it was tuned where it was off is forgotten.
    #[must_use]
    pub fn with(mut self, source: Source, wanted: &Wanted) -> Self {
        if self.wanted.dype == Some(false) {
            self.wanted.forget_tuning();
        }
        for field in FIELDS.iter().filter(|field| field.is_set(wanted)) {
            field.copy(wanted, &mut self.wanted);
            self.by.insert(field.key(), source);
        }
        if wanted.dype.is_none() && wanted.tunes_dype() {
            self.wanted.dype = Some(true);
        }
        self
    }

    /// Who asked for the setting with this key.
    pub fn by(&self, key: &str) -> Option<Source> {
        self.by.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        methods::Thresholds,
        recipe::{CfgRescale, CfgRule, CfgStart, ModelFacts, Mu, Recipe},
    };

    fn settings() -> Value {
        json!(Recipe::draft(&Wanted::default()).expect("the usual"))
    }

    #[test]
    fn tuning_dype_turns_it_on_unless_the_line_turns_it_off() {
        let off = Wanted { dype: Some(false), ..Wanted::default() };
        let tuned = Wanted { dype_scale: Some(0.5), ..Wanted::default() };
        let dype = |line: &Wanted| {
            let merged = Merged::of(Source::Flag, &off).with(Source::Line, line);
            Recipe::draft(&merged.wanted).expect("in range").dype_settings()
        };
        assert_eq!(dype(&tuned).and_then(|dype| dype.scale), Some(0.5));
        assert_eq!(dype(&Wanted { dype: Some(false), ..tuned.clone() }), None);
        assert_eq!(dype(&Wanted::default()), None);
        assert!(dype(&Wanted { dype: Some(true), ..Wanted::default() }).is_some());
    }

    #[test]
    fn the_last_source_wins_and_is_remembered() {
        let seeds = [(Source::Picture, 1), (Source::Flag, 2), (Source::Line, 3)];
        let wanted = |seed| Wanted { seed: Some(seed), ..Wanted::default() };
        let merged =
            seeds.iter().fold(Merged::default(), |merged, (source, seed)| merged.with(*source, &wanted(*seed)));
        assert_eq!((merged.wanted.seed, merged.by("seed"), merged.by("steps")), (Some(3), Some(Source::Line), None));
        let kept = merged.with(Source::Line, &Wanted { steps: Some(4), ..Wanted::default() });
        assert_eq!((kept.wanted.seed, kept.wanted.steps), (Some(3), Some(4)));
    }

    #[test]
    fn what_a_picture_says_is_read_as_it_was_written() {
        let wanted = Wanted { mu: Some("1.25".parse().expect("a shift")), dype: Some(false), ..Wanted::default() };
        let recipe = Recipe::draft(&wanted).expect("in range");
        assert_eq!(Recipe::of_picture(&json!(recipe)).expect("its own"), recipe);
        let unguided = Recipe { guidance: None, ..recipe };
        assert_eq!(Recipe::of_picture(&json!(unguided)).expect("its own"), unguided);
    }

    /// Prompt and entries of a recipe's text.
    fn from_text(recipe: &Recipe) -> Result<Wanted> {
        let list = recipe.parameters();
        let said = |name: &str| list.iter().find(|(_, known, _)| *known == name).map(|(.., text)| text.as_str());
        Wanted::of_parameters(&recipe.prompt, said)
    }

    /// What a family of models says, whose cfg is counted and on as this says.
    fn facts(start: CfgStart, cfg: Option<f64>) -> ModelFacts {
        let cfg_rule = CfgRule { start, rescale: CfgRescale::Never };
        ModelFacts { cfg_rule, cfg, negative_prompt: Some(" "), ..ModelFacts::of(1024) }
    }

    #[test]
    fn cfg_is_a_setting_where_it_is_on_or_usually_would_be() {
        let asking = |cfg: Option<f64>| Wanted { cfg, negative_prompt: Some("fog".into()), ..Wanted::default() };
        let recipe = |cfg, facts: &ModelFacts| Recipe::new(&asking(cfg), facts).expect("in range");
        let (off, on) = (facts(CfgStart::Negative, None), facts(CfgStart::Negative, Some(4.0)));
        let turbo = facts(CfgStart::Positive, None);
        for (facts, asked, held, is_on) in [
            (&off, None, None, false),
            (&off, Some(1.0), None, false),
            (&off, Some(1.5), Some(1.5), true),
            (&on, None, Some(4.0), true),
            (&on, Some(1.0), Some(1.0), false),
            (&turbo, Some(0.0), None, false),
            (&turbo, Some(0.5), Some(0.5), true),
        ] {
            let recipe = recipe(asked, facts);
            assert_eq!((recipe.cfg, recipe.cfg().is_some()), (held, is_on), "{asked:?}");
            assert_eq!(recipe.negative_prompt.as_deref(), is_on.then_some("fog"));
            // A picture says as much, and is made again with it, whatever the model usually does.
            let said = json!(recipe);
            assert_eq!((said.get("cfg").is_some(), said.get("negative_prompt").is_some()), (held.is_some(), is_on));
            let again = Recipe::of_picture(&said).expect("its own");
            assert_eq!(Recipe::new(&Wanted::from(&again), facts).expect("in range"), recipe);
        }
        assert_eq!(Recipe::new(&Wanted::default(), &on).expect("usual").negative_prompt.as_deref(), Some(" "));
        let normalized = Wanted { cfg_normalization: Some(true), ..asking(Some(3.0)) };
        assert!(!Recipe::new(&normalized, &off).expect("in range").cfg_normalization, "of another rule");
        for wanted in
            [asking(Some(-1.0)), asking(Some(f64::NAN)), Wanted { negative_prompt: Some("\0".into()), ..asking(None) }]
        {
            assert_eq!(Recipe::new(&wanted, &off).expect_err("out of range").exit_code(), 2);
        }
    }

    #[test]
    fn a_side_beyond_the_models_positions_is_refused() {
        let facts = ModelFacts { most_side_px: 8192, ..ModelFacts::of(1024) };
        let of = |px| Recipe::new(&Wanted { width: Some(px), ..Wanted::default() }, &facts);
        assert!(of(8192).is_ok());
        assert!(of(8193).expect_err("too wide").to_string().contains("width 8193"));
    }

    #[test]
    fn more_text_than_the_model_reads_is_refused() {
        let of = |tokens, most_text_tokens| {
            let facts = ModelFacts { most_text_tokens, ..ModelFacts::of(1024) };
            Recipe::new(&Wanted { max_sequence_length: Some(tokens), ..Wanted::default() }, &facts)
        };
        assert!(of(1024, 1024).is_ok());
        assert!(of(513, 512).expect_err("too much").to_string().contains("--max-sequence-length 513"));
    }

    #[test]
    fn what_the_text_for_other_tools_says_is_read_as_it_was_written() {
        let usual = Recipe::draft(&Wanted::default()).expect("the usual");
        for label in crate::methods::Label::all() {
            for guidance in [Some(0.1 + 0.2), Some(-1e6), Some(4.0), None] {
                let (method, dype) = (label.method, label.dype);
                let wanted = Wanted {
                    method: Some(method),
                    dype: Some(dype),
                    seed: Some(u64::MAX),
                    width: Some(16),
                    ..Wanted::default()
                };
                let recipe = Recipe { guidance, ..Recipe::draft(&wanted).expect("in range") };
                let wanted = from_text(&recipe).expect("its own");
                // Each entry that is written is read, and gives what is written again.
                let again = Recipe::draft(&wanted).expect("in range");
                let again = Recipe { guidance: again.guidance.filter(|_| guidance.is_some()), ..again };
                assert_eq!(again.parameters(), recipe.parameters());
                assert_eq!((again.seed, again.width, again.height), (u64::MAX, 16, 4096));
                assert_eq!((again.method, again.dype, again.guidance), (method, dype, guidance));
                assert_eq!(wanted.unsaid().contains(&"guidance"), guidance.is_none());
                let unsaid = wanted.unsaid().into_iter().filter(|key| !["guidance", "toy_strength"].contains(key));
                assert_eq!(unsaid.count(), 0, "all is said: {:?}", wanted.unsaid());
            }
        }
        let tuned = Recipe {
            base_resolution: 256,
            mu: Mu::Value(1.25),
            max_sequence_length: 24,
            dype_scale: Some(0.1 + 0.2),
            dype_exponent: Some(1.5),
            dype_thresholds: Thresholds::Power,
            text_anchor: true,
            ..usual.clone()
        };
        assert_eq!(Recipe::draft(&from_text(&tuned).expect("its own")).expect("in range"), tuned);
        // What is off is 1 to other programs; a scale of 1 is told apart, since not every model counts it as off.
        for (cfg, says) in [(None, "1"), (Some(1.0), "1.0"), (Some(4.0), "4.0"), (Some(2.5), "2.5")] {
            let led = Recipe { cfg, cfg_normalization: cfg.is_some(), ..usual.clone() };
            assert!(led.parameters().contains(&(25, "CFG scale", says.to_owned())));
            let wanted = from_text(&led).expect("its own");
            assert_eq!((wanted.cfg, wanted.cfg_normalization), (cfg, cfg.map(|_| true)));
        }
        let on_a_card = Recipe { rng: "torch-cuda:a100".parse().expect("a card"), ..usual };
        assert_eq!(from_text(&on_a_card).expect("its own").rng, Some(crate::recipe::Rng::TorchCudaInUse));
    }

    #[test]
    fn a_text_is_checked_as_flags_are() {
        for (name, text, what) in [
            ("Steps", "many", "Steps is \"many\""),
            ("Steps", "0", "steps is 0"),
            ("Steps", "99999999999999999999", "Steps is \"99999999999999999999\""),
            ("Seed", "-1", "Seed is \"-1\""),
            ("Size", "64", "Size is \"64\""),
            ("Size", "64x", "Size is \"64x\""),
            ("Size", "64x70000", "height is 70000"),
            ("Distilled CFG Scale", "NaN", "guidance is null"),
            ("Distilled CFG Scale", "1e300", "guidance is 1e+300"),
            ("Position", "dy_base", "Position is \"dy_base\""),
            ("RNG", "NV", "RNG is \"NV\""),
            ("Shift mu", "NaN", "Shift mu is \"NaN\""),
            ("Base resolution", "1", "base_resolution is 1"),
            ("Text tokens", "9999", "max_sequence_length is 9999"),
            ("DyPE scale", "-3e9", "dype_scale is -3000000000.0"),
            ("DyPE thresholds", "sum", "DyPE thresholds is \"sum\""),
        ] {
            let error = Wanted::of_parameters("p", |asked| (asked == name).then_some(text)).expect_err(what);
            assert_eq!((error.to_string().as_str(), error.exit_code()), (what, 2));
            assert!(error.hint().is_some(), "{what}");
        }
        let said_nothing = Wanted::of_parameters("p", |_| None).expect("a prompt");
        assert_eq!(said_nothing, Wanted { prompt: Some("p".into()), ..Wanted::default() });
    }

    #[test]
    fn a_strangers_picture_is_checked_as_flags_are() {
        let cases = [
            ("steps", json!(10_000_000_000_000_000_000_u64), "steps is 10000000000000000000"),
            ("steps", json!(0), "steps is 0"),
            ("steps", json!("28"), "steps is \"28\""),
            ("max_sequence_length", json!(1_u64 << 40), "max_sequence_length is 1099511627776"),
            ("base_resolution", json!(0), "base_resolution is 0"),
            ("dype_scale", json!(-3e9), "dype_scale is -3000000000.0"),
            ("height", json!(65_537), "height is 65537"),
            ("width", json!(-1), "width is -1"),
            ("seed", json!(null), "seed is null"),
            ("method", json!("yam"), "method is \"yam\""),
            ("mu", json!("NaN"), "mu is \"NaN\""),
            ("mu", json!(1.15), "mu is 1.15"),
            ("rng", json!("dice"), "rng is \"dice\""),
            ("cfg_of_the_future", json!(3), "\"cfg_of_the_future\" is no setting of this version"),
        ];
        for (key, value, what) in cases {
            let mut settings = settings();
            settings[key] = value;
            let error = Recipe::of_picture(&settings).expect_err(what);
            assert_eq!((error.to_string().as_str(), error.exit_code()), (what, 2));
            assert!(error.hint().is_some(), "{what}");
        }
        let mut cut = settings();
        cut.as_object_mut().expect("an object").remove("steps");
        assert_eq!(Recipe::of_picture(&cut).expect_err("cut").to_string(), "steps is missing");
        assert!(Recipe::of_picture(&json!([1])).is_err());
    }

    #[test]
    fn numbers_that_are_none_are_refused_whoever_asks() {
        for wanted in [
            Wanted { guidance: Some(f64::NAN), ..Wanted::default() },
            Wanted { dype_exponent: Some(f64::INFINITY), ..Wanted::default() },
            Wanted { steps: Some(usize::MAX), ..Wanted::default() },
        ] {
            assert_eq!(Recipe::draft(&wanted).expect_err("out of range").exit_code(), 2);
        }
    }
}
