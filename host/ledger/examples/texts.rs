//! Texts to train the dictionary of stored texts on: `cargo run --release -p countersign-ledger --example texts -- FOLDER`
//!
//! Makes a ledger of payments that have little in common but what all payments have, and writes each of its texts
//! into a file of its own. The same every time.

#![expect(clippy::unwrap_used, clippy::panic, dead_code, reason = "what cannot be made stops")]

#[path = "../tests/ledger/backend.rs"]
mod backend;
#[path = "../tests/ledger/common.rs"]
mod common;

use countersign_core::ledger::{Commit, Denial, Fingerprint, Grant, Ledger as _, PaymentFacts, Transition};
use countersign_core::money::Atomic;
use countersign_core::payment::{Event, State};
use countersign_core::spend::{Attribute, Tally};
use countersign_core::verdict::{Attributed, Decision, Judgement, Mode, Opinion, Reason, Verdict, Window};
use countersign_ledger::text::unpack;
use sha2::{Digest as _, Sha256};

use common::{Rig, T0, at, block, commit, denial, event, facts, hold, in_review, micros, payment_id};

const PAYMENTS: u64 = 400;
/// Tables and their columns that are texts.
const TEXTS: [(&str, &[&str]); 3] =
    [("payment", &["facts", "payload"]), ("decision", &["request", "judgement", "reasons"]), ("audit", &["body"])];

/// What differs from payment to payment.
struct Dice(u64);

impl Dice {
    fn digest(&self, what: &str) -> [u8; 32] {
        Sha256::digest([what.as_bytes(), &self.0.to_be_bytes()].concat()).into()
    }

    fn number(&self, what: &str, below: u64) -> u64 {
        u64::from_be_bytes(*self.digest(what).first_chunk().unwrap()) % below
    }

    fn one<'a>(&self, what: &str, of: &[&'a str]) -> &'a str {
        of.get(usize::try_from(self.number(what, of.len() as u64)).unwrap()).unwrap()
    }

    fn hex(&self, what: &str) -> String {
        hex::encode(self.digest(what))
    }

    fn word(&self, what: &str) -> String {
        self.hex(what).chars().take(4 + usize::try_from(self.number(what, 8)).unwrap()).collect()
    }

    fn address(&self, what: &str) -> String {
        format!("0x{}", hex::encode(self.digest(what).get(..20).unwrap()))
    }

    fn facts(&self) -> PaymentFacts {
        let mut f = facts();
        let hosts = ["com", "dev", "io", "ai", "org", "net"];
        f.host = format!(
            "{}.{}.{}",
            self.one("sub", &["api", "data", "x402", "www"]),
            self.word("host"),
            self.one("tld", &hosts)
        );
        f.path = format!(
            "/{}/{}",
            self.one("v", &["v1", "v2", "api", "paid", "search", "weather", "quote", "premium"]),
            self.word("path")
        );
        f.url = format!("https://{}{}", f.host, f.path);
        f.method = self.one("method", &["GET", "GET", "POST"]).into();
        f.principal.agent = self.word("agent");
        f.principal.workspace = Some(self.one("workspace", &["default", "lab", "main", "prod"]).into());
        if self.number("session", 2) == 0 {
            f.principal.user = Some(self.word("user"));
            f.principal.task = Some(self.word("task"));
            f.principal.project = Some(self.word("project"));
        }
        f.pay_to = self.address("payee");
        (f.network, f.asset) = match self.number("network", 4) {
            0 => ("eip155:84532".into(), "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into()),
            1 => ("eip155:137".into(), "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359".into()),
            _ => ("eip155:8453".into(), "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".into()),
        };
        let amount = 10_u64.pow(2 + u32::try_from(self.number("digits", 5)).unwrap()) * (1 + self.number("amount", 9));
        (f.amount, f.value) = (Atomic::new(amount.into()), micros(amount));
        f.wallet = self.word("wallet");
        f.mandate = self.word("mandate");
        f.offer_sha256 = self.hex("offer");
        f
    }

    /// As `what` was, but with this payment's facts and figures.
    fn commit(&self, what: Commit) -> Commit {
        let f = self.facts();
        let mut c = what;
        c.key.agent = f.principal.agent.clone();
        c.key.workspace = f.principal.workspace.clone().unwrap();
        c.fingerprint = Fingerprint(self.digest("request"));
        c.generation = 1 + self.number("generation", 40);
        c.caps = common::NO_CAPS;
        for d in &mut c.decisions {
            d.judgement = self.judgement();
            d.reasons = self.reasons();
            let r = &mut d.request;
            r.principal = f.principal.clone();
            (r.purchase.method, r.purchase.url) = (f.method.clone(), f.url.clone());
            (r.purchase.host, r.purchase.path) = (f.host.clone(), f.path.clone());
            (r.seller.host, r.seller.pay_to) = (f.host.clone(), f.pay_to.clone());
            (r.payment.network, r.payment.asset) = (f.network.clone(), f.asset.clone());
            (r.payment.amount, r.payment.value) = (f.amount, f.value);
            r.payment.wallet = f.wallet.clone();
            if self.number("known", 2) == 0 {
                r.seller.host_first_paid = Some(at(self.number("first", 1_000_000)));
                r.seller.pay_to_first_paid = r.seller.host_first_paid;
                r.seller.last_price = Some(f.value);
            }
            if self.number("query", 2) == 0 {
                r.purchase.query_digest = Some(self.hex("query"));
                r.purchase.media_type = Some("application/json".into());
            }
            for tally in [&mut r.history.agent_hour, &mut r.history.agent_day, &mut r.history.seller_day] {
                *tally = Tally {
                    count: u32::try_from(self.number("count", 90)).unwrap(),
                    value: micros(self.number("sum", 90_000_000)),
                };
            }
            r.facts = vec![Attribute {
                name: "door".into(),
                value: self.one("door", &["proxy", "fetch", "mcp", "sign"]).into(),
            }];
        }
        if let Grant::Sign(a) = &mut c.grant {
            a.nonce = self.digest("nonce");
            a.from = self.address("payer").parse().unwrap();
            a.offer.amount = f.amount;
            a.offer.network_name = f.network.clone();
            a.offer.network = f.network.parse().unwrap();
            a.offer.asset.network = a.offer.network;
            a.offer.asset.address = f.asset.parse().unwrap();
            a.offer.asset.id = self.one("asset", &["usdc-base", "usdc-base-sepolia", "usdc-polygon"]).into();
            a.offer.pay_to = f.pay_to.parse().unwrap();
            a.offer.raw = serde_json::json!({
                "scheme": "exact", "network": f.network, "amount": f.amount, "asset": f.asset, "payTo": f.pay_to,
                "maxTimeoutSeconds": 60, "extra": { "name": "USD Coin", "version": "2" },
            })
            .to_string();
            a.offer.resource_url = Some(f.url.clone());
            a.offer.mime_type = Some("application/json".into());
        }
        c.facts = f;
        c
    }

    fn judgement(&self) -> Judgement {
        let opinion = |policy: &str| Opinion {
            policy: policy.into(),
            version: "0.1.0".into(),
            module_sha256: hex::encode(Sha256::digest(policy)),
            settings_sha256: self.hex(policy),
            mode: Mode::Enforce,
            claims: false,
            outcome: Ok(Decision {
                verdict: if policy == "spend-caps" { Verdict::Allow } else { Verdict::Abstain },
                reasons: self.reasons().into_iter().map(|a| a.reason).collect(),
                holds: vec![hold("agent", Window::Day("UTC".into()), 5_000_000, self.number("held", 99_999))],
                review: None,
                obligations: vec![],
                notes: vec![],
            }),
            log: vec![],
            fuel: self.number("fuel", 900_000),
            micros: self.number("micros", 900),
        };
        let opinions = ["spend-caps", "allow-list", "review-threshold"];
        let count = usize::try_from(self.number("opinions", 4)).unwrap();
        Judgement {
            generation: 1 + self.number("generation", 40),
            opinions: opinions.into_iter().take(count).map(opinion).collect(),
        }
    }

    fn reasons(&self) -> Vec<Attributed> {
        let (code, message) = match self.number("reason", 3) {
            0 => ("within-limits", "the purchase is within every limit"),
            1 => ("allowed-host", "the host is on the list"),
            _ => ("within-budget", "enough is left of the budget of the day"),
        };
        vec![Attributed {
            policy: self.one("policy", &["spend-caps", "allow-list"]).into(),
            reason: Reason::new(code, message),
        }]
    }

    /// The payment's later life, as it may be.
    fn later(&self) -> Option<Transition> {
        let n = self.0;
        let mut t = match self.number("later", 3) {
            0 => event(n, State::Signed, Event::Receipt, at(2)),
            1 => event(n, State::Signed, Event::Redeemed, at(2)),
            _ => return None,
        };
        if let Some(evidence) = &mut t.evidence {
            evidence.transaction = Some(format!("0x{}", self.hex("transaction")));
            evidence.block_hash = Some(format!("0x{}", self.hex("block")));
            evidence.block = Some(self.number("block", 40_000_000));
        }
        Some(t)
    }
}

fn main() {
    let folder = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    std::fs::create_dir_all(&folder).unwrap();
    let rig = Rig::new();
    let ledger = rig.open();
    for n in 1..=PAYMENTS {
        let dice = Dice(n);
        let mine = dice.word("agent");
        let holds = [
            hold(&format!("agent/{mine}"), Window::Rolling(86_400), 50_000_000, 1 + dice.number("hold", 90_000)),
            hold(&format!("wallet/{mine}"), Window::Day("UTC".into()), 90_000_000, 1 + dice.number("hold", 90_000)),
        ];
        let moment = at(n * 61 + dice.number("moment", 50));
        match n % 10 {
            0 => {
                let Commit { key, facts, decisions, fingerprint, .. } = dice.commit(commit(n, moment, &[]));
                block(ledger.deny(Denial { key, facts, decisions, fingerprint, ..denial(n, moment) })).unwrap();
            }
            1 => drop(block(ledger.commit(dice.commit(in_review(n, moment, &holds)))).unwrap()),
            _ => {
                block(ledger.commit(dice.commit(commit(n, moment, &holds)))).unwrap();
                if let Some(t) = dice.later() {
                    block(ledger.transition(t)).unwrap();
                    block(ledger.answered(payment_id(n), None, true, moment.max(T0))).unwrap();
                }
            }
        }
    }
    drop(ledger);
    let raw = rig.raw();
    for (table, column) in TEXTS.iter().flat_map(|(table, columns)| columns.iter().map(move |column| (table, column))) {
        let sql = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL");
        let mut statement = raw.prepare(&sql).unwrap();
        let stored: Vec<Vec<u8>> = statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
        for (n, stored) in stored.iter().enumerate() {
            std::fs::write(folder.join(format!("{table}-{column}-{n}")), unpack(stored).unwrap()).unwrap();
        }
    }
}
