//! Names of people, agents, workspaces and things.
//!
//! There is one normalisation, done here, for names from the file, from tokens and from sessions
//! alike: two spellings of one name must never have two budgets.

/// Longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// What a name may be, for error messages.
pub(super) const NAME_RULE: &str = "a name is 1 to 64 of a-z, 0-9, `.`, `_` and `-`";

/// Lower-cases ASCII and accepts `[a-z0-9._-]{1,64}`; anything else is no name.
#[must_use]
pub fn normalise(text: &str) -> Option<String> {
    let name = text.to_ascii_lowercase();
    let fits = (1..=MAX_NAME).contains(&name.len());
    (fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))).then_some(name)
}

/// The same for budgets, whose names are paths: `workspace/research`.
#[must_use]
pub fn normalise_path(text: &str) -> Option<String> {
    let parts: Option<Vec<String>> = text.split('/').map(normalise).collect();
    let path = parts?.join("/");
    (path.len() <= MAX_NAME).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        let check = |text: &str, name: Option<&str>, path: Option<&str>| {
            assert_eq!(normalise(text).as_deref(), name, "{text:?}");
            assert_eq!(normalise_path(text).as_deref(), path, "{text:?}");
        };
        check("scout", Some("scout"), Some("scout"));
        check("Scout-2.a_B", Some("scout-2.a_b"), Some("scout-2.a_b"));
        check(&"x".repeat(64), Some(&"x".repeat(64)), Some(&"x".repeat(64)));
        check("a/b", None, Some("a/b"));
        for bad in ["", " scout", "scout ", "a b", "é", "ſ", "\u{212a}", "a\0", "alice@example.com", &"x".repeat(65)]
        {
            check(bad, None, None);
        }
        for bad in ["/", "a/", "/a", "a//b", &format!("{}/{}", "x".repeat(32), "y".repeat(32))] {
            check(bad, None, None);
        }
    }
}
