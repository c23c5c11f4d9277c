//! Products of codes (`--fp8-products`, `--int8-products`): where they cannot be had they are refused, before anything is loaded.

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
    nn::{self, kernels::fp8},
    recipe::Wanted,
    weights::{BlockType, Float8, lora::Network},
};

/// One kind of them.
pub struct Kind {
    asked: fn(&Wanted) -> Option<bool>,
    /// Whether a network holds this weight in such codes.
    holds: fn(&Network, &str) -> bool,
    /// What is told where no weight is.
    lacking: [&'static str; 2],
}

/// `--fp8-products`
pub const FP8: Kind = Kind {
    asked: |wanted| wanted.fp8_products,
    holds: |network, weight| network.source.float8(weight) == Some(Float8::E4M3),
    lacking: [
        "--fp8-products multiplies weights of fp8_e4m3fn, and the transformer has none",
        "`dype convert MODEL -o FILE --type fp8` writes such a file, and --part transformer=FILE takes it; or leave the flag out (--no-fp8-products \
         where a picture says it)",
    ],
};

/// `--int8-products`
const INT8: Kind = Kind {
    asked: |wanted| wanted.int8_products,
    holds: |network, weight| network.source.blocks(weight) == Some(BlockType::Q8_0),
    lacking: [
        "--int8-products multiplies weights in Q8_0, and the transformer has none",
        "`dype convert MODEL -o FILE.gguf --type q8_0` writes such a file, and --part transformer=FILE.gguf takes it; or leave it out (--no-int8-products \
         where a picture says it)",
    ],
};

impl Kind {
    /// The pictures that ask for them.
    pub fn wanted<'a>(&self, wishes: impl IntoIterator<Item = &'a Wish>) -> impl Iterator<Item = &'a Wish> {
        let asked = self.asked;
        wishes.into_iter().filter(move |wish| asked(&wish.asked.wanted) == Some(true))
    }

    fn is_held_by(&self, network: &Network) -> bool {
        network.layers.iter().any(|layer| (self.holds)(network, &format!("{}.weight", layer.name)))
    }
}

/// Where products in fp8 are asked for, that a device of this kind has them.
///
/// # Errors
/// [`Error::Request`] where it has none.
pub fn check_fp8(wishes: &[Wish], kind: DeviceKind) -> Result<()> {
    let Some(wish) = FP8.wanted(wishes).next().filter(|_| !fp8::is_on(kind)) else { return Ok(()) };
    let found = match kind {
        DeviceKind::Cuda { capability: (major, minor) } => format!("this card's is {major}.{minor}"),
        DeviceKind::Cpu | DeviceKind::Metal => format!("the device is {}", kind.name()),
    };
    Err(wish.named(Error::request(
        format!("--fp8-products is for CUDA cards of compute capability 8.9 and newer (RTX 40, H100), and {found}"),
        "leave it out for products of numbers as --dtype says; a picture that says it is made again on such a card alone, and with \
         --no-fp8-products one near it",
    )))
}

/// Where products of codes are asked for, that the transformer has weights that they are made of.
///
/// # Errors
/// [`Error::Request`] where it has none; [`Error::Model`] when a configuration makes no sense.
pub fn check_weights(planned: &[Planned], model: &dyn Model) -> Result<()> {
    for kind in [FP8, INT8] {
        let Some(wish) = kind.wanted(planned.iter().map(|one| &one.wish)).next() else { continue };
        if !model.networks()?.first().is_some_and(|network| kind.is_held_by(network)) {
            let [what, hint] = kind.lacking;
            return Err(wish.named(Error::request(what, hint)));
        }
    }
    Ok(())
}

/// The number type that is asked for: bf16, where all pictures have products of 8 bits and nobody says another.
///
/// # Errors
/// [`Error::Request`] for such products on a device that is no CPU, beside a number type that nothing is rounded to, or for some of
/// the pictures alone where no number type is said.
pub fn dtype(wishes: &[Wish], asked: Option<DtypeArg>, kind: DeviceKind, report: &Report) -> Result<Option<DtypeArg>> {
    let Some(wish) = INT8.wanted(wishes).next() else { return Ok(asked) };
    if !kind.is_cpu() {
        return Err(wish.named(Error::request(
            format!("--int8-products is for the CPU, and the device is {}", kind.name()),
            "add --device cpu, or leave it out (--no-int8-products where a picture says it): a card \
              multiplies weights in Q8_0 in the number type of --dtype",
        )));
    }
    match asked {
        Some(DtypeArg::F32 | DtypeArg::F16) => {
            return Err(wish.named(Error::request(
                "--int8-products rounds to 8 bits what --dtype bf16 rounds to 16, and another --dtype rounds nothing",
                "leave one of the two out; --int8-products alone computes in bf16",
            )));
        }
        None if INT8.wanted(wishes).count() < wishes.len() => {
            let (count, all) = (INT8.wanted(wishes).count(), wishes.len());
            return Err(wish.named(Error::request(
                format!("--int8-products, which implies --dtype bf16, for {count} of {all} pictures"),
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
