//! The loop over a schedule's steps, whatever sampler takes them and whoever gives the velocities.

use candle_core::{DType, Tensor};

use super::{
    denoiser::{Denoiser, Skips, State, StepInfo},
    preview::estimate_clean,
    samplers::{Field, Sampler, Span},
};
use crate::error::{Error, Result};

/// Where a loop begins, or has come to.
#[derive(Debug, Clone)]
pub struct Progress {
    /// Steps that are done.
    pub step: usize,
    /// Packed latents [1, N, C] after them.
    pub latents: Tensor,
    /// What the sampler and the denoiser carry on.
    pub state: State,
}

impl Progress {
    /// Before the first step, from these latents.
    pub fn start(latents: Tensor) -> Self {
        Self { step: 0, latents, state: State::new() }
    }
}

/// A step that has been done.
pub struct After<'a> {
    /// Which.
    pub step: StepInfo,
    /// Packed latents [1, N, C] f32 after it.
    pub latents: &'a Tensor,
    /// Those before it.
    before: &'a Tensor,
    /// Who took it.
    sampler: &'a dyn Sampler,
    /// Who gave its velocity.
    denoiser: &'a dyn Denoiser,
}

impl After<'_> {
    /// All that the steps behind this one need: copies of what is on the device, so not for every step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn progress(&self) -> Result<Progress> {
        let mut state = self.denoiser.state()?;
        state.extend(self.sampler.state()?);
        Ok(Progress { step: self.step.index + 1, latents: self.latents.clone(), state })
    }

    /// What was skipped up to here.
    pub fn skips(&self) -> Skips {
        self.denoiser.skips()
    }

    /// The clean latents [1, N, C] that the step was heading for.
    ///
    /// # Errors
    /// When the device fails.
    pub fn clean(&self) -> Result<Tensor> {
        match self.sampler.clean() {
            Some(clean) => Ok(clean.clone()),
            None => estimate_clean(self.before, self.latents, self.step.t, self.step.t_next),
        }
    }
}

/// Runs the steps of the schedule that `from` has not done on packed latents [1, N, C] and returns the final ones, in f32 (f64
/// ones stay f64).
///
/// `sigmas` are the schedule of [`crate::sampling::sigmas()`]: one more than steps. `after_step` is told of every step; its error
/// ends the loop. A run that starts from what [`After::progress`] gave after step `k` repeats the rest bit for bit.
///
/// # Errors
/// [`Error::Request`] when `from` lies beyond the schedule or its state is another denoiser's; [`Error::Numeric`] naming the step
/// after which a latent is not finite; whatever the denoiser or `after_step` return.
pub fn denoise(
    denoiser: &mut dyn Denoiser,
    sampler: &mut dyn Sampler,
    sigmas: &[f64],
    from: Progress,
    after_step: &mut dyn FnMut(&After) -> Result<()>,
) -> Result<Tensor> {
    let steps = sigmas.len().saturating_sub(1);
    let Progress { step: start, latents, mut state } = from;
    if start > steps {
        let what = format!("cannot start at step {start} of a schedule of {steps} steps");
        return Err(Error::request(what, "the checkpoint belongs to a run with more steps"));
    }
    sampler.restore(&mut state)?;
    denoiser.restore(state)?;
    let mut latents = in_floats(latents)?;
    check_finite(&latents, || format!("before step {} of {steps}", start + 1))?;
    for index in start..steps {
        let step = StepInfo { index, steps, t: sigmas[index], t_next: sigmas[index + 1], evaluation: 0 };
        let before = latents;
        latents = sampler.step(&before, &Span::new(sigmas, index), &mut Field::new(denoiser, step))?; // [1, N, C]
        check_finite(&latents, || format!("after step {} of {steps} (t = {:.4})", index + 1, step.t))?;
        after_step(&After { step, latents: &latents, before: &before, sampler, denoiser })?;
    }
    Ok(latents)
}

fn in_floats(latents: Tensor) -> Result<Tensor> {
    Ok(if latents.dtype() == DType::F64 { latents } else { latents.to_dtype(DType::F32)? })
}

/// Refuses latents with an infinity or NaN. One number crosses from the device: 0·x is 0 for every finite x and NaN for all others,
/// and so is the sum of them.
fn check_finite(latents: &Tensor, place: impl Fn() -> String) -> Result<()> {
    if (latents * 0.0)?.sum_all()?.to_dtype(DType::F32)?.to_scalar::<f32>()? == 0.0 {
        return Ok(());
    }
    let what = format!("the latents are not finite {}", place());
    let hint =
        "run again with --dtype f32 (f16 overflows in FLUX); if it stays, the weights or a LoRA's numbers are damaged";
    Err(Error::Numeric { what, hint: hint.into() })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::{super::samplers::Euler, *};

    /// The loop with Euler's sampler.
    fn denoise(
        denoiser: &mut dyn Denoiser,
        sigmas: &[f64],
        from: Progress,
        after_step: &mut dyn FnMut(&After) -> Result<()>,
    ) -> Result<Tensor> {
        super::denoise(denoiser, &mut Euler, sigmas, from, after_step)
    }

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
        let from = Progress { step: start, ..Progress::start(latents.clone()) };
        let last = denoise(&mut Field(field), sigmas, from, &mut |after| {
            seen.push(after.latents.clone());
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
            let error = denoise(&mut field, &SIGMAS, Progress::start(start_latents()), &mut |_| Ok(()))
                .expect_err("not finite");
            assert!(matches!(error, Error::Numeric { .. }), "{error}");
            assert!(error.to_string().contains("step 3 of 4"), "{error}");
        }
    }

    #[test]
    fn the_callback_can_end_the_loop() {
        let mut calls = 0;
        let from = Progress::start(start_latents());
        let error = denoise(&mut Field(|x: &Tensor, _| Ok(x.clone())), &SIGMAS, from, &mut |after| {
            calls += 1;
            if after.step.index == 1 { Err(Error::request("enough", "")) } else { Ok(()) }
        });
        assert!(error.is_err());
        assert_eq!(calls, 2);
    }

    #[test]
    fn a_start_beyond_the_schedule_is_refused() {
        let from = Progress { step: 5, ..Progress::start(start_latents()) };
        let error = denoise(&mut Field(|x: &Tensor, _| Ok(x.clone())), &SIGMAS, from, &mut |_| Ok(()));
        assert_eq!(error.expect_err("beyond").exit_code(), 2);
    }

    #[test]
    fn a_state_that_nobody_takes_is_refused() {
        let state = State::from([("residual".to_owned(), start_latents())]);
        let from = Progress { step: 1, latents: start_latents(), state };
        let error = denoise(&mut Field(|x: &Tensor, _| Ok(x.clone())), &SIGMAS, from, &mut |_| Ok(()));
        assert!(error.expect_err("not a pure function's").to_string().contains("\"residual\""));
    }

    /// Asks for every second velocity only and repeats it in between.
    struct EverySecond<D> {
        inner: D,
        last: Option<Tensor>,
    }

    const LAST: &str = "every_second.last";

    impl<D: Denoiser> Denoiser for EverySecond<D> {
        fn velocity(&mut self, latents: &Tensor, step: &StepInfo) -> Result<Tensor> {
            if let Some(last) = self.last.take() {
                return Ok(last);
            }
            let velocity = self.inner.velocity(latents, step)?;
            self.last = Some(velocity.clone());
            Ok(velocity)
        }

        fn state(&self) -> Result<State> {
            let mut state = self.inner.state()?;
            state.extend(self.last.clone().map(|last| (LAST.to_owned(), last)));
            Ok(state)
        }

        fn restore(&mut self, mut state: State) -> Result<()> {
            self.last = state.remove(LAST);
            self.inner.restore(state)
        }
    }

    #[test]
    fn a_decorator_with_a_state_goes_on_bit_for_bit() {
        let decorated = || {
            let asked = std::cell::Cell::new(0);
            let field = Field(move |x: &Tensor, t: f64| {
                asked.set(asked.get() + 1);
                assert!(asked.get() <= 2, "four steps ask twice");
                Ok((x.sin()? * (t + 0.3))?)
            });
            EverySecond { inner: field, last: None }
        };
        let mut seen = vec![];
        let whole = denoise(&mut decorated(), &SIGMAS, Progress::start(start_latents()), &mut |after| {
            seen.push(after.progress()?);
            Ok(())
        })
        .expect("runs");
        assert_eq!(seen.iter().map(|progress| progress.state.len()).collect::<Vec<_>>(), [1, 0, 1, 0]);
        for progress in seen {
            let step = progress.step;
            let resumed = denoise(&mut decorated(), &SIGMAS, progress, &mut |_| Ok(())).expect("runs");
            assert_eq!(values(&resumed), values(&whole), "from step {step}");
        }
    }
}
