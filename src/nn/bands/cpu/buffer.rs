//! Buffers of feature maps, used again where they fit.
//!
//! Maps are most of a decode's memory and are freed band by band while others grow. A few wait idle; the others go back to the
//! allocator, which keeps none that would raise the peak.

use std::{
    collections::VecDeque,
    mem,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
};

use crate::nn::numbers;

/// Idle buffers that are kept: a drained band, and those two that differ from it in height.
pub(crate) const IDLE: usize = 3;

/// Whether an idle buffer of `waiting` numbers serves for `len`.
pub(crate) fn is_used_again(waiting: usize, len: usize) -> bool {
    (len..=len + len / 4).contains(&waiting)
}

/// Buffers waiting for their next use.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<VecDeque<Vec<f32>>>,
}

/// f32 numbers that return to their pool.
pub(crate) struct Buffer {
    storage: Vec<f32>,
    len: usize,
    pool: Arc<Pool>,
}

impl Pool {
    /// A buffer of `len` numbers, of any value.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let idle = self.idle.lock().ok().and_then(|mut idle| {
            let at = idle.iter().position(|storage| is_used_again(storage.len(), len))?;
            idle.remove(at)
        });
        Buffer { storage: idle.unwrap_or_else(|| numbers::zeros(len)), len, pool: self.clone() }
    }

    /// A copy of these numbers.
    pub fn copy(self: &Arc<Self>, numbers: &[f32]) -> Buffer {
        let mut buffer = self.take(numbers.len());
        buffer.copy_from_slice(numbers);
        buffer
    }
}

impl Buffer {
    /// Makes the buffer `len` numbers long: in place where they fit, else in one of zeros after the first `kept`.
    /// Numbers beyond the old length are zeros either way.
    pub fn resize(&mut self, len: usize, kept: usize) {
        if len > self.storage.len() {
            let mut larger = self.pool.take(len);
            larger[..kept].copy_from_slice(&self[..kept]);
            larger[kept..].fill(0.0);
            *self = larger;
        }
        let old = mem::replace(&mut self.len, len);
        if old < len {
            // What the storage held before it was taken from the pool.
            self[old..].fill(0.0);
        }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.pool.copy(self)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let storage = mem::take(&mut self.storage);
        if storage.is_empty() {
            return;
        }
        if let Ok(mut idle) = self.pool.idle.lock() {
            idle.push_back(storage);
            if idle.len() > IDLE {
                idle.pop_front();
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.storage[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_buffer_is_used_again_where_it_fits() {
        let pool = Arc::new(Pool::default());
        let address = |buffer: &Buffer| buffer.as_ptr() as usize;
        let first = pool.take(100);
        let place = address(&first);
        drop(first);
        let small = pool.take(10);
        assert_ne!(address(&small), place, "ten numbers do not take a hundred's place");
        let second = pool.take(90);
        assert_eq!((second.len(), address(&second)), (90, place));
    }

    #[test]
    fn a_buffer_that_grows_keeps_what_is_asked_for() {
        let pool = Arc::new(Pool::default());
        let mut buffer = pool.take(3);
        buffer.fill(2.0);
        let copy = buffer.clone();
        buffer.resize(9, 2);
        assert_eq!((copy.len(), copy.iter().sum::<f32>()), (3, 6.0));
        assert_eq!((buffer.len(), buffer.iter().sum::<f32>()), (9, 4.0));
    }

    #[test]
    fn few_buffers_wait() {
        let pool = Arc::new(Pool::default());
        let many: Vec<Buffer> = (0..10).map(|_| pool.take(8)).collect();
        drop(many);
        assert_eq!(pool.idle.lock().expect("lock").len(), IDLE);
    }
}
