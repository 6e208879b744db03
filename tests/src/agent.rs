//! Callers of the gateway: an agent on the agent API, an operator on the admin API.

use crate::http::{Request, Response};
use serde_json::{Value, json};

/// Somebody with a bearer token and the base URL of one of the two APIs.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    token: String,
}

impl Client {
    /// A caller of the API at `base` (without a slash at the end).
    pub fn new(base: &str, token: &str) -> Self {
        Self { base: base.to_owned(), token: token.to_owned() }
    }

    /// A request with the token on it, still to be sent; `path` begins with a slash.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(method, &format!("{}{path}", self.base)).bearer(&self.token)
    }

    /// GET.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path).send()
    }

    /// POST of a JSON document.
    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.request("POST", path).json(body).send()
    }

    /// DELETE.
    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path).send()
    }

    /// `POST /v1/fetch`; `more` is merged over `{"url": url}`.
    pub fn fetch(&self, url: &str, more: Value) -> Response {
        self.post("/v1/fetch", &order(url, more))
    }

    /// As [`Client::fetch`], for when the gateway may go away meanwhile; the error says why there is no answer.
    pub fn try_fetch(&self, url: &str, more: Value) -> Result<Response, String> {
        self.request("POST", "/v1/fetch").json(&order(url, more)).try_send()
    }

    /// `POST /v1/quote`, with the body of [`Client::fetch`].
    pub fn quote(&self, url: &str, more: Value) -> Response {
        self.post("/v1/quote", &order(url, more))
    }

    /// `GET /v1/payments/ID`; panics unless it is there.
    #[track_caller]
    pub fn payment(&self, id: &str) -> Value {
        let answer = self.get(&format!("/v1/payments/{id}"));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }
}

fn order(url: &str, more: Value) -> Value {
    let mut order = json!({"url": url});
    if let (Some(order), Value::Object(more)) = (order.as_object_mut(), more) {
        order.extend(more);
    }
    order
}
