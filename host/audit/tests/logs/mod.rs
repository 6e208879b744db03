//! Logs of a small make-believe ledger, for tests and benchmarks: every kind of step, ageing, refunds.

use std::convert::Infallible;

use countersign_audit::note::{Checkpoint, SigningKey};
use countersign_audit::record;
use countersign_audit::tlog::{Hash, Node, Nodes, appended, leaf_hash, prove_inclusion, root, stored_index};
use countersign_audit::verify::{checkpoint_line, partial_line};
use countersign_core::payment::{Effect, Event, State, TRANSITIONS};
use serde_json::{Map, Value, json};

/// xorshift64*: tests must be the same every time.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n.max(1)
    }

    pub fn index(&mut self, n: usize) -> usize {
        usize::try_from(self.below(n as u64)).unwrap()
    }
}

#[derive(Default, Clone)]
struct Window {
    held: u64,
    spent: u64,
}

struct Hold {
    window: usize,
    amount: u64,
    aged: bool,
    open: bool,
    counted: u64,
}

struct Payment {
    id: String,
    state: State,
    version: u64,
    holds: Vec<Hold>,
}

/// What a record says beside its number and its link.
pub type Body = Map<String, Value>;

/// A ledger that makes records up.
pub struct Ledger {
    dice: Dice,
    windows: Vec<Window>,
    payments: Vec<Payment>,
    pub bodies: Vec<Body>,
}

const LIMIT: u64 = 5_000;

fn body(value: Value) -> Body {
    value.as_object().unwrap().clone()
}

impl Ledger {
    pub fn new(seed: u64) -> Self {
        let (dice, windows) = (Dice::new(seed), vec![Window::default(); 4]);
        Self { dice, windows, payments: Vec::new(), bodies: Vec::new() }
    }

    /// Exactly `n` records.
    pub fn records(mut self, n: usize) -> Vec<Body> {
        while self.bodies.len() < n {
            match self.dice.below(10) {
                0 => self.push("note", json!({ "by": "alice", "body": { "text": "tëxt\n\u{1}\"", "n": -7 } })),
                1 => self.deny(),
                2..=5 => self.begin(),
                _ => self.step(),
            }
        }
        self.bodies.truncate(n);
        self.bodies
    }

    fn push(&mut self, kind: &str, value: Value) {
        let mut body = body(value);
        let at = 1_700_000_000_000 + self.bodies.len() as u64 * 50 - self.dice.below(100);
        body.insert("kind".into(), kind.into());
        body.insert("at".into(), at.into());
        self.bodies.push(body);
    }

    fn id(&self) -> String {
        format!("pay_{:032x}", self.bodies.len())
    }

    fn deny(&mut self) {
        self.push("payment-denied", json!({ "payment": self.id(), "code": "policy-denied", "agent": "scout" }));
    }

    /// Reserves in some windows; answers entries of `budgets`, or none if something does not fit.
    fn place(&mut self, closing: &[Hold]) -> Option<(Vec<Value>, Vec<Hold>)> {
        let (mut entries, mut holds) = (Vec::new(), Vec::new());
        let mut windows = self.windows.clone();
        let first = self.dice.index(windows.len());
        let chosen: Vec<usize> = (first..windows.len()).filter(|w| *w == first || w % 2 == 0).collect();
        for (w, window) in windows.iter_mut().enumerate() {
            let old = closing.iter().find(|hold| hold.open && hold.window == w);
            let new = chosen.contains(&w);
            if old.is_none() && !new {
                continue;
            }
            let mut entry = json!({});
            if let Some(old) = old {
                window.held -= old.amount;
                entry["amount"] = old.amount.into();
                entry["release"] = old.amount.into();
            }
            if new {
                let amount = 1 + self.dice.below(900);
                window.held += amount;
                entry["hold"] = amount.into();
                self.age(w, window, &mut entry);
                if self.dice.below(8) == 0 {
                    let seeded = 1 + self.dice.below(50);
                    window.spent += seeded;
                    entry["seeded"] = seeded.into();
                }
                if window.held + window.spent > LIMIT {
                    return None;
                }
                holds.push(Hold { window: w, amount, aged: false, open: true, counted: 0 });
            }
            entries.push(told(w, window, entry));
        }
        Some((entries, holds))
    }

    /// A rolling window: what is due counts as spent, what is old leaves.
    fn age(&mut self, w: usize, window: &mut Window, entry: &mut Value) {
        if w % 2 == 1 {
            return;
        }
        if self.dice.below(3) == 0 {
            let left = self.dice.below(window.spent + 1);
            if left > 0 {
                window.spent -= left;
                entry["left"] = left.into();
            }
        }
        let open = self.payments.iter_mut().filter(|p| p.state.is_open()).flat_map(|p| &mut p.holds);
        let Some(due) = open.into_iter().find(|hold| hold.open && !hold.aged && hold.window == w) else { return };
        if self.dice.below(3) > 0 {
            return;
        }
        due.aged = true;
        window.held -= due.amount;
        entry["aged"] = due.amount.into();
        if self.dice.below(4) > 0 {
            window.spent += due.amount;
            entry["aged-spent"] = due.amount.into();
        }
    }

    fn begin(&mut self) {
        let snapshot: Vec<bool> = self.payments.iter().flat_map(|p| &p.holds).map(|h| h.aged).collect();
        let (id, review) = (self.id(), self.dice.below(4) == 0);
        let Some((entries, holds)) = self.place(&[]) else {
            self.unage(&snapshot);
            return;
        };
        self.apply(&entries);
        let state = if review { State::Review } else { State::Signed };
        self.payments.push(Payment { id: id.clone(), state, version: 0, holds });
        if review {
            let approval = json!({ "id": "apr_1", "shown": [["caps", "above-review"]] });
            self.push("payment-review", json!({ "payment": id, "approval": approval, "budgets": entries }));
        } else {
            let body = json!({
                "payment": id, "approval": null, "budgets": entries, "workspace": "research", "agent": "scout",
                "host": "api.example.com", "method": "GET", "path": "/v1/quote", "network": "eip155:84532",
                "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "amount": "1000", "value": 1000,
                "nonce": "5f".repeat(32), "valid_before": 1_700_000_300, "payload": "ab".repeat(32),
            });
            self.push("payment-signed", body);
        }
    }

    fn unage(&mut self, snapshot: &[bool]) {
        let holds = self.payments.iter_mut().flat_map(|p| &mut p.holds);
        holds.zip(snapshot).for_each(|(hold, aged)| hold.aged = *aged);
    }

    fn apply(&mut self, entries: &[Value]) {
        for entry in entries {
            let w = usize::try_from(entry["win"].as_u64().unwrap()).unwrap();
            self.windows[w] = Window { held: entry["held"].as_u64().unwrap(), spent: entry["spent"].as_u64().unwrap() };
        }
    }

    fn step(&mut self) {
        let live: Vec<usize> =
            (0..self.payments.len()).filter(|p| self.payments[*p].state != State::Released).collect();
        if live.is_empty() {
            return;
        }
        // Mostly the newest, so that they do not all end at the same time.
        let which = live[live.len() - 1 - self.dice.index(live.len().min(6))];
        let rules: Vec<_> = TRANSITIONS.into_iter().filter(|r| r.from == self.payments[which].state).collect();
        let rule = rules[self.dice.index(rules.len())];
        if rule.event == Event::Resume {
            self.resume(which);
            return;
        }
        let mut holds = std::mem::take(&mut self.payments[which].holds);
        let mut entries = Vec::new();
        for hold in &mut holds {
            let mut window = self.windows[hold.window].clone();
            let mut entry = json!({});
            match rule.effect {
                Effect::Keep | Effect::Replace => continue,
                Effect::Release | Effect::Settle => {
                    let settled = if rule.effect == Effect::Settle { hold.amount - self.dice.below(2) } else { 0 };
                    entry["amount"] = hold.amount.into();
                    if hold.aged {
                        let credit = (hold.amount - settled).min(window.spent);
                        hold.counted = hold.amount - credit;
                        window.spent -= credit;
                        if credit > 0 {
                            entry["refund"] = credit.into();
                        }
                    } else {
                        hold.counted = settled;
                        window.held -= hold.amount;
                        window.spent += settled;
                        entry["release"] = hold.amount.into();
                        if settled > 0 {
                            entry["spend"] = settled.into();
                        }
                    }
                    hold.open = false;
                }
                Effect::Refund => {
                    let back = self.dice.below(hold.counted.min(window.spent) + 1);
                    if back == 0 {
                        continue;
                    }
                    hold.counted -= back;
                    window.spent -= back;
                    entry["refund"] = back.into();
                }
            }
            entries.push(told(hold.window, &window, entry));
            self.windows[hold.window] = window;
        }
        let payment = &mut self.payments[which];
        payment.holds = holds;
        payment.state = rule.to;
        payment.version += 1;
        let body = json!({
            "payment": payment.id, "from": rule.from.number(), "to": rule.to.number(), "event": rule.event.name(),
            "version": payment.version, "why": "so it is", "evidence": null, "budgets": entries,
        });
        self.push("payment-changed", body);
    }

    fn resume(&mut self, which: usize) {
        let snapshot: Vec<bool> = self.payments.iter().flat_map(|p| &p.holds).map(|h| h.aged).collect();
        let old = std::mem::take(&mut self.payments[which].holds);
        let placed = self.place(&old);
        let Some((entries, holds)) = placed else {
            self.payments[which].holds = old;
            self.unage(&snapshot);
            return;
        };
        self.apply(&entries);
        let payment = &mut self.payments[which];
        (payment.holds, payment.state, payment.version) = (holds, State::Signed, payment.version + 1);
        let body = json!({ "payment": payment.id, "approval": "apr_1", "budgets": entries });
        self.push("payment-signed", body);
    }
}

fn told(w: usize, window: &Window, mut entry: Value) -> Value {
    let base = json!({
        "budget": format!("{:032x}", 7 + w / 2), "label": format!("agent/scout/{w}"), "win": w, "limit": LIMIT,
        "held": window.held, "spent": window.spent,
    });
    entry.as_object_mut().unwrap().extend(base.as_object().unwrap().clone());
    entry
}

/// The key of every log here.
pub fn key() -> SigningKey {
    SigningKey::from_seed("countersign.example/log", &[3; 32]).unwrap()
}

/// Numbers and links bodies.
pub fn chain(bodies: &[Body]) -> Vec<String> {
    let mut prev = [0; 32];
    let line = |(seq, body): (u64, &Body)| {
        let mut body = body.clone();
        let at = body.remove("at").unwrap().as_u64().unwrap();
        let kind = body.remove("kind").unwrap();
        let line = record::write(seq, &prev, at, kind.as_str().unwrap(), body).unwrap();
        prev = leaf_hash(line.as_bytes());
        line
    };
    (1..).zip(bodies).map(line).collect()
}

/// Stored hashes in memory.
pub struct Stored(Vec<Hash>);

impl Nodes for Stored {
    type Error = Infallible;

    fn node(&self, node: Node) -> Result<Hash, Infallible> {
        Ok(self.0[usize::try_from(stored_index(node)).unwrap()])
    }
}

/// The tree of these lines.
pub fn tree(lines: &[String]) -> Stored {
    let mut stored = Stored(Vec::new());
    for (size, line) in (0..).zip(lines) {
        let Ok(added) = appended(&stored, size, leaf_hash(line.as_bytes()));
        stored.0.extend(added);
    }
    stored
}

/// The signed checkpoint over the first `size` lines.
pub fn checkpoint(lines: &[String], size: usize) -> String {
    let Ok(root) = root(&tree(lines), size as u64);
    Checkpoint::sign(&key(), size as u64, &root).unwrap()
}

/// The whole export.
pub fn export(lines: &[String]) -> Vec<u8> {
    let end = checkpoint_line(&checkpoint(lines, lines.len()));
    let mut text = String::new();
    for line in lines.iter().chain([&end]) {
        text.push_str(line);
        text.push('\n');
    }
    text.into_bytes()
}

/// The lines of a partial export with the records at these places, without its end.
pub fn partial(lines: &[String], places: &[usize]) -> Vec<String> {
    let (stored, size) = (tree(lines), lines.len() as u64);
    let line = |place: &usize| {
        let Ok(proof) = prove_inclusion(&stored, *place as u64, size);
        partial_line(&lines[*place], &proof.unwrap(), size)
    };
    places.iter().map(line).collect()
}
