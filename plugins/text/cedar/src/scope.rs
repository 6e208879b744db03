//! What fills a step of a budget: a name as policies write it, such as `principal.client`.

use countersign_sdk::SpendRequest;
use rules_as_text::names::{self, Node};

use rules_as_text::full_request;

/// A name of a request that is a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope(Vec<String>);

impl Scope {
    pub(crate) fn read(name: &str) -> Result<Self, String> {
        let mut path: Vec<&str> = name.split('.').collect();
        match path.as_slice() {
            ["principal", _] => {}
            ["resource", "host" | "path"] => path.splice(..1, ["purchase"]).for_each(drop),
            ["resource", _] => path.splice(..1, ["seller"]).for_each(drop),
            ["context", "claims", ..] => {
                return Err(format!("`{name}` is said by the agent, who could choose another's budget"));
            }
            ["context", _, ..] => path.splice(..1, []).for_each(drop),
            _ => {
                return Err(format!(
                    "`{}` is no name such as `principal.client`, `resource.host` or `context.payment.network`",
                    name.escape_debug()
                ));
            }
        }
        let sample = full_request();
        names::check(&sample, &path)?;
        match names::find(&sample, &path) {
            // Of a fact only a request can say whether it is there.
            Some(Node::Text(_)) | None => Ok(Self(path.into_iter().map(str::to_owned).collect())),
            Some(_) => Err(format!("`{name}` is not a string")),
        }
    }

    pub(crate) fn of<'r>(&self, request: &'r SpendRequest) -> Option<&'r str> {
        let path: Vec<&str> = self.0.iter().map(String::as_str).collect();
        match names::find(request, &path) {
            Some(Node::Text(text)) => Some(text),
            _ => None,
        }
    }
}
