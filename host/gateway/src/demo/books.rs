//! The books at the end: what the chain says, what the ledger says, and that they agree to the atomic
//! unit.

use std::collections::BTreeMap;

use countersign_core::money::{Atomic, Micros};
use serde_json::Value;

use super::agent::{Trouble, items, text};
use super::report::{Cell, Screen, Tone, cell, foreign, result, sums, toned, words};
use super::scenarios::short;
use super::stage::{Patient, Stage};
use super::world::Seller;

/// Decimals of the one token.
const DECIMALS: u8 = 6;
/// How long the chain reader may take to prove what is settled, in seconds.
const PROOF_SECONDS: u64 = 15;

/// Sellers who hold a signature and have not redeemed it: signed money stays counted as spent until
/// the chain, or the end of its validity, says otherwise.
const UNREDEEMED: [(&str, &str); 3] = [
    ("fake-receipt", "its receipt names a transaction that is on no chain"),
    ("raises-price", "it refused the signed price and kept the signature"),
    ("redirects-paid", "it answered the payment with a redirect and kept the signature"),
];

/// What one payee, or everybody, was paid according to the ledger, in atomic units.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    settled: u128,
    accepted: u128,
    doubtful: u128,
}

impl Sums {
    fn add(&mut self, state: &str, amount: u128) {
        let sum = match state {
            "settled" => &mut self.settled,
            "accepted" => &mut self.accepted,
            "unknown" | "in-flight" => &mut self.doubtful,
            _ => return,
        };
        *sum = sum.saturating_add(amount);
    }

    fn unproven(self) -> u128 {
        self.accepted.saturating_add(self.doubtful)
    }

    fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// The ledger's payments, added up.
#[derive(Default)]
struct Books {
    /// By account, lower case.
    payees: BTreeMap<String, Sums>,
    /// By wallet.
    wallets: BTreeMap<String, Sums>,
    /// Payments by state.
    states: BTreeMap<String, u64>,
}

impl Books {
    async fn read(stage: &Stage) -> Result<Self, Trouble> {
        let mut books = Self::default();
        for payment in stage.operator.payments().await? {
            books.enter(&payment)?;
        }
        Ok(books)
    }

    fn enter(&mut self, payment: &Value) -> Result<(), Trouble> {
        let (id, state) = (text(payment, "/id"), text(payment, "/state"));
        let amount = text(payment, "/amount/atomic").parse().map_err(Trouble::with(format!("the amount of {id}")))?;
        self.payees.entry(text(payment, "/seller/pay_to").to_lowercase()).or_default().add(state, amount);
        self.wallets.entry(text(payment, "/wallet").to_owned()).or_default().add(state, amount);
        let count = self.states.entry(state.to_owned()).or_default();
        *count = count.saturating_add(1);
        Ok(())
    }

    fn of(&self, seller: &Seller) -> Sums {
        self.payees.get(&seller.pay_to().to_string().to_lowercase()).copied().unwrap_or_default()
    }

    /// Whether the ledger says settled of exactly what is in a seller's account.
    fn agree(&self, stage: &Stage, seller: &Seller) -> bool {
        self.of(seller).settled == stage.world.balance(seller.pay_to())
    }

    /// Whether they agree, and what is not proven has a reason.
    fn explains(&self, stage: &Stage, seller: &Seller) -> bool {
        self.agree(stage, seller) && (self.of(seller).unproven() == 0 || explanation(seller).is_some())
    }

    /// Whether that is so of every seller, and every call is over.
    fn all_agree(&self, stage: &Stage) -> bool {
        !self.states.contains_key("in-flight") && stage.world.sellers().iter().all(|s| self.explains(stage, s))
    }
}

fn explanation(seller: &Seller) -> Option<&'static str> {
    UNREDEEMED.iter().find(|(name, _)| *name == seller.name()).map(|(_, why)| *why)
}

fn money(units: u128) -> String {
    Atomic::new(units).display(DECIMALS)
}

/// Waits for the chain reader, then compares and prints. True if everything agrees.
pub(super) async fn reconcile(screen: Screen, stage: &Stage) -> Result<bool, Trouble> {
    let mut patience = Patient::for_seconds(PROOF_SECONDS)?;
    let mut books = Books::read(stage).await?;
    while !books.all_agree(stage) && patience.wait().await? {
        books = Books::read(stage).await?;
    }
    screen.heading("Reconciliation: the chain and the ledger, in USDC");
    let sellers = sellers(screen, stage, &books);
    held(screen, stage, &books);
    let wallets = wallets(screen, stage, &books);
    let counts: Vec<String> = books.states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    screen.line("");
    screen.entry("payments", &counts.join(", "), Tone::Plain);
    Ok(sellers && wallets)
}

/// What is in every seller's account, and what the ledger says was paid to it.
fn sellers(screen: Screen, stage: &Stage, books: &Books) -> bool {
    let mut rows: Vec<Vec<Cell>> = Vec::new();
    let (mut moved, mut total, mut agreed) = (0_u128, Sums::default(), true);
    for seller in stage.world.sellers() {
        let (there, sums) = (stage.world.balance(seller.pay_to()), books.of(seller));
        if there == 0 && sums.is_nothing() {
            continue;
        }
        let fits = books.explains(stage, seller);
        agreed &= fits;
        moved = moved.saturating_add(there);
        total.add("settled", sums.settled);
        total.add("accepted", sums.accepted);
        total.add("unknown", sums.doubtful);
        let account = short(&seller.pay_to().to_string());
        rows.push(row(seller.name(), &account, there, sums, fits));
    }
    rows.push(row("all sellers", "", moved, total, agreed && moved == total.settled));
    let heads = [
        words("seller"),
        words("account"),
        sums("on the chain"),
        sums("ledger: settled"),
        sums("accepted"),
        sums("unknown"),
        words("agree"),
    ];
    screen.table(&heads, &rows);
    agreed && moved == total.settled
}

fn row(name: &str, account: &str, there: u128, sums: Sums, fits: bool) -> Vec<Cell> {
    let mut cells = vec![cell(name), toned(account, Tone::Faint)];
    cells.extend([there, sums.settled, sums.accepted, sums.doubtful].map(|units| cell(money(units))));
    cells.push(result(fits));
    cells
}

/// What is signed, held, and not redeemed: a liability, not a loss.
fn held(screen: Screen, stage: &Stage, books: &Books) {
    screen.line("");
    for seller in stage.world.sellers() {
        let unproven = books.of(seller).unproven();
        if unproven > 0 {
            let why = explanation(seller).unwrap_or("there is no reason for that");
            let text =
                format!("{} USDC signed for {}, not redeemed, still held: {why}", money(unproven), seller.name());
            screen.entry("held", &text, Tone::Plain);
        }
    }
}

/// What every wallet was given, what is left of it, and what the ledger says left it.
fn wallets(screen: Screen, stage: &Stage, books: &Books) -> bool {
    let mut agreed = true;
    let rows: Vec<Vec<Cell>> = stage
        .purses
        .iter()
        .map(|purse| {
            let left = stage.world.balance(purse.address);
            let settled = books.wallets.get(purse.name).copied().unwrap_or_default().settled;
            let fits = purse.minted.checked_sub(settled) == Some(left);
            agreed &= fits;
            let account = toned(short(&purse.address.to_string()), Tone::Faint);
            let sums = [purse.minted, settled, left].map(|units| cell(money(units)));
            [cell(purse.name), account].into_iter().chain(sums).chain([result(fits)]).collect()
        })
        .collect();
    screen.line("");
    let heads = [
        words("wallet"),
        words("account"),
        sums("minted"),
        sums("ledger: settled"),
        sums("left on the chain"),
        words("agree"),
    ];
    screen.table(&heads, &rows);
    agreed
}

/// Every budget in use, as `GET /v1/budgets` tells it.
pub(super) async fn budgets(screen: Screen, stage: &Stage) -> Result<bool, Trouble> {
    let list = stage.operator.get("/v1/budgets").await?;
    let mut within = true;
    let rows: Vec<Vec<Cell>> = items(&list, "/items")
        .map(|budget| {
            let amount = |pointer: &str| cell(text(budget, pointer));
            let fits = fits(budget);
            within &= fits;
            let amounts = ["/limit", "/spent", "/held", "/available"].map(amount);
            let window = cell(text(budget, "/window"));
            [cell(title(budget)), window].into_iter().chain(amounts).chain([result(fits)]).collect()
        })
        .collect();
    screen.heading("Budgets, in USD: what is spent and held stays within the limit");
    let heads =
        [words("budget"), words("window"), sums("limit"), sums("spent"), sums("held"), sums("left"), words("within")];
    screen.table(&heads, &rows);
    Ok(within && !rows.is_empty())
}

/// A budget's name, with the session's long number cut short.
fn title(budget: &Value) -> String {
    let name = text(budget, "/budget");
    let name = match name.split_once("ses_") {
        Some((before, id)) => format!("{before}{}", short(&format!("ses_{id}"))),
        None => name.to_owned(),
    };
    let unit = if counts(budget) { " (payments)" } else { "" };
    foreign(&format!("{name}{unit}"))
}

fn counts(budget: &Value) -> bool {
    text(budget, "/unit") == "count"
}

/// Spent and held together are within the limit.
fn fits(budget: &Value) -> bool {
    let units = |pointer: &str| {
        let amount = text(budget, pointer);
        if counts(budget) { amount.parse().ok() } else { Micros::parse(amount).ok().map(Micros::get) }
    };
    match (units("/limit"), units("/spent"), units("/held")) {
        (Some(limit), Some(spent), Some(held)) => spent.saturating_add(held) <= limit,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_budget_above_its_limit_is_seen() {
        let budget = |unit: &str, limit: &str, spent: &str, held: &str| {
            fits(&json!({"unit": unit, "limit": limit, "spent": spent, "held": held}))
        };
        assert!(budget("USD", "0.003", "0.002", "0.001"));
        assert!(!budget("USD", "0.003", "0.003", "0.000001"));
        assert!(budget("count", "3", "3", "0"));
        assert!(!budget("count", "3", "3", "1"));
        assert!(!budget("USD", "", "0", "0"), "what cannot be read is not within anything");
    }

    #[test]
    fn only_what_is_signed_counts_and_by_state() {
        let mut sums = Sums::default();
        for state in ["settled", "accepted", "unknown", "in-flight", "denied", "pending-approval", "failed"] {
            sums.add(state, 10);
        }
        assert_eq!((sums.settled, sums.accepted, sums.doubtful, sums.unproven()), (10, 10, 20, 30));
    }
}
