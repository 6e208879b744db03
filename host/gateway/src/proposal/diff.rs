//! A unified diff of two texts that differ in a few lines.

use std::fmt::Write as _;

/// Lines around a change.
const CONTEXT: usize = 3;
/// Above so many pairs of lines the whole middle counts as changed.
const MOST_PAIRS: usize = 4_000_000;

/// One line of both texts or of one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line<'t> {
    Same(&'t str),
    Gone(&'t str),
    New(&'t str),
}

impl<'t> Line<'t> {
    const fn parts(self) -> (char, &'t str) {
        match self {
            Self::Same(text) => (' ', text),
            Self::Gone(text) => ('-', text),
            Self::New(text) => ('+', text),
        }
    }

    const fn is_same(self) -> bool {
        matches!(self, Self::Same(_))
    }
}

/// The diff that leads from `old` to `new`, of a file of this name; empty, if they are equal.
///
/// A line that may have a key in its URL is never among those around a change: whoever reads proposals need not know it.
pub(super) fn unified(name: &str, old: &str, new: &str) -> String {
    let lines = lines(old, new);
    let tells = |context: usize| {
        let shown = hunks(&lines, context);
        shown.iter().any(|&(from, to)| {
            let hunk = lines.get(from..to).unwrap_or_default();
            hunk.iter().any(|line| matches!(line, Line::Same(text) if text.contains("://")))
        })
    };
    let context = (0..=CONTEXT).rev().find(|context| !tells(*context)).unwrap_or(0);
    let mut out = String::new();
    for (from, to) in hunks(&lines, context) {
        if out.is_empty() {
            let _infallible = writeln!(out, "--- a/{name}\n+++ b/{name}");
        }
        write_hunk(&mut out, &lines, from, to);
    }
    out
}

fn write_hunk(out: &mut String, lines: &[Line<'_>], from: usize, to: usize) {
    let (before, hunk) = (lines.get(..from).unwrap_or_default(), lines.get(from..to).unwrap_or_default());
    let count = |lines: &[Line<'_>], without: char| lines.iter().filter(|line| line.parts().0 != without).count();
    let range = |without: char| {
        let (start, len) = (count(before, without), count(hunk, without));
        // Where there are no lines, the number is of the one before.
        let start = if len == 0 { start } else { start.saturating_add(1) };
        if len == 1 { start.to_string() } else { format!("{start},{len}") }
    };
    let _infallible = writeln!(out, "@@ -{} +{} @@", range('+'), range('-'));
    for line in hunk {
        let (sign, text) = line.parts();
        let _infallible = write!(out, "{sign}{text}");
        if !text.ends_with('\n') {
            out.push_str("\n\\ No newline at end of file\n");
        }
    }
}

/// Ranges of lines to show: every change with so many lines around it.
fn hunks(lines: &[Line<'_>], context: usize) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (n, _) in lines.iter().enumerate().filter(|(_, line)| !line.is_same()) {
        let (from, to) = (n.saturating_sub(context), n.saturating_add(context).saturating_add(1).min(lines.len()));
        match found.last_mut().filter(|last| last.1 >= from) {
            Some(last) => last.1 = to,
            None => found.push((from, to)),
        }
    }
    found
}

/// Both texts as one list of lines: the longest common part stays.
fn lines<'t>(old: &'t str, new: &'t str) -> Vec<Line<'t>> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split_inclusive('\n').collect(), new.split_inclusive('\n').collect());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let (mut a, mut b) = (old.get(head..).unwrap_or_default(), new.get(head..).unwrap_or_default());
    let mut tail = Vec::new();
    while let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_last(), b.split_last()) {
        if x != y {
            break;
        }
        tail.push(Line::Same(x));
        (a, b) = (rest_a, rest_b);
    }
    let mut out: Vec<Line<'t>> = old.iter().take(head).map(|line| Line::Same(line)).collect();
    middle(&mut out, a, b);
    out.extend(tail.into_iter().rev());
    out
}

fn middle<'t>(out: &mut Vec<Line<'t>>, mut a: &[&'t str], mut b: &[&'t str]) {
    let width = b.len().saturating_add(1);
    let table = if a.len().saturating_mul(b.len()) > MOST_PAIRS { Vec::new() } else { common(a, b) };
    let (rows, columns) = (a.len(), b.len());
    loop {
        let at = |i: usize, j: usize| table.get(i.saturating_mul(width).saturating_add(j)).copied().unwrap_or(0);
        let (i, j) = (rows.saturating_sub(a.len()), columns.saturating_sub(b.len()));
        match (a.split_first(), b.split_first()) {
            (Some((x, rest_a)), Some((y, rest_b))) if x == y && !table.is_empty() => {
                out.push(Line::Same(x));
                (a, b) = (rest_a, rest_b);
            }
            (Some((x, rest)), other) if other.is_none() || at(i.saturating_add(1), j) >= at(i, j.saturating_add(1)) => {
                out.push(Line::Gone(x));
                a = rest;
            }
            (_, Some((y, rest))) => {
                out.push(Line::New(y));
                b = rest;
            }
            _ => return,
        }
    }
}

/// How many lines the rests of both have in common, from every pair of places.
fn common(a: &[&str], b: &[&str]) -> Vec<u32> {
    let width = b.len().saturating_add(1);
    let mut table = vec![0_u32; a.len().saturating_add(1).saturating_mul(width)];
    for (i, x) in a.iter().enumerate().rev() {
        for (j, y) in b.iter().enumerate().rev() {
            let place = |i: usize, j: usize| i.saturating_mul(width).saturating_add(j);
            let at = |i: usize, j: usize| table.get(place(i, j)).copied().unwrap_or(0);
            let (down, right) = (i.saturating_add(1), j.saturating_add(1));
            let best = if x == y { at(down, right).saturating_add(1) } else { at(down, j).max(at(i, right)) };
            if let Some(cell) = table.get_mut(place(i, j)) {
                *cell = best;
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_and_an_added_one() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj\nk\nl\nm\n";
        let expected = "--- a/x.toml\n+++ b/x.toml\n@@ -2,7 +2,7 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n@@ -10,3 +10,4 @@\n j\n k\n l\n+m\n";
        assert_eq!(unified("x.toml", old, new), expected);
        assert_eq!(unified("x.toml", old, old), "");
        assert_eq!(unified("x", "", "a\n"), "--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(
            unified("x", "a", "b"),
            "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
        );
    }

    #[test]
    fn two_changes_far_apart_do_not_take_the_middle_with_them() {
        let old: String = (0..40).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n5\n", "\nfive\n").replace("\n30\n", "\n30\nnew\n");
        let diff = unified("x", &old, &new);
        assert_eq!(diff.matches("@@ -").count(), 2, "{diff}");
        assert_eq!(diff.lines().filter(|l| l.starts_with(['+', '-'])).count(), 2 + 3, "{diff}");
    }

    #[test]
    fn urls_around_a_change_are_not_shown() {
        let diff = unified("x", "a\nrpc = 'https://node/KEY'\nb\nc\n", "a\nrpc = 'https://node/KEY'\nb\nC\n");
        assert!(diff.contains(" b\n-c\n+C\n") && !diff.contains("KEY"), "{diff}");
    }
}
