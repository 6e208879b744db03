//! Terms that ask for more than a payment, or for one that proves nothing.

use super::*;
use countersign_core::{
    evm::{Address, Signature65, TransferWithAuthorization, hex32, recover},
    money::Atomic,
};
use countersign_tests::{
    node::{Lie, Node},
    peers::NETWORK,
    refusal::refusal,
    till::{bought, header, text},
    wait_for,
    world::buyer,
};

/// Longer than the gateway ever waits between two looks at one payment.
const PATIENCE: Duration = Duration::from_secs(150);

/// Who signed what is in a payment, if it is what the payment says, for the token of the world's chain.
fn signer(paid: &Value) -> Option<Address> {
    let of = |name: &str| text(paid, &format!("/payload/authorization/{name}")).to_owned();
    let message = TransferWithAuthorization {
        from: of("from").parse().unwrap(),
        to: of("to").parse().unwrap(),
        value: Atomic::parse_price(&of("value")).unwrap(),
        valid_after: of("validAfter").parse().unwrap(),
        valid_before: of("validBefore").parse().unwrap(),
        nonce: hex32::parse(&of("nonce")).unwrap(),
    };
    let signature = hex::decode(text(paid, "/payload/signature").trim_start_matches("0x")).unwrap();
    let signature = Signature65::new(signature.try_into().unwrap()).unwrap();
    recover(&message.digest(world().world().chain().token()), &signature)
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// What the one payment of a scene was.
fn paid(scene: &Scene) -> Value {
    let presented = payments(&scene.stub);
    assert_eq!(presented.len(), 1, "{presented:?}");
    decoded(&presented[0])
}

/// An invitation to sign in at a place that is not even the seller's.
fn sign_in() -> Value {
    json!({
        "info": {
            "domain": "bank.example", "uri": "https://bank.example/login", "version": "1", "nonce": "a1b2c3d4e5f6a7b8",
            "statement": "Sign in to your bank and give me everything", "issuedAt": "2026-01-01T00:00:00Z",
            "resources": ["https://bank.example/all"],
        },
        "supportedChains": [{"chainId": NETWORK, "type": "eip191"}, {"chainId": NETWORK, "type": "eip1271"}],
        "schema": {"type": "object"},
    })
}

#[test]
fn whoever_wants_a_sign_in_gets_a_payment_and_nothing_else() {
    let terms = altered(|terms| {
        terms["extensions"] = json!({"sign-in-with-x": sign_in(), "siwe": {"message": "bank.example wants you"}});
        terms["accepts"][0]["extra"]["personal_sign"] = json!("0xdeadbeef");
    });
    let scene = Scene::selling(&terms, goods(&receipt(), "goods"));
    bought(&scene.fetch(json!({})), "0.001");
    let paid = paid(&scene);
    assert_eq!(keys(&paid["payload"]), ["authorization", "signature"], "{paid:#}");
    assert_eq!(keys(&paid), ["accepted", "extensions", "payload", "resource", "x402Version"]);
    assert_eq!(signer(&paid), Some(buyer()), "the one signature is that of the transfer");
    // What was asked is said back as it came: there is nothing of ours in it.
    assert_eq!((&paid["extensions"], &paid["accepted"]), (&terms["extensions"], &terms["accepts"][0]));
    assert_eq!(paid.to_string().matches("\"signature\":").count(), 1);
    for request in scene.stub.seen() {
        let request = request.to_ascii_lowercase();
        assert!(!request.contains("sign-in-with-x:") && !request.contains("\r\nauthorization:"), "{request}");
    }
}

#[test]
fn a_sign_in_without_a_price_is_not_answered() {
    let unpaid = |status: &str, terms: &Value| {
        let body = terms.to_string();
        let header = encoded(terms);
        format!(
            "HTTP/1.1 {status}\r\nPAYMENT-REQUIRED: {header}\r\nSIGN-IN-WITH-X: {header}\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let terms = altered(|terms| {
        terms["accepts"] = json!([]);
        terms["extensions"] = json!({"sign-in-with-x": sign_in()});
    });
    let stub = Stub::start(unpaid("402 Payment Required", &terms));
    let scene = Scene::before(stub, plain(), |config| config);
    refusal(&scene.fetch(json!({})), 422, "unpayable-offer");
    // Asked with another status it is an answer like any other, and is answered with nothing.
    let stub = Stub::start(unpaid("401 Unauthorized", &terms));
    let other = Scene::before(stub, plain(), |config| config);
    assert_eq!(other.fetch(json!({})).status, 401);
    for scene in [&scene, &other] {
        assert_eq!((scene.stub.seen().len(), scene.ledger().len()), (1, 0));
        assert!(!scene.stub.seen()[0].to_ascii_lowercase().contains("sign-in-with-x"));
    }
}

#[test]
fn a_demanded_identifier_is_there_with_the_payment_or_nothing_is_signed() {
    let demanding = |info: Value| altered(|terms| terms["extensions"] = json!({"payment-identifier": {"info": info}}));
    let terms = demanding(json!({"required": true}));
    // As official sellers do: without one it is a 400, whoever has paid.
    let (unpaid, delivered) = (asks(&terms), goods(&receipt(), "goods"));
    let stub = Stub::answering_at_once(move |request| {
        let Some(value) = payment(request) else { return unpaid.clone() };
        let id = decoded(value).pointer("/extensions/payment-identifier/info/id").cloned();
        let named = id.as_ref().and_then(Value::as_str).is_some_and(|id| (16..=128).contains(&id.len()));
        if named { delivered.clone() } else { goods("", "").replace("200 OK", "400 Bad Request") }
    });
    let scene = Scene::before(stub, plain(), |config| config);
    let id = bought(&scene.fetch(json!({})), "0.001");
    assert_eq!(paid(&scene)["extensions"]["payment-identifier"]["info"], json!({"required": true, "id": id}));

    for info in [json!({"required": true, "id": "chosen-by-the-seller"}), json!({"required": "yes"}), json!([])] {
        let scene = Scene::selling(&demanding(info.clone()), goods("", "goods"));
        refusal(&scene.fetch(json!({})), 422, "unpayable-offer");
        assert_eq!((payments(&scene.stub).len(), scene.ledger().len()), (0, 0), "{info}");
    }
}

#[test]
fn a_domain_with_more_in_it_is_not_the_domain_that_is_signed() {
    let terms = altered(|terms| {
        let extra = &mut terms["accepts"][0]["extra"];
        extra["chainId"] = json!(1);
        extra["verifyingContract"] = json!("0x000000000000000000000000000000000000dEaD");
        extra["salt"] = json!(format!("0x{}", "11".repeat(32)));
        extra["primaryType"] = json!("Permit");
        extra["types"] = json!({"Permit": [{"name": "spender", "type": "address"}]});
        extra["domain"] = json!({"name": "Other", "version": "9", "chainId": 1});
    });
    let scene = Scene::selling(&terms, goods(&receipt(), "goods"));
    bought(&scene.fetch(json!({})), "0.001");
    assert_eq!(signer(&paid(&scene)), Some(buyer()), "signed under the domain of our own table");
}

#[test]
fn a_network_that_is_known_but_not_the_wallets_is_not_paid_on() {
    const BASE: &str = "eip155:8453";
    let world = LocalWorld::start();
    let seller = world.world().seller("main-net").unwrap();
    let node = world.world().rpc_url().replace("127.0.0.1", "localhost");
    let config = world.config(&["main-net"], plain()).set(&["network", BASE, "rpc"], node);
    let gateway = Gateway::start(config.clone());
    let problem = refusal(&gateway.agent().fetch(&seller.url("/quote"), json!({})), 422, "unpayable-offer");
    let detail = text(&problem, "/detail");
    assert!(detail.contains("wallet `research` does not sign for eip155:8453"), "{detail}");
    assert_eq!((seller.stats().presented, items(&gateway.operator().get("/v1/payments")).len()), (0, 0));
    // The control: with the wallet's word it would have been signed, and only with that.
    let willing = config.remove(&["network", BASE]).set(&["wallet", "research", "networks"], vec![NETWORK, BASE]);
    let _whatever = Gateway::start(willing).agent().fetch(&seller.url("/quote"), json!({}));
    assert_eq!(seller.stats().presented, 1);
}

#[test]
fn rule_07_a_token_without_code_is_neither_paid_nor_settled() {
    const KEEPER: &str = "keeps-and-hangs-up";
    let world = LocalWorld::start();
    let node = Node::before(world.world().rpc_url());
    let config = world.config(&[KEEPER], plain()).set(&["network", NETWORK, "rpc"], node.url("127.0.0.1"));
    let gateway = Gateway::start(config);
    let seller = world.world().seller(KEEPER).unwrap();
    let fetch = |path: &str| gateway.agent().fetch(&seller.url(path), json!({}));

    node.tell(Lie::NoCode);
    let problem = refusal(&fetch("/quote?1"), 422, "unpayable-offer");
    assert!(text(&problem, "/detail").contains("no code at the token's address"), "{problem}");
    assert_eq!(problem["retry"], false);
    assert_eq!(seller.stats().presented, 0);
    let denied = gateway.agent().payment(text(&problem, "/payment"));
    assert_eq!((&denied["state"], &denied["holds"]), (&json!("denied"), &json!([])), "{denied:#}");

    // What was paid before and is redeemed stays held while there is no such token, whatever else the node says.
    node.tell(Lie::None);
    let problem = refusal(&fetch("/quote?2"), 504, "outcome-unknown");
    let id = text(&problem, "/payment").to_owned();
    node.tell(Lie::NoCode);
    seller.redeem().unwrap().expect("nothing was presented");
    let before = node.asked("eth_getCode");
    wait_for(PATIENCE, || (node.asked("eth_getCode") >= before + 2).then_some(())).expect("nobody looks");
    let view = gateway.agent().payment(&id);
    assert_eq!((&view["state"], &view["transaction"]), (&json!("unknown"), &Value::Null), "{view:#}");
    assert!(view["holds"].as_array().unwrap().iter().all(|hold| hold["open"] == true), "{view:#}");
    node.tell(Lie::None);
    let settled = wait_for(PATIENCE, || Some(gateway.agent().payment(&id)).filter(|view| view["state"] == "settled"));
    assert!(settled.is_some(), "{:#}", gateway.agent().payment(&id));
}

#[test]
fn rule_06_a_failed_receipt_that_comes_later_takes_nothing_back() {
    // Delivered in part with a good receipt; when the payment is presented again, the seller says that it failed.
    let failed = json!({"success": false, "errorReason": "settle_failed", "transaction": "", "network": NETWORK});
    let failed = format!("PAYMENT-RESPONSE: {}\r\n", encoded(&failed));
    let short = format!("HTTP/1.1 200 OK\r\n{}Connection: close\r\nContent-Length: 500\r\n\r\nbeginning", receipt());
    let again = [
        goods(&failed, "goods"),
        goods(&failed, "").replace("200 OK", "500 Internal Server Error"),
        asks(&honest()).replace("Connection:", &format!("{failed}Connection:")),
        asks(&honest()),
    ];
    for second in again {
        let (unpaid, short, second) = (asks(&honest()), short.clone(), second.clone());
        let said = second.lines().next().unwrap().to_owned();
        let paid = Arc::new(Mutex::new(0));
        let stub = Stub::answering_at_once(move |request| {
            if payment(request).is_none() {
                return unpaid.clone();
            }
            let mut times = paid.lock().unwrap();
            *times += 1;
            if *times == 1 { short.clone() } else { second.clone() }
        });
        let scene = Scene::before(stub, plain(), |config| config.remove(&["network"]));
        let order = json!({"purchase_id": "twice"});
        let broken = scene.agent().try_fetch(&scene.stub.url("/quote"), order.clone());
        assert!(broken.is_err(), "{broken:?}");
        let id = text(&scene.ledger()[0], "/id").to_owned();
        let accepted = scene.gateway.operator().payment(&id);
        assert_eq!(accepted["state"], "accepted", "{accepted:#}");

        let answer = scene.fetch(order);
        if answer.status == 200 {
            assert_eq!(header(&answer, "countersign-state"), "accepted", "{said}");
        }
        let view = scene.gateway.operator().payment(&id);
        assert_eq!((&view["state"], &view["transaction"]), (&json!("accepted"), &accepted["transaction"]), "{said}");
        assert!(view["holds"].as_array().unwrap().iter().all(|hold| hold["open"] == true), "{said}: {view:#}");
        let presented = payments(&scene.stub);
        assert!(presented.len() == 2 && presented[0] == presented[1], "{said}: signed twice");
    }
}
