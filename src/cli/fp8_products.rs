//! Products in fp8 that are asked for and cannot be had are refused, before anything is loaded.

use super::items::{Planned, Wish};
use crate::{
    base::device::DeviceKind,
    error::{Error, Result},
    models::Model,
    nn::kernels::fp8,
    weights::{Float8, lora::Network},
};

/// The first picture that asks for them.
pub fn wanted<'a>(wishes: impl IntoIterator<Item = &'a Wish>) -> Option<&'a Wish> {
    wishes.into_iter().find(|wish| wish.asked.wanted.fp8_products == Some(true))
}

/// Where they are asked for, that a device of this kind has them.
///
/// # Errors
/// [`Error::Request`] where it has none.
pub fn check_device(wishes: &[Wish], kind: DeviceKind) -> Result<()> {
    let Some(wish) = wanted(wishes).filter(|_| !fp8::is_on(kind)) else { return Ok(()) };
    let found = match kind {
        DeviceKind::Cuda { capability: (major, minor) } => format!("this card's is {major}.{minor}"),
        DeviceKind::Cpu | DeviceKind::Metal => format!("the device is {}", kind.name()),
    };
    Err(wish.named(Error::request(
        format!("--fp8-products is for CUDA cards of compute capability 8.9 and newer (RTX 40, H100), and {found}"),
        "leave it out for products of numbers as --dtype says; a picture that was made with it is made again on such a card alone",
    )))
}

/// Where they are asked for, that the transformer has weights that they are made of.
///
/// # Errors
/// [`Error::Request`] where it has none; [`Error::Model`] when a configuration makes no sense.
pub fn check_weights(planned: &[Planned], model: &dyn Model) -> Result<()> {
    let Some(wish) = wanted(planned.iter().map(|one| &one.wish)) else { return Ok(()) };
    if model.networks()?.first().is_some_and(holds_e4m3) {
        return Ok(());
    }
    Err(wish.named(Error::request(
        "--fp8-products multiplies weights of fp8_e4m3fn, and the transformer has none",
        "`dype convert MODEL -o FILE --type fp8` writes such a file, and --part transformer=FILE takes it; or leave the flag out",
    )))
}

fn holds_e4m3(network: &Network) -> bool {
    let mut layers = network.layers.iter();
    layers.any(|layer| network.source.float8(&format!("{}.weight", layer.name)) == Some(Float8::E4M3))
}
