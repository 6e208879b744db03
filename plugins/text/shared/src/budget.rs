//! Paths of budgets. What a request fills in is one whole step of a path, of characters that the host
//! takes and without `/`, so no name can reach the budget of another.

use std::fmt::Write as _;

use countersign_sdk::{Problem, Reason};

/// What the host takes.
const MAX_BYTES: usize = 200;
/// Reason code: a step of the path is not in the request.
pub const SCOPE_MISSING: &str = "hold-scope-missing";
/// Reason code: a step of the path is in the request, but cannot be one.
pub const SCOPE_UNUSABLE: &str = "hold-scope-unusable";

/// A budget as settings write it: `client/{principal.client}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template<T> {
    text: String,
    steps: Vec<Step<T>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step<T> {
    Word(String),
    Filled(T),
}

impl<T> Template<T> {
    /// Reads a template; `scope` reads what is between braces.
    ///
    /// # Errors
    /// What is wrong with it, at `path`.
    pub fn parse(path: &str, text: &str, mut scope: impl FnMut(&str) -> Result<T, String>) -> Result<Self, Problem> {
        let problem = |why: String| Problem::at(path, why);
        let mut steps = Vec::new();
        for step in split(text) {
            let inner = step.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let inner = inner.filter(|inner| !inner.contains(['{', '}']));
            steps.push(match inner {
                Some(inner) => Step::Filled(scope(inner.trim()).map_err(problem)?),
                None if step.contains(['{', '}']) => {
                    return Err(problem(format!(
                        "`{step}`: braces must fill a whole step of the path, as in `client/{{principal.client}}`; \
                         joined with other text, two names could make one budget"
                    )));
                }
                None => Step::Word(word(step).map_err(problem)?.to_owned()),
            });
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// Whether a request exists in which both are one path. Templates that read alike are meant to be.
    pub fn may_meet(&self, other: &Self) -> bool {
        let meet = |(a, b): (&Step<T>, &Step<T>)| match (a, b) {
            (Step::Word(a), Step::Word(b)) => a == b,
            _ => true,
        };
        self.text != other.text
            && self.steps.len() == other.steps.len()
            && self.steps.iter().zip(&other.steps).all(meet)
    }

    /// What fills steps.
    pub fn scopes(&self) -> impl Iterator<Item = &T> {
        self.steps.iter().filter_map(|step| match step {
            Step::Word(_) => None,
            Step::Filled(scope) => Some(scope),
        })
    }

    /// The path for a request; `look_up` says what fills a step.
    ///
    /// # Errors
    /// The reason to deny: a step has no value, or one that cannot be a step.
    pub fn fill<'v, V: AsRef<str> + 'v>(
        &self,
        mut look_up: impl FnMut(&T) -> Result<Option<V>, Reason>,
    ) -> Result<String, Reason> {
        let mut path = Path::new(&self.text);
        for step in &self.steps {
            match step {
                Step::Word(word) => path.push(Some(word))?,
                Step::Filled(scope) => path.push(look_up(scope)?.as_ref().map(AsRef::as_ref))?,
            }
        }
        Ok(path.finish())
    }
}

/// A path in the making, of steps that are only known now.
#[derive(Debug)]
pub struct Path<'a> {
    /// What to call it when it cannot be made.
    name: &'a str,
    path: String,
}

impl<'a> Path<'a> {
    /// An empty path; `name` is what messages call it.
    #[must_use]
    pub const fn new(name: &'a str) -> Self {
        Self { name, path: String::new() }
    }

    /// Adds a step.
    ///
    /// # Errors
    /// The reason to deny.
    pub fn push(&mut self, step: Option<&str>) -> Result<(), Reason> {
        let name = self.name;
        let Some(step) = step.filter(|step| !step.is_empty()) else {
            let why = format!("the budget `{name}` needs a value that this request does not have");
            return Err(Reason::new(SCOPE_MISSING, why));
        };
        if !self.path.is_empty() {
            self.path.push('/');
        }
        match word(step) {
            Ok(step) if self.path.len() + step.len() <= MAX_BYTES => self.path.push_str(step),
            Ok(_) => {
                return Err(Reason::new(SCOPE_UNUSABLE, format!("the budget `{name}` is longer than {MAX_BYTES}")));
            }
            Err(why) => return Err(Reason::new(SCOPE_UNUSABLE, format!("the budget `{name}`: {why}"))),
        }
        Ok(())
    }

    /// The path.
    #[must_use]
    pub fn finish(self) -> String {
        self.path
    }
}

/// What may be between two slashes.
fn word(step: &str) -> Result<&str, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:-".contains(&byte);
    if !step.is_empty() && step.bytes().all(plain) && !step.bytes().all(|byte| byte == b'.') {
        return Ok(step);
    }
    let mut shown = String::new();
    for character in step.chars().take(40) {
        let _ = write!(shown, "{}", character.escape_debug());
    }
    Err(format!("`{shown}` cannot be a step of a budget's path; use letters, digits and `. _ @ : -`"))
}

/// At the slashes that are not between braces.
fn split(text: &str) -> Vec<&str> {
    let mut steps = Vec::new();
    let mut depth = 0_usize;
    let mut rest = text;
    let mut at = 0;
    while let Some(found) = rest.get(at..).and_then(|tail| tail.find(['/', '{', '}'])) {
        at += found;
        match rest.as_bytes().get(at) {
            Some(b'{') => depth += 1,
            Some(b'}') => depth = depth.saturating_sub(1),
            _ if depth == 0 => {
                steps.push(rest.get(..at).unwrap_or_default());
                rest = rest.get(at + 1..).unwrap_or_default();
                at = 0;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    steps.push(rest);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Template<String>, Problem> {
        Template::parse("/holds/0/budget", text, |scope| Ok(scope.to_owned()))
    }

    fn fill(text: &str, value: Option<&str>) -> Result<String, String> {
        parse(text).unwrap().fill(|_| Ok(value)).map_err(|reason| reason.code)
    }

    #[test]
    fn fills_whole_steps() {
        assert_eq!(fill("client/{principal.client}", Some("acme")), Ok("client/acme".to_owned()));
        assert_eq!(fill("a/{ x }/b/{ y }", Some("A-1@b.c:80")), Ok("a/A-1@b.c:80/b/A-1@b.c:80".to_owned()));
        assert_eq!(fill("all", None), Ok("all".to_owned()));
        assert_eq!(fill("host/{m['a/b']}", Some("x")), Ok("host/x".to_owned()));
    }

    #[test]
    fn no_value_leaves_its_step() {
        for value in ["acme/../other", "a/b", "/", "..", ".", "...", "a b", "a\nb", "ａcme", "a%2Fb", "{x}", "[::1]:80"]
        {
            assert_eq!(fill("client/{principal.client}", Some(value)), Err(SCOPE_UNUSABLE.to_owned()), "{value}");
        }
        assert_eq!(fill("client/{c}", Some(&"x".repeat(193))).unwrap().len(), MAX_BYTES);
        assert_eq!(fill("client/{c}", Some(&"x".repeat(194))), Err(SCOPE_UNUSABLE.to_owned()));
        for value in [None, Some("")] {
            assert_eq!(fill("client/{principal.client}", value), Err(SCOPE_MISSING.to_owned()));
        }
    }

    #[test]
    fn templates_that_cannot_be_meant() {
        for (text, why) in [
            ("", "cannot be a step"),
            ("client/", "cannot be a step"),
            ("/client", "cannot be a step"),
            ("a//b", "cannot be a step"),
            ("a b", "cannot be a step"),
            ("client-{c}", "whole step"),
            ("{a}-{b}", "whole step"),
            ("client/{c", "whole step"),
            ("client/c}", "whole step"),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.message.contains(why), "{text}: {problem:?}");
        }
    }

    #[test]
    fn two_scopes_do_not_share_a_path() {
        let meet = |a: &str, b: &str| parse(a).unwrap().may_meet(&parse(b).unwrap());
        assert!(meet("client/{c}", "client/{p}"));
        assert!(meet("client/{c}", "client/total"));
        assert!(meet("{a}/x", "y/{b}"));
        assert!(!meet("client/{c}", "client/{c}"));
        assert!(!meet("client/{c}", "project/{p}"));
        assert!(!meet("client/{c}", "client/{c}/project/{p}"));
    }
}
