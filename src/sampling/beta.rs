//! Quantiles of the Beta distribution whose both parameters are 0.6: how the schedule `beta` spreads its steps.

/// Both parameters. Source: ComfyUI, `beta_scheduler`.
const SHAPE: f64 = 0.6;
/// Terms of the series; at 1/2 each is less than half of the one before.
const TERMS: u32 = 60;
/// Halvings of the interval in which a quantile lies.
const HALVINGS: u32 = 80;

/// The x of [0, 1] below which this part of the distribution lies; `part` is in [0, 1].
pub(super) fn quantile(part: f64) -> f64 {
    if part == 0.5 {
        return part;
    } else if part > 0.5 {
        return 1.0 - quantile(1.0 - part);
    }
    // Half of the distribution lies below 1/2, whatever the whole is.
    let goal = 2.0 * part * below(0.5);
    let (mut least, mut most) = (0.0, 0.5);
    for _ in 0..HALVINGS {
        let middle = 0.5 * (least + most);
        if below(middle) < goal { least = middle } else { most = middle }
    }
    0.5 * (least + most)
}

/// The incomplete Beta function `∫ (u·(1 - u))^(SHAPE - 1) du` from 0 to x, x in [0, 1/2], by its series:
/// `x^a · Σ (1 - a)_n/n! · x^n/(a + n)`.
fn below(x: f64) -> f64 {
    let (mut sum, mut factor) = (0.0, 1.0);
    for n in 0..TERMS {
        let n = f64::from(n);
        sum += factor / (SHAPE + n);
        factor *= (n + 1.0 - SHAPE) / (n + 1.0) * x;
    }
    x.powf(SHAPE) * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_scipys() {
        for (part, expected) in [
            (0.01, 0.0008612388215429058),
            (0.1, 0.03958440558878086),
            (0.25, 0.17568037865269492),
            (0.5, 0.5),
            (0.77, 0.8461624142323501),
            (0.999, 0.9999814412614825),
        ] {
            let found = quantile(part);
            assert!((found - expected).abs() < 1e-14, "{part}: {found} {expected}");
        }
        assert_eq!([0.0, 1.0].map(quantile).map(|x| (x * 1e12).round()), [0.0, 1e12]);
    }
}
