//! A buyer made by hand, to try the world with.

mod chain;
mod facilitator;
mod rpc;
mod sellers;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use countersign_core::evm::{Address, CancelAuthorization, Signature65, TransferWithAuthorization, address_of};
use countersign_core::evm::{Eip712Domain, hex32};
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use k256::ecdsa::SigningKey;
use serde_json::{Value, json};

use super::chain::Chain;
use super::server::{decode, encode};
use super::{CHAIN_ID, USDC, World};

const START: u64 = 1_795_000_000;

/// A clock that stands still until it is moved.
#[derive(Clone)]
struct Watch(Arc<AtomicU64>);

impl Watch {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(START)))
    }

    fn advance(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn reader(&self) -> impl Fn() -> Timestamp + Send + Sync + 'static {
        let seconds = self.0.clone();
        move || Timestamp::from_secs(seconds.load(Ordering::Relaxed))
    }
}

fn token() -> Eip712Domain {
    Eip712Domain { name: "USDC".to_owned(), version: "2".to_owned(), chain_id: CHAIN_ID, verifying_contract: USDC }
}

struct Buyer(SigningKey);

impl Buyer {
    fn new(seed: u8) -> Self {
        Self(SigningKey::from_slice(&[seed; 32]).unwrap())
    }

    fn address(&self) -> Address {
        address_of(self.0.verifying_key())
    }

    fn sign(&self, digest: &[u8; 32]) -> Signature65 {
        let (signature, id) = self.0.sign_prehash_recoverable(digest);
        Signature65::from_ecdsa(&signature, id).unwrap()
    }

    fn message(&self, to: Address, value: u128, nonce: u8) -> TransferWithAuthorization {
        TransferWithAuthorization {
            from: self.address(),
            to,
            value: Atomic::new(value),
            valid_after: 0,
            valid_before: START + 300,
            nonce: [nonce; 32],
        }
    }

    /// The payment for an offer of either version.
    fn pay(&self, version: u64, offer: &Value, nonce: u8) -> Value {
        let price = offer.get("amount").or_else(|| offer.get("maxAmountRequired")).unwrap();
        let payee = offer["payTo"].as_str().unwrap().parse().unwrap();
        let message = self.message(payee, price.as_str().unwrap().parse().unwrap(), nonce);
        let mut payment = json!({
            "x402Version": version,
            "payload": {
                "signature": self.sign(&message.digest(&token())),
                "authorization": {
                    "from": message.from, "to": message.to, "value": message.value,
                    "validAfter": "0", "validBefore": message.valid_before.to_string(),
                    "nonce": hex32::print(&message.nonce),
                },
            },
        });
        if version == 1 {
            payment["scheme"] = offer["scheme"].clone();
            payment["network"] = offer["network"].clone();
        } else {
            payment["accepted"] = offer.clone();
        }
        payment
    }
}

/// An answer, read completely.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn decoded(&self, header: &str) -> Value {
        decode(self.headers.get(header).unwrap()).unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The first offer of a 402.
    fn offer(&self) -> Value {
        assert_eq!(self.status, 402);
        match self.headers.get("payment-required") {
            Some(terms) => decode(terms).unwrap()["accepts"][0].clone(),
            None => self.json()["accepts"][0].clone(),
        }
    }
}

/// Sends a request on a connection of its own; the answer's head, its body still to come.
async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, String)],
    body: String,
) -> hyper::Result<http::Response<Incoming>> {
    let (authority, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let stream = tokio::net::TcpStream::connect(authority).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(format!("/{path}")).header("host", authority);
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    sender.send_request(request.body(Full::<Bytes>::from(body)).unwrap()).await
}

async fn fetch(method: &str, url: &str, headers: &[(&str, String)], body: String) -> hyper::Result<Answer> {
    let (head, body) = send(method, url, headers, body).await?.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

async fn get(url: &str) -> Answer {
    fetch("GET", url, &[], String::new()).await.unwrap()
}

async fn post(url: &str, body: &Value) -> Answer {
    fetch("POST", url, &[], body.to_string()).await.unwrap()
}

/// Presents a payment of either version to a `GET` route.
async fn present(url: &str, payment: &Value) -> hyper::Result<Answer> {
    let header = if payment["x402Version"] == 1 { "x-payment" } else { "payment-signature" };
    fetch("GET", url, &[(header, encode(payment))], String::new()).await
}

/// A world at [`START`], its watch, and a buyer with 10 USDC.
async fn world() -> (World, Watch, Buyer) {
    let (watch, buyer) = (Watch::new(), Buyer::new(1));
    let world = World::start(watch.reader()).await.unwrap();
    world.chain().mint(buyer.address(), 10_000_000);
    (world, watch, buyer)
}

/// Only the chain.
fn chain() -> (Chain, Watch, Buyer) {
    let (watch, buyer) = (Watch::new(), Buyer::new(1));
    let chain = Chain::new(token(), Arc::new(watch.reader()));
    chain.mint(buyer.address(), 10_000_000);
    (chain, watch, buyer)
}
