//! Long lists in messages.

/// The first of these, and how many more there are: "a, b and 3 more".
pub fn shown<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let first: Vec<&str> = names.iter().take(most).map(AsRef::as_ref).collect();
    match names.len().saturating_sub(most) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn what_is_too_much_is_counted() {
        assert_eq!([shown(&["a", "b"], 2), shown(&["a", "b", "c", "d"], 2)], ["a, b", "a, b and 2 more"]);
        assert_eq!(shown::<&str>(&[], 2), "");
    }
}
