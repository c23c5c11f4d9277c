//! `--int8-products`: where it may be asked for, and what it implies.

use super::{
    device::DtypeArg,
    items::{Planned, Wish},
    report::Report,
};
use crate::{
    base::{
        device::DeviceKind,
        progress::{Event, Observer},
    },
    error::{Error, Result},
    models::Model,
    nn,
    weights::{BlockType, lora::Network},
};

/// The first picture that asks for them, and how many do.
fn wanted<'a>(wishes: impl IntoIterator<Item = &'a Wish>) -> Option<(&'a Wish, usize)> {
    let mut asking = wishes.into_iter().filter(|wish| wish.asked.wanted.int8_products == Some(true));
    asking.next().map(|first| (first, 1 + asking.count()))
}

/// The number type that is asked for: bf16, where all pictures have products of 8 bits and nobody says another.
///
/// # Errors
/// [`Error::Request`] for such products on a device that is no CPU, beside a number type that nothing is rounded to, or for some of
/// the pictures alone where no number type is said.
pub fn dtype(wishes: &[Wish], asked: Option<DtypeArg>, kind: DeviceKind, report: &Report) -> Result<Option<DtypeArg>> {
    let Some((wish, count)) = wanted(wishes) else { return Ok(asked) };
    if !kind.is_cpu() {
        return Err(wish.named(Error::request(
            format!("--int8-products is for the CPU, and the device is {}", kind.name()),
            "add --device cpu, or leave it out: a card multiplies weights in Q8_0 in the number type of --dtype",
        )));
    }
    match asked {
        Some(DtypeArg::F32 | DtypeArg::F16) => {
            return Err(wish.named(Error::request(
                "--int8-products rounds to 8 bits what --dtype bf16 rounds to 16, and another --dtype rounds nothing",
                "leave one of the two out; --int8-products alone computes in bf16",
            )));
        }
        None if count < wishes.len() => {
            return Err(wish.named(Error::request(
                format!("--int8-products, which implies --dtype bf16, for {count} of {} pictures", wishes.len()),
                "add --dtype bf16 for all of them, or make them in runs of their own",
            )));
        }
        None | Some(DtypeArg::Bf16) => {}
    }
    if let Some(why) = slow_because() {
        report.on(Event::Note(format!(
            "{why}: --int8-products makes the picture it makes elsewhere, slower than --dtype bf16 alone; leave it out unless it must be \
             this picture"
        )));
    }
    Ok(Some(DtypeArg::Bf16))
}

/// Why they are slower here than products of bf16, where they are.
fn slow_because() -> Option<&'static str> {
    if nn::matrix_unit().is_some() {
        return Some("this processor's matrix unit multiplies in bf16");
    }
    (!nn::has_int8()).then_some("this processor has no AVX512-VNNI")
}

/// Where they are asked for, that the transformer has weights that they are made of.
///
/// # Errors
/// [`Error::Request`] where it has none; [`Error::Model`] when a configuration makes no sense.
pub fn check_weights(planned: &[Planned], model: &dyn Model) -> Result<()> {
    let Some((wish, _)) = wanted(planned.iter().map(|one| &one.wish)) else { return Ok(()) };
    if model.networks()?.first().is_some_and(holds_q8_0) {
        return Ok(());
    }
    Err(wish.named(Error::request(
        "--int8-products multiplies weights in Q8_0, and the transformer has none",
        "`dype convert MODEL -o FILE.gguf --type q8_0` writes such a file, and --part transformer=FILE.gguf takes it; or leave it out",
    )))
}

fn holds_q8_0(network: &Network) -> bool {
    let mut layers = network.layers.iter();
    layers.any(|layer| network.source.blocks(&format!("{}.weight", layer.name)) == Some(BlockType::Q8_0))
}
