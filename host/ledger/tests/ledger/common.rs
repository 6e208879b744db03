//! What every test needs: a store in a folder of its own, and purchases to put into it.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use countersign_audit::note::{Checkpoint, SigningKey};
use countersign_audit::tlog::{Frontier, leaf_hash};
use countersign_audit::verify::{Verifier, checkpoint_line};
use countersign_core::budget::{HOST, PlacedHold};
use countersign_core::evm::{Address, Signature65};
use countersign_core::id::{ApprovalId, DecisionId, PaymentId, PurchaseId, SessionId};
use countersign_core::ledger::{
    Approval, Caps, Cast, Channel, Commit, Committed, DecisionRecord, Denial, Evidence, FactsQuery, Fingerprint, Grant,
    Ledger, LedgerError, NewApproval, PaymentFacts, PurchaseKey, Refund, RefundSource, Refusal, Resume, Session,
    Transition,
};
use countersign_core::money::{Atomic, Micros};
use countersign_core::payment::{Event, State};
use countersign_core::spend::{Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest};
use countersign_core::terms::ApprovalTerms;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Attributed, Hold, Judgement, Reason, Unit, Verdict, Window};
use countersign_core::x402::{Asset, Authorization, Eip712, Offer, Protocol, Version};
use countersign_ledger::text::{pack, unpack};
use countersign_ledger::{Options, SqliteLedger};
use rusqlite::functions::{Context as Call, FunctionFlags};

use crate::backend;

/// Where every test's time starts.
pub(crate) const T0: Timestamp = Timestamp::from_secs(1_800_000_000);

pub(crate) fn at(seconds: u64) -> Timestamp {
    T0.plus_millis(seconds * 1_000)
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

pub(crate) struct Rig {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(backend::FILE);
        Self { _folder: folder, path }
    }

    pub(crate) fn options() -> Options {
        Options::new([7; 32], [9; 16])
    }

    pub(crate) fn open(&self) -> SqliteLedger {
        self.open_at(T0)
    }

    pub(crate) fn open_at(&self, now: Timestamp) -> SqliteLedger {
        backend::open(&self.path, Self::options(), now).unwrap()
    }

    /// Changes the file behind the ledger's back. In SQL, `text(stored)` is a stored text, and `stored(text)` stores it.
    pub(crate) fn raw(&self) -> rusqlite::Connection {
        let conn = rusqlite::Connection::open(&self.path).unwrap();
        let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
        let read = |c: &Call<'_>| Ok(unpack(&c.get::<Vec<u8>>(0)?).unwrap());
        conn.create_scalar_function("text", 1, flags, read).unwrap();
        conn.create_scalar_function("stored", 1, flags, |c| Ok(pack(&c.get::<String>(0)?))).unwrap();
        conn
    }

    /// The store must be sound, whatever the test did.
    pub(crate) fn check(&self) {
        let found = countersign_ledger::check_integrity(&self.path).unwrap();
        assert!(found.is_sound(), "{found:#?}");
        backend::check(&self.path);
        let raw = self.raw();
        let mut statement = raw.prepare("SELECT lower(hex(budget)),win,held,spent FROM budget_window").unwrap();
        let rows = statement.query_map([], |r| Ok(((r.get(0)?, r.get(1)?), (r.get(2)?, r.get(3)?))));
        let rows: Told = rows.unwrap().map(Result::unwrap).collect();
        assert_eq!(rows, replayed(&raw), "the records and the counters differ");
        exported(&raw);
    }
}

/// An outsider finds nothing wrong with the log, whatever the test did.
fn exported(raw: &rusqlite::Connection) {
    let mut statement = raw.prepare("SELECT text(body) FROM audit ORDER BY seq").unwrap();
    let mut lines: Vec<String> = statement.query_map([], |r| r.get(0)).unwrap().map(Result::unwrap).collect();
    let mut tree = Frontier::default();
    lines.iter().for_each(|line| tree.push(leaf_hash(line.as_bytes())));
    let key = SigningKey::from_seed("ledger.example", &[1; 32]).unwrap();
    lines.push(checkpoint_line(&Checkpoint::sign(&key, tree.size(), &tree.root()).unwrap()));
    let verified = Verifier::new(key.public().clone()).read((lines.join("\n") + "\n").as_bytes());
    assert!(verified.is_ok(), "{verified:?}");
}

fn random(n: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub(crate) fn payment_id(n: u64) -> PaymentId {
    PaymentId::new(T0.plus_millis(n), random(n))
}

pub(crate) fn approval_id(n: u64) -> ApprovalId {
    ApprovalId::new(T0.plus_millis(n), random(n))
}

pub(crate) fn session_id(n: u64) -> SessionId {
    SessionId::new(T0.plus_millis(n), random(n))
}

pub(crate) fn key(n: u64) -> PurchaseKey {
    PurchaseKey {
        workspace: "lab".into(),
        agent: "scout".into(),
        purchase: PurchaseId::parse(&format!("purchase-{n}")).unwrap(),
    }
}

pub(crate) fn fingerprint(n: u64) -> Fingerprint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Fingerprint(bytes)
}

pub(crate) fn micros(n: u64) -> Micros {
    Micros::new(n).unwrap()
}

pub(crate) fn facts() -> PaymentFacts {
    PaymentFacts {
        principal: Principal { agent: "scout".into(), workspace: Some("lab".into()), ..Principal::default() },
        method: "GET".into(),
        url: "https://api.example.com/quote".into(),
        host: "api.example.com".into(),
        path: "/quote".into(),
        pay_to: "0x90F79bf6EB2c4f870365E785982E1f101E93b906".into(),
        rail: "x402".into(),
        scheme: "exact".into(),
        network: "eip155:84532".into(),
        asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
        asset_symbol: "USDC".into(),
        asset_decimals: 6,
        amount: Atomic::new(1_000),
        value: micros(1_000),
        wallet: "research".into(),
        mandate: "research".into(),
        offer_sha256: "00".repeat(32),
        claims: BTreeMap::new(),
        resource_elsewhere: None,
    }
}

/// What is asked before purchase `n`, made in no session.
pub(crate) fn facts_query(n: u64) -> FactsQuery {
    let f = facts();
    FactsQuery {
        key: key(n),
        session: None,
        host: f.host,
        pay_to: f.pay_to,
        method: f.method,
        path: f.path,
        fingerprint: fingerprint(n),
        amount: f.amount,
        at: T0,
    }
}

pub(crate) fn decision(n: u64, moment: Timestamp, verdict: Verdict) -> DecisionRecord {
    let f = facts();
    DecisionRecord {
        id: DecisionId::new(T0, random(n)),
        request: SpendRequest {
            id: DecisionId::new(T0, random(n)),
            purchase_id: key(n).purchase,
            at: moment,
            principal: f.principal,
            purchase: Purchase {
                method: f.method,
                url: f.url,
                host: f.host.clone(),
                path: f.path,
                query_digest: None,
                body_digest: None,
                observed: true,
                description: None,
                media_type: None,
                category: None,
            },
            seller: Seller { host: f.host, pay_to: f.pay_to, ..Seller::default() },
            payment: Payment {
                rail: f.rail,
                scheme: f.scheme,
                commitment: Commitment::Fixed,
                network: f.network,
                asset: f.asset,
                asset_symbol: f.asset_symbol,
                asset_decimals: 6,
                amount: f.amount,
                value: f.value,
                valid_for_seconds: 60,
                wallet: f.wallet,
            },
            history: History::default(),
            claims: vec![],
            facts: vec![],
        },
        judgement: Judgement { generation: 1, opinions: vec![] },
        verdict,
        reasons: vec![Attributed { policy: "caps".into(), reason: Reason::new("said-so", "because") }],
        refusal: (verdict == Verdict::Deny).then(|| "policy-denied".to_owned()),
    }
}

pub(crate) fn authorization(n: u64, valid_before: Timestamp) -> Box<Authorization> {
    let network = "eip155:84532".parse().unwrap();
    let f = facts();
    let mut nonce = [0; 32];
    nonce[..8].copy_from_slice(&n.to_be_bytes());
    let offer = Offer {
        protocol: Protocol::X402(Version::V2),
        index: 0,
        scheme: f.scheme,
        network,
        network_name: f.network,
        asset: Asset {
            id: "usdc-base-sepolia".into(),
            network,
            address: f.asset.parse().unwrap(),
            symbol: "USDC".into(),
            decimals: 6,
            eip712: Eip712 { name: "USDC".into(), version: "2".into() },
            price: micros(1_000_000),
            quote: None,
        },
        amount: f.amount,
        pay_to: f.pay_to.parse().unwrap(),
        max_timeout_seconds: 60,
        raw: "{}".into(),
        resource: None,
        extensions: None,
        needs_identifier: false,
        description: None,
        mime_type: None,
        category: None,
        resource_url: None,
    };
    let from = Address::new([0x11; 20]);
    let valid_before = valid_before.as_secs();
    Box::new(Authorization { offer, payment: payment_id(n), from, nonce, valid_after: 0, valid_before })
}

pub(crate) fn signature(n: u8) -> Signature65 {
    let mut bytes = [1; 65];
    bytes[0] = n;
    bytes[64] = 27;
    Signature65::new(bytes).unwrap()
}

pub(crate) fn hold(name: &str, window: Window, limit: u64, amount: u64) -> Hold {
    Hold { budget: name.into(), unit: Unit::Micros, window, limit, amount, alert_at: None, review_at: None }
}

pub(crate) fn placed(hold: &Hold, moment: Timestamp) -> PlacedHold {
    PlacedHold::place(HOST, hold, moment).unwrap()
}

pub(crate) const NO_CAPS: Caps = Caps {
    unresolved_per_seller: u32::MAX,
    unresolved_per_payee: u32::MAX,
    unresolved_per_agent: u32::MAX,
    reviews_per_agent: u32::MAX,
    unproven_after: None,
};

pub(crate) fn new_approval(n: u64, moment: Timestamp) -> NewApproval {
    NewApproval {
        id: approval_id(n),
        frozen: "ab".repeat(32),
        terms: ApprovalTerms::of(1, 3_600),
        expires_at: moment.plus_millis(3_600_000),
    }
}

/// A purchase that is granted: number `n`, at this moment, with these holds.
pub(crate) fn commit(n: u64, moment: Timestamp, holds: &[Hold]) -> Commit {
    Commit {
        payment: payment_id(n),
        key: key(n),
        fingerprint: fingerprint(n),
        facts: facts(),
        session: None,
        decisions: vec![decision(n, moment, Verdict::Allow)],
        holds: holds.iter().map(|h| placed(h, moment)).collect(),
        grant: Grant::Sign(authorization(n, moment.plus_millis(60_000))),
        review_if_reached: new_approval(n, moment),
        resume: None,
        caps: NO_CAPS,
        generation: 1,
        at: moment,
    }
}

pub(crate) fn in_review(n: u64, moment: Timestamp, holds: &[Hold]) -> Commit {
    Commit { grant: Grant::Review(new_approval(n, moment)), ..commit(n, moment, holds) }
}

/// Purchase `n` again, carried on after approval.
pub(crate) fn resumed(n: u64, moment: Timestamp, holds: &[Hold]) -> Commit {
    Commit {
        decisions: vec![decision(n + 1_000_000, moment, Verdict::Allow)],
        resume: Some(Resume { payment: payment_id(n), approval: approval_id(n) }),
        ..commit(n, moment, holds)
    }
}

pub(crate) fn denial(n: u64, moment: Timestamp) -> Denial {
    Denial {
        payment: payment_id(n),
        key: key(n),
        fingerprint: fingerprint(0),
        facts: facts(),
        decisions: vec![decision(n, moment, Verdict::Deny)],
        code: "policy-denied".into(),
        at: moment,
    }
}

pub(crate) fn cast(n: u64, operator: &str, approve: bool, moment: Timestamp) -> Cast {
    Cast {
        approval: approval_id(n),
        operator: operator.into(),
        selves: vec![],
        users: vec![],
        groups: vec![],
        approve,
        note: String::new(),
        channel: Channel::Api,
        quoted: None,
        at: moment,
    }
}

pub(crate) fn session(n: u64) -> Session {
    Session {
        id: session_id(n),
        token_sha256: format!("token-{n}"),
        agent: "scout".into(),
        user: None,
        client: None,
        project: None,
        task: None,
        intercept: vec![],
        limit: micros(5_000_000),
        max_payments: 5,
        created_at: T0,
        expires_at: at(3_600),
        closed_at: None,
        opened_by: "alice".into(),
    }
}

/// A hash as a chain spells it.
pub(crate) fn hash(n: u64) -> String {
    format!("0x{n:064x}")
}

/// What proves a redemption, of less than was signed for if told.
pub(crate) fn redemption(redeemed: Option<u128>) -> Box<Evidence> {
    let redeemed = redeemed.map(Atomic::new);
    Box::new(Evidence { transaction: Some(hash(0xaa)), redeemed, ..*non_use(at(1_000_000)) })
}

/// What proves that an authorization was not used, by a block of this moment.
pub(crate) fn non_use(moment: Timestamp) -> Box<Evidence> {
    let block_time = Some(moment.as_secs());
    Box::new(Evidence { block: Some(7), block_hash: Some(hash(7)), block_time, nodes: Some(2), ..Evidence::default() })
}

/// Something happens, with the proof it needs.
pub(crate) fn event(n: u64, from: State, event: Event, moment: Timestamp) -> Transition {
    let evidence = match event {
        Event::Redeemed => Some(redemption(None)),
        Event::Unused => Some(non_use(at(1_000_000))),
        _ => None,
    };
    Transition { payment: payment_id(n), from, event, why: format!("{event:?}"), evidence, at: moment }
}

/// A finalized transfer of this much back to the payer of payment `n`.
pub(crate) fn came_back(n: u64, amount: u128, log: u64) -> Refund {
    let source = RefundSource::Chain { transaction: hash(0xbb), log, block: 8 };
    Refund { payment: payment_id(n), amount: Atomic::new(amount), source, at: T0 }
}

/// An operator's word that this much of payment `n` came back.
pub(crate) fn said_back(n: u64, amount: u128, reference: &str) -> Refund {
    let source = RefundSource::Person { by: "alice".into(), reference: reference.into() };
    Refund { payment: payment_id(n), amount: Atomic::new(amount), source, at: T0 }
}

/// A hold of a policy's, not of the host's own.
pub(crate) fn of_policy(hold: &Hold, moment: Timestamp) -> PlacedHold {
    PlacedHold::place("caps", hold, moment).unwrap()
}

/// What records say of windows: (held, spent) by budget and window.
pub(crate) type Told = BTreeMap<(String, u64), (u64, u64)>;

/// Follows a record's `budgets`: they must lead from what the records before it left to what it says.
pub(crate) fn follow(told: &mut Told, budgets: &serde_json::Value) {
    for entry in budgets.as_array().unwrap() {
        let get = |name: &str| entry.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
        let text = |name: &str| entry.get(name).and_then(serde_json::Value::as_str).unwrap().to_owned();
        assert!(!text("label").is_empty(), "{entry}");
        let (held, spent) = told.entry((text("budget"), get("win"))).or_default();
        *held = *held + get("hold") - get("release") - get("aged");
        *spent = *spent + get("spend") + get("aged-spent") + get("seeded") - get("left") - get("refund");
        assert_eq!((*held, *spent), (get("held"), get("spent")), "{entry}");
        assert!(get("hold") == 0 || *held + *spent <= get("limit"), "{entry}");
        assert!(get("release") == 0 || get("amount") > 0, "{entry}");
    }
}

/// What the records alone say of every window.
pub(crate) fn replayed(conn: &rusqlite::Connection) -> Told {
    let mut statement = conn.prepare("SELECT kind,text(body) FROM audit ORDER BY seq").unwrap();
    let mut told = Told::new();
    let records = statement.query_map([], |r| Ok((r.get::<_, String>(0)?, r.get::<_, String>(1)?))).unwrap();
    for (kind, body) in records.map(Result::unwrap) {
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        if ["payment-signed", "payment-review", "payment-changed"].contains(&kind.as_str()) {
            follow(&mut told, body.get("budgets").unwrap());
        }
    }
    told
}

pub(crate) fn put(ledger: &SqliteLedger, commit: Commit) -> Committed {
    block(ledger.commit(commit)).unwrap()
}

pub(crate) fn granted(ledger: &SqliteLedger, commit: Commit) {
    let done = put(ledger, commit);
    assert!(matches!(done, Committed::Granted { .. }), "{done:?}");
}

pub(crate) fn refused(ledger: &SqliteLedger, commit: Commit) -> Refusal {
    match put(ledger, commit) {
        Committed::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn reviewed(ledger: &SqliteLedger, commit: Commit) -> Approval {
    match put(ledger, commit) {
        Committed::Review(approval) => approval,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn step(ledger: &SqliteLedger, t: Transition) -> Result<State, LedgerError> {
    block(ledger.transition(t))
}

pub(crate) fn state(ledger: &SqliteLedger, n: u64) -> State {
    block(ledger.payment(payment_id(n))).unwrap().unwrap().state
}

/// (held, spent) of the only budget of this name, as it stands at `moment`.
pub(crate) fn used(ledger: &SqliteLedger, name: &str, moment: Timestamp) -> (u64, u64) {
    let all = block(ledger.budgets(moment)).unwrap();
    all.iter().find(|b| b.name == name).map_or((0, 0), |b| (b.held, b.spent))
}
