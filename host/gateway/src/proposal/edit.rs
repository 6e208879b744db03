//! Changes of one setting in the text of a configuration. Everything else stays byte for byte: comments, order, blanks.
//!
//! A text is changed where its parser says that the setting stands, and believed only if it then says what the same
//! change of its values says.

use std::ops::Range;

use toml::Spanned;
use toml::Value;
use toml::de::{DeTable, DeValue};

/// A change of a policy's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// `[policy.NAME]`.
    pub(super) policy: String,
    /// Where below its settings: keys, and numbers of a list's items.
    pub(super) path: Vec<String>,
    /// What.
    pub(super) change: Change,
}

/// What is done to a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It becomes this text.
    Set(String),
    /// It is a list, and gets this text too, unless it has it.
    Push(String),
}

/// The text with all edits.
pub(super) fn apply(text: &str, edits: &[Edit]) -> Result<String, String> {
    edits.iter().try_fold(text.to_owned(), |text, edit| one(&text, edit))
}

fn one(text: &str, edit: &Edit) -> Result<String, String> {
    let mut wanted: toml::Table = text.parse().map_err(|e: toml::de::Error| e.message().to_owned())?;
    if !model(&mut wanted, edit)? {
        return Ok(text.to_owned());
    }
    let document = DeTable::parse(text).map_err(|e| e.message().to_owned())?;
    let tried = candidates(text, document.get_ref(), edit);
    let says_it = |candidate: &String| candidate.parse::<toml::Table>().is_ok_and(|table| table == wanted);
    tried.into_iter().find(says_it).ok_or_else(|| {
        let (policy, path) = (&edit.policy, edit.path.join("."));
        format!("the file writes policy.{policy}.settings.{path} in a way that can only be changed by hand")
    })
}

/// The change, done to values; whether it changes anything.
fn model(table: &mut toml::Table, edit: &Edit) -> Result<bool, String> {
    let missing = || format!("the file has no [policy.{}]", edit.policy);
    let policies = table.get_mut("policy").and_then(Value::as_table_mut).ok_or_else(missing)?;
    let policy = policies.get_mut(&edit.policy).and_then(Value::as_table_mut).ok_or_else(missing)?;
    let mut at = policy.entry("settings").or_insert_with(|| Value::Table(toml::Table::new()));
    let (last, parents) = edit.path.split_last().ok_or_else(missing)?;
    for step in parents {
        let next = match at {
            Value::Table(table) => table.get_mut(step),
            Value::Array(items) => step.parse::<usize>().ok().and_then(|n| items.get_mut(n)),
            _ => None,
        };
        at = next.ok_or_else(|| format!("policy.{}.settings has no {step}", edit.policy))?;
    }
    let table = at.as_table_mut().ok_or_else(missing)?;
    match &edit.change {
        Change::Set(text) => Ok(table.insert(last.clone(), text.clone().into()) != Some(text.clone().into())),
        Change::Push(text) => {
            let list = table.entry(last.clone()).or_insert_with(|| Value::Array(Vec::new()));
            let list = list.as_array_mut().ok_or_else(|| format!("{last} is not a list"))?;
            let is_new = !list.iter().any(|item| item.as_str() == Some(text.as_str()));
            if is_new {
                list.push(text.clone().into());
            }
            Ok(is_new)
        }
    }
}

type Entry<'d, 'i> = (Range<usize>, &'d Spanned<DeValue<'i>>);

/// An entry of a table: where its key stands, and its value.
fn entry<'d, 'i>(table: &'d DeTable<'i>, key: &str) -> Option<Entry<'d, 'i>> {
    let found = table.iter().find(|(name, _)| name.get_ref().as_ref() == key);
    found.map(|(name, value)| (name.span(), value))
}

/// Texts that may be the change; the model says which is.
fn candidates(text: &str, document: &DeTable<'_>, edit: &Edit) -> Vec<String> {
    let policy = entry(document, "policy").and_then(|(_, v)| v.get_ref().as_table());
    let Some((place, policy)) = policy.and_then(|p| entry(p, &edit.policy)) else { return Vec::new() };
    let Some(policy) = policy.get_ref().as_table() else { return Vec::new() };
    let (Some((last, parents)), quoted) = (edit.path.split_last(), quoted(&edit.change)) else { return Vec::new() };
    let whole = match &edit.change {
        Change::Set(_) => quoted.clone(),
        Change::Push(_) => format!("[{quoted}]"),
    };
    let Some(settings) = entry(policy, "settings") else {
        return beside(text, (&place, policy), &format!("settings = {{ {last} = {whole} }}"));
    };
    let mut at: Entry<'_, '_> = settings;
    for step in parents {
        let next = match at.1.get_ref() {
            DeValue::Table(table) => entry(table, step),
            DeValue::Array(items) => {
                step.parse::<usize>().ok().and_then(|n| items.get(n)).map(|item| (item.span(), item))
            }
            _ => None,
        };
        let Some(next) = next else { return Vec::new() };
        at = next;
    }
    let Some(table) = at.1.get_ref().as_table() else { return Vec::new() };
    match (entry(table, last), &edit.change) {
        (Some((_, value)), Change::Set(_)) => splice(text, value.span(), &quoted).into_iter().collect(),
        (Some((_, value)), Change::Push(_)) => pushed(text, value, &quoted).into_iter().collect(),
        (None, _) => {
            let line = format!("{last} = {whole}");
            if text.get(at.1.span()).is_some_and(|written| written.starts_with('{')) {
                return inside(text, at.1.span(), table, &line).into_iter().collect();
            }
            let mut tried = beside(text, (&at.0, table), &line);
            tried.extend(beside(text, (&at.0, table), &format!("settings.{line}")));
            tried
        }
    }
}

fn quoted(change: &Change) -> String {
    let (Change::Set(text) | Change::Push(text)) = change;
    Value::from(text.as_str()).to_string()
}

fn splice(text: &str, at: Range<usize>, with: &str) -> Option<String> {
    Some([text.get(..at.start)?, with, text.get(at.end..)?].concat())
}

/// The end of the line that has this place.
fn line_end(text: &str, at: usize) -> usize {
    text.get(at..).and_then(|rest| rest.find('\n')).map_or(text.len(), |n| at.saturating_add(n))
}

/// A line of its own, after the last plain value of the table, or else after its head.
fn beside(text: &str, (head, table): (&Range<usize>, &DeTable<'_>), line: &str) -> Vec<String> {
    let values = table.iter().map(|(_, value)| value).filter(|v| !is_block(text, v)).map(|v| v.span().end);
    let ends = [values.max(), Some(head.end)];
    let insert = |end: usize| {
        let at = line_end(text, end);
        splice(text, at..at, &format!("\n{line}"))
    };
    ends.into_iter().flatten().filter_map(insert).collect()
}

/// Whether a value has heads of its own, and so does not stand in its table's block.
fn is_block(text: &str, value: &Spanned<DeValue<'_>>) -> bool {
    let first = text.get(value.span()).and_then(|written| written.chars().next());
    match value.get_ref() {
        DeValue::Table(_) => first != Some('{'),
        DeValue::Array(items) => {
            first != Some('[') || items.iter().any(|item| item.get_ref().is_table() && is_block(text, item))
        }
        _ => false,
    }
}

/// One more entry of a table in braces.
fn inside(text: &str, span: Range<usize>, table: &DeTable<'_>, line: &str) -> Option<String> {
    match table.iter().map(|(_, value)| value.span().end).max() {
        Some(end) => splice(text, end..end, &format!(", {line}")),
        None => splice(text, span, &format!("{{ {line} }}")),
    }
}

/// One more item of a list, on a line of its own where the last one has one.
fn pushed(text: &str, list: &Spanned<DeValue<'_>>, quoted: &str) -> Option<String> {
    let items = list.get_ref().as_array()?;
    let Some(last) = items.iter().map(Spanned::span).max_by_key(|span| span.end) else {
        return splice(text, list.span(), &format!("[{quoted}]"));
    };
    let start = text.get(..last.start)?.rfind('\n').map_or(0, |n| n.saturating_add(1));
    let indent = text.get(start..last.start)?;
    if !indent.chars().all(char::is_whitespace) {
        return splice(text, last.end..last.end, &format!(", {quoted}"));
    }
    let end = line_end(text, last.end);
    let rest = text.get(last.end..end)?;
    if rest.trim_start().starts_with(',') {
        // What is said about the last item stays with it.
        return splice(text, end..end, &format!("\n{indent}{quoted},"));
    }
    splice(text, last.end..last.end, &format!(",\n{indent}{quoted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(path: &[&str], change: Change) -> Edit {
        Edit { policy: "x".into(), path: path.iter().map(|s| (*s).to_owned()).collect(), change }
    }

    fn push(key: &str) -> Edit {
        edit(&[key], Change::Push("b.example".into()))
    }

    fn done(text: &str, edit: &Edit) -> String {
        apply(text, std::slice::from_ref(edit)).unwrap()
    }

    #[test]
    fn a_list_gets_one_more_in_its_own_style() {
        for (before, after) in [
            ("known = [\"a.example\"] # ours", "known = [\"a.example\", \"b.example\"] # ours"),
            ("known = []", "known = [\"b.example\"]"),
            (
                "known = [\n  'a.example', # ours\n  # no more\n]",
                "known = [\n  'a.example', # ours\n  \"b.example\",\n  # no more\n]",
            ),
            ("known = [\n  'a.example' # ours\n]", "known = [\n  'a.example',\n  \"b.example\" # ours\n]"),
            ("known = ['b.example']", "known = ['b.example']"),
            ("above = \"1\" # one", "above = \"1\" # one\nknown = [\"b.example\"]"),
        ] {
            for head in [
                "[policy.x]\nmodule = 'm'\n[policy.x.settings]\n",
                "[policy.x]\r\nmodule = 'm'\n\n  [policy . \"x\".settings]\n",
            ] {
                let tail = "\n\n[policy.y]\nmodule = 'n'\n";
                assert_eq!(done(&format!("{head}{before}{tail}"), &push("known")), format!("{head}{after}{tail}"));
            }
        }
    }

    #[test]
    fn settings_may_be_written_in_braces_with_points_or_not_at_all() {
        for (before, after) in [
            ("settings = { above = \"1\" }", "settings = { above = \"1\", known = [\"b.example\"] }"),
            ("settings = {}", "settings = { known = [\"b.example\"] }"),
            (
                "settings.above = \"1\"\nmode = 'enforce'",
                "settings.above = \"1\"\nsettings.known = [\"b.example\"]\nmode = 'enforce'",
            ),
            ("mode = 'enforce'", "mode = 'enforce'\nsettings = { known = [\"b.example\"] }"),
            ("settings.known = ['a']", "settings.known = ['a', \"b.example\"]"),
        ] {
            let text = |middle| format!("[policy.x]\nmodule = 'm'\n{middle}\n[other]\nz = 1\n");
            assert_eq!(done(&text(before), &push("known")), text(after), "{before}");
        }
        let empty = "[policy.x]\nmodule = 'm'\n[policy.x.settings] # none yet\n[other]\n";
        let full = "[policy.x]\nmodule = 'm'\n[policy.x.settings] # none yet\nknown = [\"b.example\"]\n[other]\n";
        assert_eq!(done(empty, &push("known")), full);
        let bare = "policy = { x = { module = 'm' } }";
        assert!(apply(bare, &[push("known")]).unwrap_err().contains("by hand"));
        assert!(apply("[policy.y]\n", &[push("known")]).is_err());
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        let set = |path: &[&str]| edit(path, Change::Set("2.50".into()));
        let text = "[policy.x.settings]\nabove = '1.00'   # as agreed\nquorum = 2\n";
        assert_eq!(done(text, &set(&["above"])), text.replace("'1.00'", "\"2.50\""));
        let pins = "[policy.x.settings]\ndrift-percent = 1\n[[policy.x.settings.pins]]\nhost = 'a'\npay-to = ['0x1']\n\
                    [[policy.x.settings.pins]]\nhost = 'b' # second\npay-to = ['0x2']\nprice = '1'\n";
        assert_eq!(done(pins, &set(&["pins", "1", "price"])), pins.replace("'1'\n", "\"2.50\"\n"));
        assert_eq!(
            done(pins, &edit(&["pins", "0", "pay-to"], Change::Push("0x3".into()))),
            pins.replace("['0x1']", "['0x1', \"0x3\"]")
        );
        let braces = "[policy.x]\nsettings = { pins = [{ host = 'a', pay-to = ['0x1'] }] }\n";
        assert_eq!(
            done(braces, &edit(&["pins", "0", "price"], Change::Set("1".into()))),
            braces.replace("['0x1']", "['0x1'], price = \"1\"")
        );
        assert!(apply(pins, &[set(&["pins", "2", "price"])]).is_err());
    }

    #[test]
    fn text_that_needs_it_is_quoted() {
        let text = "[policy.x.settings]\nknown = ['a']\n";
        let changed = done(text, &edit(&["known"], Change::Push("a\"\n[policy.y]".into())));
        let table: toml::Table = changed.parse().unwrap();
        assert_eq!(table["policy"].as_table().unwrap().len(), 1);
        assert_eq!(table["policy"]["x"]["settings"]["known"][1].as_str(), Some("a\"\n[policy.y]"));
    }
}
