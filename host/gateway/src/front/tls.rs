//! TLS of the two listeners: one certificate for both, and authorities for those who may connect as agents.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

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

    // Made for these tests only, good for a hundred years: an authority, a server and an agent certified by
    // it, and an agent certified by another.
    fn file(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/front/certificates").join(name)
    }

    fn acceptors(client_ca: Option<&str>) -> Result<TlsAcceptors, String> {
        let client_ca = client_ca.map(file);
        TlsAcceptors::new(&Tls { cert: file("server.pem"), key: file("server.key"), client_ca })
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
        let server = tokio::spawn(async move { acceptor.accept(far).await?.write_all(b"served").await });
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
}
