//! The number types a file can be asked for, and the kinds of files that hold them.

use std::{fmt, path::Path, str::FromStr};

use crate::{
    error::{Error, Result},
    weights::{
        BlockType,
        write::{MADE_BLOCKS, Rounding},
    },
};

/// The number type that most of a file's numbers are to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Floats of 16 or 32 bits.
    Float(Rounding),
    /// Floats of 8 bits.
    Fp8 {
        /// Whether each tensor is multiplied by a number that brings its largest to the type's largest, as in ComfyUI's scaled
        /// files; else numbers are rounded as they are.
        is_scaled: bool,
    },
    /// Blocks that share scales.
    Blocks(BlockType),
}

/// The types that are no blocks, by name.
const PLAIN: [(&str, Kind); 5] = [
    ("fp8", Kind::Fp8 { is_scaled: true }),
    ("fp8_e4m3fn", Kind::Fp8 { is_scaled: false }),
    ("bf16", Kind::Float(Rounding::Bf16)),
    ("f16", Kind::Float(Rounding::F16)),
    ("f32", Kind::Float(Rounding::F32)),
];

impl Kind {
    /// Every type, from the smallest but one of its sort on.
    pub fn all() -> impl Iterator<Item = Self> {
        MADE_BLOCKS.map(Self::Blocks).into_iter().chain(PLAIN.map(|(_, kind)| kind))
    }

    /// What llama.cpp calls a file of which most is of this type (`enum llama_ftype`); `None` for what it has not.
    pub fn llama_file_type(self) -> Option<u32> {
        Some(match self {
            Self::Float(Rounding::F32) => 0,
            Self::Float(Rounding::F16) => 1,
            Self::Float(Rounding::Bf16) => 32,
            Self::Float(_) | Self::Fp8 { .. } => return None,
            Self::Blocks(kind) => match kind {
                BlockType::Q4_0 => 2,
                BlockType::Q4_1 => 3,
                BlockType::Q8_0 => 7,
                BlockType::Q5_0 => 8,
                BlockType::Q5_1 => 9,
                BlockType::Q2K => 10,
                BlockType::Q3K => 11,
                BlockType::Q4K => 14,
                BlockType::Q5K => 16,
                BlockType::Q6K => 18,
                BlockType::Iq4Nl => 25,
                BlockType::Iq4Xs => 30,
            },
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, PLAIN.iter().find(|(_, kind)| kind == self)) {
            (_, Some((name, _))) => f.write_str(name),
            (Self::Blocks(kind), None) => f.write_str(&kind.name().to_ascii_lowercase()),
            (_, None) => f.write_str("another type"),
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let asked = text.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        let asked = asked.strip_prefix("torch.").unwrap_or(&asked);
        // As torch, safetensors, ComfyUI and people call them.
        let asked = match asked {
            "float32" | "fp32" | "float" => "f32",
            "float16" | "fp16" | "half" => "f16",
            "bfloat16" => "bf16",
            "fp8_scaled" | "fp8_e4m3fn_scaled" | "float8" | "f8" => "fp8",
            "float8_e4m3fn" | "fp8_e4m3" | "f8_e4m3" | "float8_e4m3" | "e4m3fn" | "e4m3" => "fp8_e4m3fn",
            other => other,
        };
        let names: Vec<String> = Self::all().map(|kind| kind.to_string()).collect();
        let is_begun = |name: &&String| name.strip_prefix(asked).is_some_and(|rest| rest.starts_with('_'));
        let begun: Vec<&str> = names.iter().filter(is_begun).map(String::as_str).collect();
        let named = |name: &str| Self::all().find(|kind| kind.to_string() == name);
        // There is one q8, and there are three of q4.
        match (named(asked), &begun[..]) {
            (Some(kind), _) => Ok(kind),
            (None, [one]) => named(one).ok_or_else(|| instead(asked, &names)),
            (None, []) => Err(instead(asked, &names)),
            (None, several) => Err(format!("{asked} may be {}", several.join(", "))),
        }
    }
}

/// What to take in place of a type that is none of these.
fn instead(asked: &str, names: &[String]) -> String {
    let mixed = asked.strip_suffix("_s").or_else(|| asked.strip_suffix("_m")).or_else(|| asked.strip_suffix("_l"));
    if let Some(plain) = mixed.filter(|plain| names.iter().any(|name| name == plain)) {
        return format!("{asked} mixes several types; {plain} is the one most of it has");
    }
    let nearest = match asked {
        _ if asked.contains("e5m2") => Some("fp8"),
        _ if asked.starts_with("iq4") => Some("q4_k"),
        "int8" | "i8" | "q8_1" | "q8_k" => Some("q8_0"),
        _ if asked.ends_with("4") => Some("q4_k"),
        _ => None,
    };
    let nearest = nearest.map_or_else(String::new, |kind| format!("{asked} is not made; {kind} is nearest to it: "));
    format!("{nearest}one of {} is wanted", names.join(", "))
}

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Blocks and floats.
    Gguf,
    /// Floats, of 8 bits too.
    Safetensors,
}

impl Format {
    /// By the ending of a file's name.
    ///
    /// # Errors
    /// [`Error::Request`] for another ending, and for a type that such files have not.
    pub fn of(output: &Path, kind: Kind) -> Result<Self> {
        let ending = output.extension().and_then(|ending| ending.to_str()).unwrap_or_default().to_ascii_lowercase();
        let format = match ending.as_str() {
            "gguf" => Self::Gguf,
            "safetensors" | "sft" => Self::Safetensors,
            _ => {
                let what = format!("{} ends neither in .gguf nor in .safetensors", output.display());
                return Err(Error::request(what, format!("name it {}", named_after(output, kind))));
            }
        };
        let has = match (format, kind) {
            (_, Kind::Float(_)) => true,
            (Self::Gguf, kind) => matches!(kind, Kind::Blocks(_)),
            (Self::Safetensors, kind) => matches!(kind, Kind::Fp8 { .. }),
        };
        if has {
            return Ok(format);
        }
        let what = format!("a .{ending} file has no numbers of type {kind}");
        let other = if format == Self::Gguf { "q8_0 or bf16" } else { "fp8 or bf16" };
        Err(Error::request(what, format!("name the output {}, or take {other}", named_after(output, kind))))
    }
}

/// The same name with an ending that takes the type.
fn named_after(output: &Path, kind: Kind) -> String {
    let ending = if matches!(kind, Kind::Blocks(_)) { "gguf" } else { "safetensors" };
    output.with_extension(ending).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_go_by_their_names() {
        for kind in Kind::all() {
            assert_eq!(kind.to_string().parse(), Ok(kind));
            assert_eq!(kind.to_string().to_ascii_uppercase().parse(), Ok(kind));
        }
        for (text, name) in [
            ("fp16", "f16"),
            ("torch.bfloat16", "bf16"),
            ("torch.float8_e4m3fn", "fp8_e4m3fn"),
            ("F8_E4M3", "fp8_e4m3fn"),
            ("float8", "fp8"),
            ("Q8-0", "q8_0"),
            (" q8_0 ", "q8_0"),
            ("q8", "q8_0"),
            ("q6", "q6_k"),
        ] {
            assert_eq!(text.parse::<Kind>().map(|kind| kind.to_string()), Ok(name.to_owned()), "{text}");
        }
        for (text, words) in [
            ("q4", "q4_k, q4_1, q4_0"),
            ("iq4_xs", "q4_k is nearest"),
            ("nf4", "q4_k is nearest"),
            ("int8", "q8_0 is nearest"),
            ("fp8_e5m2", "fp8 is nearest"),
            ("", "one of q8_0, q6_k"),
        ] {
            let error = text.parse::<Kind>().expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
        assert!("q4_k_m".parse::<Kind>().expect_err("mixed").contains("q4_k is"));
        assert!("q9".parse::<Kind>().expect_err("unknown").contains("q8_0, q6_k"));
    }

    #[test]
    fn files_take_what_they_can_hold() {
        let of = |name: &str, kind: &str| Format::of(Path::new(name), kind.parse().expect("a type"));
        assert_eq!(of("a.gguf", "q4_k").expect("taken"), Format::Gguf);
        assert_eq!(of("a.GGUF", "bf16").expect("taken"), Format::Gguf);
        assert_eq!(of("a.sft", "fp8").expect("taken"), Format::Safetensors);
        for (name, kind, hint) in
            [("a.gguf", "fp8", "a.safetensors"), ("a.safetensors", "q4_k", "a.gguf"), ("a", "q8_0", "a.gguf")]
        {
            let error = of(name, kind).expect_err("refused");
            assert_eq!(error.exit_code(), 2);
            assert!(error.hint().expect("advice").contains(hint), "{error}");
        }
    }
}
