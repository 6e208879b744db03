//! Hostile JWTs, hostile keys, and what a good JWT makes of a caller.

mod hostile;
mod minting;

use std::path::Path;

use countersign_core::spend::Principal;
use countersign_core::time::Timestamp;
use serde_json::{Value, json};

use super::whom;
use crate::config::{Config, Environment};
use countersign_wire::jose::{KeySet, Refused, Unverified};
use minting::{Kind, Mint};

/// The moment of all these tests, in seconds.
const NOW: u64 = 1_800_000_000;
const ISSUER: &str = "https://login.example.com";

const CONFIG: &str = r#"
[issuer.corp]
issuer = "https://login.example.com"
audience = ["countersign", "https://pay.example.com"]
claims = { user = "name", workspace = "team", roles = "groups", client = "client", project = "project", task = "task" }
roles-allowed = ["analyst", "reader"]
max-lifetime = "1h"

[issuer.corp.template]
roles = ["guest"]

[issuer.closed]
issuer = "https://closed.example.com"
audience = "countersign"
algorithms = ["ES256"]

[agent.scout]
issuer = "corp"
workspace = "research"
user = "alice"

[agent.robot]
issuer = "closed"
subject = "system:serviceaccount:default:Robot"

[agent.other]
token-sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
"#;

fn config() -> Config {
    Config::parse(CONFIG, Path::new("/srv/gateway"), &Environment::default()).unwrap()
}

/// Claims of a good token for `subject`.
fn claims(subject: &str) -> Value {
    json!({"iss": ISSUER, "sub": subject, "aud": "countersign", "iat": NOW - 10, "exp": NOW + 600})
}

/// `claims` with some of them changed; null removes one.
fn changed(mut claims: Value, changes: Value) -> Value {
    let (Some(claims_of), Value::Object(changes)) = (claims.as_object_mut(), changes) else { panic!("not objects") };
    for (name, value) in changes {
        if value.is_null() {
            claims_of.remove(&name)
        } else {
            claims_of.insert(name, value)
        };
    }
    claims
}

/// Whom a token speaks for, where these keys are every issuer's.
fn ask_in(config: &Config, token: &str, keys: &KeySet, now: u64) -> Result<Principal, Refused> {
    let token = Unverified::parse(token)?;
    let said = token.claims()?.get("iss").and_then(|iss| iss.as_str().map(str::to_owned)).unwrap_or_default();
    let found = config.issuers.iter().find(|(_, issuer)| issuer.issuer == said);
    let (name, _) = found.ok_or("its issuer is not known here")?;
    let key = keys.get(&token.kid).ok_or("its issuer has no such key")?;
    whom(&token, key, name, config, Timestamp::from_secs(now))
}

fn ask(token: &str, keys: &KeySet) -> Result<Principal, Refused> {
    ask_in(&config(), token, keys, NOW)
}

#[test]
fn a_good_token_of_every_algorithm_is_believed() {
    for kind in [Kind::Rsa, Kind::P256, Kind::Ed25519] {
        let mint = Mint::new(kind, "one");
        let who = ask(&mint.token(&claims("scout")), &mint.keys()).unwrap();
        assert_eq!((who.agent.as_str(), who.workspace.as_deref()), ("scout", Some("research")), "{kind:?}");
    }
}

#[test]
fn the_configuration_counts_before_a_claim() {
    let mint = Mint::new(Kind::P256, "one");
    let keys = mint.keys();
    let said = json!({"name": "Bob", "team": "Sales", "groups": ["analyst", "Admin", "analyst", "a b"],
        "client": "Acme", "project": "apollo", "task": "t-42"});
    let scout = ask(&mint.token(&changed(claims("scout"), said.clone())), &keys).unwrap();
    let own = Principal {
        agent: "scout".into(),
        user: Some("alice".into()),
        workspace: Some("research".into()),
        roles: vec!["analyst".into()],
        session: None,
        client: Some("acme".into()),
        project: Some("apollo".into()),
        task: Some("t-42".into()),
    };
    assert_eq!(scout, own, "workspace and user are pinned; only listed roles are given");

    // Whoever has no table is somebody of the issuer's, and never one of those who have.
    let guest = ask(&mint.token(&changed(claims("other"), said)), &keys).unwrap();
    let (user, workspace) = (Some("bob".into()), Some("sales".into()));
    let roles = vec!["analyst".into(), "guest".into()];
    assert_eq!(guest, Principal { agent: "corp.other".into(), user, workspace, roles, ..own });
    assert_eq!(
        ask(&mint.token(&changed(claims("scout"), json!({"groups": "reader"}))), &keys).unwrap().roles,
        ["reader"]
    );

    // Without a template there are no others, and a subject is compared byte for byte.
    let closed = |subject: &str| {
        let claims = changed(claims(subject), json!({"iss": "https://closed.example.com", "groups": ["analyst"]}));
        ask(&mint.token(&claims), &keys)
    };
    let robot = closed("system:serviceaccount:default:Robot").unwrap();
    assert_eq!((robot.agent.as_str(), robot.roles.len()), ("robot", 0), "this issuer gives no roles");
    for stranger in ["robot", "system:serviceaccount:default:robot", "scout", "other", ""] {
        assert_eq!(closed(stranger), Err("this agent is not configured here"), "{stranger}");
    }
}

#[test]
fn names_have_one_spelling_or_are_none() {
    let mint = Mint::new(Kind::P256, "one");
    let keys = mint.keys();
    let not_a_name = "its agent is not a name: with its issuer's, 1 to 64 of a-z, 0-9, `.`, `_` and `-`";
    for subject in ["Scout", "SCOUT", "", "a b", "a/b", "é", "alice@example.com", &"x".repeat(60)] {
        assert_eq!(ask(&mint.token(&claims(subject)), &keys), Err(not_a_name), "{subject}");
    }
    for (name, value) in [
        ("name", json!("a b")),
        ("team", json!("")),
        ("client", json!(7)),
        ("project", json!(["a"])),
        ("task", json!("x".repeat(65))),
    ] {
        let said = changed(claims("guest"), json!({ name: value }));
        assert_eq!(ask(&mint.token(&said), &keys), Err("one of its claims is not a name"), "{name}");
    }
    let said = changed(claims("guest"), json!({"groups": ["analyst", 1]}));
    assert_eq!(ask(&mint.token(&said), &keys), Err("its roles are neither a text nor a list of texts"));
    assert_eq!(ask(&mint.token(&changed(claims("x"), json!({"sub": 7}))), &keys), Err("it does not name an agent"));
}

#[test]
fn what_an_edit_takes_away_holds_at_once() {
    let mint = Mint::new(Kind::P256, "one");
    let (keys, old) = (mint.keys(), config());
    let scout = mint.token(&changed(claims("scout"), json!({"groups": ["analyst", "reader"]})));
    let guest = mint.token(&claims("guest"));
    let held = |from: &str, to: &str| {
        assert!(CONFIG.contains(from), "{from}");
        let text = CONFIG.replacen(from, to, 1);
        old.restrict(&Config::parse(&text, Path::new("/srv/gateway"), &Environment::default()).unwrap())
    };
    let told = |config: &Config, token: &str| ask_in(config, token, &keys, NOW);
    assert_eq!(told(&held("[\"countersign\", ", "["), &scout), Err("it is for another audience"));
    assert_eq!(
        told(&held("max-lifetime = \"1h\"", "max-lifetime = \"1m\""), &scout).unwrap_err(),
        "it is valid for longer than its issuer may say"
    );
    assert_eq!(told(&held("\"analyst\", ", ""), &scout).unwrap().roles, ["reader"]);
    assert_eq!(
        told(&held("[issuer.corp.template]\nroles = [\"guest\"]\n", ""), &guest),
        Err("this agent is not configured here")
    );
    for (from, to) in [
        ("issuer = \"https://login.example.com\"", "issuer = \"https://login.example.org\""),
        ("max-lifetime", "jwks = \"https://keys.example.com\"\nmax-lifetime"),
    ] {
        assert_eq!(told(&held(from, to), &scout), Err("its issuer is not known here"), "{to}");
    }
    let nobody = held(
        "issuer = \"corp\"\nworkspace",
        "token-sha256 = '60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752'\nworkspace",
    );
    assert_eq!(nobody.agents["scout"].token_sha256, None, "a token is not added before the edit is taken whole");
    assert_eq!(told(&nobody, &scout).unwrap().agent, "corp.scout");
    let same = old.restrict(&old);
    assert_eq!((same.issuers, same.agents), (old.issuers, old.agents));
}
