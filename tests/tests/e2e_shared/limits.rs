//! A limit is one limit, however many gateways spend from it at once.

use super::*;
use countersign_tests::config::SCOUT_TOKEN;
use load::everywhere;

/// Lets every gateway's clients buy until nothing is left: exactly so many quotes are granted, in all and as everybody
/// tells it.
#[track_caller]
fn grants_exactly(scene: &Scene, token: &str, quotes: usize, budget: &str) {
    let (paid, refusals) = drain(scene, &everywhere(scene, token));
    assert_eq!(paid.len(), quotes);
    assert_eq!(paid.iter().collect::<BTreeSet<_>>().len(), quotes, "one payment, told twice");
    assert_eq!(refusals.len(), CLIENTS * scene.gateways.len());
    for body in &refusals {
        assert!(text(body, "/budget").contains(budget), "{body}");
    }
    let stats = scene.seller("honest").stats();
    let count = u64::try_from(quotes).unwrap();
    assert_eq!((stats.authorizations, stats.redeemed), (count, count));
    assert_eq!(scene.world.world().balance(scene.seller("honest").pay_to()), 1_000 * u128::from(count));
    assert_eq!(sound(scene, &["honest"], &[]).len(), quotes);
    for gateway in 0..scene.gateways.len() {
        let row = scene.budget(gateway, budget);
        let used = if row["unit"] == "count" {
            ["held", "spent"].map(|f| text(&row, &format!("/{f}")).parse::<u64>().unwrap()).iter().sum()
        } else {
            (micros(&row["held"]) + micros(&row["spent"])) / 1_000
        };
        assert_eq!(used, count, "gateway {gateway}: {row}");
        refusal(&scene.agent(gateway).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
    }
}

fn scene(gateways: usize, policies: Vec<Policy>, change: impl FnOnce(Config) -> Config) -> Scene {
    Scene::with(Place::Shared, gateways, &["honest"], policies, change)
}

#[test]
fn two_gateways_share_a_lifetime_budget() {
    let scene = Scene::limited(Place::Shared, 2, 40);
    grants_exactly(&scene, SCOUT_TOKEN, 40, "everybody");
}

#[test]
fn three_gateways_share_a_lifetime_budget() {
    let scene = Scene::limited(Place::Shared, 3, 41);
    grants_exactly(&scene, SCOUT_TOKEN, 41, "everybody");
}

#[test]
fn three_gateways_share_the_wallets_daily_limit() {
    let scene = scene(3, open_handed(), |config| config.set(&["wallet", "research", "daily-limit"], "0.0305"));
    grants_exactly(&scene, SCOUT_TOKEN, 30, "wallet/research");
}

#[test]
fn two_gateways_share_the_rolling_hour_of_a_policy() {
    let caps = Policy::new("caps", "builtin:spend-caps").setting("per-payment", "1.00");
    let scene = scene(2, vec![Policy::vendors(), caps.setting("per-agent-hour", "0.025")], |config| config);
    grants_exactly(&scene, SCOUT_TOKEN, 25, "agent/scout");
}

#[test]
fn three_gateways_share_a_number_of_payments() {
    let velocity = Policy::new("velocity", "builtin:velocity").setting("per-agent-day", 17);
    let scene = scene(3, vec![Policy::vendors(), velocity], |config| config);
    grants_exactly(&scene, SCOUT_TOKEN, 17, "agent/scout");
}

#[test]
fn two_gateways_share_a_sessions_limit() {
    let scene = Scene::new(2);
    let (id, token) = scene.session(1, &json!({"agent": "scout", "limit": "0.0205"}));
    grants_exactly_in_a_session(&scene, &id, &token, 20);
}

#[test]
fn two_gateways_share_a_sessions_number_of_payments() {
    let scene = Scene::new(2);
    let (id, token) = scene.session(0, &json!({"agent": "scout", "limit": "5.00", "max_payments": 13}));
    grants_exactly_in_a_session(&scene, &id, &token, 13);
}

/// As [`grants_exactly`], where only the session has come to its end.
#[track_caller]
fn grants_exactly_in_a_session(scene: &Scene, id: &str, token: &str, quotes: usize) {
    let (paid, refusals) = drain(scene, &everywhere(scene, token));
    assert_eq!(paid.iter().collect::<BTreeSet<_>>().len(), quotes);
    assert!(refusals.iter().all(|body| text(body, "/budget").contains(id)), "{refusals:?}");
    assert_eq!(scene.seller("honest").stats().authorizations, u64::try_from(quotes).unwrap());
    for gateway in 0..scene.gateways.len() {
        scene.buy(gateway);
    }
    assert_eq!(sound(scene, &["honest"], &[]).len(), quotes + scene.gateways.len());
}

#[test]
fn what_one_gateway_holds_no_other_can_spend() {
    let scene = Scene::with(Place::Shared, 2, &["honest", KEEPER], open_handed(), |config| with_budget(config, 2));
    refusal(&scene.agent(0).fetch(&scene.seller(KEEPER).url("/quote"), json!({})), 504, "outcome-unknown");
    scene.buy(1);
    for gateway in [1, 0] {
        let body = refusal(&scene.agent(gateway).fetch(&scene.quote(), json!({})), 403, "budget-exceeded");
        assert!(text(&body, "/budget").contains("everybody"), "{body}");
    }
}

#[test]
fn too_many_unresolved_payments_are_counted_over_all_gateways() {
    let scene = Scene::with(Place::Shared, 2, &["honest", KEEPER], open_handed(), |config| {
        config.set(&["limits", "unresolved-per-seller"], 2)
    });
    for gateway in [0, 1] {
        let url = scene.seller(KEEPER).url(&format!("/quote?n={gateway}"));
        refusal(&scene.agent(gateway).fetch(&url, json!({})), 504, "outcome-unknown");
    }
    for gateway in [0, 1] {
        let url = scene.seller(KEEPER).url(&format!("/quote?more={gateway}"));
        refusal(&scene.agent(gateway).fetch(&url, json!({})), 403, "too-many-unresolved");
    }
    assert_eq!(scene.seller(KEEPER).stats().authorizations, 2);
}

#[test]
fn two_gateways_that_start_at_once_on_an_empty_database_are_one() {
    let mut scene = Scene::without(Place::Shared, &["honest"], open_handed(), |config| with_budget(config, 12));
    let configs: Vec<Config> = (0..3).map(|n| scene.config(n)).collect();
    scene.gateways = thread::scope(|scope| {
        let starting: Vec<_> = configs.into_iter().map(|config| scope.spawn(|| Gateway::start(config))).collect();
        starting.into_iter().map(|start| start.join().unwrap()).collect()
    });
    grants_exactly(&scene, SCOUT_TOKEN, 12, "everybody");
}
