//! The operators' door. Every route names the role it needs; changes need the header token.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use countersign_core::id::{ApprovalId, PaymentId, SessionId};
use countersign_core::ledger::{
    Channel, LedgerError, Opening, PaymentFilter, Reporter, Session, SessionCap, Suspension, SuspensionScope,
};
use countersign_core::money::Micros;
use countersign_core::payment::State;
use countersign_core::seams::Clock;
use countersign_core::time::Timestamp;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json as value};

use super::{
    Answer, Quorum, after, body, books, directory, inbox, json, metrics, not_found, openapi, page, payment_filter,
    policies, query, quorum, refuse, shadows, uses,
};
use crate::clock::{SystemClock, random};
use crate::config::{HostPattern, OperatorConfig, OperatorRole};
use crate::identity::{bearer, operator, token_sha256};
use crate::problem::{Code, Problem};
use crate::proposal;
use crate::reload::Reloader;
use crate::state::{Gateway, Snapshot};
use crate::views::{self, Viewer};
use crate::voting::{self, Voter};

/// Largest body of an admin call, in bytes.
const MAX_CALL: usize = 64 * 1024;
/// Most hosts whose TLS is terminated for one session, besides the configured ones.
const MAX_INTERCEPT: usize = 64;

/// What the operators' door needs beside the gateway.
#[derive(Clone)]
pub struct Admin {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Reload status.
    pub reloader: Arc<Reloader>,
    /// Changes of policies that wait for more operators.
    pub quorum: Arc<Quorum>,
}

/// Who is calling, and the generation that knows them.
pub(super) struct Operator {
    pub(super) name: String,
    config: OperatorConfig,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Operator {
    /// The operator a token belongs to now.
    pub(super) fn of(gateway: &Gateway, token: Option<&str>) -> Result<Self, Problem> {
        let snapshot = gateway.live.load_full();
        let (name, config) = operator(token, &snapshot.config)?;
        let (name, config) = (name.to_owned(), config.clone());
        Ok(Self { name, config, snapshot })
    }

    pub(super) fn need(&self, role: OperatorRole) -> Result<(), Problem> {
        if self.config.roles.contains(&role) {
            return Ok(());
        }
        Err(Problem::new(
            Code::Forbidden,
            format!("operator `{}` does not have the role `{}`", self.name, role.as_str()),
        ))
    }
}

impl Operator {
    /// Whether what concerns these is within the operator's scope.
    fn decides_about(&self, workspace: Option<&str>, agent: &str, client: Option<&str>) -> Result<(), Problem> {
        self.unless(self.config.scope.excludes(workspace, agent, client))
    }

    /// Whether a payment is within the operator's scope.
    async fn decides_about_payment(&self, gateway: &Gateway, id: PaymentId) -> Result<(), Problem> {
        let found = gateway.ledger.payment(id).await?.ok_or_else(|| not_found("payment with this id"))?;
        self.unless(self.config.scope.excludes_principal(&found.facts.principal))
    }

    fn unless(&self, excluded: Option<&'static str>) -> Result<(), Problem> {
        excluded.map_or(Ok(()), |what| {
            let detail = format!("operator `{}` does not decide about this {what}", self.name);
            Err(Problem::new(Code::Forbidden, detail))
        })
    }
}

/// Answers one request.
pub(super) async fn handle(admin: Admin, request: Request<Incoming>) -> Answer {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => json(StatusCode::OK, &value!({"status": "ok"})),
        (&Method::GET, "/readyz") => ready(&admin).await,
        (&Method::GET, "/openapi.json") => openapi::answer(),
        (&Method::POST, "/v1/approvals/webhook") => {
            inbox::take(&admin.gateway, request).await.unwrap_or_else(|problem| refuse(&problem))
        }
        (&Method::GET, "/metrics") => metrics::page(&admin, &request).await.unwrap_or_else(|problem| refuse(&problem)),
        _ => Box::pin(route(&admin, request)).await.unwrap_or_else(|problem| refuse(&problem)),
    }
}

/// Ready means: the ledger answers. Policies that could not be loaded deny, and say so in
/// `GET /v1/policies`; restarting would not make them load.
async fn ready(admin: &Admin) -> Answer {
    match admin.gateway.ledger.suspensions().await {
        Ok(_) => json(StatusCode::OK, &value!({"status": "ready", "generation": admin.gateway.live.load().generation})),
        Err(error) => refuse(&Problem::from(error)),
    }
}

async fn route(admin: &Admin, request: Request<Incoming>) -> Result<Answer, Problem> {
    let gateway = &admin.gateway;
    let operator = Operator::of(gateway, bearer(request.headers()))?;
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (request.method().clone(), segments.as_slice()) {
        (Method::GET, ["v1", rest @ ..]) => {
            operator.need(OperatorRole::Viewer)?;
            read(admin, &operator.snapshot, rest, &query(&request)).await
        }
        (Method::POST, ["v1", "approvals", id, word @ ("approve" | "deny")]) => {
            let (body, operator) = said(gateway, request, MAX_CALL, OperatorRole::Approver).await?;
            vote(gateway, &operator, id, *word == "approve", &body).await
        }
        (Method::PUT, ["v1", "policies", policy, "module"]) => policies::put_module(admin, policy, request).await,
        (Method::POST, ["v1", "policies", "rollback"]) => policies::rollback(admin, request).await,
        (Method::POST, ["v1", "policies", "files"]) => {
            operator.need(OperatorRole::PolicyAdmin)?;
            Box::pin(policies::activate_files(admin, &operator)).await
        }
        (Method::POST, ["v1", "payments", id, "use"]) => {
            let (body, operator) = said(gateway, request, uses::MAX_CALL, OperatorRole::Approver).await?;
            let id: PaymentId = id.parse().map_err(|_| not_found("payment with this id"))?;
            operator.decides_about_payment(gateway, id).await?;
            let payment = uses::report(gateway, id, (Reporter::Person, &operator.name), &body).await?;
            Ok(json(StatusCode::OK, &views::payment(&payment, Viewer::Operator, &operator.snapshot.config)))
        }
        (Method::POST, ["v1", "payments", id, what @ ..]) if !what.is_empty() => {
            let (body, operator) = said(gateway, request, after::MAX_CALL, OperatorRole::Approver).await?;
            let id: PaymentId = id.parse().map_err(|_| not_found("payment with this id"))?;
            operator.decides_about_payment(gateway, id).await?;
            let desk = after::Desk { ledger: &*gateway.ledger, clock: &*gateway.clock, by: &operator.name };
            let payment = match what {
                ["cancel"] => {
                    let signed = after::cancel(desk, &gateway.signers, id, &body).await?;
                    return Ok(json(StatusCode::OK, &signed));
                }
                ["refunds"] => after::refund(desk, id, &body).await?,
                ["dispute"] => after::dispute(desk, id, &body).await?,
                ["dispute", "end"] => after::end_dispute(desk, id, &body).await?,
                _ => return Err(not_found("such path")),
            };
            Ok(json(StatusCode::OK, &views::payment(&payment, Viewer::Operator, &operator.snapshot.config)))
        }
        (Method::POST, ["v1", "reconcile"]) => {
            operator.need(OperatorRole::Viewer)?;
            let (body, _) = said(gateway, request, MAX_CALL, OperatorRole::Approver).await?;
            books::reconcile(gateway, &body).await
        }
        (Method::POST, ["v1", "policies", name, "shadow"]) => shadows::start(admin, name, request).await,
        (Method::POST, ["v1", "policies", name, "shadow", "activate"]) => {
            operator.need(OperatorRole::PolicyAdmin)?;
            policies::activate_shadow(admin, &operator, name).await
        }
        (Method::DELETE, ["v1", "policies", name, "shadow"]) => {
            operator.need(OperatorRole::PolicyAdmin)?;
            let views = operator.need(OperatorRole::Viewer).is_ok();
            shadows::end(gateway, &operator.name, views, name).await
        }
        (Method::POST, ["v1", "sessions"]) => {
            let (body, operator) = said(gateway, request, MAX_CALL, OperatorRole::SessionAdmin).await?;
            open_session(gateway, &operator, &body).await
        }
        (Method::DELETE, ["v1", "sessions", id]) => {
            operator.need(OperatorRole::SessionAdmin)?;
            let unknown = || not_found("session with this id");
            let id: SessionId = id.parse().map_err(|_| unknown())?;
            let session = gateway.ledger.session(id).await?.ok_or_else(unknown)?;
            let workspace = operator.snapshot.config.agents.get(&session.agent).and_then(|a| a.workspace.as_deref());
            operator.decides_about(workspace, &session.agent, session.client.as_deref())?;
            gateway.ledger.close_session(id, operator.name.clone(), gateway.clock.now()?).await?;
            Ok(json(StatusCode::OK, &value!({"id": id, "closed": true})))
        }
        (Method::POST, ["v1", "suspend"]) => {
            let (body, operator) = said(gateway, request, MAX_CALL, OperatorRole::Suspender).await?;
            suspend(gateway, &operator, &body).await
        }
        (Method::DELETE, ["v1", "suspend"]) => {
            operator.need(OperatorRole::Suspender)?;
            let scope = scope_of(&query(&request))?;
            gateway.ledger.resume(scope.clone(), operator.name.clone(), gateway.clock.now()?).await?;
            gateway.stops.remove(&scope);
            // If the store had left its anchor, somebody has looked now: the anchor follows from here.
            if let Err(error) = gateway.log.checkpoint(&*gateway.ledger).await {
                tracing::error!(%error, "the records could not be signed for");
            }
            Ok(json(StatusCode::OK, &value!({"lifted": scope.to_string()})))
        }
        _ => Err(not_found("such path")),
    }
}

/// The body of a call that needs `role`, and who calls. A body may take its time: whoever lost the role
/// while it arrived has lost it.
pub(super) async fn said(
    gateway: &Gateway,
    request: Request<Incoming>,
    limit: usize,
    role: OperatorRole,
) -> Result<(Bytes, Operator), Problem> {
    let token = bearer(request.headers()).map(str::to_owned);
    Operator::of(gateway, token.as_deref())?.need(role)?;
    let bytes = body(gateway, request, limit).await?;
    let operator = Operator::of(gateway, token.as_deref())?;
    operator.need(role)?;
    Ok((bytes, operator))
}

async fn read(
    admin: &Admin,
    snapshot: &Snapshot,
    path: &[&str],
    query: &[(String, String)],
) -> Result<Answer, Problem> {
    let (gateway, config) = (&admin.gateway, &snapshot.config);
    let now = gateway.clock.now()?;
    let ok = |body: Value| Ok(json(StatusCode::OK, &body));
    match path {
        ["export"] => books::export(gateway, config, query),
        ["audit", "checkpoint"] => books::checkpoint(gateway).await,
        ["audit", "proof"] => books::proof(gateway, query).await,
        ["policies", "proposals"] => quorum::list(admin, config).await,
        ["policies", "generations"] => policies::generations(admin, query).await,
        ["policies"] => ok(shadows::with_monitors(&gateway.shadows, admin.reloader.report())),
        ["policies", name, "shadow"] => ok(shadows::report(gateway, name)?),
        ["payments"] => {
            let filter = payment_filter(query)?;
            let limit = filter.limit;
            let found = gateway.ledger.payments(filter).await?;
            let items = found.iter().map(|p| views::payment(p, Viewer::Operator, config)).collect();
            ok(page(&found, limit, items))
        }
        ["payments", id] => {
            let id: PaymentId = id.parse().map_err(|_| not_found("payment with this id"))?;
            gateway.flights.landed(id).await;
            let found = gateway.ledger.payment(id).await?.ok_or_else(|| not_found("payment with this id"))?;
            ok(views::payment(&found, Viewer::Operator, config))
        }
        ["approvals"] => {
            gateway.ledger.expire_approvals(now).await?;
            let pending = !query.iter().any(|(n, v)| n == "state" && v == "all");
            let mut items = Vec::new();
            for approval in gateway.ledger.approvals(pending).await? {
                let payment = gateway.ledger.payment(approval.payment).await?;
                items.push(views::approval(&approval, payment.as_ref(), Viewer::Operator, config));
            }
            ok(value!({"items": items, "next": null}))
        }
        ["approvals", "deliveries"] => {
            let (before, limit) = counted_page(query)?;
            let found = gateway.ledger.notices(before, limit).await?;
            ok(counted(&found, limit, |notice| notice.id, views::notice))
        }
        ["approvals", id, "proposal"] => {
            let id: ApprovalId = id.parse().map_err(|_| not_found("approval with this id"))?;
            let kept = gateway.ledger.proposal(id).await?.ok_or_else(|| not_found("rule proposed for this id"))?;
            ok(proposal::view(&kept))
        }
        ["approvals", id] => {
            let id: ApprovalId = id.parse().map_err(|_| not_found("approval with this id"))?;
            let approval = gateway.ledger.approval(id).await?.ok_or_else(|| not_found("approval with this id"))?;
            let payment = gateway.ledger.payment(approval.payment).await?;
            ok(views::approval(&approval, payment.as_ref(), Viewer::Operator, config))
        }
        ["alerts"] => {
            let (before, limit) = counted_page(query)?;
            let found = gateway.ledger.alerts(before, limit).await?;
            ok(counted(&found, limit, |alert| alert.id, |alert| views::alert(alert, &config.gateway.currency)))
        }
        ["agents"] => ok(directory::agents(gateway, config)),
        ["wallets"] => ok(directory::wallets(gateway, config, now).await?),
        ["budgets"] => ok(views::budgets(&gateway.ledger.budgets(now).await?, config, Viewer::Operator, now)),
        ["sessions"] => {
            let sessions = gateway.ledger.sessions().await?;
            let items: Vec<_> = sessions.iter().map(|s| views::session(s, config)).collect();
            ok(value!({"items": items, "next": null}))
        }
        ["suspend"] => {
            let items: Vec<_> = gateway.stops.list().iter().map(views::suspension).collect();
            ok(value!({"items": items, "next": null}))
        }
        _ => Err(not_found("such path")),
    }
}

/// A page of what has numbers, newest first.
fn counted<T>(found: &[T], limit: u32, id: impl Fn(&T) -> u64, view: impl Fn(&T) -> Value) -> Value {
    let full = u32::try_from(found.len()).unwrap_or(u32::MAX) >= limit;
    let next = found.last().filter(|_| full).map(|last| id(last).to_string());
    value!({"items": found.iter().map(view).collect::<Vec<_>>(), "next": next})
}

/// `?cursor=…&limit=…` of a page of what has numbers.
fn counted_page(query: &[(String, String)]) -> Result<(Option<u64>, u32), Problem> {
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let (mut before, mut limit) = (None, 100);
    for (name, value) in query {
        match name.as_str() {
            "cursor" => before = Some(value.parse().map_err(|_| bad("cursor: not one of ours".to_owned()))?),
            "limit" => {
                let known = value.parse().ok().filter(|n| (1..=500).contains(n));
                limit = known.ok_or_else(|| bad("limit: 1 to 500".to_owned()))?;
            }
            other => return Err(bad(format!("`{other}` is not a parameter here; cursor and limit are"))),
        }
    }
    Ok((before, limit))
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Word {
    #[serde(default)]
    note: String,
    /// Also propose the rule that would make this unnecessary.
    #[serde(default)]
    propose: bool,
}

async fn vote(gateway: &Gateway, operator: &Operator, id: &str, approve: bool, body: &[u8]) -> Result<Answer, Problem> {
    let approval: ApprovalId = id.parse().map_err(|_| not_found("approval with this id"))?;
    let word: Word = if body.is_empty() { Word::default() } else { parse(body)? };
    if word.propose && !approve {
        return Err(Problem::new(Code::BadRequest, "propose: only with a yes is there a rule to propose"));
    }
    let config = &operator.snapshot.config;
    let voter = Voter { name: &operator.name, operator: &operator.config, config };
    let (ledger, at) = (&*gateway.ledger, gateway.clock.now()?);
    let said = voting::Word { approval, approve, note: word.note, channel: Channel::Api, quoted: None };
    let spoken = voting::speak(ledger, voter, said, at).await?;
    gateway.asked.notify_one();
    let mut view = views::approval(&spoken.approval, Some(&spoken.payment), Viewer::Operator, config);
    if word.propose {
        let proposed = proposal::propose(ledger, voter, &spoken.approval, &spoken.payment, at).await?;
        if let Some(map) = view.as_object_mut() {
            map.insert("proposal".into(), proposal::view(&proposed));
        }
    }
    Ok(json(StatusCode::OK, &view))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSession {
    agent: String,
    user: Option<String>,
    client: Option<String>,
    project: Option<String>,
    task: Option<String>,
    #[serde(default)]
    intercept: Vec<String>,
    limit: String,
    max_payments: Option<u32>,
    expires_in: Option<u32>,
}

async fn open_session(gateway: &Gateway, operator: &Operator, body: &[u8]) -> Result<Answer, Problem> {
    let config = &operator.snapshot.config;
    let wanted: NewSession = parse(body)?;
    let bad = |detail: String| Problem::new(Code::BadRequest, detail);
    let absent = || bad(format!("agent: there is no [agent.{}]", wanted.agent));
    let agent = config.agents.get(&wanted.agent).ok_or_else(absent)?;
    operator.decides_about(agent.workspace.as_deref(), &wanted.agent, wanted.client.as_deref())?;
    let named =
        [("user", &wanted.user), ("client", &wanted.client), ("project", &wanted.project), ("task", &wanted.task)];
    for (field, name) in named {
        if let Some(name) = name
            && crate::config::names::normalise(name).as_ref() != Some(name)
        {
            return Err(bad(format!("{field}: 1 to 64 of [a-z0-9._-]")));
        }
    }
    if wanted.intercept.len() > MAX_INTERCEPT {
        return Err(bad(format!("intercept: at most {MAX_INTERCEPT} hosts")));
    }
    if let Some(text) = wanted.intercept.iter().find(|text| HostPattern::parse(text).is_none()) {
        return Err(bad(format!("intercept: {text:?} is not a host, such as api.example.com or *.example.com")));
    }
    let limit = Micros::parse(&wanted.limit).map_err(|e| bad(format!("limit: {e}")))?;
    if let Some(most) = operator.config.scope.session_limit.filter(|most| limit > *most) {
        let detail = format!("limit: operator `{}` opens sessions of at most {most}", operator.name);
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let expires_in = wanted.expires_in.unwrap_or(3_600);
    if !(1..=30 * 86_400).contains(&expires_in) {
        return Err(bad("expires_in: 1 second to 30 days".to_owned()));
    }
    let at = gateway.clock.now()?;
    let secret: [u8; 32] = random(&*gateway.clock)?;
    let token = format!("css_{}", base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, secret));
    let session = Session {
        id: SessionId::new(at, random(&*gateway.clock)?),
        token_sha256: token_sha256(&token),
        agent: wanted.agent,
        user: wanted.user,
        client: wanted.client,
        project: wanted.project,
        task: wanted.task,
        intercept: wanted.intercept,
        limit,
        max_payments: wanted.max_payments.unwrap_or(1_000),
        created_at: at,
        expires_at: at.plus_millis(u64::from(expires_in).saturating_mul(1_000)),
        closed_at: None,
        opened_by: operator.name.clone(),
    };
    let own = session.intercept.iter().filter_map(|text| HostPattern::parse(text));
    let hosts: Vec<HostPattern> = config.proxy.intercept.iter().cloned().chain(own).collect();
    let trust = (!hosts.is_empty()).then(|| gateway.vouch.certificate(&hosts, u64::from(expires_in), &*gateway.clock));
    let trust = trust.transpose().map_err(|e| Problem::new(Code::Conflict, e.to_string()))?;
    let mut view = views::session(&session, config);
    let caps = config.limits.session_caps(&operator.config);
    if let Opening::Refused(cap) = gateway.ledger.open_session(session, caps).await? {
        return Err(capped(&cap, at));
    }
    if let Some(map) = view.as_object_mut() {
        map.insert("token".into(), token.into());
        map.insert("proxy".into(), gateway.base_url.clone().into());
        map.insert("ca".into(), trust.into());
    }
    Ok(json(StatusCode::CREATED, &view))
}

/// Which cap left no room for a session, and when it will.
fn capped(cap: &SessionCap, now: Timestamp) -> Problem {
    match cap.frees_at {
        None => Problem::new(Code::Forbidden, format!("there may be {}, and this one is larger", cap.what)),
        Some(at) => {
            let detail = format!("there may be {}, and there are; the next may be opened at {at}", cap.what);
            let mut problem = Problem::new(Code::RateLimited, detail).with("frees_at", at.to_string());
            problem.retry_after = u32::try_from(at.since(now).div_ceil(1_000)).ok().map(|seconds| seconds.max(1));
            problem
        }
    }
}

/// Stops first in memory, so that it works while the store cannot write, then durably; and lists
/// what was signed before and is still redeemable.
async fn suspend(gateway: &Gateway, operator: &Operator, body: &[u8]) -> Result<Answer, Problem> {
    let mut said: BTreeMap<String, Value> = if body.is_empty() { BTreeMap::new() } else { parse(body)? };
    let reason = said.remove("reason").unwrap_or_default();
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    // Whatever is left must name what to suspend: an unknown key is refused with the known ones.
    let pairs: Vec<(String, String)> = said.into_iter().map(|(name, value)| (name, text(value))).collect();
    let scope = scope_of(&pairs)?;
    let suspension = Suspension {
        scope: scope.clone(),
        by: operator.name.clone(),
        reason: reason.as_str().unwrap_or_default().chars().take(256).collect(),
        // Stopping works whatever the clock says.
        at: gateway.clock.now().or_else(|_| SystemClock.now()).unwrap_or_default(),
    };
    gateway.stops.add(suspension.clone());
    tracing::warn!(scope = %scope, by = operator.name, "suspended");
    let durable = gateway.ledger.suspend(suspension.clone()).await;
    match &durable {
        Ok(()) => gateway.stops.told(&scope),
        Err(error) => tracing::error!(%error, "the suspension holds in this process only"),
    }
    let mut view = views::suspension(&suspension);
    if let Some(map) = view.as_object_mut() {
        map.insert("durable".into(), durable.is_ok().into());
        map.insert("redeemable".into(), redeemable(gateway, &scope).await.unwrap_or_default().into());
    }
    Ok(json(StatusCode::OK, &view))
}

async fn redeemable(gateway: &Gateway, scope: &SuspensionScope) -> Result<Vec<Value>, LedgerError> {
    let now = gateway.clock.now().map(|n| n.as_secs()).unwrap_or_default();
    let states = vec![State::Signed, State::Redeemable, State::Stuck];
    let found = gateway.ledger.payments(PaymentFilter { states, limit: 500, ..Default::default() }).await?;
    let live = found
        .iter()
        .filter(|p| scope.covers(&p.facts) && p.authorization.as_ref().is_some_and(|a| a.valid_before > now));
    let row = |p: &countersign_core::ledger::PaymentView| value!({"payment": p.id, "amount": p.facts.value.to_string(), "pay_to": p.facts.pay_to, "host": p.facts.host});
    Ok(live.map(row).collect())
}

/// `all`, or one of `agent`, `mandate`, `wallet`, `vendor` with a name.
fn scope_of(pairs: &[(String, String)]) -> Result<SuspensionScope, Problem> {
    let bad = || {
        Problem::new(
            Code::BadRequest,
            "name what to suspend: {} or {\"all\":true} for everything, or one of agent, mandate, wallet, vendor",
        )
    };
    match pairs {
        [] => Ok(SuspensionScope::All),
        [(name, value)] => match (name.as_str(), value.clone()) {
            ("all", v) if v == "true" => Ok(SuspensionScope::All),
            ("agent", v) => Ok(SuspensionScope::Agent(v)),
            ("mandate", v) => Ok(SuspensionScope::Mandate(v)),
            ("wallet", v) => Ok(SuspensionScope::Wallet(v)),
            ("vendor", v) => Ok(SuspensionScope::Vendor(v)),
            _ => Err(bad()),
        },
        _ => Err(bad()),
    }
}

pub(super) fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body)
        .map_err(|e| Problem::new(Code::BadRequest, format!("the body is not as documented: {e}")))
}
