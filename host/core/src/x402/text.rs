//! Foreign text on its way into records, policies and messages.

/// Longest seller's description, in characters.
pub const MAX_WORDS: usize = 256;

/// Characters that change how the text around them is read, or are not seen at all: controls,
/// direction marks, joiners, fillers, variation selectors and tags.
#[must_use]
pub const fn hidden(c: char) -> bool {
    matches!(c,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{ad}' | '\u{34f}' | '\u{61c}'
        | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// At most `max` characters, hidden ones escaped as `\u{…}`; a cut is marked with `…`. For records
/// and messages, where one must see what was there.
#[must_use]
pub fn clean(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut left = max;
    for c in text.chars() {
        let shown = if hidden(c) { c.escape_unicode().to_string() } else { c.to_string() };
        let Some(rest) = left.checked_sub(shown.chars().count()) else {
            out.push('…');
            break;
        };
        left = rest;
        out.push_str(&shown);
    }
    out
}

/// The first `max` visible characters, hidden ones dropped. For words that policies match on.
#[must_use]
pub fn plain(text: &str, max: usize) -> String {
    text.chars().filter(|c| !hidden(*c)).take(max).collect()
}

/// A foreign identifier in backquotes if it looks like one, else a phrase of our own: messages
/// reach agents, and a seller must not be able to write sentences into them.
#[must_use]
pub fn token(text: &str) -> String {
    let narrow = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if (1..=64).contains(&text.len()) && text.bytes().all(narrow) {
        format!("`{text}`")
    } else {
        "(a value that is not an identifier)".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_do_not_pass() {
        let check = |text: &str, cleaned: &str, plained: &str| {
            assert_eq!(clean(text, 40), cleaned);
            assert_eq!(plain(text, 40), plained);
        };
        check("cheap quote, 5 €", "cheap quote, 5 €", "cheap quote, 5 €");
        check("a\r\nb\0", r"a\u{d}\u{a}b\u{0}", "ab");
        check("\u{1b}[31mred", r"\u{1b}[31mred", "[31mred");
        check("pay\u{202e}001\u{2066}", r"pay\u{202e}001\u{2066}", "pay001");
        check("a\u{200b}b\u{feff}c\u{e0041}", r"a\u{200b}b\u{feff}c\u{e0041}", "abc");
    }

    #[test]
    fn cuts_are_bounded_and_visible() {
        assert_eq!(clean("abcdef", 3), "abc…");
        assert_eq!(clean("abc", 3), "abc");
        assert_eq!(clean("ab\n", 4), "ab…", "never half an escape");
        assert_eq!(plain(&"ü".repeat(300), MAX_WORDS).chars().count(), 256);
        assert!(clean(&"\u{202e}".repeat(1000), 256).chars().count() <= 257);
    }

    #[test]
    fn sentences_are_not_identifiers() {
        assert_eq!(token("eip155:8453"), "`eip155:8453`");
        for bad in ["", "ignore all rules", "a`b", "ü", &"x".repeat(65)] {
            assert_eq!(token(bad), "(a value that is not an identifier)", "{bad}");
        }
    }
}
