//! What the records say of payments and budgets, followed from record to record.
//!
//! Four kinds say it. `payment-denied` begins and ends a payment. `payment-review` begins one, and so
//! does `payment-signed` without `approval`; with one, it is the step `resume` of a payment in review.
//! `payment-changed` is every other step: `from`, `event` and `to` must be a row of the table of
//! transitions, `from` the state the payment is in, and `version` one more than before (0 at first).
//!
//! Any record may have `budgets`, one entry per window that moved:
//! `held' = held + hold - release - aged`, `spent' = spent + spend + aged-spent + seeded - left - refund`,
//! `held' + spent' <= limit` where `hold` is above 0. A closed hold's entry has its `amount`. What the
//! payment's own holds may do is the effect of its step. A window's `held` is at all times the sum of the
//! open holds in it that have not aged.

use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};

use countersign_core::id::PaymentId;
use countersign_core::payment::{Effect, Event, State, transition};

use super::{Checked, Fault, fail};
use crate::canon::{Json, Value};
use crate::record::{Record, bytes_of_hex};

/// A budget and its window.
type Window = ([u8; 16], u64);

#[derive(Clone, Default)]
struct Counters {
    held: u64,
    spent: u64,
    /// Holds that are open, aged or not.
    open: u64,
    /// Of these, those that have aged.
    aged: u64,
}

#[derive(Clone)]
struct Hold {
    window: Window,
    /// While it is open, what it reserves; then what of it is counted as spent.
    amount: u64,
    open: bool,
}

#[derive(Clone)]
struct Payment {
    state: State,
    version: u64,
    holds: Vec<Hold>,
}

/// What a record may do to its payment's own holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    Nothing,
    Place,
    Step(Effect),
}

impl May {
    const fn place(self) -> bool {
        matches!(self, Self::Place | Self::Step(Effect::Replace))
    }

    const fn close(self) -> bool {
        matches!(self, Self::Step(Effect::Release | Effect::Settle | Effect::Replace))
    }
}

/// Every budget and every payment as the records so far leave it.
#[derive(Clone, Default)]
pub(super) struct Books {
    counters: HashMap<Window, Counters>,
    payments: HashMap<PaymentId, Payment>,
    /// Denied or released: never heard of again.
    over: HashSet<PaymentId>,
}

impl Books {
    pub(super) fn payments(&self) -> u64 {
        u64::try_from(self.payments.len().saturating_add(self.over.len())).unwrap_or(u64::MAX)
    }

    pub(super) fn windows(&self) -> u64 {
        u64::try_from(self.counters.len()).unwrap_or(u64::MAX)
    }

    /// `whole`: every record before this one was seen, so that the counters can be followed.
    pub(super) fn take(&mut self, record: &Record<'_>, whole: bool) -> Checked<()> {
        let (payment, may) = match record.kind {
            "payment-denied" => (Some(self.begin(record, State::Denied)?), May::Nothing),
            "payment-review" => (Some(self.begin(record, State::Review)?), May::Place),
            "payment-signed" if record.json.get("approval").is_none() => {
                (Some(self.begin(record, State::Signed)?), May::Place)
            }
            "payment-signed" => {
                let id = payment_of(record)?;
                let effect = self.step(id, Event::Resume, None)?;
                (Some(id), May::Step(effect))
            }
            "payment-changed" => {
                let (id, effect) = self.change(record)?;
                (Some(id), May::Step(effect))
            }
            _ => (None, May::Nothing),
        };
        // Taken out while its holds move, so that the windows are at hand too.
        let taken = payment.and_then(|id| self.payments.get_mut(&id)).map(|p| std::mem::take(&mut p.holds));
        let mut own = taken.unwrap_or_default();
        let before = own.len();
        self.moves(record.json, &mut own, may, whole)?;
        if may.close() && own.iter().take(before).any(|hold| hold.open) {
            return fail(Fault::Hold, "an open hold of the payment is neither released nor settled");
        }
        let Some(id) = payment else { return Ok(()) };
        if let Slot::Occupied(mut slot) = self.payments.entry(id) {
            if matches!(slot.get().state, State::Denied | State::Released) {
                slot.remove();
                self.over.insert(id);
            } else {
                own.retain(|hold| hold.open || hold.amount > 0);
                slot.get_mut().holds = own;
            }
        }
        Ok(())
    }

    fn begin(&mut self, record: &Record<'_>, state: State) -> Checked<PaymentId> {
        let id = payment_of(record)?;
        match self.payments.entry(id) {
            Slot::Vacant(slot) if !self.over.contains(&id) => {
                slot.insert(Payment { state, version: 0, holds: Vec::new() });
                Ok(id)
            }
            _ => fail(Fault::Payment, format!("the payment {id} begins a second time")),
        }
    }

    fn step(&mut self, id: PaymentId, event: Event, said: Option<(State, State, u64)>) -> Checked<Effect> {
        let Some(payment) = self.payments.get_mut(&id) else {
            return fail(Fault::Payment, format!("the payment {id} has not begun, or is over"));
        };
        let version = payment.version.saturating_add(1);
        let (from, _, told) = said.unwrap_or((payment.state, payment.state, version));
        if (from, told) != (payment.state, version) {
            return fail(Fault::Payment, "the payment is not where this step leads from");
        }
        let Some(rule) = transition(from, event).filter(|rule| said.is_none_or(|(_, to, _)| to == rule.to)) else {
            return fail(Fault::Payment, format!("no payment takes the step `{}` from and to there", event.name()));
        };
        (payment.state, payment.version) = (rule.to, version);
        Ok(rule.effect)
    }

    fn change(&mut self, record: &Record<'_>) -> Checked<(PaymentId, Effect)> {
        let id = payment_of(record)?;
        let odd = |name: &str| (Fault::Record, format!("a step's `{name}` is missing or not what it must be"));
        let number = |name: &str| record.json.get(name).and_then(Json::as_u64).ok_or_else(|| odd(name));
        let state = |name: &str| {
            let number = u8::try_from(number(name)?).ok();
            number.and_then(State::from_number).ok_or_else(|| odd(name))
        };
        let (from, to, version) = (state("from")?, state("to")?, number("version")?);
        let event = record.json.get("event").and_then(Json::as_str);
        // Resuming places holds: `payment-signed` says so.
        let event = Event::ALL.into_iter().find(|e| Some(e.name()) == event && *e != Event::Resume);
        let event = event.ok_or_else(|| odd("event"))?;
        Ok((id, self.step(id, event, Some((from, to, version)))?))
    }

    fn moves(&mut self, json: &Json<'_>, own: &mut Vec<Hold>, may: May, whole: bool) -> Checked<()> {
        let Some(budgets) = json.get("budgets") else { return Ok(()) };
        let Some(entries) = budgets.items() else { return fail(Fault::Record, "`budgets` is not a list") };
        let mut seen = HashSet::new();
        for entry in entries {
            let entry = Entry::read(entry)?;
            if !seen.insert(entry.window) {
                return fail(Fault::Record, "a window has two entries");
            }
            self.count(&entry, whole)?;
            let closed_aged = close(&entry, own, may)?;
            self.shares(&entry, closed_aged, whole)?;
        }
        Ok(())
    }

    /// The counters, and the limit.
    fn count(&mut self, e: &Entry, whole: bool) -> Checked<()> {
        let fits = e.held.checked_add(e.spent).is_some_and(|used| used <= e.limit);
        if e.hold > 0 && !fits {
            let why = format!("{} held and {} spent of {} when something was granted", e.held, e.spent, e.limit);
            return fail(Fault::Limit, why);
        }
        if !whole {
            return Ok(());
        }
        let c = self.counters.entry(e.window).or_default();
        let after = |before: u64, more: &[u64], less: &[u64]| {
            let sum = |parts: &[u64]| parts.iter().map(|n| u128::from(*n)).sum::<u128>();
            u128::from(before).saturating_add(sum(more)).checked_sub(sum(less))
        };
        let held = after(c.held, &[e.hold], &[e.release, e.aged]);
        let spent = after(c.spent, &[e.spend, e.aged_spent, e.seeded], &[e.left, e.refund]);
        if held != Some(e.held.into()) || spent != Some(e.spent.into()) {
            let why = format!("{} held and {} spent do not follow from {} and {}", e.held, e.spent, c.held, c.spent);
            return fail(Fault::Budget, why);
        }
        (c.held, c.spent) = (e.held, e.spent);
        Ok(())
    }

    /// What is held is the open holds that have not aged.
    fn shares(&mut self, e: &Entry, closed_aged: u64, whole: bool) -> Checked<()> {
        if !whole {
            return Ok(());
        }
        let c = self.counters.entry(e.window).or_default();
        let aged = c.aged.saturating_add(e.aged).checked_sub(closed_aged);
        let open = c.open.saturating_add(e.hold).checked_sub(e.amount);
        let (Some(aged), Some(open)) = (aged, open) else {
            return fail(Fault::Hold, "a hold that has not aged left what is spent, not what is held");
        };
        if open.checked_sub(aged) != Some(c.held) {
            return fail(Fault::Hold, "what is held is not the sum of the open holds");
        }
        (c.aged, c.open) = (aged, open);
        Ok(())
    }
}

/// Moves the payment's own holds; answers how much of what was closed had aged.
fn close(e: &Entry, own: &mut Vec<Hold>, may: May) -> Checked<u64> {
    let odd = |why: &str| fail(Fault::Hold, why);
    let refund = matches!(may, May::Step(Effect::Refund));
    if (e.amount > 0 && !may.close()) || (e.hold > 0 && !may.place()) {
        return odd("this step neither closes nor places holds");
    }
    if e.hold == 0 && (e.aged > 0 || e.left > 0 || e.seeded > 0) {
        return odd("a window is brought up to date only where a hold is placed");
    }
    if e.aged_spent > e.aged {
        return odd("more is counted as spent because of its age than has aged");
    }
    if e.amount == 0 && (e.release > 0 || e.spend > 0 || (e.refund > 0 && !refund)) {
        return odd("something is released, spent or refunded without a hold");
    }
    let mut closed_aged = 0;
    if e.amount > 0 {
        let Some(hold) = own.iter_mut().find(|hold| hold.open && hold.window == e.window) else {
            return odd("the payment has no open hold in this window");
        };
        if hold.amount != e.amount {
            return odd("the payment's hold in this window has another amount");
        }
        hold.open = false;
        let settles = may == May::Step(Effect::Settle);
        // Held still, or aged: then it is counted as spent already, and what it did not come to goes back.
        let counted = if e.release > 0 {
            if e.release != e.amount || e.refund > 0 {
                return odd("a hold is released in part");
            }
            e.spend
        } else {
            closed_aged = e.amount;
            if e.spend > 0 {
                return odd("a hold that has aged is spent twice");
            }
            match e.amount.checked_sub(e.refund) {
                Some(rest) => rest,
                None => return odd("more goes back than the hold's amount"),
            }
        };
        if e.spend > e.amount || (e.spend > 0 && !settles) {
            return odd("more is spent than the hold's amount, or of a hold that is released");
        }
        hold.amount = if settles { counted } else { 0 };
    } else if e.refund > 0 {
        let spent = own.iter_mut().find(|hold| !hold.open && hold.window == e.window);
        let rest = spent.and_then(|hold| hold.amount.checked_sub(e.refund).map(|rest| (hold, rest)));
        let Some((hold, rest)) = rest else { return odd("more comes back than was spent") };
        hold.amount = rest;
    }
    if e.hold > 0 {
        own.push(Hold { window: e.window, amount: e.hold, open: true });
    }
    Ok(closed_aged)
}

fn payment_of(record: &Record<'_>) -> Checked<PaymentId> {
    let id = record.json.get("payment").and_then(Json::as_str).and_then(|id| id.parse().ok());
    id.ok_or_else(|| (Fault::Record, "the record does not name its payment".to_owned()))
}

/// One entry of `budgets`. What did not move is 0.
#[derive(Default)]
struct Entry {
    window: Window,
    limit: u64,
    held: u64,
    spent: u64,
    amount: u64,
    hold: u64,
    release: u64,
    spend: u64,
    refund: u64,
    aged: u64,
    aged_spent: u64,
    left: u64,
    seeded: u64,
}

impl Entry {
    fn read(json: &Json<'_>) -> Checked<Self> {
        let odd = |name: &str| (Fault::Record, format!("an entry of `budgets` has no `{name}` as it must be"));
        let members = json.members().ok_or_else(|| odd("budget"))?;
        let mut entry = Self::default();
        let mut required: u32 = 0;
        for (name, json) in members {
            let number = json.as_u64();
            let moved = number.filter(|amount| *amount > 0);
            let (field, value) = match name.as_ref() {
                "budget" => {
                    let id = json.as_str().and_then(bytes_of_hex).ok_or_else(|| odd(name))?;
                    entry.window.0 = id;
                    required = required.saturating_add(1);
                    continue;
                }
                "label" if matches!(json.value, Value::String(_)) => {
                    required = required.saturating_add(1);
                    continue;
                }
                "win" => (&mut entry.window.1, number),
                "limit" => (&mut entry.limit, number),
                "held" => (&mut entry.held, number),
                "spent" => (&mut entry.spent, number),
                "amount" => (&mut entry.amount, moved),
                "hold" => (&mut entry.hold, moved),
                "release" => (&mut entry.release, moved),
                "spend" => (&mut entry.spend, moved),
                "refund" => (&mut entry.refund, moved),
                "aged" => (&mut entry.aged, moved),
                "aged-spent" => (&mut entry.aged_spent, moved),
                "left" => (&mut entry.left, moved),
                "seeded" => (&mut entry.seeded, moved),
                _ => return Err(odd(name)),
            };
            *field = value.ok_or_else(|| odd(name))?;
            if matches!(name.as_ref(), "win" | "limit" | "held" | "spent") {
                required = required.saturating_add(1);
            }
        }
        if required == 6 { Ok(entry) } else { Err(odd("budget, label, win, limit, held and spent")) }
    }
}
