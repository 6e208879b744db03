use std::collections::BTreeSet;
use std::time::Duration;

use super::super::Seller;
use super::super::facilitator::message;
use super::*;

fn seller(world: &World, name: &str) -> Seller {
    world.seller(name).unwrap().clone()
}

/// Gets the terms of `/quote` and pays; what came of it.
async fn buy(buyer: &Buyer, seller: &Seller, nonce: u8) -> (Value, hyper::Result<Answer>) {
    let url = seller.url("/quote");
    let terms = get(&url).await;
    let version = if terms.headers.contains_key("payment-required") { 2 } else { 1 };
    let payment = buyer.pay(version, &terms.offer(), nonce);
    let answer = present(&url, &payment).await;
    (payment, answer)
}

#[tokio::test]
async fn an_honest_purchase() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "honest");
    let terms = get(&seller.url("/quote")).await;
    assert_eq!(
        (terms.status, terms.headers["cache-control"].to_str().unwrap()),
        (StatusCode::PAYMENT_REQUIRED, "no-store")
    );
    let decoded = terms.decoded("payment-required");
    assert_eq!(decoded["resource"]["url"], seller.url("/quote"));

    let payment = buyer.pay(2, &terms.offer(), 1);
    let answer = present(&seller.url("/quote"), &payment).await.unwrap();
    assert_eq!((answer.status, answer.json()["symbol"].as_str()), (StatusCode::OK, Some("ACME")));
    let receipt = answer.decoded("payment-response");
    assert_eq!((&receipt["success"], &receipt["payer"]), (&json!(true), &json!(buyer.address())));
    let hash = hex32::parse(receipt["transaction"].as_str().unwrap()).unwrap();
    assert!(world.chain().block_with(&hash).is_some());
    assert_eq!(world.balance(seller.pay_to()), 1_000);

    let again = present(&seller.url("/quote"), &payment).await.unwrap();
    assert_eq!(again.status, 402);
    assert_eq!(again.decoded("payment-required")["error"], "invalid_exact_evm_nonce_already_used");
    let stats = seller.stats();
    assert_eq!((stats.requests, stats.presented, stats.authorizations, stats.redeemed), (3, 2, 1, 1));
    let visits = seller.visits();
    assert_eq!(visits.iter().map(|visit| visit.status).collect::<Vec<_>>(), [Some(402), Some(200), Some(402)]);
    assert_eq!((visits[0].nonce, visits[1].nonce), (None, Some([1; 32])));
}

#[tokio::test]
async fn an_honest_purchase_in_v1() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "honest-v1");
    let (_, answer) = buy(&buyer, &seller, 1).await;
    let answer = answer.unwrap();
    let receipt = answer.decoded("x-payment-response");
    assert_eq!((answer.status, &receipt["network"]), (StatusCode::OK, &json!("base-sepolia")));
    assert_eq!(world.balance(seller.pay_to()), 1_000);
}

#[tokio::test]
async fn honest_sellers_take_only_what_they_asked_for() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "honest");
    let offer = get(&seller.url("/quote")).await.offer();
    let refused = |payment: Value| {
        let url = seller.url("/quote");
        async move { present(&url, &payment).await.unwrap().decoded("payment-required")["error"].clone() }
    };
    let mut cheaper = offer.clone();
    cheaper["amount"] = json!("1");
    assert_eq!(refused(buyer.pay(2, &cheaper, 1)).await, "No matching payment requirements");
    let mut forged = buyer.pay(2, &offer, 1);
    forged["payload"]["authorization"]["from"] = json!(Address::new([5; 20]));
    assert_eq!(refused(forged).await, "invalid_exact_evm_signature");
    assert_eq!(refused(Buyer::new(2).pay(2, &offer, 1)).await, "invalid_exact_evm_insufficient_balance");
    assert_eq!(refused(json!("nonsense")).await, "Payment required");
    seller.set_price("/quote", 2_000);
    assert_eq!(refused(buyer.pay(2, &offer, 1)).await, "No matching payment requirements");
    assert_eq!(get(&seller.url("/quote")).await.offer()["amount"], "2000");
    assert_eq!(world.balance(seller.pay_to()), 0);
}

#[tokio::test]
async fn routes_of_the_honest_seller() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "honest");
    assert_eq!(get(&seller.url("/free")).await.status, 200);
    assert_eq!(get(&seller.url("/nothing")).await.status, 404);
    let choice = get(&seller.url("/choice")).await.decoded("payment-required");
    assert_eq!((&choice["accepts"][0]["amount"], &choice["accepts"][1]["amount"]), (&json!("500000"), &json!("3000")));
    let second = buyer.pay(2, &choice["accepts"][1], 1);
    assert_eq!(present(&seller.url("/choice"), &second).await.unwrap().status, 200);

    let broken = buyer.pay(2, &get(&seller.url("/broken")).await.offer(), 2);
    assert_eq!(present(&seller.url("/broken"), &broken).await.unwrap().status, 500);
    assert_eq!(world.balance(seller.pay_to()), 3_000, "a failing handler is not paid");

    let url = seller.url("/echo");
    let offer = fetch("POST", &url, &[], "hello".to_owned()).await.unwrap().offer();
    let header = ("payment-signature", encode(&buyer.pay(2, &offer, 3)));
    let echo = fetch("POST", &url, &[header], "hello".to_owned()).await.unwrap();
    assert_eq!(echo.body, "hello");
}

#[tokio::test]
async fn a_lost_facilitator_reply_looks_like_a_failure() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "honest");
    world.facilitator().drop_settle_reply(true);
    let (_, answer) = buy(&buyer, &seller, 1).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 402);
    assert!(!answer.headers.contains_key("payment-required"));
    let receipt = answer.decoded("payment-response");
    assert_eq!((&receipt["success"], &receipt["transaction"]), (&json!(false), &json!("")));
    assert_eq!(world.balance(seller.pay_to()), 1_000, "although the money moved");
}

#[tokio::test]
async fn takes_the_money_and_hangs_up() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "takes-and-hangs-up");
    let (payment, first) = buy(&buyer, &seller, 1).await;
    assert!(first.is_err(), "no answer");
    assert_eq!(world.balance(seller.pay_to()), 1_000);
    let second = present(&seller.url("/quote"), &payment).await.unwrap();
    assert_eq!(second.status, 200);
    let receipt = second.decoded("payment-response");
    let hash = hex32::parse(receipt["transaction"].as_str().unwrap()).unwrap();
    assert_eq!(world.chain().block_with(&hash).unwrap().number, 2, "the original receipt");
    assert_eq!((seller.stats().authorizations, seller.stats().presented), (1, 2));
    assert_eq!(world.balance(seller.pay_to()), 1_000);
    assert!(buy(&buyer, &seller, 2).await.1.is_err());
    assert_eq!(seller.stats().authorizations, 2, "paid twice: the counter shows it");
}

#[tokio::test]
async fn takes_the_money_and_goes_silent() {
    let (world, _, buyer) = world().await;
    let seller = seller(&world, "takes-and-goes-silent");
    let payment = buyer.pay(2, &get(&seller.url("/quote")).await.offer(), 1);
    let url = seller.url("/quote");
    let waiting = present(&url, &payment);
    let settled = async {
        while world.balance(seller.pay_to()) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        _ = waiting => panic!("answered"),
        () = settled => {}
    }
    assert_eq!(present(&url, &payment).await.unwrap().status, 200);
    assert_eq!(seller.visits()[1].status, None);
}

#[tokio::test]
async fn after_payment() {
    let (world, _, buyer) = world().await;
    let mut nonce = 0;
    // Name, status, whether the money moved, and what the receipt says (none: there is none).
    for (name, status, paid, receipt) in [
        ("raises-price", 402, false, None),
        ("takes-and-raises-price", 402, true, None),
        ("takes-and-fails", 500, true, None),
        ("no-receipt", 200, false, None),
        ("fake-receipt", 200, false, Some(("success", json!(true)))),
        ("foreign-network-receipt", 200, true, Some(("network", json!("eip155:8453")))),
        ("foreign-payer-receipt", 200, true, Some(("payer", json!("0x000000000000000000000000000000000000dEaD")))),
        ("redirects-paid", 307, false, None),
        ("huge-timeout", 200, true, Some(("success", json!(true)))),
        ("text-timeout", 200, true, Some(("success", json!(true)))),
        ("two-terms", 200, true, Some(("success", json!(true)))),
        ("huge-terms", 200, true, Some(("success", json!(true)))),
        ("talks-to-the-model", 200, true, Some(("success", json!(true)))),
    ] {
        nonce += 1;
        let seller = seller(&world, name);
        let (payment, answer) = buy(&buyer, &seller, nonce).await;
        let answer = answer.unwrap();
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(world.balance(seller.pay_to()) > 0, paid, "{name}");
        assert_eq!(answer.headers.contains_key("payment-response"), receipt.is_some(), "{name}");
        if let Some((key, value)) = receipt {
            let receipt = answer.decoded("payment-response");
            assert_eq!(receipt[key], value, "{name}");
            let hash = hex32::parse(receipt["transaction"].as_str().unwrap()).unwrap();
            assert_eq!(world.chain().block_with(&hash).is_some(), paid, "{name}");
        }
        let again = present(&seller.url("/quote"), &payment).await.unwrap();
        match name {
            "raises-price" | "takes-and-raises-price" => {
                assert_eq!(answer.offer()["amount"], "10000", "{name}");
                assert_eq!(again.offer()["amount"], "10000", "{name}");
            }
            "takes-and-fails" => assert_eq!(again.status, 500),
            "redirects-paid" => {
                let elsewhere = world.seller("elsewhere").unwrap().url("/quote");
                assert_eq!(answer.headers["location"], elsewhere.as_str());
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn before_payment() {
    let (world, _, _) = world().await;
    let quote = |name: &str| seller(&world, name).url("/quote");
    let elsewhere = get(&quote("redirects-unpaid")).await;
    assert_eq!(
        (elsewhere.status, &elsewhere.headers["location"]),
        (StatusCode::FOUND, &quote("elsewhere").parse().unwrap())
    );
    let metadata = get(&quote("redirects-to-metadata")).await;
    assert!(metadata.headers["location"].to_str().unwrap().starts_with("http://169.254.169.254/"));
    let two = get(&quote("two-terms")).await;
    assert_eq!(two.headers.get_all("payment-required").iter().count(), 2);
    let huge = get(&quote("huge-terms")).await;
    assert!(huge.headers["payment-required"].len() > 170_000);

    let offer = async |name: &str| get(&quote(name)).await.offer();
    assert_eq!(offer("hex-amount").await["amount"], "0x3e8");
    assert_eq!(offer("number-amount").await["amount"], 1000);
    assert_eq!(offer("text-timeout").await["maxTimeoutSeconds"], "60");
    assert_eq!(offer("huge-timeout").await["maxTimeoutSeconds"], 315_360_000);
    assert_eq!(offer("wrong-token-name").await["extra"]["name"], "USD Coin");
    assert_eq!(offer("main-net").await["network"], "eip155:8453");
    assert_eq!(offer("wants-permit2").await["extra"]["assetTransferMethod"], "permit2");
    assert_ne!(offer("look-alike-token").await["asset"], json!(USDC));
}

#[tokio::test]
async fn bodies_without_end() {
    let (world, _, buyer) = world().await;
    let terms = send("GET", &seller(&world, "endless-terms").url("/quote"), &[], String::new()).await.unwrap();
    let mut body = terms.into_body();
    let mut read = 0;
    while read < 1 << 22 {
        read += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }

    for name in ["endless-body", "slow-body"] {
        let seller = seller(&world, name);
        let nonce = name.as_bytes()[0];
        let payment = buyer.pay(2, &get(&seller.url("/quote")).await.offer(), nonce);
        let header = ("payment-signature", encode(&payment));
        let answer = send("GET", &seller.url("/quote"), &[header], String::new()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("content-length"));
        assert_eq!(world.balance(seller.pay_to()), 1_000, "{name}");
    }
    let silent = seller(&world, "never-answers").url("/quote");
    let silence = tokio::time::timeout(Duration::from_millis(50), get(&silent)).await;
    assert!(silence.is_err());
}

#[tokio::test]
async fn a_seller_redeems_late_and_names_what_it_is_told_to() {
    let (world, _, buyer) = world().await;
    let keeper = seller(&world, "keeps-and-hangs-up");
    assert_eq!(keeper.redeem(), Ok(None), "nobody has paid yet");
    let (_, answer) = buy(&buyer, &keeper, 1).await;
    assert!(answer.is_err(), "it hangs up");
    assert_eq!((keeper.stats().presented, world.balance(keeper.pay_to())), (1, 0));
    let hash = keeper.redeem().unwrap().unwrap();
    assert!(world.chain().block_with(&hash).is_some());
    assert_eq!(world.balance(keeper.pay_to()), 1_000);
    assert!(keeper.redeem().is_err(), "once");

    let liar = seller(&world, "fake-receipt");
    liar.set_receipt(hash);
    let (_, answer) = buy(&buyer, &liar, 2).await;
    assert_eq!(answer.unwrap().decoded("payment-response")["transaction"], hex32::print(&hash));
    assert_eq!(world.balance(liar.pay_to()), 0);
}

#[tokio::test]
async fn the_catalogue_is_sound() {
    let (world, _, _) = world().await;
    let names: BTreeSet<_> = world.sellers().iter().map(Seller::name).collect();
    let ports: BTreeSet<_> = world.sellers().iter().map(|seller| seller.authority().to_owned()).collect();
    let payees: BTreeSet<_> = world.sellers().iter().map(Seller::pay_to).collect();
    let count = world.sellers().len();
    assert_eq!((names.len(), ports.len(), payees.len()), (count, count, count));
    assert!(ports.iter().all(|authority| authority.starts_with("127.0.0.1:")));
    for seller in world.sellers() {
        assert!(!seller.about().is_empty());
        if ["redirects-unpaid", "redirects-to-metadata", "endless-terms", "never-answers"].contains(&seller.name()) {
            continue;
        }
        let offer = get(&seller.url("/quote")).await.offer();
        for key in ["asset", "payTo"] {
            let address: Address = offer[key].as_str().unwrap().parse().unwrap();
            assert_eq!(offer[key], json!(address), "{}: {key} has its checksum", seller.name());
        }
        assert!(offer.as_object().unwrap().values().all(|value| seller.name() == "honest-v1" || !value.is_null()));
    }
}

#[tokio::test]
async fn dropping_the_world_closes_its_ports() {
    let (world, _, _) = world().await;
    let url = seller(&world, "never-answers").url("/quote");
    let authority = seller(&world, "never-answers").authority().to_owned();
    let waiting = tokio::spawn(async move { fetch("GET", &url, &[], String::new()).await.is_err() });
    while world.seller("never-answers").unwrap().stats().requests == 0 {
        tokio::task::yield_now().await;
    }
    drop(world);
    assert!(waiting.await.unwrap(), "the open connection ended");
    assert!(tokio::net::TcpStream::connect(authority).await.is_err(), "and the port is closed");
}

#[test]
fn what_a_payment_says() {
    let offer = json!({"amount": "5", "payTo": Address::new([9; 20])});
    let payment = Buyer::new(1).pay(2, &offer, 3);
    assert_eq!(message(&payment).unwrap(), Buyer::new(1).message(Address::new([9; 20]), 5, 3));
}
