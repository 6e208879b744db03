//! MCP servers that agents reach through the gateway: sessions with them, and single requests.
//!
//! A session belongs to one caller and one server as configured; no two callers ever share one. Every
//! connection is the dialer's. Nothing here knows of money: `said` reads what a tool answered, the purchase
//! flow decides what to make of it.

pub(crate) mod said;
mod wire;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use countersign_core::spend::Principal;
use http::HeaderValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::McpServer;
use crate::egress::{CallError, Dialer, Route};
use wire::Posted;

/// Sessions that are kept, of all callers; the one that was not used for longest goes.
const MOST_SESSIONS: usize = 1_024;
/// The version of the protocol that servers are offered.
const OFFERED: &str = "2025-11-25";
/// What they may answer: the versions that speak streamable HTTP and shake hands.
const SPOKEN: [&str; 3] = ["2025-03-26", "2025-06-18", OFFERED];
/// Longest id of a session, in bytes.
const MAX_SESSION_ID: usize = 1_024;
/// Pages of a list that are read.
const MOST_PAGES: usize = 32;
/// Tools of one server.
const MOST_TOOLS: usize = 1_024;
/// Bytes of one server's list of tools, all pages together.
const MAX_LIST: usize = wire::MAX_ANSWER;

/// The sessions with all servers.
#[derive(Debug, Default)]
pub struct Upstreams {
    sessions: Mutex<BTreeMap<Whose, Session>>,
    /// Numbers requests, and says which session was used last.
    next: AtomicU64,
}

/// Whose a session is: the caller as the host knows it, and the server with the credentials it is shown.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Whose(String, [u8; 32]);

/// What a server agreed on with one caller.
#[derive(Clone, Debug)]
struct Session {
    id: Option<HeaderValue>,
    version: &'static str,
    used: u64,
}

/// One caller at one server.
pub(crate) struct Talk<'a> {
    dialer: &'a Dialer,
    upstreams: &'a Upstreams,
    server: &'a McpServer,
    route: &'a Route,
    whose: Whose,
}

impl Upstreams {
    /// `caller` at the server of this name. `route` is where it was resolved.
    pub(crate) fn talk<'a>(
        &'a self,
        dialer: &'a Dialer,
        (name, server): (&str, &'a McpServer),
        route: &'a Route,
        caller: &Principal,
    ) -> Talk<'a> {
        Talk { dialer, upstreams: self, server, route, whose: whose(name, server, caller) }
    }

    fn tick(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn known(&self, whose: &Whose) -> Option<Session> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get_mut(whose)?;
        session.used = self.tick();
        Some(session.clone())
    }

    fn keep(&self, whose: &Whose, session: Session) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= MOST_SESSIONS
            && let Some(oldest) = sessions.iter().min_by_key(|(_, s)| s.used).map(|(whose, _)| whose.clone())
        {
            sessions.remove(&oldest);
        }
        sessions.insert(whose.clone(), session);
    }

    /// Forgets a session that the server does not know any more, unless there is a newer one already.
    fn forget(&self, whose: &Whose, session: &Session) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.get(whose).is_some_and(|kept| kept.id == session.id) {
            sessions.remove(whose);
        }
    }
}

/// Every part with its length, so that no two callers are spelled the same.
fn whose(name: &str, server: &McpServer, caller: &Principal) -> Whose {
    let mut hasher = Sha256::new();
    let mut add = |part: Option<&str>| {
        let part = part.map_or_else(|| "-".to_owned(), |part| format!("{}:{part}", part.len()));
        hasher.update(part.as_bytes());
    };
    let Principal { agent, user, workspace, roles: _, session, client, project, task } = caller;
    add(Some(agent));
    for part in [user, workspace, session, client, project, task] {
        add(part.as_deref());
    }
    add(Some(&server.target.url()));
    for (name, value) in &server.headers {
        add(Some(name));
        add(Some(value.expose()));
    }
    Whose(name.to_owned(), hasher.finalize().into())
}

impl Talk<'_> {
    /// Makes one request and answers with the whole JSON-RPC message that came back: a result, or an error. `params`
    /// is the JSON of an object. A session that the server has forgotten is begun anew, once.
    ///
    /// # Errors
    /// [`CallError::Broken`] whenever the server may have seen the request.
    pub(crate) async fn request(&self, method: &str, params: &str) -> Result<Vec<u8>, CallError> {
        let session = match self.upstreams.known(&self.whose) {
            Some(session) => session,
            None => self.shake_hands().await?,
        };
        match self.post(Some(&session), method, params).await? {
            Posted::Message(message) => Ok(message),
            Posted::Gone => {
                self.upstreams.forget(&self.whose, &session);
                let session = self.shake_hands().await?;
                match self.post(Some(&session), method, params).await? {
                    Posted::Message(message) => Ok(message),
                    Posted::Gone => Err(broken("the MCP server answers 404 to a session it has just begun")),
                }
            }
        }
    }

    async fn post(&self, session: Option<&Session>, method: &str, params: &str) -> Result<Posted, CallError> {
        let id = self.upstreams.tick();
        let body = format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
        wire::post(self, session, body, Some(id)).await
    }

    /// `initialize` and what follows it.
    async fn shake_hands(&self) -> Result<Session, CallError> {
        let us = json!({"name": "countersign", "version": env!("CARGO_PKG_VERSION")});
        let hello = json!({"protocolVersion": OFFERED, "capabilities": {}, "clientInfo": us});
        let id = self.upstreams.tick();
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "initialize", "params": hello}).to_string();
        let (message, session_id) = wire::initialize(self, body, id).await?;
        let message: Value = serde_json::from_slice(&message).map_err(|_| broken("the MCP server answers no JSON"))?;
        let said = message.pointer("/result/protocolVersion").and_then(Value::as_str);
        let version = SPOKEN
            .into_iter()
            .find(|version| Some(*version) == said)
            .ok_or_else(|| broken("the MCP server agrees on no version of the protocol that is spoken here"))?;
        if session_id.as_ref().is_some_and(|id| id.len() > MAX_SESSION_ID || id.to_str().is_err()) {
            return Err(broken("the MCP server's session id is no session id"));
        }
        let session = Session { id: session_id, version, used: self.upstreams.tick() };
        let ready = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned();
        wire::post(self, Some(&session), ready, None).await?;
        self.upstreams.keep(&self.whose, session.clone());
        Ok(session)
    }

    /// Every tool of the server, as it describes them.
    ///
    /// # Errors
    /// When it does not answer, or answers more than anybody can mean: nothing is left out silently.
    pub(crate) async fn tools(&self) -> Result<Vec<Value>, CallError> {
        let (mut tools, mut bytes) = (Vec::new(), 0_usize);
        let mut cursor: Option<Value> = None;
        for _page in 0..MOST_PAGES {
            let params = cursor.take().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let message = self.request("tools/list", &params.to_string()).await?;
            bytes = bytes.saturating_add(message.len());
            let mut message: Value =
                serde_json::from_slice(&message).map_err(|_| broken("the MCP server answers no JSON"))?;
            let page = message.pointer_mut("/result/tools").map(Value::take);
            let Some(Value::Array(page)) = page else { return Err(broken("the MCP server lists no tools")) };
            tools.extend(page);
            if tools.len() > MOST_TOOLS || bytes > MAX_LIST {
                let why = format!("the MCP server lists more than {MOST_TOOLS} tools, or {MAX_LIST} bytes of them");
                return Err(CallError::Broken(why));
            }
            match message.pointer_mut("/result/nextCursor").map(Value::take) {
                None | Some(Value::Null) => return Ok(tools),
                Some(next) => cursor = Some(next),
            }
        }
        Err(CallError::Broken(format!("the MCP server's list of tools has more than {MOST_PAGES} pages")))
    }
}

fn broken(why: &str) -> CallError {
    CallError::Broken(why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, Environment};

    fn server(text: &str) -> McpServer {
        let text = format!("[mcp-server.a]\n{text}");
        let config = Config::parse(&text, Path::new("/srv"), &Environment::default()).unwrap();
        config.mcp_servers["a"].clone()
    }

    #[test]
    fn a_session_is_one_callers_at_one_server() {
        let plain = server("url = 'https://a.example/mcp'");
        let caller = |agent: &str, session: Option<&str>, user: Option<&str>| Principal {
            agent: agent.to_owned(),
            session: session.map(str::to_owned),
            user: user.map(str::to_owned),
            ..Principal::default()
        };
        let mut all = std::collections::BTreeSet::new();
        for (name, server) in [
            ("a", plain.clone()),
            ("b", plain.clone()),
            ("a", server("url = 'https://a.example/other'")),
            ("a", server("url = 'https://a.example/mcp'\nheaders = { x-key = '1' }")),
            ("a", server("url = 'https://a.example/mcp'\nheaders = { x-key = '2' }")),
        ] {
            for caller in [
                caller("scout", None, None),
                caller("rival", None, None),
                caller("scout", Some("s"), None),
                caller("scout", None, Some("s")),
            ] {
                assert!(all.insert(whose(name, &server, &caller)), "{name} {caller:?}");
            }
        }
        let roles = Principal { roles: vec!["x".to_owned()], ..caller("scout", None, None) };
        assert!(!all.insert(whose("a", &plain, &roles)), "a role is no other caller");
    }

    #[test]
    fn sessions_are_bounded_and_the_oldest_goes() {
        let upstreams = Upstreams::default();
        let whose = |n: usize| Whose(n.to_string(), [0; 32]);
        let keep = |n: usize| {
            upstreams.keep(&whose(n), Session { id: None, version: OFFERED, used: upstreams.tick() });
        };
        (0..MOST_SESSIONS).for_each(keep);
        assert!(upstreams.known(&whose(0)).is_some(), "used again, so not the oldest");
        keep(MOST_SESSIONS);
        assert!(upstreams.known(&whose(1)).is_none());
        assert!(upstreams.known(&whose(0)).is_some() && upstreams.known(&whose(MOST_SESSIONS)).is_some());
        let gone = upstreams.known(&whose(2)).unwrap();
        let newer = Session { id: Some(HeaderValue::from_static("n")), ..gone.clone() };
        upstreams.keep(&whose(2), newer);
        upstreams.forget(&whose(2), &gone);
        assert!(upstreams.known(&whose(2)).is_some(), "somebody else has begun a new one meanwhile");
    }
}
