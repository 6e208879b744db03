//! Budgets above the session: of a client, a user, an agent and a workspace, each within the next.

use countersign_core::money::Micros;
use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    process::Gateway,
    refusal::refusal,
    till::{bought, caps, items, text},
    world::LocalWorld,
};
use serde_json::json;

const RIVAL_TOKEN: &str = "test-agent-token-of-rival-0123456789abcdef";

#[test]
fn every_budget_that_matches_holds_and_the_narrowest_says_so() {
    let world = LocalWorld::start();
    let budget = |config: Config, name: &str, limit: &str| {
        let (of, who) = name.split_once('/').unwrap();
        let config = config.set(&["budget", name, "when", of], who);
        config.set(&["budget", name, "per"], "lifetime").set(&["budget", name, "limit"], limit)
    };
    let limits = [
        ("client/acme", "0.0015"),
        ("user/alice", "0.0025"),
        ("agent/scout", "0.0035"),
        ("workspace/research", "0.0045"),
    ];
    let config = world.config(&["honest"], [Policy::vendors(), caps("5.00")]).agent("rival", RIVAL_TOKEN);
    let gateway = Gateway::start(limits.iter().fold(config, |config, (name, limit)| budget(config, name, limit)));
    let url = world.world().seller("honest").unwrap().url("/quote");
    let session = |user: &str, client: &str| {
        let wish = json!({"agent": "scout", "limit": "5.00", "user": user, "client": client});
        let opened = gateway.operator().post("/v1/sessions", &wish).json();
        gateway.agent_with(text(&opened, "/token"))
    };
    // One purchase fits, the next does not, and the budget that it is for is named.
    let once = |buyer: Client, full: &str| {
        bought(&buyer.fetch(&url, json!({})), "0.001");
        let told = refusal(&buyer.fetch(&url, json!({})), 403, "budget-exceeded");
        assert!(text(&told, "/budget").contains(full), "{full}: {told}");
    };
    once(session("alice", "acme"), "client/acme");
    once(session("alice", "globex"), "user/alice");
    once(session("bob", "globex"), "agent/scout");
    once(gateway.agent_with(RIVAL_TOKEN), "workspace/research");
    assert_eq!(world.new_redemptions().len(), 4);
    // What was refused is held nowhere.
    let rows = items(&gateway.operator().get("/v1/budgets"));
    for ((name, _), spent) in limits.iter().zip([1_000, 2_000, 3_000, 4_000]) {
        let row = rows.iter().find(|row| text(row, "/budget").ends_with(name)).unwrap();
        let parts = ["/held", "/spent"].map(|part| Micros::parse(text(row, part)).unwrap().get());
        assert_eq!(parts.iter().sum::<u64>(), spent, "{row}");
    }
}
