//! One expression: compiled, checked against what a request has, evaluated.

use std::collections::HashMap;
use std::sync::Arc;

use countersign_sdk::{Problem, SpendRequest};
use interpreter::common::ast::{EntryExpr, Expr, IdedExpr};
use interpreter::common::types::{CelBool, CelInt, CelList, CelMap, CelMapKey, CelString};
use interpreter::common::value::Val;
use interpreter::{Context, Env, ExecutionError, Program, Value};
use rules_as_text::names::{self, Node};
use rules_as_text::{full_request, text};

/// The standard functions and macros of CEL, without regular expressions, time and duration.
#[derive(Debug, Clone)]
pub(crate) struct Language(Arc<Standard>);

struct Standard(Arc<Env>);

impl std::fmt::Debug for Standard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Env")
    }
}

/// The names an expression can use, with the values of one request.
pub(crate) type Scope<'p, 'v> = Context<'p, 'v>;

/// A compiled expression and its text.
#[derive(Debug)]
pub(crate) struct Expression {
    /// Where it is in the settings.
    path: String,
    text: String,
    program: Program,
}

impl Language {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Standard(Arc::new(Env::stdlib()))))
    }

    /// Reads an expression.
    pub(crate) fn compile(&self, path: &str, source: &str) -> Result<Expression, Vec<Problem>> {
        text::bounded(path, source).and_then(|()| text::shallow(path, source)).map_err(|problem| vec![problem])?;
        let program = self.0.0.compile(source).map_err(|errors| {
            let told = errors.errors.iter().take(5);
            told.map(|error| {
                let at = |position: isize| usize::try_from(position).unwrap_or_default().max(1);
                text::problem(path, source, at(error.pos.0), at(error.pos.1), told_plainly(&error.msg))
            })
            .collect::<Vec<_>>()
        })?;
        let expression = Expression { path: path.to_owned(), text: source.to_owned(), program };
        let slips = expression.slips();
        if slips.is_empty() { Ok(expression) } else { Err(slips) }
    }

    /// What of a request the expressions read, bound to its names.
    pub(crate) fn scope<'v>(&self, request: &'v SpendRequest, sections: &[&'static str]) -> Scope<'v, 'v> {
        let mut scope = Context::with_env(Arc::clone(&self.0.0));
        for name in sections {
            if let Some(node) = names::section(request, name) {
                scope.add_variable_as_val(*name, value(node));
            }
        }
        scope
    }
}

/// The parser tells its own limit as the structure it is.
fn told_plainly(message: &str) -> &str {
    if message.contains("Recursion limit") { "the expression nests too deep" } else { message }
}

impl Expression {
    /// Whether it is true.
    pub(crate) fn truth(&self, scope: &Scope<'_, '_>) -> Result<bool, String> {
        match self.value(scope).map_err(|error| error.to_string())? {
            Value::Bool(truth) => Ok(truth),
            other => Err(format!("it is a {}, not true or false", other.type_of())),
        }
    }

    /// The string it is, or nothing if it reads what is not there.
    pub(crate) fn text(&self, scope: &Scope<'_, '_>) -> Result<Option<String>, String> {
        match self.value(scope) {
            Ok(Value::String(text)) => Ok(Some(Arc::unwrap_or_clone(text))),
            Ok(other) => Err(format!("it is a {}, not a string", other.type_of())),
            Err(ExecutionError::NoSuchKey(_)) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The problem with it if it fails even on a request that has everything. A value that is not there, or a
    /// division by zero, may be there or be another number in the next request.
    pub(crate) fn rehearse<T>(
        &self,
        scope: &Scope<'_, '_>,
        read: impl Fn(&Self, &Scope<'_, '_>) -> Result<T, String>,
    ) -> Option<Problem> {
        let depends_on_values = |error: &ExecutionError| {
            matches!(
                error,
                ExecutionError::NoSuchKey(_)
                    | ExecutionError::IndexOutOfBounds(_)
                    | ExecutionError::DivisionByZero(_)
                    | ExecutionError::RemainderByZero(_)
                    | ExecutionError::Overflow(..)
                    | ExecutionError::FunctionError { .. }
            )
        };
        if self.value(scope).is_err_and(|error| depends_on_values(&error)) {
            return None;
        }
        let why = read(self, scope).err()?;
        Some(text::problem(&self.path, &self.text, 1, 1, &why))
    }

    fn value(&self, scope: &Scope<'_, '_>) -> Result<Value, ExecutionError> {
        self.program.execute(scope)
    }

    /// Names that no request has.
    fn slips(&self) -> Vec<Problem> {
        let mut slips = Vec::new();
        let sample = full_request();
        walk(self.program.expression(), &mut Vec::new(), &mut |id, path| {
            if let Err(why) = names::check(&sample, path) {
                let at = self.program.source_info().offset_for(id).map_or(0, |(start, _)| start);
                slips.push(text::problem_at(&self.path, &self.text, usize::try_from(at).unwrap_or_default(), &why));
            }
        });
        slips
    }
}

/// The sections that any of the expressions reads.
pub(crate) fn sections<'e>(expressions: impl Iterator<Item = &'e Expression>) -> Vec<&'static str> {
    let read: Vec<_> = expressions.map(|expression| expression.program.references()).collect();
    names::SECTIONS.into_iter().filter(|name| read.iter().any(|references| references.has_variable(name))).collect()
}

/// Calls `found` with every chain of names such as `payment.value`, but those that begin with a name of a macro.
fn walk<'e>(at: &'e IdedExpr, bound: &mut Vec<&'e str>, found: &mut impl FnMut(u64, &[&str])) {
    if let Some(path) = chain(at) {
        if path.first().is_some_and(|first| !first.starts_with('@') && !bound.contains(first)) {
            found(at.id, &path);
        }
        return;
    }
    match &at.expr {
        Expr::Call(call) => {
            call.target.iter().for_each(|target| walk(target, bound, found));
            call.args.iter().for_each(|argument| walk(argument, bound, found));
        }
        Expr::Comprehension(macro_call) => {
            walk(&macro_call.iter_range, bound, found);
            let outside = bound.len();
            bound.extend([macro_call.iter_var.as_str(), macro_call.accu_var.as_str()]);
            bound.extend(macro_call.iter_var2.as_deref());
            for part in [&macro_call.accu_init, &macro_call.loop_cond, &macro_call.loop_step, &macro_call.result] {
                walk(part, bound, found);
            }
            bound.truncate(outside);
        }
        Expr::List(list) => list.elements.iter().for_each(|element| walk(element, bound, found)),
        Expr::Map(map) => map.entries.iter().for_each(|entry| walk_entry(&entry.expr, bound, found)),
        Expr::Struct(object) => object.entries.iter().for_each(|entry| walk_entry(&entry.expr, bound, found)),
        Expr::Select(select) => walk(&select.operand, bound, found),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn walk_entry<'e>(entry: &'e EntryExpr, bound: &mut Vec<&'e str>, found: &mut impl FnMut(u64, &[&str])) {
    match entry {
        EntryExpr::StructField(field) => walk(&field.value, bound, found),
        EntryExpr::MapEntry(entry) => {
            walk(&entry.key, bound, found);
            walk(&entry.value, bound, found);
        }
    }
}

/// `a.b.c` as its names.
fn chain(at: &IdedExpr) -> Option<Vec<&str>> {
    match &at.expr {
        Expr::Ident(name) => Some(vec![name.strip_prefix('.').unwrap_or(name)]),
        Expr::Select(select) => {
            let mut path = chain(&select.operand)?;
            path.push(&select.field);
            Some(path)
        }
        _ => None,
    }
}

fn value(node: Node<'_>) -> Box<dyn Val + '_> {
    match node {
        Node::Text(text) => Box::new(CelString::from(text)),
        Node::Number(number) => Box::new(CelInt::from(i64::try_from(number).unwrap_or(i64::MAX))),
        Node::Flag(flag) => Box::new(CelBool::from(flag)),
        Node::Texts(texts) => {
            let texts: Vec<Box<dyn Val + '_>> = texts.iter().map(|text| value(Node::Text(text))).collect();
            Box::new(CelList::from(texts))
        }
        Node::Attributes(attributes) => {
            let mut map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> = HashMap::new();
            for attribute in attributes {
                let key = CelMapKey::String(CelString::from(attribute.name.as_str()));
                map.entry(key).or_insert_with(|| value(Node::Text(&attribute.value)));
            }
            Box::new(CelMap::from(map))
        }
        Node::Record(members) => {
            let there = members.into_iter().filter_map(|(name, node)| node.map(|node| (name, node)));
            let map: HashMap<CelMapKey<'_>, Box<dyn Val + '_>> =
                there.map(|(name, node)| (CelMapKey::String(CelString::from(name)), value(node))).collect();
            Box::new(CelMap::from(map))
        }
    }
}
