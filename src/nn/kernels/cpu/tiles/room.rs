//! Memory for tiles.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use super::unit::{SIDE, Tile};

/// Tiles of zeros, which the system clears as each is first touched.
pub struct Room {
    start: NonNull<Tile>,
    count: usize,
}

// SAFETY: it owns its tiles, which are numbers.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Room {
    /// So many of them.
    pub fn new(count: usize) -> Self {
        if count == 0 {
            return Self { start: NonNull::dangling(), count };
        }
        let layout = Self::layout(count);
        // SAFETY: the layout has a size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start.cast()).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, count }
    }

    fn layout(count: usize) -> Layout {
        Layout::array::<Tile>(count).unwrap_or_else(|_| panic!("{count} tiles are more than memory can hold"))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.count > 0 {
            // SAFETY: allocated by `new` with this layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.count)) };
        }
    }
}

impl Deref for Room {
    type Target = [Tile];

    fn deref(&self) -> &[Tile] {
        // SAFETY: so many tiles are there, and zeros are numbers.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

impl DerefMut for Room {
    fn deref_mut(&mut self) -> &mut [Tile] {
        // SAFETY: as above; `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.count) }
    }
}

/// Bytes of so many tiles.
pub fn bytes(count: usize) -> u64 {
    (count * SIDE * SIDE * size_of::<u32>()) as u64
}
