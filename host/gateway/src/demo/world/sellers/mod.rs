//! Sellers: a handle on each for whoever runs the world, and what it remembers.

mod catalogue;
mod shop;
mod terms;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::evm::{Address, Signature65, TransferWithAuthorization, keccak256};
use countersign_core::time::Timestamp;
use serde_json::Value;

use self::catalogue::{ELSEWHERE, SELLERS};
use self::shop::Shop;
use super::chain::{Chain, Hash, Revert};
use super::facilitator::Facilitator;
use super::server;

/// Visits a seller remembers; older ones are forgotten.
const VISITS: usize = 10_000;

/// One request a seller received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    /// When it came.
    pub at: Timestamp,
    /// Its method.
    pub method: String,
    /// Its path, without the query.
    pub path: String,
    /// Whether it carried a payment header of either version.
    pub presented: bool,
    /// The nonce of its authorization, if that could be read.
    pub nonce: Option<Hash>,
    /// Until when its authorization may be redeemed, in seconds since the epoch.
    pub valid_before: Option<u64>,
    /// What it was answered; none if it was not (yet).
    pub status: Option<u16>,
}

/// Counts over a seller's whole life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests of any kind.
    pub requests: u64,
    /// Requests that carried a payment.
    pub presented: u64,
    /// Different authorizations among them: more than one for one purchase is paying twice.
    pub authorizations: u64,
    /// Authorizations this seller redeemed.
    pub redeemed: u64,
}

/// A handle on a seller; clones are the same seller.
#[derive(Clone)]
pub struct Seller {
    shop: Arc<Shop>,
}

impl Seller {
    /// Its name in the catalogue.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.shop.plan.name
    }

    /// What it does, in one sentence for people.
    #[must_use]
    pub fn about(&self) -> &'static str {
        self.shop.plan.about
    }

    /// Its base URL, without a path: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.shop.url
    }

    /// The URL of a path that begins with a slash.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.shop.url)
    }

    /// Host and port, as allow-lists have them.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.shop.url.strip_prefix("http://").unwrap_or(&self.shop.url)
    }

    /// Where its offers want the money.
    #[must_use]
    pub fn pay_to(&self) -> Address {
        self.shop.books().pay_to
    }

    /// Wants the money elsewhere from now on.
    pub fn set_pay_to(&self, payee: Address) {
        self.shop.books().pay_to = payee;
    }

    /// Asks another price on a path from now on, in atomic units; earlier offers lapse.
    pub fn set_price(&self, path: &str, price: u128) {
        self.shop.books().prices.insert(path.to_owned(), vec![price]);
    }

    /// Where its receipts are its own invention: names this transaction in them from now on.
    pub fn set_receipt(&self, transaction: Hash) {
        self.shop.books().receipt = Some(transaction);
    }

    /// Redeems the payment that was presented to it last, whatever it answered then; the transaction's hash.
    /// None if nobody presented any.
    ///
    /// # Errors
    /// What the token refuses.
    pub fn redeem(&self) -> Result<Option<Hash>, Revert> {
        let Some((message, signature)) = self.shop.books().last else { return Ok(None) };
        self.shop.chain.transfer_with_authorization(&message, &signature).map(Some)
    }

    /// What it counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let books = self.shop.books();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Stats {
            requests: books.requests,
            presented: books.presented,
            authorizations: count(books.authorizations.len()),
            redeemed: count(books.redeemed.len()),
        }
    }

    /// Its last visits (up to ten thousand), oldest first.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        self.shop.books().visits.iter().cloned().collect()
    }
}

/// What a seller writes down.
struct Books {
    pay_to: Address,
    /// Prices that were changed, by path.
    prices: BTreeMap<String, Vec<u128>>,
    requests: u64,
    presented: u64,
    visits: VecDeque<Visit>,
    authorizations: BTreeSet<(Address, Hash)>,
    redeemed: BTreeMap<(Address, Hash), Redeemed>,
    /// The payment that was presented last.
    last: Option<(TransferWithAuthorization, Signature65)>,
    /// The transaction that an invented receipt names.
    receipt: Option<Hash>,
}

/// A payment that was taken.
#[derive(Clone)]
struct Redeemed {
    /// The `payload` that was presented, to know it again.
    payload: Value,
    receipt: Value,
}

impl Books {
    /// Every seller has an account of its own, which depends on its name only.
    fn new(name: &str) -> Self {
        let hash = keccak256(format!("a seller of the Countersign demo: {name}").as_bytes());
        let mut account = [0; 20];
        account.copy_from_slice(hash.split_at(12).1);
        Self {
            pay_to: Address::new(account),
            prices: BTreeMap::new(),
            requests: 0,
            presented: 0,
            visits: VecDeque::new(),
            authorizations: BTreeSet::new(),
            redeemed: BTreeMap::new(),
            last: None,
            receipt: None,
        }
    }

    /// Writes down a visit and returns its number.
    fn enter(&mut self, visit: Visit) -> u64 {
        let number = self.requests;
        self.requests = number.saturating_add(1);
        self.presented = self.presented.saturating_add(u64::from(visit.presented));
        self.visits.push_back(visit);
        if self.visits.len() > VISITS {
            self.visits.pop_front();
        }
        number
    }

    /// Adds to a visit what it was answered.
    fn answered(&mut self, number: u64, status: u16) {
        let from_the_end = self.requests.saturating_sub(number);
        let index = usize::try_from(from_the_end).ok().and_then(|back| self.visits.len().checked_sub(back));
        if let Some(visit) = index.and_then(|index| self.visits.get_mut(index)) {
            visit.status = Some(status);
        }
    }
}

/// Opens every shop of the catalogue.
pub(super) async fn open(chain: &Chain, facilitator: &Facilitator) -> io::Result<(Vec<Seller>, Vec<server::Server>)> {
    let mut ports = Vec::new();
    let mut elsewhere = String::new();
    for plan in SELLERS {
        let (listener, url) = server::bind()?;
        if plan.name == ELSEWHERE {
            elsewhere.clone_from(&url);
        }
        ports.push((plan, listener, url));
    }
    let opened = ports.into_iter().map(|(plan, listener, url)| {
        let shop = Arc::new(Shop {
            plan,
            url,
            elsewhere: elsewhere.clone(),
            chain: chain.clone(),
            facilitator: facilitator.clone(),
            books: Mutex::new(Books::new(plan.name)),
        });
        let server = server::serve(listener, shop.clone());
        (Seller { shop }, server)
    });
    Ok(opened.unzip())
}

impl Shop {
    /// Every change is a single statement, so a poisoned lock is fine.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
