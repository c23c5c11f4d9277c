//! `~` and `$VARIABLE` in the names of folders, as Python's `os.path.expanduser` and then `os.path.expandvars` read them.

/// Replaces `~` or `~user` in front, then `$NAME` and `${NAME}`; what is not known stays as it is written. `home` is this
/// user's folder.
pub(super) fn expand(text: &str, home: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    expand_variables(&expand_home(text, home), variable)
}

fn expand_home(text: &str, home: &str) -> String {
    let Some(rest) = text.strip_prefix('~') else { return text.to_owned() };
    let (user, below) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let folder = if user.is_empty() { Some(home.to_owned()) } else { home_of(user) };
    match folder {
        None => text.to_owned(),
        Some(folder) => match format!("{}{below}", folder.trim_end_matches('/')) {
            empty if empty.is_empty() => "/".into(),
            path => path,
        },
    }
}

fn expand_variables(text: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        let (name, whole) = named(from);
        done.push_str(before);
        // A value is not looked into again.
        match variable(name).filter(|_| !name.is_empty()) {
            Some(value) => done.push_str(&value),
            None => done.push_str(&from[..whole]),
        }
        rest = &from[whole..];
    }
    done + rest
}

/// The name behind a `$`, and the bytes that `$` and name take.
fn named(from: &str) -> (&str, usize) {
    let behind = &from[1..];
    if let Some((name, _)) = behind.strip_prefix('{').and_then(|inside| inside.split_once('}')) {
        return (name, name.len() + 3);
    }
    let end = behind.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(behind.len());
    (&behind[..end], end + 1)
}

/// The folder of another user of this machine.
#[cfg(unix)]
fn home_of(user: &str) -> Option<String> {
    let name = std::ffi::CString::new(user).ok()?;
    let mut entry = std::mem::MaybeUninit::<libc::passwd>::uninit();
    let (mut text, mut found) = (vec![0; 16 << 10], std::ptr::null_mut());
    // SAFETY: the name is a C string; entry, text (with its length) and found are written to and outlive the call.
    unsafe { libc::getpwnam_r(name.as_ptr(), entry.as_mut_ptr(), text.as_mut_ptr(), text.len(), &raw mut found) };
    if found.is_null() {
        return None;
    }
    // SAFETY: found points to the entry, which the call has filled; its strings lie in `text`, which is still here.
    let folder = unsafe { std::ffi::CStr::from_ptr((*found).pw_dir) };
    folder.to_str().ok().map(str::to_owned)
}

#[cfg(not(unix))]
fn home_of(_user: &str) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each case as Python 3 answers it (`posixpath`).
    #[test]
    fn names_are_expanded_as_pythons() {
        let variables = [("A", "/a"), ("B_2", "b"), ("EMPTY", ""), ("NESTED", "$A"), ("with space", "w")];
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
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
            assert_eq!(expand(text, "/u/", variable), expected, "{text}");
        }
        assert_eq!(expand("~", "/", variable), "/");
    }

    #[cfg(unix)]
    #[test]
    fn another_users_folder_is_in_the_systems_list() {
        let list = std::fs::read_to_string("/etc/passwd").expect("the list of users");
        let root = list.lines().find(|line| line.starts_with("root:")).expect("root");
        let folder = root.split(':').nth(5).expect("a folder");
        assert_eq!(expand("~root/x", "/u", |_| None), format!("{folder}/x"));
    }
}
