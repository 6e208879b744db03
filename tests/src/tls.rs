//! TLS in front of sellers that speak plain HTTP, under a certificate authority of the tests' own.

use countersign_ca::{Authority, Host, Leaves, Validity};
use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// Under what name sellers are certified: the one that every machine resolves to itself.
pub const NAME: &str = "localhost";

/// An authority that nobody believes who was not told to.
#[derive(Debug)]
pub struct Roots {
    leaves: Leaves,
    folder: TempDir,
}

impl Default for Roots {
    fn default() -> Self {
        Self::new()
    }
}

impl Roots {
    /// A new one, for [`NAME`] only.
    pub fn new() -> Self {
        let leaves = Leaves::new(Authority::generate().unwrap());
        let validity = Validity { now: now(), seconds: 86_400, serial: [1; 16] };
        let certificate = leaves.authority().certificate(&[Host::Name(NAME.to_owned())], validity).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let roots = Self { leaves, folder };
        std::fs::write(roots.path(), certificate).unwrap();
        std::fs::set_permissions(roots.path(), Permissions::from_mode(0o644)).unwrap();
        roots
    }

    /// Its certificate, in PEM.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("roots.pem")
    }
}

/// A port where TLS is spoken in front of a server that does not.
#[derive(Debug)]
pub struct Front {
    /// `localhost:PORT`.
    pub authority: String,
    /// The same as the gateway's configuration names it: `127.0.0.1:PORT`.
    pub address: String,
    _runtime: Runtime,
}

impl Front {
    /// In front of `host:port`, until it is dropped.
    pub fn before(upstream: &str, roots: &Roots) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let tls = roots.leaves.server(&Host::Name(NAME.to_owned()), now(), [2; 16]).unwrap();
        let mut tls = ServerConfig::clone(&tls);
        // What is behind it speaks nothing else.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let upstream = upstream.to_owned();
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(upstream).await else { return };
                    let _ended = copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { authority: format!("{NAME}:{port}"), address: format!("127.0.0.1:{port}"), _runtime: runtime }
    }

    /// Its URL with a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.authority)
    }
}

/// Whether a file holds nothing but certificates in PEM; how many.
pub fn certificates(file: &Path) -> usize {
    let text = std::fs::read_to_string(file).unwrap();
    assert!(!text.contains("PRIVATE"), "a key");
    text.matches("-----BEGIN CERTIFICATE-----").count()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
