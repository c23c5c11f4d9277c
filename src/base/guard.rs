//! Foreign code that indexes unchecked into tables of a file: a damaged file makes it panic, which is an error of the file's.

use std::{
    cell::Cell,
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; `None` where it panics, of which nothing is printed. What it has changed by then must not be used.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                usual(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    GUARDED.set(before);
    outcome.ok()
}

#[cfg(test)]
mod tests {
    use super::guarded;

    #[test]
    fn a_panic_is_nothing_and_a_value_is_itself() {
        let table = [1_u8, 2];
        let at = |index: usize| guarded(|| table[index]);
        assert_eq!([at(0), at(7), at(1)], [Some(1), None, Some(2)]);
    }
}
