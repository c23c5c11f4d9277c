//! LoRA files and their kin: small files that change some of a model's linear layers. Nothing here knows a family of models:
//! a [`Network`] says what layers it has and how other layouts call them, and a file's names are looked up among those.
//!
//! What a name ends with says which piece of a change a tensor is (`keys`), what stands before it which layer (`names`); the
//! pieces make a change of some kind (`kinds`) whose shapes must fit (`shapes`), for every file and layer before any number is
//! read (`fit`), and the arrays of it are made when they are asked for (`made`). The result decorates the network's source
//! ([`Adapted`]): who loads a linear layer from it asks for what is added, and norms are read with it.

mod adapted;
mod change;
mod file;
mod fit;
mod keys;
mod kinds;
mod made;
mod merge;
mod names;
mod numbers;
mod shapes;
mod summary;

pub use adapted::Adapted;
pub use change::{Adapter, Change, Piece};
pub use file::{LoraFile, peft_settings, sha256_of};
pub use fit::Fitted;
pub use merge::{Merge, bias, gain};
pub use names::{Alias, Layer, LayerKind, Network, TRANSFORMER};
pub use summary::Summary;
