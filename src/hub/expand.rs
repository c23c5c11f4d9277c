//! `~` and `$VARIABLE` in the names of folders, as Python's `os.path.expanduser` and then `os.path.expandvars` read them.

use std::ffi::{OsStr, OsString};

use crate::base::home;

/// Replaces `~` or `~user` in front, then `$NAME` and `${NAME}`; what is not known stays as it is written. `home` is this
/// user's folder.
pub(super) fn expand(text: &OsStr, home: &OsStr, variable: impl Fn(&str) -> Option<OsString>) -> OsString {
    let bytes = expand_variables(&expand_home(text.as_encoded_bytes(), home), variable);
    // SAFETY: the bytes are pieces of names, cut before and behind ASCII characters, as the encoding allows.
    unsafe { OsString::from_encoded_bytes_unchecked(bytes) }
}

fn expand_home(text: &[u8], home: &OsStr) -> Vec<u8> {
    let Some(rest) = text.strip_prefix(b"~") else { return text.to_vec() };
    let (user, below) = rest.split_at(rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len()));
    let folder = match str::from_utf8(user) {
        Ok("") => Some(home.to_os_string()),
        Ok(user) => home::of_user(OsStr::new(user)).map(Into::into),
        Err(_) => None,
    };
    let Some(folder) = folder else { return text.to_vec() };
    let mut path = folder.as_encoded_bytes();
    while let Some(shorter) = path.strip_suffix(b"/") {
        path = shorter;
    }
    let path = [path, below].concat();
    if path.is_empty() { b"/".to_vec() } else { path }
}

fn expand_variables(text: &[u8], variable: impl Fn(&str) -> Option<OsString>) -> Vec<u8> {
    let (mut done, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.iter().position(|byte| *byte == b'$') {
        let (before, from) = rest.split_at(at);
        let (name, whole) = named(from);
        done.extend(before);
        // A value is not looked into again.
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => done.extend(value.as_encoded_bytes()),
            None => done.extend(&from[..whole]),
        }
        rest = &from[whole..];
    }
    done.extend(rest);
    done
}

/// The name behind a `$`, and the bytes that `$` and name take.
fn named(from: &[u8]) -> (&str, usize) {
    let behind = &from[1..];
    let position = |is_end: &dyn Fn(u8) -> bool| behind.iter().position(|byte| is_end(*byte));
    if behind.first() == Some(&b'{')
        && let Some(end) = position(&|byte| byte == b'}')
    {
        // No variable has a name that is no text.
        return (str::from_utf8(&behind[1..end]).unwrap_or_default(), end + 2);
    }
    let end = position(&|byte| !(byte.is_ascii_alphanumeric() || byte == b'_')).unwrap_or(behind.len());
    (str::from_utf8(&behind[..end]).unwrap_or_default(), end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each case as Python 3 answers it (`posixpath`).
    #[test]
    fn names_are_expanded_as_pythons() {
        let variables = [("A", "/a"), ("B_2", "b"), ("EMPTY", ""), ("NESTED", "$A"), ("with space", "w")];
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        let expand = |text: &str, home: &str| expand(text.as_ref(), home.as_ref(), variable);
        let cases = [
            ("plain/x", "plain/x"),
            ("~", "/u"),
            ("~/hf", "/u/hf"),
            ("a/~/b", "a/~/b"),
            ("~no-such-user-here/x", "~no-such-user-here/x"),
            ("$A/x", "/a/x"),
            ("${A}x", "/ax"),
            ("$A$B_2", "/ab"),
            ("$B_2-x", "b-x"),
            ("x$EMPTY/y", "x/y"),
            ("$NO/x", "$NO/x"),
            ("${NO}", "${NO}"),
            ("$NESTED", "$A"),
            ("${with space}", "w"),
            ("$", "$"),
            ("a$/b", "a$/b"),
            ("$$A", "$/a"),
            ("${A", "${A"),
            ("${}", "${}"),
            ("$é", "$é"),
            ("~/$B_2", "/u/b"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, "/u/"), expected, "{text}");
        }
        assert_eq!(expand("~", "/"), "/");
    }

    #[cfg(unix)]
    #[test]
    fn another_users_folder_is_in_the_systems_list() {
        let list = std::fs::read_to_string("/etc/passwd").expect("the list of users");
        let root = list.lines().find(|line| line.starts_with("root:")).expect("root");
        let folder = root.split(':').nth(5).expect("a folder");
        assert_eq!(expand("~root/x".as_ref(), "/u".as_ref(), |_| None), *format!("{folder}/x"));
    }

    #[cfg(unix)]
    #[test]
    fn names_that_are_no_text_are_expanded_too() {
        use std::os::unix::ffi::OsStrExt;
        let odd = OsStr::from_bytes(b"/l\xe9");
        let variable = |name: &str| (name == "A").then(|| odd.to_os_string());
        let cases = [
            (&b"~/$A/\xff"[..], &b"/l\xe9//l\xe9/\xff"[..]),
            (b"~\xff/x", b"~\xff/x"),
            (b"$\xff", b"$\xff"),
            (b"${\xff}", b"${\xff}"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(OsStr::from_bytes(text), odd, variable), OsStr::from_bytes(expected), "{text:?}");
        }
    }
}
