//! Which tensors the file gets, each with how its numbers are stored. Only headers are looked at.

use std::collections::BTreeSet;

use candle_core::DType;

use super::{Format, Kind};
use crate::{
    base::shown::shown,
    error::{Error, Result},
    models::{Composed, Exchange},
    weights::{
        MADE_FOR, TensorSource,
        lora::Adapter,
        scales,
        write::{Container, Key, Outline, Rounding},
    },
};

/// Tensors of so few numbers are never rounded. Source: city96/ComfyUI-GGUF, `tools/convert.py`.
const FEW: usize = 1024;
/// Names that a remark shows.
const SHOWN: usize = 3;

/// A file that is to be written.
pub struct Plan {
    /// What it says beside its tensors.
    pub container: Container,
    /// Its tensors, in their order.
    pub tensors: Vec<(Outline, Made)>,
    /// What there is to tell.
    pub remarks: Vec<String>,
    /// Its size.
    pub bytes: u64,
}

/// What a tensor of the file is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// Rows of the network's own tensors.
    Of(Composed),
    /// The same, divided by a number of its own.
    Scaled(Composed),
    /// The number that the tensor before it was divided by.
    Scale,
    /// Nothing but zeros: it marks the file.
    Mark,
}

impl Plan {
    /// `name` is what the file is said to be of.
    ///
    /// # Errors
    /// [`Error::Request`] for a part that no file of this kind holds; [`Error::Model`] for a bias that is added to a layer without.
    pub fn new(exchange: &Exchange, source: &dyn TensorSource, kind: Kind, format: Format, name: &str) -> Result<Self> {
        check_biases(exchange, source)?;
        let (composed, left) = match format {
            Format::Safetensors => (exchange.as_stored()?, Vec::new()),
            Format::Gguf => {
                let no_gguf = || {
                    let what = format!("no program reads the {} as GGUF", exchange.network.part);
                    Error::request(what, "name the output .safetensors, with --type fp8, bf16, f16 or f32")
                };
                exchange.as_gguf(exchange.gguf.as_ref().ok_or_else(no_gguf)?)?
            }
        };
        let mut remarks = Vec::new();
        remarks.extend(told("not written, for such files have no place for them", &left));
        let rule = Rule { exchange, source, kind, format };
        let mut tensors = Vec::with_capacity(composed.len());
        let mut uneven = Vec::new();
        for tensor in composed {
            let rounding = rule.rounding(&tensor, &mut uneven);
            rule.add(tensor, rounding, &mut tensors);
        }
        if tensors.iter().any(|(_, made)| *made == Made::Scale) {
            // Of two numbers, where products are not to be computed in 8 bits.
            let outline = Outline { name: scales::MARK.to_owned(), shape: vec![2], rounding: Rounding::E4M3 };
            tensors.push((outline, Made::Mark));
        }
        if let Kind::Blocks(blocks) = kind {
            let what = format!("kept, for their rows are no multiple of {}", blocks.numbers());
            remarks.extend(told(&what, &uneven));
        }
        remarks.extend(rule.lost_twice(&tensors));
        let container = rule.container(name);
        let outlines: Vec<Outline> = tensors.iter().map(|(outline, _)| outline.clone()).collect();
        let bytes = container.file_bytes(&outlines)?;
        Ok(Self { container, tensors, remarks, bytes })
    }
}

/// "kept, for ..: 7 tensors (a, b, c and 4 more)"
fn told(what: &str, names: &[String]) -> Option<String> {
    let count = match names.len() {
        0 => return None,
        1 => "1 tensor".to_owned(),
        count => format!("{count} tensors"),
    };
    Some(format!("{what}: {count} ({})", shown(names, SHOWN)))
}

/// A LoRA may add a bias to a layer without one; a file has no place for it.
fn check_biases(exchange: &Exchange, source: &dyn TensorSource) -> Result<()> {
    let is_added = |layer: &&str| source.adapters(layer).iter().any(|Adapter { bias, .. }| bias.is_some());
    let has = |layer: &&str| source.shape(&format!("{layer}.bias")).is_some();
    let mut layers = exchange.network.layers.iter().map(|layer| layer.name.as_str());
    match layers.find(|layer| is_added(layer) && !has(layer)) {
        None => Ok(()),
        Some(layer) => {
            let what = format!("a LoRA adds a bias to {layer}, which has none: no file of this model holds one");
            Err(Error::model(what, "leave the LoRA away, and give it with --lora when pictures are made"))
        }
    }
}

/// How tensors are stored.
struct Rule<'a> {
    exchange: &'a Exchange,
    source: &'a dyn TensorSource,
    kind: Kind,
    format: Format,
}

impl Rule<'_> {
    fn rounding(&self, tensor: &Composed, uneven: &mut Vec<String>) -> Rounding {
        let count: usize = tensor.shape.iter().product();
        let columns = tensor.shape.last().copied().unwrap_or(1);
        let is_vector = columns == count;
        let is_gguf = self.format == Format::Gguf;
        if is_gguf && (is_vector || count <= FEW) {
            return Rounding::F32;
        }
        match self.kind {
            Kind::Float(rounding) => rounding,
            _ if is_vector || count <= FEW || tensor.shape.len() != 2 => self.kept(tensor),
            _ if is_one_of(tensor, self.exchange.kept) => self.kept(tensor),
            Kind::Fp8 { .. } if is_one_of(tensor, self.exchange.tables) => self.kept(tensor),
            Kind::Fp8 { .. } => Rounding::E4M3,
            Kind::Blocks(blocks) if Rounding::Blocks(blocks).takes_rows_of(columns) => Rounding::Blocks(blocks),
            Kind::Blocks(_) => {
                uneven.push(tensor.name.clone());
                self.kept(tensor)
            }
        }
    }

    /// The type a tensor has, where it is kept: of 16 bits as it is stored, or where it is stored in fewer; else of 32.
    fn kept(&self, tensor: &Composed) -> Rounding {
        let types: BTreeSet<String> = tensor.rows.iter().filter_map(|(name, _)| self.source.type_name(name)).collect();
        let dtypes: Vec<_> = tensor.rows.iter().map(|(name, _)| self.source.file_dtype(name)).collect();
        if dtypes.iter().all(|dtype| *dtype == Some(DType::BF16)) {
            return Rounding::Bf16;
        }
        let is_short = |name: &String| is_few_bits(name) || name == "F16";
        if !types.is_empty() && types.iter().all(is_short) { Rounding::F16 } else { Rounding::F32 }
    }

    /// A tensor, and the scale behind it where it has one.
    fn add(&self, tensor: Composed, rounding: Rounding, tensors: &mut Vec<(Outline, Made)>) {
        let outline = Outline { name: tensor.name.clone(), shape: tensor.shape.clone(), rounding };
        let stem = tensor.name.strip_suffix(".weight").map(str::to_owned);
        let is_scaled = self.kind == Kind::Fp8 { is_scaled: true } && rounding == Rounding::E4M3;
        let Some(stem) = stem.filter(|_| is_scaled) else {
            tensors.push((outline, Made::Of(tensor)));
            return;
        };
        tensors.push((outline, Made::Scaled(tensor)));
        let name = format!("{stem}{}", scales::OF_WEIGHTS[0]);
        tensors.push((Outline { name, shape: Vec::new(), rounding: Rounding::F32 }, Made::Scale));
    }

    /// What of the numbers was lost before.
    fn lost_twice(&self, tensors: &[(Outline, Made)]) -> Option<String> {
        let mut before = BTreeSet::new();
        for (outline, made) in tensors {
            let (Made::Of(tensor) | Made::Scaled(tensor)) = made else { continue };
            let types = tensor.rows.iter().filter_map(|(name, _)| self.source.type_name(name));
            before.extend(types.filter(|name| is_few_bits(name) && *name != outline.rounding.to_string()));
        }
        let before: Vec<String> = before.into_iter().collect();
        if before.is_empty() {
            return None;
        }
        let before = before.join(" and ");
        Some(match self.kind {
            Kind::Float(_) => {
                format!("the model is in {before} already: what that lost does not come back in {}", self.kind)
            }
            _ => format!(
                "the model is in {before} already: {} rounds it a second time; from the model in bf16 less is lost",
                self.kind
            ),
        })
    }

    fn container(&self, name: &str) -> Container {
        let said = format!("{name} in {}, written by dype {}", self.kind, env!("CARGO_PKG_VERSION"));
        let (Format::Gguf, Some(names)) = (self.format, &self.exchange.gguf) else {
            let texts = [("format".to_owned(), "pt".to_owned()), ("dype".to_owned(), said)];
            return Container::Safetensors(texts.into());
        };
        let mut keys = vec![
            (MADE_FOR.to_owned(), Key::Text(names.architecture.to_owned())),
            // Source: ggml-org/llama.cpp, GGML_QNT_VERSION.
            ("general.quantization_version".to_owned(), Key::Count(2)),
            ("general.description".to_owned(), Key::Text(said)),
        ];
        let file_type = self.kind.llama_file_type();
        keys.extend(file_type.map(|number| ("general.file_type".to_owned(), Key::Count(number))));
        keys.extend(names.keys.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        Container::Gguf(keys)
    }
}

/// Whether numbers of this type have been rounded to 8 bits or fewer.
fn is_few_bits(type_name: &str) -> bool {
    !matches!(type_name, "F64" | "F32" | "BF16" | "F16")
}

/// Whether the names of all it is made of begin so.
fn is_one_of(tensor: &Composed, beginnings: &[&str]) -> bool {
    tensor.rows.iter().all(|(name, _)| beginnings.iter().any(|beginning| name.starts_with(beginning)))
}
