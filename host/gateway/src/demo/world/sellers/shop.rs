//! A seller at work: what each request gets.

use std::future::pending;
use std::sync::Mutex;

use countersign_core::evm::{Signature65, TransferWithAuthorization, hex32, keccak256};
use http::header::LOCATION;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::super::chain::{Chain, Hash};
use super::super::facilitator::{Facilitator, LostReply, message};
use super::super::server::{Answer, Call, Content, HungUp, Service, decode, json as answer, put, with_content};
use super::catalogue::{Goods, Paid, Plan, Route, Unpaid};
use super::terms::{PAYMENT, PAYMENT_V1, patch};
use super::{Books, Redeemed, Visit};

/// One seller.
pub(super) struct Shop {
    pub(super) plan: &'static Plan,
    /// Without a path.
    pub(super) url: String,
    /// The origin that redirects lead to.
    pub(super) elsewhere: String,
    pub(super) chain: Chain,
    pub(super) facilitator: Facilitator,
    pub(super) books: Mutex<Books>,
}

/// A payment as it was presented, with what it says.
struct Payment {
    json: Value,
    message: TransferWithAuthorization,
}

impl Payment {
    fn key(&self) -> (countersign_core::evm::Address, Hash) {
        (self.message.from, self.message.nonce)
    }

    fn signed(&self) -> Option<(TransferWithAuthorization, Signature65)> {
        let signature = self.payload().get("signature")?.as_str()?.parse().ok()?;
        Some((self.message, signature))
    }

    fn payload(&self) -> &Value {
        self.json.get("payload").unwrap_or(&Value::Null)
    }
}

impl Service for Shop {
    async fn answer(&self, call: Call) -> Answer {
        let header = if self.plan.version == 1 { PAYMENT_V1 } else { PAYMENT };
        let presented = call.headers.contains_key(PAYMENT) || call.headers.contains_key(PAYMENT_V1);
        let payment = call.headers.get(header).and_then(decode);
        let payment = payment.and_then(|json| Some(Payment { message: message(&json)?, json }));
        let number = self.enter(&call, presented, payment.as_ref());
        let answer = self.respond(&call, payment).await;
        if let Ok(response) = &answer {
            self.books().answered(number, response.status().as_u16());
        }
        answer
    }
}

impl Shop {
    fn enter(&self, call: &Call, presented: bool, payment: Option<&Payment>) -> u64 {
        let mut books = self.books();
        books.authorizations.extend(payment.map(Payment::key));
        books.last = payment.and_then(Payment::signed).or(books.last);
        books.enter(Visit {
            at: self.chain.now(),
            method: call.method.to_string(),
            path: call.path.clone(),
            presented,
            nonce: payment.map(|payment| payment.message.nonce),
            valid_before: payment.map(|payment| payment.message.valid_before),
            status: None,
        })
    }

    async fn respond(&self, call: &Call, payment: Option<Payment>) -> Answer {
        let mut routes = self.plan.routes.iter();
        let Some(route) = routes.find(|route| route.method == call.method.as_str() && route.path == call.path) else {
            return Ok(answer(StatusCode::NOT_FOUND, &json!({"error": "not found"})));
        };
        if route.prices.is_empty() {
            return Ok(goods(route, call));
        }
        match (&self.plan.unpaid, payment) {
            (Unpaid::Elsewhere, _) => Ok(redirect(StatusCode::FOUND, &self.there(route))),
            (Unpaid::Redirect(target), _) => Ok(redirect(StatusCode::FOUND, target)),
            (Unpaid::Silence, _) => pending().await,
            (_, Some(payment)) => self.paid(route, call, &payment).await,
            (Unpaid::Terms, None) => Ok(self.unpaid(route)),
            (Unpaid::TwoTerms, None) => {
                let terms = |factor| self.terms(route, &self.offers(route, factor), "Payment required");
                Ok(self.demand_twice(&terms(1), &terms(1_000)))
            }
            (Unpaid::HugeTerms, None) => {
                let mut terms = self.terms(route, &self.offers(route, 1), "Payment required");
                if let Some(description) = terms.pointer_mut("/resource/description") {
                    *description = json!("x".repeat(1 << 17));
                }
                Ok(self.demand(&terms))
            }
            (Unpaid::EndlessTerms, None) => {
                let body = Content::Endless(" ".repeat(1 << 14).into());
                Ok(with_content(StatusCode::PAYMENT_REQUIRED, "application/json", body))
            }
        }
    }

    /// Checks a presented payment as every seller does, then behaves as this one does.
    async fn paid(&self, route: &Route, call: &Call, payment: &Payment) -> Answer {
        let known = self.books().redeemed.get(&payment.key()).cloned();
        if let Some(redeemed) = known.filter(|redeemed| redeemed.payload == *payment.payload()) {
            match self.plan.paid {
                Paid::HangUp | Paid::Silence => {
                    return Ok(self.delivered(goods(route, call), &redeemed.receipt));
                }
                Paid::RaisePrice { .. } => return Ok(self.raised(route)),
                Paid::Fault => return Ok(fault()),
                _ => {} // the chain will say that the nonce is used
            }
        }
        let Some(offer) = self.accepted(route, &payment.json) else {
            let why = if self.plan.version == 1 {
                "Unable to find matching payment requirements"
            } else {
                "No matching payment requirements"
            };
            return Ok(self.refused(route, why));
        };
        if let Err(refusal) = self.facilitator.verify(&payment.json, &offer).outcome {
            return Ok(self.refused(route, &refusal.code));
        }
        self.misbehaved(route, call, payment, &offer).await
    }

    /// What happens after the check.
    async fn misbehaved(&self, route: &Route, call: &Call, payment: &Payment, offer: &Value) -> Answer {
        match self.plan.paid {
            Paid::RaisePrice { settle: false } => return Ok(self.raised(route)),
            Paid::NoReceipt => return Ok(goods(route, call)),
            Paid::KeepAndHangUp => return Err(HungUp),
            Paid::FakeReceipt => {
                let named = self.books().receipt;
                let invented = named.unwrap_or_else(|| {
                    keccak256(&[b"no such transaction".as_slice(), &payment.message.nonce].concat())
                });
                let receipt = json!({
                    "success": true, "transaction": hex32::print(&invented),
                    "network": offer.get("network"), "payer": payment.message.from,
                });
                return Ok(self.delivered(goods(route, call), &receipt));
            }
            Paid::Elsewhere => {
                return Ok(redirect(StatusCode::TEMPORARY_REDIRECT, &self.there(route)));
            }
            _ => {}
        }
        // The rest settle. As the protocol has it, the goods are made first, and a failure there
        // costs the buyer nothing.
        let goods = goods(route, call);
        if goods.status().is_client_error() || goods.status().is_server_error() {
            return Ok(goods);
        }
        let receipt = match self.settle(payment, offer).await {
            Ok(receipt) => receipt,
            Err(receipt) => return Ok(self.unsettled(route, &receipt)),
        };
        match self.plan.paid {
            Paid::HangUp => Err(HungUp),
            Paid::Silence => pending().await,
            Paid::RaisePrice { .. } => Ok(self.raised(route)),
            Paid::Fault => Ok(fault()),
            Paid::AlteredReceipt(alteration) => {
                let mut altered = receipt;
                patch(&mut altered, alteration);
                Ok(self.delivered(goods, &altered))
            }
            Paid::Endless => {
                let body = Content::Endless("and so on ".repeat(1 << 10).into());
                Ok(self.delivered(with_content(StatusCode::OK, "text/plain", body), &receipt))
            }
            Paid::Dripping => {
                let body = Content::dripping("slow and steady ".repeat(16));
                Ok(self.delivered(with_content(StatusCode::OK, "text/plain", body), &receipt))
            }
            Paid::Goods | Paid::NoReceipt | Paid::KeepAndHangUp | Paid::FakeReceipt | Paid::Elsewhere => {
                Ok(self.delivered(goods, &receipt))
            }
        }
    }

    /// The offer that a payment accepts, if it is (still) ours: v2 echoes it whole.
    fn accepted(&self, route: &Route, payment: &Value) -> Option<Value> {
        let chosen = |offer: &Value| {
            if self.plan.version == 1 {
                ["scheme", "network"].iter().all(|key| payment.get(key) == offer.get(key))
            } else {
                payment.get("accepted") == Some(offer)
            }
        };
        let version = payment.get("x402Version").and_then(Value::as_u64);
        let mut offers = self.offers(route, 1).into_iter();
        offers.find(chosen).filter(|_| version == Some(self.plan.version))
    }

    /// Redeems a payment and writes it down; the receipt, good or bad.
    async fn settle(&self, payment: &Payment, offer: &Value) -> Result<Value, Value> {
        let settled = self.facilitator.settle(&payment.json, offer).await;
        let settlement = settled.map_err(|LostReply| {
            json!({
                "success": false, "errorReason": "fetch failed", "transaction": "",
                "network": offer.get("network"), "payer": payment.message.from,
            })
        })?;
        let receipt = settlement.to_json();
        if settlement.outcome.is_err() {
            return Err(receipt);
        }
        let redeemed = Redeemed { payload: payment.payload().clone(), receipt: receipt.clone() };
        self.books().redeemed.insert(payment.key(), redeemed);
        Ok(receipt)
    }

    fn delivered(&self, mut goods: Response<Content>, receipt: &Value) -> Response<Content> {
        self.attach(&mut goods, receipt);
        goods
    }

    fn raised(&self, route: &Route) -> Response<Content> {
        self.demand(&self.terms(route, &self.offers(route, 10), "The price has changed"))
    }

    fn there(&self, route: &Route) -> String {
        format!("{}{}", self.elsewhere, route.path)
    }
}

fn goods(route: &Route, call: &Call) -> Response<Content> {
    match route.goods {
        Goods::Json(text) => with_content(StatusCode::OK, "application/json", Content::whole(text)),
        Goods::Echo => with_content(StatusCode::OK, "application/octet-stream", Content::whole(call.body.clone())),
        Goods::Fault => fault(),
    }
}

fn fault() -> Response<Content> {
    answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": "something broke"}))
}

fn redirect(status: StatusCode, target: &str) -> Response<Content> {
    let mut response = answer(status, &json!({}));
    put(&mut response, LOCATION, target);
    response
}
