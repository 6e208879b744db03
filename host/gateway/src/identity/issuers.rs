//! The keys of issuers: where they come from, how long they are believed, how often they are asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::json::Json;
use countersign_core::time::Timestamp;
use countersign_core::web::{Scheme, Target};
use http::header::{ACCEPT, HOST, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};

use crate::config::permissions::{Kind, check_private};
use crate::config::{Egress, IssuerConfig, KeySource, vouched_for};
use crate::egress::Dialer;
use crate::purchase::full;
use countersign_wire::jose::{Key, KeySet, MAX_JWKS};

/// How long fetching keys may take in all, in milliseconds: somebody waits for it.
const FETCH_MS: u64 = 10_000;
/// Largest discovery document read, in bytes.
const MAX_DISCOVERY: usize = 64 * 1024;

/// The keys of every issuer, as far as they were asked for.
#[derive(Default)]
pub struct Issuers(Mutex<BTreeMap<(String, KeySource), Arc<Cache>>>);

impl std::fmt::Debug for Issuers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issuers").finish_non_exhaustive()
    }
}

/// What is known of one issuer's keys.
#[derive(Default)]
struct Cache {
    state: Mutex<State>,
    /// One fetch at a time.
    fetching: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct State {
    /// The last that could be read, and when.
    keys: Option<(Arc<KeySet>, Timestamp)>,
    /// When they were last asked for, with or without success.
    tried: Option<Timestamp>,
}

/// Why there is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoKey {
    /// The issuer has none of this name.
    Unknown,
    /// Nobody can say: its keys cannot be had, or are too old to be believed.
    Unavailable,
}

/// What a fetch needs.
#[derive(Clone)]
pub(super) struct Way {
    /// Out.
    pub(super) dialer: Arc<Dialer>,
    /// To where.
    pub(super) egress: Egress,
}

impl Cache {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key, if what is known still counts; and whether it is time to ask again.
    fn look(&self, issuer: &IssuerConfig, kid: &str, now: Timestamp) -> (Result<Key, NoKey>, bool) {
        let state = self.state();
        let may_ask = state.tried.is_none_or(|tried| now.since(tried) >= issuer.refetch_ms);
        let Some((keys, since)) = state.keys.as_ref().filter(|(_, since)| now.since(*since) < issuer.keep_ms) else {
            return (Err(NoKey::Unavailable), may_ask);
        };
        let found = keys.get(kid).cloned().ok_or(NoKey::Unknown);
        let ask = found.is_err() || now.since(*since) >= issuer.refresh_ms;
        (found, ask && may_ask)
    }
}

impl Issuers {
    fn cache(&self, issuer: &IssuerConfig) -> Arc<Cache> {
        let mut caches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(caches.entry((issuer.issuer.clone(), issuer.keys.clone())).or_default())
    }

    /// The issuer's key of this name.
    ///
    /// Asked for again when it is not known or when what is known is old, at most once in
    /// `keys-refetch`. Keys that cannot be fetched again are believed until `keys-keep` is over.
    pub(super) async fn key(
        &self,
        (name, issuer): (&str, &IssuerConfig),
        kid: &str,
        way: impl FnOnce() -> Way,
        now: Timestamp,
    ) -> Result<Key, NoKey> {
        let cache = self.cache(issuer);
        let (found, ask) = cache.look(issuer, kid, now);
        if found.is_ok() && !ask {
            return found;
        }
        let asking = match Arc::clone(&cache.fetching).try_lock_owned() {
            Ok(asking) => asking,
            // Whoever has a key does not wait for others to ask; who has none waits for the answer.
            Err(_) if found.is_ok() => return found,
            Err(_) => Arc::clone(&cache.fetching).lock_owned().await,
        };
        let (found, ask) = cache.look(issuer, kid, now);
        if !ask {
            return found;
        }
        cache.state().tried = Some(now);
        // In a task of its own: a caller that hangs up must not keep keys from everybody else.
        let (task, name, issuer_of, way) = (Arc::clone(&cache), name.to_owned(), issuer.clone(), way());
        let fetched = tokio::spawn(async move {
            let _asking = asking;
            let fetched = way.dialer.within(FETCH_MS, fetch(&issuer_of, &way)).await;
            match fetched.unwrap_or_else(|| Err(format!("no answer within {FETCH_MS} ms"))) {
                Ok(keys) => {
                    tracing::debug!(issuer = name, count = keys.count(), "keys of an issuer");
                    task.state().keys = Some((Arc::new(keys), now));
                }
                Err(why) => tracing::warn!(issuer = name, why, "the keys of an issuer cannot be had"),
            }
        });
        if found.is_err()
            && let Err(error) = fetched.await
        {
            tracing::error!(%error, "fetching keys ended abnormally");
        }
        cache.look(issuer, kid, now).0
    }
}

async fn fetch(issuer: &IssuerConfig, way: &Way) -> Result<KeySet, String> {
    let bytes = match &issuer.keys {
        KeySource::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(path)).await;
            read.map_err(|e| e.to_string())??
        }
        KeySource::Url(url) => get(url, MAX_JWKS, way).await?,
        KeySource::Discovery => {
            let base = issuer.issuer.trim_end_matches('/');
            let document = get(&format!("{base}/.well-known/openid-configuration"), MAX_DISCOVERY, way).await?;
            get(&jwks_uri(&document, &issuer.issuer)?, MAX_JWKS, way).await?
        }
    };
    KeySet::parse(&bytes).map_err(str::to_owned)
}

/// Where a discovery document says the keys are.
fn jwks_uri(document: &[u8], issuer: &str) -> Result<String, String> {
    let document = Json::parse(document, MAX_DISCOVERY).map_err(|e| format!("openid-configuration: {e}"))?;
    let text = |name: &str| document.get(name).and_then(Json::as_str);
    if text("issuer") != Some(issuer) {
        return Err("openid-configuration: it is another issuer's".to_owned());
    }
    text("jwks_uri").map(str::to_owned).ok_or_else(|| "openid-configuration: no jwks_uri".to_owned())
}

fn read(path: PathBuf) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    check_private(&path, Kind::Config).map_err(|e| e.to_string())?;
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    let limit = u64::try_from(MAX_JWKS).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(&path).map_err(fail)?.take(limit).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

/// A document of at most `limit` bytes, over the one dialer. Redirects are not followed.
async fn get(url: &str, limit: usize, way: &Way) -> Result<Vec<u8>, String> {
    let target = Target::parse(url).map_err(|e| format!("{url}: {e}"))?;
    if !vouched_for(&target) {
        return Err(format!("{url}: keys are fetched over https, or over http from this machine"));
    }
    let fail = |why: &dyn std::fmt::Display| format!("{url}: {why}");
    let host = HeaderValue::from_str(&target.host_header()).map_err(|e| fail(&e))?;
    let uri = target.path_and_query().parse::<http::Uri>().map_err(|e| fail(&e))?;
    let route = way.dialer.route(target, &way.egress).await.map_err(|e| fail(&e))?;
    if route.target.scheme() == Scheme::Http && !(route.listed && route.address.ip().to_canonical().is_loopback()) {
        return Err(fail(&"plain http leads to this machine only, where egress.allow-private lists it"));
    }
    let mut request = Request::new(full(bytes::Bytes::new()));
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("countersign/", env!("CARGO_PKG_VERSION"))));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let mut connection = way.dialer.connect(&route).await.map_err(|e| fail(&e))?;
    let mut answer = way.dialer.send(&mut connection, request).await.map_err(|e| fail(&e))?;
    if answer.status() != StatusCode::OK {
        return Err(fail(&format_args!("status {}", answer.status().as_u16())));
    }
    let body = way.dialer.read(answer.body_mut(), limit).await.map_err(|e| fail(&e))?;
    body.ok_or_else(|| fail(&format_args!("more than {limit} bytes")))
}
