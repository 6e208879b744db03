//! Connections that are carried unread.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use countersign_tests::config::SCOUT_TOKEN;
use countersign_tests::peers::{Peers, authority};
use countersign_tests::refusal::refusal;
use countersign_tests::till::{Till, plain, text};
use serde_json::json;

use crate::support::{connect, echo, run, shop, till};

/// What comes before the gateway ends a connection; silence that is not its end is a failure.
fn until_its_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    if let Err(error) = stream.read_to_end(&mut heard) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    heard
}

#[test]
fn bytes_pass_and_a_side_that_is_done_still_listens() {
    let place = echo();
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&place));
    let (mut stream, granted) = connect(&till.gateway, &place, SCOUT_TOKEN);
    assert_eq!(granted.status, 200);
    assert!(granted.header("content-length").is_none() && granted.header("transfer-encoding").is_none());
    // Neither HTTP nor TLS.
    let said = [0_u8, 255, 1, 2, 3, b'\r', b'\n'].repeat(20_000);
    let mut writing = stream.try_clone().unwrap();
    let sent = said.clone();
    let writer = std::thread::spawn(move || {
        writing.write_all(&sent).unwrap();
        writing.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    writer.join().unwrap();
    assert!(heard.strip_prefix(said.as_slice()) == Some(b"|that was all"), "{} bytes", heard.len());
}

#[test]
fn what_is_not_intercepted_is_between_the_client_and_the_seller() {
    let till = till(&[], |config| config);
    // The tests' roots are the client's business here: the seller's own certificate reaches it.
    let cacert = crate::support::roots().path().display().to_string();
    let url = shop().url("/cheap");
    let command = ["curl", "-sS", "--cacert", &cacert, "-o", "/dev/null", "-w", "%{http_code}", &url];
    let output = run(&till.gateway, &["--agent", "scout"], &command);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "402", "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!((till.amounts(), till.payments()), (vec![], vec![]), "nobody read it, so nobody paid");
}

#[test]
fn silence_ends_a_connection() {
    let place = echo();
    let till = Till::at(Peers::shared(), plain(), |config| {
        config.allow_private(&place).set(&["proxy", "idle"], "2s").set(&["proxy", "tunnels-per-agent"], 1)
    });
    let (mut stream, granted) = connect(&till.gateway, &place, SCOUT_TOKEN);
    assert_eq!(granted.status, 200);
    stream.write_all(b"hello").unwrap();
    assert_eq!(until_its_end(&mut stream), b"hello", "neither side has ended: the echo would wait for more");
    // Its place is free again as soon as it is over.
    let again = countersign_tests::wait_for(std::time::Duration::from_secs(20), || {
        let (stream, granted) = connect(&till.gateway, &place, SCOUT_TOKEN);
        (granted.status == 200).then_some(stream)
    });
    assert!(again.is_some());
}

#[test]
fn nothing_lasts_for_ever() {
    let place = echo();
    let till =
        Till::at(Peers::shared(), plain(), |config| config.allow_private(&place).set(&["proxy", "longest"], "2s"));
    let (mut stream, granted) = connect(&till.gateway, &place, SCOUT_TOKEN);
    assert_eq!(granted.status, 200);
    let (mut echoed, mut count) = ([0; 1], 0_u64);
    // Never silent: only its age can end it.
    while stream.write_all(b"x").is_ok() && stream.read_exact(&mut echoed).is_ok() {
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn an_agent_has_so_many_at_a_time() {
    let place = echo();
    let till = Till::at(Peers::shared(), plain(), |config| {
        config.allow_private(&place).set(&["proxy", "tunnels-per-agent"], 3).agent("rival", "the-rivals-own-token")
    });
    let held: Vec<_> = (0..3).map(|_| connect(&till.gateway, &place, SCOUT_TOKEN)).collect();
    assert!(held.iter().all(|(_, granted)| granted.status == 200));
    let (_, refused) = connect(&till.gateway, &place, SCOUT_TOKEN);
    refusal(&refused, 429, "rate-limited");
    let (_, other) = connect(&till.gateway, &place, "the-rivals-own-token");
    assert_eq!(other.status, 200, "agents do not share");
}

#[test]
fn who_may_no_longer_buy_has_no_connection_either() {
    let place = echo();
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&place));
    let operator = till.gateway.operator();
    let opened = operator.post("/v1/sessions", &json!({"agent": "scout", "limit": "1.00"})).json();
    let (mut stream, granted) = connect(&till.gateway, &place, text(&opened, "/token"));
    assert_eq!(granted.status, 200);
    assert_eq!(operator.delete(&format!("/v1/sessions/{}", text(&opened, "/id"))).status, 200);
    assert_eq!(until_its_end(&mut stream), b"", "ended by the gateway: the echo waits for us");
}

#[test]
fn a_gateway_that_stops_does_not_wait_for_them() {
    let place = echo();
    let mut till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&place));
    let (_stream, granted) = connect(&till.gateway, &place, SCOUT_TOKEN);
    assert_eq!(granted.status, 200);
    assert!(till.gateway.terminate().success());
}

#[test]
fn a_seller_who_is_not_there_is_told_of_before_the_connection_is_granted() {
    let gone = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().to_string();
    let till = Till::at(Peers::shared(), plain(), |config| config.allow_private(&gone));
    let (_, refused) = connect(&till.gateway, &gone, SCOUT_TOKEN);
    refusal(&refused, 502, "seller-unreachable");
    assert!(authority(&till.gateway.url) != gone);
}
