//! What an agent sends after its body: trailers are nobody's, at any door.

use super::*;
use countersign_tests::{
    config::SCOUT_TOKEN,
    peers::authority,
    tls::{Front, Roots},
};
use std::process::Command;

const TRAILERS: &str = "PAYMENT-SIGNATURE: smuggled\r\nX-PAYMENT: smuggled\r\nAuthorization: Bearer smuggled\r\n\
                        X-Forwarded-For: smuggled\r\nHost: smuggled\r\nX-Own: smuggled\r\n";

/// A seller that gives things away.
fn generous() -> Stub {
    Stub::answering_at_once(|_| goods("", "free"))
}

/// What reached the seller in its one request.
#[track_caller]
fn nothing_smuggled(stub: &Stub, body: &str) {
    let seen = stub.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let request = seen[0].to_ascii_lowercase();
    for gone in ["smuggled", "payment-signature", "x-payment", "x-own", "\r\ntrailer:", "\r\nte:"] {
        assert!(!request.contains(gone), "{gone}: {request}");
    }
    assert!(request.contains(body), "{request}");
}

/// A chunked body with trailers after it.
fn chunked(pieces: &[&str]) -> String {
    let pieces: String = pieces.iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len())).collect();
    format!("{pieces}0\r\n{TRAILERS}\r\n")
}

#[test]
fn at_the_fetch_api_they_are_read_by_nobody() {
    let scene = Scene::before(generous(), plain(), |config| config);
    let order = json!({"url": scene.stub.url("/fetch"), "method": "POST", "body": "hello"}).to_string();
    let head = format!(
        "POST /v1/fetch HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {SCOUT_TOKEN}\r\nContent-Type: application/json\r\n\
         TE: trailers\r\nTrailer: PAYMENT-SIGNATURE, Authorization\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n",
        authority(&scene.gateway.url)
    );
    let answer = http::raw(authority(&scene.gateway.url), format!("{head}{}", chunked(&[&order])).as_bytes());
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("free"), "{answer}");
    nothing_smuggled(&scene.stub, "hello");
}

#[test]
fn through_the_proxy_they_end_where_the_body_does() {
    // Kept whole, and passed on as it comes.
    for (most, pieces) in [("1MiB", ["first", "second"]), ("4B", ["first", "second"])] {
        let scene = Scene::before(generous(), plain(), |config| config.set(&["proxy", "max-replay-body"], most));
        let credentials = STANDARD.encode(format!("agent:{SCOUT_TOKEN}"));
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: {}\r\nProxy-Authorization: Basic {credentials}\r\nTE: trailers\r\n\
             Trailer: PAYMENT-SIGNATURE\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
            scene.stub.url("/proxy"),
            scene.stub.authority
        );
        let answer = http::raw(authority(&scene.gateway.url), format!("{head}{}", chunked(&pieces)).as_bytes());
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("free"), "{most}: {answer}");
        nothing_smuggled(&scene.stub, "second");
    }
}

/// Connects through the proxy, speaks HTTP/2 in the connection and sends trailers after the body; prints the status.
const CLIENT: &str = r#"
const [proxy, place, token] = process.argv.slice(1);
const [net, tls, http2] = ['net', 'tls', 'http2'].map((name) => require(name));
const [host, port] = proxy.split(':');
const credentials = Buffer.from('agent:' + token).toString('base64');
const plain = net.connect(Number(port), host, () => plain.write(
  `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\nProxy-Authorization: Basic ${credentials}\r\n\r\n`));
plain.once('data', (head) => {
  if (!String(head).includes(' 200 ')) throw new Error(String(head));
  const secure = tls.connect({socket: plain, servername: 'localhost', ALPNProtocols: ['h2'], rejectUnauthorized: false}, () => {
    const session = http2.connect('https://' + place, {createConnection: () => secure});
    const call = session.request({':method': 'POST', ':path': '/h2'}, {waitForTrailers: true});
    call.on('wantTrailers', () => call.sendTrailers({
      'payment-signature': 'smuggled', 'x-payment': 'smuggled', authorization: 'Bearer smuggled', 'x-own': 'smuggled'}));
    call.on('response', (headers) => { console.log(headers[':status']); session.destroy(); plain.destroy(); });
    call.end('second');
  });
});
"#;

#[test]
fn in_an_intercepted_connection_of_http_2_too() {
    let roots = Roots::new();
    for most in ["1MiB", "4B"] {
        let stub = generous();
        let front = Front::before(&stub.authority, &roots);
        let scene = Scene::before(stub, plain(), |config| {
            config
                .set(&["egress", "roots"], roots.path().display().to_string())
                .set(&["proxy", "intercept"], vec!["localhost:*"])
                .set(&["proxy", "max-replay-body"], most)
                .allow_private(&front.address)
        });
        let client = Command::new("node")
            .args(["-e", CLIENT, authority(&scene.gateway.url), &front.authority, SCOUT_TOKEN])
            .output()
            .expect("this suite needs Node");
        let told = String::from_utf8_lossy(&[client.stdout, client.stderr].concat()).into_owned();
        assert_eq!(told.trim(), "200", "{most}");
        nothing_smuggled(&scene.stub, "second");
    }
}
