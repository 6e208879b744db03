//! The module: compiled once, asked once per request.

use std::fmt;

use countersign_sdk::{Attribute, Problem, SpendRequest};
use regorus::value::Object;
use regorus::{CompiledPolicy, Engine, Rc, Value};
use rules_as_text::names::{self, Node};
use rules_as_text::{full_request, text};

/// Where the text is in the settings.
pub(crate) const PATH: &str = "/policy";
/// The rules that are asked for.
pub(crate) const ASKED: [&str; 4] = ["allow", "deny", "review", "holds"];

const FILE: &str = "policy";
const PACKAGE: &str = "data.countersign";
const ENTRY: &str = "data.countersign_answer.answer";

/// A compiled module.
#[derive(Debug)]
pub(crate) struct Module(CompiledPolicy);

impl Module {
    /// Reads the text and whatever can be known to be wrong with it.
    pub(crate) fn compile(source: &str) -> Result<Self, Vec<Problem>> {
        let failed = |error: anyhow::Error| vec![Failure::new(&error).problem(source)];
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(true);
        let package = engine.add_policy(FILE.to_owned(), source.to_owned()).map_err(failed)?;
        if package != PACKAGE {
            return Err(vec![text::problem_at(
                PATH,
                source,
                source.find("package").unwrap_or_default(),
                "the package must be `countersign`",
            )]);
        }
        let defined = |name: &&str| engine.has_declared_rule_rooted_at(FILE, name).unwrap_or_default();
        let asked: Vec<&str> = ASKED.into_iter().filter(defined).collect();
        if asked.is_empty() {
            return Err(vec![Problem::at(PATH, "there is none of the rules `allow`, `deny`, `review`, `holds`")]);
        }
        engine.add_policy("answer".to_owned(), question(&asked)).map_err(failed)?;
        let compiled = engine.compile_with_entrypoint(&ENTRY.into()).map_err(failed)?;
        let problems = lint(source, &compiled);
        if problems.is_empty() { Ok(Self(compiled)) } else { Err(problems) }
    }

    /// What the rules are for a request: for each that there is, a set of it, or of nothing if it is undefined.
    pub(crate) fn answer(&self, request: &SpendRequest) -> Result<Value, Failure> {
        self.0.eval_with_input(input(request)).map_err(|error| Failure::new(&error))
    }
}

/// A module that asks for each rule, so that one that is undefined does not hide the others.
fn question(asked: &[&str]) -> String {
    let members: Vec<String> =
        asked.iter().map(|name| format!("\"{name}\": {{it | it := {PACKAGE}.{name}}}")).collect();
    format!("package countersign_answer\nanswer := {{{}}}\n", members.join(", "))
}

/// What compiles, and yet can only be a mistake.
fn lint(source: &str, compiled: &CompiledPolicy) -> Vec<Problem> {
    let rules = compiled.get_rules();
    let mut problems: Vec<Problem> = text::few(PATH, rules.values().map(Vec::len).sum()).err().into_iter().collect();
    let local = rules.keys().filter_map(|path| path.strip_prefix(PACKAGE)?.strip_prefix('.'));
    for name in local.filter(|name| !ASKED.contains(name)) {
        if let Some(asked) = ASKED.into_iter().find(|asked| text::distance(name, asked) == 1) {
            let why = format!("nobody asks for the rule `{name}`; if it is not `{asked}`, name it less alike");
            problems.push(text::problem_at(PATH, source, defined_at(source, name), &why));
        }
    }
    let sample = full_request();
    for (at, path) in references(source) {
        if let Err(why) = names::check(&sample, &path) {
            problems.push(text::problem_at(PATH, source, at, &why));
        }
    }
    problems
}

/// Where a line begins with a rule's name.
fn defined_at(source: &str, name: &str) -> usize {
    let mut at = 0;
    for line in source.split_inclusive('\n') {
        if line.starts_with(name) {
            return at;
        }
        at += line.len();
    }
    0
}

/// Every `input.a.b` and `input["a"]` outside of strings and comments.
fn references(source: &str) -> Vec<(usize, Vec<&str>)> {
    let mut found = Vec::new();
    let mut at = 0;
    let in_word = |character: char| character == '_' || character.is_ascii_alphanumeric();
    let word_at = |at: usize| {
        let rest = source.get(at..).unwrap_or_default();
        rest.get(..rest.find(|character| !in_word(character)).unwrap_or(rest.len())).unwrap_or_default()
    };
    while let Some(next) = source.get(at..).and_then(|rest| rest.chars().next()) {
        match next {
            '#' => at += source.get(at..).and_then(|rest| rest.find('\n')).unwrap_or(source.len() - at),
            '"' => at = after_string(source, at),
            '`' => at += source.get(at + 1..).and_then(|rest| rest.find('`')).map_or(source.len() - at, |end| end + 2),
            _ if in_word(next) => {
                let word = word_at(at);
                let of_another = source.get(..at).is_some_and(|before| before.trim_end().ends_with('.'));
                let start = at;
                at += word.len();
                if word == "input" && !of_another {
                    let mut path = Vec::new();
                    while let Some((step, end)) = step_at(source, at, word_at) {
                        path.push(step);
                        at = end;
                    }
                    found.push((start, path));
                }
            }
            _ => at += next.len_utf8(),
        }
    }
    found
}

/// `.name` or `["name"]`, and where it ends.
fn step_at<'s>(source: &'s str, at: usize, word_at: impl Fn(usize) -> &'s str) -> Option<(&'s str, usize)> {
    let rest = source.get(at..)?;
    if rest.starts_with('.') {
        let word = word_at(at + 1);
        return (!word.is_empty()).then(|| (word, at + 1 + word.len()));
    }
    let name = rest.strip_prefix("[\"")?;
    let end = name.find("\"]")?;
    let name = name.get(..end)?;
    (!name.contains(['"', '\\'])).then(|| (name, at + end + 4))
}

fn after_string(source: &str, at: usize) -> usize {
    let mut escaped = false;
    for (index, character) in source.get(at + 1..).unwrap_or_default().char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1 + index + 1,
            _ => {}
        }
    }
    source.len()
}

fn input(request: &SpendRequest) -> Value {
    let section = |name: &'static str| Some((Value::from(name), value(names::section(request, name))));
    names::SECTIONS.into_iter().filter_map(section).collect::<Object>().into()
}

/// What is not set is null.
fn value(node: Option<Node<'_>>) -> Value {
    match node {
        None => Value::Null,
        Some(Node::Text(text)) => Value::from(text),
        Some(Node::Number(number)) => Value::from(number),
        Some(Node::Flag(flag)) => Value::from(flag),
        Some(Node::Texts(texts)) => {
            Value::from(texts.iter().map(|text| Value::from(text.as_str())).collect::<Vec<_>>())
        }
        Some(Node::Attributes(attributes)) => {
            let first =
                |attribute: &Attribute| (Value::from(attribute.name.as_str()), Value::from(attribute.value.as_str()));
            attributes.iter().rev().map(first).collect::<Object>().into()
        }
        Some(Node::Record(members)) => {
            members.into_iter().map(|(name, node)| (Value::from(name), value(node))).collect::<Object>().into()
        }
    }
}

/// Why a module did not compile or could not be evaluated.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    message: String,
}

impl Failure {
    /// An error shows a line of the file above its message: `--> policy:3:5`, …, `error: message`.
    fn new(error: &anyhow::Error) -> Self {
        let shown = error.to_string();
        let place = shown.split_once(&format!("--> {FILE}:")).and_then(|(_, rest)| {
            let mut numbers = rest.lines().next()?.split(':').map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        });
        let message = shown.rsplit_once("error: ").map_or(shown.as_str(), |(_, message)| message);
        Self { place, message: message.trim().to_owned() }
    }

    pub(crate) fn problem(&self, source: &str) -> Problem {
        match self.place {
            Some((line, column)) => text::problem(PATH, source, line, column, &self.message),
            None => Problem::at(PATH, self.message.clone()),
        }
    }

    /// Whether another request may be answered: numbers may be others, and so may the form of a text.
    pub(crate) fn depends_on_values(&self) -> bool {
        ["divide by zero", "could not parse", "invalid"].iter().any(|part| self.message.contains(part))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// Kept here so that readers of answers need not know how strings are shared.
pub(crate) type Text = Rc<str>;
