use super::*;

async fn call(world: &World, method: &str, params: Value) -> Value {
    let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
    let answer = post(&format!("{}/", world.rpc_url()), &request).await.json();
    assert_eq!((&answer["jsonrpc"], &answer["id"]), (&json!("2.0"), &json!(7)));
    answer.get("result").unwrap_or(&answer["error"]).clone()
}

/// Calldata: the selector as published, then words.
fn calldata(selector: &str, words: &[[u8; 32]]) -> Value {
    json!({"to": USDC, "data": format!("{selector}{}", hex::encode(words.as_flattened()))})
}

fn word(tail: &[u8]) -> [u8; 32] {
    let mut word = [0; 32];
    word[32 - tail.len()..].copy_from_slice(tail);
    word
}

#[tokio::test]
async fn it_speaks_as_a_node_does() {
    let (world, _, buyer) = world().await;
    assert_eq!(call(&world, "eth_chainId", json!([])).await, "0x14a34");
    assert_eq!(call(&world, "eth_blockNumber", json!([])).await, "0x1");
    for tag in ["latest", "finalized", "safe", "0x1"] {
        let block = call(&world, "eth_getBlockByNumber", json!([tag, false])).await;
        assert_eq!((&block["number"], &block["timestamp"]), (&json!("0x1"), &json!("0x6afd86c0")), "{tag}");
        assert_eq!(block["hash"].as_str().unwrap().len(), 66);
        let same = call(&world, "eth_getBlockByHash", json!([block["hash"], false])).await;
        assert_eq!(same, block);
    }
    assert_eq!(call(&world, "eth_getBlockByNumber", json!(["0x99", false])).await, Value::Null);
    assert!(call(&world, "eth_getCode", json!([USDC, "latest"])).await.as_str().unwrap().len() > 2);
    assert_eq!(call(&world, "eth_getCode", json!([buyer.address(), "latest"])).await, "0x");

    // The published selectors of ERC-20 and EIP-3009.
    let owner = word(buyer.address().as_bytes());
    let ask = |selector: &'static str, words: Vec<[u8; 32]>| {
        let world = &world;
        async move { call(world, "eth_call", json!([calldata(selector, &words), "finalized"])).await }
    };
    let number = |n: u64| json!(hex32::print(&word(&n.to_be_bytes())));
    assert_eq!(ask("0x70a08231", vec![owner]).await, number(10_000_000), "balanceOf");
    assert_eq!(ask("0xe94a0102", vec![owner, [1; 32]]).await, number(0), "authorizationState");
    assert_eq!(ask("0x313ce567", vec![]).await, number(6), "decimals");
    assert_eq!(
        ask("0x3644e515", vec![]).await,
        "0x71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818",
        "DOMAIN_SEPARATOR"
    );
    let text = [word(&[32]), word(&[4]), *b"USDC\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"];
    assert_eq!(ask("0x06fdde03", vec![]).await, format!("0x{}", hex::encode(text.as_flattened())), "name");
    assert_eq!(ask("0xdeadbeef", vec![]).await["code"], 3, "no such function");
    let nowhere = json!([{"to": buyer.address(), "data": "0x313ce567"}, "latest"]);
    assert_eq!(call(&world, "eth_call", nowhere).await, "0x", "no code there");
}

#[tokio::test]
async fn a_transfer_can_be_found_and_read_at_any_block() {
    let (world, watch, buyer) = world().await;
    let payee = Address::new([9; 20]);
    let message = buyer.message(payee, 1_000, 7);
    let signature = buyer.sign(&message.digest(&token()));
    let hash = world.chain().transfer_with_authorization(&message, &signature).unwrap();
    watch.advance(60);

    let receipt = call(&world, "eth_getTransactionReceipt", json!([hex32::print(&hash)])).await;
    assert_eq!((&receipt["status"], &receipt["blockNumber"]), (&json!("0x1"), &json!("0x2")));
    // keccak("AuthorizationUsed(address,bytes32)") and keccak("Transfer(address,address,uint256)").
    let used = "0x98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5";
    let moved = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
    let payer = hex32::print(&word(buyer.address().as_bytes()));
    let nonce = hex32::print(&message.nonce);
    let filter = json!([{"address": USDC, "fromBlock": "0x0", "toBlock": "finalized", "topics": [used, payer, nonce]}]);
    let logs = call(&world, "eth_getLogs", filter).await;
    assert_eq!(logs.as_array().unwrap().len(), 1);
    assert_eq!(logs[0], receipt["logs"][0]);
    assert_eq!(logs[0]["transactionHash"], hex32::print(&hash));

    let filter = json!([{"blockHash": receipt["blockHash"], "topics": [[used, moved], payer]}]);
    let logs = call(&world, "eth_getLogs", filter).await;
    assert_eq!(logs, receipt["logs"], "alternatives and a whole block by hash");
    assert_eq!(logs[1]["data"], hex32::print(&word(&[0x03, 0xe8])));

    let none = json!([{"address": payee, "fromBlock": "0x0"}]);
    assert_eq!(call(&world, "eth_getLogs", none).await, json!([]));
    let backwards = json!([{"fromBlock": "0x2", "toBlock": "0x1"}]);
    assert_eq!(call(&world, "eth_getLogs", backwards).await["code"], -32000);

    let state = calldata("0xe94a0102", &[word(buyer.address().as_bytes()), message.nonce]);
    let at = |block: Value| call(&world, "eth_call", json!([state, block]));
    assert_eq!(at(json!("0x1")).await, hex32::print(&word(&[0])));
    assert_eq!(at(json!({"blockHash": receipt["blockHash"]})).await, hex32::print(&word(&[1])));
    assert_eq!(at(json!("0x77")).await["message"], "header not found");
}

#[tokio::test]
async fn batches_and_errors() {
    let (world, _, _) = world().await;
    let url = format!("{}/", world.rpc_url());
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "eth_chainId"},
        {"jsonrpc": "2.0", "id": "two", "method": "eth_sendRawTransaction", "params": ["0x"]},
    ]);
    let answers = post(&url, &batch).await.json();
    assert_eq!(answers[0]["result"], "0x14a34");
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!("two"), &json!(-32601)));
    let garbage = fetch("POST", &url, &[], "{".to_owned()).await.unwrap();
    assert_eq!(garbage.json()["error"]["code"], -32700);
    assert_eq!(call(&world, "eth_getBlockByNumber", json!(["soon", false])).await["code"], -32602);
}
