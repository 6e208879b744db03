//! Foreign text on its way into a file. Each function appends to `out` what its format's own parser reads back.
//!
//! There is one notation for what must not stand there as it is: a backslash doubles, and `\n`, `\r`, `\t` and `\u{…}`
//! name the character. It loses nothing, so a reader can get the exact bytes back.

use std::fmt::Write as _;

use countersign_core::x402::text::hidden;

/// Bytes that mean nothing to any format, wherever they stand.
const fn harmless(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b':')
}

fn code(out: &mut String, c: char) {
    out.extend(c.escape_unicode());
}

fn shown(out: &mut String, c: char, also: &str) {
    match c {
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if hidden(c) || also.contains(c) => code(out, c),
        c => out.push(c),
    }
}

/// Printable ASCII but the backslash: what stands for itself in the notation above.
const fn printable(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'\\'
}

/// Appends a text, as long as `plain` says (of ASCII only) in whole runs, and hands every other character to `odd`.
/// Nearly all text is plain, and one copy of a run costs what a character does.
pub(crate) fn runs(out: &mut String, text: &str, plain: impl Fn(u8) -> bool, odd: impl Fn(&mut String, char)) {
    let mut rest = text;
    loop {
        let end = rest.bytes().position(|b| !plain(b)).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        out.push_str(run);
        let mut chars = after.chars();
        let Some(c) = chars.next() else { return };
        odd(out, c);
        rest = chars.as_str();
    }
}

/// One line that shows everything. Characters in `also`, which are ASCII, are named too.
pub(crate) fn visible(out: &mut String, text: &str, also: &str) {
    let plain = |b: u8| printable(b) && !also.as_bytes().contains(&b);
    runs(out, text, plain, |out, c| shown(out, c, also));
}

/// What makes a spreadsheet read a cell as a formula; the full-width forms count in some locales. The apostrophe that
/// defuses them is one of them, so that taking one away always gives the text back.
const fn starts_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '\'' | '＝' | '＋' | '－' | '＠')
}

/// A CSV field (RFC 4180). Where a spreadsheet would read a formula an apostrophe is put before it; some split at `;`
/// as well, quoted or not, so what follows one counts as a cell of its own.
pub(crate) fn csv(out: &mut String, text: &str) {
    if text.bytes().all(harmless) {
        out.push_str(text);
        return;
    }
    out.push('"');
    for (i, part) in text.split(';').enumerate() {
        if i > 0 {
            out.push(';');
        }
        if part.trim_start_matches([' ', '"', '\u{a0}', '\u{3000}']).starts_with(starts_formula) {
            out.push('\'');
        }
        runs(
            out,
            part,
            |b| printable(b) && b != b'"',
            |out, c| match c {
                '"' => out.push_str("\"\""),
                c => shown(out, c, ""),
            },
        );
    }
    out.push('"');
}

/// A JSON string. Hidden characters are escaped, which any parser undoes.
pub(crate) fn json(out: &mut String, text: &str) {
    out.push('"');
    runs(
        out,
        text,
        |b| printable(b) && b != b'"',
        |out, c| match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if hidden(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _infallible = write!(out, "\\u{unit:04x}");
                }
            }
            c => out.push(c),
        },
    );
    out.push('"');
}

/// A beancount string, quotes included.
pub(crate) fn beancount(out: &mut String, text: &str) {
    if text.bytes().all(harmless) {
        out.push('"');
        out.push_str(text);
        out.push('"');
        return;
    }
    let mut line = String::with_capacity(text.len().saturating_add(8));
    visible(&mut line, text, "");
    beancount_line(out, &line);
}

/// A beancount string of a line that shows everything already.
pub(crate) fn beancount_line(out: &mut String, line: &str) {
    out.push('"');
    runs(
        out,
        line,
        |b| b.is_ascii() && !matches!(b, b'"' | b'\\'),
        |out, c| {
            if matches!(c, '"' | '\\') {
                out.push('\\');
            }
            out.push(c);
        },
    );
    out.push('"');
}

/// A payee or note of an hledger transaction: `;` begins a comment there, `|` ends the payee.
pub(crate) fn hledger_description(out: &mut String, text: &str) {
    trimmed(out, text, ";|");
}

/// The value of an hledger tag: a comma ends it, and brackets may hold a date.
pub(crate) fn hledger_tag(out: &mut String, text: &str) {
    trimmed(out, text, ";|,[]");
}

/// The value of an hledger tag, from a line that shows everything already and has no blanks at its ends.
pub(crate) fn hledger_line(out: &mut String, line: &str) {
    for c in line.chars() {
        if matches!(c, ';' | '|' | ',' | '[' | ']') { code(out, c) } else { out.push(c) }
    }
}

/// hledger drops blanks at both ends, so those are named.
fn trimmed(out: &mut String, text: &str, also: &str) {
    let body = text.trim_start();
    let (before, body) = text.split_at(text.len().saturating_sub(body.len()));
    let (body, after) = body.split_at(body.trim_end().len());
    for c in before.chars() {
        code(out, c);
    }
    visible(out, body, also);
    for c in after.chars() {
        code(out, c);
    }
}

/// A word of a list written as words: blanks are named, so that each value stays one word.
pub(crate) fn word(out: &mut String, text: &str) {
    if text.is_empty() {
        out.push('-');
    }
    visible(out, text, " =");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(write: fn(&mut String, &str), text: &str) -> String {
        let mut out = String::new();
        write(&mut out, text);
        out
    }

    #[test]
    fn hidden_characters_are_named() {
        let mut out = String::new();
        visible(&mut out, "a\u{202e}b\nc\\d\u{2028}é", "");
        assert_eq!(out, "a\\u{202e}b\\nc\\\\d\\u{2028}é");
    }

    #[test]
    fn formulas_are_defused() {
        for (text, field) in [
            ("=1+1", "\"'=1+1\""),
            ("+1", "\"'+1\""),
            ("-1", "\"'-1\""),
            ("@SUM(A1)", "\"'@SUM(A1)\""),
            ("\t=1", "\"\\t=1\""),
            ("\r=1", "\"\\r=1\""),
            (" =1", "\"' =1\""),
            ("\"=1", "\"'\"\"=1\""),
            ("a;=1", "\"a;'=1\""),
            ("a; \"@x", "\"a;' \"\"@x\""),
            ("'x", "\"''x\""),
            ("＝1", "\"'＝1\""),
            ("a-b", "\"a-b\""),
            ("a,b", "\"a,b\""),
            ("plain", "plain"),
        ] {
            assert_eq!(of(csv, text), field, "{text:?}");
        }
    }

    #[test]
    fn strings_cannot_be_left() {
        assert_eq!(of(beancount, "a\"\n2020-01-01 open X"), "\"a\\\"\\\\n2020-01-01 open X\"");
        assert_eq!(of(hledger_description, "a ; b | c "), "a \\u{3b} b \\u{7c} c\\u{20}");
        assert_eq!(of(hledger_tag, "a,b:[2020-01-01]"), "a\\u{2c}b:\\u{5b}2020-01-01\\u{5d}");
        assert_eq!(of(json, "\u{1f600}\u{e0041}\"\\\n"), "\"\u{1f600}\\udb40\\udc41\\\"\\\\\\u000a\"");
    }
}
