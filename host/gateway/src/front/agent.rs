//! The agents' door: `POST /v1/fetch`, `POST /v1/quote`, `POST /v1/sign`, `/mcp`, and what an agent may ask and say
//! about its own purchases.

use std::sync::Arc;

use countersign_core::id::{ApprovalId, PaymentId};
use countersign_core::ledger::{Approval, PaymentView, Reporter};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::tls::connected_as;
use super::{Answer, body, json, mcp, not_found, outcome, page, payment_filter, query, refuse, uses};
use crate::admission::Place;
use crate::config::Door;
use crate::identity::{self, Caller, bearer};
use crate::problem::Problem;
use crate::purchase::{Call, MAX_BODY, MAX_ORDER, Reply, buy, mcp_server, quote};
use crate::state::{Gateway, Snapshot};
use crate::telemetry::TraceParent;
use crate::views::{self, Viewer};

/// A call's JSON may hold a body in base64 and more around it.
const MAX_CALL: usize = MAX_BODY * 2;
/// A receipt and little more.
const MAX_OUTCOME: usize = 128 << 10;

/// Answers one request.
pub(super) async fn handle(gateway: Arc<Gateway>, request: Request<Incoming>) -> Answer {
    let routed = route(Arc::clone(&gateway), request).await;
    routed.unwrap_or_else(|problem| {
        gateway.telemetry.metrics.refusal(Door::Fetch, problem.code);
        refuse(&problem)
    })
}

async fn route(gateway: Arc<Gateway>, request: Request<Incoming>) -> Result<Answer, Problem> {
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let now = gateway.clock.now()?;
    let token = bearer(request.headers()).map(str::to_owned);
    // Nobody reads what strangers send.
    let (snapshot, caller) = who(&gateway, token.as_deref()).await?;
    let config = &snapshot.config;
    connected_as(&request, config, &caller.principal.agent)?;
    let admission = Arc::clone(&gateway);
    let place = || admission.admission.admit(&config.limits, &caller.principal);
    match (request.method(), segments.as_slice()) {
        (&Method::POST, ["v1", "fetch"]) => fetch(gateway, token.as_deref(), request, place()?).await,
        (&Method::POST, ["v1", "quote"]) => quoted(gateway, token.as_deref(), request, place()?).await,
        (&Method::POST, ["v1", "sign"]) => signed(gateway, token.as_deref(), request, place()?).await,
        (_, ["mcp"]) => mcp::answer(gateway, token, request, MAX_CALL, None, place()?).await,
        (_, ["mcp", server]) => {
            mcp_server(config, server, &caller.principal)?;
            mcp::answer(gateway, token, request, MAX_CALL, Some(server), place()?).await
        }
        (&Method::GET, ["v1", "payments"]) => {
            let mut filter = payment_filter(&query(&request))?;
            let principal = &caller.principal;
            filter.owner = Some((principal.workspace.clone().unwrap_or_default(), principal.agent.clone()));
            filter.session = caller.session;
            let limit = filter.limit;
            let found = gateway.ledger.payments(filter).await?;
            let viewer = Viewer::Agent(principal);
            let items = found.iter().filter(|p| caller.owns(p)).map(|p| views::payment(p, viewer, config)).collect();
            Ok(json(StatusCode::OK, &page(&found, limit, items)))
        }
        (&Method::GET, ["v1", "payments", id]) => {
            let payment = own_payment(&gateway, &caller, id).await?;
            Ok(json(StatusCode::OK, &views::payment(&payment, Viewer::Agent(&caller.principal), config)))
        }
        (&Method::POST, ["v1", "payments", id, "use"]) => {
            let said = uses::read(&gateway, request).await?;
            let (snapshot, caller) = who(&gateway, token.as_deref()).await?;
            let payment = own_payment(&gateway, &caller, id).await?;
            let by = (Reporter::Agent, caller.principal.agent.as_str());
            let payment = uses::report(&gateway, payment.id, by, &said).await?;
            Ok(json(StatusCode::OK, &views::payment(&payment, Viewer::Agent(&caller.principal), &snapshot.config)))
        }
        (&Method::POST, ["v1", "payments", id, "outcome"]) => {
            let said = body(&gateway, request, MAX_OUTCOME).await?;
            let (snapshot, caller) = who(&gateway, token.as_deref()).await?;
            let payment = own_payment(&gateway, &caller, id).await?;
            outcome::report(&gateway, &snapshot, &caller, &payment, &said).await?;
            Ok(json(StatusCode::OK, &views::payment(&payment, Viewer::Agent(&caller.principal), &snapshot.config)))
        }
        (&Method::GET, ["v1", "budgets"]) => {
            let used = gateway.ledger.budgets(now).await?;
            Ok(json(StatusCode::OK, &views::budgets(&used, config, Viewer::Agent(&caller.principal), now)))
        }
        (&Method::GET, ["v1", "approvals", id]) => {
            let (approval, payment) = own_approval(&gateway, &caller, id).await?;
            let viewer = Viewer::Agent(&caller.principal);
            Ok(json(StatusCode::OK, &views::approval(&approval, Some(&payment), viewer, config)))
        }
        _ => Err(not_found("such path")),
    }
}

/// Who calls, and the generation that knows them: whatever is done for the caller is done under it.
pub(super) async fn who(gateway: &Gateway, token: Option<&str>) -> Result<(Arc<Snapshot>, Caller), Problem> {
    let snapshot = gateway.live.load_full();
    let now = gateway.clock.now()?;
    let caller = identity::agent(token, gateway, &snapshot.config, now).await?;
    Ok((snapshot, caller))
}

/// The call that a request carries.
async fn read_call(gateway: &Gateway, request: Request<Incoming>) -> Result<Call, Problem> {
    let purchase = named(request.headers());
    let parent = TraceParent::of(request.headers());
    let bytes = body(gateway, request, MAX_CALL).await?;
    Ok(Call { parent, ..Call::parse(&bytes, purchase.as_deref())? })
}

/// The purchase that a request names in its header.
pub(super) fn named(headers: &http::HeaderMap) -> Option<String> {
    let purchase = headers.get("countersign-purchase");
    purchase.map(|v| v.to_str().unwrap_or("\u{fffd}").to_owned())
}

async fn quoted(
    gateway: Arc<Gateway>,
    token: Option<&str>,
    request: Request<Incoming>,
    place: Arc<Place>,
) -> Result<Answer, Problem> {
    let call = read_call(&gateway, request).await?;
    let (snapshot, caller) = who(&gateway, token).await?;
    Ok(json(StatusCode::OK, &quote(gateway, snapshot, caller, call, Door::Fetch, place).await?))
}

async fn fetch(
    gateway: Arc<Gateway>,
    token: Option<&str>,
    request: Request<Incoming>,
    place: Arc<Place>,
) -> Result<Answer, Problem> {
    let call = read_call(&gateway, request).await?;
    // An agent that was removed while its call arrived does not buy.
    let (snapshot, caller) = who(&gateway, token).await?;
    Ok(answer(buy(gateway, snapshot, caller, call, Door::Fetch, place).await?))
}

async fn signed(
    gateway: Arc<Gateway>,
    token: Option<&str>,
    request: Request<Incoming>,
    place: Arc<Place>,
) -> Result<Answer, Problem> {
    let purchase = named(request.headers());
    let parent = TraceParent::of(request.headers());
    let bytes = body(&gateway, request, MAX_ORDER).await?;
    let call = Call { parent, ..Call::parse_order(&bytes, purchase.as_deref())? };
    let (snapshot, caller) = who(&gateway, token).await?;
    Ok(answer(buy(gateway, snapshot, caller, call, Door::Sign, place).await?))
}

fn answer(reply: Reply) -> Answer {
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    response
}

/// An approval of a purchase of this very caller; a foreign one does not exist.
pub(super) async fn own_approval(
    gateway: &Gateway,
    caller: &Caller,
    id: &str,
) -> Result<(Approval, PaymentView), Problem> {
    let unknown = || not_found("approval of yours with this id");
    let id: ApprovalId = id.parse().map_err(|_| unknown())?;
    let approval = gateway.ledger.approval(id).await?.ok_or_else(unknown)?;
    let payment = own_payment(gateway, caller, &approval.payment.to_string()).await.map_err(|_| unknown())?;
    Ok((approval, payment))
}

/// A payment of this very caller; a foreign one does not exist.
pub(super) async fn own_payment(gateway: &Gateway, caller: &Caller, id: &str) -> Result<PaymentView, Problem> {
    let unknown = || not_found("payment of yours with this id");
    let id: PaymentId = id.parse().map_err(|_| unknown())?;
    let found = gateway.ledger.payment(id).await?.filter(|p| caller.owns(p)).ok_or_else(unknown)?;
    // What the agent was just told must be what it reads: wait until the call is recorded.
    gateway.flights.landed(found.id).await;
    gateway.ledger.payment(id).await?.ok_or_else(unknown)
}
