//! Buffers of feature maps: used again where they fit, and given back to the system at once where they do not.
//!
//! Maps are most of a decode's memory and are freed band by band while others grow, so what an allocator keeps for later
//! would double the peak. Large buffers are therefore mapped one by one; a few wait idle, so that the system need not
//! clear new pages for every band.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex},
};

use memmap2::MmapMut;

/// Idle buffers that are kept: a drained band, and those two that differ from it in height.
pub(crate) const IDLE: usize = 3;
/// From this many numbers on a buffer is mapped: 1 MiB, which is where a map costs nothing beside its pages.
const MAPPED: usize = 1 << 18;

/// Whether an idle buffer of `waiting` numbers serves for `len`.
pub(crate) fn is_used_again(waiting: usize, len: usize) -> bool {
    (len..=len + len / 4).contains(&waiting)
}

/// Buffers waiting for their next use.
pub(crate) struct Pool {
    idle: Mutex<VecDeque<Storage>>,
    limit: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: Mutex::default(), limit: IDLE }
    }
}

/// f32 numbers that return to their pool.
pub(crate) struct Buffer {
    storage: Storage,
    len: usize,
    pool: Arc<Pool>,
}

enum Storage {
    Heap(Vec<f32>),
    Mapped(MmapMut),
}

impl Storage {
    fn new(len: usize) -> Self {
        // Where the system refuses a map, the allocator decides what happens.
        let map = (len >= MAPPED).then(|| MmapMut::map_anon(len * size_of::<f32>()).ok()).flatten();
        map.map_or_else(|| Self::Heap(vec![0.0; len]), Self::Mapped)
    }

    fn numbers(&self) -> &[f32] {
        match self {
            Self::Heap(numbers) => numbers,
            // SAFETY: a map starts on a page border, so it is aligned for f32, of which every bit pattern is one; its
            // length is rounded down to whole numbers.
            Self::Mapped(map) => unsafe {
                std::slice::from_raw_parts(map.as_ptr().cast(), map.len() / size_of::<f32>())
            },
        }
    }

    fn numbers_mut(&mut self) -> &mut [f32] {
        match self {
            Self::Heap(numbers) => numbers,
            // SAFETY: as above, and the map is borrowed mutably.
            Self::Mapped(map) => unsafe {
                std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), map.len() / size_of::<f32>())
            },
        }
    }
}

impl Pool {
    /// A pool where nothing waits: what is freed is given back.
    pub fn without_reuse() -> Self {
        Self { limit: 0, ..Self::default() }
    }

    /// A buffer of `len` numbers, of any value.
    pub fn take(self: &Arc<Self>, len: usize) -> Buffer {
        let idle = self.idle.lock().ok().and_then(|mut idle| {
            let at = idle.iter().position(|storage| is_used_again(storage.numbers().len(), len))?;
            idle.remove(at)
        });
        Buffer { storage: idle.unwrap_or_else(|| Storage::new(len)), len, pool: self.clone() }
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
        if len > self.storage.numbers().len() {
            let mut larger = self.pool.take(len);
            larger[..kept].copy_from_slice(&self[..kept]);
            larger[kept..].fill(0.0);
            *self = larger;
        }
        let old = std::mem::replace(&mut self.len, len);
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
        let storage = std::mem::replace(&mut self.storage, Storage::Heap(Vec::new()));
        if storage.numbers().is_empty() {
            return;
        }
        if let Ok(mut idle) = self.pool.idle.lock() {
            idle.push_back(storage);
            if idle.len() > self.pool.limit {
                idle.pop_front();
            }
        }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.storage.numbers()[..self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.storage.numbers_mut()[..self.len]
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
    fn a_large_buffer_is_like_a_small_one() {
        let pool = Arc::new(Pool::default());
        let mut large = pool.take(MAPPED + 3);
        large.fill(2.0);
        let copy = large.clone();
        large.resize(MAPPED + 9, 5);
        assert_eq!((copy.len(), copy.iter().sum::<f32>()), (MAPPED + 3, 2.0 * (MAPPED + 3) as f32));
        assert_eq!((large.len(), large.iter().sum::<f32>()), (MAPPED + 9, 10.0));
    }

    #[test]
    fn few_buffers_wait() {
        let pool = Arc::new(Pool::default());
        let many: Vec<Buffer> = (0..10).map(|_| pool.take(8)).collect();
        drop(many);
        assert_eq!(pool.idle.lock().expect("lock").len(), IDLE);
    }
}
