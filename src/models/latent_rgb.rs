//! What colour latents have: a linear map that a family gives, and that an autoencoder's config may replace.

use std::borrow::Cow;

use serde_json::Value;

use crate::error::{Error, Result};

/// A linear map from latent channels to RGB in [-1, 1]: `rgb = latents · factors + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct RgbFactors {
    /// One row of (red, green, blue) for each latent channel [C, 3]; none where they are not known here.
    pub factors: Cow<'static, [[f32; 3]]>,
    /// Colour of latents that are 0: red, green, blue.
    pub bias: [f32; 3],
}

impl RgbFactors {
    /// Of latents whose colours are not known here: there are no previews.
    pub const UNKNOWN: Self = Self { factors: Cow::Borrowed(&[]), bias: [0.0; 3] };

    /// Whether they are known.
    pub fn is_known(&self) -> bool {
        !self.factors.is_empty()
    }

    /// The factors that an autoencoder's `config.json` carries: `latent_rgb_factors`, a row of 3 for each of its `channels`,
    /// and, 0 where it is missing, `latent_rgb_factors_bias`, 3 numbers. `None` where it carries none.
    ///
    /// # Errors
    /// [`Error::Model`] when they are not finite numbers of these shapes.
    pub fn from_config(config: &Value, channels: usize) -> Result<Option<Self>> {
        let Some(rows) = config.get("latent_rgb_factors").filter(|value| !value.is_null()) else { return Ok(None) };
        let factors = rows.as_array().and_then(|rows| rows.iter().map(triple).collect::<Option<Vec<_>>>());
        let factors = factors
            .filter(|rows| rows.len() == channels)
            .ok_or_else(|| wrong_config(&format!("latent_rgb_factors is not {channels} rows of 3 finite numbers")))?;
        let bias = match config.get("latent_rgb_factors_bias").filter(|value| !value.is_null()) {
            Some(bias) => {
                triple(bias).ok_or_else(|| wrong_config("latent_rgb_factors_bias is not 3 finite numbers"))?
            }
            None => [0.0; 3],
        };
        Ok(Some(Self { factors: factors.into(), bias }))
    }
}

fn triple(value: &Value) -> Option<[f32; 3]> {
    let numbers = value.as_array()?.iter().map(|number| number.as_f64().map(|x| x as f32));
    let numbers: Vec<f32> = numbers.collect::<Option<_>>()?;
    numbers.try_into().ok().filter(|triple: &[f32; 3]| triple.iter().all(|x| x.is_finite()))
}

fn wrong_config(what: &str) -> Error {
    Error::model(
        format!("the autoencoder's config.json: {what}"),
        "correct it, or remove the key for the model's own factors",
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn from_config(config: &Value) -> Result<Option<RgbFactors>> {
        RgbFactors::from_config(config, 16)
    }

    #[test]
    fn a_config_may_bring_its_own_factors() {
        assert_eq!(from_config(&json!({ "scaling_factor": 0.3611 })).expect("none"), None);
        let rows = vec![[0.5, 0.0, -0.5]; 16];
        let found = from_config(&json!({ "latent_rgb_factors": rows })).expect("reads");
        assert_eq!(found, Some(RgbFactors { factors: vec![[0.5, 0.0, -0.5]; 16].into(), bias: [0.0; 3] }));
        let biased = json!({ "latent_rgb_factors": rows, "latent_rgb_factors_bias": [0.1, 0.2, 0.25] });
        assert_eq!(from_config(&biased).expect("reads").map(|f| f.bias), Some([0.1, 0.2, 0.25]));
        for wrong in [
            json!({ "latent_rgb_factors": vec![[0.5, 0.0, -0.5]; 4] }),
            json!({ "latent_rgb_factors": vec![[0.5, 0.0]; 16] }),
            json!({ "latent_rgb_factors": "many" }),
            json!({ "latent_rgb_factors": vec![[1e300, 0.0, 0.0]; 16] }),
            json!({ "latent_rgb_factors": rows, "latent_rgb_factors_bias": 1 }),
        ] {
            let error = from_config(&wrong).expect_err("wrong");
            assert!(error.to_string().contains("latent_rgb_factors"), "{error}");
        }
    }
}
