//! TLS of the two listeners: one certificate for both, and authorities for those who may connect as agents.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use http::Request;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Tls};
use crate::problem::{Code, Problem};

/// How each listener accepts.
pub struct TlsAcceptors {
    /// Agents: with a certificate of their own, if authorities for them are configured.
    pub agents: TlsAcceptor,
    /// Operators: never with one.
    pub operators: TlsAcceptor,
}

impl TlsAcceptors {
    /// Reads the files.
    ///
    /// # Errors
    /// Which of them cannot be used.
    pub fn new(files: &Tls) -> Result<Self, String> {
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
