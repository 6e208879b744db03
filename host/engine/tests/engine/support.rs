//! Guests as text: a core module in WAT with the canonical ABI's export names, encoded to a component
//! of `wit/v0.1` when the test runs. No toolchain for any guest language is needed.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use countersign_core::id::{DecisionId, PurchaseId};
use countersign_core::money::{Atomic, Micros};
use countersign_core::seams::Judge;
use countersign_core::spend::{
    Attribute, Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest, Tally,
};
use countersign_core::time::Timestamp;
use countersign_core::verdict::{
    Decision, FailureKind, Hold, Obligation, Opinion, Reason, ReviewTerms, Unit, Verdict, Window,
};
use countersign_engine::{Engine, EngineConfig, PolicySet, PolicySpec};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, SizeAlign, Type, TypeDefKind, TypeId};

const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/v0.1");
const BASE: usize = 1024;

/// One engine for a whole test binary: it is what a process has.
pub(crate) fn engine() -> &'static Arc<Engine> {
    static ENGINE: LazyLock<Arc<Engine>> = LazyLock::new(|| Engine::new(EngineConfig::default()).unwrap());
    &ENGINE
}

/// A guest under construction. Bodies are WAT instructions.
pub(crate) struct Guest {
    pub(crate) data: Data,
    /// Imports, globals and helper functions, in that order in the text.
    pub(crate) imports: String,
    pub(crate) globals: String,
    pub(crate) functions: String,
    pub(crate) describe: String,
    /// With `$ptr` and `$len` of the settings.
    pub(crate) configure: String,
    /// With `$req`, a pointer to the lowered request.
    pub(crate) evaluate: String,
    /// Imports of the world besides `log`, and the packages they come from.
    pub(crate) world: String,
    pub(crate) packages: String,
    pub(crate) pages: usize,
    /// A whole world in place of ours.
    pub(crate) replace: Option<(&'static str, &'static str)>,
}

impl Guest {
    /// Describes itself, accepts any settings, and traps when asked.
    pub(crate) fn new() -> Self {
        let mut data = Data(Vec::new());
        let mut record = Vec::new();
        for text in ["test", "1.2.3", "a test guest", "{\"type\":\"object\"}"] {
            record.extend(data.string(text));
        }
        let describe = format!("(i32.const {})", data.put(&record, 4));
        let configure = format!("(i32.const {})", data.put(&[0; 12], 4));
        Self {
            data,
            imports: String::new(),
            globals: String::new(),
            functions: String::new(),
            describe,
            configure,
            evaluate: "(unreachable)".into(),
            world: String::new(),
            packages: String::new(),
            pages: 17,
            replace: None,
        }
    }

    /// Answers with `decision`.
    pub(crate) fn answering(decision: &Decision) -> Self {
        let mut guest = Self::new();
        let at = guest.data.answer(decision);
        guest.evaluate = format!("(i32.const {at})");
        guest
    }

    pub(crate) fn allowing() -> Self {
        Self::answering(&says(Verdict::Allow))
    }

    /// Runs `evaluate` instead of answering; what it returns is the answer's address.
    pub(crate) fn evaluating(body: &str) -> Self {
        let mut guest = Self::new();
        guest.evaluate = body.into();
        guest
    }

    /// Describes itself with this schema.
    pub(crate) fn with_schema(mut self, schema: &str) -> Self {
        let mut record = Vec::new();
        for text in ["test", "1.2.3", "a test guest", schema] {
            record.extend(self.data.string(text));
        }
        self.describe = format!("(i32.const {})", self.data.put(&record, 4));
        self
    }

    /// The address of a `result<_, list<problem>>` with these problems.
    pub(crate) fn problems(&mut self, problems: &[(&str, &str)]) -> usize {
        let mut list = Vec::new();
        for (path, message) in problems {
            list.extend(self.data.string(path));
            list.extend(self.data.string(message));
        }
        let list = self.data.put(&list, 4);
        let mut result = vec![1, 0, 0, 0];
        result.extend(pair(list, problems.len()));
        self.data.put(&result, 4)
    }

    /// The address of an answer that is the error `text`.
    pub(crate) fn error(&mut self, text: &str) -> usize {
        let mut result = vec![1, 0, 0, 0];
        result.extend(self.data.string(text));
        self.data.put(&result, 8)
    }

    /// Imports a function of an interface.
    pub(crate) fn import(mut self, module: &str, name: &str, signature: &str) -> Self {
        writeln!(self.imports, "(import \"{module}\" \"{name}\" (func {signature}))").unwrap();
        self
    }

    pub(crate) fn logging(self) -> Self {
        self.import("countersign:policy/log@0.1.0", "log", "$log (param i32 i32 i32)")
    }

    /// Declares an interface of another package and imports it into the world.
    pub(crate) fn package(mut self, import: &str, text: &str) -> Self {
        writeln!(self.world, "import {import};").unwrap();
        if !self.packages.contains(text) {
            writeln!(self.packages, "{text}").unwrap();
        }
        self
    }

    pub(crate) fn wat(&self) -> String {
        let name = self.replace.map_or("countersign:policy/policy@0.1.0", |(export, _)| export);
        let heap = (BASE + self.data.0.len()).next_multiple_of(65_536);
        format!(
            r#"(module
{imports}
(memory (export "memory") {pages})
(global $heap (mut i32) (i32.const {heap}))
{globals}
(data (i32.const {BASE}) "{data}")
(func $realloc (export "cabi_realloc") (param $old i32) (param $olds i32) (param $align i32) (param $size i32) (result i32)
  (local $at i32)
  (local.set $at (i32.and
    (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
    (i32.sub (i32.const 0) (local.get $align))))
  (global.set $heap (i32.add (local.get $at) (local.get $size)))
  (local.get $at))
{functions}
(func (export "{name}#describe") (result i32) {describe})
(func (export "{name}#configure") (param $ptr i32) (param $len i32) (result i32) {configure})
(func (export "{name}#evaluate") (param $req i32) (result i32) {evaluate})
)"#,
            imports = self.imports,
            globals = self.globals,
            functions = self.functions,
            pages = self.pages,
            data = self.data.0.iter().map(|b| format!("\\{b:02x}")).collect::<String>(),
            describe = self.describe,
            configure = self.configure,
            evaluate = self.evaluate,
        )
    }

    /// The component.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let source = match self.replace {
            Some((_, packages)) => packages.to_owned(),
            None => {
                resolve.push_dir(WIT).unwrap();
                format!(
                    "package test:guest;\nworld guest {{ include countersign:policy/spend-policy@0.1.0;\n{} }}\n{}",
                    self.world, self.packages
                )
            }
        };
        let package = resolve.push_source("guest.wit", &source).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        let mut module = wat::parse_str(self.wat()).unwrap();
        wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
    }

    pub(crate) fn spec(&self, name: &str) -> PolicySpec {
        PolicySpec::new(name, self.build())
    }
}

/// Static data, placed from [`BASE`] on.
pub(crate) struct Data(pub(crate) Vec<u8>);

impl Data {
    pub(crate) fn put(&mut self, bytes: &[u8], align: usize) -> usize {
        let padded = self.0.len().next_multiple_of(align);
        self.0.resize(padded, 0);
        self.0.extend(bytes);
        BASE + padded
    }

    /// Places a text; gives pointer and length as they are stored.
    pub(crate) fn string(&mut self, text: &str) -> [u8; 8] {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn bytes(&mut self, text: &[u8]) -> [u8; 8] {
        let at = self.put(text, 1);
        pair(at, text.len())
    }

    fn list(&mut self, items: Vec<Vec<u8>>, align: usize) -> [u8; 8] {
        let (n, flat) = (items.len(), items.concat());
        let at = self.put(&flat, align);
        pair(at, n)
    }

    fn attributes(&mut self, from: &[Attribute]) -> [u8; 8] {
        let items = from.iter().map(|a| [self.string(&a.name), self.string(&a.value)].concat()).collect();
        self.list(items, 4)
    }

    /// Places `result<decision, string>` as the canonical ABI lays it out.
    pub(crate) fn answer(&mut self, d: &Decision) -> usize {
        let mut out = vec![0; 4];
        let verdict = [Verdict::Deny, Verdict::Review, Verdict::Allow, Verdict::Abstain]
            .iter()
            .position(|v| *v == d.verdict)
            .unwrap();
        out.extend([verdict as u8, 0, 0, 0]);
        let reasons = d.reasons.iter().map(|r| [self.string(&r.code), self.string(&r.message)].concat()).collect();
        out.extend(self.list(reasons, 4));
        let holds = d.holds.iter().map(|h| self.hold(h)).collect();
        out.extend(self.list(holds, 8));
        match &d.review {
            None => out.extend([0; 24]),
            Some(r) => {
                out.extend([1, 0, 0, 0]);
                match &r.group {
                    None => out.extend([0; 12]),
                    Some(g) => {
                        out.extend([1, 0, 0, 0]);
                        out.extend(self.string(g));
                    }
                }
                out.extend([r.quorum, 0, 0, 0]);
                out.extend(r.expires_in_seconds.to_le_bytes());
            }
        }
        let obligations =
            d.obligations.iter().map(|o| [self.string(&o.kind), self.attributes(&o.params)].concat()).collect();
        out.extend(self.list(obligations, 4));
        out.extend(self.attributes(&d.notes));
        assert_eq!(out.len(), 64);
        self.put(&out, 8)
    }

    fn hold(&mut self, h: &Hold) -> Vec<u8> {
        let mut out = self.string(&h.budget).to_vec();
        out.extend([u8::from(h.unit == Unit::Count), 0, 0, 0]);
        let (case, payload) = match &h.window {
            Window::Rolling(s) => (0, pair(*s as usize, 0)),
            Window::Day(zone) => (1, self.string(zone)),
            Window::Month(zone) => (2, self.string(zone)),
            Window::Lifetime => (3, [0; 8]),
        };
        out.extend([case, 0, 0, 0]);
        out.extend(payload);
        out.extend(h.limit.to_le_bytes());
        out.extend(h.amount.to_le_bytes());
        for at in [h.alert_at, h.review_at] {
            out.extend(u64::from(at.is_some()).to_le_bytes());
            out.extend(at.unwrap_or(0).to_le_bytes());
        }
        assert_eq!(out.len(), 72);
        out
    }
}

/// A guest that reports numbers, each in the limit of a hold. They are masked to what limits allow.
pub(crate) struct Reporter {
    pub(crate) guest: Guest,
    answer: usize,
}

pub(crate) fn reporter(guest: Guest, numbers: usize) -> Reporter {
    let mut guest = guest;
    let hold = |i: usize| Hold { budget: format!("n{i}"), ..full_decision().holds[0].clone() };
    let decision = Decision { holds: (0..numbers).map(hold).collect(), ..says(Verdict::Allow) };
    let answer = guest.data.answer(&decision);
    guest.evaluate = format!("(i32.const {answer})");
    Reporter { guest, answer }
}

impl Reporter {
    /// Instructions that report `number` as the `i`th.
    pub(crate) fn report(&self, i: usize, number: &str) -> String {
        let to = format!("(i32.add (i32.load (i32.const {})) (i32.const {}))", self.answer + 16, i * 72 + 24);
        format!("(i64.store {to} (i64.and {number} (i64.const 0x1fffffffffffffff)))\n")
    }
}

/// What a [`Reporter`] reported.
pub(crate) fn numbers(set: &PolicySet, name: &str, request: &SpendRequest) -> Vec<u64> {
    let decision = judge_one(set, name, request).outcome.unwrap();
    decision.holds.iter().map(|h| h.limit).collect()
}

fn pair(a: usize, b: usize) -> [u8; 8] {
    let word = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    [word(a), word(b)].concat().try_into().unwrap()
}

/// Where fields of the lowered request are.
pub(crate) struct Layout {
    resolve: Resolve,
    sizes: SizeAlign,
    request: TypeId,
}

impl Layout {
    pub(crate) fn new() -> Self {
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_dir(WIT).unwrap();
        let mut sizes = SizeAlign::default();
        sizes.fill(&resolve);
        let types = resolve.packages[package].interfaces["types"];
        let request = resolve.interfaces[types].types["spend-request"];
        Self { resolve, sizes, request }
    }

    /// The offset of a field such as `principal.agent`; of an option's payload, with `?` behind it.
    pub(crate) fn at(&self, path: &str) -> usize {
        let (mut ty, mut offset) = (Type::Id(self.request), 0);
        for step in path.split('.') {
            let (name, payload) = match step.strip_suffix('?') {
                Some(name) => (name, true),
                None => (step, false),
            };
            let TypeDefKind::Record(record) = self.kind(ty) else { panic!("{path}: {step}") };
            let offsets = self.sizes.field_offsets(record.fields.iter().map(|f| &f.ty));
            let i = record.fields.iter().position(|f| f.name == name).unwrap();
            offset += offsets[i].0.size_wasm32();
            ty = record.fields[i].ty;
            if payload {
                let TypeDefKind::Option(inner) = self.kind(ty) else { panic!("{path}: {step}") };
                let tag = wit_parser::Int::U8;
                offset += self.sizes.payload_offset(tag, [None, Some(inner)]).size_wasm32();
                ty = *inner;
            }
        }
        offset
    }

    fn kind(&self, mut ty: Type) -> &TypeDefKind {
        loop {
            let Type::Id(id) = ty else { panic!("not a compound type") };
            match &self.resolve.types[id].kind {
                TypeDefKind::Type(alias) => ty = *alias,
                kind => return kind,
            }
        }
    }
}

pub(crate) fn says(verdict: Verdict) -> Decision {
    Decision {
        verdict,
        reasons: vec![Reason::new("because", "it is a test")],
        holds: vec![],
        review: None,
        obligations: vec![],
        notes: vec![],
    }
}

/// Everything a decision can carry.
pub(crate) fn full_decision() -> Decision {
    let hold = |budget: &str, unit, window, amount| Hold {
        budget: budget.into(),
        unit,
        window,
        limit: 4_000_000_000_000_000_000,
        amount,
        alert_at: Some(7),
        review_at: None,
    };
    let note = |name: &str, value: &str| Attribute { name: name.into(), value: value.into() };
    Decision {
        verdict: Verdict::Review,
        reasons: vec![Reason::new("above-threshold", "über 5 €"), Reason::new("new-vendor", "")],
        holds: vec![
            hold("client/acme", Unit::Micros, Window::Month("Europe/Berlin".into()), 1),
            hold("client/acme", Unit::Count, Window::Rolling(3_600), 1_000_000_000_000_000),
            hold("a", Unit::Micros, Window::Day(String::new()), 2),
            Hold { alert_at: None, review_at: Some(9), limit: 0, ..hold("b", Unit::Count, Window::Lifetime, 3) },
        ],
        review: Some(ReviewTerms { group: Some("finance".into()), quorum: 2, expires_in_seconds: 600 }),
        obligations: vec![Obligation { kind: "redact".into(), params: vec![note("field", "body")] }],
        notes: vec![note("seen", "yes"), note("", "")],
    }
}

pub(crate) fn request() -> SpendRequest {
    let some = |text: &str| Some(text.to_owned());
    let micros = |n| Micros::new(n).unwrap();
    let tally = |n: u32| Tally { count: n, value: micros(u64::from(n) * 1_000) };
    let attribute = |name: &str, value: &str| Attribute { name: name.into(), value: value.into() };
    SpendRequest {
        id: decision_id(1),
        purchase_id: PurchaseId::parse("T-42").unwrap(),
        at: Timestamp::from_millis(1_795_346_471_005),
        principal: Principal {
            agent: "scout".into(),
            user: some("kim"),
            workspace: some("research"),
            roles: vec!["analyst".into(), "buyer".into()],
            session: some("ses_1"),
            client: some("acme"),
            project: some("atlas"),
            task: some("brief-42"),
        },
        purchase: Purchase {
            method: "GET".into(),
            url: "https://api.example.com/quote".into(),
            host: "api.example.com".into(),
            path: "/quote".into(),
            query_digest: some("qd"),
            body_digest: some("bd"),
            observed: true,
            description: some("a quote"),
            media_type: some("application/json"),
            category: some("data"),
        },
        seller: Seller {
            host: "api.example.com".into(),
            pay_to: "0xPayee".into(),
            host_first_paid: Some(Timestamp::from_millis(11)),
            pay_to_first_paid: Some(Timestamp::from_millis(12)),
            pay_to_changed: true,
            last_price: Some(micros(13)),
            judged: 14,
            useful: 15,
        },
        payment: Payment {
            rail: "x402".into(),
            scheme: "exact".into(),
            commitment: Commitment::Deposit,
            network: "eip155:8453".into(),
            asset: "0xAsset".into(),
            asset_symbol: "USDC".into(),
            asset_decimals: 6,
            amount: Atomic::new(123_456),
            value: micros(123_457),
            valid_for_seconds: 300,
            wallet: "main".into(),
        },
        history: History {
            agent_hour: tally(21),
            agent_day: tally(22),
            session: tally(23),
            seller_day: tally(24),
            seller_lifetime: tally(25),
            repeats: 26,
        },
        claims: vec![attribute("purpose", "price check")],
        facts: vec![attribute("data-class", "public"), attribute("region", "eu")],
    }
}

pub(crate) fn decision_id(n: u8) -> DecisionId {
    DecisionId::new(Timestamp::from_secs(u64::from(n)), [n; 10])
}

pub(crate) fn judge_one(set: &PolicySet, name: &str, request: &SpendRequest) -> Opinion {
    let mut judgement = set.judge(&[name.to_owned()], request);
    assert_eq!(judgement.opinions.len(), 1);
    judgement.opinions.remove(0)
}

/// The failure kind and message of an opinion that must be one.
pub(crate) fn failed(opinion: &Opinion) -> (FailureKind, String) {
    match &opinion.outcome {
        Err(f) => (f.kind, f.message.clone()),
        Ok(d) => panic!("expected a failure, got {d:?}"),
    }
}
