//! Marks of work that is being done: a temporary file each, which goes with its process unless that is killed.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::temporary::{self, Temporary};

/// What a mark says is written at once over what it said before, in as many bytes: a reader finds the one or the other.
const SAID_BYTES: usize = 200;

/// A mark, gone when this goes, or the process ends in any way that it hears of.
pub struct Marker {
    file: File,
    /// Removes it.
    _temporary: Temporary,
}

impl Marker {
    /// A mark of this kind in a folder, which is made where it is missing; `None` where there can be none: it is a courtesy.
    pub fn new(folder: &Path, kind: &str) -> Option<Self> {
        fs::create_dir_all(folder).ok()?;
        let (temporary, file) = Temporary::create(folder, kind).ok()?;
        Some(Self { file, _temporary: temporary })
    }

    /// Replaces what it says; text beyond 200 bytes is cut.
    pub fn say(&mut self, text: &str) {
        let mut said = text.as_bytes().to_vec();
        said.resize(SAID_BYTES, b' ');
        // A full disk: the mark says what it said before.
        let _ = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&said));
    }
}

/// What the marks of this kind say whose processes were killed; they are gone then.
pub fn take_left(folder: &Path, kind: &str) -> Vec<String> {
    let start = format!(".{kind}.dype-");
    temporary::take_stale(
        folder,
        |name| name.starts_with(&start),
        |file| {
            let mut said = String::new();
            file.read_to_string(&mut said).map(|_| said.trim_end().to_owned()).unwrap_or_default()
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_marks_of_processes_that_were_killed_are_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("new");
        let mut alive = Marker::new(&below, "begun").expect("made");
        alive.say("step 1");
        alive.say("step 22");
        let killed = below.join(".begun.dype-4000000-0.tmp");
        fs::write(&killed, "step 3    ").expect("written");
        fs::write(below.join(".other.dype-4000000-1.tmp"), "").expect("written");
        assert_eq!(take_left(&below, "begun"), ["step 3"]);
        assert_eq!(take_left(&below, "begun"), [""; 0], "told once");
        assert_eq!(fs::read_dir(&below).expect("a folder").count(), 2);
        drop(alive);
        assert_eq!(fs::read_dir(&below).expect("a folder").count(), 1);
    }
}
