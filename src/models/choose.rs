//! Which of several files is to be a part: one that holds it and fits, under a usual name where there is one, rounded the least.

use std::{
    cmp::Reverse,
    path::{Path, PathBuf},
    sync::Arc,
};

use candle_core::DType;

use super::{PartSpec, Place, parts::open, strangers::check_not_quantized};
use crate::{
    base::shown::shown,
    error::Result,
    weights::{Files, TensorSource},
};

/// How the tensors of a whole checkpoint's transformer begin: such a file is a model of its own and lends no part.
const OF_A_CHECKPOINT: &str = "model.diffusion_model.";
/// Most files that a remark names.
const MOST_NAMED: usize = 4;

/// What became of a search among some files.
#[derive(Default)]
pub(super) struct Choice {
    /// The part.
    pub(super) place: Option<(Place, PathBuf)>,
    /// What was chosen from, in words; nothing where there was no choice.
    pub(super) remark: Option<String>,
    /// Files that are the part of another model, each with the reason.
    pub(super) passed_over: Vec<String>,
    /// A file that is called as the part is and cannot be read.
    pub(super) unreadable: Option<PathBuf>,
}

/// A file or folder that holds the part and fits.
struct Candidate {
    path: PathBuf,
    place: Place,
    /// Which of the usual names it has.
    usual: Option<usize>,
    /// Bits of a number that say something, on average.
    bits: f64,
    /// The number type of most of it.
    kind: String,
}

/// Looks through the headers of `paths` for the part that goes with `denoiser`.
pub(super) fn choose(
    part: &PartSpec,
    paths: impl IntoIterator<Item = PathBuf>,
    denoiser: &Arc<dyn TensorSource>,
    files: &Files,
) -> Choice {
    let (mut choice, mut candidates) = (Choice::default(), Vec::new());
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let usual = part.usual_name(name);
        match candidate(part, &path, denoiser, files) {
            Ok(Ok((place, source))) => {
                let (bits, kind) = precision(&*source);
                candidates.push(Candidate { path, place, usual, bits, kind });
            }
            Ok(Err(Some(reason))) => choice.passed_over.push(format!("{} ({reason})", path.display())),
            Ok(Err(None)) => {}
            Err(error) if usual.is_some() => {
                choice.passed_over.push(error.to_string());
                choice.unreadable.get_or_insert(path);
            }
            // Something else, under a name that says nothing.
            Err(_) => {}
        }
    }
    candidates.sort_by(|a, b| order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal));
    choice.remark = remark(part, &candidates);
    choice.place = candidates.into_iter().next().map(|first| (first.place, first.path));
    choice
}

/// Usual names first, among them the least rounded.
fn order(candidate: &Candidate) -> (bool, Reverse<Bits>, Option<usize>, &Path) {
    (candidate.usual.is_none(), Reverse(Bits(candidate.bits)), candidate.usual, &candidate.path)
}

/// Bits that are compared.
#[derive(PartialEq, PartialOrd)]
struct Bits(f64);

/// What a file or folder is, where it holds the part and fits; else why it does not, `None` where it is something else.
type Looked = std::result::Result<(Place, Arc<dyn TensorSource>), Option<String>>;

fn candidate(part: &PartSpec, path: &Path, denoiser: &Arc<dyn TensorSource>, files: &Files) -> Result<Looked> {
    let place = if files.is_dir(path) { Place::Folder(path.into()) } else { path.to_path_buf().into() };
    let source = open::tensors_at(&place, files)?;
    if !(part.is_inside)(&source) || source.names().iter().any(|name| name.starts_with(OF_A_CHECKPOINT)) {
        return Ok(Err(None));
    }
    check_not_quantized(&*source)?;
    Ok(match (part.fits)(&source, denoiser) {
        Ok(()) => Ok((place, source)),
        Err(reason) => Err(Some(reason)),
    })
}

/// The bits that say something of a number, on average, and the type most numbers have.
fn precision(source: &dyn TensorSource) -> (f64, String) {
    let (mut numbers, mut bits, mut most) = (0.0, 0.0, (0.0, String::new()));
    for name in source.names() {
        let count = source.shape(&name).unwrap_or_default().iter().product::<usize>() as f64;
        let stored = source.bytes(&name).map_or(0.0, |bytes| 8.0 * bytes as f64 / count.max(1.0));
        let dtype = source.file_dtype(&name);
        numbers += count;
        bits += count * significant(dtype, stored);
        if count > most.0 {
            let plain = dtype.filter(|dtype| 8.0 * dtype.size_in_bytes() as f64 == stored);
            let name = plain.map(|dtype| dtype.as_str().to_owned()).or_else(|| source.type_name(&name));
            most = (count, name.unwrap_or_default());
        }
    }
    (bits / f64::max(numbers, 1.0), most.1)
}

/// Bits of the significand, the leading one included; of numbers in blocks with a common scale all but the sign.
fn significant(dtype: Option<DType>, stored_bits: f64) -> f64 {
    match dtype {
        Some(DType::F64) => 53.0,
        Some(DType::F32) if stored_bits >= 32.0 => 24.0,
        Some(DType::F16) if stored_bits >= 16.0 => 11.0,
        Some(DType::BF16) if stored_bits >= 16.0 => 8.0,
        Some(DType::F8E4M3) => 4.0,
        // Whole bytes without a common scale are e5m2, which no type here is called.
        _ if stored_bits == 8.0 => 3.0,
        _ => stored_bits - 1.0,
    }
}

/// "text_encoder_2 is A (f16), the least rounded of 2 that fit; the other: B (bf16)"
fn remark(part: &PartSpec, candidates: &[Candidate]) -> Option<String> {
    let (first, others) = candidates.split_first().filter(|(_, others)| !others.is_empty())?;
    let named: Vec<String> = others.iter().map(|one| format!("{} ({})", one.path.display(), one.kind)).collect();
    let is_usual = first.usual.is_some() && others.iter().any(|other| other.usual.is_none());
    let why = if is_usual { "under a usual name" } else { "the least rounded" };
    Some(format!(
        "{} is {} ({}), {why} of {} that fit; not taken: {}. {} says which",
        part.name,
        first.path.display(),
        first.kind,
        candidates.len(),
        shown(&named, MOST_NAMED),
        part.flag()
    ))
}
