//! Keys: how they change, and what becomes of agents whose issuer cannot be asked.

use countersign_tests::{issuer::Key, process::free_port, refusal::refusal, till::bought};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::{Scene, plainly};

#[test]
fn keys_rotate_without_anybodys_help() {
    let scene = Scene::new();
    let (first, second) = (scene.token("jwt-scout"), Key::new("second"));
    bought(&scene.client(&first).fetch(&scene.url(), plainly()), "0.001");
    // Both at first, as issuers do it.
    scene.issuer.show(&[&scene.key, &second]);
    let later = second.token(&scene.issuer.claims("jwt-scout"));
    scene.until(&later, 200);
    assert_eq!(scene.look(&first).status, 200);
    scene.issuer.show(&[&second]);
    scene.until(&first, 401);
    bought(&scene.client(&later).fetch(&scene.url(), plainly()), "0.001");
    // Another key of the same name.
    let third = Key::new("second");
    scene.issuer.show(&[&third]);
    scene.until(&later, 401);
    scene.until(&third.token(&scene.issuer.claims("jwt-scout")), 200);
    assert_eq!(scene.moved(), 2);
}

#[test]
fn strangers_do_not_make_the_gateway_ask() {
    let scene = Scene::with(|config, _| config.set(&["issuer", "corp", "keys-refetch"], "1h"));
    assert_eq!(scene.look(&scene.token("jwt-scout")).status, 200);
    for n in 0..50 {
        let stranger = Key::new(&format!("key-{n}"));
        refusal(&scene.look(&stranger.token(&scene.issuer.claims("jwt-scout"))), 401, "unauthenticated");
    }
    assert_eq!(scene.issuer.asked(), 1, "once, for the first token");
    assert_eq!(scene.look(&scene.token("jwt-scout")).status, 200);
}

#[test]
fn bad_keys_are_no_keys_and_good_ones_work_without_a_restart() {
    let scene = Scene::with(|config, _| config.set(&["issuer", "corp", "keys-keep"], "2s"));
    let token = scene.token("jwt-scout");
    let jwk = scene.key.jwk().to_string();
    let bad = [
        ("200 OK", "<html>".to_owned()),
        ("200 OK", format!("{{\"keys\":[{jwk},{jwk}]}}")),
        ("200 OK", format!("{{\"keys\":[{jwk}],\"keys\":[{jwk}]}}")),
        ("200 OK", format!("{{\"keys\":[{jwk}]}}{}", " ".repeat(300_000))),
        ("200 OK", json!({"keys": [{"kty": "oct", "kid": "first", "k": "AAAA"}]}).to_string()),
        ("404 Not Found", format!("{{\"keys\":[{jwk}]}}")),
        (&format!("302 Found\r\nLocation: {}", scene.issuer.url()), format!("{{\"keys\":[{jwk}]}}")),
    ];
    for (status, body) in &bad {
        scene.issuer.answer(status, body);
        // Those of before are believed for two seconds, and no longer.
        scene.until(&token, 503);
        let told = refusal(&scene.client(&token).fetch(&scene.url(), plainly()), 503, "issuer-unavailable");
        assert_eq!(told["retry"], true, "{told}");
        scene.issuer.show(&[&scene.key]);
        scene.until(&token, 200);
    }
    assert_eq!(scene.moved(), 0);
}

#[test]
fn an_issuer_nobody_reaches_vouches_for_nobody() {
    let port = free_port();
    let scene = Scene::with(|config, _| {
        let url = format!("http://127.0.0.1:{port}/keys");
        config.allow_private(&format!("127.0.0.1:{port}")).set(&["issuer", "corp", "jwks"], url)
    });
    refusal(&scene.client(&scene.token("jwt-scout")).fetch(&scene.url(), plainly()), 503, "issuer-unavailable");
    assert_eq!(scene.gateway.agent().get("/v1/payments").status, 200, "others are not concerned");

    // Keys come through the same guard as everything else.
    let mut scene = Scene::new();
    let config = scene.gateway.config().set(&["egress", "allow-private"], vec![scene.url().split('/').nth(2).unwrap()]);
    scene.gateway.write_config(config);
    scene.gateway.restart();
    refusal(&scene.look(&scene.token("jwt-scout")), 503, "issuer-unavailable");
    assert!(scene.gateway.log().contains("not listed in egress.allow-private"), "{}", scene.gateway.log());
    assert_eq!(scene.moved(), 0);
}

#[test]
fn an_issuer_is_discovered_where_it_says_it_is() {
    let scene = Scene::with(|config, _| config.remove(&["issuer", "corp", "jwks"]));
    let token = scene.token("jwt-scout");
    bought(&scene.client(&token).fetch(&scene.url(), plainly()), "0.001");
    let other = |issuer: String, jwks: String| {
        let scene = Scene::with(|config, _| config.remove(&["issuer", "corp", "jwks"]));
        scene.issuer.discover(&json!({"issuer": issuer, "jwks_uri": jwks}));
        refusal(&scene.look(&scene.token("jwt-scout")), 503, "issuer-unavailable");
        scene.gateway.log()
    };
    let log = other(format!("{}/", scene.issuer.url()), scene.issuer.jwks_url());
    assert!(log.contains("it is another issuer's"), "{log}");
    assert_eq!(scene.moved(), 1);
}

#[test]
fn keys_in_a_file_are_read_again_and_must_be_ours() {
    let mut scene = Scene::new();
    let path = scene.gateway.dir().join("keys.json");
    let write = |keys: &[&Key], mode: u32| {
        let next = path.with_extension("next");
        let keys: Vec<_> = keys.iter().map(|key| key.jwk()).collect();
        fs::write(&next, json!({ "keys": keys }).to_string()).unwrap();
        fs::set_permissions(&next, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(next, &path).unwrap();
    };
    write(&[&scene.key], 0o644);
    let config = scene.gateway.config().remove(&["issuer", "corp", "jwks"]);
    let config = config.set(&["issuer", "corp", "jwks-file"], "keys.json").set(&["issuer", "corp", "keys-keep"], "2s");
    scene.gateway.write_config(config);
    scene.gateway.restart();
    let (token, second) = (scene.token("jwt-scout"), Key::new("second"));
    bought(&scene.client(&token).fetch(&scene.url(), plainly()), "0.001");
    write(&[&second], 0o644);
    scene.until(&second.token(&scene.issuer.claims("jwt-scout")), 200);
    scene.until(&token, 401);
    // A file that others may write says nothing.
    write(&[&second], 0o666);
    scene.until(&second.token(&scene.issuer.claims("jwt-scout")), 503);
    assert_eq!((scene.moved(), scene.issuer.asked()), (1, 0));
}
