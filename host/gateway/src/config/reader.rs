//! Reads typed values out of a parsed TOML document and remembers where each stood.
//!
//! A table is opened with the list of keys it may have, so an unknown key is found before a
//! missing one is complained about: whoever mistypes a required key is told about the typo.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use countersign_core::money::Micros;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::{Environment, Secret};
use super::error::ConfigError;
use super::permissions::{Kind, check_private};
use super::{names, units};

/// Largest configuration and secret file, in bytes.
pub(super) const MAX_FILE: u64 = 4 << 20;
const MAX_SECRET: u64 = 64 << 10;

/// Line and column, both from 1; 0 where a mistake has no place.
pub(super) type Place = (u32, u32);

/// The text being read and what reading it needs.
pub(super) struct Source<'s> {
    pub(super) path: &'s Path,
    pub(super) text: &'s str,
    pub(super) base: &'s Path,
    /// None: secrets are checked for their form only, and come out empty.
    pub(super) env: Option<&'s Environment>,
    pub(super) secret_env: RefCell<BTreeSet<String>>,
    pub(super) places: RefCell<BTreeMap<String, Place>>,
    line_starts: Vec<usize>,
}

impl<'s> Source<'s> {
    pub(super) fn new(path: &'s Path, text: &'s str, base: &'s Path, env: Option<&'s Environment>) -> Self {
        let after_breaks = text.bytes().zip(1_usize..).filter(|(b, _)| *b == b'\n').map(|(_, next)| next);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        let (secret_env, places) = (RefCell::default(), RefCell::default());
        Self { path, text, base, env, secret_env, places, line_starts }
    }

    /// The whole document as a table.
    pub(super) fn root(&'s self, document: &'s DeTable<'s>, keys: &'static [&'static str]) -> Read<Table<'s>> {
        Table::open(self, String::new(), 0, document, keys)
    }

    /// Turns the parser's complaint into ours.
    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let (line, column) = error.span().map_or((0, 0), |span| self.place(span.start));
        let message = error.message().trim_end();
        ConfigError { line, column, ..ConfigError::file(self.path, format!("not valid TOML: {message}")) }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.get(start..offset).unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (number(line), number(before.chars().count()).saturating_add(1))
    }

    fn error(&self, offset: usize, key: &str, message: String) -> ConfigError {
        let (line, column) = self.place(offset);
        ConfigError { line, column, key: key.to_owned(), ..ConfigError::file(self.path, message) }
    }
}

pub(super) type Read<T> = Result<T, ConfigError>;

/// A table whose keys are all known.
pub(super) struct Table<'s> {
    source: &'s Source<'s>,
    key: String,
    at: usize,
    entries: BTreeMap<&'s str, Item<'s>>,
}

impl<'s> Table<'s> {
    fn open(
        source: &'s Source<'s>,
        key: String,
        at: usize,
        table: &'s DeTable<'s>,
        keys: &'static [&'static str],
    ) -> Read<Self> {
        let entries = members(source, &key, table);
        let stranger = entries.iter().filter(|(name, _)| !keys.contains(*name)).min_by_key(|(_, item)| item.at);
        if let Some((name, item)) = stranger {
            let table = if key.is_empty() { "at the top of the file".to_owned() } else { format!("in [{key}]") };
            return Err(item.error(format!("there is no key `{name}` {table}")).hint(suggest(name, keys)));
        }
        Ok(Self { source, key, at, entries })
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Item<'s>> {
        self.entries.remove(key)
    }

    /// A key that must be there.
    pub(super) fn need(&mut self, key: &str, why: &str) -> Read<Item<'s>> {
        self.take(key).ok_or_else(|| self.missing(key, why))
    }

    pub(super) fn missing(&self, key: &str, why: &str) -> ConfigError {
        self.source.error(self.at, &join(&self.key, key), "this key is required".to_owned()).hint(why)
    }

    /// A mistake of the table as a whole.
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        self.source.error(self.at, &self.key, message.into())
    }

    /// Reads a table of named things, in the order they are written; names that become equal are
    /// refused.
    pub(super) fn named<K: Clone + Ord + Display, T>(
        &mut self,
        section: &str,
        name: impl Fn(&Item<'s>, &str) -> Read<K>,
        mut read: impl FnMut(&K, Item<'s>) -> Read<T>,
    ) -> Read<Vec<(K, T)>> {
        let Some(item) = self.take(section) else { return Ok(Vec::new()) };
        let DeValue::Table(table) = item.value else {
            return Err(item.wrong("a table").hint(format!("write [{section}.NAME] and its keys below it")));
        };
        let mut members: Vec<_> = members(self.source, section, table).into_iter().collect();
        members.sort_by_key(|(_, item)| item.at);
        let mut seen = BTreeSet::new();
        let mut out = Vec::new();
        for (text, item) in members {
            let name = name(&item, text)?;
            if !seen.insert(name.clone()) {
                return Err(item
                    .error(format!("`{name}` is configured twice"))
                    .hint("upper and lower case make no difference"));
            }
            let value = read(&name, item)?;
            out.push((name, value));
        }
        Ok(out)
    }
}

/// A value, its key and its place.
#[derive(Clone)]
pub(super) struct Item<'s> {
    source: &'s Source<'s>,
    pub(super) key: String,
    at: usize,
    pub(super) value: &'s DeValue<'s>,
}

impl<'s> Item<'s> {
    pub(super) fn error(&self, message: impl Into<String>) -> ConfigError {
        self.source.error(self.at, &self.key, message.into())
    }

    pub(super) fn wrong(&self, expected: &str) -> ConfigError {
        let article = if matches!(self.value, DeValue::Integer(_) | DeValue::Array(_)) { "an" } else { "a" };
        self.error(format!("expected {expected}, not {article} {}", self.value.type_str()))
    }

    /// The members of a table of which the keys are not ours to know; none of other values.
    pub(super) fn members(&self) -> BTreeMap<&'s str, Self> {
        match self.value {
            DeValue::Table(table) => members(self.source, &self.key, table),
            _ => BTreeMap::new(),
        }
    }

    /// A key of this table, before it is opened.
    pub(super) fn peek(&self, key: &str) -> Option<Self> {
        self.members().remove(key)
    }

    pub(super) fn table(&self, keys: &'static [&'static str]) -> Read<Table<'s>> {
        match self.value {
            DeValue::Table(table) => Table::open(self.source, self.key.clone(), self.at, table, keys),
            _ => Err(self.wrong("a table")),
        }
    }

    pub(super) fn str(&self) -> Read<&'s str> {
        match self.value {
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong("text in quotes")),
        }
    }

    pub(super) fn bool(&self) -> Read<bool> {
        self.value.as_bool().ok_or_else(|| self.wrong("`true` or `false`"))
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Read<u64> {
        let DeValue::Integer(integer) = self.value else { return Err(self.wrong("a whole number without quotes")) };
        u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| self.error(format!("expected a number from {} to {}", range.start(), range.end())))
    }

    pub(super) fn u32(&self, range: RangeInclusive<u32>) -> Read<u32> {
        let wide = u64::from(*range.start())..=u64::from(*range.end());
        u32::try_from(self.integer(wide)?).map_err(|_| self.wrong("a smaller number"))
    }

    /// The items of a list.
    pub(super) fn list(&self) -> Read<Vec<Item<'s>>> {
        let DeValue::Array(array) = self.value else { return Err(self.wrong("a list in [ ]")) };
        Ok(array.iter().enumerate().map(|(n, value)| self.element(n, value)).collect())
    }

    /// A list, or one thing that stands for a list of one.
    pub(super) fn one_or_list(&self) -> Read<Vec<Item<'s>>> {
        if self.value.is_array() { self.list() } else { Ok(vec![self.clone()]) }
    }

    fn element(&self, n: usize, value: &'s Spanned<DeValue<'s>>) -> Self {
        let key = format!("{}[{n}]", self.key);
        Self { source: self.source, key, at: value.span().start, value: value.get_ref() }
    }

    /// Money in the reference currency.
    pub(super) fn money(&self) -> Read<Micros> {
        let text =
            self.str().map_err(|e| e.hint("write amounts in quotes, such as \"100.00\": floats cannot hold money"))?;
        Micros::parse(text).map_err(|e| self.error(e.to_string()))
    }

    pub(super) fn millis(&self) -> Read<u64> {
        let hint = "write a number and a unit, such as \"24h\", \"10m\", \"30s\", or \"0\"";
        let text = self.str().map_err(|e| e.hint(hint))?;
        units::millis(text).ok_or_else(|| self.error("not a span of time").hint(hint))
    }

    pub(super) fn bytes(&self, range: RangeInclusive<u64>) -> Read<u64> {
        if self.value.is_integer() {
            return self.integer(range);
        }
        let hint = "write a number of bytes, or a number and a unit, such as \"512KiB\" or \"1MiB\"";
        let size = units::bytes(self.str().map_err(|e| e.hint(hint))?);
        let size = size.ok_or_else(|| self.error("not a size").hint(hint))?;
        if range.contains(&size) {
            Ok(size)
        } else {
            Err(self.error(format!("expected {} to {} bytes", range.start(), range.end())))
        }
    }

    /// A name in its one spelling.
    pub(super) fn name(&self) -> Read<String> {
        self.named(self.str()?)
    }

    /// `text`, which stands at this item, as a name.
    pub(super) fn named(&self, text: &str) -> Read<String> {
        names::normalise(text).ok_or_else(|| self.error(format!("{text:?} is not a name")).hint(names::NAME_RULE))
    }

    pub(super) fn names(&self) -> Read<BTreeSet<String>> {
        self.list()?.iter().map(Self::name).collect()
    }

    /// A list of words out of a fixed choice.
    pub(super) fn choices<T: Copy + Ord>(&self, from: &[(&'static str, T)]) -> Read<BTreeSet<T>> {
        self.list()?.iter().map(|item| item.choice(from)).collect()
    }

    pub(super) fn choice<T: Copy>(&self, from: &[(&'static str, T)]) -> Read<T> {
        let text = self.str()?;
        from.iter().find(|(word, _)| *word == text).map(|(_, value)| *value).ok_or_else(|| {
            let words: Vec<&str> = from.iter().map(|(word, _)| *word).collect();
            self.error(format!("{text:?} is not one of the choices")).hint(suggest(text, &words))
        })
    }

    /// SHA-256 in hex, lower-cased.
    pub(super) fn sha256(&self, hint: &str) -> Read<String> {
        let text = self.str()?;
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            Ok(text.to_ascii_lowercase())
        } else {
            Err(self.error("expected a SHA-256 in 64 hex digits").hint(hint))
        }
    }

    /// A path; relative ones start at the configuration's own folder.
    pub(super) fn path(&self) -> Read<PathBuf> {
        match self.str()? {
            "" => Err(self.error("expected a path")),
            text => Ok(self.source.base.join(text)),
        }
    }

    pub(super) fn resolve(&self, relative: &str) -> PathBuf {
        self.source.base.join(relative)
    }

    /// A secret: `{ env = "NAME" }` or `{ file = "path" }`, never the thing itself.
    pub(super) fn secret(&self) -> Read<Secret> {
        const HOW: &str = "write { env = \"NAME\" } or { file = \"path\" }: secrets do not belong in this file";
        if self.value.is_str() {
            return Err(self.error("a secret must not be written here").hint(HOW));
        }
        let mut table = self.table(&["env", "file"]).map_err(|e| if e.hint.is_some() { e } else { e.hint(HOW) })?;
        match (table.take("env"), table.take("file")) {
            (Some(env), None) => env.secret_from_env(),
            (None, Some(file)) => file.secret_from_file(),
            _ => Err(self.error("expected exactly one of `env` and `file`").hint(HOW)),
        }
    }

    fn secret_from_env(&self) -> Read<Secret> {
        let name = self.str()?;
        self.source.secret_env.borrow_mut().insert(name.to_owned());
        let Some(env) = self.source.env else { return Ok(Secret::new("")) };
        match env.get(name) {
            Some(value) if !value.is_empty() => Ok(Secret::new(value)),
            Some(_) => Err(self.error(format!("the environment variable {name} is empty"))),
            None => Err(self
                .error(format!("the environment variable {name} is not set"))
                .hint(format!("set {name} for this process, or use {{ file = \"path\" }}"))),
        }
    }

    fn secret_from_file(&self) -> Read<Secret> {
        let path = self.path()?;
        if self.source.env.is_none() {
            return Ok(Secret::new(""));
        }
        check_private(&path, Kind::Secret).map_err(|e| match e.hint() {
            Some(hint) => self.error(e.to_string()).hint(hint),
            None => self.error(e.to_string()),
        })?;
        let text = read_text(&path, MAX_SECRET).map_err(|e| self.error(format!("{}: {e}", path.display())))?;
        let text = Secret::new(text);
        let value = text.expose();
        let value = value.strip_suffix('\n').map_or(value, |line| line.strip_suffix('\r').unwrap_or(line));
        if value.is_empty() {
            return Err(self.error(format!("{} is empty", path.display())));
        }
        Ok(Secret::new(value))
    }
}

/// Reads a file that must be UTF-8 and no longer than `limit`.
pub(super) fn read_text(path: &Path, limit: u64) -> Result<String, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(format!("larger than {limit} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8".to_owned())
}

fn members<'s>(source: &'s Source<'s>, key: &str, table: &'s DeTable<'s>) -> BTreeMap<&'s str, Item<'s>> {
    let mut places = source.places.borrow_mut();
    let mut members = BTreeMap::new();
    for (name, value) in table {
        let (text, at): (&'s str, usize) = (name.get_ref(), name.span().start);
        let item = Item { source, key: join(key, text), at, value: value.get_ref() };
        places.insert(item.key.clone(), source.place(at));
        members.insert(text, item);
    }
    members
}

/// A dotted key; names that TOML would quote are quoted.
pub(super) fn join(table: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if table.is_empty() { key } else { format!("{table}.{key}") }
}

/// The nearest of `words`, or all of them.
pub(super) fn suggest(text: &str, words: &[&str]) -> String {
    let folded = text.to_ascii_lowercase().replace('_', "-");
    let near = words
        .iter()
        .map(|word| (strsim::damerau_levenshtein(&folded, word), word))
        .min()
        .filter(|(distance, word)| *distance <= 1_usize.saturating_add(word.len() / 3));
    match near {
        Some((_, word)) => format!("did you mean `{word}`?"),
        None => {
            let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
            format!("one of {}", words.join(", "))
        }
    }
}
