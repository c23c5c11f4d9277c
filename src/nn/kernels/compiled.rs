//! Holds the text of a kernel that is launched to its source.

use sha2::{Digest, Sha256};

use crate::base::hex::hex;

/// That `compiled` was made of this source, the file `name`, whose constants are these.
pub fn check(name: &str, source: &str, compiled: &str, constants: &[(&str, usize)]) {
    let digest = hex(&Sha256::digest(source));
    let first = compiled.lines().next().unwrap_or_default();
    assert!(first.ends_with(&digest), "{name} has changed since '{first}': run tools/cuda/kernels.sh");
    for (name, value) in constants {
        assert!(source.contains(&format!("constexpr int {name} = {value};")), "{name}");
    }
}
