//! What people do: approve, open sessions, look, stop. Through the admin API and the command line.
#![expect(clippy::indexing_slicing, reason = "a test: whatever is not as expected must fail it loudly")]
#![expect(clippy::disallowed_methods, reason = "a slow caller takes real time")]

use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    peers::Peers,
    refusal::refusal,
    till::{Till, bought, caps, header, items, plain, text},
    wait_for,
};
use serde_json::{Value, json};
use std::{process::Output, thread, time::Duration};

const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";
const SOON: Duration = Duration::from_secs(20);

/// A policy that asks people about everything above a tenth of a cent less one millionth.
fn review() -> Policy {
    Policy::new("review", "builtin:review-threshold").setting("above", "0.000999")
}

fn asking(change: impl FnOnce(Config) -> Config) -> Till<'static> {
    Till::at(Peers::shared(), [Policy::vendors(), caps("0.005"), review()], change)
}

/// The id of the approval that a 202 asks for.
#[track_caller]
fn asked(answer: &Response) -> String {
    let body = refusal(answer, 202, "approval-required");
    assert_eq!(body["retry"], true);
    text(&body, "/approval/id").to_owned()
}

#[track_caller]
fn vote(till: &Till<'_>, approval: &str, word: &str) {
    let answer = till.gateway.operator().post(&format!("/v1/approvals/{approval}/{word}"), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The ids of the approvals that wait, as the operator sees them.
fn waiting(till: &Till<'_>) -> Vec<String> {
    items(&till.gateway.operator().get("/v1/approvals")).iter().map(|a| text(a, "/id").to_owned()).collect()
}

/// What a budget holds, in the operator's list.
fn held(till: &Till<'_>, name: &str) -> String {
    let rows = items(&till.gateway.operator().get("/v1/budgets"));
    let row = rows.iter().find(|row| text(row, "/budget").contains(name));
    row.map_or_else(|| "0".to_owned(), |row| text(row, "/held").to_owned())
}

fn open_session(till: &Till<'_>, wish: Value) -> (String, Client) {
    let answer = till.gateway.operator().post("/v1/sessions", &wish);
    assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    let session = answer.json();
    (text(&session, "/id").to_owned(), till.gateway.agent_with(text(&session, "/token")))
}

#[track_caller]
fn said(output: &Output) -> String {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {out}{}", output.status, String::from_utf8_lossy(&output.stderr));
    out
}

#[test]
fn an_approved_purchase_is_paid_when_repeated() {
    let till = asking(|config| config);
    let order = json!({"purchase_id": "brief", "purpose": "the quote"});
    let first = till.agent().fetch(&till.v2("/cheap"), order.clone());
    let approval = asked(&first);
    let payment = text(&first.json(), "/payment").to_owned();

    // Frozen: reserved, not signed, and asking again asks nobody anew.
    let pending = till.agent().payment(&payment);
    assert_eq!((&pending["state"], &pending["valid_before"]), (&json!("pending-approval"), &Value::Null));
    assert_eq!(held(&till, "agent/scout"), "0.001");
    assert_eq!(asked(&till.agent().fetch(&till.v2("/cheap"), order.clone())), approval);
    assert_eq!(waiting(&till), [approval.as_str()]);
    assert_eq!(held(&till, "agent/scout"), "0.001");
    assert_eq!(till.amounts(), [0; 0]);

    // Both sides can look at it, before and after.
    let path = format!("/v1/approvals/{approval}");
    let seen = till.agent().get(&path);
    assert_eq!((seen.status, text(&seen.json(), "/id")), (200, approval.as_str()));
    let shown = till.gateway.operator().get(&path).text();
    for what in ["/cheap", "0.001", "scout", "above-review-threshold"] {
        assert!(shown.contains(what), "the approver is not shown {what}: {shown}");
    }
    vote(&till, &approval, "approve");
    assert_eq!(till.amounts(), [0; 0], "an approval moves no money");
    assert_eq!(waiting(&till), [""; 0]);

    let paid = till.agent().fetch(&till.v2("/cheap"), order.clone());
    assert_eq!(bought(&paid, "0.001"), payment);
    till.until(&payment, "settled");
    // Used once: what follows is the kept answer.
    assert_eq!(header(&till.agent().fetch(&till.v2("/cheap"), order), "countersign-replayed"), "true");
    assert_eq!(till.amounts(), [1000]);
    // And another purchase needs another word.
    asked(&till.agent().fetch(&till.v2("/cheap"), json!({"purchase_id": "next"})));
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn an_approval_can_be_given_on_the_command_line() {
    let till = asking(|config| config);
    let order = json!({"purchase_id": "cli"});
    let approval = asked(&till.agent().fetch(&till.v1("/cheap"), order.clone()));
    let listed: Value = serde_json::from_str(&said(&till.gateway.command(&["approvals", "list", "--json"]))).unwrap();
    assert_eq!(text(&listed, "/items/0/id"), approval);
    assert!(said(&till.gateway.command(&["approvals", "list"])).contains(&approval));

    said(&till.gateway.command(&["approvals", "approve", &approval, "--admin", &till.gateway.admin_url]));
    bought(&till.agent().fetch(&till.v1("/cheap"), order), "0.001");
    assert_eq!(till.amounts(), [1000]);

    let order = json!({"purchase_id": "cli-no"});
    let approval = asked(&till.agent().fetch(&till.v1("/cheap"), order));
    said(&till.gateway.command(&["approvals", "deny", &approval]));
    assert_eq!(waiting(&till), [""; 0]);
    let again = till.gateway.command(&["approvals", "approve", &approval]);
    assert_eq!(again.status.code(), Some(1), "a denied approval was approved: {again:?}");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn a_call_that_waits_hears_yes_and_no() {
    let till = asking(|config| config);
    for (word, url) in [("approve", till.v2("/cheap")), ("deny", till.v2("/cheap?again=1"))] {
        let answer = thread::scope(|scope| {
            let agent = till.agent();
            let call = scope.spawn(move || agent.fetch(&url, json!({"purchase_id": word, "wait_seconds": 60})));
            let approval = wait_for(SOON, || waiting(&till).pop()).expect("nobody is asked");
            vote(&till, &approval, word);
            call.join().unwrap()
        });
        if word == "approve" {
            bought(&answer, "0.001");
        } else {
            let body = refusal(&answer, 403, "approval-denied");
            assert_eq!(body["retry"], false);
            assert_eq!(till.agent().payment(text(&body, "/payment"))["state"], "failed");
        }
    }
    assert_eq!(till.amounts(), [1000]);
    assert_eq!(held(&till, "wallet/research"), "0", "what was denied is still reserved");
}

#[test]
fn silence_is_a_no() {
    let review = review().setting("expires-in-seconds", 1);
    let till = Till::at(Peers::shared(), [Policy::vendors(), caps("5.00"), review], |config| config);
    let order = json!({"purchase_id": "slow", "wait_seconds": 30});
    let body = refusal(&till.agent().fetch(&till.v2("/cheap"), order), 403, "approval-expired");
    assert_eq!(till.agent().payment(text(&body, "/payment"))["state"], "failed");
    assert_eq!(waiting(&till), [""; 0]);
    assert_eq!(held(&till, "agent/scout"), "0");
    assert_eq!(till.amounts(), [0; 0]);
}

#[test]
fn the_same_request_joins_what_is_waiting() {
    let till = asking(|config| config);
    let first = till.agent().fetch(&till.v2("/cheap"), json!({}));
    let approval = asked(&first);
    let purchase = header(&first, "countersign-purchase").to_owned();
    let joined = till.agent().fetch(&till.v2("/cheap"), json!({}));
    assert_eq!((asked(&joined), header(&joined, "countersign-purchase")), (approval.clone(), purchase.as_str()));
    let body =
        refusal(&till.agent().fetch(&till.v2("/cheap"), json!({"purchase_id": "other"})), 409, "payment-unknown");
    assert_eq!(body["purchase"], json!(purchase), "it does not name the purchase");
    assert_eq!(body["retry"], false);
    vote(&till, &approval, "approve");
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn what_waits_is_reserved_and_survives_a_restart() {
    let mut till = asking(|config| config);
    // Five of 0.001 fill the hour of 0.005.
    let mut approvals: Vec<String> = (0..5)
        .map(|i| {
            asked(&till.agent().fetch(&till.v2(&format!("/cheap?n={i}")), json!({"purchase_id": format!("n{i}")})))
        })
        .collect();
    till.gateway.restart();
    assert_eq!(waiting(&till).len(), 5);
    assert_eq!(held(&till, "agent/scout"), "0.005");
    vote(&till, &approvals.remove(0), "deny");
    assert_eq!(held(&till, "agent/scout"), "0.004");
    let approval = approvals.remove(0);
    vote(&till, &approval, "approve");
    till.gateway.restart();
    bought(&till.agent().fetch(&till.v2("/cheap?n=1"), json!({"purchase_id": "n1"})), "0.001");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn operators_do_what_their_roles_say() {
    let viewer = "test-operator-token-of-victor-0123456789";
    let till = asking(|config| config.operator("victor", viewer, &["viewer"]));
    let approval = asked(&till.agent().fetch(&till.v2("/cheap"), json!({})));
    let victor = Client::new(&till.gateway.admin_url, viewer);
    assert_eq!(items(&victor.get("/v1/approvals")).len(), 1);
    for (path, body) in [
        (format!("/v1/approvals/{approval}/approve"), json!({})),
        (format!("/v1/approvals/{approval}/deny"), json!({})),
        ("/v1/sessions".to_owned(), json!({"agent": "scout", "limit": "1.00"})),
        ("/v1/suspend".to_owned(), json!({})),
    ] {
        let answer = victor.post(&path, &body);
        assert_eq!(answer.status, 403, "{path}: {}", answer.text());
    }
    assert_eq!(waiting(&till), [approval]);
    assert_eq!(items(&victor.get("/v1/suspend")), Vec::<Value>::new());
}

#[test]
fn two_of_two_must_approve() {
    let bob = "test-operator-token-of-bob-0123456789abcd";
    let till = asking(|config| config.set(&["approvals", "quorum"], 2).operator("bob", bob, &["viewer", "approver"]));
    let order = json!({"purchase_id": "both"});
    let approval = asked(&till.agent().fetch(&till.v2("/cheap"), order.clone()));
    let path = format!("/v1/approvals/{approval}/approve");
    // The same hand twice is one hand.
    till.gateway.operator().post(&path, &json!({}));
    till.gateway.operator().post(&path, &json!({}));
    assert_eq!(asked(&till.agent().fetch(&till.v2("/cheap"), order.clone())), approval);
    let second = Client::new(&till.gateway.admin_url, bob).post(&path, &json!({}));
    assert_eq!(second.status, 200, "{}", second.text());
    bought(&till.agent().fetch(&till.v2("/cheap"), order), "0.001");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn a_session_spends_no_more_than_its_limit() {
    let till = Till::open();
    let wish = json!({"agent": "scout", "user": "ada", "client": "acme", "project": "anvils", "task": "t-42", "limit": "0.0025"});
    let (id, session) = open_session(&till, wish);
    let payment = bought(&session.fetch(&till.v2("/cheap"), json!({"task": "what the agent says"})), "0.001");
    bought(&session.fetch(&till.v2("/cheap"), json!({})), "0.001");
    let body = refusal(&session.fetch(&till.v2("/cheap"), json!({})), 403, "budget-exceeded");
    assert!(text(&body, "/budget").contains(&format!("session/{id}")), "{body}");
    let paid = session.payment(&payment);
    let who = [("session", id.as_str()), ("user", "ada"), ("client", "acme"), ("project", "anvils"), ("task", "t-42")];
    for (name, value) in who {
        assert_eq!(paid[name], value, "{name}: {paid}");
    }
    // The agent itself is not bound by its session.
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    assert_eq!(till.amounts(), [1000; 3]);
}

#[test]
fn a_session_makes_no_more_than_its_payments() {
    let till = Till::open();
    let (id, session) = open_session(&till, json!({"agent": "scout", "limit": "5.00", "max_payments": 2}));
    bought(&session.fetch(&till.v2("/cheap"), json!({})), "0.001");
    assert_eq!(session.fetch(&till.v2("/free"), json!({})).status, 200);
    bought(&session.fetch(&till.v1("/cheap"), json!({})), "0.001");
    let body = refusal(&session.fetch(&till.v2("/cheap"), json!({})), 403, "budget-exceeded");
    assert!(text(&body, "/budget").contains(&id), "{body}");
    assert_eq!(till.amounts(), [1000; 2]);
}

#[test]
fn a_session_ends() {
    let till = Till::open();
    let (_, brief) = open_session(&till, json!({"agent": "scout", "limit": "5.00", "expires_in": 1}));
    let over = wait_for(SOON, || Some(brief.fetch(&till.v2("/free"), json!({}))).filter(|answer| answer.status != 200));
    refusal(&over.expect("it never ends"), 403, "session-expired");
    refusal(&brief.fetch(&till.v2("/cheap"), json!({})), 403, "session-expired");

    let (id, closed) = open_session(&till, json!({"agent": "scout", "limit": "5.00"}));
    bought(&closed.fetch(&till.v2("/cheap"), json!({})), "0.001");
    let answer = till.gateway.operator().delete(&format!("/v1/sessions/{id}"));
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    refusal(&closed.fetch(&till.v2("/cheap"), json!({})), 403, "session-expired");
    assert_eq!(till.amounts(), [1000]);

    let listed = items(&till.gateway.operator().get("/v1/sessions"));
    assert!(listed.iter().any(|session| session["id"] == json!(id)), "{listed:?}");
    assert!(listed.iter().all(|session| session.get("token").is_none()), "a token is shown again: {listed:?}");
}

#[test]
fn a_session_is_opened_for_known_agents_and_sane_values_only() {
    let till = Till::open();
    for wish in [
        json!({"agent": "nobody", "limit": "1.00"}),
        json!({"agent": "scout"}),
        json!({"agent": "scout", "limit": "-1"}),
        json!({"agent": "scout", "limit": 1.0}),
        json!({"agent": "scout", "limit": "1.00", "user": "Ada Lovelace"}),
        json!({"agent": "scout", "limit": "1.00", "task": "a/b"}),
        json!({"agent": "scout", "limit": "1.00", "unknown": 1}),
    ] {
        refusal(&till.gateway.operator().post("/v1/sessions", &wish), 400, "bad-request");
    }
    assert_eq!(items(&till.gateway.operator().get("/v1/sessions")), Vec::<Value>::new());
}

#[test]
fn foreign_payments_look_like_unknown_ones() {
    let till = Till::open_with(|config| config.agent("rival", RIVAL_TOKEN));
    let (_, session) = open_session(&till, json!({"agent": "scout", "limit": "5.00"}));
    let (_, other) = open_session(&till, json!({"agent": "scout", "limit": "5.00"}));
    let rival = till.gateway.agent_with(RIVAL_TOKEN);
    let id = bought(&session.fetch(&till.v2("/cheap"), json!({"purchase_id": "mine"})), "0.001");
    let (head, last) = id.split_at(id.len() - 1);
    let unknown = format!("{head}{}", if last == "0" { "1" } else { "0" });

    for stranger in [&rival, &other] {
        let (foreign, missing) =
            (stranger.get(&format!("/v1/payments/{id}")), stranger.get(&format!("/v1/payments/{unknown}")));
        assert_eq!(foreign.status, 404, "{}", foreign.text());
        assert_eq!((foreign.status, &foreign.body), (missing.status, &missing.body));
        assert_eq!(items(&stranger.get("/v1/payments")), Vec::<Value>::new());
    }
    // A session's purchase, repeated from elsewhere, gives nothing away and pays nothing.
    for (stranger, more) in [(&other, json!({"purchase_id": "mine"})), (&till.agent(), json!({"purchase_id": "mine"}))]
    {
        let answer = stranger.fetch(&till.v2("/cheap"), more);
        assert_ne!(answer.status, 200, "{}", answer.text());
        assert!(!answer.text().contains("\"route\"") && !answer.text().contains(&id), "{}", answer.text());
    }
    assert_eq!(items(&session.get("/v1/payments")).len(), 1);
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn foreign_approvals_look_like_unknown_ones() {
    let till = asking(|config| config.agent("rival", RIVAL_TOKEN));
    let approval = asked(&till.agent().fetch(&till.v2("/cheap"), json!({})));
    let (head, last) = approval.split_at(approval.len() - 1);
    let unknown = format!("{head}{}", if last == "0" { "1" } else { "0" });
    let rival = till.gateway.agent_with(RIVAL_TOKEN);
    let (foreign, missing) =
        (rival.get(&format!("/v1/approvals/{approval}")), rival.get(&format!("/v1/approvals/{unknown}")));
    assert_eq!((foreign.status, &foreign.body), (404, &missing.body));
    // No agent can approve, not even with the right id.
    for client in [&rival, &till.agent()] {
        assert!(client.post(&format!("/v1/approvals/{approval}/approve"), &json!({})).status >= 400);
    }
    assert_eq!(waiting(&till), [approval]);
}

#[test]
fn budgets_are_listed_before_and_after_use() {
    let till = Till::open_with(|config| {
        config
            .agent("rival", RIVAL_TOKEN)
            .set(&["budget", "workspace/research", "when", "workspace"], "research")
            .set(&["budget", "workspace/research", "per"], "month")
            .set(&["budget", "workspace/research", "limit"], "500.00")
    });
    let row = |client: &Client, name: &str| {
        items(&client.get("/v1/budgets")).into_iter().find(|row| text(row, "/budget").contains(name))
    };
    let operator = till.gateway.operator();
    let unused = row(&operator, "workspace/research").expect("declared and not listed");
    assert_eq!((text(&unused, "/limit"), text(&unused, "/held"), text(&unused, "/spent")), ("500", "0", "0"));

    let payment = bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    till.until(&payment, "settled");
    let used = row(&operator, "workspace/research").unwrap();
    assert_eq!((text(&used, "/held"), text(&used, "/spent")), ("0", "0.001"));
    assert!(row(&operator, "wallet/research").is_some());
    let own = row(&till.agent(), "agent/scout").expect("an agent sees its own budgets");
    assert_eq!(text(&own, "/spent"), "0.001");
    for (client, name) in
        [(till.agent(), "wallet/"), (till.agent(), "workspace/"), (till.gateway.agent_with(RIVAL_TOKEN), "agent/scout")]
    {
        assert!(row(&client, name).is_none(), "an agent sees {name}");
    }
}

#[test]
fn a_suspension_stops_everything_at_once() {
    let mut till = Till::open();
    let open = till.agent().fetch(&till.v2("/fail500"), json!({"purchase_id": "open"}));
    let redeemable = header(&open, "countersign-payment").to_owned();
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");

    let answer = till.gateway.operator().post("/v1/suspend", &json!({"reason": "drill"}));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains(&redeemable), "what is still redeemable is not listed: {}", answer.text());
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "suspended");
    // Nor is anything presented again.
    refusal(&till.agent().fetch(&till.v2("/fail500"), json!({"purchase_id": "open"})), 403, "suspended");
    assert!(!items(&till.gateway.operator().get("/v1/suspend")).is_empty());
    till.gateway.restart();
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "suspended");
    assert_eq!(till.amounts(), [1000]);

    let lifted = till.gateway.operator().delete("/v1/suspend");
    assert!(matches!(lifted.status, 200 | 204), "{}", lifted.text());
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    assert_eq!(till.amounts(), [1000, 1000]);
}

#[test]
fn a_suspension_stops_only_what_it_names() {
    let till = Till::open_with(|config| config.agent("rival", RIVAL_TOKEN));
    let rival = till.gateway.agent_with(RIVAL_TOKEN);
    let operator = till.gateway.operator();
    assert_eq!(operator.post("/v1/suspend", &json!({"agent": "scout", "reason": "odd"})).status, 200);
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "suspended");
    bought(&rival.fetch(&till.v2("/cheap"), json!({})), "0.001");
    let answer = operator.post("/v1/suspend", &json!({"agnet": "rival"}));
    assert_eq!(answer.status, 400, "a typo must not suspend everything, or nothing: {}", answer.text());
    bought(&rival.fetch(&till.v2("/cheap"), json!({})), "0.001");

    for (what, name) in
        [("wallet", "research"), ("mandate", "all"), ("vendor", countersign_tests::peers::authority(&till.peers.v2))]
    {
        assert_eq!(operator.post("/v1/suspend", &json!({what: name})).status, 200, "{what}");
        refusal(&rival.fetch(&till.v2("/cheap"), json!({})), 403, "suspended");
        if what == "vendor" {
            bought(&rival.fetch(&till.v1("/cheap"), json!({})), "0.001");
        }
        assert_eq!(operator.delete(&format!("/v1/suspend?{what}={name}")).status, 200, "{what}");
        bought(&rival.fetch(&till.v2("/cheap"), json!({})), "0.001");
    }
    assert_eq!(till.amounts(), [1000; 6]);
}

#[test]
fn the_command_line_tells_what_happened() {
    let till = Till::open();
    let paid = bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    till.until(&paid, "settled");
    let denied = refusal(&till.agent().fetch(&till.v2("/report"), json!({})), 403, "policy-denied");
    let denied = text(&denied, "/payment");
    let run = |args: &[&str]| said(&till.gateway.command(args));
    let parse = |args: &[&str]| -> Value { serde_json::from_str(&run(args)).unwrap() };

    let listed = parse(&["payments", "list", "--json"]);
    let ids: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|p| text(p, "/id")).collect();
    assert_eq!(ids, [denied, paid.as_str()], "newest first");
    let table = run(&["payments", "list"]);
    assert!(table.contains(&paid) && table.contains(denied) && table.contains("settled"), "{table}");
    assert_eq!(parse(&["payments", "show", &paid, "--json"]), till.gateway.operator().payment(&paid));
    assert!(run(&["payments", "show", denied]).contains("above-per-payment"));

    let policies = parse(&["policy", "list", "--json"]);
    let names: Vec<&str> = policies["policies"].as_array().unwrap().iter().map(|p| text(p, "/name")).collect();
    assert!(names.contains(&"caps") && names.contains(&"vendors"), "{policies}");
    assert!(policies["generation"].is_number() && policies["last_error"].is_null(), "{policies}");
    for policy in policies["policies"].as_array().unwrap() {
        assert_eq!((&policy["state"], &policy["mode"]), (&json!("active"), &json!("enforce")), "{policy}");
        assert!(policy["decisions"].as_u64() >= Some(1) && policy["imports"].is_array(), "{policy}");
    }
    assert!(run(&["policy", "list"]).contains("spend-caps") || run(&["policy", "list"]).contains("caps"));
    let inspected = run(&["policy", "inspect", "builtin:spend-caps"]);
    assert!(inspected.contains("spend-caps") && inspected.contains("sha256"), "{inspected}");
    let inspected = parse(&["policy", "inspect", "builtin:spend-caps", "--json"]);
    assert!(inspected["settings_schema"].is_object() || inspected.to_string().contains("per-payment"), "{inspected}");
    said(&till.gateway.command(&["policy", "check", "builtin:vendor-allowlist"]));

    let budgets = parse(&["budgets", "--json"]);
    assert!(
        budgets["items"].as_array().unwrap().iter().any(|b| text(b, "/budget").contains("agent/scout")),
        "{budgets}"
    );
    assert!(run(&["budgets"]).contains("agent/scout"));
    assert_eq!(parse(&["sessions", "list", "--json"])["items"], json!([]));
    assert_eq!(parse(&["suspend", "list", "--json"])["items"], json!([]));
    assert_eq!(parse(&["approvals", "list", "--json"])["items"], json!([]));
}

#[test]
fn the_command_line_says_what_is_wrong_and_what_to_do() {
    let till = Till::open();
    let code = |args: &[&str]| till.gateway.command(args).status.code();
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["payments", "list", "--no-such-flag"]), Some(2));
    assert_eq!(code(&["payments"]), Some(2));
    assert_eq!(code(&["payments", "show", "pay_nonsense"]), Some(1));
    assert_eq!(code(&["payments", "list", "--config", "missing.toml"]), Some(1));
    assert_eq!(code(&["policy", "inspect", "builtin:no-such-policy"]), Some(1));
    assert_eq!(code(&["policy", "inspect", "missing.wasm"]), Some(1));
    let nobody = till.gateway.command(&["approvals", "approve", "apr_0", "--admin", "http://127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    let error = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(error.contains("error"), "{error}");
    let unknown = till.gateway.command(&["policy", "inspect", "builtin:no-such-policy"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("spend-caps"), "it does not say what there is");
}

#[test]
fn the_command_line_stops_and_lets_go() {
    let till = Till::open();
    said(&till.gateway.command(&["suspend", "add", "--agent", "scout", "--reason", "drill"]));
    refusal(&till.agent().fetch(&till.v2("/cheap"), json!({})), 403, "suspended");
    said(&till.gateway.command(&["suspend", "lift", "--agent", "scout"]));
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");

    let opened: Value = serde_json::from_str(&said(
        &till.gateway.command(&["sessions", "open", "--agent", "scout", "--limit", "0.0015", "--json"]),
    ))
    .unwrap();
    let session = till.gateway.agent_with(text(&opened, "/token"));
    bought(&session.fetch(&till.v2("/cheap"), json!({})), "0.001");
    refusal(&session.fetch(&till.v2("/cheap"), json!({})), 403, "budget-exceeded");
    said(&till.gateway.command(&["sessions", "close", text(&opened, "/id")]));
    refusal(&session.fetch(&till.v2("/cheap"), json!({})), 403, "session-expired");
}

#[test]
fn policies_report_themselves_to_operators() {
    let till = Till::at(Peers::shared(), plain(), |config| config);
    let report = till.gateway.operator().get("/v1/policies").json();
    for name in ["generation", "activated_at", "origin", "config_drift", "last_error", "policies"] {
        assert!(report.get(name).is_some(), "no {name}: {report}");
    }
    for policy in report["policies"].as_array().unwrap() {
        for name in [
            "name",
            "state",
            "version",
            "module_sha256",
            "settings_sha256",
            "mode",
            "imports",
            "decisions",
            "p50_us",
            "p99_us",
        ] {
            assert!(policy.get(name).is_some(), "no {name}: {policy}");
        }
    }
}

#[test]
fn agents_are_added_on_the_command_line_and_listed_with_the_wallets() {
    let till = Till::open();
    let out = said(&till.gateway.command(&["agents", "create", "helper", "--role", "analyst"]));
    let token = out.lines().find(|line| line.starts_with("csa_")).unwrap_or_else(|| panic!("no token: {out}"));
    let helper = till.gateway.agent_with(token);
    let known = wait_for(SOON, || (helper.get("/v1/budgets").status == 200).then_some(()));
    assert!(
        known.is_some(),
        "the running gateway does not take it up: {}",
        till.gateway.operator().get("/v1/policies").text()
    );
    bought(&helper.fetch(&till.v2("/cheap"), json!({})), "0.001");

    let again = till.gateway.command(&["agents", "create", "helper"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("already"));
    assert_eq!(till.gateway.command(&["agents", "create", "No Name"]).status.code(), Some(2));
    // Only shown, not written.
    let shown = said(&till.gateway.command(&["agents", "create", "other", "--print"]));
    assert!(shown.contains("[agent.\"other\"]") && shown.contains("token-sha256"), "{shown}");

    let parse = |args: &[&str]| -> Value { serde_json::from_str(&said(&till.gateway.command(args))).unwrap() };
    let agents = parse(&["agents", "list", "--json"]);
    let names: Vec<&str> = agents["items"].as_array().unwrap().iter().map(|a| text(a, "/agent")).collect();
    assert_eq!(names, ["helper", "scout"]);
    assert_eq!((&agents["items"][0]["roles"], &agents["items"][0]["suspended"]), (&json!(["analyst"]), &json!(false)));
    assert!(!agents.to_string().contains("sha256"), "{agents}");

    said(&till.gateway.command(&["suspend", "add", "--wallet", "research"]));
    let wallet = parse(&["wallets", "list", "--json"])["items"][0].clone();
    assert_eq!((&wallet["wallet"], &wallet["suspended"]), (&json!("research"), &json!(true)));
    assert_eq!(text(&wallet, "/address"), till.purse.address);
    let sum = |name: &str| countersign_core::money::Micros::parse(text(&wallet, name)).unwrap().get();
    assert_eq!(sum("/held") + sum("/spent"), 1_000, "{wallet}");
    assert_eq!(sum("/available") + 1_000, sum("/daily_limit"), "{wallet}");
    assert!(said(&till.gateway.command(&["wallets", "list"])).contains(text(&wallet, "/address")));
}

#[test]
fn the_api_document_knows_every_call_and_every_member() {
    let till = asking(|config| config);
    let operator = till.gateway.operator();
    asked(&till.agent().fetch(&till.v2("/cheap"), json!({})));
    open_session(&till, json!({"agent": "scout", "limit": "1.00"}));
    assert_eq!(operator.post("/v1/suspend", &json!({"agent": "nobody"})).status, 200);
    // For everybody: there is nothing of this gateway in it.
    let document = countersign_tests::http::get(&format!("{}/openapi.json", till.gateway.admin_url)).send().json();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let schema = |name: &str| document["components"]["schemas"][name]["properties"].as_object().unwrap().clone();
    let lists = [
        ("payments", "Payment"),
        ("approvals", "Approval"),
        ("budgets", "Budget"),
        ("agents", "Agent"),
        ("wallets", "Wallet"),
        ("sessions", "Session"),
        ("suspend", "Suspension"),
    ];
    for (path, name) in lists {
        let (known, found) = (schema(name), items(&operator.get(&format!("/v1/{path}"))));
        assert!(!found.is_empty(), "{path}");
        for member in found.iter().flat_map(|item| item.as_object().unwrap().keys()) {
            assert!(known.contains_key(member), "{name}.{member} is not in the document");
        }
    }
    for (path, calls) in document["paths"].as_object().unwrap() {
        let url = path.replace("{id}", "nothing").replace("{name}", "nobody");
        for method in calls.as_object().unwrap().keys() {
            let answer = operator.request(&method.to_uppercase(), &url).send();
            let unknown = answer.status == 404 && answer.text().contains("such path");
            assert!(!unknown, "{method} {path}: there is no such call");
        }
    }
}

#[test]
fn only_so_many_calls_are_under_way() {
    let till = asking(|config| {
        config.agent("rival", RIVAL_TOKEN).set(&["limits", "calls-per-agent"], 2).set(&["limits", "calls"], 3)
    });
    let patient = json!({"wait_seconds": 120});
    let url = |n: u32| format!("{}?n={n}", till.v2("/cheap"));
    thread::scope(|scope| {
        let (till, url, patient) = (&till, &url, &patient);
        let calls: Vec<_> = (0..2).map(|n| scope.spawn(move || till.agent().fetch(&url(n), patient.clone()))).collect();
        assert!(wait_for(SOON, || (waiting(till).len() == 2).then_some(())).is_some());
        let refused = till.agent().fetch(&url(2), json!({}));
        refusal(&refused, 429, "rate-limited");
        assert_eq!(header(&refused, "retry-after"), "1");
        refusal(&till.agent().quote(&url(2), json!({})), 429, "rate-limited");
        // What takes no time is answered: the budgets, and the payments that wait.
        assert_eq!(items(&till.agent().get("/v1/payments")).len(), 2);
        // Another agent has its own places, but not more than there are.
        let rival = till.gateway.agent_with(RIVAL_TOKEN);
        let third = scope.spawn(move || rival.fetch(&url(3), patient.clone()));
        assert!(wait_for(SOON, || (waiting(till).len() == 3).then_some(())).is_some());
        let refused = till.gateway.agent_with(RIVAL_TOKEN).fetch(&url(4), json!({}));
        refusal(&refused, 503, "overloaded");
        assert_eq!(header(&refused, "retry-after"), "1");
        for approval in waiting(till) {
            vote(till, &approval, "approve");
        }
        for call in calls {
            bought(&call.join().unwrap(), "0.001");
        }
        bought(&third.join().unwrap(), "0.001");
    });
    asked(&till.agent().fetch(&url(5), json!({})));
}

#[test]
fn who_comes_when_all_connections_are_taken_is_told_to_come_back() {
    let files = rustix::process::Resource::Nofile;
    let most = rustix::process::getrlimit(files);
    rustix::process::setrlimit(files, rustix::process::Rlimit { current: most.maximum, ..most }).unwrap();
    let till = Till::open();
    let address = till.gateway.url.trim_start_matches("http://").to_owned();
    let taken: Vec<_> = (0..4_096).map(|_| std::net::TcpStream::connect(&address).unwrap()).collect();
    let refused = till.agent().get("/v1/budgets");
    refusal(&refused, 503, "overloaded");
    assert_eq!((header(&refused, "retry-after"), header(&refused, "connection")), ("1", "close"));
    // Operators have connections of their own.
    assert_eq!(till.gateway.operator().get("/v1/payments").status, 200);
    drop(taken);
    let served = wait_for(SOON, || (till.agent().get("/v1/budgets").status == 200).then_some(()));
    assert!(served.is_some(), "it stays full");
}

#[test]
fn slow_callers_end_and_others_are_served_meanwhile() {
    use std::io::{Read as _, Write as _};
    let till = Till::open();
    let address = till.gateway.url.trim_start_matches("http://").to_owned();
    let body = "POST /v1/fetch HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 900\r\n\r\n{";
    let body = body.replace("TOKEN", countersign_tests::config::SCOUT_TOKEN);
    // A head that never ends, and a body that drips a byte a second: what is answered, and that it ends at all.
    let drip = |begin: String, drops: &'static [u8]| {
        let address = address.clone();
        thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.write_all(begin.as_bytes()).unwrap();
            let mut dripping = stream.try_clone().unwrap();
            thread::spawn(move || {
                while dripping.write_all(drops).is_ok() {
                    thread::sleep(Duration::from_secs(1))
                }
            });
            stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let (mut answer, mut chunk) = (Vec::new(), [0; 4_096]);
            loop {
                match stream.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(n) => answer.extend_from_slice(&chunk[..n]),
                    Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
                    Err(e) => panic!("it does not end: {e}"),
                }
            }
            String::from_utf8_lossy(&answer).into_owned()
        })
    };
    let head = drip("GET /v1/budgets HTTP/1.1\r\nHost: a\r\n".to_owned(), b"X-A: b\r\n");
    let body = drip(body, b" ");
    bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
    let head = head.join().unwrap();
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 408"), "{head}");
    let body = body.join().unwrap();
    assert!(body.starts_with("HTTP/1.1 400") && body.contains("did not arrive"), "{body}");
    assert_eq!(till.amounts(), [1000]);
}

#[test]
fn keys_are_in_no_core_dump() {
    let till = Till::open();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", till.gateway.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}

/// Whoever is refused before its body is read hears why, however much it still sends.
#[test]
fn a_refusal_arrives_while_the_body_is_still_sent() {
    let till = Till::open();
    let stranger = Client::new(&till.gateway.admin_url, "nobodys-token-0123456789abcdef0123456789abcdef");
    // More than the buffers of two sockets take.
    let module = vec![0; 30 << 20];
    for _ in 0..5 {
        let answer = stranger.request("PUT", "/v1/policies/p/module").body(module.clone()).send();
        refusal(&answer, 401, "unauthenticated");
    }
}

#[test]
fn every_door_gives_its_place_back() {
    let till = Till::open_with(|config| config.set(&["limits", "calls-per-agent"], 1));
    let message = |n: u32| json!({"jsonrpc": "2.0", "id": n, "method": "tools/list", "params": {}});
    for n in 0..5 {
        let answer = till
            .agent()
            .request("POST", "/mcp")
            .header("accept", "application/json, text/event-stream")
            .json(&message(n))
            .send();
        assert_eq!(answer.status, 200, "{n}: {}", answer.text());
        // Whoever speaks MCP here gives it back when its task has ended, which may be a moment later.
        let free = || (till.agent().quote(&till.v2("/cheap"), json!({})).status == 200).then_some(());
        assert!(wait_for(SOON, free).is_some(), "{n}: the place is never free again");
        bought(&till.agent().fetch(&till.v2("/cheap"), json!({})), "0.001");
        refusal(&till.agent().fetch(&till.v2("/report"), json!({})), 403, "policy-denied");
        assert_eq!(till.agent().post("/v1/fetch", &json!({})).status, 400);
    }
}
