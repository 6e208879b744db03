//! Names of accounts and commodities that beancount and hledger both read.

use std::fmt;

use sha2::{Digest, Sha256};

/// Longest part of an account made from a name.
const MAX_PART: usize = 48;
/// Longest commodity: beancount's limit.
const MAX_COMMODITY: usize = 24;
/// Stands for a client or project that nobody named.
const NOBODY: &str = "Unassigned";

/// Why a text is no account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountError {
    /// The first part is none of the five kinds.
    Kind(String),
    /// This part is not a capital letter or digit followed by letters, digits and hyphens.
    Part(String),
}

impl fmt::Display for AccountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(
                f,
                "an account begins with Assets, Liabilities, Equity, Income or Expenses, not `{}`",
                kind.escape_debug()
            ),
            Self::Part(part) => write!(
                f,
                "`{}` is no part of an account: write a capital letter or digit, then letters, digits and hyphens",
                part.escape_debug()
            ),
        }
    }
}

impl std::error::Error for AccountError {}

/// An account such as `Expenses:Agents`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Account(String);

impl Account {
    /// Reads an account: one of the five kinds, then parts between colons.
    ///
    /// # Errors
    /// [`AccountError`], naming the part at fault.
    pub fn parse(text: &str) -> Result<Self, AccountError> {
        let mut parts = text.split(':');
        let kind = parts.next().unwrap_or_default();
        if !["Assets", "Liabilities", "Equity", "Income", "Expenses"].contains(&kind) {
            return Err(AccountError::Kind(kind.to_owned()));
        }
        for part in parts {
            let starts = part.starts_with(|c: char| c.is_ascii_uppercase() || c.is_ascii_digit());
            if !starts || !part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
                return Err(AccountError::Part(part.to_owned()));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account below it that stands for these names; an absent one is `Unassigned`.
    pub(crate) fn below(&self, names: &[Option<&str>]) -> String {
        let mut out = self.0.clone();
        for name in names {
            out.push(':');
            part(&mut out, *name);
        }
        out
    }
}

/// Where double entry puts things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accounts {
    /// What wallets hold, by wallet and network.
    pub wallets: Account,
    /// What was bought, by client, project and seller.
    pub expenses: Account,
    /// What may still be redeemed, by wallet and network: owed until it is proven.
    pub in_doubt: Account,
    /// The other side of what is in doubt, by client, project and seller: set aside, not yet spent.
    pub commitments: Account,
    /// What people say came back, outside the chain, by seller: the wallet has not got it.
    pub claims: Account,
}

impl Default for Accounts {
    fn default() -> Self {
        let account = |text: &str| Account(text.to_owned());
        Self {
            wallets: account("Assets:Agents:Wallets"),
            expenses: account("Expenses:Agents"),
            in_doubt: account("Liabilities:Agents:InDoubt"),
            commitments: account("Equity:Agents:Commitments"),
            claims: account("Assets:Agents:Refunds"),
        }
    }
}

fn digest(out: &mut String, text: &str) {
    out.extend(hex::encode(Sha256::digest(text)).chars().take(12));
}

/// A name as a part of an account: a capital first, `.` as `-`, `-` as `--`. A name that could not be read back from
/// that keeps what can be shown of it and gets `---` and a digest, so that two names never share an account.
fn part(out: &mut String, name: Option<&str>) {
    let Some(name) = name else {
        out.push_str(NOBODY);
        return;
    };
    let start = out.len();
    let mut plain = name.len() <= MAX_PART && name != "unassigned";
    let mut last = '-';
    for c in name.chars().take(MAX_PART) {
        match c {
            'a'..='z' if out.len() == start => out.push(c.to_ascii_uppercase()),
            'A'..='Z' if out.len() == start => {
                plain = false;
                out.push(c);
            }
            'a'..='z' | 'A'..='Z' | '0'..='9' => out.push(c),
            // Next to each other, or first or last, they could be read in two ways.
            '.' | '-' if out.len() > start && !matches!(last, '.' | '-') => {
                out.push_str(if c == '.' { "-" } else { "--" })
            }
            _ => plain = false,
        }
        last = c;
    }
    if out.len() == start {
        out.push('X');
        plain = false;
    }
    if matches!(last, '.' | '-') {
        plain = false;
        out.truncate(start.saturating_add(out.get(start..).unwrap_or_default().trim_end_matches('-').len()));
    }
    if !plain {
        out.push_str("---");
        digest(out, name);
    }
}

/// A symbol as a commodity: capitals, digits, `.`, `-` and `_`. One that cannot be written so, or is that of the
/// reference currency, gets a digest of the token it stands for.
pub(crate) fn commodity(symbol: &str, token: Option<(&str, &str, &str)>) -> String {
    let mut out: String = symbol
        .chars()
        .map(|c| c.to_ascii_uppercase())
        .filter(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || matches!(c, '.' | '-' | '_'))
        .collect();
    let ends = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit();
    let fits = out.len() == symbol.len()
        && (2..=MAX_COMMODITY).contains(&out.len())
        && out.starts_with(|c: char| c.is_ascii_uppercase())
        && out.ends_with(ends);
    let taken = token.is_some_and(|(_, _, currency)| currency == out);
    if fits && !taken {
        return out;
    }
    out.retain(ends);
    if !out.starts_with(|c: char| c.is_ascii_uppercase()) {
        out.insert(0, 'X');
    }
    out.truncate(10);
    out.push('-');
    let mut tail = String::new();
    let (network, asset, _) = token.unwrap_or_default();
    digest(&mut tail, &format!("{network} {asset} {symbol}"));
    out.push_str(&tail.to_ascii_uppercase());
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn of(name: &str) -> String {
        let mut out = String::new();
        part(&mut out, Some(name));
        out
    }

    #[test]
    fn names_stay_readable() {
        for (name, want) in
            [("acme", "Acme"), ("api.example.com", "Api-example-com"), ("a-b.c", "A--b-c"), ("4u", "4u")]
        {
            assert_eq!(of(name), want);
        }
        for odd in [
            "",
            "Acme",
            "a..b",
            "a.-b",
            "-a",
            "a-",
            "a_b",
            "localhost:80",
            "ä",
            "unassigned",
            "a b\nc",
            &"x".repeat(99),
        ] {
            let made = of(odd);
            assert!(made.contains("---"), "{odd:?}: {made}");
            assert!(Account::parse(&format!("Expenses:{made}")).is_ok(), "{odd:?}: {made}");
        }
    }

    #[test]
    fn accounts_are_read_strictly() {
        assert!(Account::parse("Expenses:Agents:4-x").is_ok());
        assert_eq!(Account::parse("Costs:A"), Err(AccountError::Kind("Costs".into())));
        for bad in ["Expenses:", "Expenses:a", "Expenses:A b", "Expenses:A\n", "Expenses:Ä", "Expenses:A::B"] {
            assert!(matches!(Account::parse(bad), Err(AccountError::Part(_))), "{bad:?}");
        }
    }

    #[test]
    fn commodities_are_read_by_beancount() {
        let token = |symbol: &str| commodity(symbol, Some(("eip155:1", "0xaa", "USD")));
        assert_eq!(token("USDC"), "USDC");
        assert_eq!(token("usdc.e"), "USDC.E");
        for odd in ["USD", "U", "", "USD₮0", "1INCH", "A-", &"A".repeat(30)] {
            let made = token(odd);
            assert!(made.contains('-') && made.len() <= MAX_COMMODITY, "{odd:?}: {made}");
        }
    }

    proptest! {
        #[test]
        fn two_names_never_share_an_account(names in proptest::collection::vec("[a-cA-C.:_ -]{0,5}|\\PC{0,4}", 200)) {
            let mut seen = BTreeMap::new();
            for name in names {
                let made = of(&name);
                prop_assert!(Account::parse(&format!("Expenses:{made}")).is_ok(), "{name:?}: {made}");
                if let Some(other) = seen.insert(made.clone(), name.clone()) {
                    prop_assert_eq!(other, name, "both are {}", made);
                }
            }
        }
    }
}
