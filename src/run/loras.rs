//! The models that LoRA files make of one.

use crate::{
    error::{Error, Result},
    models::Model,
    recipe::Loras,
};

/// The model as it is with these LoRA files.
pub type Adapted = (Loras, Box<dyn Model>);

/// The model a picture is made with, of `model` and it with LoRA files.
///
/// # Errors
/// [`Error::Model`] when it was not made with these: a bug of the caller.
pub fn with_loras<'m>(loras: &Loras, model: &'m dyn Model, adapted: &'m [Adapted]) -> Result<&'m dyn Model> {
    if loras.0.is_empty() {
        return Ok(model);
    }
    let found = adapted.iter().find(|(known, _)| known == loras).map(|(_, model)| &**model);
    found.ok_or_else(|| Error::model("the model was not opened with these LoRA files", "please report this"))
}
