//! `/mcp`: the agents' door for MCP clients, over streamable HTTP.
//!
//! Without MCP sessions: each POST carries its own token and is answered on its own, so there is no
//! session id to steal, nothing to lose in a restart, and nothing that a client can leave behind. What a
//! tool does is what the fetch API does; [`calls`] translates, the purchase flow decides. `/mcp/NAME` has the
//! tools of a server of others instead: see [`proxy`].

mod calls;
mod catalog;
mod proxy;
pub(crate) mod tools;
mod wait;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ListToolsResult, PaginatedRequestParams, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json as value};

use super::{Answer, agent::named, body, json};
use crate::admission::Place;
use crate::config::Door;
use crate::problem::Problem;
use crate::state::Gateway;
use crate::telemetry::TraceParent;

/// Answers one request of a caller whose token is good. `server` is the one at `/mcp/NAME`; none at `/mcp`.
///
/// # Errors
/// When its body does not arrive, or is larger than `limit` bytes.
pub(super) async fn answer(
    gateway: Arc<Gateway>,
    token: Option<String>,
    request: Request<Incoming>,
    limit: usize,
    server: Option<&str>,
    place: Arc<Place>,
) -> Result<Answer, Problem> {
    let mut head = Request::builder().method(request.method()).uri(request.uri()).body(()).unwrap_or_default();
    head.headers_mut().clone_from(request.headers());
    let bytes = body(&gateway, request, limit).await?;
    if head.method() == http::Method::POST
        && let Some((code, message)) = countersign_wire::message::malformed(&bytes, limit)
    {
        let error = value!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}});
        return Ok(json(StatusCode::BAD_REQUEST, &error));
    }
    let config = transport(gateway.listeners[0]);
    let parent = TraceParent::of(head.headers());
    let request = head.map(|()| Full::new(bytes));
    let mut response = match server {
        None => handled(config, Tools { gateway, token, parent, place }, request).await,
        Some(server) => {
            let purchase = named(request.headers());
            let server = server.to_owned();
            handled(config, proxy::Proxy { gateway, token, parent, place, server, purchase }, request).await
        }
    };
    let source = http::HeaderValue::from_static("gateway");
    response.headers_mut().insert(http::HeaderName::from_static("countersign-source"), source);
    Ok(response.map(|body| body.map_err(|never| match never {}).boxed_unsync()))
}

async fn handled<S: ServerHandler + Clone + Send + Sync + 'static>(
    config: StreamableHttpServerConfig,
    tools: S,
    request: Request<Full<Bytes>>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let door = move || Ok(tools.clone());
    StreamableHttpService::new(door, Arc::new(NeverSessionManager::default()), config).handle(request).await
}

/// What the transport checks beside the token. Nothing in a browser is meant to speak to this door:
/// a request with an `Origin` is refused, and on loopback so is every `Host` but loopback, whatever a
/// page's name resolves to. Elsewhere TLS says who was meant.
fn transport(listen: std::net::SocketAddr) -> StreamableHttpServerConfig {
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).enforce_origin_validation();
    if listen.ip().is_loopback() { config } else { config.disable_allowed_hosts() }
}

/// One caller's tools.
#[derive(Clone)]
struct Tools {
    gateway: Arc<Gateway>,
    token: Option<String>,
    /// The caller's span.
    parent: Option<TraceParent>,
    /// The request's among those under way.
    place: Arc<Place>,
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        tools::info()
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::all()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::all().into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let caller = calls::Caller {
            gateway: &self.gateway,
            token: self.token.as_deref(),
            parent: self.parent,
            place: &self.place,
            context: &context,
        };
        match Box::pin(caller.call(&request.name, arguments)).await {
            Some(Ok(done)) => Ok(tools::done(done).into()),
            Some(Err(problem)) => {
                self.gateway.telemetry.metrics.refusal(Door::Mcp, problem.code);
                Ok(tools::refused(problem.body()).into())
            }
            None => Err(ErrorData::invalid_params(format!("there is no tool `{}`", request.name), None)),
        }
    }
}
