//! The arithmetic of one step of a stage: what pulls the latents towards the course of the stage below.

use super::low_pass::LowPass;

/// Keeps divisions by t finite. Source: HiFlow's code.
const EPSILON: f64 = 1e-6;

/// How strongly a step follows the stage below; both fall linearly to 0 over the stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pull {
    /// How much of the low frequencies' difference is taken: of where the picture is heading for.
    pub alpha: f64,
    /// How much of the difference of the last two steps' velocities is taken: of how it gets there.
    pub beta: f64,
}

impl Pull {
    /// Of a stage by its number: 1 for the second. Source: HiFlow's code.
    pub fn of_stage(stage: usize) -> Self {
        Self { alpha: if stage == 1 { 1.0 } else { 0.25 }, beta: 0.5 }
    }

    /// As strong as `part` says: 1 for itself, 0 for nothing.
    pub fn times(self, part: f64) -> Self {
        Self { alpha: self.alpha * part, beta: self.beta * part }
    }

    /// At a step with so many steps left of so many, itself among them.
    pub fn at(self, left: usize, steps: usize) -> Self {
        self.times(left as f64 / steps as f64)
    }
}

/// One channel of latents before a step, [h, w] each.
#[derive(Debug, Clone, Copy)]
pub struct Channel<'a, T> {
    /// The latents.
    pub latents: &'a [T],
    /// The model's velocity there.
    pub velocity: &'a [T],
    /// Where the stage below was heading for at this sigma, at this size.
    pub reference: &'a [f64],
    /// What [`Channel::pulled`] gave for the step before; nothing on the stage's first step.
    pub last: Option<[&'a [T]; 2]>,
}

impl<T: Copy + Into<f64>> Channel<'_, T> {
    /// The velocity u that is followed in place of the model's, and the reference's own, r:
    ///
    /// ```text
    /// x0  = x - t v                     x0' = x0 + alpha LP(reference - x0)
    /// u   = (x - x0') / t               r   = (x - reference) / t
    /// u  += beta (u_last + r - r_last - u)          from the second step on
    /// ```
    ///
    /// Source: HiFlow (arXiv 2504.06232), and its authors' code, which takes alpha and beta by steps.
    pub fn pulled(&self, t: f64, pull: Pull, low_pass: &LowPass) -> [Vec<f64>; 2] {
        let x: Vec<f64> = self.latents.iter().map(|x| (*x).into()).collect();
        let clean: Vec<f64> = x.iter().zip(self.velocity).map(|(x, v)| x - t * (*v).into()).collect();
        let apart: Vec<f64> = self.reference.iter().zip(&clean).map(|(reference, clean)| reference - clean).collect();
        let towards = |from: f64, to: f64| (from - to) / (t + EPSILON);
        let low = low_pass.of(&apart);
        let corrected = clean.iter().zip(low).map(|(clean, low)| clean + pull.alpha * low);
        let mut u: Vec<f64> = x.iter().zip(corrected).map(|(x, clean)| towards(*x, clean)).collect();
        let r: Vec<f64> = x.iter().zip(self.reference).map(|(x, reference)| towards(*x, *reference)).collect();
        if let Some([u_last, r_last]) = self.last {
            for (i, u) in u.iter_mut().enumerate() {
                *u += pull.beta * (u_last[i].into() + r[i] - r_last[i].into() - *u);
            }
        }
        [u, r]
    }
}
