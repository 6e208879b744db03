//! The nodes of these tests themselves: they say what the chain says until they are told to lie.

use super::*;
use countersign_core::evm::hex32;
use countersign_tests::{chain, http, node::Lie, peers::USDC, world::buyer};

#[test]
fn a_node_tells_the_truth_until_it_lies() {
    let world = LocalWorld::start();
    let (there, payer) = (world.world().chain(), buyer());
    let node = Node::before(world.world().rpc_url());
    let url = node.url(HOSTS[0]);
    let rpc = chain::Chain::new(&url);
    let nonce = [0x11; 32];
    let used = || rpc.authorization_state(USDC, &payer.to_string(), &hex32::print(&nonce));
    let block = |which: &str| rpc.call("eth_getBlockByNumber", json!([which, false]));
    for _ in 0..3 {
        there.mine();
    }
    assert!(!used());
    assert_eq!(node.asked(&hex::encode(nonce)), 1);
    node.tell(Lie::Used);
    assert!(used());
    there.redeem_wrongly(payer, nonce, payer, 1);
    node.tell(Lie::Unused);
    assert!(!used());
    node.tell(Lie::None);
    assert!(used());
    assert!(rpc.block_number() > 2);

    let second = hex32::print(&there.block(2).unwrap().hash);
    assert_eq!(block("0x2")["hash"], second);
    node.tell(Lie::Hash);
    assert_ne!(block("0x2")["hash"], second);
    assert_eq!(block("0x2")["number"], "0x2");
    node.tell(Lie::Behind(1));
    assert_eq!(rpc.block_number(), 1);
    assert_eq!((&block("latest")["number"], &block("finalized")["number"]), (&json!("0x1"), &json!("0x1")));
    assert!(block("0x2").is_null());
    assert!(!used(), "it was not, then");
    node.tell(Lie::Silence);
    let silent = http::post(&url, &json!({"jsonrpc": "2.0", "id": 1, "method": "eth_chainId", "params": []})).send();
    assert_eq!(silent.status, 503);
    node.tell(Lie::None);
    assert!(used());
}
