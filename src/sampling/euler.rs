//! The flow-matching Euler loop: `latents += (sigma_next - sigma) · velocity`.
//!
//! Source: `FlowMatchEulerDiscreteScheduler.step` of diffusers; Euler's method for the ODE of rectified flow
//! (arXiv 2209.03003), whose time runs from 1 (noise) to 0 (image).

use candle_core::{DType, Tensor};

use crate::{
    error::{Error, Result},
    methods::Moment,
};

/// Where the loop stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepInfo {
    /// Index of the step, from 0.
    pub index: usize,
    /// Number of steps of the whole schedule.
    pub steps: usize,
    /// The time before the step: the current sigma, in (0, 1].
    pub t: f64,
    /// The time after the step: the next sigma, in [0, 1).
    pub t_next: f64,
}

impl StepInfo {
    /// The same moment as the scalers see it, without the latents' spectrum.
    pub fn moment(&self) -> Moment<'static> {
        Moment { t: self.t, step: self.index, steps: self.steps, spectrum: None }
    }
}

/// Whatever predicts the velocity of the latents: the transformer, or a test.
pub trait Denoiser {
    /// The velocity at `latents` [1, N, 64] f32, of the same shape, of any float type.
    ///
    /// # Errors
    /// Whatever kept the velocity from being computed.
    fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor>;
}

/// Runs the steps `start..` of the schedule on packed latents [1, N, 64] and returns the final ones, in f32.
///
/// `sigmas` are the schedule of [`crate::sampling::sigmas`]: one more than steps. `after_step` sees the latents after every step;
/// its error ends the loop. A run that starts at step `k` from the latents that `after_step` saw after step `k - 1` repeats the
/// rest bit for bit, since nothing else is carried from step to step.
///
/// # Errors
/// [`Error::Request`] when `start` lies beyond the schedule; [`Error::Numeric`] naming the step after which a latent is not
/// finite; whatever the denoiser or `after_step` return.
pub fn denoise(
    denoiser: &mut dyn Denoiser,
    sigmas: &[f64],
    start: usize,
    latents: &Tensor,
    after_step: &mut dyn FnMut(&StepInfo, &Tensor) -> Result<()>,
) -> Result<Tensor> {
    let steps = sigmas.len().saturating_sub(1);
    if start > steps {
        let what = format!("cannot start at step {start} of a schedule of {steps} steps");
        return Err(Error::request(what, "the checkpoint belongs to a run with more steps"));
    }
    let mut latents = latents.to_dtype(DType::F32)?;
    check_finite(&latents, || format!("before step {} of {steps}", start + 1))?;
    for index in start..steps {
        let step = StepInfo { index, steps, t: sigmas[index], t_next: sigmas[index + 1] };
        let velocity = denoiser.velocity(&latents, &step)?.to_dtype(DType::F32)?;
        // The reference holds its sigmas in f32 and subtracts there.
        let dt = step.t_next as f32 - step.t as f32;
        latents = (latents + (velocity * f64::from(dt))?)?; // [1, N, 64]
        check_finite(&latents, || format!("after step {} of {steps} (t = {:.4})", index + 1, step.t))?;
        after_step(&step, &latents)?;
    }
    Ok(latents)
}

/// Refuses latents with an infinity or NaN. One number crosses from the device: 0·x is 0 for every finite x and NaN for all others,
/// and so is the sum of them.
fn check_finite(latents: &Tensor, place: impl Fn() -> String) -> Result<()> {
    if (latents * 0.0)?.sum_all()?.to_scalar::<f32>()? == 0.0 {
        return Ok(());
    }
    let what = format!("the latents are not finite {}", place());
    let hint = "run again with --dtype f32 (f16 overflows in FLUX); if it stays, the weights are damaged";
    Err(Error::Numeric { what, hint: hint.into() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    /// A velocity field given as a function of the latents and t.
    struct Field<F>(F);

    impl<F: FnMut(&Tensor, f64) -> Result<Tensor>> Denoiser for Field<F> {
        fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
            (self.0)(latents, step.t)
        }
    }

    fn start_latents() -> Tensor {
        Tensor::arange(0f32, 128.0, &Device::Cpu).and_then(|t| t.reshape((1, 2, 64))).expect("arange")
    }

    fn values(latents: &Tensor) -> Vec<f32> {
        latents.flatten_all().and_then(|t| t.to_vec1()).expect("f32")
    }

    const SIGMAS: [f64; 5] = [1.0, 0.9, 0.7, 0.4, 0.0];

    fn run<F: FnMut(&Tensor, f64) -> Result<Tensor>>(
        field: F,
        sigmas: &[f64],
        start: usize,
        latents: &Tensor,
    ) -> Vec<Tensor> {
        let mut seen = vec![];
        let last = denoise(&mut Field(field), sigmas, start, latents, &mut |_, latents| {
            seen.push(latents.clone());
            Ok(())
        })
        .expect("runs");
        assert_eq!(values(&last), values(seen.last().expect("at least one step")));
        seen
    }

    #[test]
    fn a_constant_velocity_moves_the_latents_by_its_negative() {
        // x(0) = x(1) - v whatever the schedule: Euler is exact on a straight path.
        let last = run(|x, _| Ok(x.affine(0.0, 3.0)?), &SIGMAS, 0, &start_latents()).pop().expect("steps");
        for (i, value) in values(&last).into_iter().enumerate() {
            assert!((value - (i as f32 - 3.0)).abs() < 1e-4, "{i}: {value}");
        }
    }

    #[test]
    fn a_linear_velocity_gives_the_product_of_its_steps() {
        // v = x: every step multiplies by 1 + (next - sigma).
        let factor: f64 = SIGMAS.windows(2).map(|pair| 1.0 + pair[1] - pair[0]).product();
        let last = run(|x, _| Ok(x.clone()), &SIGMAS, 0, &start_latents()).pop().expect("steps");
        for (i, value) in values(&last).into_iter().enumerate() {
            assert!((f64::from(value) - i as f64 * factor).abs() < 1e-4, "{i}: {value}");
        }
    }

    #[test]
    fn many_steps_approach_the_exact_flow() {
        // dx/dt = x from t = 1 to 0 divides by e; Euler's error falls with the step.
        let sigmas: Vec<f64> = (0..=1000).rev().map(|i| f64::from(i) / 1000.0).collect();
        let last = run(|x, _| Ok(x.clone()), &sigmas, 0, &start_latents()).pop().expect("steps");
        assert!((values(&last)[100] - 100.0 * (-1f32).exp()).abs() < 0.05);
    }

    #[test]
    fn the_denoiser_is_asked_at_the_sigma_before_each_step() {
        let mut times = vec![];
        run(
            |x, t| {
                times.push(t);
                Ok(x.clone())
            },
            &SIGMAS,
            0,
            &start_latents(),
        );
        assert_eq!(times, SIGMAS[..4]);
    }

    #[test]
    fn a_run_resumed_from_any_step_ends_bit_for_bit_the_same() {
        let field = |x: &Tensor, t: f64| Ok((x.sin()? * (t + 0.3))?);
        let seen = run(field, &SIGMAS, 0, &start_latents());
        for start in 1..4 {
            let resumed = run(field, &SIGMAS, start, &seen[start - 1]).pop().expect("steps");
            assert_eq!(values(&resumed), values(&seen[3]), "from step {start}");
        }
    }

    #[test]
    fn latents_that_are_not_finite_name_the_step() {
        for bad in [f64::NAN, f64::INFINITY] {
            let mut field = Field(|x: &Tensor, t: f64| {
                let factor = if t < 0.8 { bad } else { 1.0 };
                Ok(x.affine(0.0, 1.0)?.affine(factor, 0.0)?)
            });
            let error = denoise(&mut field, &SIGMAS, 0, &start_latents(), &mut |_, _| Ok(())).expect_err("not finite");
            assert!(matches!(error, Error::Numeric { .. }), "{error}");
            assert!(error.to_string().contains("step 3 of 4"), "{error}");
        }
    }

    #[test]
    fn the_callback_can_end_the_loop() {
        let mut calls = 0;
        let error = denoise(&mut Field(|x: &Tensor, _| Ok(x.clone())), &SIGMAS, 0, &start_latents(), &mut |step, _| {
            calls += 1;
            if step.index == 1 { Err(Error::request("enough", "")) } else { Ok(()) }
        });
        assert!(error.is_err());
        assert_eq!(calls, 2);
    }

    #[test]
    fn a_start_beyond_the_schedule_is_refused() {
        let error =
            denoise(&mut Field(|x: &Tensor, _| Ok(x.clone())), &SIGMAS, 5, &start_latents(), &mut |_, _| Ok(()));
        assert_eq!(error.expect_err("beyond").exit_code(), 2);
    }
}
