//! Whom clients that trust the authority believe, as a client sees it: real handshakes in memory.
#![expect(clippy::unwrap_used, reason = "a test: whatever is not as expected must fail it loudly")]

use std::sync::Arc;

use countersign_ca::{Authority, Host, Leaves, Validity};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

#[derive(Debug)]
struct At(u64);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(std::time::Duration::from_secs(self.0)))
    }
}

fn name(text: &str) -> Host {
    text.parse().map_or_else(|_| Host::Name(text.to_owned()), Host::Address)
}

/// The authority's certificate for these hosts, good for a month.
fn trusted(authority: &Authority, hosts: &[&str]) -> CertificateDer<'static> {
    let hosts: Vec<Host> = hosts.iter().map(|host| name(host)).collect();
    let pem = authority.certificate(&hosts, Validity { now: NOW, seconds: 30 * DAY, serial: [7; 16] }).unwrap();
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

/// A client that trusts `root` and wants `asked` meets a server that is `host`; the protocol they agree on.
fn meet(leaves: &Leaves, root: CertificateDer<'static>, host: &str, asked: &str, now: u64) -> Result<Vec<u8>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(At(now)))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let asked = ServerName::try_from(asked.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), asked).unwrap();
    let mut server = ServerConnection::new(leaves.server(&name(host), NOW, [9; 16]).unwrap()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut read = bytes.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
            server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        }
        let mut bytes = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut read = bytes.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
            client.process_new_packets().map_err(|e| format!("client: {e}"))?;
        }
    }
    Ok(server.alpn_protocol().unwrap_or_default().to_vec())
}

fn leaves() -> Leaves {
    Leaves::new(Authority::generate().unwrap())
}

#[test]
fn a_host_that_was_named_is_believed() {
    let leaves = leaves();
    let root = trusted(leaves.authority(), &["a.example", "127.0.0.1", "2001:db8::1"]);
    for host in ["a.example", "127.0.0.1", "2001:db8::1", "deep.a.example"] {
        assert_eq!(meet(&leaves, root.clone(), host, host, NOW), Ok(b"h2".to_vec()), "{host}");
    }
}

#[test]
fn nobody_else_is_whatever_the_key_signs() {
    let leaves = leaves();
    let names = trusted(leaves.authority(), &["a.example"]);
    let addresses = trusted(leaves.authority(), &["127.0.0.1"]);
    for (root, host) in [
        (&names, "b.example"),
        (&names, "example"),
        (&names, "evila.example"),
        (&names, "127.0.0.1"),
        (&names, "::1"),
        (&addresses, "127.0.0.2"),
        (&addresses, "::1"),
        (&addresses, "a.example"),
    ] {
        let met = meet(&leaves, root.clone(), host, host, NOW);
        assert!(met.as_ref().is_err_and(|why| why.starts_with("client: ")), "{host}: {met:?}");
    }
    let foreign = trusted(&Authority::generate().unwrap(), &["a.example"]);
    assert!(meet(&leaves, foreign, "a.example", "a.example", NOW).is_err());
}

#[test]
fn a_client_that_means_another_host_is_refused_in_the_handshake() {
    let leaves = leaves();
    let root = trusted(leaves.authority(), &["a.example", "127.0.0.1"]);
    // A name where the connection is to another, none where there should be one, one where there is none.
    for (host, asked) in [("a.example", "b.example"), ("a.example", "127.0.0.1"), ("127.0.0.1", "a.example")] {
        let met = meet(&leaves, root.clone(), host, asked, NOW);
        assert!(met.as_ref().is_err_and(|why| why.starts_with("server: ")), "{host} {asked}: {met:?}");
    }
}

#[test]
fn certificates_end() {
    let leaves = leaves();
    let root = trusted(leaves.authority(), &["a.example"]);
    let meet = |now| meet(&leaves, root.clone(), "a.example", "a.example", now).is_ok();
    assert!(meet(NOW - 3_000) && meet(NOW + 6 * DAY));
    assert!(!meet(NOW - 2 * 3_600) && !meet(NOW + 8 * DAY));
}

#[test]
fn hosts_are_made_once_and_few_are_kept() {
    let leaves = leaves();
    let of = |host: &str, now| leaves.server(&name(host), now, [1; 16]).unwrap();
    let first = of("a.example", NOW);
    assert!(Arc::ptr_eq(&first, &of("a.example", NOW + 3 * DAY)));
    let renewed = of("a.example", NOW + 4 * DAY);
    assert!(!Arc::ptr_eq(&first, &renewed), "renewed while the old one still holds");
    assert!(!Arc::ptr_eq(&renewed, &of("a.example", NOW)), "a clock that was put right");
    let kept = of("a.example", NOW);
    for n in 0..300 {
        let _ = of(&format!("h{n}.example"), NOW + 1);
    }
    assert!(!Arc::ptr_eq(&kept, &of("a.example", NOW + 1)), "the oldest goes");
}

#[test]
fn the_key_is_read_back_and_never_shown() {
    let authority = Authority::generate().unwrap();
    let pem = authority.key_pem();
    assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n") && pem.lines().all(|line| line.len() <= 64));
    let again = Authority::from_pem(pem.as_bytes()).unwrap();
    let leaves = Leaves::new(again);
    let root = trusted(&authority, &["a.example"]);
    assert!(meet(&leaves, root, "a.example", "a.example", NOW).is_ok());
    let shown = format!("{authority:?} {leaves:?} {:?}", leaves.server(&name("a.example"), NOW, [1; 16]).unwrap());
    let secret: String = pem.lines().nth(1).unwrap().to_owned();
    assert!(!shown.contains(&secret) && !shown.contains("PRIVATE"), "{shown}");
    for bad in ["", "nonsense", &pem.replace("PRIVATE", "PUBLIC")] {
        assert!(Authority::from_pem(bad.as_bytes()).is_err());
    }
}
