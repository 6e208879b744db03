//! A purchase whose exchange is the call of an MCP server's tool: the same two requests, without and with the
//! payment, and the same answers as over HTTP, where 402 stands for a demand and 500 for a tool that failed.

use countersign_core::evm::Address;
use countersign_core::permit::Sealed;
use countersign_core::x402::{Protocol, Receipt};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::Purchase;
use super::answer::{Reply, Source, full};
use super::call::ToolCall;
use super::fetch::{Fetched, Visit, before_payment, unpayable};
use super::present::Answered;
use crate::config::{Config, McpServer};
use crate::egress::{CallError, Route};
use crate::problem::{Code, Problem};
use crate::telemetry::{Open, Step, attributes};
use crate::upstream::said::{self, OF_MPP, OF_X402, Places, Said};

impl Purchase {
    /// The server of a tool, as it is configured now: people may have taken long to speak.
    pub(super) fn server(&self, tool: &ToolCall) -> Result<&McpServer, Problem> {
        let found = server(&self.snapshot.config, &tool.server, self.principal())?;
        if found.target != self.call.target {
            let detail = format!("mcp-server.{} has another url than when this purchase began", tool.server);
            return Err(Problem::new(Code::PurchaseConflict, detail));
        }
        Ok(found)
    }

    /// Calls the tool once without payment.
    pub(super) async fn ask(&self, tool: &ToolCall, payer: Address) -> Result<Fetched, Problem> {
        let mut step = self.trace.step(Step::Fetch);
        let fetched = self.call_tool_unpaid(tool, payer, &mut step).await;
        fetched.inspect_err(|problem| step.failed(problem.code.code()))
    }

    async fn call_tool_unpaid(&self, tool: &ToolCall, payer: Address, step: &mut Open) -> Result<Fetched, Problem> {
        let route = self.route(self.call.target.clone()).await?;
        // The operator's credentials go there with every request.
        route.carries_payments()?;
        self.server(tool)?;
        let said = self.call_tool(tool, &route, None).await.map_err(before_payment)?;
        step.say(&attributes::STATUS, u64::from(status(&said).as_u16()));
        let terms = match said {
            Said::Demand { terms, .. } => terms,
            Said::Unpayable(why) => return Err(Problem::new(Code::UnpayableOffer, why)),
            Said::Result { result, error, .. } => return Ok(Fetched::Free(free(error, &passed(result)))),
            Said::Failed { code, message } => return Ok(Fetched::Free(free(true, &failed(code, message)))),
        };
        let offers = self.snapshot.rail.offers_in(&terms, payer).map_err(|e| unpayable(&e))?;
        Ok(Fetched::Payable(Visit { route, connection: None, offers }))
    }

    /// Calls the tool with the payment.
    pub(super) async fn call_tool_paid(
        &self,
        tool: &ToolCall,
        sealed: &Sealed,
        route: &Route,
    ) -> Result<Answered, CallError> {
        let (rail, authorization) = (&self.snapshot.rail, sealed.authorization());
        let payment =
            rail.document(authorization, sealed.signature()).map_err(|e| CallError::Unreachable(e.to_string()))?;
        let places = match authorization.offer.protocol {
            Protocol::X402(_) => OF_X402,
            Protocol::Mpp(_) => OF_MPP,
        };
        let said = self.call_tool(tool, route, Some((places, &payment))).await?;
        let status = status(&said);
        let (receipt, body) = match said {
            Said::Result { result, receipt, .. } => (receipt, passed(result)),
            Said::Failed { code, message } => (None, failed(code, message)),
            // Never passed on: the purchase ends as it does after another 402.
            Said::Demand { receipt, .. } => (receipt, Value::Null),
            Said::Unpayable(_) => (None, Value::Null),
        };
        let receipt = receipt.map(|bytes| rail.receipt_in(authorization, status.as_u16(), &bytes));
        let body = Source::Here(body.to_string().into());
        Ok(Answered { status, headers: headers(), body, receipt: receipt.unwrap_or(Receipt::Absent) })
    }

    /// One `tools/call`. What is sent is the call's body, which was fingerprinted, and the payment.
    async fn call_tool(
        &self,
        tool: &ToolCall,
        route: &Route,
        payment: Option<(Places, &str)>,
    ) -> Result<Said, CallError> {
        let server = self.server(tool).map_err(|problem| CallError::Unreachable(problem.detail))?;
        let params = params(&self.call.body, payment).ok_or_else(|| CallError::Unreachable("no call".to_owned()))?;
        let gateway = &self.gateway;
        let talk = gateway.upstreams.talk(&gateway.dialer, (&tool.server, server), route, self.principal());
        let places = payment.map_or(OF_X402, |(places, _)| places);
        said::read(&talk.request("tools/call", &params).await?, places)
    }
}

/// The server of this name, for those who may use it; for others there is none.
///
/// # Errors
/// `not-found`.
pub(crate) fn server<'a>(
    config: &'a Config,
    name: &str,
    principal: &countersign_core::spend::Principal,
) -> Result<&'a McpServer, Problem> {
    let found = config.mcp_servers.get(name).filter(|server| server.when.matches(principal));
    found.ok_or_else(|| Problem::new(Code::NotFound, "there is no such MCP server here").with("retry", false))
}

/// The parameters of the call: the body's own bytes, with the payment's among them.
fn params(body: &[u8], payment: Option<(Places, &str)>) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let Some((Places { payment: name, .. }, payment)) = payment else { return Some(body.to_owned()) };
    let members = body.strip_suffix('}')?;
    Some(format!(r#"{members},"_meta":{{"{name}":{payment}}}}}"#))
}

const fn status(said: &Said) -> StatusCode {
    match said {
        Said::Result { error: false, .. } => StatusCode::OK,
        Said::Result { error: true, .. } | Said::Failed { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        Said::Demand { .. } | Said::Unpayable(_) => StatusCode::PAYMENT_REQUIRED,
    }
}

fn passed(result: Map<String, Value>) -> Value {
    json!({"result": result})
}

fn failed(code: i64, message: String) -> Value {
    json!({"error": {"code": code, "message": message}})
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("countersign-source"), HeaderValue::from_static("seller"));
    headers
}

fn free(error: bool, body: &Value) -> Reply {
    let status = if error { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
    Reply { status, headers: headers(), body: full(body.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payment_joins_what_was_fingerprinted_and_changes_nothing_of_it() {
        let body = br#"{"arguments":{"a":"}"},"name":"t"}"#;
        assert_eq!(params(body, None).unwrap().as_bytes(), body);
        let paid = params(body, Some((OF_X402, r#"{"x402Version":2,  "n":1.0}"#))).unwrap();
        assert_eq!(paid, r#"{"arguments":{"a":"}"},"name":"t","_meta":{"x402/payment":{"x402Version":2,  "n":1.0}}}"#);
    }
}
