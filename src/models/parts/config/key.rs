//! One key of a config.

use serde_json::Value;

/// A key that the reference knows: its name, its default there, and its role here.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// What the reference takes where a file says nothing, as JSON.
    pub(crate) default: &'static str,
    role: Role,
}

/// What becomes of a key.
#[derive(Debug)]
enum Role {
    /// It is computed with; values are of this one's kind, where they are not null.
    Computed(&'static str),
    /// Only these values are computed, in JSON; others are refused.
    OneOf(&'static [&'static str]),
    /// A list in which only this text may stand.
    Each(&'static str),
    /// It changes nothing of a picture.
    Idle,
    /// The reference takes it for this key, whose values are of this one's kind.
    OtherName(&'static str, &'static str),
}

/// A key that is computed with, in values of the kind of its default.
pub(crate) const fn computed(name: &'static str, default: &'static str) -> Key {
    Key { name, default, role: Role::Computed(default) }
}

/// A key that is computed with and may be null; values are of the kind of `like`.
pub(crate) const fn optional(name: &'static str, like: &'static str) -> Key {
    Key { name, default: "null", role: Role::Computed(like) }
}

/// A key of which only these values are computed.
pub(crate) const fn one_of(name: &'static str, default: &'static str, known: &'static [&'static str]) -> Key {
    Key { name, default, role: Role::OneOf(known) }
}

/// A list in which only this text may stand.
pub(crate) const fn each(name: &'static str, default: &'static str, known: &'static str) -> Key {
    Key { name, default, role: Role::Each(known) }
}

/// A key that changes nothing of a picture.
pub(crate) const fn idle(name: &'static str, default: &'static str) -> Key {
    Key { name, default, role: Role::Idle }
}

/// Another name of a key, which the reference takes for it.
pub(crate) const fn other_name(name: &'static str, key: &'static str, like: &'static str) -> Key {
    Key { name, default: "null", role: Role::OtherName(key, like) }
}

impl Key {
    /// Whether it is computed with and has a default.
    pub(super) fn is_filled(&self) -> bool {
        matches!(self.role, Role::Computed(default) if default == self.default)
    }

    /// Whether it changes nothing.
    #[cfg(test)]
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.role, Role::Idle)
    }

    /// The key it is another name of.
    pub(super) fn stands_for(&self) -> Option<&'static str> {
        match self.role {
            Role::OtherName(key, _) => Some(key),
            _ => None,
        }
    }

    /// Its value, of what a file says.
    ///
    /// # Errors
    /// In words, what it is and what was expected.
    pub(super) fn resolve(&self, said: Option<&Value>) -> Result<Value, String> {
        let default = json(self.default);
        let value = match said {
            // As in the reference, where null is no.
            Some(Value::Null) if default.is_boolean() => Value::Bool(false),
            None | Some(Value::Null) => default,
            Some(value) => value.clone(),
        };
        match self.role {
            Role::Computed(like) if value.is_null() || is_like(&value, &json(like)) => Ok(value),
            Role::Computed(like) | Role::OtherName(_, like) if !is_like(&value, &json(like)) => {
                Err(format!("{} is {value}, expected {}", self.name, kind_of(&json(like))))
            }
            Role::OneOf(known) if !known.iter().any(|known| is_same(&json(known), &value)) => {
                Err(format!("{} {value} is not supported, only {} is", self.name, known.join(" or ")))
            }
            Role::Each(_) if value.is_null() => Ok(value),
            Role::Each(known) => self.each(value, known),
            _ => Ok(value),
        }
    }

    fn each(&self, value: Value, known: &str) -> Result<Value, String> {
        let Some(list) = value.as_array() else {
            return Err(format!("{} is {value}, expected a list of \"{known}\"", self.name));
        };
        match list.iter().find(|kind| kind.as_str() != Some(known)) {
            Some(odd) => Err(format!("{}: {odd} is not supported, only \"{known}\" is", self.name)),
            None => Ok(value),
        }
    }
}

/// JSON of a table; each of them is read by a test.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

/// Equal, whichever way a number is written.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// Whether a value is of the kind of another: a whole number, a number, a text, yes or no, or a list of such. A list of
/// several is of this length.
fn is_like(value: &Value, like: &Value) -> bool {
    match like {
        Value::Number(number) if number.is_u64() => value.is_u64(),
        Value::Number(_) => value.is_number(),
        Value::Bool(_) => value.is_boolean(),
        Value::String(_) => value.is_string(),
        Value::Array(list) => value.as_array().is_some_and(|values| {
            let fits = list.len() == 1 || values.len() == list.len();
            fits && list.first().is_some_and(|like| values.iter().all(|value| is_like(value, like)))
        }),
        _ => true,
    }
}

fn kind_of(like: &Value) -> String {
    match like {
        Value::Number(number) if number.is_u64() => format!("a whole number such as {like}"),
        Value::Number(_) => format!("a number such as {like}"),
        Value::Bool(_) => "true or false".into(),
        Value::String(_) => format!("a text such as {like}"),
        _ => format!("a list such as {like}"),
    }
}
