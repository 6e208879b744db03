//! What must hold whatever bytes a stranger sends: one function for each reader of foreign bytes.
//!
//! A property takes any bytes and panics when a promise is broken. The same functions run in two places: over the
//! corpus in every test run (`tests/corpus.rs`), and under libFuzzer (`fuzz/driver`, `make fuzz`).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a broken promise must stop the fuzzer, and a broken fixture the test"
)]

mod books;
mod challenge;
mod decision;
mod export;
mod json;
mod message;
mod node;
mod offer;
mod proxy;
mod rail;
mod receipt;
mod settings;
mod token;
mod url;

// The worlds of those crates' own tests, of which this needs a few.
#[path = "../../../host/chain/tests/reader/support.rs"]
#[expect(dead_code, reason = "shared with the tests of the chain reader")]
mod chain;
#[path = "../../../host/audit/tests/verify/logs.rs"]
mod logs;

/// Panics when a promise does not hold for these bytes.
pub type Property = fn(&[u8]);

/// Every property by its name, which is also the name of its folder in `fuzz/corpus`.
pub const ALL: [(&str, Property); 13] = [
    ("json", json::check),
    ("url", url::check),
    ("offer", offer::check),
    ("receipt", receipt::check),
    ("challenge", challenge::check),
    ("proxy", proxy::check),
    ("token", token::check),
    ("message", message::check),
    ("decision", decision::check),
    ("settings", settings::check),
    ("export", export::check),
    ("books", books::check),
    ("node", node::check),
];

/// The property of a name.
#[must_use]
pub fn named(name: &str) -> Option<Property> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, property)| *property)
}

/// The first byte chooses a way in, the others go there.
fn way(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// The lines of an input that has several parts.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n')
}

/// Inputs that nobody would find by chance, because it takes a signature, a tree or a chain to make them.
#[must_use]
pub fn seeds(name: &str) -> Vec<Vec<u8>> {
    match name {
        "export" => export::seeds(),
        "books" => books::seeds(),
        "node" => node::seeds(),
        "token" => token::seeds(),
        _ => Vec::new(),
    }
}
