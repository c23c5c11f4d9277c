//! A model with LoRA files: which of them fits it, and the same model with what they add to its layers.

use std::{collections::HashMap, sync::Arc};

use super::{Model, strangers};
use crate::{
    base::shown::shown,
    error::{Error, Result},
    weights::{
        TensorSource,
        lora::{Adapted, Adapter, Fitted, LoraFile, Network},
    },
};

/// Names of tensors that a message shows.
const SHOWN: usize = 3;

/// A model's networks with what LoRA files add to them.
pub struct Adaptation {
    /// Their tensors, in the order of [`Model::networks`].
    pub sources: Vec<Arc<dyn TensorSource>>,
    /// What there is to tell.
    pub remarks: Vec<String>,
}

/// What these files, each at its strength, add to a model. Nothing but headers is read.
///
/// # Errors
/// [`Error::Model`] for a file of another model, one that changes nothing of this one, or with a piece that does not fit.
pub fn adapt(model: &dyn Model, loras: &[(LoraFile, f64)]) -> Result<Adaptation> {
    let networks = model.networks()?;
    if let (true, Some((file, _))) = (networks.is_empty(), loras.first()) {
        let what = format!("the LoRA {}: LoRA files cannot change models of this family yet", file.name());
        return Err(Error::model(what, "leave --lora away, or take another model"));
    }
    let mut adapters: Vec<HashMap<String, Vec<Adapter>>> = networks.iter().map(|_| HashMap::new()).collect();
    let mut remarks = Vec::new();
    for (file, strength) in loras {
        let fitted = file.fit(&networks, *strength)?;
        check_family(file, &fitted)?;
        remarks.extend(unused(file, &fitted));
        remarks.extend(decomposed(file, &fitted, *strength));
        add(&mut adapters, fitted);
    }
    let sources = networks.into_iter().zip(adapters).map(|(network, adapters)| adapted(network, adapters)).collect();
    Ok(Adaptation { sources, remarks })
}

/// What these files add to one network of a model, whose others are not at hand: its tensors with that, and what there is to tell.
///
/// # Errors
/// As [`adapt`]; [`Error::Model`] for a file that changes nothing of this network.
pub fn adapt_part(network: Network, loras: &[(LoraFile, f64)]) -> Result<(Arc<dyn TensorSource>, Vec<String>)> {
    let (mut adapters, mut remarks) = (vec![HashMap::new()], Vec::new());
    for (file, strength) in loras {
        let mut fitted = file.fit(std::slice::from_ref(&network), *strength)?;
        let all = fitted.unknown.len();
        fitted.unknown.retain(|name| network.is_addressed(name));
        let elsewhere = all - fitted.unknown.len();
        fitted.unused.retain(|name| network.is_addressed(name));
        if fitted.known == 0 && fitted.unknown.is_empty() {
            let what = format!("the LoRA {} changes nothing of the {}", file.name(), network.part);
            return Err(Error::model(what, "leave --lora away, or name the part it changes with --part"));
        }
        check_family(file, &fitted)?;
        remarks.extend(unused(file, &fitted));
        remarks.extend((elsewhere > 0).then(|| {
            format!(
                "the LoRA {}: of its layers {elsewhere} are of other parts than the {}, which are converted by themselves",
                file.name(),
                network.part
            )
        }));
        remarks.extend(decomposed(file, &fitted, *strength));
        add(&mut adapters, fitted);
    }
    Ok((adapted(network, adapters.remove(0)), remarks))
}

/// Adds the changes of one more file to those of each network.
fn add(adapters: &mut [HashMap<String, Vec<Adapter>>], fitted: Fitted) {
    for (all, one) in adapters.iter_mut().zip(fitted.adapters) {
        one.into_iter().for_each(|(layer, added)| all.entry(layer).or_default().extend(added));
    }
}

/// The sources of a model's N networks, in the order of [`Model::networks`].
///
/// # Errors
/// [`Error::Model`] when there are not so many: a bug of the caller.
pub fn of_networks<const N: usize>(sources: Vec<Arc<dyn TensorSource>>) -> Result<[Arc<dyn TensorSource>; N]> {
    let found = sources.len();
    let wrong = |_| Error::model(format!("{found} sources for {N} networks"), "please report this");
    sources.try_into().map_err(wrong)
}

fn adapted(network: Network, adapters: HashMap<String, Vec<Adapter>>) -> Arc<dyn TensorSource> {
    if adapters.is_empty() {
        return network.source;
    }
    Arc::new(Adapted::new(network.source, adapters, &network.layers))
}

/// Refuses a file most of whose layers this model has not: what names two families share must not pass for a fit.
fn check_family(file: &LoraFile, fitted: &Fitted) -> Result<()> {
    let (known, unknown) = (fitted.known, fitted.unknown.len());
    let all = known + unknown;
    if known > unknown {
        return Ok(());
    }
    if let (0, Some(half)) = (all, fitted.halves.first()) {
        let what = format!(
            "the LoRA {}: none of its {} layers is whole, not {half}: of each a tensor is missing (it has {})",
            file.name(),
            fitted.halves.len(),
            shown(&fitted.unused, SHOWN)
        );
        return Err(Error::model(what, "the file is damaged, or half of it lies in another; fetch it again"));
    }
    if let (true, Some(prefix)) = (2 * known < all, &fitted.strange_prefix) {
        let what = format!(
            "the LoRA {}: the names of its layers begin with {prefix:?}, which is not known, and then as this model's do",
            file.name()
        );
        let hint = "take one whose names begin as diffusers', ComfyUI's or kohya's do (transformer., diffusion_model., \
                    lora_unet_), or rename its tensors";
        return Err(Error::model(what, hint));
    }
    let looks = strangers::lora_of(&fitted.unused)
        .map_or_else(String::new, |family| format!("; it looks like one of {family}"));
    let shown = fitted.unused.first().map_or_else(String::new, |name| format!(", not {name}"));
    let has = if known == 0 { "none".to_owned() } else { format!("only {known}") };
    let what = format!(
        "the LoRA {} was made for another model: of the {all} layers it changes, this model has {has}{shown}{looks}",
        file.name()
    );
    Err(Error::model(what, "take a LoRA that was made for this model, or the model that it was made for"))
}

/// Tells of tensors that change nothing.
fn unused(file: &LoraFile, fitted: &Fitted) -> Option<String> {
    let (count, all) = (fitted.unused.len(), file.tensors());
    (count > 0).then(|| {
        format!(
            "the LoRA {}: {count} of its {all} tensors change nothing of this model: {}",
            file.name(),
            shown(&fitted.unused, SHOWN)
        )
    })
}

/// Tells what a strength means where it is no plain factor.
fn decomposed(file: &LoraFile, fitted: &Fitted, strength: f64) -> Option<String> {
    (fitted.is_decomposed() && strength != 1.0).then(|| {
        format!(
            "the LoRA {} is a DoRA: its strength {strength} acts on the directions of weights and not on their lengths, as in peft; \
             other programs read strengths of DoRA in other ways",
            file.name()
        )
    })
}
