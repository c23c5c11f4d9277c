//! Sizes of one picture in its three units: 16 px = 2 latents = 1 token, on each axis.
//!
//! Height always comes before width.

use crate::error::Error;

/// Pixels per token: the autoencoder's factor of 8, times patches of 2 x 2 latents.
pub const PX_PER_TOKEN: usize = 16;
/// Latent rows (or columns) per token.
pub const LATENTS_PER_TOKEN: usize = 2;
/// Pixels per latent row (or column): the autoencoder's spatial factor.
pub const PX_PER_LATENT: usize = PX_PER_TOKEN / LATENTS_PER_TOKEN;
/// Channels of FLUX's latents.
pub const LATENT_CHANNELS: usize = 16;
/// Channels of one packed token: 16 latent channels of a 2 x 2 patch.
pub const TOKEN_CHANNELS: usize = LATENT_CHANNELS * LATENTS_PER_TOKEN * LATENTS_PER_TOKEN;
/// The longest side that is accepted, in pixels: 4,096 tokens a side, 16 times what FLUX can be held together at.
pub const MAX_SIDE_PX: usize = 65_536;

/// The size of a picture in pixels, as asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Rows of pixels.
    pub height_px: usize,
    /// Columns of pixels.
    pub width_px: usize,
}

/// The size of the latents, in latent rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LatentSize {
    /// Latent rows, h.
    pub height: usize,
    /// Latent columns, w.
    pub width: usize,
}

/// A side that no picture can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidSide {
    /// "height" or "width".
    pub name: &'static str,
    /// What was asked, in pixels.
    pub px: usize,
}

/// The grid of image tokens (patches).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenGrid {
    /// Rows of patches.
    pub height_patches: usize,
    /// Columns of patches.
    pub width_patches: usize,
}

impl ImageSize {
    /// A size from pixels.
    ///
    /// # Errors
    /// [`InvalidSide`] when a side is below 16 px or above [`MAX_SIDE_PX`].
    pub fn new(height_px: usize, width_px: usize) -> Result<Self, InvalidSide> {
        for (name, px) in [("height", height_px), ("width", width_px)] {
            if !(PX_PER_TOKEN..=MAX_SIDE_PX).contains(&px) {
                return Err(InvalidSide { name, px });
            }
        }
        Ok(Self { height_px, width_px })
    }

    /// The grid that covers this size: each side rounded up to whole tokens.
    pub fn tokens(&self) -> TokenGrid {
        TokenGrid {
            height_patches: self.height_px.div_ceil(PX_PER_TOKEN),
            width_patches: self.width_px.div_ceil(PX_PER_TOKEN),
        }
    }

    /// The size that is computed: each side rounded up to the next multiple of 16 px.
    pub fn computed(&self) -> ImageSize {
        self.tokens().image()
    }

    /// Whether the computed picture is larger than what was asked, and must be cropped.
    pub fn is_cropped(&self) -> bool {
        self.computed() != *self
    }
}

impl TokenGrid {
    /// Number of image tokens.
    pub fn count(&self) -> usize {
        self.height_patches * self.width_patches
    }

    /// The latents these tokens are packed from.
    pub fn latents(&self) -> LatentSize {
        LatentSize { height: self.height_patches * LATENTS_PER_TOKEN, width: self.width_patches * LATENTS_PER_TOKEN }
    }

    /// The picture these tokens decode to.
    pub fn image(&self) -> ImageSize {
        ImageSize { height_px: self.height_patches * PX_PER_TOKEN, width_px: self.width_patches * PX_PER_TOKEN }
    }
}

impl LatentSize {
    /// The shape of the unpacked latents: [1, 16, h, w].
    pub fn shape(&self) -> [usize; 4] {
        [1, LATENT_CHANNELS, self.height, self.width]
    }
}

impl std::fmt::Display for InvalidSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: a side is {PX_PER_TOKEN} to {MAX_SIDE_PX} pixels", self.name, self.px)
    }
}

impl std::error::Error for InvalidSide {}

impl From<InvalidSide> for Error {
    fn from(side: InvalidSide) -> Self {
        Self::request(side.to_string(), "choose a size such as --height 4096 --width 4096")
    }
}

impl std::fmt::Display for ImageSize {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.height_px, self.width_px)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_units_agree() {
        let tokens = ImageSize::new(4096, 2048).expect("valid").tokens();
        assert_eq!((tokens.height_patches, tokens.width_patches), (256, 128));
        assert_eq!(tokens.count(), 32_768);
        assert_eq!(tokens.latents().shape(), [1, 16, 512, 256]);
        assert_eq!(tokens.image(), ImageSize { height_px: 4096, width_px: 2048 });
    }

    #[test]
    fn odd_sizes_are_computed_at_the_next_multiple() {
        let size = ImageSize::new(17, 1000).expect("valid");
        assert_eq!(size.computed(), ImageSize { height_px: 32, width_px: 1008 });
        assert!(size.is_cropped());
        assert!(!ImageSize::new(16, 32).expect("valid").is_cropped());
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_range() {
        for (height, width) in [(0, 64), (64, 15), (1_000_000_000, 64), (64, 65_537)] {
            let error = ImageSize::new(height, width).expect_err("impossible");
            assert!(error.to_string().contains("16 to 65536"), "{error}");
        }
    }
}
