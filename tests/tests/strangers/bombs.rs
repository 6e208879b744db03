//! Answers that are small on the wire and large in memory for whoever decompresses them. The gateway never does.

use super::*;
use countersign_tests::{
    config::SCOUT_TOKEN,
    http::Request,
    refusal::refusal,
    till::{header, text},
};
use std::process::Command;

/// What a bomb becomes for whoever decompresses it, in bytes.
const LARGE: u64 = 200 << 20;

/// Zeros in gzip, about a thousandth of [`LARGE`].
fn bomb() -> &'static [u8] {
    static BOMB: OnceLock<Vec<u8>> = OnceLock::new();
    BOMB.get_or_init(|| {
        let made = Command::new("sh").args(["-c", &format!("head -c {LARGE} /dev/zero | gzip -9")]).output().unwrap();
        assert!(made.status.success() && made.stdout.len() < 250_000, "{}", made.stdout.len());
        made.stdout
    })
}

fn squeezed(text: &str) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut gzip.stdin.take().unwrap(), text.as_bytes()).unwrap();
    gzip.wait_with_output().unwrap().stdout
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// The most memory that the gateway ever had, in bytes.
fn peak(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// As much as an answer may cost at most, far less than decompressing one does.
#[track_caller]
fn is_modest(before: u64, gateway: &Gateway) {
    let more = peak(gateway).saturating_sub(before);
    assert!(more < LARGE / 2, "{more} bytes more than before");
}

/// Nobody was asked to compress anything.
#[track_caller]
fn asked_for_nothing_compressed(stub: &Stub) {
    for request in stub.seen() {
        let request = request.to_ascii_lowercase();
        let asked: Vec<_> = request.lines().filter(|line| line.starts_with("accept-encoding:")).collect();
        assert_eq!(asked, ["accept-encoding: identity"], "{request}");
    }
}

#[test]
fn terms_in_a_compressed_body_are_no_terms() {
    let v1 = http::get(&world().world().seller("honest-v1").unwrap().url("/quote")).send().text();
    let codings = ["gzip", "GZIP", "x-gzip, identity", "identity, gzip", "br"];
    let terms = squeezed(&v1);
    // `GET /N`: the N-th coding of the bomb, `GET /terms/N` of terms that would be good.
    let stub = Stub::answering_at_once(move |request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        let coding = path.rsplit('/').next().and_then(|n| codings.get(n.parse::<usize>().ok()?)).unwrap();
        let body = if path.starts_with("/terms") { &terms } else { bomb() };
        answer(&format!("402 Payment Required\r\nContent-Encoding: {coding}"), body)
    });
    let scene = Scene::before(stub, plain(), |config| config);
    let before = peak(&scene.gateway);
    for (n, coding) in codings.iter().enumerate() {
        for path in [format!("/{n}"), format!("/terms/{n}")] {
            let order = json!({"headers": {"Accept-Encoding": "gzip, br"}});
            let problem = refusal(&scene.agent().fetch(&scene.stub.url(&path), order), 422, "unpayable-offer");
            assert!(text(&problem, "/detail").contains("compressed"), "{path} {coding}: {problem}");
        }
    }
    is_modest(before, &scene.gateway);
    asked_for_nothing_compressed(&scene.stub);
    assert_eq!((payments(&scene.stub).len(), scene.ledger().len()), (0, 0));

    // The same terms as they are, and said to be so, are paid.
    let unpaid = answer("402 Payment Required\r\nContent-Encoding: identity", v1.as_bytes());
    let stub = Stub::answering_at_once(move |request| {
        if payment(request).is_some() { goods("", "goods").into_bytes() } else { unpaid.clone() }
    });
    let scene = Scene::before(stub, plain(), |config| config);
    assert_eq!(scene.fetch(json!({})).text(), "goods");
}

#[test]
fn a_bomb_beside_good_terms_is_thrown_away_unread() {
    let head = format!("402 Payment Required\r\nContent-Encoding: gzip\r\nPAYMENT-REQUIRED: {}", encoded(&honest()));
    let unpaid = answer(&head, bomb());
    let stub = Stub::answering_at_once(move |request| {
        if payment(request).is_some() { goods("", "goods").into_bytes() } else { unpaid.clone() }
    });
    let scene = Scene::before(stub, plain(), |config| config);
    let before = peak(&scene.gateway);
    assert_eq!(scene.fetch(json!({})).text(), "goods");
    is_modest(before, &scene.gateway);
    asked_for_nothing_compressed(&scene.stub);
}

#[test]
fn a_bomb_that_was_paid_for_is_passed_on_and_kept_as_it_is() {
    let paid = answer(&format!("200 OK\r\nContent-Encoding: gzip\r\n{}X-Own: 1", receipt()), bomb());
    let scene = Scene::selling(&honest(), paid);
    let before = peak(&scene.gateway);
    let first = scene.fetch(json!({"purchase_id": "bomb"}));
    assert_eq!((first.status, header(&first, "content-encoding")), (200, "gzip"), "{}", first.text());
    assert!(first.body == bomb(), "{} bytes", first.body.len());
    let kept = scene.fetch(json!({"purchase_id": "bomb"}));
    assert_eq!((header(&kept, "countersign-replayed"), header(&kept, "content-encoding")), ("true", "gzip"));
    assert!(kept.body == bomb(), "{} bytes", kept.body.len());

    // A model is shown a piece of what came, and nothing larger.
    let call = json!({"name": "paid_fetch", "arguments": {"url": scene.stub.url("/model")}});
    let told = Request::new("POST", &format!("{}/mcp", scene.gateway.url))
        .header("accept", "application/json, text/event-stream")
        .bearer(SCOUT_TOKEN)
        .json(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}))
        .send();
    assert_eq!(told.status, 200, "{}", told.text());
    assert!(told.text().contains("body_base64"), "{}", told.text());
    assert!(told.body.len() < 4 * bomb().len(), "{} bytes", told.body.len());
    is_modest(before, &scene.gateway);
    asked_for_nothing_compressed(&scene.stub);
}

#[test]
fn a_free_bomb_is_passed_on_as_it_is() {
    let free = answer("200 OK\r\nContent-Encoding: gzip", bomb());
    let scene = Scene::before(Stub::answering_at_once(move |_| free.clone()), plain(), |config| config);
    let before = peak(&scene.gateway);
    let passed = scene.fetch(json!({}));
    assert_eq!((passed.status, header(&passed, "content-encoding")), (200, "gzip"));
    assert!(passed.body == bomb(), "{} bytes", passed.body.len());
    is_modest(before, &scene.gateway);
}
