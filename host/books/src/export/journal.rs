//! Double entry: beancount and hledger.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use countersign_core::id::PaymentId;
use countersign_core::ledger::{PaymentView, RefundSource};
use countersign_core::money::Micros;
use countersign_core::payment::State;
use sha2::{Digest, Sha256};

use super::Options;
use crate::Entry;
use crate::accounts;
use crate::figures::{self, Day, Places, Sum};
use crate::row::{self, Cell, Sink};
use crate::text;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Beancount,
    Hledger,
}

/// A journal being written: what is only known at its end.
#[derive(Debug)]
pub(super) struct Journal {
    dialect: Dialect,
    currency: String,
    accounts: BTreeMap<String, Day>,
    commodities: BTreeMap<String, u8>,
    dust: BTreeMap<DustKey, Dust>,
}

/// Purchases that share all of this are one when they are dust. Days come first, so that the journal ends in order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct DustKey {
    day: Day,
    expense: String,
    wallet: String,
    commodity: String,
    asset: String,
    decimals: u8,
}

#[derive(Debug)]
struct Dust {
    count: u64,
    first: PaymentId,
    last: PaymentId,
    sum: Sum,
    seller: String,
    client: Option<String>,
    project: Option<String>,
    wallet: String,
    network: String,
}

/// The two accounts between which a payment moves money, and in what.
struct Legs {
    to: String,
    from: String,
    commodity: String,
    decimals: u8,
}

/// The line a transaction begins with.
struct Head<'a> {
    day: Day,
    clear: bool,
    id: &'a str,
    payee: &'a str,
    note: &'a str,
    link: Option<&'a str>,
    disputed: bool,
}

impl Journal {
    pub(super) fn begin(beancount: bool, options: &Options, out: &mut String) -> Self {
        let dialect = if beancount { Dialect::Beancount } else { Dialect::Hledger };
        let currency = accounts::commodity(&options.currency, None);
        // Writing to a string does not fail.
        let _infallible = match dialect {
            Dialect::Beancount => write!(out, "option \"operating_currency\" \"{currency}\"\n\n"),
            Dialect::Hledger => write!(out, "decimal-mark .\n\n"),
        };
        let commodities = BTreeMap::from([(currency.clone(), Micros::DECIMALS)]);
        Self { dialect, currency, accounts: BTreeMap::new(), commodities, dust: BTreeMap::new() }
    }

    pub(super) fn payment(&mut self, entry: &Entry<'_>, options: &Options, out: &mut String) {
        let payment = entry.payment;
        if payment.state.is_open() {
            self.in_doubt(entry, options, out);
        } else if let Some(at) = figures::settled_at(payment) {
            self.settled(entry, Day::of(at), options, out);
            self.refunds(entry, options, out);
        }
    }

    fn in_doubt(&mut self, entry: &Entry<'_>, options: &Options, out: &mut String) {
        let payment = entry.payment;
        let sum = Sum::in_doubt(payment);
        if sum.amount == 0 {
            return;
        }
        let signed = payment.history.iter().find(|step| step.state == State::Signed);
        let day = Day::of(signed.map_or(payment.created_at, |step| step.at));
        let to = spending(&options.accounts.commitments, payment);
        let legs = self.legs(payment, to, holding(&options.accounts.in_doubt, payment));
        let note = format!("in doubt: {} {}", payment.facts.method, payment.facts.url);
        self.purchase(entry, day, (&note, false), out);
        self.postings(day, &legs, sum, out);
    }

    fn settled(&mut self, entry: &Entry<'_>, day: Day, options: &Options, out: &mut String) {
        let payment = entry.payment;
        let sum = Sum::settled(payment);
        if sum.amount == 0 {
            return;
        }
        let to = spending(&options.accounts.expenses, payment);
        let legs = self.legs(payment, to, holding(&options.accounts.wallets, payment));
        let disputed = payment.state == State::Disputed;
        let dust = sum.value < options.dust_below.get() && !disputed;
        let Some(legs) = (if dust { self.gather(payment, day, legs, sum) } else { Some(legs) }) else {
            return;
        };
        let note = format!("{} {}", payment.facts.method, payment.facts.url);
        self.purchase(entry, day, (&note, !disputed), out);
        self.postings(day, &legs, sum, out);
    }

    /// Adds a purchase to its day's dust. It is given back where the sum would not fit, to stand for itself.
    fn gather(&mut self, payment: &PaymentView, day: Day, legs: Legs, sum: Sum) -> Option<Legs> {
        let facts = &payment.facts;
        let key = DustKey {
            day,
            expense: legs.to,
            wallet: legs.from,
            commodity: legs.commodity,
            asset: facts.asset.clone(),
            decimals: legs.decimals,
        };
        if let Some(dust) = self.dust.get_mut(&key) {
            let amount = dust.sum.amount.checked_add(sum.amount);
            let value = dust.sum.value.checked_add(sum.value);
            let (Some(amount), Some(value)) = (amount, value) else {
                let DustKey { expense: to, wallet: from, commodity, decimals, .. } = key;
                return Some(Legs { to, from, commodity, decimals });
            };
            dust.sum = Sum { amount, value };
            dust.count = dust.count.saturating_add(1);
            dust.first = dust.first.min(payment.id);
            dust.last = dust.last.max(payment.id);
            return None;
        }
        let dust = Dust {
            count: 1,
            first: payment.id,
            last: payment.id,
            sum,
            seller: facts.host.clone(),
            client: facts.principal.client.clone(),
            project: facts.principal.project.clone(),
            wallet: facts.wallet.clone(),
            network: facts.network.clone(),
        };
        self.dust.insert(key, dust);
        None
    }

    fn refunds(&mut self, entry: &Entry<'_>, options: &Options, out: &mut String) {
        let payment = entry.payment;
        let facts = &payment.facts;
        let principal = &facts.principal;
        let purchase = payment.id.to_string();
        for (i, (refund, sum)) in Sum::refunds(payment).enumerate() {
            if sum.amount == 0 {
                continue;
            }
            let (to, source, reference, by) = match &refund.source {
                RefundSource::Chain { transaction, .. } => {
                    (holding(&options.accounts.wallets, payment), "chain", transaction, Cell::Absent)
                }
                RefundSource::Person { by, reference } => {
                    (options.accounts.claims.below(&[Some(&facts.host)]), "person", reference, Cell::Text(by))
                }
            };
            let day = Day::of(refund.at);
            let legs = self.legs(payment, to, spending(&options.accounts.expenses, payment));
            let id = refund_id(payment, i);
            let note = format!("refund of {} {}", facts.method, facts.url);
            let disputed = payment.state == State::Disputed;
            let head =
                Head { day, clear: true, id: &id, payee: &facts.host, note: &note, link: Some(&purchase), disputed };
            self.head(&head, out);
            let mut meta = Meta { dialect: self.dialect, out, list: "", index: 0 };
            meta.cell("payment", Cell::Plain(&purchase));
            meta.cell("source", Cell::Plain(source));
            meta.cell("reference", Cell::Text(reference));
            meta.cell("by", by);
            meta.cell("seller", Cell::Text(&facts.host));
            meta.cell("pay_to", Cell::Text(&facts.pay_to));
            meta.cell("network", Cell::Text(&facts.network));
            meta.cell("asset", Cell::Text(&facts.asset));
            meta.cell("wallet", Cell::Text(&facts.wallet));
            meta.cell("agent", Cell::Text(&principal.agent));
            meta.cell("user", Cell::text(principal.user.as_ref()));
            meta.cell("client", Cell::text(principal.client.as_ref()));
            meta.cell("project", Cell::text(principal.project.as_ref()));
            meta.cell("task", Cell::text(principal.task.as_ref()));
            meta.cell("decision", Cell::Id("dec_", payment.decision.id.as_bytes()));
            self.expense_back(day, &legs, sum, out);
        }
    }

    /// Ends the journal: dust, then what was named.
    pub(super) fn end(&mut self, options: &Options, out: &mut String) {
        for (key, dust) in std::mem::take(&mut self.dust) {
            let mut id = String::from("dust-");
            key.day.write(&mut id);
            let parts = [&key.expense, &key.wallet, &key.commodity, &key.asset].map(String::as_str).join(" ");
            id.push('-');
            id.extend(hex::encode(Sha256::digest(parts)).chars().take(16));
            let note = format!("{} small purchases", dust.count);
            let head = Head {
                day: key.day,
                clear: true,
                id: &id,
                payee: &dust.seller,
                note: &note,
                link: None,
                disputed: false,
            };
            self.head(&head, out);
            let mut meta = Meta { dialect: self.dialect, out, list: "", index: 0 };
            meta.cell("count", Cell::Number(dust.count));
            meta.cell("first", Cell::Id("pay_", dust.first.as_bytes()));
            meta.cell("last", Cell::Id("pay_", dust.last.as_bytes()));
            meta.cell("seller", Cell::Text(&dust.seller));
            meta.cell("network", Cell::Text(&dust.network));
            meta.cell("asset", Cell::Text(&key.asset));
            meta.cell("wallet", Cell::Text(&dust.wallet));
            meta.cell("client", Cell::text(dust.client.as_ref()));
            meta.cell("project", Cell::text(dust.project.as_ref()));
            let legs = Legs { to: key.expense, from: key.wallet, commodity: key.commodity, decimals: key.decimals };
            self.postings(key.day, &legs, dust.sum, out);
        }
        if options.declare {
            self.declare(out);
        }
    }

    fn declare(&self, out: &mut String) {
        for (account, day) in &self.accounts {
            match self.dialect {
                Dialect::Beancount => {
                    day.write(out);
                    out.push_str(" open ");
                }
                Dialect::Hledger => out.push_str("account "),
            }
            out.push_str(account);
            out.push('\n');
        }
        if self.dialect == Dialect::Hledger {
            for (commodity, decimals) in &self.commodities {
                out.push_str("commodity ");
                // The decimal mark is part of what is declared.
                figures::decimal(out, 0, *decimals, Places::All);
                out.push_str(if *decimals == 0 { ". \"" } else { " \"" });
                out.push_str(commodity);
                out.push_str("\"\n");
            }
        }
    }

    fn legs(&mut self, payment: &PaymentView, to: String, from: String) -> Legs {
        let facts = &payment.facts;
        let token = (facts.network.as_str(), facts.asset.as_str(), self.currency.as_str());
        let commodity = accounts::commodity(&facts.asset_symbol, Some(token));
        let decimals = self.commodities.entry(commodity.clone()).or_insert(facts.asset_decimals);
        *decimals = facts.asset_decimals.max(*decimals);
        Legs { to, from, commodity, decimals: facts.asset_decimals }
    }

    /// A purchase's first line and everything that is known of it.
    fn purchase(&self, entry: &Entry<'_>, day: Day, (note, clear): (&str, bool), out: &mut String) {
        let payment = entry.payment;
        let id = payment.id.to_string();
        let disputed = payment.state == State::Disputed;
        let head = Head { day, clear, id: &id, payee: &payment.facts.host, note, link: Some(&id), disputed };
        self.head(&head, out);
        row::write(entry, &self.currency, &mut Meta { dialect: self.dialect, out, list: "", index: 0 });
    }

    fn head(&self, head: &Head<'_>, out: &mut String) {
        head.day.write(out);
        out.push_str(if head.clear { " * " } else { " ! " });
        match self.dialect {
            Dialect::Beancount => {
                text::beancount(out, head.payee);
                out.push(' ');
                text::beancount(out, head.note);
                if head.disputed {
                    out.push_str(" #disputed");
                }
                if let Some(link) = head.link {
                    out.push_str(" ^");
                    out.push_str(link);
                }
                out.push('\n');
                if head.link != Some(head.id) {
                    Meta { dialect: self.dialect, out, list: "", index: 0 }.cell("id", Cell::Plain(head.id));
                }
            }
            Dialect::Hledger => {
                let _infallible = write!(out, "({}) ", head.id);
                text::hledger_description(out, head.payee);
                out.push_str(" | ");
                text::hledger_description(out, head.note);
                out.push('\n');
                if head.disputed {
                    out.push_str("    ; disputed:\n");
                }
            }
        }
    }

    /// The value to `to`; the asset from `from`, at exactly that value.
    fn postings(&mut self, day: Day, legs: &Legs, sum: Sum, out: &mut String) {
        self.posting(day, &legs.to, out);
        self.value(sum, out);
        out.push('\n');
        self.posting(day, &legs.from, out);
        out.push('-');
        self.asset_at_value(legs, sum, out);
        out.push_str("\n\n");
    }

    /// The asset to `to`, at exactly the value that leaves `from`.
    fn expense_back(&mut self, day: Day, legs: &Legs, sum: Sum, out: &mut String) {
        self.posting(day, &legs.to, out);
        self.asset_at_value(legs, sum, out);
        out.push('\n');
        self.posting(day, &legs.from, out);
        out.push('-');
        self.value(sum, out);
        out.push_str("\n\n");
    }

    fn posting(&mut self, day: Day, account: &str, out: &mut String) {
        out.push_str("    ");
        out.push_str(account);
        out.push_str("  ");
        match self.accounts.get_mut(account) {
            Some(first) => *first = day.min(*first),
            None => {
                self.accounts.insert(account.to_owned(), day);
            }
        }
    }

    fn value(&self, sum: Sum, out: &mut String) {
        // All places: beancount takes its tolerance from the last one.
        sum.write_value(out, Places::All);
        self.commodity(&self.currency, out);
    }

    fn asset_at_value(&self, legs: &Legs, sum: Sum, out: &mut String) {
        figures::decimal(out, sum.amount, legs.decimals, Places::All);
        self.commodity(&legs.commodity, out);
        out.push_str(" @@ ");
        self.value(sum, out);
    }

    fn commodity(&self, name: &str, out: &mut String) {
        let quote = if self.dialect == Dialect::Hledger { "\"" } else { "" };
        let _infallible = write!(out, " {quote}{name}{quote}");
    }
}

/// The id of a payment's refund: its place in the order of booking never changes.
pub(super) fn refund_id(payment: &PaymentView, index: usize) -> String {
    format!("{}/refund-{}", payment.id, index.saturating_add(1))
}

/// An account by wallet and network.
fn holding(account: &accounts::Account, payment: &PaymentView) -> String {
    account.below(&[Some(&payment.facts.wallet), Some(&payment.facts.network)])
}

/// An account by client, project and seller.
fn spending(account: &accounts::Account, payment: &PaymentView) -> String {
    let facts = &payment.facts;
    let principal = &facts.principal;
    account.below(&[principal.client.as_deref(), principal.project.as_deref(), Some(&facts.host)])
}

/// Writes what is known as metadata or tags, one line each. What is absent has no line.
struct Meta<'o> {
    dialect: Dialect,
    out: &'o mut String,
    list: &'static str,
    index: usize,
}

impl Meta<'_> {
    fn line(&mut self, name: &str, value: impl FnOnce(&mut String)) {
        match self.dialect {
            Dialect::Beancount => {
                let _infallible = write!(self.out, "    {name}: ");
            }
            Dialect::Hledger => {
                let _infallible = write!(self.out, "    ; {name}: ");
            }
        }
        value(self.out);
        self.out.push('\n');
    }
}

impl Sink for Meta<'_> {
    fn cell(&mut self, name: &'static str, cell: Cell<'_>) {
        let dialect = self.dialect;
        match cell {
            Cell::Absent | Cell::Amount(0, _) => {}
            Cell::Text(foreign) => self.line(name, |out| match dialect {
                Dialect::Beancount => text::beancount(out, foreign),
                Dialect::Hledger => text::hledger_tag(out, foreign),
            }),
            ours => self.line(name, |out| match dialect {
                Dialect::Beancount => {
                    out.push('"');
                    ours.plain(out);
                    out.push('"');
                }
                Dialect::Hledger => {
                    ours.plain(out);
                }
            }),
        }
    }

    fn open(&mut self, name: &'static str) {
        self.list = name;
        self.index = 0;
    }

    fn item(&mut self, cells: &[(&'static str, Cell<'_>)]) {
        self.index = self.index.saturating_add(1);
        let mut words = String::new();
        for (name, cell) in cells {
            if matches!(cell, Cell::Absent) {
                continue;
            }
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(name);
            words.push('=');
            if let Some(foreign) = cell.plain(&mut words) {
                text::word(&mut words, foreign);
            }
        }
        let name = format!("{}-{}", self.list, self.index);
        let dialect = self.dialect;
        self.line(&name, |out| match dialect {
            Dialect::Beancount => text::beancount_line(out, &words),
            Dialect::Hledger => text::hledger_line(out, &words),
        });
    }

    fn close(&mut self) {}
}
