//! Classifier-free guidance: the velocity with the prompt, led away from that with the negative one.
//!
//! Source: Ho and Salimans 2022, arXiv 2207.12598; what families do with the scale is data ([`CfgRule`]).

use candle_core::{D, DType, Tensor};

use super::{Denoiser, Skips, State, StepInfo};
use crate::{
    error::Result,
    recipe::{CfgRescale, CfgRule, CfgStart},
};

/// Stands before the names of the negative denoiser's state.
const NEGATIVE: &str = "negative.";

/// How two velocities become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cfg {
    /// What the difference is multiplied by.
    pub scale: f64,
    /// Where it is added, and how the sum is kept in bounds.
    pub rule: CfgRule,
    /// Whether what is done on request is asked for.
    pub normalizes: bool,
}

impl Cfg {
    /// Velocities with the prompt and with the negative one, [1, N, C] f32 each, as one of the same shape.
    ///
    /// # Errors
    /// When shapes differ or the device fails.
    pub fn combine(&self, positive: &Tensor, negative: &Tensor) -> Result<Tensor> {
        let start = match self.rule.start {
            CfgStart::Negative => negative,
            CfgStart::Positive => positive,
        };
        let sum = (start + ((positive - negative)? * self.scale)?)?; // [1, N, C]
        match self.rule.rescale {
            CfgRescale::Tokens => {
                Ok(sum.broadcast_mul(&(token_squares(positive)?.sqrt()? / token_squares(&sum)?.sqrt()?)?)?)
            }
            CfgRescale::OnRequest if self.normalizes => {
                let (most, length) = (length(positive)?, length(&sum)?);
                Ok(if length > most { (sum * (most / length))? } else { sum })
            }
            CfgRescale::OnRequest | CfgRescale::Never => Ok(sum),
        }
    }
}

/// Squared lengths of the tokens of a velocity [1, N, C]: [1, N, 1].
fn token_squares(velocity: &Tensor) -> Result<Tensor> {
    Ok(velocity.sqr()?.sum_keepdim(D::Minus1)?)
}

/// Length of a whole velocity; tokens are added up in f64.
fn length(velocity: &Tensor) -> Result<f64> {
    let squares: Vec<f32> = token_squares(velocity)?.flatten_all()?.to_vec1()?;
    Ok(squares.into_iter().map(f64::from).sum::<f64>().sqrt())
}

/// A denoiser led by the difference of two: one that sees the prompt, one that sees the negative prompt.
pub struct Guided<D> {
    /// Sees the prompt.
    pub positive: D,
    /// Sees the negative prompt.
    pub negative: D,
    /// How their velocities become one.
    pub cfg: Cfg,
}

impl<D: Denoiser> Denoiser for Guided<D> {
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
        let positive = self.positive.velocity(latents, step)?.to_dtype(DType::F32)?;
        let negative = self.negative.velocity(latents, step)?.to_dtype(DType::F32)?;
        self.cfg.combine(&positive, &negative)
    }

    fn state(&self) -> Result<State> {
        let negative = self.negative.state()?.into_iter().map(|(name, tensor)| (format!("{NEGATIVE}{name}"), tensor));
        Ok(self.positive.state()?.into_iter().chain(negative).collect())
    }

    fn restore(&mut self, state: State) -> Result<()> {
        let (mut positive, mut negative) = (State::new(), State::new());
        for (name, tensor) in state {
            match name.strip_prefix(NEGATIVE) {
                Some(name) => negative.insert(name.to_owned(), tensor),
                None => positive.insert(name, tensor),
            };
        }
        self.positive.restore(positive)?;
        self.negative.restore(negative)
    }

    fn skips(&self) -> Skips {
        self.positive.skips()
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::sampling::{Euler, Progress, denoise};

    const POSITIVE: [f32; 6] = [3.0, 4.0, 0.5, -1.0, 2.0, -2.0];
    const NEGATIVE_ONE: [f32; 6] = [1.0, -2.0, 0.25, 1.0, -1.0, 0.5];

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (1, 3, 2), &Device::Cpu).expect("3 tokens of 2 channels")
    }

    fn combined(start: CfgStart, rescale: CfgRescale, normalizes: bool, scale: f64) -> Vec<f32> {
        let cfg = Cfg { scale, rule: CfgRule { start, rescale }, normalizes };
        let sum = cfg.combine(&tensor(&POSITIVE), &tensor(&NEGATIVE_ONE)).expect("combines");
        sum.flatten_all().and_then(|sum| sum.to_vec1()).expect("f32")
    }

    /// The sum by plain arithmetic, in f64.
    fn plain(start: CfgStart, scale: f64) -> Vec<f64> {
        let pairs = POSITIVE.iter().zip(NEGATIVE_ONE).map(|(p, n)| (f64::from(*p), f64::from(n)));
        pairs.map(|(p, n)| if start == CfgStart::Negative { n } else { p } + scale * (p - n)).collect()
    }

    fn norm(values: &[f64]) -> f64 {
        values.iter().map(|x| x * x).sum::<f64>().sqrt()
    }

    fn assert_near(found: &[f32], expected: &[f64]) {
        for (found, expected) in found.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn each_rule_is_its_arithmetic() {
        let positive = POSITIVE.map(f64::from);
        for scale in [0.5, 1.0, 4.0] {
            for start in [CfgStart::Negative, CfgStart::Positive] {
                let sum = plain(start, scale);
                assert_near(&combined(start, CfgRescale::Never, false, scale), &sum);
                assert_near(&combined(start, CfgRescale::OnRequest, false, scale), &sum);
                let tokens = sum.chunks(2).zip(positive.chunks(2));
                let tokens: Vec<f64> = tokens
                    .flat_map(|(sum, p)| sum.iter().map(|x| x * norm(p) / norm(sum)).collect::<Vec<_>>())
                    .collect();
                assert_near(&combined(start, CfgRescale::Tokens, false, scale), &tokens);
                let shrink = (norm(&positive) / norm(&sum)).min(1.0);
                let whole: Vec<f64> = sum.iter().map(|x| x * shrink).collect();
                assert_near(&combined(start, CfgRescale::OnRequest, true, scale), &whole);
            }
        }
        // What is no longer than the positive velocity stays.
        let short = combined(CfgStart::Negative, CfgRescale::OnRequest, true, 0.5);
        assert_near(&short, &plain(CfgStart::Negative, 0.5));
    }

    #[test]
    fn a_scale_is_on_above_what_changes_nothing() {
        let rule = |start| CfgRule { start, rescale: CfgRescale::Never };
        for (start, off) in [(CfgStart::Negative, 1.0), (CfgStart::Positive, 0.0)] {
            assert!(!rule(start).is_on(off) && rule(start).is_on(off + 0.1) && !rule(start).is_on(off - 0.1));
            assert_eq!(combined(start, CfgRescale::Never, false, off), POSITIVE);
        }
    }

    /// Counts its steps, which is its state.
    struct Counting {
        name: &'static str,
        count: f32,
    }

    impl Denoiser for Counting {
        fn velocity(&mut self, latents: &Tensor, _: &StepInfo) -> Result<Tensor> {
            self.count += 1.0;
            Ok((latents.zeros_like()? + f64::from(self.count))?)
        }

        fn state(&self) -> Result<State> {
            Ok(State::from([(self.name.to_owned(), Tensor::new(&[self.count], &Device::Cpu)?)]))
        }

        fn restore(&mut self, mut state: State) -> Result<()> {
            if let Some(count) = state.remove(self.name) {
                self.count = count.to_vec1::<f32>()?[0];
            }
            assert!(state.is_empty(), "{:?}", state.keys());
            Ok(())
        }
    }

    #[test]
    fn each_of_both_goes_on_from_its_own_state() {
        let guided = || Guided {
            positive: Counting { name: "count", count: 0.0 },
            negative: Counting { name: "count", count: 10.0 },
            cfg: Cfg { scale: 2.0, rule: CfgRule::USUAL, normalizes: false },
        };
        let sigmas = [1.0, 0.7, 0.4, 0.0];
        let mut middle = None;
        let whole = denoise(&mut guided(), &mut Euler, &sigmas, Progress::start(tensor(&POSITIVE)), &mut |after| {
            if after.step.index == 1 {
                middle = Some(after.progress()?);
            }
            Ok(())
        });
        let rest = denoise(&mut guided(), &mut Euler, &sigmas, middle.expect("two steps"), &mut |_| Ok(()));
        let values = |latents: Result<Tensor>| -> Vec<f32> {
            latents.expect("three steps").flatten_all().and_then(|latents| latents.to_vec1()).expect("f32")
        };
        assert_eq!(values(rest), values(whole));
    }
}
