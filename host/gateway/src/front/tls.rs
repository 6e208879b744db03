//! TLS of the two listeners: one certificate for both, and authorities for those who may connect as agents. The files
//! are read again when they change: certificates are renewed more often than gateways are restarted.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use http::Request;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::config::permissions::{Kind, check_private};
use crate::config::{Config, Tls};
use crate::problem::{Code, Problem};
use crate::state::Gateway;

/// How often the files are looked at, in milliseconds.
const LOOK_MS: u64 = 5_000;

/// The listeners' certificates, as their files were when they were last usable.
pub struct Certificates {
    files: Tls,
    now: ArcSwap<TlsAcceptors>,
    /// Digest of the files that were read last, usable or not.
    read: Mutex<[u8; 32]>,
}

/// What became of looking at the files again.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// They are as they were.
    Same,
    /// They are in use.
    Renewed,
    /// They cannot be used, and what was in use still is.
    Unusable(String),
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// Which of them cannot be used.
    pub fn open(files: &Tls) -> Result<Arc<Self>, String> {
        let read = digest(files)?;
        let now = ArcSwap::from_pointee(TlsAcceptors::new(files)?);
        Ok(Arc::new(Self { files: files.clone(), now, read: Mutex::new(read) }))
    }

    /// For one listener.
    #[must_use]
    pub fn of(self: &Arc<Self>, side: Side) -> Terminator {
        Terminator { certificates: Arc::clone(self), side }
    }

    fn look(&self) -> Look {
        let found = digest(&self.files);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let found = match found {
            Ok(found) if found == *read => return Look::Same,
            found => found,
        };
        // Said once for each content that is not usable, such as a certificate whose key is not written yet.
        *read = found.as_ref().copied().unwrap_or_default();
        let renewed = found.and_then(|_| {
            check_private(&self.files.key, Kind::Secret).map_err(|e| e.to_string())?;
            TlsAcceptors::new(&self.files)
        });
        match renewed {
            Ok(renewed) => {
                self.now.store(Arc::new(renewed));
                Look::Renewed
            }
            Err(why) => Look::Unusable(why),
        }
    }

    /// Follows the files until the gateway stops. Open connections go on under what they began with.
    pub async fn follow(self: Arc<Self>, gateway: Arc<Gateway>, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                _ = stop.changed() => return,
                () = gateway.clock.sleep(LOOK_MS) => {}
            }
            match self.look() {
                Look::Same => {}
                Look::Renewed => {
                    tracing::info!(cert = %self.files.cert.display(), "the listeners' certificate is renewed")
                }
                Look::Unusable(why) => {
                    tracing::error!(why, "the listeners keep their certificate: the new files cannot be used")
                }
            }
        }
    }
}

/// Of all the files together.
fn digest(files: &Tls) -> Result<[u8; 32], String> {
    let mut digest = Sha256::new();
    for file in [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()].into_iter().flatten() {
        let bytes = std::fs::read(file).map_err(|e| named(file, &e))?;
        // Who may read a file counts, too: putting that right is a change.
        let changed = std::fs::metadata(file).map_err(|e| named(file, &e))?;
        digest.update(changed.ctime().to_be_bytes());
        digest.update(changed.ctime_nsec().to_be_bytes());
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    }
    Ok(digest.finalize().into())
}

/// Whom a listener is for.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// Agents: with a certificate of their own, if authorities for them are configured.
    Agents,
    /// Operators: never with one.
    Operators,
}

/// TLS of one listener.
#[derive(Clone)]
pub struct Terminator {
    certificates: Arc<Certificates>,
    side: Side,
}

impl Terminator {
    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let now = self.certificates.now.load();
        match self.side {
            Side::Agents => now.agents.clone(),
            Side::Operators => now.operators.clone(),
        }
    }
}

/// How each listener accepts.
struct TlsAcceptors {
    agents: TlsAcceptor,
    operators: TlsAcceptor,
}

impl TlsAcceptors {
    fn new(files: &Tls) -> Result<Self, String> {
        let certificates = certificates(&files.cert)?;
        let key = || PrivateKeyDer::from_pem_file(&files.key).map_err(|e| named(&files.key, &e));
        let plain = ServerConfig::builder().with_no_client_auth().with_single_cert(certificates.clone(), key()?);
        let operators = TlsAcceptor::from(Arc::new(plain.map_err(|e| e.to_string())?));
        let Some(file) = &files.client_ca else { return Ok(Self { agents: operators.clone(), operators }) };
        let mut roots = RootCertStore::empty();
        for certificate in self::certificates(file)? {
            roots.add(certificate).map_err(|e| named(file, &e))?;
        }
        // Without one there is no connection: nothing that a stranger sends is read.
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().map_err(|e| named(file, &e))?;
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        let config = config.with_single_cert(certificates, key()?).map_err(|e| e.to_string())?;
        Ok(Self { agents: TlsAcceptor::from(Arc::new(config)), operators })
    }
}

/// SHA-256 of the certificate (DER) that whoever sent a request connected with, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate(String);

impl Certificate {
    /// Of a connection, if it has one.
    pub(super) fn of(connection: &ServerConnection) -> Option<Self> {
        let shown = connection.peer_certificates()?.first()?;
        Some(Self(hex::encode(Sha256::digest(shown))))
    }
}

/// Whether whoever sent a request may be this agent: some agents have a certificate of their own.
///
/// # Errors
/// `unauthenticated`.
pub(super) fn connected_as<B>(request: &Request<B>, config: &Config, agent: &str) -> Result<(), Problem> {
    let wanted = config.agents.get(agent).and_then(|agent| agent.certificate_sha256.as_ref());
    let shown = request.extensions().get::<Certificate>().map(|Certificate(shown)| shown);
    if wanted.is_none() || shown == wanted {
        return Ok(());
    }
    Err(Problem::new(Code::Unauthenticated, format!("agent `{agent}` connects with another certificate")))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = read.map_err(|e| named(file, &e))?;
    if found.is_empty() { Err(named(file, &"no certificate")) } else { Ok(found) }
}

fn named(file: &Path, why: &dyn fmt::Display) -> String {
    format!("{}: {why}", file.display())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rustls::ClientConfig;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::TlsConnector;

    use super::*;

    // Made for these tests only, good for a hundred years: an authority, a server and an agent connected_as by
    // it, and an agent connected_as by another.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/front/certificates").join(name)
    }

    fn acceptors(client_ca: Option<&str>) -> Result<TlsAcceptors, String> {
        let client_ca = client_ca.map(file);
        TlsAcceptors::new(&Tls { cert: file("server.pem"), key: file("server.key"), client_ca })
    }

    fn digest_of(name: &str) -> String {
        hex::encode(Sha256::digest(&certificates(&file(&format!("{name}.pem"))).unwrap()[0]))
    }

    /// Whether a client with this certificate, if any, is answered.
    async fn is_served(acceptor: &TlsAcceptor, name: Option<&str>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&file("authority.pem")).unwrap().remove(0)).unwrap();
        let client = ClientConfig::builder().with_root_certificates(roots);
        let client = match name {
            None => client.with_no_client_auth(),
            Some(name) => {
                let key = PrivateKeyDer::from_pem_file(file(&format!("{name}.key"))).unwrap();
                client.with_client_auth_cert(certificates(&file(&format!("{name}.pem"))).unwrap(), key).unwrap()
            }
        };
        let (near, far) = tokio::io::duplex(1 << 16);
        let acceptor = acceptor.clone();
        let certificate = name.map(digest_of);
        let server = tokio::spawn(async move {
            let mut stream = acceptor.accept(far).await?;
            let shown = Certificate::of(stream.get_ref().1).map(|Certificate(shown)| shown);
            assert_eq!(shown, certificate);
            stream.write_all(b"served").await
        });
        let connector = TlsConnector::from(Arc::new(client));
        let mut answer = [0; 6];
        let read = async {
            let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), near).await?;
            stream.read_exact(&mut answer).await
        };
        let read = read.await.is_ok();
        assert_eq!(server.await.unwrap().is_ok(), read);
        read && &answer == b"served"
    }

    #[tokio::test]
    async fn agents_need_a_certificate_of_the_authority_and_operators_none() {
        let with = acceptors(Some("authority.pem")).unwrap();
        assert!(is_served(&with.agents, Some("agent")).await);
        for nobody in [None, Some("stranger"), Some("server")] {
            assert!(!is_served(&with.agents, nobody).await, "{nobody:?}");
        }
        assert!(is_served(&with.operators, None).await);
        assert!(is_served(&acceptors(None).unwrap().agents, None).await);
        for unusable in ["server.key", "nothing.pem"] {
            let why = acceptors(Some(unusable)).err().unwrap();
            assert!(why.contains(unusable), "{why}");
        }
    }

    #[tokio::test]
    async fn renewed_files_serve_and_unusable_ones_change_nothing() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let place = |name: &str| folder.path().join(name);
        let put = |from: &str, to: &str| {
            std::fs::copy(file(from), place(to)).unwrap();
            std::fs::set_permissions(place(to), std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        put("server.pem", "cert.pem");
        put("server.key", "key.pem");
        put("authority.pem", "ca.pem");
        let files = Tls { cert: place("cert.pem"), key: place("key.pem"), client_ca: Some(place("ca.pem")) };
        let certificates = Certificates::open(&files).unwrap();
        let (agents, operators) = (certificates.of(Side::Agents), certificates.of(Side::Operators));
        assert!(is_served(&agents.acceptor(), Some("agent")).await && is_served(&operators.acceptor(), None).await);
        assert_eq!(certificates.look(), Look::Same);
        // Half of a renewal: the certificate is there, its key is not yet.
        put("stranger.pem", "cert.pem");
        assert!(matches!(certificates.look(), Look::Unusable(_)));
        assert_eq!(certificates.look(), Look::Same, "said once");
        assert!(is_served(&operators.acceptor(), None).await, "what was usable still serves");
        put("stranger.key", "key.pem");
        assert_eq!(certificates.look(), Look::Renewed);
        assert!(
            !is_served(&operators.acceptor(), None).await,
            "another certificate, which the client does not believe"
        );
        put("server.pem", "cert.pem");
        put("server.key", "key.pem");
        assert_eq!(certificates.look(), Look::Renewed);
        std::fs::remove_file(&files.key).unwrap();
        assert!(matches!(certificates.look(), Look::Unusable(why) if why.contains("key.pem")));
        put("server.key", "key.pem");
        std::fs::set_permissions(&files.key, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(certificates.look(), Look::Unusable(why) if why.contains("key.pem")), "others could read it");
        // Other authorities: who was let in by the old ones is not.
        put("server.key", "key.pem");
        put("stranger.pem", "ca.pem");
        assert_eq!(certificates.look(), Look::Renewed);
        assert!(!is_served(&agents.acceptor(), Some("agent")).await);
        assert!(is_served(&operators.acceptor(), None).await);
    }

    #[test]
    fn an_agent_may_have_a_certificate_of_its_own() {
        let token = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        let text = format!(
            "[gateway]\ntls = {{ cert = 'c', key = 'k', client-ca = 'a' }}\n\
             [agent.scout]\ntoken-sha256 = '{token}'\ncertificate-sha256 = '{}'\n\
             [agent.other]\ntoken-sha256 = '{}'",
            digest_of("agent").to_uppercase(),
            "a".repeat(64)
        );
        let parse =
            |text: &str| Config::parse(text, Path::new("/srv"), &crate::config::Environment::default()).unwrap();
        let config = parse(&text);
        let from = |name: Option<&str>| {
            let mut request = Request::new(());
            request.extensions_mut().extend(
                name.map(|name| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(Certificate(digest_of(name)));
                    extensions
                })
                .unwrap_or_default(),
            );
            request
        };
        let may = |name, agent| connected_as(&from(name), &config, agent).is_ok();
        assert!(may(Some("agent"), "scout") && !may(Some("stranger"), "scout") && !may(None, "scout"));
        assert!(may(Some("agent"), "other") && may(None, "other") && may(None, "corp.anna"));
        // Asking for another certificate holds at once, asking for none only once the edit is taken whole.
        let another = parse(&text.replace(&digest_of("agent").to_uppercase(), &digest_of("stranger")));
        let none = parse(&text.replace("certificate-sha256", "#"));
        let held = |new: &Config| config.restrict(new).agents["scout"].certificate_sha256.clone();
        assert_eq!((held(&another), held(&none)), (Some(digest_of("stranger")), Some(digest_of("agent"))));
    }
}
