//! What a reconciliation found, as totals, a table and JSON.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign_core::id::PaymentId;
use serde_json::{Value, json};

use super::{Class, Verdict};
use crate::text;

/// One thing that was compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What became of it.
    pub class: Class,
    /// How bad that is.
    pub verdict: Verdict,
    /// The payment, if the ledger has one.
    pub payment: Option<PaymentId>,
    /// CAIP-2.
    pub network: String,
    /// Token.
    pub asset: String,
    /// Our side of it.
    pub wallet: String,
    /// What moved, or would have: atomic units.
    pub amount: u128,
    /// Its transaction, if one is known.
    pub transaction: Option<String>,
    /// Which log of the block, if the chain shows it.
    pub log: Option<u64>,
    /// More, for people; may be empty.
    pub why: String,
}

/// How many, and how much of the asset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Findings.
    pub count: u64,
    /// Their amounts, in atomic units; none if the sum is above 2^128.
    pub amount: Option<u128>,
}

/// Which findings a total is of: one wallet's, in one asset, of one class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// CAIP-2.
    pub network: String,
    /// Our address.
    pub wallet: String,
    /// Token.
    pub asset: String,
    /// The class.
    pub class: Class,
}

/// Everything that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Everything that was compared, what matches too.
    pub findings: Vec<Finding>,
    /// How many of each class.
    pub counts: BTreeMap<Class, u64>,
    /// By wallet, asset and class.
    pub totals: BTreeMap<Line, Total>,
    /// Transfers of the list that touch no wallet of ours.
    pub foreign: u64,
    /// Transfers that the list repeats word for word.
    pub repeated: u64,
}

impl Report {
    pub(super) fn add(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.class).or_default();
        *count = count.saturating_add(1);
        let line = Line {
            network: finding.network.clone(),
            wallet: finding.wallet.clone(),
            asset: finding.asset.clone(),
            class: finding.class,
        };
        let total = self.totals.entry(line).or_insert(Total { count: 0, amount: Some(0) });
        total.count = total.count.saturating_add(1);
        total.amount = total.amount.and_then(|sum| sum.checked_add(finding.amount));
        self.findings.push(finding);
    }

    /// The worst of all findings.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Clean)
    }

    /// Totals, then every finding that is not clean, worst first. Foreign values keep to their column.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table = vec![["network", "wallet", "asset", "class", "count", "amount"].map(str::to_owned)];
        for (line, total) in &self.totals {
            table.push([
                cell(&line.network),
                cell(&line.wallet),
                cell(&line.asset),
                line.class.to_string(),
                total.count.to_string(),
                total.amount.map_or_else(|| "above 2^128".to_owned(), |amount| amount.to_string()),
            ]);
        }
        let mut out = String::new();
        aligned(&mut out, &table);
        let mut open: Vec<_> = self.findings.iter().filter(|finding| finding.verdict > Verdict::Clean).collect();
        open.sort_by_key(|finding| Reverse(finding.verdict));
        if !open.is_empty() {
            let mut table = vec![["verdict", "class", "payment", "amount", "transaction", "why"].map(str::to_owned)];
            for finding in open {
                table.push([
                    finding.verdict.as_str().to_owned(),
                    finding.class.to_string(),
                    finding.payment.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                    finding.amount.to_string(),
                    finding.transaction.as_deref().map_or_else(|| "-".to_owned(), cell),
                    if finding.why.is_empty() { "-".to_owned() } else { visible(&finding.why) },
                ]);
            }
            out.push('\n');
            aligned(&mut out, &table);
        }
        // Writing to a string does not fail.
        let _infallible = write!(out, "\nverdict: {}", self.verdict().as_str());
        for (count, what) in [(self.foreign, "touch no wallet of ours"), (self.repeated, "are repeated word for word")]
        {
            if count > 0 {
                let _infallible = write!(out, "; {count} transfers of the list {what}");
            }
        }
        out.push('\n');
        out
    }

    /// The same for programs, what matches left out of `findings`.
    #[must_use]
    pub fn json(&self) -> Value {
        let findings = self.findings.iter().filter(|finding| finding.class != Class::Matched).map(|finding| {
            json!({
                "class": finding.class.as_str(),
                "verdict": finding.verdict.as_str(),
                "payment": finding.payment,
                "network": finding.network,
                "asset": finding.asset,
                "wallet": finding.wallet,
                "amount": finding.amount.to_string(),
                "transaction": finding.transaction,
                "log": finding.log,
                "why": finding.why,
            })
        });
        let totals = self.totals.iter().map(|(line, total)| {
            json!({
                "network": line.network,
                "wallet": line.wallet,
                "asset": line.asset,
                "class": line.class.as_str(),
                "count": total.count,
                "amount": total.amount.map(|amount| amount.to_string()),
            })
        });
        json!({
            "verdict": self.verdict().as_str(),
            "counts": Class::ALL.into_iter().map(|class| {
                (class.as_str().to_owned(), self.counts.get(&class).copied().unwrap_or_default().into())
            }).collect::<serde_json::Map<String, Value>>(),
            "totals": totals.collect::<Vec<_>>(),
            "findings": findings.collect::<Vec<_>>(),
            "foreign": self.foreign,
            "repeated": self.repeated,
        })
    }
}

/// A foreign value that cannot be mistaken for two columns.
fn cell(value: &str) -> String {
    let mut out = String::new();
    text::word(&mut out, value);
    out
}

fn visible(value: &str) -> String {
    let mut out = String::new();
    text::visible(&mut out, value, "");
    out
}

fn aligned<const N: usize>(out: &mut String, table: &[[String; N]]) {
    let mut widths = [0; N];
    for row in table {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in table {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _infallible = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}
