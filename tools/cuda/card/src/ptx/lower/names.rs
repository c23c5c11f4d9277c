//! What names of a function stand for, scope by scope.

use std::collections::HashMap;

use crate::ptx::code::{Slot, Special};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entity {
    /// A register.
    Register(Slot),
    /// An offset in local memory: variables of a thread, and parameters of calls.
    Local(usize),
    /// An offset in shared memory.
    Shared(usize),
    /// An offset in a kernel's parameters.
    Parameter(usize),
    /// An address of the device.
    Global(u64),
}

/// Scopes, the innermost last.
#[derive(Debug)]
pub struct Names(Vec<Scope>);

#[derive(Debug, Default)]
struct Scope {
    names: HashMap<String, Entity>,
    /// `%r<5>`: where `%r0` lies, and how many there are.
    families: HashMap<String, (Slot, Slot)>,
}

impl Default for Names {
    fn default() -> Self {
        Self(vec![Scope::default()])
    }
}

impl Names {
    /// Begins a scope.
    pub fn open(&mut self) {
        self.0.push(Scope::default());
    }

    /// Forgets what was declared since.
    pub fn close(&mut self) {
        self.0.pop();
    }

    /// A name in the innermost scope.
    pub fn declare(&mut self, name: &str, entity: Entity) {
        if let Some(scope) = self.0.last_mut() {
            scope.names.insert(name.to_owned(), entity);
        }
    }

    /// Numbered registers in the innermost scope.
    pub fn declare_family(&mut self, name: &str, first: Slot, count: Slot) {
        if let Some(scope) = self.0.last_mut() {
            scope.families.insert(name.to_owned(), (first, count));
        }
    }

    /// What a name stands for.
    pub fn find(&self, name: &str) -> Option<Entity> {
        let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let number = name[stem.len()..].parse::<Slot>();
        self.0.iter().rev().find_map(|scope| {
            let family = || {
                let ((first, count), number) = (scope.families.get(stem)?, number.as_ref().ok()?);
                (number < count).then_some(Entity::Register(first + number))
            };
            scope.names.get(name).copied().or_else(family)
        })
    }
}

/// Special registers by name.
pub fn special(name: &str) -> Option<Special> {
    let axis = match name.rsplit_once('.') {
        Some((_, "x")) => 0,
        Some((_, "y")) => 1,
        Some((_, "z")) => 2,
        _ => 3,
    };
    match name.split('.').next()? {
        "%tid" if axis < 3 => Some(Special::Thread(axis)),
        "%ntid" if axis < 3 => Some(Special::Threads(axis)),
        "%ctaid" if axis < 3 => Some(Special::Block(axis)),
        "%nctaid" if axis < 3 => Some(Special::Blocks(axis)),
        "%laneid" => Some(Special::Lane),
        "%warpid" => Some(Special::Warp),
        "%lanemask_lt" => Some(Special::LanesBelow),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inner_family_hides_no_more_than_it_has() {
        let mut names = Names::default();
        names.declare_family("%r", 10, 8);
        names.open();
        names.declare_family("%r", 50, 2);
        assert_eq!(names.find("%r1"), Some(Entity::Register(51)));
        assert_eq!(names.find("%r5"), Some(Entity::Register(15)));
        assert_eq!(names.find("%r8"), None);
        names.close();
        assert_eq!(names.find("%r1"), Some(Entity::Register(11)));
    }
}
