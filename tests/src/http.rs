//! A small blocking HTTP/1.1 client that shows what was really answered: no status is an error, no redirect is
//! followed, no proxy of the environment is used, no connection is kept.

use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long a whole exchange may take.
pub const TIMEOUT: Duration = Duration::from_secs(120);

/// A request being put together.
#[derive(Debug, Clone)]
#[must_use]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All headers in the order received, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// A GET.
pub fn get(url: &str) -> Request {
    Request::new("GET", url)
}

/// A POST of a JSON document.
pub fn post(url: &str, body: &Value) -> Request {
    Request::new("POST", url).json(body)
}

impl Request {
    /// A request with any method.
    pub fn new(method: &str, url: &str) -> Self {
        Self { method: method.to_owned(), url: url.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds `Authorization: Bearer TOKEN`.
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// Sets the body to a JSON document, and the content type to match.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it; panics when there is no complete answer.
    pub fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.url);
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// Sends it; the error says why there is no complete answer (refused, reset, cut off, timed out).
    pub fn try_send(self) -> Result<Response, String> {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_idle_connections(0)
            .allow_non_standard_methods(true)
            .proxy(None)
            .timeout_global(Some(TIMEOUT))
            .build()
            .new_agent();
        let carries_body = matches!(self.method.as_str(), "POST" | "PUT" | "PATCH");
        let sent = if carries_body || self.body.is_empty() {
            let mut request = ureq::http::Request::builder().method(self.method.as_str()).uri(&self.url);
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            if carries_body {
                agent.run(request.body(self.body).map_err(|e| e.to_string())?)
            } else {
                agent.run(request.body(()).map_err(|e| e.to_string())?)
            }
        } else {
            let request = match self.method.as_str() {
                "GET" => agent.get(&self.url),
                "DELETE" => agent.delete(&self.url),
                other => panic!("no body with {other}: use raw"),
            };
            let plain = request.force_send_body();
            self.headers.iter().fold(plain, |request, (name, value)| request.header(name, value)).send(&self.body)
        };
        let mut response = sent.map_err(|e| e.to_string())?;
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let body = response.body_mut().with_config().limit(1 << 30).read_to_vec().map_err(|e| e.to_string())?;
        Ok(Response { status: response.status().as_u16(), headers, body })
    }
}

impl Response {
    /// The first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body when it is none.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("not JSON ({e}): {} {}", self.status, self.text()))
    }
}

/// Sends bytes as they are to `host:port` and reads until the other side closes or is silent for ten seconds: for
/// requests no client would make, and for the forward proxy. Say `Connection: close` in the request.
pub fn raw(address: &str, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(request).unwrap();
    let (mut answer, mut chunk) = (Vec::new(), [0; 16384]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(chunk.get(..n).unwrap());
    }
    answer
}
