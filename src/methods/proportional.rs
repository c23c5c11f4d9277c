//! Proportional attention: logits that grow with the number of tokens, so that attention to many is as sharp as to few.

use super::{Moment, PositionScaler, RotaryAxis};

/// What the logits of attention over so many tokens are multiplied by, where it was trained over `trained` of them:
/// sqrt(ln n / ln n_train), and exactly 1 where there are no more. Text and picture both count.
///
/// Source: Jin et al., arXiv 2306.08645; over text and picture as in I-Max's and HiFlow's code, which goes below 1 for small
/// pictures.
pub fn proportional(tokens: usize, trained: usize) -> f64 {
    // Of one token the logarithm is 0: there is nothing to be as sharp as.
    if tokens <= trained || trained < 2 {
        return 1.0;
    }
    ((tokens as f64).ln() / (trained as f64).ln()).sqrt()
}

/// Whether the amplitudes of this scaler make attention sharper as pictures grow: what [`proportional`] does in its way.
pub fn sharpens(scaler: &dyn PositionScaler) -> bool {
    let [axis, _] = RotaryAxis::of_picture([8; 2], 10_000.0, 8, [16; 2]);
    scaler.frequencies(&axis, &Moment::at(1.0)).amplitude.iter().any(|amplitude| *amplitude > 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::methods::{Amplitude, Knobs, Method, Scaling};

    #[test]
    fn no_more_tokens_than_in_training_change_nothing() {
        for (tokens, trained) in [(4608, 4608), (512, 4608), (1, 1), (9, 1), (9, 0), (0, 0)] {
            assert_eq!(proportional(tokens, trained), 1.0, "{tokens} {trained}");
        }
        assert!((proportional(16_896, 4608) - 1.074).abs() < 1e-3 && (proportional(66_048, 4608) - 1.147).abs() < 1e-3);
    }

    #[test]
    fn methods_with_amplitudes_sharpen_by_themselves() {
        let sharp =
            Method::ALL.iter().map(|method| (method.name(), sharpens(&*method.scaler(None)))).collect::<Vec<_>>();
        assert_eq!(sharp, [("base", false), ("ntk", false), ("yarn", true), ("sega", true), ("pi", false)]);
        for amplitude in Amplitude::ALL {
            let knobs = Knobs { amplitude, scaling: Scaling::Longest, ..Knobs::default() };
            assert!(sharpens(&*Method::YARN.tuned(None, knobs)));
        }
    }
}
