//! Sizes of one picture in its three units: pixels, latents and tokens. How many of one make another is data of the model
//! ([`LatentGeometry`]); for FLUX.1 it is 16 px = 2 latents = 1 token, on each axis.
//!
//! Height always comes before width.

use crate::error::Error;

/// The shortest side that is accepted, in pixels: a token of FLUX.1. A model of larger tokens asks for more
/// ([`LatentGeometry::least_side_px`]).
pub const MIN_SIDE_PX: usize = 16;
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
    /// The shortest side that would do, in pixels.
    pub least_px: usize,
}

/// The grid of image tokens (patches).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenGrid {
    /// Rows of patches.
    pub height_patches: usize,
    /// Columns of patches.
    pub width_patches: usize,
}

/// How a model's pixels become latents, and its latents tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LatentGeometry {
    /// Channels of the latents, C.
    pub channels: usize,
    /// Pixels per latent row (or column): the autoencoder's spatial factor.
    pub px_per_latent: usize,
    /// Latent rows (or columns) per token, P.
    pub patch: usize,
}

impl ImageSize {
    /// A size from pixels.
    ///
    /// # Errors
    /// [`InvalidSide`] when a side is below [`MIN_SIDE_PX`] or above [`MAX_SIDE_PX`].
    pub fn new(height_px: usize, width_px: usize) -> Result<Self, InvalidSide> {
        Self { height_px, width_px }.check(MIN_SIDE_PX)
    }

    /// The longer side in pixels.
    pub fn longer_px(self) -> usize {
        self.height_px.max(self.width_px)
    }

    fn check(self, least_px: usize) -> Result<Self, InvalidSide> {
        for (name, px) in [("height", self.height_px), ("width", self.width_px)] {
            if !(least_px..=MAX_SIDE_PX).contains(&px) {
                return Err(InvalidSide { name, px, least_px });
            }
        }
        Ok(self)
    }
}

impl LatentGeometry {
    /// Pixels per token, on each axis.
    pub fn px_per_token(&self) -> usize {
        self.px_per_latent * self.patch
    }

    /// Channels of one packed token: C latent channels of a patch of P x P.
    pub fn token_channels(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    /// The shortest side a picture can have: one token.
    pub fn least_side_px(&self) -> usize {
        self.px_per_token()
    }

    /// Checks that no side of a picture is shorter than a token.
    ///
    /// # Errors
    /// [`InvalidSide`] that names the side.
    pub fn check(&self, size: ImageSize) -> Result<(), InvalidSide> {
        size.check(self.least_side_px()).map(|_| ())
    }

    /// The grid that covers a picture: each side rounded up to whole tokens.
    pub fn tokens(&self, size: ImageSize) -> TokenGrid {
        TokenGrid {
            height_patches: size.height_px.div_ceil(self.px_per_token()),
            width_patches: size.width_px.div_ceil(self.px_per_token()),
        }
    }

    /// The latents a grid of tokens is packed from.
    pub fn latents(&self, grid: TokenGrid) -> LatentSize {
        LatentSize { height: grid.height_patches * self.patch, width: grid.width_patches * self.patch }
    }

    /// The shape of the unpacked latents of a grid: [1, C, h, w].
    pub fn latents_shape(&self, grid: TokenGrid) -> [usize; 4] {
        let LatentSize { height, width } = self.latents(grid);
        [1, self.channels, height, width]
    }

    /// The shape of the packed latents of a grid: [1, N, C·P·P].
    pub fn packed_shape(&self, grid: TokenGrid) -> [usize; 3] {
        [1, grid.count(), self.token_channels()]
    }

    /// The picture a grid of tokens decodes to.
    pub fn image(&self, grid: TokenGrid) -> ImageSize {
        ImageSize {
            height_px: grid.height_patches * self.px_per_token(),
            width_px: grid.width_patches * self.px_per_token(),
        }
    }

    /// The size that is computed: each side rounded up to the next whole token.
    pub fn computed(&self, size: ImageSize) -> ImageSize {
        self.image(self.tokens(size))
    }
}

impl TokenGrid {
    /// Number of image tokens, N.
    pub fn count(&self) -> usize {
        self.height_patches * self.width_patches
    }
}

impl std::fmt::Display for InvalidSide {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: a side is {} to {MAX_SIDE_PX} pixels", self.name, self.px, self.least_px)
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

    /// FLUX.1's.
    const FLUX: LatentGeometry = LatentGeometry { channels: 16, px_per_latent: 8, patch: 2 };

    #[test]
    fn three_units_agree() {
        let tokens = FLUX.tokens(ImageSize::new(4096, 2048).expect("valid"));
        assert_eq!((tokens.height_patches, tokens.width_patches), (256, 128));
        assert_eq!(tokens.count(), 32_768);
        assert_eq!(FLUX.latents_shape(tokens), [1, 16, 512, 256]);
        assert_eq!(FLUX.packed_shape(tokens), [1, 32_768, 64]);
        assert_eq!(FLUX.image(tokens), ImageSize { height_px: 4096, width_px: 2048 });
    }

    #[test]
    fn odd_sizes_are_computed_at_the_next_multiple() {
        let size = ImageSize::new(17, 1000).expect("valid");
        assert_eq!(FLUX.computed(size), ImageSize { height_px: 32, width_px: 1008 });
        let even = ImageSize::new(16, 32).expect("valid");
        assert_eq!(FLUX.computed(even), even);
        let unpatched = LatentGeometry { channels: 3, px_per_latent: 4, patch: 1 };
        assert_eq!(unpatched.computed(size), ImageSize { height_px: 20, width_px: 1000 });
        assert_eq!((unpatched.token_channels(), unpatched.latents(unpatched.tokens(even)).width), (3, 8));
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_range() {
        for (height, width) in [(0, 64), (64, 15), (1_000_000_000, 64), (64, 65_537)] {
            let error = ImageSize::new(height, width).expect_err("impossible");
            assert!(error.to_string().contains("16 to 65536"), "{error}");
        }
        let coarse = LatentGeometry { px_per_latent: 16, ..FLUX };
        let error = coarse.check(ImageSize { height_px: 64, width_px: 31 }).expect_err("less than a token");
        assert_eq!(error.to_string(), "width 31: a side is 32 to 65536 pixels");
        assert_eq!(FLUX.check(ImageSize { height_px: 16, width_px: 16 }), Ok(()));
    }
}
