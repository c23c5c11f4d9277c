//! The device's memory: a range of addresses that this process cannot reach by accident, backed by its own memory, with a
//! mark for every byte that was written. Nothing is allowed but what lies in a live allocation.

use std::{
    collections::BTreeMap,
    ffi::c_void,
    sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
};

use crate::machine::{Fault, FaultKind};

/// Device addresses begin here: no process has memory there, so a host that follows one is caught.
pub const BASE: u64 = 0x000a_0000_0000_0000;
/// Device addresses there are; a terabyte of address space, of which only what is touched takes memory.
pub const SPAN: usize = 1 << 40;
/// In shape-only mode, larger allocations are addresses and nothing else; smaller ones hold what kernels are told (shapes,
/// strides), and are kept.
const LEAST_HOLLOW: usize = 1 << 20;

unsafe extern "C" {
    fn mmap(address: *mut c_void, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
    fn madvise(address: *mut c_void, length: usize, advice: i32) -> i32;
}

/// What a program allocated.
#[derive(Debug, Clone, Copy)]
pub struct Allocation {
    /// Its bytes.
    pub bytes: usize,
    /// Whether it is addresses only.
    pub hollow: bool,
}

/// All of it.
#[derive(Debug)]
pub struct Memory {
    data: *mut u8,
    written: *mut u8,
    live: BTreeMap<u64, Allocation>,
    shapes: bool,
}

// SAFETY: the pointers are to memory of this object's own; threads that touch it at once are those of one kernel, whose races
// are the kernel's.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

fn reserve(bytes: usize) -> *mut u8 {
    const READ_WRITE: i32 = 1 | 2;
    const PRIVATE_ANONYMOUS_NORESERVE: i32 = 0x02 | 0x20 | 0x4000;
    // SAFETY: a new mapping at an address of the system's choice.
    let address = unsafe { mmap(std::ptr::null_mut(), bytes, READ_WRITE, PRIVATE_ANONYMOUS_NORESERVE, -1, 0) };
    assert!(address as isize != -1, "no {bytes} bytes of address space for the device's memory");
    address.cast()
}

impl Memory {
    /// Empty memory; `shapes` where large allocations are to be addresses only.
    pub fn new(shapes: bool) -> Self {
        Self { data: reserve(SPAN), written: reserve(SPAN), live: BTreeMap::new(), shapes }
    }

    /// Makes an allocation that begins at this address live; what it holds is undefined.
    pub fn allocate(&mut self, address: u64, bytes: usize) {
        self.live.insert(address, Allocation { bytes, hollow: self.shapes && bytes > LEAST_HOLLOW });
    }

    /// Ends an allocation: its contents are gone at once.
    ///
    /// # Errors
    /// When none begins there.
    pub fn free(&mut self, address: u64) -> Result<(), Fault> {
        let Some(allocation) = self.live.remove(&address) else {
            let message = format!("{address:#x} is freed, where no allocation begins");
            return Err(Fault::new(FaultKind::IllegalAddress, message));
        };
        if !allocation.hollow {
            self.forget(address, allocation.bytes);
        }
        Ok(())
    }

    fn forget(&self, address: u64, bytes: usize) {
        const PAGE: usize = 4096;
        const DONTNEED: i32 = 4;
        let start = (address - BASE) as usize;
        let (first, last) = (start.next_multiple_of(PAGE), (start + bytes) / PAGE * PAGE);
        // SAFETY: the range lies in the mappings, and belongs to no live allocation.
        unsafe {
            if first < last {
                madvise(self.data.add(first).cast(), last - first, DONTNEED);
                madvise(self.written.add(first).cast(), last - first, DONTNEED);
                self.written.add(start).write_bytes(0, first - start);
                self.written.add(last).write_bytes(0, start + bytes - last);
            } else {
                self.written.add(start).write_bytes(0, bytes);
            }
        }
    }

    /// The live allocation that holds all of `bytes` bytes at an address.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, address: u64, bytes: usize) -> Result<(u64, Allocation), Fault> {
        let before = self.live.range(..=address).next_back();
        if let Some((start, allocation)) = before
            && (address - start) as usize + bytes <= allocation.bytes
        {
            return Ok((*start, *allocation));
        }
        let near = match before {
            Some((start, allocation)) if address - start < 1 << 40 => format!(
                "; the allocation before it has {} bytes at {start:#x} and ends {} bytes earlier",
                allocation.bytes,
                (address - start) as i64 - allocation.bytes as i64
            ),
            _ => String::new(),
        };
        Err(Fault::new(FaultKind::IllegalAddress, format!("{bytes} bytes at {address:#x} are not allocated{near}")))
    }

    /// Copies bytes into the device.
    ///
    /// # Errors
    /// When they are not allocated there.
    pub fn upload(&self, address: u64, bytes: &[u8]) -> Result<(), Fault> {
        if bytes.is_empty() || self.find(address, bytes.len())?.1.hollow {
            return Ok(());
        }
        let at = (address - BASE) as usize;
        // SAFETY: the range lies in a live allocation.
        unsafe {
            self.data.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            self.written.add(at).write_bytes(1, bytes.len());
        }
        Ok(())
    }

    /// Copies bytes out of the device; of hollow memory, and of all where large allocations are hollow, they are zeros.
    ///
    /// # Errors
    /// When they are not allocated there, or never written.
    pub fn download(&self, address: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        if bytes.is_empty() {
            return Ok(());
        }
        // What few blocks of a kernel left in small allocations means nothing, and might not be finite.
        self.find(address, bytes.len())?;
        if self.shapes {
            bytes.fill(0);
            return Ok(());
        }
        bytes.copy_from_slice(self.slice(address, bytes.len())?);
        Ok(())
    }

    /// Copies within the device; what was never written stays so. The ranges may be the same, and not overlap otherwise.
    ///
    /// # Errors
    /// When either is not allocated.
    pub fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), Fault> {
        if bytes == 0 {
            return Ok(());
        }
        let hollow = (self.find(to, bytes)?.1.hollow, self.find(from, bytes)?.1.hollow);
        let (to, from) = ((to - BASE) as usize, (from - BASE) as usize);
        // SAFETY: both ranges lie in live allocations.
        unsafe {
            match hollow {
                (true, _) => {}
                (_, true) => self.written.add(to).write_bytes(1, bytes),
                _ => {
                    self.data.add(from).copy_to(self.data.add(to), bytes);
                    self.written.add(from).copy_to(self.written.add(to), bytes);
                }
            }
        }
        Ok(())
    }

    /// Sets every byte of a range.
    ///
    /// # Errors
    /// When it is not allocated.
    pub fn set(&self, address: u64, value: u8, bytes: usize) -> Result<(), Fault> {
        if bytes == 0 || self.find(address, bytes)?.1.hollow {
            return Ok(());
        }
        let at = (address - BASE) as usize;
        // SAFETY: the range lies in a live allocation.
        unsafe {
            self.data.add(at).write_bytes(value, bytes);
            self.written.add(at).write_bytes(1, bytes);
        }
        Ok(())
    }

    /// The bytes of a range that was written.
    ///
    /// # Errors
    /// When it is not allocated, or was not written whole.
    pub fn slice(&self, address: u64, bytes: usize) -> Result<&[u8], Fault> {
        self.find(address, bytes)?;
        let at = (address - BASE) as usize;
        // SAFETY: the range lies in a live allocation.
        let (data, written) = unsafe {
            (
                std::slice::from_raw_parts(self.data.add(at), bytes),
                std::slice::from_raw_parts(self.written.add(at), bytes),
            )
        };
        match written.iter().position(|written| *written == 0) {
            None => Ok(data),
            _ if self.shapes => Ok(data),
            Some(first) => Err(Fault::new(
                FaultKind::Uninitialised,
                format!("{bytes} bytes at {address:#x} are read, and byte {first} of them was never written"),
            )),
        }
    }

    /// What one thread of a kernel sees of it.
    pub fn view(&self) -> View<'_> {
        View { memory: self, recent: [(0, 0, false); RECENT], oldest: 0, reach: None }
    }
}

/// Allocations that a view remembers: as many as the tensors of a kernel.
const RECENT: usize = 6;

/// By where each allocation begins that was touched, the first address in it and the one behind the last.
pub type Reach = BTreeMap<u64, (u64, u64)>;

/// Memory as one core sees it, with the allocations it touched last.
pub struct View<'a> {
    memory: &'a Memory,
    recent: [(u64, u64, bool); RECENT],
    oldest: usize,
    /// What was touched so far, where anybody asks.
    pub reach: Option<Reach>,
}

impl View<'_> {
    /// Offset of an access, and whether the allocation is hollow.
    #[inline]
    fn locate(&mut self, address: u64, width: usize) -> Result<(usize, bool), Fault> {
        let holds =
            |(start, stop, _): &&(u64, u64, bool)| address >= *start && stop.saturating_sub(address) >= width as u64;
        let (start, _, hollow) = match self.recent.iter().find(holds) {
            Some(recent) => *recent,
            None => {
                let (start, allocation) = self.memory.find(address, width)?;
                let found = (start, start + allocation.bytes as u64, allocation.hollow);
                self.recent[self.oldest] = found;
                self.oldest = (self.oldest + 1) % RECENT;
                found
            }
        };
        if let Some(reach) = &mut self.reach {
            let (first, behind) = reach.entry(start).or_insert((address, address));
            (*first, *behind) = ((*first).min(address), (*behind).max(address + width as u64));
        }
        Ok(((address - BASE) as usize, hollow))
    }

    /// Up to 8 bytes; the address is a multiple of the width.
    ///
    /// # Errors
    /// When they are not allocated or were never written.
    #[inline]
    pub fn read(&mut self, address: u64, width: usize) -> Result<u64, Fault> {
        let (at, hollow) = self.locate(address, width)?;
        if hollow {
            return Ok(0);
        }
        let mut bytes = [0u8; 8];
        let mut written = [1u8; 8];
        // SAFETY: the range lies in a live allocation.
        unsafe {
            std::ptr::copy_nonoverlapping(self.memory.data.add(at), bytes.as_mut_ptr(), width.min(8));
            std::ptr::copy_nonoverlapping(self.memory.written.add(at), written.as_mut_ptr(), width.min(8));
        }
        // Of shapes, most blocks that would write are never executed.
        if u64::from_ne_bytes(written) != 0x0101_0101_0101_0101 && !self.memory.shapes {
            let message = format!("{width} bytes at {address:#x} are read before they are written");
            return Err(Fault::new(FaultKind::Uninitialised, message));
        }
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes up to 8 bytes.
    ///
    /// # Errors
    /// When they are not allocated.
    #[inline]
    pub fn write(&mut self, address: u64, width: usize, value: u64) -> Result<(), Fault> {
        let (at, hollow) = self.locate(address, width)?;
        if !hollow {
            // SAFETY: the range lies in a live allocation.
            unsafe {
                std::ptr::copy_nonoverlapping(value.to_le_bytes().as_ptr(), self.memory.data.add(at), width.min(8));
                self.memory.written.add(at).write_bytes(1, width.min(8));
            }
        }
        Ok(())
    }

    /// Replaces a value by `f` of it, in one step; gives what was there.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn update(&mut self, address: u64, width: usize, f: impl Fn(u64) -> u64) -> Result<u64, Fault> {
        self.read(address, width)?;
        let (at, hollow) = self.locate(address, width)?;
        if hollow {
            return Ok(0);
        }
        let relaxed = Ordering::Relaxed;
        // SAFETY: the range lies in a live allocation and is aligned; atomic operations of other threads are the only others.
        unsafe {
            let pointer = self.memory.data.add(at);
            Ok(match width {
                2 => AtomicU16::from_ptr(pointer.cast())
                    .fetch_update(relaxed, relaxed, |old| Some(f(old.into()) as u16))
                    .unwrap_or_default()
                    .into(),
                4 => AtomicU32::from_ptr(pointer.cast())
                    .fetch_update(relaxed, relaxed, |old| Some(f(old.into()) as u32))
                    .unwrap_or_default()
                    .into(),
                8 => AtomicU64::from_ptr(pointer.cast())
                    .fetch_update(relaxed, relaxed, |old| Some(f(old)))
                    .unwrap_or_default(),
                _ => return Err(Fault::new(FaultKind::Instruction, format!("an atomic operation on {width} bytes"))),
            })
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unsafe extern "C" {
            fn munmap(address: *mut c_void, length: usize) -> i32;
        }
        // SAFETY: the two mappings of `new`, which nothing refers to any more.
        unsafe {
            munmap(self.data.cast(), SPAN);
            munmap(self.written.cast(), SPAN);
        }
    }
}
