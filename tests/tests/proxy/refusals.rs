//! What the proxy must refuse, asked for byte by byte.

use std::net::TcpListener;

use countersign_tests::config::{Policy, SCOUT_TOKEN};
use countersign_tests::http::{Request, Response};
use countersign_tests::peers::{Peers, authority};
use countersign_tests::process::Gateway;
use countersign_tests::refusal::refusal;
use countersign_tests::stub::Stub;
use countersign_tests::till::{Till, plain, text};
use countersign_tests::tls::Front;
use serde_json::json;

use crate::support::{ask, ask_raw, basic, connect, echo, roots, run, said, shop, till};

const FREE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nfree";

/// A gateway in front of one plain-http seller that gives things away and writes down who asks.
fn generous() -> (Till<'static>, Stub) {
    let stub = Stub::start(FREE);
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&stub.authority));
    (till, stub)
}

fn get(gateway: &Gateway, url: &str, more: &[&str]) -> Response {
    let line = format!("GET {url} HTTP/1.1");
    let host = format!("Host: {}", authority(url));
    ask(gateway, &[&[line.as_str(), &host], more].concat(), "")
}

#[test]
fn strangers_are_asked_who_they_are() {
    let (till, stub) = generous();
    let bearer = format!("Proxy-Authorization: Bearer {SCOUT_TOKEN}");
    let wrong = format!("Proxy-Authorization: {}", basic("somebody-elses-token"));
    let operators = format!("Proxy-Authorization: {}", basic(countersign_tests::config::ALICE_TOKEN));
    let direct = format!("Authorization: Bearer {SCOUT_TOKEN}");
    let twice = format!("Proxy-Authorization: {0}\r\nProxy-Authorization: {0}", basic(SCOUT_TOKEN));
    let lines = [format!("GET {} HTTP/1.1", stub.url("/")), format!("CONNECT {} HTTP/1.1", stub.authority)];
    for line in &lines {
        let host = format!("Host: {}", stub.authority);
        for credentials in [
            "X: none",
            &bearer,
            &wrong,
            &operators,
            &direct,
            &twice,
            "Proxy-Authorization: Basic !",
            "Proxy-Authorization: Basic ",
        ] {
            let answer = ask_raw(&till.gateway, &[line, &host, credentials, "Connection: close"], "");
            let problem = refusal(&answer, 407, "unauthenticated");
            assert!(text(&problem, "/detail").contains("Proxy-Authorization: Basic"), "{problem}");
            let challenge = answer.header("proxy-authenticate").unwrap();
            assert!(challenge.starts_with("Basic realm="), "{challenge}");
        }
    }
    assert_eq!(stub.seen(), Vec::<String>::new());
    let answer = get(&till.gateway, &stub.url("/"), &[]);
    assert_eq!((answer.status, answer.text().as_str()), (200, "free"));
    assert_eq!(answer.header("countersign-source"), Some("seller"));
    assert!(answer.header("countersign-purchase").is_some());
    let seen = stub.seen().concat().to_lowercase();
    assert!(!seen.contains("proxy-") && !seen.contains(SCOUT_TOKEN), "{seen}");
}

#[test]
fn a_session_that_is_over_opens_nothing_and_a_foreign_one_shows_nothing() {
    let till = till(&[], |config| config);
    let operator = till.gateway.operator();
    let open = || {
        let opened = operator.post("/v1/sessions", &json!({"agent": "scout", "limit": "1.00"})).json();
        (text(&opened, "/id").to_owned(), text(&opened, "/token").to_owned())
    };
    let ((_, mine), (other_id, other)) = (open(), open());
    let url = format!("{}/cheap", till.peers.v2);
    let buy = |token: &str| {
        let credentials = format!("Proxy-Authorization: {}", basic(token));
        let (line, host) = (format!("GET {url} HTTP/1.1"), format!("Host: {}", authority(&url)));
        ask_raw(&till.gateway, &[&line, &host, &credentials, "Countersign-Purchase: p-1", "Connection: close"], "")
    };
    let bought = buy(&mine);
    assert_eq!((bought.status, bought.header("countersign-purchase")), (200, Some("p-1")), "{}", bought.text());
    let foreign = refusal(&buy(&other), 409, "purchase-conflict");
    assert!(foreign.get("payment").is_none(), "{foreign}");
    let again = buy(&mine);
    assert_eq!((again.status, again.header("countersign-replayed")), (200, Some("true")));

    assert_eq!(operator.delete(&format!("/v1/sessions/{other_id}")).status, 200);
    refusal(&buy(&other), 403, "session-expired");
    let (_, refused) = connect(&till.gateway, "192.0.2.1:443", &other);
    refusal(&refused, 403, "session-expired");
    assert_eq!(till.amounts(), [1_000]);
}

#[test]
fn connections_lead_only_where_the_dialer_allows() {
    let place = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let listed = place.local_addr().unwrap().port();
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&format!("127.0.0.1:{listed}")));
    let unlisted = authority(&Stub::start(FREE).authority).to_owned();
    let port = unlisted.rsplit_once(':').unwrap().1;
    let own = [authority(&till.gateway.url), authority(&till.gateway.admin_url), authority(&till.peers.rpc)];
    let places = [
        own[0].to_owned(),
        own[1].to_owned(),
        own[2].to_owned(),
        own[0].replace("127.0.0.1", "localhost"),
        own[0].replace("127.0.0.1", "[::ffff:127.0.0.1]"),
        own[0].replace("127.0.0.1", "[::ffff:7f00:1]"),
        unlisted.clone(),
        format!("localhost:{port}"),
        format!("[::1]:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        "127.0.0.1:443".to_owned(),
        "[::ffff:10.0.0.1]:443".to_owned(),
        "[64:ff9b::a00:1]:443".to_owned(),
        "169.254.169.254:80".to_owned(),
        "100.64.0.1:443".to_owned(),
        "10.0.0.1:443".to_owned(),
        "0.0.0.0:443".to_owned(),
        // A public address, but no port of the web's.
        "1.1.1.1:22".to_owned(),
        "1.1.1.1:25".to_owned(),
        "[2606:4700::1111]:8443".to_owned(),
    ];
    for place in &places {
        let (_, refused) = connect(&till.gateway, place, SCOUT_TOKEN);
        refusal(&refused, 400, "egress-forbidden");
        let answer = get(&till.gateway, &format!("http://{place}/"), &[]);
        refusal(&answer, 400, "egress-forbidden");
    }
    for place in [
        "127.1:443",
        "0x7f000001:443",
        "2130706433:443",
        "user@1.1.1.1:443",
        "user:secret@1.1.1.1:443",
        "example.com",
        "example.com:0",
        "example.com:0443",
        "example.com.:443",
        "1.1.1.1",
    ] {
        let (_, refused) = connect(&till.gateway, place, SCOUT_TOKEN);
        // What is not even an authority ends before it reaches us.
        if !refused.body.is_empty() {
            refusal(&refused, 400, "bad-request");
        }
        assert_eq!(refused.status, 400, "{place}");
    }
    let (_stream, granted) = connect(&till.gateway, &format!("127.0.0.1:{listed}"), SCOUT_TOKEN);
    assert_eq!(granted.status, 200);
    place.accept().unwrap();
}

#[test]
fn a_request_means_one_thing_or_nothing() {
    let (till, stub) = generous();
    let (url, place) = (stub.url("/"), stub.authority.clone());
    let line = format!("GET {url} HTTP/1.1");
    let bad = |lines: &[&str]| {
        let answer = ask(&till.gateway, lines, "");
        refusal(&answer, 400, "bad-request");
    };
    bad(&[&line, "Host: other.example"]);
    bad(&[&line, &format!("Host: {place}"), &format!("Host: {place}")]);
    bad(&[&line, &format!("Host: user@{place}")]);
    bad(&[&format!("GET http://user:secret@{place}/ HTTP/1.1"), &format!("Host: {place}")]);
    bad(&[&format!("GET http://{place}/%2e%2e/x HTTP/1.1"), &format!("Host: {place}")]);
    bad(&[&format!("TRACE {url} HTTP/1.1"), &format!("Host: {place}")]);
    bad(&[&format!("GET ftp://{place}/ HTTP/1.1"), &format!("Host: {place}")]);
    let (_, refused) = connect_with_host(&till.gateway, "1.1.1.1:443", "other.example:443");
    refusal(&refused, 400, "bad-request");
    assert_eq!(stub.seen(), Vec::<String>::new());
}

fn connect_with_host(gateway: &Gateway, place: &str, host: &str) -> ((), Response) {
    let lines = [format!("CONNECT {place} HTTP/1.1"), format!("Host: {host}")];
    ((), ask(gateway, &[&lines[0], &lines[1]], ""))
}

#[test]
fn what_only_the_gateway_may_say_reaches_no_seller() {
    let (till, stub) = generous();
    for header in [
        "X-PAYMENT: e30=",
        "x-payment: e30=",
        "PAYMENT-SIGNATURE: e30=",
        "Payment-Response: e30=",
        "Authorization: Payment abc",
        "Sign-In-With-X: abc",
        "X-Forwarded-For: 1.1.1.1",
        "Forwarded: for=1.1.1.1",
        "X-HTTP-Method-Override: DELETE",
        "X-Original-URL: /admin",
        "Countersign-State: settled",
    ] {
        refusal(&get(&till.gateway, &stub.url("/"), &[header]), 400, "bad-request");
    }
    let leak = format!("X-Debug: {SCOUT_TOKEN}");
    refusal(&get(&till.gateway, &stub.url("/"), &[&leak]), 400, "bad-request");
    assert_eq!(stub.seen(), Vec::<String>::new());

    // A payment header named as one of the connection's goes with the connection's.
    let smuggled = ["X-PAYMENT: e30=", "Connection: X-PAYMENT, close", "TE: trailers", "Upgrade: h2c", "Keep-Alive: 5"];
    let answer = get(&till.gateway, &stub.url("/"), &smuggled);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let seen = stub.seen().concat().to_lowercase();
    for gone in ["x-payment", "upgrade", "keep-alive", "trailers", "proxy-", SCOUT_TOKEN] {
        assert!(!seen.contains(gone), "{gone}: {seen}");
    }
}

#[test]
fn two_lengths_are_one_request() {
    let stub = Stub::answering(|_| FREE.to_owned());
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&stub.authority));
    let hidden = format!("GET {} HTTP/1.1\r\nHost: {}\r\nX-PAYMENT: e30=\r\n\r\n", stub.url("/hidden"), stub.authority);
    let (line, host) = (format!("POST {} HTTP/1.1", stub.url("/seen")), format!("Host: {}", stub.authority));
    let authorization = format!("Proxy-Authorization: {}", basic(SCOUT_TOKEN));
    for lengths in
        [["Content-Length: 4", "Transfer-Encoding: chunked"], ["Transfer-Encoding: chunked", "Content-Length: 4"]]
    {
        let before = stub.seen().len();
        let body = format!("2\r\nhi\r\n0\r\n\r\n{hidden}");
        // Kept open if it were for the client: what follows the body must not be a request all the same.
        let answer = ask_raw(&till.gateway, &[&line, &host, &authorization, lengths[0], lengths[1]], &body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = stub.seen();
        assert_eq!(seen.len(), before + 1, "{seen:?}");
        let last = seen.last().unwrap().to_lowercase();
        assert!(last.starts_with("post /seen ") && last.ends_with("\r\n\r\nhi"), "{last}");
        assert!(last.contains("content-length: 2\r\n") && !last.contains("transfer-encoding"), "{last}");
    }
    let differing = ask(&till.gateway, &[&line, &host, "Content-Length: 4", "Content-Length: 5"], "abcde");
    assert_eq!(differing.status, 400);
    let not_chunked = ask(&till.gateway, &[&line, &host, "Transfer-Encoding: gzip"], "abcde");
    assert_eq!(not_chunked.status, 400);
}

#[test]
fn a_seller_is_who_the_connection_was_made_to() {
    let other = Front::before(authority(&Peers::shared().v2), roots());
    let till = till(&[&other], |config| config.set(&["proxy", "intercept"], vec!["localhost:*"]));
    let curl = |more: &[&str]| {
        let script = [&["curl", "-sS", "-m", "60", "-w", "%{http_code}"], more].concat();
        let output = run(&till.gateway, &["--agent", "scout"], &script);
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let url = shop().url("/cheap");
    let port = shop().authority.rsplit_once(':').unwrap().1;
    // The TLS client means another host than its CONNECT: an alert instead of a certificate.
    let to = format!("::localhost:{port}");
    let (code, text) = curl(&["-k", "--connect-to", &to, &format!("https://other.example:{port}/cheap")]);
    assert_eq!(code, Some(35), "{text}");
    for host in ["other.example", &other.authority, "localhost"] {
        for version in ["--http1.1", "--http2"] {
            let (_, text) = curl(&[version, "-H", &format!("Host: {host}"), &url]);
            assert!(text.contains("bad-request") && text.ends_with("400"), "{host} {version}: {text}");
        }
    }
    assert_eq!(till.amounts(), Vec::<u128>::new());
    let (code, text) = curl(&[&url]);
    assert_eq!((code, till.amounts()), (Some(0), vec![1_000]), "{text}");
}

#[test]
fn a_mandate_without_the_door_lets_nobody_through() {
    let stub = Stub::start(FREE);
    let till = Till::at(Peers::shared(), plain(), |config| {
        config.allow_private(&stub.authority).mandate(&["doors"], vec!["fetch"])
    });
    let problem = refusal(&get(&till.gateway, &stub.url("/"), &[]), 403, "no-mandate");
    assert!(text(&problem, "/detail").contains("`proxy`"), "{problem}");
    let (_, refused) = connect(&till.gateway, &stub.authority, SCOUT_TOKEN);
    refusal(&refused, 403, "no-mandate");
    assert_eq!(stub.seen(), Vec::<String>::new());
    assert_eq!(till.agent().fetch(&stub.url("/"), json!({})).status, 200);
}

#[test]
fn who_must_wait_is_refused_until_people_have_spoken() {
    let review = Policy::new("review", "builtin:review-threshold").setting("above", "0.0001");
    let till = till(&[], |config| config.policy(review));
    let url = format!("{}/cheap", till.peers.v2);
    let problem = refusal(&get(&till.gateway, &url, &[]), 403, "approval-required");
    let (purchase, approval) = (text(&problem, "/purchase").to_owned(), text(&problem, "/approval/id").to_owned());
    assert_eq!(till.amounts(), Vec::<u128>::new());
    let approved = till.gateway.operator().post(&format!("/v1/approvals/{approval}/approve"), &json!({}));
    assert_eq!(approved.status, 200, "{}", approved.text());
    let answer = get(&till.gateway, &url, &[]);
    assert_eq!((answer.status, answer.header("countersign-purchase")), (200, Some(&*purchase)), "{}", answer.text());
    assert_eq!(till.amounts(), [1_000]);
}

#[test]
fn no_402_is_ever_passed_on() {
    let answer = "HTTP/1.1 402 Payment Required\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}";
    let stub = Stub::start(answer);
    let till = Till::at(Peers::shared(), plain(), |config| {
        config.allow_private(&stub.authority).set(&["proxy", "max-replay-body"], "8B")
    });
    refusal(&get(&till.gateway, &stub.url("/"), &[]), 422, "unpayable-offer");
    let line = format!("POST {} HTTP/1.1", stub.url("/"));
    let host = format!("Host: {}", stub.authority);
    for (length, body) in
        [("Content-Length: 9", "123456789"), ("Transfer-Encoding: chunked", "9\r\n123456789\r\n0\r\n\r\n")]
    {
        let problem = refusal(&ask(&till.gateway, &[&line, &host, length], body), 413, "body-too-large");
        assert_eq!(problem["retry"], false);
    }
    refusal(&ask(&till.gateway, &[&line, &host, "Content-Length: 8"], "12345678"), 422, "unpayable-offer");
    assert_eq!(stub.seen().len(), 4);
}

#[test]
fn tokens_stay_out_of_the_log_and_the_key_stays_in_its_file() {
    let till = till(&[], |config| config);
    let output =
        run(&till.gateway, &["--agent", "scout", "--intercept", "localhost:*"], &["sh", "-c", "echo $https_proxy"]);
    let proxy = said(&output);
    let token = proxy.trim().split_once("agent:").unwrap().1.split_once('@').unwrap().0;
    assert!(token.starts_with("css_"), "{proxy}");
    let _ = connect(&till.gateway, &echo(), token);
    let log = till.gateway.log();
    assert!(!log.contains(token) && !log.contains(SCOUT_TOKEN) && !log.contains("PRIVATE KEY"));
    let key = std::fs::read_to_string(till.gateway.dir().join("countersign.db.ca-key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----") && !log.contains(secret));
    let answer = Request::new("GET", &format!("{}/v1/sessions", till.gateway.admin_url))
        .bearer(countersign_tests::config::ALICE_TOKEN)
        .send();
    assert!(!answer.text().contains(token) && !answer.text().contains(secret));
}
