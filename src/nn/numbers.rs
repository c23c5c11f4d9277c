//! Numbers in the processor's memory, many at a time.

use std::mem::MaybeUninit;

use rayon::prelude::*;

/// Numbers that one task writes.
const PART: usize = 1 << 18;

/// So many zeros, written side by side where they are many: memory that is used again is not zero, as new pages are.
pub(super) fn zeros(count: usize) -> Vec<f32> {
    if count < 2 * PART { vec![0.0; count] } else { filled(count, 0.0) }
}

/// So many numbers, of which `fill` writes every one before it reads any.
///
/// # Errors
/// What `fill` fails with.
pub(super) fn written<E>(count: usize, fill: impl FnOnce(&mut [f32]) -> Result<(), E>) -> Result<Vec<f32>, E> {
    let mut numbers = blank(count);
    fill(&mut numbers)?;
    Ok(numbers)
}

/// So many numbers of any value, every one to be written before it is read.
pub(super) fn blank(count: usize) -> Vec<f32> {
    // What is left out is seen in tests.
    if cfg!(debug_assertions) { filled(count, f32::NAN) } else { unwritten(count) }
}

fn filled(count: usize, value: f32) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(count);
    let fill = |part: &mut [MaybeUninit<f32>]| part.fill(MaybeUninit::new(value));
    numbers.spare_capacity_mut()[..count].par_chunks_mut(PART).for_each(fill);
    // SAFETY: so many were written.
    unsafe { numbers.set_len(count) };
    numbers
}

/// Numbers of any value.
#[expect(clippy::uninit_vec, reason = "zeros would be a pass over memory more")]
fn unwritten(count: usize) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(count);
    // SAFETY: there is room for them, any bits are a number, and whoever asked writes before reading.
    unsafe { numbers.set_len(count) };
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_zeros_are_as_many_as_few() {
        for count in [0, 3, 2 * PART, 2 * PART + 5] {
            let numbers = zeros(count);
            assert!(numbers.len() == count && numbers.iter().all(|number| *number == 0.0), "{count}");
        }
    }

    #[test]
    fn numbers_are_as_they_were_written() {
        let write = |numbers: &mut [f32]| {
            numbers.iter_mut().zip(0_u8..).for_each(|(number, value)| *number = value.into());
            Ok::<_, ()>(())
        };
        assert_eq!(written(4, write), Ok(vec![0.0, 1.0, 2.0, 3.0]));
        assert_eq!(written(4, |_| Err("refused")), Err("refused"));
    }
}
