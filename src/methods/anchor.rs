//! Text anchoring: text kept as strong against many picture tokens as it was against few, and temperatures that fade with t.

use super::{Amplitude, Knob, RotaryAxis, Takes, TextBias};

/// Text anchoring, as a knob of methods that take it.
pub const TEXT_ANCHOR: Knob = Knob {
    name: "text_anchor",
    help: "Keep text as strong as at the training resolution (TIDE): a bias on its keys that grows with the picture, and amplitudes \
           that fade as the picture forms; with yarn",
    takes: Takes::Switch,
};

/// The exponent of t is the first less the second times the pair's frequency.
const EXPONENT: [f64; 2] = [0.6, 0.4];

/// What is added to the logits of text: beta = ln(pixels / pixels of training), nothing in a picture of no more pixels.
///
/// Source: TIDE (arXiv 2603.08928) and its authors' code.
pub(super) fn text_bias(axes: &[RotaryAxis; 2]) -> Option<TextBias> {
    let larger: f64 = axes.iter().map(RotaryAxis::scale).product();
    (larger > 1.0).then(|| TextBias(larger.ln()))
}

/// The amplitude of each pair [D/2] at time t: 1/sqrt(tau), `tau = 1 - (1 - tau_min) t^(0.6 - 0.4 f_k)` with f_k the pair's native
/// frequency and tau_min = YaRN's amplitude to the power -2. It is YaRN's at t = 1, and 1 at t = 0.
///
/// Source: TIDE's authors' code, which takes f_k as it is; the paper normalises it to [0, 1], which differs by 3e-5 at most.
pub(super) fn amplitudes(axis: &RotaryAxis, t: f64) -> Vec<f64> {
    let scale = axis.scale();
    if scale <= 1.0 {
        return vec![1.0; axis.pairs()];
    }
    let least = Amplitude::Yarn.of(scale, 1.0).powi(-2);
    let temperature = |frequency: f64| 1.0 - (1.0 - least) * t.powf(EXPONENT[0] - EXPONENT[1] * frequency);
    axis.native().into_iter().map(|frequency| temperature(frequency).sqrt().recip()).collect()
}
