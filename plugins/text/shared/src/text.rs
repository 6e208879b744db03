//! Bounds of a text, and places in it.

use countersign_sdk::Problem;

/// Bytes of one text.
pub const MAX_TEXT: usize = 256 << 10;
/// Rules, or holds, of one policy.
pub const MAX_RULES: usize = 500;
/// How deep brackets may nest.
const MAX_DEPTH: usize = 48;

/// Refuses a text that is empty or too long to be rules.
///
/// # Errors
/// The problem, at `path`.
pub fn bounded(path: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        return Err(Problem::at(path, "there are no rules in this text"));
    }
    short(path, text.len())
}

/// Refuses more bytes of text than can be judged.
///
/// # Errors
/// The problem, at `path`.
pub fn short(path: &str, bytes: usize) -> Result<(), Problem> {
    if bytes <= MAX_TEXT {
        return Ok(());
    }
    Err(Problem::at(
        path,
        format!("{bytes} bytes of text, at most {MAX_TEXT} are read; split it into several policies"),
    ))
}

/// Refuses more rules than can be judged.
///
/// # Errors
/// The problem, at `path`.
pub fn few(path: &str, rules: usize) -> Result<(), Problem> {
    if rules <= MAX_RULES {
        return Ok(());
    }
    Err(Problem::at(path, format!("{rules} rules, at most {MAX_RULES} are read; split them into several policies")))
}

/// A problem at a byte of a text: line and column, the line, and a mark below it.
#[must_use]
pub fn problem_at(path: &str, text: &str, offset: usize, message: &str) -> Problem {
    let (line, column) = place(text, offset);
    problem(path, text, line, column, message)
}

/// A problem at a line and column of a text, both from 1.
#[must_use]
pub fn problem(path: &str, text: &str, line: usize, column: usize, message: &str) -> Problem {
    let shown = text.lines().nth(line.saturating_sub(1)).unwrap_or_default().trim_end();
    // A line of a thousand characters helps nobody.
    let shown: String = shown.chars().take(160).collect();
    let mark = if column <= 160 { format!("\n  {:>column$}", "^") } else { String::new() };
    Problem::at(path, format!("line {line}, column {column}: {message}\n  {shown}{mark}"))
}

/// Line and column of a byte, from 1, in characters.
#[must_use]
pub fn place(text: &str, offset: usize) -> (usize, usize) {
    let mut offset = offset.min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    let before = text.get(..offset).unwrap_or_default();
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

/// Refuses brackets that nest deeper than any rule needs: a parser needs stack for each.
///
/// # Errors
/// The problem, at `path`.
pub fn shallow(path: &str, text: &str) -> Result<(), Problem> {
    match too_deep(text, MAX_DEPTH) {
        None => Ok(()),
        Some(at) => Err(problem_at(path, text, at, &format!("brackets nest deeper than {MAX_DEPTH}"))),
    }
}

/// Where brackets first nest deeper than `most`, outside of strings in double quotes and `//` comments.
fn too_deep(text: &str, most: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, byte) in code(text) {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > most {
            return Some(at);
        }
    }
    None
}

/// The bytes of a text and where they are, without strings in double quotes and `//` comments.
pub fn code(text: &str) -> impl Iterator<Item = (usize, u8)> {
    let mut bytes = text.bytes().enumerate().peekable();
    std::iter::from_fn(move || {
        loop {
            let (at, byte) = bytes.next()?;
            match byte {
                b'/' if bytes.peek().is_some_and(|(_, next)| *next == b'/') => {
                    bytes.by_ref().find(|(_, byte)| *byte == b'\n');
                }
                b'"' => {
                    let mut escaped = false;
                    bytes.by_ref().find(|(_, byte)| {
                        let ends = *byte == b'"' && !escaped;
                        escaped = *byte == b'\\' && !escaped;
                        ends
                    });
                }
                _ => return Some((at, byte)),
            }
        }
    })
}

/// The closest of `known` if `word` can only be a slip of the keyboard.
#[must_use]
pub fn meant<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let close = |known: &&str| known.len().abs_diff(word.len()) <= 2 && distance(word, known) <= 2;
    known.into_iter().filter(close).min_by_key(|known| distance(word, known))
}

/// Edits between two words, a swap of neighbours counting as two.
#[must_use]
pub fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let cell = |row: &[usize], at: usize| row.get(at).copied().unwrap_or(usize::MAX - 1);
            let change = cell(&row, j) + usize::from(from != *to);
            next.push(change.min(cell(&row, j + 1) + 1).min(cell(&next, j) + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let text = "eins\nzwéi x\n";
        for (offset, expected) in [(0, (1, 1)), (4, (1, 5)), (5, (2, 1)), (11, (2, 6)), (8, (2, 3)), (99, (3, 1))] {
            assert_eq!(place(text, offset), expected, "{offset}");
        }
        assert_eq!(problem_at("/policy", text, 11, "what").message, "line 2, column 6: what\n  zwéi x\n       ^");
    }

    #[test]
    fn bounds() {
        assert_eq!(bounded("/policy", " \n").unwrap_err().message, "there are no rules in this text");
        assert!(bounded("/policy", &"x".repeat(MAX_TEXT)).is_ok());
        let problem = bounded("/policy", &"x".repeat(MAX_TEXT + 1)).unwrap_err();
        assert!(problem.message.contains("262145 bytes of text"), "{problem:?}");
        assert!(few("/rules", MAX_RULES).is_ok());
        assert!(few("/rules", MAX_RULES + 1).unwrap_err().message.contains("501 rules"));
    }

    #[test]
    fn depth() {
        assert_eq!(too_deep("([{}])", 3), None);
        assert_eq!(too_deep("([{}])", 2), Some(2));
        assert_eq!(too_deep("()()()[]{}", 1), None);
        assert_eq!(
            too_deep(
                r#"("((\"((" // (((
)"#,
                1
            ),
            None
        );
        assert_eq!(too_deep("(//\n(", 1), Some(4));
    }

    #[test]
    fn slips() {
        let known = ["client", "project", "agent"];
        assert_eq!(meant("clinet", known), Some("client"));
        assert_eq!(meant("agents", known), Some("agent"));
        assert_eq!(meant("wallet", known), None);
    }
}
