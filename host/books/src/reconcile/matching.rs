//! Which transfer belongs to which payment, and what that means.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::payment::State;

use super::report::{Finding, Report};
use super::{Class, Coverage, LedgerRow, Transfer, Verdict, Wallet, normal};

/// Compares. The order of the inputs does not matter, except between payments that a list without nonces cannot
/// tell apart.
#[must_use]
pub fn reconcile(rows: &[LedgerRow], transfers: &[Transfer], coverage: &[Coverage], wallets: &[Wallet]) -> Report {
    let mut books = Books {
        rows,
        partners: vec![None; rows.len()],
        wallets: wallets.iter().map(|w| (w.network.clone(), normal(&w.network, &w.address))).collect(),
        coverage,
        report: Report::default(),
    };
    books.wallets.extend(rows.iter().map(|row| (row.network.clone(), row.payer.clone())));
    let transfers = books.once(transfers);
    let (outgoing, incoming): (Vec<_>, Vec<_>) = transfers.into_iter().partition(|t| books.owns(t, &t.from));
    let unmatched = books.pair(outgoing);
    for transfer in unmatched {
        books.of_transfer(
            Class::ChainOnly,
            Verdict::Alarm,
            transfer,
            &transfer.from,
            "no payment of the ledger explains it",
        );
    }
    books.refunds(incoming);
    books.payments();
    books.report
}

struct Books<'a> {
    rows: &'a [LedgerRow],
    /// The transfer of each row.
    partners: Vec<Option<&'a Transfer>>,
    wallets: BTreeSet<(String, String)>,
    coverage: &'a [Coverage],
    report: Report,
}

impl<'a> Books<'a> {
    fn owns(&self, transfer: &Transfer, address: &str) -> bool {
        // Two lookups' worth of text, but no more than one per transfer and side.
        self.wallets.contains(&(transfer.network.clone(), address.to_owned()))
    }

    /// Each transfer once, and only those that touch a wallet. A log that is listed with two contents is reported.
    fn once(&mut self, transfers: &'a [Transfer]) -> Vec<&'a Transfer> {
        let mut seen: BTreeMap<(&str, &str, u64), &Transfer> = BTreeMap::new();
        let mut kept = Vec::new();
        for transfer in transfers {
            if !self.owns(transfer, &transfer.from) && !self.owns(transfer, &transfer.to) {
                self.report.foreign = self.report.foreign.saturating_add(1);
                continue;
            }
            match seen.insert((&transfer.network, &transfer.transaction, transfer.log), transfer) {
                None => kept.push(transfer),
                Some(same) if same == transfer => self.report.repeated = self.report.repeated.saturating_add(1),
                Some(_) => {
                    let wallet = if self.owns(transfer, &transfer.from) { &transfer.from } else { &transfer.to };
                    let why = "the list has this log of this transaction with two contents";
                    self.of_transfer(Class::Duplicate, Verdict::Alarm, transfer, wallet, why);
                }
            }
        }
        kept.sort_by(|a, b| (a.time, &a.transaction, a.log).cmp(&(b.time, &b.transaction, b.log)));
        kept
    }

    /// Gives outgoing transfers to rows; what is left has none.
    fn pair(&mut self, outgoing: Vec<&'a Transfer>) -> Vec<&'a Transfer> {
        let mut by_nonce: BTreeMap<[&str; 4], usize> = BTreeMap::new();
        let mut by_transaction: BTreeMap<[&str; 4], Vec<usize>> = BTreeMap::new();
        let mut by_terms: BTreeMap<(&str, &str, &str, &str, u128), Vec<usize>> = BTreeMap::new();
        for (i, row) in self.rows.iter().enumerate() {
            if by_nonce.insert([&row.network, &row.asset, &row.payer, &row.nonce], i).is_some() {
                self.of_row(Class::Duplicate, Verdict::Alarm, row, None, "two payments of the ledger have this nonce");
            }
            if let Some(transaction) = &row.transaction {
                by_transaction.entry([&row.network, &row.asset, &row.payer, transaction]).or_default().push(i);
            }
            let terms = (&*row.network, &*row.asset, &*row.payer, &*row.payee, row.redeemed);
            by_terms.entry(terms).or_default().push(i);
        }

        let (with_nonce, without): (Vec<_>, Vec<_>) = outgoing.into_iter().partition(|t| t.nonce.is_some());
        let mut left = Vec::new();
        for t in with_nonce {
            let nonce = t.nonce.as_deref().unwrap_or_default();
            match by_nonce.get(&[&*t.network, &*t.asset, &*t.from, nonce]) {
                None => left.push(t),
                Some(i) if self.partner(*i).is_some() => {
                    let why = "a second transfer redeems a nonce that can be redeemed once";
                    self.of_transfer(Class::Duplicate, Verdict::Alarm, t, &t.from, why);
                }
                Some(i) => self.give(*i, t),
            }
        }
        // Surest first, each over all transfers, so that no guess takes what a better one needs.
        let known = |t: &'a Transfer| by_transaction.get(&[&*t.network, &*t.asset, &*t.from, &*t.transaction]);
        let alike = |t: &'a Transfer| by_terms.get(&(&*t.network, &*t.asset, &*t.from, &*t.to, t.amount));
        let mut without = without;
        without = self.give_where(without, known, |row, t| row.payee == t.to && row.redeemed == t.amount);
        without = self.give_where(without, known, |row, t| row.payee == t.to);
        without = self.give_where(without, known, |_, _| true);
        without = self.give_where(without, alike, |row, t| row.state.is_open() && row.could_be(t));
        without = self.give_where(without, alike, |row, t| row.state.is_spent() && row.could_be(t));
        without = self.give_where(without, alike, LedgerRow::could_be);
        left.extend(without);
        left.sort_by(|a, b| (a.time, &a.transaction, a.log).cmp(&(b.time, &b.transaction, b.log)));
        left
    }

    /// Gives each transfer to the first free row of its candidates that fits; returns those that found none.
    fn give_where<'i>(
        &mut self,
        transfers: Vec<&'a Transfer>,
        candidates: impl Fn(&'a Transfer) -> Option<&'i Vec<usize>>,
        fits: impl Fn(&LedgerRow, &Transfer) -> bool,
    ) -> Vec<&'a Transfer> {
        let mut left = Vec::new();
        for transfer in transfers {
            let free =
                |i: &&usize| self.partner(**i).is_none() && self.rows.get(**i).is_some_and(|row| fits(row, transfer));
            match candidates(transfer).and_then(|all| all.iter().find(free)) {
                Some(i) => self.give(*i, transfer),
                None => left.push(transfer),
            }
        }
        left
    }

    fn partner(&self, row: usize) -> Option<&'a Transfer> {
        self.partners.get(row).copied().flatten()
    }

    fn give(&mut self, row: usize, transfer: &'a Transfer) {
        if let Some(partner) = self.partners.get_mut(row) {
            *partner = Some(transfer);
        }
    }

    fn refunds(&mut self, incoming: Vec<&Transfer>) {
        let mut booked = BTreeMap::new();
        let mut payees = BTreeSet::new();
        let rows = self.rows;
        for row in rows {
            if row.state.is_spent() {
                payees.insert((&*row.network, &*row.asset, &*row.payee, &*row.payer));
            }
            for refund in &row.refunds {
                let Some((transaction, log)) = &refund.transfer else {
                    self.finding(
                        row,
                        Class::Refund,
                        Verdict::Clean,
                        refund.amount,
                        None,
                        "a person's word, outside the chain",
                    );
                    continue;
                };
                if booked.insert((&*row.network, &**transaction, *log), (row, refund)).is_some() {
                    let why = "two refunds are booked on one transfer";
                    self.finding(row, Class::Duplicate, Verdict::Alarm, refund.amount, Some((transaction, *log)), why);
                }
            }
        }
        for t in incoming {
            let Some((row, refund)) = booked.remove(&(&*t.network, &*t.transaction, t.log)) else {
                if payees.contains(&(&*t.network, &*t.asset, &*t.from, &*t.to)) {
                    let why = "from a payee to the wallet that paid it; no refund is booked";
                    self.of_transfer(Class::RefundNotBooked, Verdict::Attention, t, &t.to, why);
                } else {
                    self.of_transfer(Class::Funding, Verdict::Clean, t, &t.to, "");
                }
                continue;
            };
            let at = Some((&*t.transaction, t.log));
            if (&t.asset, &t.from, &t.to) != (&row.asset, &row.payee, &row.payer) {
                let why = "the refund is booked for another token, payee or wallet";
                self.finding(row, Class::PayeeDiffers, Verdict::Alarm, t.amount, at, why);
            } else if t.amount == refund.amount {
                self.finding(row, Class::Refund, Verdict::Clean, t.amount, at, "");
            } else {
                let why = format!("the refund is booked as {}", refund.amount);
                self.finding(row, Class::AmountDiffers, Verdict::Alarm, t.amount, at, &why);
            }
        }
        for ((_, transaction, log), (row, refund)) in booked {
            let at = Some((transaction, log));
            if self.covers(&row.network, row.created, refund.at) {
                let why = "booked on the chain's word, and the list does not show it";
                self.finding(row, Class::RefundMissing, Verdict::Alarm, refund.amount, at, why);
            } else {
                self.finding(row, Class::NotCovered, Verdict::Clean, refund.amount, at, "the refund");
            }
        }
    }

    fn payments(&mut self) {
        let rows = self.rows;
        let mut paid = BTreeSet::new();
        for (i, row) in rows.iter().enumerate() {
            let partner = self.partner(i);
            let redeemed = row.state.is_spent() || partner.is_some();
            if redeemed && !paid.insert(&*row.purchase) {
                self.of_row(Class::Duplicate, Verdict::Alarm, row, partner, "its purchase is paid already");
                continue;
            }
            let (class, verdict, why) = match partner {
                Some(transfer) => redeemed_as(row, transfer),
                None => self.absent(row),
            };
            self.of_row(class, verdict, row, partner, &why);
        }
    }

    /// What it means that the list shows nothing of a payment.
    fn absent(&self, row: &LedgerRow) -> (Class, Verdict, String) {
        let lived = self.covers(&row.network, row.created, row.valid_before);
        if row.state.is_spent() {
            let seen = row.redeemed_at.map_or(lived, |at| self.covers(&row.network, at, at));
            return if row.redeemed == 0 {
                (Class::Matched, Verdict::Clean, "nothing was redeemed, so nothing moved".to_owned())
            } else if seen {
                let why = "the ledger has it settled, and the list does not show it".to_owned();
                (Class::LedgerOnlySettled, Verdict::Alarm, why)
            } else {
                (Class::NotCovered, Verdict::Clean, String::new())
            };
        }
        if !row.state.is_open() {
            let class = if lived { Class::ProvenUnspent } else { Class::NotCovered };
            return (class, Verdict::Clean, String::new());
        }
        if row.state == State::Stuck {
            let why = "what the chain showed contradicted itself or what was signed".to_owned();
            return (Class::InDoubt, Verdict::Attention, why);
        }
        if lived {
            let why = "its validity is over; the ledger still holds its budgets".to_owned();
            return (Class::ProvenUnspent, Verdict::Attention, why);
        }
        // Until its validity is over it is only underway.
        let underway = self.coverage.iter().any(|c| c.network == row.network && c.until < row.valid_before);
        if underway {
            (Class::InDoubt, Verdict::Clean, "still redeemable where the list ends".to_owned())
        } else {
            (Class::InDoubt, Verdict::Attention, "the list does not cover its validity".to_owned())
        }
    }

    /// Whether the list holds everything of a span. Spans that touch or overlap count as one.
    fn covers(&self, network: &str, from: u64, until: u64) -> bool {
        let mut spans: Vec<_> = self.coverage.iter().filter(|c| c.network == network && c.from <= c.until).collect();
        spans.sort_by_key(|c| c.from);
        let mut need = from;
        for span in spans {
            if span.from > need {
                return false;
            }
            if span.until >= until {
                return true;
            }
            need = need.max(span.until.saturating_add(1));
        }
        false
    }

    fn of_row(&mut self, class: Class, verdict: Verdict, row: &LedgerRow, transfer: Option<&Transfer>, why: &str) {
        let ledger = if row.state.is_spent() { row.redeemed } else { row.amount };
        let at = transfer.map(|t| (&*t.transaction, t.log));
        self.finding(row, class, verdict, transfer.map_or(ledger, |t| t.amount), at, why);
    }

    fn finding(
        &mut self,
        row: &LedgerRow,
        class: Class,
        verdict: Verdict,
        amount: u128,
        at: Option<(&str, u64)>,
        why: &str,
    ) {
        self.report.add(Finding {
            class,
            verdict,
            payment: Some(row.id),
            network: row.network.clone(),
            asset: row.asset.clone(),
            wallet: row.payer.clone(),
            amount,
            transaction: at.map(|(transaction, _)| transaction.to_owned()).or_else(|| row.transaction.clone()),
            log: at.map(|(_, log)| log),
            why: why.to_owned(),
        });
    }

    fn of_transfer(&mut self, class: Class, verdict: Verdict, transfer: &Transfer, wallet: &str, why: &str) {
        self.report.add(Finding {
            class,
            verdict,
            payment: None,
            network: transfer.network.clone(),
            asset: transfer.asset.clone(),
            wallet: wallet.to_owned(),
            amount: transfer.amount,
            transaction: Some(transfer.transaction.clone()),
            log: Some(transfer.log),
            why: why.to_owned(),
        });
    }
}

impl LedgerRow {
    /// Whether a transfer without a nonce, of the same wallet, payee and amount, fell into its validity.
    fn could_be(&self, transfer: &Transfer) -> bool {
        (self.created..self.valid_before).contains(&transfer.time)
    }
}

/// What it means that the chain shows a payment redeemed.
fn redeemed_as(row: &LedgerRow, transfer: &Transfer) -> (Class, Verdict, String) {
    if row.state == State::Released {
        let why = "released in the ledger: its budgets were given back".to_owned();
        return (Class::ReleasedButRedeemed, Verdict::Alarm, why);
    }
    if row.payee != transfer.to {
        return (Class::PayeeDiffers, Verdict::Alarm, format!("the ledger has {}", row.payee));
    }
    let spent = row.state.is_spent();
    let fits = match (spent, row.exact) {
        (true, _) => transfer.amount == row.redeemed,
        (false, true) => transfer.amount == row.amount,
        (false, false) => transfer.amount <= row.amount,
    };
    if !fits {
        let has = if spent { row.redeemed } else { row.amount };
        return (Class::AmountDiffers, Verdict::Alarm, format!("the ledger has {has}"));
    }
    if !spent {
        return (Class::NotBooked, Verdict::Attention, "the ledger still has it open".to_owned());
    }
    match &row.transaction {
        Some(known) if *known != transfer.transaction => {
            (Class::TransactionDiffers, Verdict::Attention, format!("the ledger has {known}"))
        }
        _ => (Class::Matched, Verdict::Clean, String::new()),
    }
}
