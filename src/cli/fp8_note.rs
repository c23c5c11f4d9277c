//! What there is to tell of products in fp8 that are asked for and cannot be had.

use crate::{
    base::device::DeviceKind,
    error::Result,
    models::Model,
    nn::kernels::fp8,
    run::Item,
    weights::{Float8, lora::Network},
};

/// Told once, where some picture asks for them: what keeps them from being computed so. They are computed as ever then.
///
/// # Errors
/// [`crate::Error::Model`] when a configuration makes no sense.
pub fn unused(items: &[Item], model: &dyn Model, kind: DeviceKind) -> Result<Option<String>> {
    if !items.iter().any(|item| item.recipe.fp8_products) {
        return Ok(None);
    }
    if !fp8::is_on(kind) {
        let device = match kind {
            DeviceKind::Cuda { capability: (major, minor) } => format!("this card's is {major}.{minor}"),
            DeviceKind::Cpu | DeviceKind::Metal => format!("this device is {}", kind.name()),
        };
        return Ok(Some(format!(
            "--fp8-products changes nothing: it is for CUDA cards from compute capability 8.9 on, and {device}"
        )));
    }
    let networks = model.networks()?;
    let is_held = networks.first().is_some_and(holds_e4m3);
    Ok((!is_held).then(|| {
        "--fp8-products changes nothing: no weight of the transformer is fp8_e4m3fn (`dype convert --type fp8` writes such a file)".into()
    }))
}

fn holds_e4m3(network: &Network) -> bool {
    let mut layers = network.layers.iter();
    layers.any(|layer| network.source.float8(&format!("{}.weight", layer.name)) == Some(Float8::E4M3))
}
