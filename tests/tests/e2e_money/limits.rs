//! Prices that move, and budgets whose window changes under what was spent.

use super::*;
use countersign_core::time::Timestamp;

const ASSET: &str = "usdc-base-sepolia";
const HOUR_MS: u64 = 3_600_000;

/// USDC at 1.1 USD, as read at this moment and believed for an hour.
fn priced(config: Config, as_of: Timestamp, margin: &str) -> Config {
    config
        .set(&["asset", ASSET, "price"], "1.1")
        .set(&["asset", ASSET, "price-as-of"], as_of.to_string())
        .set(&["asset", ASSET, "price-max-age"], "1h")
        .set(&["asset", ASSET, "price-margin"], margin)
}

#[test]
fn a_price_that_moves_counts_with_its_margin_rounded_up() {
    // 0.001 USDC are 0.0011 USD, and with the margin of a twentieth of a per cent 0.00110055.
    for (margin, value, micros) in [("0%", "0.0011", 1_100), ("0.05%", "0.001101", 1_101), ("2%", "0.001122", 1_122)] {
        let scene = Scene::with(&["honest"], 2, |config, world| priced(config, world.world().chain().now(), margin));
        let payment = bought(&scene.fetch("honest", json!({})), value);
        let view = scene.until(&payment, "settled");
        assert_eq!((&view["amount"]["value"], &view["amount"]["currency"]), (&json!(value), &json!("USD")));
        assert_eq!((scene.caps(), scene.wallet()), ((0, micros), (0, micros)), "{margin}");
        assert_eq!(
            scene.world.world().balance(scene.seller("honest").pay_to()),
            1_000,
            "the price on the chain is the same"
        );
    }
}

#[test]
fn a_price_that_is_stale_pays_nothing_until_it_is_renewed() {
    let mut scene = Scene::with(&["honest"], 2, |config, world| {
        priced(config, world.world().chain().now().minus_millis(2 * HOUR_MS), "2%")
    });
    let body = refusal(&scene.fetch("honest", json!({})), 422, "unpayable-offer");
    assert!(body.to_string().contains(ASSET) || body.to_string().contains("price"), "it does not say why: {body}");
    assert_eq!(scene.seller("honest").stats().presented, 0);
    assert_eq!((scene.caps(), scene.wallet()), ((0, 0), (0, 0)));
    let config = priced(scene.gateway.config(), scene.chain().now(), "2%");
    scene.gateway.write_config(config);
    scene.gateway.restart();
    bought(&scene.fetch("honest", json!({})), "0.001122");
}

#[test]
fn a_price_that_moves_says_when_it_was_read_how_long_it_holds_and_its_margin() {
    for missing in ["price-as-of", "price-max-age", "price-margin"] {
        let now = LocalWorld::start().world().chain().now();
        let config = priced(Config::new(plain()), now, "2%").remove(&["asset", ASSET, missing]);
        let (status, log) = Gateway::refused(config);
        assert!(!status.success());
        assert!(log.contains(missing), "it does not name {missing}: {log}");
    }
}

// ---- Windows

/// The rows of the declared budget: window, held, spent.
fn declared(scene: &Scene) -> Vec<(String, u64, u64)> {
    let rows = items(&scene.operator().get("/v1/budgets"));
    let ours = rows.iter().filter(|row| text(row, "/budget").contains("workspace/research"));
    ours.map(|row| (text(row, "/window").to_owned(), micros(&row["held"]), micros(&row["spent"]))).collect()
}

/// Three thousandths a window, of which two are spent and one is held; then the window is another.
fn another_window(from: &str, to: &str) {
    let budget = |config: Config, per: &str| {
        let config = config.set(&["budget", "workspace/research", "when", "workspace"], "research");
        config
            .set(&["budget", "workspace/research", "per"], per)
            .set(&["budget", "workspace/research", "limit"], "0.003")
    };
    let mut scene = Scene::with(&["honest", "elsewhere", KEEPER], 2, |config, _| budget(config, from));
    scene.settled("honest");
    scene.settled("honest");
    let Doubtful { payment, .. } = scene.doubtful();
    let over = |scene: &Scene| {
        let body = refusal(&scene.fetch("elsewhere", json!({})), 403, "budget-exceeded");
        assert!(text(&body, "/budget").contains("workspace/research"), "{body}");
    };
    over(&scene);

    // Somebody new shows that the edit is in force; it may also be refused, with a reason.
    let config = budget(scene.gateway.config(), to).agent("marker", OTHER_TOKEN);
    scene.gateway.write_config(config);
    let marker = scene.gateway.agent_with(OTHER_TOKEN);
    let status = |scene: &Scene| scene.operator().get("/v1/policies").json();
    let done = wait_for(PATIENCE, || {
        (marker.get("/v1/budgets").status == 200 || !status(&scene)["last_error"].is_null()).then_some(())
    });
    assert!(done.is_some(), "{from} to {to}: neither activated nor refused: {:#}", status(&scene));
    over(&scene);
    let taken = marker.get("/v1/budgets").status == 200;
    let window = if taken { to } else { from };
    let find = |scene: &Scene| declared(scene).into_iter().find(|row| row.0.starts_with(window));
    // Room for one more: the purchase that takes it shows what the window took over.
    let before = status(&scene)["generation"].as_u64();
    let config = scene.gateway.config().set(&["budget", "workspace/research", "limit"], "0.004");
    scene.gateway.write_config(config);
    let wider = wait_for(PATIENCE, || (status(&scene)["generation"].as_u64() > before).then_some(()));
    assert!(wider.is_some(), "{from} to {to}: {:#}", status(&scene));
    scene.settled("honest");
    let (_, held, spent) = find(&scene).unwrap_or_else(|| panic!("no such window: {:?}", declared(&scene)));
    assert_eq!(held + spent, 4_000, "{from} to {to}");
    over(&scene);

    // What was held before the edit becomes spent after it, once.
    scene.seller(KEEPER).redeem().unwrap();
    scene.until(&payment, "settled");
    let (_, held, spent) = find(&scene).unwrap();
    assert_eq!(held + spent, 4_000, "{from} to {to}");
    over(&scene);
    scene.gateway.restart();
    over(&scene);
}

#[test]
fn rule_10_a_budget_that_becomes_monthly_keeps_what_the_day_spent() {
    another_window("day", "month");
}

#[test]
fn rule_10_a_budget_that_becomes_daily_keeps_what_the_hour_spent() {
    another_window("hour", "day");
}

#[test]
fn rule_10_a_budget_that_becomes_hourly_keeps_what_was_spent_within_the_hour() {
    another_window("month", "hour");
}

#[test]
fn rule_10_a_budget_that_becomes_one_for_ever_keeps_what_was_spent() {
    another_window("day", "lifetime");
}

#[test]
fn rule_10_what_is_freed_after_the_window_changed_leaves_both_windows() {
    let budget = |config: Config, per: &str| {
        let config = config.set(&["budget", "workspace/research", "when", "workspace"], "research");
        config
            .set(&["budget", "workspace/research", "per"], per)
            .set(&["budget", "workspace/research", "limit"], "0.001")
    };
    let mut scene = Scene::with(&["honest", KEEPER], 2, |config, _| budget(config, "day"));
    let start = scene.chain().now();
    let Doubtful { payment, valid_before, .. } = scene.doubtful();
    let config = budget(scene.gateway.config(), "month").agent("marker", OTHER_TOKEN);
    scene.gateway.write_config(config);
    let marker = scene.gateway.agent_with(OTHER_TOKEN);
    let done = wait_for(PATIENCE, || (marker.get("/v1/budgets").status == 200).then_some(()));
    assert!(done.is_some(), "not activated: {:#}", scene.operator().get("/v1/policies").json());
    refusal(&scene.fetch("honest", json!({})), 403, "budget-exceeded");
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    scene.until(&payment, "failed");
    // For the chain, whose clock was moved on, the next one must not be over as well.
    let later = wait_for(PATIENCE, || (scene.chain().now().since(start) > 5_000).then_some(()));
    assert!(later.is_some());
    scene.settled("honest");
    assert!(declared(&scene).iter().all(|(_, held, spent)| held + spent <= 1_000), "{:?}", declared(&scene));
}
