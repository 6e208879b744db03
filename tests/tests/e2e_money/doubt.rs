//! What was signed and never answered for stays held until the chain, finalized, shows that nobody can redeem it.

use super::*;
use countersign::demo::world::Revert;
use countersign_tests::node::Lie;

const HELD: ((u64, u64), (u64, u64)) = ((1_000, 0), (1_000, 0));
const FREE: ((u64, u64), (u64, u64)) = ((0, 0), (0, 0));
const SPENT: ((u64, u64), (u64, u64)) = ((0, 1_000), (0, 1_000));

fn figures(scene: &Scene) -> ((u64, u64), (u64, u64)) {
    (scene.caps(), scene.wallet())
}

#[test]
fn rule_06_what_was_never_redeemed_comes_back_when_its_time_is_over_and_not_before() {
    let mut scene = Scene::new(&[KEEPER]);
    let Doubtful { payment, nonce, valid_before } = scene.doubtful();
    let nonce = hex::encode(nonce);
    scene.looks(&nonce);
    scene.stays(&payment, "unknown");

    scene.chain().mine_at(valid_before - 1);
    scene.gateway.restart();
    scene.looks(&nonce);
    scene.stays(&payment, "unknown");
    assert_eq!(figures(&scene), HELD);

    let block = scene.chain().mine_at(valid_before);
    assert_eq!(block.timestamp, valid_before);
    scene.gateway.restart();
    let failed = scene.until(&payment, "failed");
    assert_eq!(figures(&scene), FREE);
    assert_eq!(failed["evidence"]["nodes"], 2);
    assert!(failed["evidence"]["block_time"].as_u64().unwrap() >= valid_before, "{failed:#}");
    assert!(failed["transaction"].is_null(), "{failed:#}");
    assert!(failed["holds"].as_array().unwrap().iter().all(|hold| hold["open"] == false), "{failed:#}");
    assert_eq!(scene.seller(KEEPER).redeem(), Err(Revert::Expired));
    assert_eq!(scene.world.world().balance(scene.seller(KEEPER).pay_to()), 0);
}

#[test]
fn rule_06_an_error_after_signing_is_held_and_comes_back_the_same_way() {
    let mut scene = Scene::new(&["honest"]);
    let answer = scene.agent().fetch(&scene.seller("honest").url("/broken"), json!({}));
    assert_eq!(answer.status, 500);
    let payment = answer.header("countersign-payment").unwrap().to_owned();
    scene.looks(&scene.nonce("honest"));
    scene.stays(&payment, "unknown");
    assert_eq!(figures(&scene), HELD);
    let valid_before = scene.seller("honest").visits().iter().find_map(|visit| visit.valid_before).unwrap();
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    scene.until(&payment, "failed");
    assert_eq!(figures(&scene), FREE);
}

#[test]
fn rule_06_the_end_of_the_validity_must_be_final() {
    let mut scene = Scene::with(&[KEEPER], 2, |config, _| config.set(&["network", NETWORK, "finality-blocks"], 30));
    let Doubtful { payment, nonce, valid_before } = scene.doubtful();
    for _ in 0..29 {
        scene.chain().mine_at(valid_before);
    }
    scene.gateway.restart();
    scene.looks(&hex::encode(nonce));
    scene.stays(&payment, "unknown");
    assert_eq!(figures(&scene), HELD);
    for _ in 0..30 {
        scene.chain().mine();
    }
    scene.gateway.restart();
    scene.until(&payment, "failed");
    assert_eq!(figures(&scene), FREE);
}

#[test]
fn rule_07_one_node_alone_frees_nothing_at_once() {
    let mut scene = Scene::with(&[KEEPER], 1, |config, _| config);
    let Doubtful { payment, nonce, valid_before } = scene.doubtful();
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    scene.looks(&hex::encode(nonce));
    // A later block alone is no second reading: ten minutes must pass by both clocks.
    scene.chain().mine_at(valid_before + 3_600);
    scene.looks(&hex::encode(nonce));
    scene.stays(&payment, "unknown");
    assert_eq!(figures(&scene), HELD);
    // It was right: with another that agrees it is believed.
    let second = Node::before(scene.world.world().rpc_url());
    let urls = vec![scene.nodes[0].url(HOSTS[0]), second.url(HOSTS[1])];
    let config = scene.gateway.config().set(&["network", NETWORK, "rpc"], urls);
    scene.gateway.write_config(config);
    scene.gateway.restart();
    scene.until(&payment, "failed");
    assert_eq!(figures(&scene), FREE);
}

#[test]
fn rule_07_without_a_node_nothing_is_ever_freed() {
    let mut scene = Scene::with(&[KEEPER], 0, |config, _| config);
    let Doubtful { payment, valid_before, .. } = scene.doubtful();
    scene.chain().mine_at(valid_before + 3_600);
    scene.stays(&payment, "unknown");
    scene.gateway.restart();
    scene.stays(&payment, "unknown");
    assert_eq!(figures(&scene), HELD);
}

#[test]
fn rule_07_nodes_that_are_added_while_it_runs_free_what_waited_for_them() {
    let mut scene = Scene::with(&[KEEPER], 0, |config, _| config);
    let Doubtful { payment, valid_before, .. } = scene.doubtful();
    scene.chain().mine_at(valid_before);
    scene.stays(&payment, "unknown");
    let nodes = [0, 1].map(|_| Node::before(scene.world.world().rpc_url()));
    let urls: Vec<String> = nodes.iter().zip(HOSTS).map(|(node, host)| node.url(host)).collect();
    let config = scene.gateway.config().set(&["network", NETWORK, "rpc"], urls);
    scene.gateway.write_config(config.set(&["network", NETWORK, "finality-blocks"], 0));
    scene.until(&payment, "failed");
    assert_eq!(figures(&scene), FREE);
}

#[test]
fn rule_07_a_node_that_lies_keeps_it_held() {
    let mut scene = Scene::new(&[KEEPER]);
    let behind = scene.chain().head().number;
    let Doubtful { payment, valid_before, .. } = scene.doubtful();
    // Nobody must tell it the truth about the new block before it ends.
    scene.gateway.kill();
    scene.chain().mine_at(valid_before);
    for (liar, lie, question, times) in [
        (1, Lie::Used, "e94a0102", 2),
        (0, Lie::Used, "e94a0102", 2),
        (1, Lie::Hash, "jsonrpc", 8),
        (1, Lie::Behind(behind), "jsonrpc", 12),
        (1, Lie::Silence, "jsonrpc", 3),
    ] {
        scene.gateway.kill();
        for (n, node) in scene.nodes.iter().enumerate() {
            node.tell(if n == liar { lie } else { Lie::None });
        }
        scene.gateway.spawn_again();
        let ready = wait_for(PATIENCE, || scene.gateway.is_ready().then_some(()));
        assert!(ready.is_some(), "{}", scene.gateway.log());
        asked(&scene.nodes[liar], question, times);
        scene.stays(&payment, "unknown");
        assert_eq!(figures(&scene), HELD, "{lie:?}");
    }
    scene.nodes.iter().for_each(|node| node.tell(Lie::None));
    scene.gateway.restart();
    scene.until(&payment, "failed");
    assert_eq!(figures(&scene), FREE);
}

#[test]
fn rule_07_a_node_that_denies_a_redemption_frees_nothing() {
    let mut scene = Scene::new(&[KEEPER]);
    let Doubtful { payment, nonce, valid_before } = scene.doubtful();
    scene.gateway.kill();
    scene.nodes[1].tell(Lie::Unused);
    scene.seller(KEEPER).redeem().unwrap();
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    scene.looks(&hex::encode(nonce));
    scene.stays(&payment, "unknown");
    assert_eq!(figures(&scene), HELD);
    scene.nodes[1].tell(Lie::None);
    scene.gateway.restart();
    scene.until(&payment, "settled");
    assert_eq!(figures(&scene), SPENT);
}

#[test]
fn rule_07_what_is_redeemed_late_is_settled_and_never_freed() {
    let mut scene = Scene::new(&[KEEPER]);
    let Doubtful { payment, valid_before, .. } = scene.doubtful();
    scene.chain().mine_at(valid_before - 1);
    scene.seller(KEEPER).redeem().unwrap();
    scene.chain().mine_at(valid_before);
    scene.gateway.restart();
    let settled = scene.until(&payment, "settled");
    assert!(settled["evidence"]["block_time"].as_u64().unwrap() < valid_before, "{settled:#}");
    assert_eq!(figures(&scene), SPENT);
    scene.chain().mine_at(valid_before + 3_600);
    scene.gateway.restart();
    scene.stays(&payment, "settled");
    assert_eq!(figures(&scene), SPENT);
}

#[test]
fn what_is_unknown_is_presented_again_with_the_same_nonce() {
    let scene = Scene::new(&[KEEPER]);
    for _ in 0..3 {
        refusal(&scene.fetch(KEEPER, json!({"purchase_id": "again"})), 504, "outcome-unknown");
    }
    let stats = scene.seller(KEEPER).stats();
    assert_eq!((stats.presented, stats.authorizations), (3, 1));
    assert_eq!(scene.states(), ["unknown"]);
    assert_eq!(figures(&scene), HELD);
}

#[test]
fn what_was_freed_is_decided_anew_with_another_nonce() {
    let mut scene = Scene::new(&[KEEPER]);
    let start = scene.chain().now();
    let first = scene.doubtful();
    scene.chain().mine_at(first.valid_before);
    scene.gateway.restart();
    scene.until(&first.payment, "failed");
    // For the chain, whose clock was moved on, the next one must not be over as well.
    let later = wait_for(PATIENCE, || (scene.chain().now().since(start) > 5_000).then_some(()));
    assert!(later.is_some());
    let second = scene.doubtful();
    assert_ne!((first.payment, first.nonce), (second.payment, second.nonce));
    assert_eq!(figures(&scene), HELD, "only the second");
}

#[test]
fn rule_19_an_agent_that_was_removed_presents_nothing_again() {
    let mut scene = Scene::with(&[KEEPER], 2, |config, _| config.agent("rival", OTHER_TOKEN));
    let order = json!({"purchase_id": "mine"});
    refusal(&scene.fetch(KEEPER, order.clone()), 504, "outcome-unknown");
    let config = scene.gateway.config().remove(&["agent", "scout"]);
    scene.gateway.write_config(config);
    let out = wait_for(PATIENCE, || (scene.agent().get("/v1/payments").status == 401).then_some(()));
    assert!(out.is_some(), "the agent is still in");
    refusal(&scene.fetch(KEEPER, order.clone()), 401, "unauthenticated");
    // Nor does another agent take the purchase over.
    let rival = scene.gateway.agent_with(OTHER_TOKEN);
    let url = scene.seller(KEEPER).url("/quote");
    refusal(&rival.fetch(&url, order), 504, "outcome-unknown");
    let stats = scene.seller(KEEPER).stats();
    assert_eq!((stats.presented, stats.authorizations), (2, 2), "one of each agent: {stats:?}");
}
