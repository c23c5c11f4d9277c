//! Buffers that are used again: a band that is freed becomes the next one, and the system need not clear new pages.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
};

/// Idle buffers that are kept: a drained band, and those two that differ from it in height.
const IDLE: usize = 3;

/// Buffers waiting for their next use.
#[derive(Default)]
pub(in crate::vae) struct Pool(Mutex<VecDeque<Vec<f32>>>);

/// f32 numbers that return to their pool.
pub(in crate::vae) struct Buffer {
    data: Vec<f32>,
    pool: Arc<Pool>,
}

impl Pool {
    /// A buffer of `len` numbers, of any value.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let fits = |buffer: &Vec<f32>| (len..=len + len / 4).contains(&buffer.capacity());
        let idle = self.0.lock().ok().and_then(|mut idle| {
            let at = idle.iter().position(fits)?;
            idle.remove(at)
        });
        let data = match idle {
            Some(mut data) => {
                data.resize(len, 0.0);
                data
            }
            None => vec![0.0; len],
        };
        Buffer { data, pool: self.clone() }
    }

    /// These numbers.
    pub fn adopt(self: &Arc<Self>, data: Vec<f32>) -> Buffer {
        Buffer { data, pool: self.clone() }
    }

    /// A copy of these numbers.
    pub fn copy(self: &Arc<Self>, numbers: &[f32]) -> Buffer {
        let mut buffer = self.take(numbers.len());
        buffer.copy_from_slice(numbers);
        buffer
    }
}

impl Buffer {
    /// The numbers, which do not return to the pool.
    pub fn into_vec(mut self) -> Vec<f32> {
        std::mem::take(&mut self.data)
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        self.pool.copy(&self.data)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.data.capacity() == 0 {
            return;
        }
        if let Ok(mut idle) = self.pool.0.lock() {
            if idle.len() == IDLE {
                idle.pop_front();
            }
            idle.push_back(std::mem::take(&mut self.data));
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data
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
    fn few_buffers_wait() {
        let pool = Arc::new(Pool::default());
        let many: Vec<Buffer> = (0..10).map(|_| pool.take(8)).collect();
        drop(many);
        assert_eq!(pool.0.lock().expect("lock").len(), IDLE);
    }
}
