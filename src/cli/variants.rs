//! The list of `dype compare --methods`: methods, and whatever else is to differ from picture to picture.
//!
//! An entry is a method and settings, with ":" between: `dy_yarn`, `dy_yarn:scaling=longest`, `text-anchor` (of the usual method).
//! Settings are those of the flags, under their names. What begins with neither a method nor a setting goes on with the value
//! before it, so that values may hold "," and ":" too.

use crate::{
    methods::Label,
    recipe::{FIELDS, Field, Group, Style, Wanted},
};

/// What is compared, in the order of its columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants(pub Vec<Variant>);

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// As it was asked for.
    pub text: String,
    /// What it asks for.
    pub wanted: Wanted,
}

/// Reads a list.
///
/// # Errors
/// In words, what makes no sense.
pub fn parse(text: &str) -> Result<Variants, String> {
    let goes_on = |entry: &str, piece: &str| is_open(entry) && !begins(first(piece));
    let entries = parts(text, ',', goes_on);
    entries.iter().map(|entry| variant(entry)).collect::<Result<_, _>>().map(Variants)
}

/// The pieces between separators; a piece that `goes_on` with what stands before it is joined to it again.
fn parts(text: &str, separator: char, goes_on: impl Fn(&str, &str) -> bool) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for piece in text.split(separator) {
        match parts.last_mut() {
            Some(last) if goes_on(last, piece) => {
                last.push(separator);
                last.push_str(piece);
            }
            _ => parts.push(piece.to_owned()),
        }
    }
    parts
}

/// Whether an entry ends in a value that could go on.
fn is_open(entry: &str) -> bool {
    entry.contains('=')
}

/// The first part of an entry.
fn first(entry: &str) -> &str {
    entry.split_once(':').map_or(entry, |(first, _)| first)
}

/// Whether a method or a setting begins here.
fn begins(piece: &str) -> bool {
    piece.parse::<Label>().is_ok() || setting(piece).is_some()
}

/// The setting that is named before "=", or alone.
fn setting(piece: &str) -> Option<&'static dyn Field> {
    let name = piece.split_once('=').map_or(piece, |(name, _)| name).trim().replace('-', "_");
    FIELDS.iter().copied().find(|field| [Some(field.key()), field.face().also].contains(&Some(name.as_str())))
}

fn variant(entry: &str) -> Result<Variant, String> {
    let mut variant = Variant { text: entry.trim().to_owned(), wanted: Wanted::default() };
    let parts = parts(entry, ':', |before, piece| is_open(before) && !begins(piece));
    let mut settings = parts.as_slice();
    match first(entry).parse::<Label>() {
        Ok(label) => {
            (variant.wanted.method, variant.wanted.dype) = (Some(label.method), Some(label.dype));
            settings = &parts[1..];
        }
        Err(_) if setting(first(entry)).is_some() => {}
        Err(error) => {
            let what = format!("{:?} is no method and no setting", variant.text);
            return Err(format!("{what}: {error}; settings are named as their flags are"));
        }
    }
    for (field, values) in asked(settings)? {
        field
            .set_text(&mut variant.wanted, &values.join("\n"))
            .map_err(|what| format!("{}={}: {what}", field.key(), values.join(", ")))?;
    }
    Ok(variant)
}

/// A setting and the texts of its values; only what may be given several times has more than one.
type Asked<'a> = (&'static dyn Field, Vec<&'a str>);

/// The settings of an entry.
fn asked(parts: &[String]) -> Result<Vec<Asked<'_>>, String> {
    let mut asked: Vec<Asked<'_>> = Vec::new();
    for part in parts {
        let (field, value) = ask(part)?;
        match asked.iter_mut().find(|(known, _)| known.key() == field.key()) {
            Some((known, values)) if known.style() == Style::Many => values.push(value),
            Some(_) => return Err(format!("{} is there twice", field.key())),
            None => asked.push((field, vec![value])),
        }
    }
    Ok(asked)
}

/// The setting of `name=value`, or of a switch's name alone, and the text of its value.
fn ask(part: &str) -> Result<(&'static dyn Field, &str), String> {
    let Some(field) = setting(part) else {
        let what = format!("{:?} is no setting", part.trim());
        return Err(format!("{what}: settings are named as their flags are, such as scaling=longest"));
    };
    if field.face().group == Group::Choice {
        let what = format!("{} has no place here", field.key());
        return Err(format!("{what}: an entry begins with the method itself, such as dy_yarn or yarn"));
    }
    match (part.split_once('='), field.style()) {
        (Some((_, value)), _) => Ok((field, value.trim())),
        (None, Style::Switch) => Ok((field, "true")),
        (None, _) => Err(format!("{0} wants a value: {0}=...", field.key())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        methods::{Amplitude, Method, Scaling},
        recipe::Mu,
    };

    fn read(text: &str) -> Vec<Variant> {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).0
    }

    #[test]
    fn entries_are_methods_and_any_settings() {
        let found =
            read("base, dy_yarn:scaling=longest:amplitude=fading,text-anchor,yarn:text_anchor:steps=4:mu=-1.5,seed=7");
        assert_eq!(
            found.iter().map(|one| one.text.as_str()).collect::<Vec<_>>(),
            [
                "base",
                "dy_yarn:scaling=longest:amplitude=fading",
                "text-anchor",
                "yarn:text_anchor:steps=4:mu=-1.5",
                "seed=7"
            ]
        );
        let of = |method, dype| Wanted { method: Some(method), dype: Some(dype), ..Wanted::default() };
        let longest =
            Wanted { scaling: Some(Scaling::Longest), amplitude: Some(Amplitude::Fading), ..of(Method::YARN, true) };
        let anchored = Wanted { text_anchor: Some(true), ..Wanted::default() };
        let few =
            Wanted { text_anchor: Some(true), steps: Some(4), mu: Some(Mu::Value(-1.5)), ..of(Method::YARN, false) };
        let seeded = Wanted { seed: Some(7), ..Wanted::default() };
        let expected = [of(Method::BASE, false), longest, anchored, few, seeded];
        assert_eq!(found.into_iter().map(|one| one.wanted).collect::<Vec<_>>(), expected);
    }

    /// A setting that compare knows nothing of.
    #[test]
    fn settings_to_come_are_known_by_their_declaration() {
        let found = read("base:toy-strength=2,toy_strength=0.5");
        assert_eq!([found[0].wanted.toy_strength, found[1].wanted.toy_strength], [Some(2.0), Some(0.5)]);
    }

    #[test]
    fn values_may_hold_what_parts_a_list() {
        let found = read(
            "base:prompt=a fox, in snow: dawn,dy_yarn:lora=a.safetensors:0.5:scaling=longest,lora=b.safetensors:1",
        );
        assert_eq!(found[0].wanted.prompt.as_deref(), Some("a fox, in snow: dawn"));
        assert_eq!(found[1].wanted.scaling, Some(Scaling::Longest));
        assert_eq!(found[2].wanted.lora.as_ref().map(ToString::to_string).as_deref(), Some("b.safetensors:1"));
        assert_eq!(found.len(), 3);
        let both = &read("lora=a.safetensors:0.5:lora=b.safetensors:1")[0];
        let both = both.wanted.lora.as_ref().map(ToString::to_string);
        assert_eq!(both.as_deref(), Some("a.safetensors:0.5\nb.safetensors:1"));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, words) in [
            ("base,yarm", &["\"yarm\" is no method and no setting", "dy_yarn"][..]),
            ("", &["\"\" is no method", "base, ntk"]),
            ("base,", &["no method"]),
            ("base:", &["\"\" is no setting"]),
            ("base:scaling", &["scaling wants a value"]),
            ("base:scaling=wide", &["scaling=wide", "longest"]),
            ("yarn:scaling=longest,yarm", &["longest,yarm", "one of axis, longest, mixed"]),
            ("yarn:method=ntk", &["method has no place here"]),
            ("yarn:no-dype", &["\"no-dype\" is no setting"]),
            ("yarn:scaling=axis:scaling=longest", &["scaling is there twice"]),
            ("dy_yarn:dype-scale=-1", &["dype_scale=-1", "0 or more"]),
            ("base:later=1", &["\"later=1\" is no setting"]),
        ] {
            let error = parse(text).expect_err(text);
            assert!(words.iter().all(|word| error.contains(word)), "{text}: {error}");
        }
    }
}
