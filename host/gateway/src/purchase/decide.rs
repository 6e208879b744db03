//! Offers to a decision, and the decision to a durable hold.

use countersign_core::budget::{self, HOST, PlacedHold};
use countersign_core::evm::Address;
use countersign_core::id::{ApprovalId, DecisionId, PaymentId};
use countersign_core::ledger::{
    Approval, BudgetRefusal, Caps, Commit, DecisionRecord, Denial, Facts, FactsQuery, Grant, NewApproval, PaymentFacts,
    Refusal, Resume,
};
use countersign_core::permit::{self, Granted, Permit};
use countersign_core::seams::Judge;
use countersign_core::spend::{Attribute, Payment, SpendRequest};
use countersign_core::terms::ApprovalTerms;
use countersign_core::time::Timestamp;
use countersign_core::verdict::{
    Attributed, Combined, Hold, Judgement, NO_POLICY_ALLOWED, Reason, ReviewTerms, Unit, Verdict, Window, combine,
    combine_approved,
};
use countersign_core::web::Target;
use countersign_core::whatif::Outcome;
use countersign_core::x402::{Authorization, Offer, Priced, RailError, candidates, text};
use tokio::sync::SemaphorePermit;
use tracing::{Instrument, info_span};

use super::Purchase;
use super::fetch::Visit;
use crate::chain::Cover;
use crate::clock::random;
use crate::config::{Approvals, MandateConfig, VendorConfig};
use crate::flights::Flight;
use crate::problem::{Code, Problem};
use crate::telemetry::{Step, attributes};
use crate::views;

/// Most offers of one 402 that are judged.
pub(super) const MAX_CANDIDATES: usize = 4;

/// A receipt that a readable chain does not bear out for this long is as good as none.
const UNPROVEN_MS: u64 = 10_000;

/// An approved purchase to carry on with.
pub(super) struct Resumption {
    /// The approval, in state approved.
    pub(super) approval: Approval,
}

/// What deciding came to.
pub(super) enum Decided {
    /// The holds and the payload are durable.
    Pay(Box<Ready>),
    /// People are asked.
    Wait(Approval),
}

/// A payment that may be signed for.
pub(super) struct Ready {
    /// The right to sign.
    pub(super) permit: Permit,
    /// What is paid for.
    pub(super) facts: PaymentFacts,
    /// In the air since before its commit, so that nobody takes it for one whose call has ended.
    pub(super) flight: Flight,
}

/// How long a purchase waits for its turn to be judged.
const TURN_MS: u64 = 1_000;

/// One candidate, priced and described.
pub(super) struct Candidate {
    pub(super) priced: Priced,
    pub(super) facts: PaymentFacts,
    pub(super) request: SpendRequest,
}

/// Why one candidate was not granted.
pub(super) struct Refused {
    pub(super) problem: Problem,
    record: DecisionRecord,
    facts: PaymentFacts,
}

impl Purchase {
    /// Judges the offers, cheapest first, and commits the first that is not refused.
    pub(super) async fn decide(
        &mut self,
        mandate: &MandateConfig,
        visit: &Visit,
        payer: Address,
        resumption: Option<Resumption>,
    ) -> Result<Decided, Problem> {
        visit.route.carries_payments()?;
        let now = self.gateway.clock.now()?;
        let mut step = self.trace.step(Step::Offers);
        let offers = info_span!("offers").in_scope(|| self.payable(mandate, visit, now));
        let offers = offers.inspect_err(|problem| step.failed(problem.code.code()))?;
        drop(step);
        let resumption = self.still_approved(mandate, &offers, resumption).await?;
        if !self.gateway.rate.admit(
            &self.principal().agent,
            self.snapshot.config.limits.purchases_per_agent_per_minute,
            now,
        ) {
            return Err(Problem::new(Code::RateLimited, "this agent caused too many decisions in the last minute"));
        }
        let mut refused: Vec<Refused> = Vec::new();
        for priced in offers.into_iter().take(MAX_CANDIDATES) {
            if let Some(r) = &resumption
                && self.call.frozen(&self.gateway.key, mandate, &priced.offer) != r.approval.frozen
            {
                continue;
            }
            let earlier: Vec<DecisionRecord> = refused.iter().map(|r| r.record.clone()).collect();
            match self.candidate(mandate, payer, priced, resumption.as_ref(), earlier).await? {
                Ok(decided) => return Ok(decided),
                Err(refusal) => refused.push(refusal),
            }
        }
        Err(self.refuse(refused, resumption).await?)
    }

    /// The offers this mandate's wallet could pay, cheapest first.
    pub(super) fn payable(
        &self,
        mandate: &MandateConfig,
        visit: &Visit,
        now: Timestamp,
    ) -> Result<Vec<Priced>, Problem> {
        let wallet = self.snapshot.config.wallets.get(&mandate.wallet);
        let networks = wallet.map(|w| &w.networks);
        let mut skipped: Vec<String> =
            visit.offers.skipped.iter().map(|s| format!("{}: {}", s.place(), s.message)).collect();
        let mut payable = Vec::new();
        // Before the cheapest few are chosen: what cannot be paid takes nobody's place.
        for offer in &visit.offers.offers {
            if !networks.is_some_and(|n| n.contains(&offer.network)) {
                skipped.push(format!(
                    "{}: wallet `{}` does not sign for {}",
                    offer.place(),
                    mandate.wallet,
                    offer.network
                ));
            } else if let Some(quote) = offer.asset.quote.filter(|quote| quote.is_stale(now)) {
                skipped.push(format!(
                    "{}: the price of asset `{}` is of {} and believed for {} s only; the operator must renew it",
                    offer.place(),
                    offer.asset.id,
                    quote.as_of,
                    quote.max_age
                ));
            } else if !mandate.commitments.contains(&offer.commitment()) {
                skipped.push(format!(
                    "{}: mandate `{}` does not allow this kind of commitment",
                    offer.place(),
                    mandate.name
                ));
            } else if let Err(unfit) = offer.valid_for_seconds(mandate.max_validity_seconds, now) {
                skipped.push(format!("{}: {unfit}", offer.place()));
            } else if let Some(why) = self.call.cannot_carry(offer) {
                skipped.push(format!("{}: {why}", offer.place()));
            } else {
                payable.push(offer.clone());
            }
        }
        let payable = candidates(payable);
        if payable.is_empty() {
            let detail = format!("none of the seller's offers can be paid: {}", skipped.join("; "));
            return Err(Problem::new(Code::UnpayableOffer, detail));
        }
        Ok(payable)
    }

    /// An approval covers exactly what was frozen; anything else is let go and asked again.
    async fn still_approved(
        &self,
        mandate: &MandateConfig,
        offers: &[Priced],
        resumption: Option<Resumption>,
    ) -> Result<Option<Resumption>, Problem> {
        let Some(resumption) = resumption else { return Ok(None) };
        let frozen = &resumption.approval.frozen;
        let same = |p: &Priced| self.call.frozen(&self.gateway.key, mandate, &p.offer) == *frozen;
        if offers.iter().take(MAX_CANDIDATES).any(same) {
            return Ok(Some(resumption));
        }
        self.withdraw(&resumption.approval, "what the seller offers, or what is sent, is no longer what was approved")
            .await?;
        Ok(None)
    }

    async fn candidate(
        &self,
        mandate: &MandateConfig,
        payer: Address,
        priced: Priced,
        resumption: Option<&Resumption>,
        earlier: Vec<DecisionRecord>,
    ) -> Result<Result<Decided, Refused>, Problem> {
        let candidate = self.describe(mandate, priced).await?;
        self.trace.offered(&candidate.facts);
        if candidate.facts.resource_elsewhere.is_some() {
            let host = candidate.facts.host.as_str();
            tracing::warn!(host, "the offer says that it is for another host than was called; nothing relies on that");
        }
        if let Some(refused) = self.too_dear(&candidate) {
            return Ok(Err(refused));
        }
        let turn = self.turn().await?;
        let mut step = self.trace.step(Step::Decide);
        let judgement = info_span!("decide", decision = %candidate.request.id).in_scope(|| {
            let (judge, policies, request): (&dyn Judge, _, _) =
                (&*self.snapshot, &mandate.policies, &candidate.request);
            tokio::task::block_in_place(|| judge.judge(policies, request))
        });
        drop(turn);
        step.judged(&judgement);
        step.say(&attributes::DECISION, candidate.request.id.to_string());
        drop(step);
        let seen = self.gateway.shadows.look(&candidate.request, &judgement, resumption.map(|r| &r.approval.shown));
        let decided = self.decided(mandate, payer, candidate, judgement, resumption, earlier).await?;
        if let Some(seen) = seen {
            self.gateway.shadows.saw(seen, outcome(&decided));
        }
        Ok(decided)
    }

    /// What a judgement leads to.
    async fn decided(
        &self,
        mandate: &MandateConfig,
        payer: Address,
        candidate: Candidate,
        judgement: Judgement,
        resumption: Option<&Resumption>,
        earlier: Vec<DecisionRecord>,
    ) -> Result<Result<Decided, Refused>, Problem> {
        let combined = match resumption {
            Some(r) => combine_approved(&judgement, &r.approval.shown),
            None => combine(&judgement),
        };
        self.trace.judged(&combined);
        if combined.verdict == Verdict::Deny {
            return Ok(Err(self.policy_refused(candidate, judgement, combined)));
        }
        let resumption = match resumption {
            Some(r) if combined.verdict == Verdict::Review => {
                self.withdraw(&r.approval, "the policies ask about more than was approved").await?;
                None
            }
            same => same,
        };
        let payment = resumption.map_or_else(|| self.fresh_payment(), |r| Ok(r.approval.payment))?;
        self.trace.pays(payment);
        if let Some(refused) = self.not_covered(mandate, payer, &candidate, &judgement).await {
            return Ok(Err(refused));
        }
        let span = info_span!("hold", payment = %payment);
        let held = self.hold(mandate, payer, payment, candidate, judgement, combined, resumption, earlier);
        let held = self.trace.during(Step::Hold, held.instrument(span));
        Box::pin(held).await
    }

    /// Waits for its turn to be judged, and not for long: beyond what the engine can do, agents are told so.
    pub(super) async fn turn(&self) -> Result<SemaphorePermit<'_>, Problem> {
        let overloaded = || Problem::new(Code::Overloaded, "too many purchases are being judged; nothing was signed");
        tokio::select! {
            turn = self.gateway.judging.acquire() => turn.map_err(|_| overloaded()),
            () = self.gateway.clock.sleep(TURN_MS) => Err(overloaded()),
        }
    }

    /// Freezes one offer into the question that policies are asked.
    pub(super) async fn describe(&self, mandate: &MandateConfig, priced: Priced) -> Result<Candidate, Problem> {
        let (gateway, call, key) = (&self.gateway, &self.call, &self.gateway.key);
        let at = gateway.clock.now()?;
        let offer = &priced.offer;
        let valid_for = offer.valid_for_seconds(mandate.max_validity_seconds, at);
        let valid_for_seconds = valid_for.map_err(|e| Problem::new(Code::UnpayableOffer, e.to_string()))?;
        let query = FactsQuery {
            key: self.key.clone(),
            session: self.caller.session,
            host: call.target.host(),
            pay_to: offer.pay_to.to_string(),
            method: call.method.to_string(),
            path: call.recorded_path(),
            fingerprint: self.fingerprint,
            amount: offer.amount,
            at,
        };
        let mut known = gateway.ledger.facts(query).await?;
        known.seller.host = call.target.host();
        known.seller.pay_to = offer.pay_to.to_string();
        let stated = self.stated(mandate, &known);
        let facts = PaymentFacts {
            principal: self.principal().clone(),
            method: call.method.to_string(),
            url: call.recorded_url(),
            host: call.target.host(),
            path: call.recorded_path(),
            pay_to: offer.pay_to.to_string(),
            rail: offer.rail().to_owned(),
            scheme: offer.scheme.clone(),
            network: offer.network.to_string(),
            asset: offer.asset.address.to_string(),
            asset_symbol: offer.asset.symbol.clone(),
            asset_decimals: offer.asset.decimals,
            amount: offer.amount,
            value: priced.value,
            wallet: mandate.wallet.clone(),
            mandate: mandate.name.clone(),
            offer_sha256: hex::encode(offer.digest()),
            claims: call.claims.iter().map(|a| (a.name.clone(), a.value.clone())).collect(),
            resource_elsewhere: resource_elsewhere(offer, &call.target),
        };
        let purchase = countersign_core::spend::Purchase {
            method: facts.method.clone(),
            url: call.target.url_without_query(),
            host: facts.host.clone(),
            path: call.target.path().to_owned(),
            query_digest: call.query_digest(key),
            body_digest: call.body_digest(key),
            observed: call.observed(mandate),
            description: offer.description.clone(),
            media_type: offer.mime_type.clone(),
            category: offer.category.clone(),
        };
        let payment = Payment {
            rail: facts.rail.clone(),
            scheme: facts.scheme.clone(),
            commitment: offer.commitment(),
            network: facts.network.clone(),
            asset: facts.asset.clone(),
            asset_symbol: facts.asset_symbol.clone(),
            asset_decimals: facts.asset_decimals,
            amount: facts.amount,
            value: facts.value,
            valid_for_seconds,
            wallet: facts.wallet.clone(),
        };
        let request = SpendRequest {
            id: DecisionId::new(at, random(&*gateway.clock)?),
            purchase_id: self.key.purchase.clone(),
            at,
            principal: self.principal().clone(),
            purchase,
            seller: known.seller,
            payment,
            history: known.history,
            claims: call.claims.clone(),
            facts: stated,
        };
        Ok(Candidate { priced, facts, request })
    }

    /// What policies may trust beside what is bought: the host's own facts, then the operator's about
    /// this seller. What a seller says about itself is not among them.
    fn stated(&self, mandate: &MandateConfig, known: &Facts) -> Vec<Attribute> {
        let fact = |name: &str, value: String| Attribute { name: name.to_owned(), value };
        let mut facts = vec![fact("door", self.door.as_str().to_owned()), fact("mandate", mandate.name.clone())];
        if let Some(tool) = &self.call.tool {
            facts.push(fact("mcp-server", tool.server.clone()));
            facts.push(fact("mcp-tool", tool.name.clone()));
        }
        if let Some(approved) = &known.approved {
            facts.push(fact("approved-pay-to", approved.pay_to.clone()));
            facts.push(fact("approved-value", approved.value.get().to_string()));
        }
        if known.agent_judged > 0 {
            facts.push(fact("agent-judged", known.agent_judged.to_string()));
            facts.push(fact("agent-useful", known.agent_useful.to_string()));
        }
        let target = &self.call.target;
        let meant = |v: &&VendorConfig| v.matches(target.scheme(), target.hostname(), target.port());
        let vendor = self.snapshot.config.vendors.iter().find(meant);
        facts.extend(vendor.into_iter().flat_map(|v| v.facts.iter().cloned()));
        facts
    }

    /// Above the call's own ceiling: refused before anybody is asked.
    pub(super) fn too_dear(&self, candidate: &Candidate) -> Option<Refused> {
        let value = candidate.priced.value;
        let max = self.call.max_price.filter(|max| value > *max)?;
        let currency = &self.snapshot.config.gateway.currency;
        let detail = format!("the price is {value} {currency}, the call's max_price {max} {currency}");
        let judgement = Judgement { generation: self.snapshot.generation, opinions: Vec::new() };
        Some(host_refused(candidate, judgement, Problem::new(Code::PriceAboveMax, detail)))
    }

    /// A wallet that cannot pay is not asked to sign: nothing would move, and budget would be held.
    pub(super) async fn not_covered(
        &self,
        mandate: &MandateConfig,
        payer: Address,
        candidate: &Candidate,
        judgement: &Judgement,
    ) -> Option<Refused> {
        let offer = &candidate.priced.offer;
        let cover = self.gateway.chains.can_cover(offer.network, offer.asset.address, payer, offer.amount).await;
        let short = || {
            let detail = format!(
                "wallet `{}` ({payer}) holds less than {} {} on {}; fund it",
                mandate.wallet,
                offer.amount.display(offer.asset.decimals),
                offer.asset.symbol,
                offer.network
            );
            Problem::new(Code::InsufficientFunds, detail)
        };
        let problem = match cover {
            Cover::Enough => return None,
            Cover::Short => short(),
            Cover::NoToken => {
                let (asset, network) = (offer.asset.address, offer.network);
                let detail = format!("there is no code at the token's address {asset} on {network}; correct the asset");
                Problem::new(Code::UnpayableOffer, detail).with("retry", false)
            }
        };
        Some(host_refused(candidate, judgement.clone(), problem))
    }

    fn policy_refused(&self, candidate: Candidate, judgement: Judgement, combined: Combined) -> Refused {
        let nobody = combined.reasons.first().is_some_and(|r| r.reason.code == NO_POLICY_ALLOWED);
        let code = if nobody { Code::NoPolicyAllowed } else { Code::PolicyDenied };
        let told = self.tell(&combined.reasons);
        let first = combined.reasons.first();
        let detail = first.map_or_else(String::new, |r| format!("`{}` refused: {}", r.policy, r.reason.code));
        let problem = Problem::new(code, detail)
            .with("policy", first.map_or("", |r| r.policy.as_str()))
            .with("reasons", told)
            .with("decision", candidate.request.id.to_string())
            .with("retry", false);
        let facts = candidate.facts.clone();
        Refused {
            record: record(&candidate, judgement, Verdict::Deny, combined.reasons, Some(code.code())),
            facts,
            problem,
        }
    }

    /// Reasons as an agent may read them: codes always, a policy's own words only if configured.
    pub(super) fn tell(&self, reasons: &[Attributed]) -> Vec<serde_json::Value> {
        let policies = &self.snapshot.config.policies;
        let told = reasons.iter().map(|r| {
            let own = policies.get(&r.policy).is_some_and(|p| p.tell_agent) || r.policy == HOST;
            let message = if own {
                r.reason.message.clone()
            } else {
                format!("policy `{}` answered `{}`", r.policy, r.reason.code)
            };
            serde_json::json!({"code": r.reason.code, "message": message, "policy": r.policy})
        });
        told.collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the step where everything decided so far meets the ledger")]
    async fn hold(
        &self,
        mandate: &MandateConfig,
        payer: Address,
        payment: PaymentId,
        candidate: Candidate,
        judgement: Judgement,
        combined: Combined,
        resumption: Option<&Resumption>,
        earlier: Vec<DecisionRecord>,
    ) -> Result<Result<Decided, Refused>, Problem> {
        let at = candidate.request.at;
        let holds = match self.place(&candidate, &combined, at) {
            Ok(holds) => holds,
            Err((policy, why)) => {
                let reason = Attributed { policy, reason: Reason::new("policy-error", why) };
                let combined = Combined { verdict: Verdict::Deny, reasons: vec![reason], holds: vec![], review: None };
                return Ok(Err(self.policy_refused(candidate, judgement, combined)));
            }
        };
        let authorization = match self.authorize(mandate, payer, payment, &candidate)? {
            Ok(authorization) => authorization,
            // Refused like any other candidate: another may be payable, and what was denied before it is recorded.
            Err(unfit) => {
                let problem = Problem::new(Code::UnpayableOffer, unfit.to_string());
                return Ok(Err(host_refused(&candidate, judgement, problem)));
            }
        };
        let review = self.review(mandate, &candidate, combined.review.as_deref().unwrap_or_default(), at)?;
        let grant = if combined.verdict == Verdict::Review {
            Grant::Review(review.clone())
        } else {
            Grant::Sign(authorization)
        };
        let decided = record(&candidate, judgement.clone(), combined.verdict, combined.reasons.clone(), None);
        let commit = Commit {
            payment,
            key: self.key.clone(),
            fingerprint: self.fingerprint,
            facts: candidate.facts.clone(),
            session: self.caller.session,
            decisions: earlier.into_iter().chain([decided]).collect(),
            holds,
            grant,
            review_if_reached: review,
            resume: resumption.map(|r| Resume { payment, approval: r.approval.id }),
            caps: Caps {
                unproven_after: self.gateway.chains.reads(candidate.priced.offer.network).then_some(UNPROVEN_MS),
                ..self.snapshot.config.limits.caps()
            },
            generation: self.snapshot.generation,
            at,
        };
        let flight = self.gateway.flights.begin(payment);
        match permit::commit(&*self.gateway.ledger, commit).await? {
            Granted::Permit { permit, alerts } => {
                if !alerts.is_empty() {
                    self.gateway.alerted.notify_one();
                }
                for alert in alerts {
                    tracing::warn!(
                        budget = alert.budget,
                        at = alert.at,
                        used = alert.used,
                        "a budget reached its alert threshold"
                    );
                }
                Ok(Ok(Decided::Pay(Box::new(Ready { permit, facts: candidate.facts, flight }))))
            }
            Granted::Review(approval) => {
                self.gateway.asked.notify_one();
                Ok(Ok(Decided::Wait(approval)))
            }
            Granted::Refused(refusal) => Ok(Err(self.ledger_refused(candidate, judgement, &combined, refusal)?)),
        }
    }

    /// The host's own holds first, then what policies ask for.
    pub(super) fn place(
        &self,
        candidate: &Candidate,
        combined: &Combined,
        at: Timestamp,
    ) -> Result<Vec<PlacedHold>, (String, String)> {
        let mut holds = Vec::new();
        for hold in self.host_holds(candidate) {
            let placed = PlacedHold::place(HOST, &hold, at);
            holds.push(placed.map_err(|e| (HOST.to_owned(), format!("budget `{}`: {e}", hold.budget)))?);
        }
        for wanted in &combined.holds {
            let placed = PlacedHold::place(&wanted.policy, &wanted.hold, at);
            holds.push(placed.map_err(|e| (wanted.policy.clone(), e.to_string()))?);
        }
        budget::check_set(&holds).map_err(|e| (HOST.to_owned(), e.to_string()))?;
        Ok(holds)
    }

    /// The full value against the wallet's daily limit, the session's limit and count, and the
    /// declared budgets: whatever policies hold or forget to hold changes nothing here.
    fn host_holds(&self, candidate: &Candidate) -> Vec<Hold> {
        let config = &self.snapshot.config;
        let amount = candidate.priced.value.get();
        let plain = |budget: String, unit, window, limit, amount| Hold {
            budget,
            unit,
            window,
            limit,
            amount,
            alert_at: None,
            review_at: None,
        };
        let wallet = &candidate.facts.wallet;
        let daily = config.wallets.get(wallet).map_or(0, |w| w.daily_limit.get());
        let mut holds =
            vec![plain(format!("wallet/{wallet}"), Unit::Micros, Window::Day(String::new()), daily, amount)];
        if let Some(bounds) = &self.caller.bounds {
            let name = format!("session/{}", bounds.session);
            holds.push(plain(name.clone(), Unit::Micros, Window::Lifetime, bounds.limit.get(), amount));
            holds.push(plain(name, Unit::Count, Window::Lifetime, u64::from(bounds.max_payments), 1));
        }
        let declared = config.budgets.iter().filter(|b| b.when.matches(self.principal()));
        holds.extend(declared.map(|b| Hold {
            alert_at: b.alert.map(|m| m.get()),
            review_at: b.review.map(|m| m.get()),
            ..plain(b.name.clone(), Unit::Micros, b.window.clone(), b.limit.get(), amount)
        }));
        holds
    }

    fn authorize(
        &self,
        mandate: &MandateConfig,
        payer: Address,
        payment: PaymentId,
        candidate: &Candidate,
    ) -> Result<Result<Box<Authorization>, RailError>, Problem> {
        let nonce = random(&*self.gateway.clock)?;
        let (offer, at) = (&candidate.priced.offer, candidate.request.at);
        let built = self.snapshot.rail.authorize(offer, payer, payment, nonce, at, mandate.max_validity_seconds);
        Ok(built.map(Box::new))
    }

    fn review(
        &self,
        mandate: &MandateConfig,
        candidate: &Candidate,
        asked: &[ReviewTerms],
        at: Timestamp,
    ) -> Result<NewApproval, Problem> {
        let defaults = &self.snapshot.config.approvals;
        let configured = ApprovalTerms::of(defaults.quorum, defaults.expires_in_seconds);
        let mut terms = ApprovalTerms::strictest(asked, &configured);
        // The host's maximum: a reservation is not a way to keep a budget from others.
        terms.expires_in_seconds = terms.expires_in_seconds.min(Approvals::MAX_SECONDS);
        let expires_at = at.plus_millis(u64::from(terms.expires_in_seconds).saturating_mul(1_000));
        let frozen = self.call.frozen(&self.gateway.key, mandate, &candidate.priced.offer);
        Ok(NewApproval { id: ApprovalId::new(at, random(&*self.gateway.clock)?), frozen, terms, expires_at })
    }

    fn ledger_refused(
        &self,
        candidate: Candidate,
        judgement: Judgement,
        combined: &Combined,
        refusal: Refusal,
    ) -> Result<Refused, Problem> {
        // The budget's owner, so that the record says whose limit it was.
        let mut owner = HOST.to_owned();
        let problem = match refusal {
            Refusal::Budget(budget) => {
                owner.clone_from(&budget.owner);
                self.budget_exceeded(&budget)
            }
            Refusal::Unresolved { scope, count } => {
                let detail =
                    format!("{count} earlier payments of this {scope} are unresolved; they must be resolved first");
                Problem::new(Code::TooManyUnresolved, detail)
            }
            Refusal::Reviews(count) => Problem::new(
                Code::TooManyUnresolved,
                format!("{count} purchases of this agent already wait for approval"),
            ),
            Refusal::Suspended(what) => Problem::new(Code::Suspended, format!("an operator suspended {what}")),
            Refusal::Session => Problem::new(Code::SessionExpired, "the session is closed or over"),
            Refusal::Stale => {
                let detail = "the policies changed while this was judged; repeat the call";
                return Err(Problem::new(Code::Overloaded, detail));
            }
            Refusal::Live(payment) => {
                let detail = "another attempt of this purchase is open";
                return Err(Problem::new(Code::PaymentUnknown, detail).with("payment", payment.to_string()));
            }
            Refusal::Nonce(payment) => {
                // It may be another agent's, who is nobody this one knows.
                tracing::info!(%payment, "the seller's challenge was signed for already");
                let detail = "the seller's challenge was signed for already: one challenge is paid once; the seller must \
                              give a new one";
                let reason = serde_json::json!([{"code": "challenge-used", "message": detail}]);
                Problem::new(Code::UnpayableOffer, detail).with("reasons", reason)
            }
            Refusal::Approval => {
                let detail = "the approval was used, withdrawn or lapsed meanwhile; repeat the call";
                return Err(Problem::new(Code::ApprovalExpired, detail).with("retry", true));
            }
        };
        let problem = problem.with("decision", candidate.request.id.to_string());
        let code = problem.code.code();
        let mut reasons = combined.reasons.clone();
        reasons.push(Attributed { policy: owner, reason: Reason::new(code, problem.detail.clone()) });
        let facts = candidate.facts.clone();
        Ok(Refused { record: record(&candidate, judgement, combined.verdict, reasons, Some(code)), facts, problem })
    }

    /// Figures only for budgets of the caller's own session and agent.
    pub(super) fn budget_exceeded(&self, refused: &BudgetRefusal) -> Problem {
        let label = budget::label(&refused.owner, &refused.name);
        let own_agent = format!("agent/{}", self.principal().agent);
        let own_session = self.caller.session.map(|s| format!("session/{s}"));
        let own = refused.name == own_agent || Some(&refused.name) == own_session.as_ref();
        let detail = if own {
            let figure = |n| views::amount(n, refused.unit);
            let left = refused.limit.saturating_sub(refused.used);
            let unit = views::unit(refused.unit, &self.snapshot.config.gateway.currency);
            format!(
                "`{label}` has {} of {} {unit} left and this needs {}",
                figure(left),
                figure(refused.limit),
                figure(refused.wanted)
            )
        } else {
            format!("`{label}` has no room for this purchase")
        };
        let policy = if refused.owner == HOST { HOST } else { &refused.owner };
        Problem::new(Code::BudgetExceeded, detail).with("budget", label).with("policy", policy)
    }

    /// Nobody granted: recorded with every candidate, reported as the first.
    async fn refuse(&self, refused: Vec<Refused>, resumption: Option<Resumption>) -> Result<Problem, Problem> {
        let candidates: Vec<_> = refused.iter().map(summary).collect();
        let mut refused = refused.into_iter();
        let Some(first) = refused.next() else {
            return Ok(Problem::new(Code::UnpayableOffer, "none of the seller's offers can be paid"));
        };
        if let Some(r) = resumption {
            // What people approved stays approved while the wallet is empty or a cap is full; only a
            // policy's no ends it.
            if !matches!(first.problem.code, Code::PolicyDenied | Code::NoPolicyAllowed) {
                return Ok(first.problem.with("payment", r.approval.payment.to_string()));
            }
            self.withdraw(&r.approval, "a policy refused it when it was resumed").await?;
        }
        let code = first.problem.code.code().to_owned();
        let denial = Denial {
            payment: self.fresh_payment()?,
            key: self.key.clone(),
            fingerprint: self.fingerprint,
            facts: first.facts,
            decisions: std::iter::once(first.record).chain(refused.map(|r| r.record)).collect(),
            code,
            at: self.gateway.clock.now()?,
        };
        let payment = self.gateway.ledger.deny(denial).await?;
        self.trace.pays(payment);
        let mut problem = first.problem.with("payment", payment.to_string());
        if candidates.len() > 1 {
            problem = problem.with("candidates", candidates);
        }
        Ok(problem)
    }
}

/// What the seller says is bought, where that is a URL at another host than was called. Servers behind proxies get it
/// wrong in good faith, so it is told and not refused.
fn resource_elsewhere(offer: &Offer, target: &Target) -> Option<String> {
    let said = offer.resource_url.as_deref()?;
    let scheme = said.split_once("//").map(|(scheme, _)| scheme.to_ascii_lowercase());
    let names_a_host = matches!(scheme.as_deref(), Some("" | "http:" | "https:"));
    let here = Target::parse(said).is_ok_and(|named| named.host() == target.host());
    (names_a_host && !here).then(|| text::clean(said, text::MAX_WORDS))
}

/// What the host itself refused, whatever policies said.
fn host_refused(candidate: &Candidate, judgement: Judgement, problem: Problem) -> Refused {
    let code = problem.code.code();
    let reason = Attributed { policy: HOST.to_owned(), reason: Reason::new(code, problem.detail.clone()) };
    Refused {
        record: record(candidate, judgement, Verdict::Deny, vec![reason], Some(code)),
        facts: candidate.facts.clone(),
        problem,
    }
}

/// What was decided, for those who compare.
fn outcome(decided: &Result<Decided, Refused>) -> Outcome {
    match decided {
        Ok(Decided::Pay(_)) => Outcome::Allowed,
        Ok(Decided::Wait(_)) => Outcome::Asked,
        Err(refused) => Outcome::of(&refused.record, false),
    }
}

fn summary(refused: &Refused) -> serde_json::Value {
    let facts = &refused.facts;
    serde_json::json!({
        "network": facts.network,
        "asset": facts.asset_symbol,
        "amount": facts.value.to_string(),
        "code": refused.problem.code.code(),
    })
}

fn record(
    candidate: &Candidate,
    judgement: Judgement,
    verdict: Verdict,
    reasons: Vec<Attributed>,
    refusal: Option<&str>,
) -> DecisionRecord {
    DecisionRecord {
        id: candidate.request.id,
        request: candidate.request.clone(),
        judgement,
        verdict,
        reasons,
        refusal: refusal.map(str::to_owned),
    }
}
