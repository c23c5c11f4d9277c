//! Where one part of a model is, for which the others need not be there.

use std::{collections::BTreeMap, sync::Arc};

use super::{Family, Found, Identity, ModelRequest, PartKind, PartSpec, Place, find::Finder};
use crate::{
    error::{Error, Result},
    weights::TensorSource,
};

/// A part of a family's models, and where it is.
pub(super) type FoundPart = (&'static dyn Family, Found, &'static PartSpec);

/// Where a part is that `path` names: the model that holds it, of which it is the transformer where no `name` says otherwise, or its
/// own file, which may be the same part of several families.
///
/// # Errors
/// [`Error::Model`] when there is none; [`Error::Request`] for a part that the model's family has not.
pub(super) fn part(
    request: &ModelRequest,
    name: Option<&str>,
    families: &[&'static dyn Family],
) -> Result<Vec<FoundPart>> {
    let finder = match Finder::new(request, families) {
        Ok(finder) => finder,
        Err(error) => return Some(own_file(request, name, families)).filter(|found| !found.is_empty()).ok_or(error),
    };
    let family = finder.family();
    let is_wanted = |part: &&PartSpec| name.map_or(part.kind == PartKind::Denoiser, |name| part.name == name);
    let Some(part) = family.parts().iter().find(is_wanted) else {
        let names: Vec<_> = family.parts().iter().filter(|part| part.has_weights()).map(|part| part.name).collect();
        let what = format!("--part {}: a {} model has no such part", name.unwrap_or_default(), family.name());
        return Err(Error::request(what, format!("its networks are {}", names.join(", "))));
    };
    Ok(vec![(family, finder.found(|other| other.name == part.name)?, part)])
}

/// A file that holds a network which is no transformer.
fn own_file(request: &ModelRequest, name: Option<&str>, families: &[&'static dyn Family]) -> Vec<FoundPart> {
    let Ok(store) = request.files.open(std::slice::from_ref(&request.model)) else { return Vec::new() };
    let source: Arc<dyn TensorSource> = Arc::new(store);
    let all = families.iter().flat_map(|family| family.parts().iter().map(move |part| (*family, part)));
    let is_it = |part: &PartSpec| {
        part.kind == PartKind::Network && name.is_none_or(|name| part.name == name) && (part.is_inside)(&source)
    };
    let place = || Place::File(request.model.clone());
    all.filter(|(_, part)| is_it(part)).map(|(family, part)| (family, alone(request, part, place()), part)).collect()
}

/// One part, and nothing else.
fn alone(request: &ModelRequest, part: &PartSpec, place: Place) -> Found {
    let model = request.model.display().to_string();
    let (parts, variants) = (BTreeMap::new(), BTreeMap::new());
    let identity = Identity { model, revision: None, layout: "diffusers", parts, variants };
    Found::of(identity, request.files.clone(), BTreeMap::from([(part.name, place)]))
}
