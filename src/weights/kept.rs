//! A source of tensors that holds what was loaded of it, so that networks over it share their weights: models that LoRA files make of
//! one, which differ in what is added beside.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use candle_core::{DType, Device, DeviceLocation, Tensor};

use super::TensorSource;
use crate::error::Result;

/// Which tensor, in what and where.
type Key = (String, Form);

/// How a tensor was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    Numbers(DType, DeviceLocation),
    /// All rows of it as they are stored.
    Blocks,
}

/// A source, and what is held of it.
pub struct Kept {
    inner: Arc<dyn TensorSource>,
    /// `None` while nothing is to be held.
    held: Mutex<Option<HashMap<Key, Tensor>>>,
    /// Whether blocks are held too: on a device they get another form, and those read here would be held beside it.
    holds_blocks: bool,
}

impl Kept {
    /// For networks on this device. Nothing is held yet.
    pub fn new(inner: Arc<dyn TensorSource>, device: &Device) -> Self {
        Self { inner, held: Mutex::new(None), holds_blocks: device.is_cpu() }
    }

    /// Holds what is loaded from now on.
    pub fn keep(&self) {
        self.lock().get_or_insert_default();
    }

    /// Lets go of all that is held, and holds no more.
    pub fn let_go(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<Key, Tensor>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn or_load(&self, key: Key, load: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        if let Some(found) = self.lock().as_ref().and_then(|held| held.get(&key)) {
            return Ok(found.clone());
        }
        let loaded = load()?;
        if let Some(held) = self.lock().as_mut() {
            held.insert(key, loaded.clone());
        }
        Ok(loaded)
    }
}

impl TensorSource for Kept {
    fn inner(&self) -> Option<&dyn TensorSource> {
        Some(&*self.inner)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.inner.shape(name)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let key = (name.to_owned(), Form::Numbers(dtype, device.location()));
        self.or_load(key, || self.inner.load(name, dtype, device))
    }

    fn load_blocks(&self, name: &str, rows: Range<usize>) -> Result<Tensor> {
        let all = self.inner.shape(name).and_then(|shape| shape.first().copied());
        if !self.holds_blocks || all != Some(rows.end) || rows.start != 0 {
            return self.inner.load_blocks(name, rows);
        }
        self.or_load((name.to_owned(), Form::Blocks), || self.inner.load_blocks(name, rows))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use super::*;

    /// Counts what is loaded.
    struct Counting(AtomicUsize);

    impl TensorSource for Counting {
        fn shape(&self, _name: &str) -> Option<Vec<usize>> {
            Some(vec![2, 2])
        }

        fn load(&self, _name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
            self.0.fetch_add(1, Relaxed);
            Ok(Tensor::zeros((2, 2), dtype, device)?)
        }

        fn describe(&self) -> String {
            "a test".into()
        }
    }

    #[test]
    fn what_is_held_is_loaded_once_until_it_is_let_go() {
        let inner = Arc::new(Counting(AtomicUsize::new(0)));
        let kept = Kept::new(inner.clone(), &Device::Cpu);
        let load = |name, dtype| drop(kept.load(name, dtype, &Device::Cpu).expect("loads"));
        let count = || inner.0.load(Relaxed);
        load("a", DType::F32);
        load("a", DType::F32);
        assert_eq!(count(), 2, "nothing is held unasked");
        kept.keep();
        for _ in 0..3 {
            load("a", DType::F32);
            load("b", DType::F32);
            load("a", DType::BF16);
            kept.keep();
        }
        assert_eq!(count(), 5, "each once in each type");
        kept.let_go();
        load("a", DType::F32);
        load("a", DType::F32);
        assert_eq!(count(), 7);
    }
}
