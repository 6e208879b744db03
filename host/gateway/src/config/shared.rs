//! What gateways on one ledger have in common, and what is each one's own.
//!
//! The ledger's generation is what serves at all of them, so the ledger keeps the common part of the file it was made
//! of: canonical TOML without comments. Where a gateway listens, its copy of the ledger, its certificates and caches
//! are its own and in no generation. No secret is in either: files only refer to them.

use std::path::Path;

use toml::{Table, Value};

use super::{Config, ConfigError, Environment};

/// What is each gateway's own: whole sections, or keys of one.
const OWN: &[(&str, &[&str])] = &[
    ("gateway", &["listen", "admin", "tls", "admin-hosts"]),
    ("ledger", &[]),
    ("engine", &[]),
    ("telemetry", &[]),
    ("egress", &["roots", "answer-timeout"]),
    ("proxy", &["ca"]),
];

/// A file in its two parts, as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parted {
    pub(super) common: String,
    pub(super) own: String,
}

/// Divides a file that was read.
pub(super) fn part(text: &str) -> Result<Parted, String> {
    let mut common: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut own = Table::new();
    for (section, keys) in OWN {
        if keys.is_empty() {
            own.extend(common.remove(*section).map(|value| ((*section).to_owned(), value)));
            continue;
        }
        let Some(Value::Table(table)) = common.get_mut(*section) else { continue };
        let mut taken = Table::new();
        for key in *keys {
            taken.extend(table.remove(*key).map(|value| ((*key).to_owned(), value)));
        }
        if table.is_empty() {
            common.remove(*section);
        }
        if !taken.is_empty() {
            own.insert((*section).to_owned(), Value::Table(taken));
        }
    }
    let text = |table: &Table| toml::to_string(table).map_err(|e| e.to_string());
    Ok(Parted { common: text(&common)?, own: text(&own)? })
}

impl Config {
    /// The part of the file that all gateways on a shared ledger have in common; nothing, if the ledger is this
    /// gateway's alone. [`Config::sha256`] is its digest then.
    #[must_use]
    pub fn common(&self) -> Option<&str> {
        self.parted.as_ref().map(|parted| parted.common.as_str())
    }

    /// This gateway's own part with another common one, as a generation of the ledger has it.
    ///
    /// # Errors
    /// What is wrong with the two together; also when this ledger is not shared.
    pub fn with_common(&self, common: &str, env: &Environment) -> Result<Self, ConfigError> {
        let fail = |why: String| ConfigError::file(&self.path, format!("with the ledger's generation: {why}"));
        let parted = self.parted.as_ref().ok_or_else(|| fail("the ledger is not shared".to_owned()))?;
        let read = |text: &str| text.parse::<Table>().map_err(|e| fail(e.to_string()));
        let mut whole = read(common)?;
        for (section, value) in read(&parted.own)? {
            match (whole.get_mut(&section), value) {
                (Some(Value::Table(table)), Value::Table(own)) => table.extend(own),
                (_, value) => {
                    whole.insert(section, value);
                }
            }
        }
        let text = toml::to_string(&whole).map_err(|e| fail(e.to_string()))?;
        Self::read(&text, &self.path, Path::new(&self.base_dir), Some(env))
    }

    /// Whether what is this gateway's own is the same in another reading of its file.
    #[must_use]
    pub fn has_own_of(&self, other: &Self) -> bool {
        self.parted.as_ref().map(|p| &p.own) == other.parted.as_ref().map(|p| &p.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        # for people
        [gateway]
        listen = "127.0.0.1:1"
        currency = "USD"
        [ledger]
        url = "postgres://me@127.0.0.1:5/books"
        path = "copy"
        [vendor.z]
        hosts = ["z.example"]
        facts = { category = "weather" }
        [vendor.a]
        hosts = ["*.example"]
        facts = { category = "else" }
    "#;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("/srv"), &Environment::default()).unwrap()
    }

    #[test]
    fn listeners_and_copies_are_each_ones_own_and_the_rest_is_in_common() {
        let one = config(FILE);
        let other =
            config(&FILE.replace(":1\"", ":2\"").replace("\"copy\"", "\"elsewhere\"").replace("# for people", ""));
        assert_eq!((one.common(), &one.sha256), (other.common(), &other.sha256));
        assert!(!one.has_own_of(&other) && one.has_own_of(&config(FILE)));
        let changed = config(&FILE.replace("z.example", "y.example"));
        assert_ne!(one.sha256, changed.sha256);
        assert!(!one.common().unwrap().contains("postgres") && !one.common().unwrap().contains("copy"));
    }

    #[test]
    fn a_generations_part_and_our_own_are_a_whole_again() {
        let (one, changed) = (config(FILE), config(&FILE.replace("z.example", "y.example").replace(":1\"", ":2\"")));
        let both = one.with_common(changed.common().unwrap(), &Environment::default()).unwrap();
        assert_eq!((both.common(), &both.sha256), (changed.common(), &changed.sha256));
        assert!(both.has_own_of(&one));
        assert_eq!(both.gateway, one.gateway);
        // What stands first in the file still decides first.
        let names = |c: &Config| c.vendors.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>();
        assert_eq!(names(&both), names(&changed));
    }

    #[test]
    fn a_ledger_of_ones_own_has_nothing_in_common() {
        let alone = config("[gateway]\nlisten = \"127.0.0.1:1\"\n");
        assert_eq!(alone.common(), None);
        assert!(alone.with_common("", &Environment::default()).is_err());
    }
}
