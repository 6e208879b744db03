//! Chain nodes: one that answers whatever it likes beside an honest one never frees or settles anything.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use countersign_chain::fake::{Chain, FakeNode, answer};
use countersign_chain::{Finality, Finding, Node, Reader, RpcError, Watch};
use countersign_core::ledger::Fut;
use countersign_core::x402::Authorization;
use serde_json::Value;

use crate::chain::{PAYER, asset, authorization, cancel, chain, final_at, look, network, now, redeem, tx};
use crate::{lines, way};

/// What became of an authorization, and the nodes that say so.
struct Story {
    authorization: Authorization,
    chain: Chain,
    /// When it is looked at, in seconds after the beginning.
    at: u64,
    redeemed: bool,
    unused: bool,
}

/// Open, redeemed, expired, cancelled; all of it final.
static STORIES: LazyLock<[Story; 4]> = LazyLock::new(|| {
    let story = |valid_for, happens: fn(&Authorization) -> Option<countersign_chain::fake::Call>, at| {
        let (authorization, chain) = (authorization(1, valid_for), chain());
        let calls = happens(&authorization);
        chain.mine(chain.head().time + 2, calls.iter().map(|call| tx(1, std::slice::from_ref(call))).collect());
        final_at(&chain, at);
        Story { authorization, chain, at: at + 60, redeemed: false, unused: false }
    };
    [
        story(3_600, |_| None, 30),
        Story { redeemed: true, ..story(3_600, |a| Some(redeem(a)), 30) },
        Story { unused: true, ..story(60, |_| None, 300) },
        Story { unused: true, ..story(3_600, |a| Some(cancel(a)), 30) },
    ]
});

/// Line by line the bodies of its answers; an empty line, or none: what an honest node says.
struct Odd {
    honest: Arc<FakeNode>,
    bodies: Vec<Vec<u8>>,
    asked: AtomicUsize,
}

impl Node for Odd {
    fn name(&self) -> String {
        "odd".to_owned()
    }

    fn call<'a>(&'a self, method: &'a str, params: Value) -> Fut<'a, Result<Value, RpcError>> {
        let body = self.bodies.get(self.asked.fetch_add(1, Ordering::Relaxed)).filter(|body| !body.is_empty());
        match body {
            Some(body) => Box::pin(std::future::ready(answer(body))),
            None => self.honest.call(method, params),
        }
    }
}

/// The first byte: which story, and whether an honest node is asked too.
pub(crate) fn check(bytes: &[u8]) {
    let (first, rest) = way(bytes);
    let story = &STORIES[usize::from(first & 3)];
    let alone = first & 4 == 0;
    let bodies: Vec<Vec<u8>> = lines(rest).map(<[u8]>::to_vec).collect();
    let odd = || -> Arc<dyn Node> {
        let (honest, asked) = (FakeNode::new("behind", &story.chain), AtomicUsize::new(0));
        Arc::new(Odd { honest, bodies: bodies.clone(), asked })
    };
    let honest = || -> Arc<dyn Node> { FakeNode::new("honest", &story.chain) };
    let read = |nodes| Reader::new(network(), Finality::Tag, nodes, None).unwrap();
    let nodes = |more: Arc<dyn Node>| if alone { vec![more] } else { vec![more, honest()] };

    let reader = read(nodes(odd()));
    let mut watch = Watch::default();
    for (again, after) in [0, 601].into_iter().enumerate() {
        let found = look(&reader, &story.authorization, None, &mut watch, story.at + after);
        match &found {
            Finding::Redeemed { amount, .. } => {
                assert!(*amount <= story.authorization.offer.amount, "more than was signed");
                assert!(alone || story.redeemed, "one node settled what another does not know: {found:?}");
            }
            Finding::Unused { .. } => {
                assert!(alone || story.unused, "one node freed what another does not: {found:?}");
                assert!(!alone || again == 1, "one reading of one node freed budget");
            }
            Finding::Pending(_) | Finding::Gone { .. } | Finding::Contradiction(_) => {}
        }
        let kept = serde_json::to_string(&watch).unwrap();
        assert_eq!(serde_json::from_str::<Watch>(&kept).ok(), Some(watch.clone()), "what is kept is read back");
    }

    let scan = |reader: &Reader| {
        let anchor = now(reader.anchor()).ok()?;
        let range = (1, anchor.block().number);
        now(reader.scan(&anchor, asset().address, &BTreeSet::from([PAYER]), range)).ok()
    };
    let told = scan(&read(nodes(odd())));
    if let (Some(told), false) = (told, alone) {
        let truth = scan(&read(vec![honest()])).unwrap();
        assert!(told.through <= truth.through);
        assert!(told.acts.iter().all(|act| truth.acts.contains(act)), "an act that was none");
        assert!(told.incoming.iter().all(|transfer| truth.incoming.contains(transfer)), "money that never came");
    }
}

/// What an honest node answers to the same questions, for the corpus: a fuzzer does not invent a chain.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    struct Recorder(Arc<FakeNode>, std::sync::Mutex<String>);
    impl Node for Recorder {
        fn name(&self) -> String {
            "recorder".to_owned()
        }
        fn call<'a>(&'a self, method: &'a str, params: Value) -> Fut<'a, Result<Value, RpcError>> {
            Box::pin(async move {
                let answered = self.0.call(method, params).await;
                let body = match &answered {
                    Ok(result) => serde_json::json!({"jsonrpc": "2.0", "id": 1, "result": result}),
                    Err(RpcError::Refused { code, message }) => {
                        serde_json::json!({"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": message}})
                    }
                    Err(_) => Value::Null,
                };
                let mut lines = self.1.lock().unwrap();
                lines.push_str(&body.to_string());
                lines.push('\n');
                answered
            })
        }
    }
    let record = |first: u8| {
        let story = &STORIES[usize::from(first & 3)];
        let recorder = Arc::new(Recorder(FakeNode::new("recorded", &story.chain), std::sync::Mutex::default()));
        let reader = Reader::new(network(), Finality::Tag, vec![recorder.clone() as Arc<dyn Node>], None).unwrap();
        let mut watch = Watch::default();
        for after in [0, 601] {
            look(&reader, &story.authorization, None, &mut watch, story.at + after);
        }
        let lines = recorder.1.lock().unwrap().clone();
        [vec![b'0' + first], lines.into_bytes()].concat()
    };
    (0..8).map(record).collect()
}
