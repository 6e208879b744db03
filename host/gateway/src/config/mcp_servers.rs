//! `[mcp-server.NAME]`: MCP servers that agents reach at `/mcp/NAME`, and that may ask to be paid.

use std::collections::BTreeMap;

use countersign_core::web::{Target, carries_payment, forbidden_request_header};
use http::{HeaderName, HeaderValue};

use super::mandates::When;
use super::reader::{Item, Read};
use super::{Secret, names};

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct McpServer {
    /// Where it speaks streamable HTTP.
    pub target: Target,
    /// What it is sent with every request, such as the operator's credentials there; names in lower case.
    pub headers: BTreeMap<String, Secret>,
    /// Who may use it; everybody, unless written.
    pub when: When,
}

/// Headers that the protocol or the transport sets.
const OURS: &[&str] = &[
    "accept",
    "accept-encoding",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
];

impl McpServer {
    const KEYS: &'static [&'static str] = &["url", "headers", "when"];

    /// A server's name: it is a part of a path, so it has one spelling.
    pub(super) fn name(item: &Item<'_>, text: &str) -> Read<String> {
        let name = item.named(text)?;
        if name != text {
            return Err(item.error(format!("{text:?} has capitals")).hint(names::NAME_RULE));
        }
        if name.bytes().all(|b| b == b'.') {
            return Err(item.error("a path cannot end in points only").hint("give it a name with a letter"));
        }
        Ok(name)
    }

    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(Self::KEYS)?;
        let url = table.need("url", "such as url = \"https://tools.example.com/mcp\"")?;
        let target = Target::parse(url.str()?).map_err(|e| url.error(e.to_string()))?;
        let headers = table.take("headers").map(|item| headers(&item)).transpose()?.unwrap_or_default();
        let when = table.take("when").map(|item| When::read(&item)).transpose()?.unwrap_or_default();
        Ok(Self { target, headers, when })
    }

    /// What is left of it after an edit that says `new`: another URL, or other people, is another server.
    pub(super) fn restrict(&self, new: &Self) -> Option<Self> {
        (self.target == new.target && self.when == new.when).then(|| new.clone())
    }
}

/// Values as they are, or where they are.
fn headers(item: &Item<'_>) -> Read<BTreeMap<String, Secret>> {
    if !item.value.is_table() {
        return Err(item.wrong("a table").hint("write headers = { authorization = { env = \"NAME\" } }"));
    }
    let mut headers = BTreeMap::new();
    for (name, item) in item.members() {
        let parsed: HeaderName = name.parse().map_err(|_| item.error(format!("{name:?} is not a header's name")))?;
        if forbidden_request_header(parsed.as_str()) || OURS.contains(&parsed.as_str()) {
            return Err(item.error(format!("`{parsed}` is the gateway's to set")));
        }
        let value = if item.value.is_str() { Secret::new(item.str()?) } else { item.secret()? };
        if HeaderValue::from_str(value.expose()).is_err() {
            return Err(item.error("this cannot be sent in a header"));
        }
        if carries_payment(parsed.as_str(), value.expose().as_bytes()) {
            return Err(item.error("a payment is the gateway's to make"));
        }
        if headers.insert(parsed.as_str().to_owned(), value).is_some() {
            return Err(item.error(format!("`{parsed}` is written twice")));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, ConfigError, Environment};

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let environment: Environment = [("KEY", "Bearer x")].into_iter().collect();
        Config::parse(text, Path::new("/srv/gateway"), &environment)
    }

    const SERVER: &str = "[mcp-server.tools-1]\nurl = 'https://Tools.example/mcp?v=1'\n\
                          headers = { Authorization = { env = 'KEY' }, x-team = 'a' }\nwhen = { role = 'analyst' }\n";

    #[test]
    fn servers_are_read_and_their_secrets_are_not_shown() {
        let config = parse(SERVER).unwrap();
        let server = &config.mcp_servers["tools-1"];
        assert_eq!(server.target.url(), "https://tools.example/mcp?v=1");
        let headers: Vec<_> = server.headers.iter().map(|(n, v)| (n.as_str(), v.expose())).collect();
        assert_eq!(headers, [("authorization", "Bearer x"), ("x-team", "a")]);
        assert!(config.secret_env.contains("KEY") && !format!("{config:?}").contains("Bearer"));
        for (from, to, what) in [
            ("tools-1", "Tools", "has capitals"),
            ("tools-1", "'..'", "points only"),
            ("https://Tools", "ftp://tools", "url"),
            ("x-team", "Host", "the gateway's to set"),
            ("x-team", "Mcp-Session-Id", "the gateway's to set"),
            ("x-team", "X-Payment", "the gateway's to set"),
            ("x-team", "authorization", "written twice"),
            ("'a'", "\"a\\n\"", "cannot be sent"),
            ("'a'", "1", "expected a table"),
            ("{ env = 'KEY' }", "'Payment x'", "the gateway's to make"),
            ("when", "who", "did you mean `when`"),
        ] {
            let error = parse(&SERVER.replace(from, to)).unwrap_err();
            let said = format!("{error} {:?}", error.hint);
            assert!(said.contains(what), "{to}: {said}");
        }
    }

    #[test]
    fn rule_19_a_server_that_is_removed_or_changed_is_gone_at_once_and_none_is_added() {
        let old = parse(SERVER).unwrap();
        let left = |text: &str| old.restrict(&parse(text).unwrap()).mcp_servers;
        assert!(left("").is_empty());
        assert!(left(&SERVER.replace("tools.", "other.").replace("Tools.", "other.")).is_empty());
        assert!(left(&SERVER.replace("analyst", "intern")).is_empty());
        assert_eq!(left(&(SERVER.to_owned() + "[mcp-server.more]\nurl = 'https://more.example/'\n")), old.mcp_servers);
        let rotated = parse(&SERVER.replace("'a'", "'b'")).unwrap();
        assert_eq!(old.restrict(&rotated).mcp_servers, rotated.mcp_servers, "new credentials count at once");
        assert!(old.restrict_to_both(&rotated).mcp_servers.is_empty(), "which of the two is older, nobody knows");
        assert_eq!(old.restrict_to_both(&old).mcp_servers, old.mcp_servers);
        assert!(old.needs_restart(&parse("").unwrap()).is_empty());
    }
}
