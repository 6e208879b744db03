//! What passes through: everything a client and a seller say to each other, as it is, in both directions.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use countersign_tests::config::SCOUT_TOKEN;
use countersign_tests::peers::{Peers, authority};
use countersign_tests::stub::Stub;
use countersign_tests::till::{Till, plain};
use countersign_tests::tls::Front;

use crate::support::{answer, ask, basic, dial, roots, run, said, till};

#[test]
fn redirects_cookies_and_challenges_pass_as_themselves() {
    let stub = Stub::start(
        "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
         WWW-Authenticate: Basic realm=\"shop\"\r\nWWW-Authenticate: Payment id=1\r\nX-Own: kept\r\n\
         Countersign-State: settled\r\nX-PAYMENT-RESPONSE: e30=\r\nAlt-Svc: h3=\":443\"\r\nConnection: close\r\n\
         Content-Length: 5\r\n\r\nmoved",
    );
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&stub.authority));
    let (line, host) = (format!("GET {} HTTP/1.1", stub.url("/here?q=1")), format!("Host: {}", stub.authority));
    let answer = ask(&till.gateway, &[&line, &host, "Cookie: c=3", "X-Mine: 1", "Authorization: Bearer own"], "");
    assert_eq!((answer.status, answer.text().as_str()), (302, "moved"));
    let all = |name: &str| -> Vec<&str> {
        answer.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    };
    assert_eq!(all("location"), ["/elsewhere"]);
    assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(all("www-authenticate"), ["Basic realm=\"shop\""], "nobody is provoked into paying");
    assert_eq!(all("x-own"), ["kept"]);
    assert_eq!(all("countersign-source"), ["seller"]);
    for gone in ["countersign-state", "x-payment-response", "alt-svc", "countersign-seller-location"] {
        assert_eq!(all(gone), Vec::<&str>::new(), "{gone}");
    }
    let seen = stub.seen();
    assert_eq!(seen.len(), 1, "a redirect is never followed");
    let request = seen[0].to_lowercase();
    for sent in ["get /here?q=1 http/1.1", "cookie: c=3", "x-mine: 1", "authorization: bearer own"] {
        assert!(request.contains(sent), "{sent}: {request}");
    }
    assert!(request.contains(&format!("host: {}", stub.authority)));
    let fetched = till.agent().fetch(&stub.url("/"), serde_json::json!({}));
    assert_eq!(fetched.header("countersign-seller-location"), Some("/elsewhere"), "the fetch door renames them");
    assert!(fetched.header("location").is_none());
}

/// Both ways at once: the seller answers a piece before it has the next one.
#[test]
fn large_uploads_and_answers_stream() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let till = Till::at(Peers::shared(), plain(), |config| {
        config.allow_private(&place).set(&["proxy", "max-replay-body"], "4B")
    });
    let seller = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut read = Vec::new();
        let mut until = |stream: &mut std::net::TcpStream, end: &[u8]| {
            let mut byte = [0];
            while !read.ends_with(end) {
                stream.read_exact(&mut byte).unwrap();
                read.push(byte[0]);
            }
            String::from_utf8(read.clone()).unwrap()
        };
        until(&mut stream, b"first");
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").unwrap();
        let head = until(&mut stream, b"second");
        stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
        head
    });
    let mut client = dial(&till.gateway);
    let head = format!(
        "POST http://{place}/ HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: {}\r\nConnection: close\r\nContent-Length: 11\r\n\r\n",
        basic(SCOUT_TOKEN)
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(b"first").unwrap();
    // Its answer begins while its request goes on.
    let mut begun = Vec::new();
    let mut byte = [0];
    while !begun.ends_with(b"one\r\n") {
        client.read_exact(&mut byte).unwrap();
        begun.push(byte[0]);
    }
    client.write_all(b"second").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("two"), "{rest}");
    let request = seller.join().unwrap().to_lowercase();
    assert!(request.contains("content-length: 11"), "{request}");
}

#[test]
fn an_upload_is_passed_on_whole_however_it_is_framed() {
    let stub = Stub::answering(|request| {
        let length = request.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len()).to_string();
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{length}", length.len())
    });
    let front = Front::before(&stub.authority, roots());
    let till = till(&[&front], |config| {
        config.set(&["proxy", "max-replay-body"], "64KiB").set(&["proxy", "intercept"], vec!["localhost:*"])
    });
    std::fs::write(till.gateway.dir().join("large"), "x".repeat(1 << 20)).unwrap();
    std::fs::write(till.gateway.dir().join("small"), "x".repeat(1 << 10)).unwrap();
    for (file, size) in [("large", 1 << 20), ("small", 1 << 10)] {
        for version in ["--http1.1", "--http2"] {
            let data = format!("@{file}");
            let command = ["curl", "-sS", version, "--data-binary", &data, &front.url("/upload")];
            let output = run(&till.gateway, &["--agent", "scout"], &command);
            assert_eq!(said(&output), size.to_string(), "{file} {version}");
        }
    }
}

#[test]
fn many_requests_share_an_http_2_connection() {
    let till = till(&[], |config| config);
    let free = crate::support::shop().url("/free");
    let urls: Vec<&str> = std::iter::repeat_n(free.as_str(), 20).collect();
    let command = [&["curl", "-sS", "-Z", "--http2", "-w", "%{num_connects}\n"], urls.as_slice()].concat();
    let output = said(&run(&till.gateway, &["--agent", "scout", "--intercept", "localhost:*"], &command));
    assert_eq!(output.matches("\"free\"").count(), 20, "{output}");
    assert_eq!(till.amounts(), Vec::<u128>::new());
}

#[test]
fn an_absolute_https_request_is_a_purchase_too() {
    let till = till(&[], |config| config);
    let url = crate::support::shop().url("/cheap");
    let mut client = dial(&till.gateway);
    let head = format!(
        "GET {url} HTTP/1.1\r\nHost: {}\r\nProxy-Authorization: {}\r\nConnection: close\r\n\r\n",
        authority(&url),
        basic(SCOUT_TOKEN)
    );
    client.write_all(head.as_bytes()).unwrap();
    let bought = answer(&mut client);
    assert_eq!((bought.status, bought.header("countersign-amount")), (200, Some("0.001 USD")), "{}", bought.text());
    assert_eq!(till.amounts(), [1_000]);
}
