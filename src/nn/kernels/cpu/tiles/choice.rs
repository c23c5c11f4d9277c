//! Which unit products use: one that is there, right, and faster than vectors, as a measurement of some milliseconds says.

use std::sync::OnceLock;

use super::{Operand, Target, Task, Terms, Unit, product, unit::MatrixUnit};
use crate::{
    error::{Error, Result},
    nn::kernels::cpu::{Strided, is_faster, product as plain_product},
};

/// The variable that says otherwise: `off` for vectors alone, `on` for the unit however fast it is, `model` for a slow model of one, which
/// shows what pictures become.
const VARIABLE: &str = "DYPE_MATRIX_UNIT";
/// Rows, columns and depth of the product that is measured.
const SAMPLE: usize = 256;
const SAMPLE_DEPTH: usize = 1024;
/// How far from the plain product, in parts of the largest number.
const TOLERANCE: f32 = 1e-4;

/// The unit that products use, where there is one; chosen at first use.
pub fn unit() -> Option<Unit> {
    static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
    *UNIT.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
        Ok("off") => None,
        Ok("on") => found().filter(|unit| Trial::of(*unit).is_right),
        Ok("model") => Some(Unit::Model),
        _ => found().filter(|unit| Trial::of(*unit).pays()),
    })
}

/// That the variable is one of its words, where it is set, and that there is a unit where it insists on one.
///
/// # Errors
/// [`Error::Request`] where it is another, or there is none.
pub fn check_variable() -> Result<()> {
    let Some(word) = std::env::var_os(VARIABLE) else { return Ok(()) };
    match word.to_str() {
        Some("" | "off" | "model") => Ok(()),
        Some("on") if unit().is_some() => Ok(()),
        Some("on") => Err(Error::request(
            format!("{VARIABLE} is \"on\": {}", found().map_or(NONE, |_| WRONG)),
            "unset it, and products are computed by vectors",
        )),
        _ => Err(Error::request(
            format!("{VARIABLE} is {word:?}"),
            "unset it to use the processor's matrix unit where there is one and it is faster; \"on\" insists on it, \"off\" leaves it alone",
        )),
    }
}

/// Why there is none to insist on.
const NONE: &str =
    "this processor has no matrix unit that dype knows (AMX, on Linux), or the system lets no program use it";
const WRONG: &str = "this processor's matrix unit does not give what vectors give";

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn found() -> Option<Unit> {
    super::amx::available().then_some(Unit::Amx)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn found() -> Option<Unit> {
    None
}

/// What a measurement says of a unit.
#[derive(Debug)]
pub(super) struct Trial {
    /// It gives what a plain product gives, in f32 accuracy.
    pub is_right: bool,
    /// In less time.
    pub is_faster: bool,
}

impl Trial {
    /// Measures it. Nothing here waits for other threads: this may run within any task, at the first product of all.
    pub fn of(unit: Unit) -> Self {
        let sample = Sample::new();
        let [mut found, mut expected] = [(); 2].map(|()| vec![0.0; SAMPLE * SAMPLE]);
        let is_faster =
            is_faster(|| unit.run(Tiled { sample: &sample, out: &mut found }), || sample.plain(&mut expected));
        let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
        let is_right = expected.iter().zip(&found).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest);
        Self { is_right, is_faster }
    }

    /// Whether it is to be used.
    fn pays(&self) -> bool {
        self.is_right && self.is_faster
    }
}

/// The product that is measured.
struct Sample {
    left: Vec<f32>,
    right: Vec<f32>,
}

impl Sample {
    fn new() -> Self {
        let wave = |phase: f32| (0..SAMPLE * SAMPLE_DEPTH).map(|i| (i as f32 * 0.37 + phase).sin()).collect();
        Self { left: wave(0.1), right: wave(1.3) }
    }

    fn plain(&self, out: &mut [f32]) {
        let rows = |of: &[f32]| Strided { start: of.as_ptr(), rows: SAMPLE_DEPTH, columns: 1 };
        let right = Strided { start: self.right.as_ptr(), rows: 1, columns: SAMPLE_DEPTH };
        let target = Strided { start: out.as_mut_ptr(), rows: SAMPLE, columns: 1 };
        // SAFETY: all three are as long as this asks.
        unsafe { plain_product((SAMPLE, SAMPLE, SAMPLE_DEPTH), target, false, rows(&self.left), right) };
    }
}

/// The same in tiles, both sides split.
struct Tiled<'a> {
    sample: &'a Sample,
    out: &'a mut [f32],
}

impl Task for Tiled<'_> {
    fn on<U: MatrixUnit>(self, unit: &mut U) {
        let left = Operand::left_here(&self.sample.left, SAMPLE_DEPTH, Terms::Three);
        let right = Operand::right(SAMPLE, SAMPLE_DEPTH, Terms::Three.right(), |column, from, out| {
            out.copy_from_slice(&self.sample.right[column * SAMPLE_DEPTH + from..][..out.len()]);
        });
        let target = Target { start: self.out.as_mut_ptr(), stride: SAMPLE, rows: SAMPLE, columns: SAMPLE };
        // SAFETY: out is as large as this asks.
        unsafe { product(unit, (&left, 0..SAMPLE), &right, Terms::Three, (target, false)) };
    }
}
