use std::collections::VecDeque;
use std::io;
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use countersign_core::ledger::Fut;
use tokio::io::AsyncWriteExt as _;

use super::*;
use crate::clock::SystemClock;
use crate::config::Allowed;

#[tokio::test]
async fn a_body_that_drips_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 402 Payment Required\r\ncontent-length: 100000\r\n\r\n").await.unwrap();
        // Each piece well within the patience for one, until nobody listens any more.
        while stream.write_all(b"x").await.is_ok() {
            SystemClock.sleep(5).await;
        }
    });
    let patience = Patience { idle_ms: 200, ..Patience::default() };
    let dialer = Dialer::new(Arc::new(SystemClock), tls(), Box::new(SystemNames), patience);
    let target = Target::parse(&format!("http://{address}/")).unwrap();
    let route = Route { target, address, listed: true };
    let mut connection = dialer.connect(&route).await.unwrap();
    let mut answer = dialer.send(&mut connection, Request::new(Body::default())).await.unwrap();
    let read = dialer.read(answer.body_mut(), 1 << 20).await;
    assert!(matches!(&read, Err(CallError::Broken(why)) if why.contains("in time")), "{read:?}");
}

/// A name whose owner answers each question with the next of these; after the last, nothing any more.
#[derive(Default)]
struct Turning {
    answers: Mutex<VecDeque<Vec<SocketAddr>>>,
    asked: Arc<AtomicUsize>,
}

impl Names for Turning {
    fn addresses<'a>(&'a self, _: &'a str, _: u16) -> Fut<'a, io::Result<Vec<SocketAddr>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let next = self.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            match next {
                Some(addresses) => Ok(addresses),
                None => std::future::pending().await,
            }
        })
    }
}

/// A dialer for whom the name answers so, and how often it was asked.
fn dialer(answers: &[&[SocketAddr]]) -> (Dialer, Arc<AtomicUsize>) {
    let names = Turning { answers: Mutex::new(answers.iter().map(|one| one.to_vec()).collect()), ..Turning::default() };
    let asked = Arc::clone(&names.asked);
    let patience = Patience { connect_ms: 2_000, ..Patience::default() };
    (Dialer::new(Arc::new(SystemClock), tls(), Box::new(names), patience), asked)
}

/// Two servers of this machine at one port: the first may be reached, the second may not.
struct Places {
    good: TcpListener,
    bad: TcpListener,
    egress: Egress,
}

impl Places {
    fn new() -> Self {
        loop {
            let good = TcpListener::bind("127.0.0.2:0").unwrap();
            let port = good.local_addr().unwrap().port();
            let Ok(bad) = TcpListener::bind(("127.0.0.1", port)) else { continue };
            good.set_nonblocking(true).unwrap();
            bad.set_nonblocking(true).unwrap();
            let allowed = Allowed::parse(&good.local_addr().unwrap().to_string()).unwrap();
            return Self { good, bad, egress: Egress { allow_private: vec![allowed], ..Egress::default() } };
        }
    }

    fn good(&self) -> SocketAddr {
        self.good.local_addr().unwrap()
    }

    fn bad(&self) -> SocketAddr {
        self.bad.local_addr().unwrap()
    }

    fn target(&self) -> Target {
        Target::parse(&format!("http://turns.example:{}/", self.good().port())).unwrap()
    }
}

/// How many connections somebody got.
fn calls(listener: &TcpListener) -> usize {
    std::iter::from_fn(|| listener.accept().ok()).count()
}

async fn forbidden(dialer: &Dialer, target: Target, egress: &Egress) -> String {
    match dialer.route(target, egress).await {
        Err(CallError::Forbidden(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_that_turns_is_looked_at_again_and_never_between_look_and_connection() {
    let places = Places::new();
    let (dialer, asked) = dialer(&[&[places.good()], &[places.bad()], &[places.good()]]);
    let route = dialer.route(places.target(), &places.egress).await.unwrap();
    assert_eq!(route.address, places.good());
    // By now the name says something else. The payment goes where the price came from, and so does a tunnel.
    dialer.connect(&route).await.unwrap();
    dialer.connect(&route).await.unwrap();
    dialer.tunnel(&route).await.unwrap();
    assert_eq!((calls(&places.good), calls(&places.bad), asked.load(Ordering::SeqCst)), (3, 0, 1));
    let why = forbidden(&dialer, places.target(), &places.egress).await;
    assert!(why.contains(&places.bad().to_string()), "{why}");
    // An earlier refusal is not remembered either.
    assert_eq!(dialer.route(places.target(), &places.egress).await.unwrap().address, places.good());
    assert_eq!((calls(&places.bad), asked.load(Ordering::SeqCst)), (0, 3));
}

#[tokio::test]
async fn a_name_never_leads_to_the_gateway_itself() {
    let places = Places::new();
    let own = places.bad();
    let SocketAddr::V4(v4) = own else { panic!("{own}") };
    let mapped = SocketAddr::new(v4.ip().to_ipv6_mapped().into(), own.port());
    let (dialer, _) = dialer(&[&[places.good()], &[own], &[mapped], &[mapped, own]]);
    dialer.set_own(vec![own]);
    // Even where the operator lists the name, whatever it says.
    let mut egress = places.egress.clone();
    egress.allow_private.push(Allowed::parse(&format!("turns.example:{}", own.port())).unwrap());
    assert_eq!(dialer.route(places.target(), &egress).await.unwrap().address, places.good());
    for _ in 0..3 {
        let why = forbidden(&dialer, places.target(), &egress).await;
        assert!(why.contains("the gateway's own"), "{why}");
    }
    assert_eq!(calls(&places.bad), 0);
}

#[tokio::test]
async fn of_a_mixed_answer_only_what_may_be_reached_is() {
    let places = Places::new();
    let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), places.good().port());
    let mixed = [places.bad(), at("10.0.0.1"), at("::1"), places.good(), at("169.254.169.254")];
    let none = [places.bad(), at("10.0.0.1"), at("::1")];
    let (dialer, asked) = dialer(&[&mixed, &none, &[]]);
    let route = dialer.route(places.target(), &places.egress).await.unwrap();
    assert_eq!(route.address, places.good());
    dialer.connect(&route).await.unwrap();
    assert_eq!((calls(&places.good), calls(&places.bad)), (1, 0));
    forbidden(&dialer, places.target(), &places.egress).await;
    let why = forbidden(&dialer, places.target(), &places.egress).await;
    assert!(why.contains("no address"), "{why}");
    assert_eq!((calls(&places.bad), asked.load(Ordering::SeqCst)), (0, 3));
    // A name that says nothing is not waited for.
    let silent = dialer.route(places.target(), &places.egress).await;
    assert!(matches!(&silent, Err(CallError::Unreachable(why)) if why.contains("in time")), "{silent:?}");
}

#[tokio::test]
async fn an_address_in_disguise_is_the_address_it_hides() {
    let disguised = [
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:127.0.0.1",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::7f00:1",
        "2002:7f00:1::",
        "2002:a00:1::1",
        "0.0.0.0",
        "::",
        "fe80::1",
        "fd00:ec2::254",
    ];
    for text in disguised {
        let target = Target::parse("https://turns.example/").unwrap();
        let (dialer, _) = dialer(&[&[SocketAddr::new(text.parse().unwrap(), 443)]]);
        let why = forbidden(&dialer, target, &Egress::default()).await;
        assert!(why.contains("not a public address"), "{text}: {why}");
    }
    // What is public is: nothing is refused for its spelling alone.
    let target = Target::parse("https://turns.example/").unwrap();
    let public: SocketAddr = "[2606:4700::1111]:443".parse().unwrap();
    let (dialer, _) = dialer(&[&[public]]);
    assert_eq!(dialer.route(target, &Egress::default()).await.unwrap().address, public);
}
