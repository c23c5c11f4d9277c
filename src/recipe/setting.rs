//! What a declaration of a setting holds, and what follows from it: [`Field`] is a setting as flags, variables, files of
//! prompts, pictures and messages see it, whatever its type.

use serde_json::Value;

use super::{
    ModelFacts, Recipe, Wanted,
    kinds::{Kind, Style},
};

/// Where a setting stands among the flags: under which heading, and which commands take it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What the picture is of.
    Picture,
    /// How large it is and how many steps it takes: what its positions depend on, with or without a model.
    Extent,
    /// Which method extrapolates positions.
    Choice,
    /// How any method is tuned.
    Tuning,
}

/// The flag of a switch that is on unless it is given.
#[derive(Debug, Clone, Copy)]
pub struct Off {
    /// Its name, in snake case; as a key it takes the opposite of the setting's own.
    pub name: &'static str,
    /// Keys of the settings that make no sense beside it.
    pub excludes: &'static [&'static str],
}

/// A line of something that tells people how a picture was made.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// Its place: lines come in the order of their ranks.
    pub rank: u8,
    /// What it is called.
    pub name: &'static str,
    /// What it says of a recipe, when it says anything.
    pub says: fn(&Recipe) -> Option<String>,
}

/// An entry of the text that other tools read: how it is written, and how it is read back.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// How it is written.
    pub line: Line,
    /// Asks for what the text says; `None` where it makes no sense.
    pub reads: fn(&str, &mut Wanted) -> Option<()>,
}

/// Whether a picture says a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saved {
    /// Always, as the first version did of its settings.
    Always,
    /// Only where it is not the usual: pictures from before there was the setting say nothing, and are the same pictures.
    UnlessUsual,
}

/// What people see of a setting.
#[derive(Debug, Clone, Copy)]
pub struct Face {
    /// Where it stands.
    pub group: Group,
    /// What a flag's value is called in help; empty for a switch.
    pub value_name: &'static str,
    /// What help says.
    pub help: &'static str,
    /// How help tells what fills the gap, where that is no value to show.
    pub default: Option<&'static str>,
    /// The flag's letter.
    pub short: Option<char>,
    /// The flag's name where the setting's is too long for it; that is taken too, and its variable goes by it.
    pub long: Option<&'static str>,
    /// Another key of it in files of prompts.
    pub also: Option<&'static str>,
    /// The flag in place of its own, for a switch that is usually on.
    pub off: Option<Off>,
    /// Its line of `dype info`.
    pub info: Option<Line>,
    /// Its entry in the text that other tools read.
    pub parameters: Option<Entry>,
    /// Whether pictures say it.
    pub saved: Saved,
}

impl Face {
    /// A flag with a value and this help, which nothing else tells of.
    pub const fn new(group: Group, value_name: &'static str, help: &'static str) -> Self {
        let (default, short, long, also, off, info, parameters) = (None, None, None, None, None, None, None);
        Self { group, value_name, help, default, short, long, also, off, info, parameters, saved: Saved::Always }
    }
}

/// What fills the gap where nobody asks for a value.
pub enum Fill<W, R> {
    /// A value that is the same for every model.
    Usual {
        /// The value.
        value: fn() -> W,
        /// Whether help shows it as the flag's default; else [`Face::default`] tells it.
        is_shown: bool,
        /// What becomes of the value that is asked for, or the usual one.
        keep: fn(W, &Gaps<'_>) -> R,
    },
    /// The model says it.
    Model(fn(Option<W>, &Gaps<'_>) -> R),
}

/// A usual value that help shows, and that is kept as it is.
pub const fn shown<W>(value: fn() -> W) -> Fill<W, W> {
    Fill::Usual { value, is_shown: true, keep: |value, _| value }
}

/// What the filling of gaps may look at.
pub struct Gaps<'a> {
    /// What is asked for, with the usual in place of what is not.
    pub wanted: &'a Wanted,
    /// What the model says.
    pub facts: &'a ModelFacts,
}

/// A setting: its values are asked for as `W` and recipes hold an `R`, which is `W`, or `Option<W>` where a picture may go
/// without.
pub struct Setting<W: 'static, R: 'static> {
    /// What values it takes.
    pub kind: &'static dyn Kind<W>,
    /// What fills its gap.
    pub fill: Fill<W, R>,
    /// What people see of it.
    pub face: Face,
}

/// What is wrong with a value or a line, and what to do about it.
#[derive(Debug, PartialEq)]
pub struct Problem {
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// A problem.
    pub fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }

    /// The value `found` of a key that takes something else.
    pub fn wrong(key: &str, found: &Value, wanted: &str) -> Self {
        Self::new(format!("{key} is {}", clip(found.to_string())), format!("{key} takes {wanted}"))
    }
}

/// The start of a text that may be long.
pub fn clip(text: String) -> String {
    const SHOWN: usize = 60;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// What a recipe holds of a setting.
pub trait Held<W> {
    /// Whether every picture has a value.
    const IS_ALWAYS_THERE: bool;

    /// The value, if the picture has one.
    fn value(&self) -> Option<&W>;
}

impl<W> Held<W> for W {
    const IS_ALWAYS_THERE: bool = true;

    fn value(&self) -> Option<&W> {
        Some(self)
    }
}

impl<W> Held<W> for Option<W> {
    const IS_ALWAYS_THERE: bool = false;

    fn value(&self) -> Option<&W> {
        self.as_ref()
    }
}

/// A setting under its name.
pub struct Declared<W: 'static, R: 'static> {
    /// Its name: the key of files of prompts and of pictures, and with dashes the flag.
    pub key: &'static str,
    /// The same of its opposite, where it is a switch.
    pub no_key: &'static str,
    /// Its declaration.
    pub setting: Setting<W, R>,
    /// Its place in what is wanted.
    pub wanted: fn(&Wanted) -> &Option<W>,
    /// The same, to be set.
    pub wanted_mut: fn(&mut Wanted) -> &mut Option<W>,
    /// Its place in a recipe.
    pub held: fn(&Recipe) -> &R,
}

impl<W: Clone, R> Declared<W, R> {
    /// The value of a recipe: what is asked for, or what fills the gap.
    pub fn resolve(&self, gaps: &Gaps<'_>) -> R {
        let asked = (self.wanted)(gaps.wanted).clone();
        match &self.setting.fill {
            Fill::Usual { value, keep, .. } => keep(asked.unwrap_or_else(value), gaps),
            Fill::Model(resolve) => resolve(asked, gaps),
        }
    }

    fn usual(&self) -> Option<W> {
        match &self.setting.fill {
            Fill::Usual { value, .. } => Some(value()),
            Fill::Model(_) => None,
        }
    }
}

/// A setting of any type, as everything that follows from its declaration sees it.
pub trait Field: Sync {
    /// The key of files of prompts and of pictures.
    fn key(&self) -> &'static str;
    /// The name of what would be its opposite.
    fn no_key(&self) -> &'static str;
    /// What people see of it.
    fn face(&self) -> &Face;
    /// How its values look on a command line.
    fn style(&self) -> Style;
    /// The usual value as a flag takes it, where help shows it.
    fn shown_default(&self) -> Option<String>;
    /// Whether `wanted` asks for it.
    fn is_set(&self, wanted: &Wanted) -> bool;
    /// Makes `to` ask for the same as `from`.
    fn copy(&self, from: &Wanted, to: &mut Wanted);
    /// Asks for the usual value where there is one and none is asked for.
    fn fill(&self, wanted: &mut Wanted);
    /// Asks for the value that a flag's text gives.
    fn set_text(&self, wanted: &mut Wanted, text: &str) -> Result<(), String>;
    /// Asks for the value that a file of prompts gives under `key`: the setting's own, or that of its [`Off`].
    fn set_json(&self, wanted: &mut Wanted, key: &str, value: &Value) -> Result<(), Problem>;
    /// Asks for the value that a picture says; `None` where it says nothing.
    fn set_saved(&self, wanted: &mut Wanted, value: Option<&Value>) -> Result<(), Problem>;
    /// Whether what is asked for is in range.
    fn check_wanted(&self, wanted: &Wanted) -> Result<(), Problem>;
    /// Whether what a recipe holds is in range.
    fn check_held(&self, recipe: &Recipe) -> Result<(), Problem>;
    /// Whether a recipe holds what is asked for, where anything is.
    fn is_held(&self, wanted: &Wanted, recipe: &Recipe) -> bool;
    /// What a picture says of it: null for a value that the picture goes without, nothing for what need not be said.
    fn saved(&self, recipe: &Recipe) -> Option<Value>;
    /// What makes it the same as another, of what a picture says.
    fn known_by(&self, saved: &Value) -> Value;

    /// The name of its flag, in snake case.
    fn flag(&self) -> &'static str {
        self.face().off.map_or(self.key(), |off| off.name)
    }

    /// The name of the flag that says the opposite, of a switch.
    fn opposite(&self) -> Option<&'static str> {
        let name = if self.face().off.is_some() { self.key() } else { self.no_key() };
        (self.style() == Style::Switch).then_some(name)
    }

    /// Whether one of its flags, this or the opposite of a switch, is such a one.
    fn has_flag(&self, is_such: &dyn Fn(&str) -> bool) -> bool {
        is_such(self.flag()) || self.opposite().is_some_and(is_such)
    }
}

impl<W: Clone + PartialEq, R: Held<W>> Field for Declared<W, R> {
    fn key(&self) -> &'static str {
        self.key
    }

    fn no_key(&self) -> &'static str {
        self.no_key
    }

    fn face(&self) -> &Face {
        &self.setting.face
    }

    fn style(&self) -> Style {
        self.setting.kind.style()
    }

    fn shown_default(&self) -> Option<String> {
        match &self.setting.fill {
            Fill::Usual { value, is_shown: true, .. } => Some(text(&self.setting.kind.to_json(&value()))),
            _ => None,
        }
    }

    fn is_set(&self, wanted: &Wanted) -> bool {
        (self.wanted)(wanted).is_some()
    }

    fn copy(&self, from: &Wanted, to: &mut Wanted) {
        (self.wanted_mut)(to).clone_from((self.wanted)(from));
    }

    fn fill(&self, wanted: &mut Wanted) {
        let place = (self.wanted_mut)(wanted);
        if place.is_none() {
            *place = self.usual();
        }
    }

    fn set_text(&self, wanted: &mut Wanted, text: &str) -> Result<(), String> {
        *(self.wanted_mut)(wanted) = Some(self.setting.kind.parse(text)?);
        Ok(())
    }

    fn set_json(&self, wanted: &mut Wanted, key: &str, value: &Value) -> Result<(), Problem> {
        let kind = self.setting.kind;
        let is_off = self.face().off.is_some_and(|off| off.name == key);
        let opposite = value.as_bool().filter(|_| is_off).map(|on| Value::from(!on));
        let read = kind.read_json(opposite.as_ref().unwrap_or(value)).ok_or_else(|| {
            let problem = Problem::wrong(key, value, &kind.wanted());
            Problem { hint: kind.hint(value).unwrap_or(problem.hint), ..problem }
        })?;
        *(self.wanted_mut)(wanted) = Some(read);
        Ok(())
    }

    fn set_saved(&self, wanted: &mut Wanted, value: Option<&Value>) -> Result<(), Problem> {
        let kind = self.setting.kind;
        let is_needed = R::IS_ALWAYS_THERE && self.face().saved == Saved::Always;
        let read = match value {
            None if is_needed => {
                return Err(Problem::new(format!("{} is missing", self.key), format!("it is {}", kind.wanted())));
            }
            None => None,
            Some(Value::Null) if !R::IS_ALWAYS_THERE => None,
            Some(value) => Some(kind.read_saved(value).ok_or_else(|| Problem::wrong(self.key, value, &kind.wanted()))?),
        };
        *(self.wanted_mut)(wanted) = read;
        Ok(())
    }

    fn check_wanted(&self, wanted: &Wanted) -> Result<(), Problem> {
        self.check((self.wanted)(wanted).as_ref())
    }

    fn check_held(&self, recipe: &Recipe) -> Result<(), Problem> {
        self.check((self.held)(recipe).value())
    }

    fn is_held(&self, wanted: &Wanted, recipe: &Recipe) -> bool {
        let asked = (self.wanted)(wanted).as_ref();
        asked.is_none() || asked == (self.held)(recipe).value()
    }

    fn known_by(&self, saved: &Value) -> Value {
        self.setting.kind.known_by(saved)
    }

    fn saved(&self, recipe: &Recipe) -> Option<Value> {
        let value = (self.held)(recipe).value();
        let json = || value.map_or(Value::Null, |value| self.setting.kind.to_json(value));
        match self.face().saved {
            Saved::Always => Some(json()),
            Saved::UnlessUsual => (value != self.usual().as_ref() && value.is_some()).then(json),
        }
    }
}

impl<W, R> Declared<W, R> {
    fn check(&self, value: Option<&W>) -> Result<(), Problem> {
        let kind = self.setting.kind;
        match value.filter(|value| !kind.admits(value)) {
            Some(value) => Err(Problem::wrong(self.key, &kind.to_json(value), &kind.wanted())),
            None => Ok(()),
        }
    }
}

/// A value's JSON as a flag takes it: a text without its quotes.
pub fn text(json: &Value) -> String {
    json.as_str().map_or_else(|| json.to_string(), str::to_owned)
}
