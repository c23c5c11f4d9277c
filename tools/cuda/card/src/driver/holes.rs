//! Holes of files that a program maps read nothing: they are the system's one page of zeros. So a model whose weights are holes
//! (`hollow.py`) is read at the speed of memory, and leaves nothing of other programs' files out of the system's cache.
//!
//! A program calls this function where the library is preloaded (`LD_PRELOAD`), as `full_size.py` does; else it calls the system's.

use std::ffi::c_void;

/// Holes that are smaller are left to the file.
const LEAST: usize = 2 << 20;
const PAGE: usize = 4096;
const READ: i32 = 1;

unsafe extern "C" {
    fn mmap(address: *mut c_void, length: usize, protection: i32, flags: i32, file: i32, offset: i64) -> *mut c_void;
    fn lseek(file: i32, offset: i64, whence: i32) -> i64;
    fn madvise(address: *mut c_void, length: usize, advice: i32) -> i32;
}

/// As the system's; large holes of a file that is mapped for reading alone are memory of zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: usize,
    protection: i32,
    flags: i32,
    file: i32,
    offset: i64,
) -> *mut c_void {
    // SAFETY: the caller's promise.
    let map = unsafe { mmap(address, length, protection, flags, file, offset) };
    if map as isize != -1 && file >= 0 && protection == READ && offset >= 0 {
        for (start, stop) in holes(file, offset as usize, length) {
            // SAFETY: the range lies in the mapping above, which nobody has yet.
            unsafe { clear(map.byte_add(start), stop - start) };
        }
    }
    map
}

/// Puts zeros in place of what is mapped there.
///
/// # Safety
/// The pages must be a mapping that nothing else knows.
unsafe fn clear(at: *mut c_void, bytes: usize) {
    const PRIVATE_FIXED_ANONYMOUS_NORESERVE: i32 = 0x02 | 0x10 | 0x20 | 0x4000;
    const HUGE_PAGES: i32 = 14;
    // SAFETY: the caller's promise.
    unsafe {
        mmap(at, bytes, READ, PRIVATE_FIXED_ANONYMOUS_NORESERVE, -1, 0);
        madvise(at, bytes, HUGE_PAGES);
    }
}

/// Where the pages of large holes begin and end, counted from `offset`, in so many bytes from there.
fn holes(file: i32, offset: usize, length: usize) -> Vec<(usize, usize)> {
    const SET: i32 = 0;
    const CURRENT: i32 = 1;
    const DATA: i32 = 3;
    const HOLE: i32 = 4;
    // SAFETY: any number may be asked about; the file stands afterwards where it stood before.
    let seek = |at: i64, whence: i32| unsafe { lseek(file, at, whence) };
    let stands = seek(0, CURRENT);
    let mut found = Vec::new();
    let (mut at, end) = (offset as i64, (offset + length) as i64);
    while (0..end).contains(&at) {
        let hole = seek(at, HOLE);
        if !(at..end).contains(&hole) {
            break;
        }
        // No data behind it: the hole ends with the file.
        let data = seek(hole, DATA);
        at = if data < 0 { end } else { data.min(end) };
        let (start, stop) = ((hole as usize - offset).next_multiple_of(PAGE), (at as usize - offset) / PAGE * PAGE);
        if stop >= start + LEAST {
            found.push((start, stop));
        }
    }
    seek(stands, SET);
    found
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::fd::AsRawFd};

    use super::*;

    #[test]
    fn a_hole_is_zeros_of_no_file_between_what_is_written() {
        let path = std::env::temp_dir().join(format!("card-holes-{}", std::process::id()));
        let mut file = fs::File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
        let length = 4 * LEAST;
        file.write_all(&[7; 100]).unwrap();
        file.set_len(length as u64 - 50).unwrap();
        file.write_all(&[8; 5]).unwrap();
        // SAFETY: a new mapping, read within its bounds.
        let map = unsafe { mmap64(std::ptr::null_mut(), length, READ, 2, file.as_raw_fd(), 0) };
        let bytes = unsafe { std::slice::from_raw_parts(map.cast::<u8>(), length - 50) };
        assert_eq!((bytes[..100].to_vec(), &bytes[100..105]), (vec![7; 100], &[8; 5][..]));
        assert!(bytes[105..].iter().all(|byte| *byte == 0));
        // Past what is written, the system's list of mappings names no file.
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let at = map as usize + LEAST;
        let holds = |line: &&str| {
            let (start, rest) = line.split_once('-').unwrap();
            let stop = rest.split_once(' ').unwrap().0;
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(stop)).contains(&at)
        };
        let line = maps.lines().find(holds).unwrap();
        assert!(!line.contains("card-holes"), "{line}");
        // The file stands behind what was written last.
        file.write_all(&[9]).unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap()[104..106], [8, 9]);
        fs::remove_file(path).unwrap();
    }
}
