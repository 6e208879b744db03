//! The names of budgets.

use std::fmt::Write as _;

/// The path of a budget, from what it is of: `budget_path(["client", client, "task", task])` is
/// `client/acme/task/t-42`.
///
/// Different parts never give the same path: a `/` inside a part, and every other byte that the host
/// does not take in a budget, becomes `@` and its two hexadecimal digits. Names as the host spells
/// them, and hosts, stay readable as they are. The host refuses a path of more than 200 bytes.
#[must_use]
pub fn budget_path<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:".contains(&byte);
    // Of most paths, all.
    let mut path = String::with_capacity(32);
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            path.push('/');
        }
        if part.bytes().all(plain) {
            path.push_str(part);
            continue;
        }
        for byte in part.bytes() {
            if plain(byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(path, "@{byte:02x}");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ordinary_names_stay_as_they_are() {
        assert_eq!(budget_path(["agent", "scout-2.a_b"]), "agent/scout-2.a_b");
        assert_eq!(budget_path(["seller", "api.example.com:8443"]), "seller/api.example.com:8443");
        assert_eq!(budget_path(["seller", "[::1]:80"]), "seller/@5b::1@5d:80");
    }

    #[test]
    fn different_parts_never_share_a_path() {
        let odd = ["a", "a/b", "b", "", "/", "@", "@2f", "a@2fb", "A", "é", "a b", "task", "a/task/b", "\0"];
        let mut paths = BTreeSet::new();
        for first in odd {
            assert!(paths.insert(budget_path([first])), "{first:?}");
            for second in odd {
                assert!(paths.insert(budget_path([first, second])), "{first:?} {second:?}");
                assert!(paths.insert(budget_path([first, "task", second])), "{first:?} task {second:?}");
            }
        }
        let taken = |byte: u8| byte.is_ascii_alphanumeric() || b"._/@:-".contains(&byte);
        assert!(paths.iter().all(|path| path.bytes().all(taken)), "the host would refuse a budget");
    }
}
