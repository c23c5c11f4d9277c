//! What must hold for every axis, size and moment.

use proptest::prelude::*;

use super::{
    Amplitude, AxisFrequencies, DypeSchedule, DypeSettings, Fading, Knobs, Method, Moment, Ntk, PositionScaler,
    RotaryAxis, Scaling, Thresholds, Yarn,
};

/// Axes as models have them, from half to 64 times the training length.
fn axes() -> impl Strategy<Value = RotaryAxis> {
    (2usize..64, 100.0..1e6f64, 4usize..256, 0.5..64.0f64).prop_map(|(pairs, theta, base_patches, s)| {
        let patches = ((base_patches as f64 * s) as usize).max(1);
        RotaryAxis::of_picture([2 * pairs; 2], theta, base_patches, [patches; 2])[0]
    })
}

fn longer_axes() -> impl Strategy<Value = RotaryAxis> {
    axes().prop_filter("longer than in training", |axis| axis.patches > axis.base_patches)
}

/// Every method, static and dynamic, with the paper's numbers and with others.
fn scalers() -> impl Strategy<Value = Box<dyn PositionScaler>> {
    let settings =
        (prop::option::of(0.0..8.0f64), prop::option::of(0.0..4.0f64), prop::sample::select(&Thresholds::ALL[..]));
    let settings = settings.prop_map(|(scale, exponent, thresholds)| DypeSettings { scale, exponent, thresholds });
    let method = prop::sample::select(Method::ALL.to_vec());
    (method, prop::option::of(settings), knobs()).prop_map(|(method, settings, knobs)| method.tuned(settings, knobs))
}

fn knobs() -> impl Strategy<Value = Knobs> {
    // A damped amplitude has a test of its own: it does not grow for ever.
    let amplitudes = prop::sample::select(&[Amplitude::Yarn, Amplitude::Fading][..]);
    let words = (prop::sample::select(&Scaling::ALL[..]), amplitudes, 0.0..=1.0f64, any::<bool>());
    words.prop_map(|(scaling, amplitude, start, text_anchor)| {
        let fading = Fading { start };
        Knobs { scaling, amplitude, fading, text_anchor }
    })
}

impl std::fmt::Debug for dyn PositionScaler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} looking at {:?}", self.spec().name, self.looks())
    }
}

fn dy_yarn(thresholds: Thresholds) -> Yarn {
    Yarn { dype: Yarn::SPEC.dype, thresholds, ..Yarn::default() }
}

fn at(scaler: &dyn PositionScaler, axis: &RotaryAxis, t: f64) -> AxisFrequencies {
    scaler.frequencies(axis, &Moment::at(t))
}

proptest! {
    #[test]
    fn within_the_training_length_everything_is_native(scaler in scalers(), axis in axes(), t in 0.0..=1.0f64) {
        let patches = axis.patches.min(axis.base_patches);
        let axis = RotaryAxis { patches, longest_patches: patches, ..axis };
        let found = at(&*scaler, &axis, t);
        prop_assert_eq!(found.inv_freq, axis.native());
        prop_assert_eq!(found.amplitude, vec![1.0; axis.pairs()]);
    }

    #[test]
    fn kappa_is_lambda_s_at_the_start_and_nothing_at_the_end(scale in 0.0..8.0f64, exponent in 0.1..4.0f64) {
        let schedule = DypeSchedule { scale, exponent };
        prop_assert_eq!(schedule.kappa(1.0), scale);
        prop_assert_eq!(schedule.kappa(0.0), 0.0);
        prop_assert!(schedule.is_valid());
    }

    #[test]
    fn frequencies_are_positive_and_never_above_native(scaler in scalers(), axis in axes(), t in 0.0..=1.0f64) {
        let found = at(&*scaler, &axis, t);
        prop_assert_eq!(found.inv_freq.len(), axis.pairs());
        for (found, native) in found.inv_freq.iter().zip(axis.native()) {
            prop_assert!(*found > 0.0 && *found <= native * (1.0 + 1e-15), "{} above {}", found, native);
        }
    }

    #[test]
    fn settled_frequencies_only_rise_towards_native_as_t_falls(
        axis in longer_axes(), t in 0.0..=1.0f64, later in 0.0..=1.0f64,
    ) {
        let (before, after) = (at(&dy_yarn(Thresholds::Settled), &axis, t), at(&dy_yarn(Thresholds::Settled), &axis, t * later));
        for (before, after) in before.inv_freq.iter().zip(&after.inv_freq) {
            prop_assert!(*after >= before * (1.0 - 1e-12), "{} after {}", after, before);
        }
        prop_assert_eq!(at(&dy_yarn(Thresholds::Settled), &axis, 1e-9).inv_freq, axis.native());
    }

    #[test]
    fn settled_is_product_until_a_ramp_leaves_the_table(axis in longer_axes(), t in 0.0..=1.0f64) {
        let (product, settled) = (dy_yarn(Thresholds::Product), dy_yarn(Thresholds::Settled));
        // The thresholds of the fastest borders, 16 and 1.25 turns, still lie among the pairs.
        let slowest = axis.native()[axis.pairs() - 1] * axis.base_patches as f64 / (2.0 * std::f64::consts::PI);
        if 1.25 * t * t > slowest {
            prop_assert_eq!(at(&product, &axis, t).inv_freq, at(&settled, &axis, t).inv_freq);
        }
    }

    #[test]
    fn static_frequencies_are_never_below_interpolation(axis in longer_axes()) {
        for method in [Method::NTK, Method::YARN, Method::PI] {
            let found = at(&*method.scaler(None), &axis, 1.0);
            for (found, native) in found.inv_freq.iter().zip(axis.native()) {
                prop_assert!(*found >= native / axis.scale() * (1.0 - 1e-12));
            }
        }
    }

    #[test]
    fn amplitude_is_at_least_one_and_grows_with_the_axis(scaler in scalers(), axis in axes(), t in 0.0..=1.0f64) {
        let longer = RotaryAxis { patches: axis.patches + 1, longest_patches: axis.patches + 1, ..axis };
        let (short, long) = (at(&*scaler, &axis, t), at(&*scaler, &longer, t));
        prop_assert_eq!(short.amplitude.len(), axis.pairs());
        for (short, long) in short.amplitude.iter().zip(&long.amplitude) {
            prop_assert!(1.0 <= *short && short <= long);
        }
    }

    #[test]
    fn a_static_scaler_does_not_see_the_time(axis in axes(), t in 0.0..=1.0f64) {
        for method in Method::ALL.iter().copied() {
            let scaler = method.scaler(None);
            prop_assert_eq!(at(&*scaler, &axis, t), at(&*scaler, &axis, 1.0));
        }
    }

    #[test]
    fn dy_ntk_ends_native_and_starts_twice_as_strong(axis in longer_axes()) {
        let ntk = Ntk { dype: Ntk::SPEC.dype, ..Ntk::default() };
        prop_assert_eq!(at(&ntk, &axis, 0.0).inv_freq, axis.native());
        // The slowest pair of a static NTK is divided by s; with kappa(1) = 2, by s^2.
        let last = axis.pairs() - 1;
        let ratio = at(&ntk, &axis, 1.0).inv_freq[last] / axis.native()[last] * axis.scale().powi(2);
        prop_assert!((ratio - 1.0).abs() < 1e-12, "{}", ratio);
    }

    #[test]
    fn dy_yarn_starts_as_yarn_and_ends_native(axis in longer_axes()) {
        let dynamic = dy_yarn(Thresholds::Product);
        prop_assert_eq!(at(&dynamic, &axis, 1.0), at(&Yarn::default(), &axis, 1.0));
        let end = at(&dynamic, &axis, 0.0);
        prop_assert_eq!(end.inv_freq, axis.native());
        prop_assert_eq!(end.amplitude, at(&Yarn::default(), &axis, 1.0).amplitude);
    }

    #[test]
    fn anchored_amplitudes_begin_as_yarns_and_end_at_one(axis in longer_axes(), t in 0.0..=1.0f64) {
        let knobs = Knobs { text_anchor: true, ..Knobs::default() };
        let anchored = Yarn { knobs, ..dy_yarn(Thresholds::Product) };
        let amplitude = |t| at(&anchored, &axis, t).amplitude;
        let yarn = at(&Yarn::default(), &axis, 1.0).amplitude[0];
        prop_assert!(amplitude(1.0).iter().all(|found| (found / yarn - 1.0).abs() < 1e-12));
        prop_assert!(amplitude(0.0).iter().all(|found| *found == 1.0));
        prop_assert!(amplitude(t).iter().all(|found| (1.0..=yarn * (1.0 + 1e-12)).contains(found)));
        prop_assert_eq!(at(&anchored, &axis, t).inv_freq, at(&dy_yarn(Thresholds::Product), &axis, t).inv_freq);
    }

    #[test]
    fn a_damped_amplitude_lies_between_none_and_yarns(axis in longer_axes(), t in 0.0..=1.0f64) {
        let of = |amplitude| {
            let knobs = Knobs { amplitude, ..Knobs::default() };
            at(&Yarn { knobs, ..dy_yarn(Thresholds::Product) }, &axis, t).amplitude[0]
        };
        prop_assert!(1.0 < of(Amplitude::Damped) && of(Amplitude::Damped) < of(Amplitude::Yarn));
        prop_assert!(1.0 <= of(Amplitude::Fading) && of(Amplitude::Fading) <= of(Amplitude::Yarn));
    }

    #[test]
    fn both_axes_are_alike_by_the_longer_side_and_no_rule_changes_a_square(
        axis in axes(), other in 1usize..4096, method in prop::sample::select(vec![Method::NTK, Method::YARN, Method::PI]),
        knobs in knobs(), is_moved: bool, t in 0.0..=1.0f64,
    ) {
        let dype = is_moved.then(DypeSettings::default);
        let of = |patches, scaling| {
            let scaler = method.tuned(dype, Knobs { scaling, ..knobs });
            let axes = RotaryAxis::of_picture([axis.dim; 2], axis.theta, axis.base_patches, patches);
            axes.map(|axis| at(&*scaler, &axis, t))
        };
        let patches = [axis.patches, other];
        let [height, width] = of(patches, Scaling::Longest);
        prop_assert_eq!(&height, &width);
        let longer = usize::from(other > axis.patches);
        for scaling in Scaling::ALL {
            prop_assert_eq!(&of(patches, scaling)[longer], &height, "the longer side is the same by every rule");
            prop_assert_eq!(of([axis.patches; 2], scaling), of([axis.patches; 2], Scaling::Axis));
        }
    }

    #[test]
    fn dy_yarn_by_powers_is_static_yarn_where_the_power_is_one(axis in longer_axes()) {
        // r^(2 kappa) = r at kappa = 1/2; t = 1 doubles the exponent instead, and t = 0 leaves thresholds of 1.
        let half = DypeSchedule { scale: 0.5, exponent: 0.0 };
        let power = Yarn { dype: Some(half), thresholds: Thresholds::Power, ..Yarn::default() };
        prop_assert_eq!(at(&power, &axis, 0.3), at(&Yarn::default(), &axis, 1.0));
    }
}

#[test]
fn an_axis_of_one_pair_stays_native() {
    let [axis, _] = RotaryAxis::of_picture([2, 2], 10_000.0, 64, [256, 256]);
    for (method, t) in [(Method::NTK, 0.0), (Method::NTK, 1.0)] {
        assert_eq!(at(&*method.scaler(Some(DypeSettings::default())), &axis, t).inv_freq, [1.0]);
    }
}
