//! TLS as a host: a certificate per host, made once and used until half its life is over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::{Authority, CaError, Host, Validity};

/// How long a host's certificate is good for, in seconds. Half of it is how long it is used.
const LIFE: u64 = 7 * 86_400;
/// Hosts whose certificates are kept.
const MOST: usize = 256;

/// Certificates of hosts, as many as are kept.
pub struct Leaves {
    authority: Authority,
    ready: Mutex<BTreeMap<Host, (u64, Arc<ServerConfig>)>>,
}

impl fmt::Debug for Leaves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaves").finish_non_exhaustive()
    }
}

impl Leaves {
    /// None yet.
    #[must_use]
    pub fn new(authority: Authority) -> Self {
        Self { authority, ready: Mutex::default() }
    }

    /// Who vouches for them.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// TLS as this host, for HTTP/2 and HTTP/1.1. A client that names another host is refused in the
    /// handshake; one that names none is refused too, except where the host is an address, which no
    /// client may name. `now` are Unix seconds, `serial` random bytes.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn server(&self, host: &Host, now: u64, serial: [u8; 16]) -> Result<Arc<ServerConfig>, CaError> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        // Made before now, too: a clock that was put right leaves no certificate of the future.
        let fresh = |made: u64| made <= now && now.saturating_sub(made) < LIFE / 2;
        if let Some((made, config)) = ready.get(host)
            && fresh(*made)
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(host, Validity { now, seconds: LIFE, serial })?);
        ready.retain(|_, (made, _)| fresh(*made));
        if ready.len() >= MOST
            && let Some(oldest) = ready.iter().min_by_key(|(_, (made, _))| *made).map(|(host, _)| host.clone())
        {
            ready.remove(&oldest);
        }
        ready.insert(host.clone(), (now, Arc::clone(&config)));
        Ok(config)
    }

    fn make(&self, host: &Host, validity: Validity) -> Result<ServerConfig, CaError> {
        let (certificate, key) = self.authority.leaf(host, validity)?;
        let key = rustls::crypto::ring::sign::any_ecdsa_type(&key)?;
        let name = match host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        };
        let only = Only { name, key: Arc::new(CertifiedKey::new(vec![certificate], key)) };
        let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(only));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// One host's certificate, for nobody who means another.
struct Only {
    name: Option<String>,
    key: Arc<CertifiedKey>,
}

impl fmt::Debug for Only {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Only").field("name", &self.name).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Only {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name().map(str::to_ascii_lowercase);
        (asked == self.name).then(|| Arc::clone(&self.key))
    }
}
