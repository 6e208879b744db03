//! `[vendor.NAME]`: what the operator knows about sellers. Policies are told it as facts: what a seller
//! says about its own category is a claim, what stands here is not.

use countersign_core::spend::Attribute;
use countersign_core::web::Scheme;

use super::egress::HostPattern;
use super::reader::{Item, Read, suggest};

/// What is known about some hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VendorConfig {
    /// Its name in the file.
    pub name: String,
    /// Which hosts.
    pub hosts: Vec<HostPattern>,
    /// What policies are told, such as `category` and `data-class`; sorted by name.
    pub facts: Vec<Attribute>,
}

const KEYS: &[&str] = &["hosts", "facts"];
/// Facts that the host itself states.
const RESERVED: [&str; 2] = ["door", "mandate"];
const RESERVED_PREFIXES: [&str; 3] = ["approved-", "agent-", "mcp-"];
/// Facts one vendor may have; every decision's record carries them.
const MOST_FACTS: usize = 16;
const MOST_BYTES: usize = 128;

impl VendorConfig {
    pub(super) fn read(name: &str, item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(KEYS)?;
        let hosts = table.need("hosts", "such as hosts = [\"api.example.com\", \"*.data.example\"]")?;
        let patterns = hosts.list()?.iter().map(HostPattern::read).collect::<Read<Vec<_>>>()?;
        if patterns.is_empty() {
            return Err(hosts.error("an empty list matches no host"));
        }
        let facts = table.need("facts", "such as facts = { category = \"market-data\", data-class = \"public\" }")?;
        if !facts.value.is_table() {
            return Err(facts.wrong("a table"));
        }
        let facts = facts.members().iter().map(|(name, item)| fact(name, item)).collect::<Read<Vec<_>>>()?;
        if facts.len() > MOST_FACTS {
            return Err(item.error(format!("{} facts; at most {MOST_FACTS}", facts.len())));
        }
        Ok(Self { name: name.to_owned(), hosts: patterns, facts })
    }

    /// Whether a seller is meant. `port` is the one that is dialled.
    #[must_use]
    pub fn matches(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        self.hosts.iter().any(|pattern| pattern.matches(host, port, scheme.default_port()))
    }
}

fn fact(name: &str, item: &Item<'_>) -> Read<Attribute> {
    let kebab = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if !(1..=64).contains(&name.len()) || !name.bytes().all(kebab) {
        return Err(item.error(format!("{name:?} is not a fact's name")).hint("1 to 64 of a-z, 0-9 and `-`"));
    }
    if RESERVED.contains(&name) || RESERVED_PREFIXES.iter().any(|p| name.starts_with(p)) {
        let hint = suggest(name, &["category", "data-class"]);
        return Err(item.error(format!("the gateway itself states `{name}`")).hint(hint));
    }
    let value = item.str()?;
    if value.is_empty() || value.len() > MOST_BYTES || value.chars().any(char::is_control) {
        return Err(item.error(format!("expected 1 to {MOST_BYTES} bytes of printable text")));
    }
    Ok(Attribute { name: name.to_owned(), value: value.to_owned() })
}
