//! What a life buys, as the ledger wants to be told of it. Nothing here is shared between two lives.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use countersign_core::budget::{HOST, PlacedHold};
use countersign_core::evm::{Address, Signature65, address_of};
use countersign_core::id::{ApprovalId, DecisionId, PaymentId, PurchaseId};
use countersign_core::ledger::{
    Caps, Commit, DecisionRecord, Fingerprint, Grant, NewApproval, PaymentFacts, PurchaseKey, Resume,
};
use countersign_core::money::{Atomic, Micros};
use countersign_core::spend::{Commitment, History, Payment, Principal, Purchase, Seller, SpendRequest};
use countersign_core::terms::ApprovalTerms;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{Hold, Judgement, Unit, Verdict, Window};
use countersign_core::x402::{Asset, Authorization, Eip712, Network, Offer, Protocol, Version};
use k256::ecdsa::SigningKey;

/// What each life's budget allows in all. One atomic unit is one micro.
pub(crate) const LIMIT: u64 = 5_000;
/// The host's own wall: never reached.
const WALL: u64 = 1_000_000_000;
/// Reviews lapse after this long.
const REVIEW_SECONDS: u32 = 20 * 60;

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_slice(&[7; 32]).unwrap());
static PAYER: LazyLock<Address> = LazyLock::new(|| address_of(KEY.verifying_key()));

/// The wallet of every life.
pub(crate) fn payer() -> Address {
    *PAYER
}

/// The wallet's signature.
pub(crate) fn sign(digest: &[u8; 32]) -> Signature65 {
    let (signature, id) = KEY.sign_prehash_recoverable(digest);
    Signature65::from_ecdsa(&signature, id).unwrap()
}

/// The token, on every network.
pub(crate) fn asset() -> Address {
    Address::new([0xaa; 20])
}

/// The network that is one life's own.
pub(crate) fn network(seed: u64) -> Network {
    format!("eip155:{}", 1_000_000 + seed % 1_000_000_000).parse().unwrap()
}

pub(crate) fn workspace(seed: u64) -> String {
    format!("w{seed}")
}

/// Who holds a life's budget.
pub(crate) fn owner(seed: u64) -> String {
    format!("caps-{seed}")
}

/// The host's own budget of a life.
pub(crate) fn wall(seed: u64) -> String {
    format!("wall-{seed}")
}

/// The payee of one payment: no two share one, so every refund has one meaning.
pub(crate) fn payee(seed: u64, n: u64) -> Address {
    address(1, seed, n)
}

/// Somebody who has nothing to do with us.
pub(crate) fn stranger(seed: u64, n: u64) -> Address {
    address(2, seed, n)
}

fn address(kind: u8, seed: u64, n: u64) -> Address {
    let mut bytes = [kind; 20];
    bytes[1..9].copy_from_slice(&seed.to_be_bytes());
    bytes[9..17].copy_from_slice(&n.to_be_bytes());
    Address::new(bytes)
}

fn random(seed: u64, n: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..6].copy_from_slice(&seed.to_be_bytes()[2..]);
    bytes[6..].copy_from_slice(&u32::try_from(n).unwrap().to_be_bytes());
    bytes
}

/// One wish to buy: number `n` of a life.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) seed: u64,
    pub(crate) n: u64,
    pub(crate) purchase: u64,
    pub(crate) amount: u64,
    pub(crate) at: Timestamp,
    pub(crate) valid_seconds: u64,
}

impl Wish {
    pub(crate) fn payment(&self) -> PaymentId {
        PaymentId::new(self.at, random(self.seed, self.n))
    }

    pub(crate) fn approval(&self) -> ApprovalId {
        ApprovalId::new(self.at, random(self.seed, self.n))
    }

    pub(crate) fn key(&self) -> PurchaseKey {
        let purchase = PurchaseId::parse(&format!("p{}-{}", self.seed, self.purchase)).unwrap();
        PurchaseKey { workspace: workspace(self.seed), agent: "scout".into(), purchase }
    }

    fn facts(&self) -> PaymentFacts {
        PaymentFacts {
            principal: Principal {
                agent: "scout".into(),
                workspace: Some(workspace(self.seed)),
                ..Principal::default()
            },
            method: "GET".into(),
            url: format!("https://s{}.example/quote", self.seed),
            host: format!("s{}.example", self.seed),
            path: "/quote".into(),
            pay_to: payee(self.seed, self.n).to_string(),
            rail: "x402".into(),
            scheme: "exact".into(),
            network: network(self.seed).to_string(),
            asset: asset().to_string(),
            asset_symbol: "USDC".into(),
            asset_decimals: 6,
            amount: Atomic::new(self.amount.into()),
            value: Micros::new(self.amount).unwrap(),
            wallet: "research".into(),
            mandate: "research".into(),
            offer_sha256: "00".repeat(32),
            claims: BTreeMap::new(),
            resource_elsewhere: None,
        }
    }

    fn decision(&self, attempt: u64, at: Timestamp) -> DecisionRecord {
        let f = self.facts();
        let id = DecisionId::new(at, random(self.seed, self.n * 8 + attempt));
        DecisionRecord {
            id,
            request: SpendRequest {
                id,
                purchase_id: self.key().purchase,
                at,
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
            verdict: Verdict::Allow,
            reasons: vec![],
            refusal: None,
        }
    }

    /// What would be signed at `at`.
    pub(crate) fn authorization(&self, at: Timestamp) -> Box<Authorization> {
        let f = self.facts();
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&self.seed.to_be_bytes());
        nonce[8..16].copy_from_slice(&self.n.to_be_bytes());
        let network = network(self.seed);
        let offer = Offer {
            protocol: Protocol::X402(Version::V2),
            index: 0,
            scheme: f.scheme,
            network,
            network_name: f.network,
            asset: Asset {
                id: "usdc".into(),
                network,
                address: asset(),
                symbol: "USDC".into(),
                decimals: 6,
                eip712: Eip712 { name: "USDC".into(), version: "2".into() },
                price: Micros::new(1_000_000).unwrap(),
                quote: None,
            },
            amount: f.amount,
            pay_to: payee(self.seed, self.n),
            max_timeout_seconds: u32::try_from(self.valid_seconds).unwrap(),
            raw: "{}".into(),
            resource: None,
            extensions: None,
            needs_identifier: false,
            description: None,
            mime_type: None,
            category: None,
            resource_url: None,
        };
        let valid_before = at.as_secs() + self.valid_seconds;
        Box::new(Authorization { offer, payment: self.payment(), from: payer(), nonce, valid_after: 0, valid_before })
    }

    fn holds(&self, at: Timestamp) -> Vec<PlacedHold> {
        let hold = |name: &str, unit, window, limit, amount| Hold {
            budget: name.into(),
            unit,
            window,
            limit,
            amount,
            alert_at: None,
            review_at: None,
        };
        let own = hold("all", Unit::Micros, Window::Lifetime, LIMIT, self.amount);
        let hour = hold("hour", Unit::Micros, Window::Rolling(3_600), WALL, self.amount);
        let count = hold("count", Unit::Count, Window::Day(String::new()), WALL, 1);
        let host = hold(&wall(self.seed), Unit::Micros, Window::Lifetime, WALL, self.amount);
        let place = |owner: &str, hold: &Hold| PlacedHold::place(owner, hold, at).unwrap();
        let owner = owner(self.seed);
        vec![place(HOST, &host), place(&owner, &own), place(&owner, &hour), place(&owner, &count)]
    }

    fn approval_at(&self, at: Timestamp) -> NewApproval {
        NewApproval {
            id: self.approval(),
            frozen: "ab".repeat(32),
            terms: ApprovalTerms::of(1, REVIEW_SECONDS),
            expires_at: at.plus_millis(u64::from(REVIEW_SECONDS) * 1_000),
        }
    }

    /// The purchase, to be signed for at once.
    pub(crate) fn commit(&self, at: Timestamp) -> Commit {
        Commit {
            payment: self.payment(),
            key: self.key(),
            fingerprint: Fingerprint([1; 32]),
            facts: self.facts(),
            session: None,
            decisions: vec![self.decision(0, at)],
            holds: self.holds(at),
            grant: Grant::Sign(self.authorization(at)),
            review_if_reached: self.approval_at(at),
            resume: None,
            caps: Caps {
                unresolved_per_seller: u32::MAX,
                unresolved_per_payee: u32::MAX,
                unresolved_per_agent: u32::MAX,
                reviews_per_agent: u32::MAX,
                unproven_after: None,
            },
            generation: 1,
            at,
        }
    }

    /// The purchase, for people to judge first.
    pub(crate) fn review(&self, at: Timestamp) -> Commit {
        Commit { grant: Grant::Review(self.approval_at(at)), ..self.commit(at) }
    }

    /// The purchase, after people approved it.
    pub(crate) fn resume(&self, at: Timestamp) -> Commit {
        Commit {
            decisions: vec![self.decision(1, at)],
            resume: Some(Resume { payment: self.payment(), approval: self.approval() }),
            ..self.commit(at)
        }
    }
}
