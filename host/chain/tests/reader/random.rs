//! Random histories of a chain: reorganisations not deeper than finality, adversaries that redeem whenever
//! they can, nodes that fail and lie. The reader is compared with what really happened, then and ever after.

use std::collections::BTreeSet;

use countersign_chain::fake::{Call, Chain, FakeNode, Lie, Mood, Transaction};
use countersign_chain::{Finding, Reader, Subject, Watch};
use countersign_core::evm::hex32;
use countersign_core::money::Atomic;
use countersign_core::time::Timestamp;
use countersign_core::x402::Authorization;
use proptest::prelude::{ProptestConfig, any, proptest};
use std::sync::Arc;

use crate::support::{BEGIN, LAG, OTHER, PAYER, SELLER, authorization, cancel, chain, now, reader, redeem, transfer};

/// SplitMix64: the seed is the whole history.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[usize::try_from(self.below(all.len() as u64)).unwrap()]
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    /// One, that may be down, behind, or narrow.
    One,
    /// Two of that kind.
    Two,
    /// One of that kind, and one that lies.
    TwoOneLying,
}

struct Payment {
    authorization: Authorization,
    watch: Watch,
    decided: Option<bool>,
}

struct Game {
    dice: Dice,
    chain: Chain,
    time: u64,
    nodes: Vec<Arc<FakeNode>>,
    lying: bool,
    reader: Reader,
    payments: Vec<Payment>,
    pool: Vec<Transaction>,
    sent: Vec<Transaction>,
    /// How many looks ended in a decision, for or against.
    decisions: (u32, u32),
}

impl Game {
    fn new(seed: u64, which: Nodes) -> Self {
        let mut dice = Dice(seed);
        let chain = chain();
        let mut nodes = vec![FakeNode::new("a", &chain)];
        if which != Nodes::One {
            nodes.push(FakeNode::new("b", &chain));
        }
        let reader = reader(&nodes);
        let payment = |n: u8, dice: &mut Dice| Payment {
            authorization: authorization(n, 30 + dice.below(900)),
            watch: Watch::default(),
            decided: None,
        };
        let payments = (1..=4).map(|n| payment(n, &mut dice)).collect();
        let lying = which == Nodes::TwoOneLying;
        let (pool, sent) = (Vec::new(), Vec::new());
        let mut game = Self { dice, chain, time: BEGIN, nodes, lying, reader, payments, pool, sent, decisions: (0, 0) };
        for _ in 0..10 {
            game.mine();
        }
        game
    }

    /// A block of some of what waits. Everybody's clock but the block's own may be a little ahead.
    fn mine(&mut self) {
        let slow = self.dice.below(3);
        let mut included = Vec::new();
        for transaction in std::mem::take(&mut self.pool) {
            if self.dice.one_in(3) {
                self.pool.push(transaction);
            } else {
                included.push(transaction);
            }
        }
        self.chain.mine(self.time - slow, included);
        self.check_history();
    }

    fn send(&mut self) {
        let mut calls: Vec<Call> = Vec::new();
        for _ in 0..=self.dice.below(3) {
            let target = self.dice.below(4) as usize;
            let authorization = &self.payments[target].authorization;
            calls.push(match self.dice.below(10) {
                0..=5 => redeem(authorization),
                6 => cancel(authorization),
                7 => transfer(PAYER, SELLER, 1_000),
                8 => transfer(PAYER, OTHER, 1_000),
                _ => transfer(SELLER, PAYER, 1_000),
            });
        }
        let transaction = Transaction::new(self.sent.len() as u64, calls);
        self.pool.push(transaction.clone());
        self.sent.push(transaction);
    }

    fn reorganise(&mut self) {
        let depth = 1 + self.dice.below(LAG);
        for transaction in self.chain.undo(depth) {
            if !self.dice.one_in(4) {
                self.pool.push(transaction);
            }
        }
        // The other branch is longer: that is why it won.
        for _ in 0..=depth {
            self.mine();
        }
    }

    fn moods(&mut self) {
        let honest = usize::from(self.lying);
        for (index, node) in self.nodes.iter().enumerate() {
            let mood = match self.dice.below(8) {
                0 => Mood::Down,
                1 => Mood::Lagging(self.dice.below(4)),
                2 => Mood::Narrow(1 + self.dice.below(5)),
                _ => Mood::Honest,
            };
            node.set(if honest == 1 && index == 1 { Mood::Lying(lie(&mut self.dice)) } else { mood });
        }
    }

    fn look(&mut self) {
        let index = self.dice.below(4) as usize;
        let hint = match self.dice.below(4) {
            0 => Some(hex32::print(&[7; 32])),
            1 | 2 if !self.sent.is_empty() => Some(self.dice.pick(&self.sent).name()),
            _ => None,
        };
        let at = Timestamp::from_secs(self.time + self.dice.below(5));
        self.look_at(index, hint.as_deref(), at);
    }

    fn look_at(&mut self, index: usize, transaction: Option<&str>, at: Timestamp) {
        let payment = &mut self.payments[index];
        if payment.decided.is_some() {
            return;
        }
        if self.dice.one_in(20) {
            payment.watch = Watch::default();
        }
        let authorization = payment.authorization.clone();
        let subject = Subject { authorization: &authorization, created: Timestamp::from_secs(BEGIN), transaction };
        let finding = now(self.reader.look(subject, &mut payment.watch, at));
        let redemption = self.chain.redemption(PAYER, &authorization.nonce);
        match finding {
            Finding::Unused { .. } => {
                assert!(redemption.is_none(), "released what was redeemed");
                payment.decided = Some(false);
                self.decisions.1 += 1;
            }
            Finding::Redeemed { evidence, amount } => {
                let (transaction, block) = redemption.expect("settled what was not redeemed");
                assert_eq!(evidence.transaction, Some(transaction.name()));
                assert_eq!(evidence.block, Some(block));
                assert_eq!((amount, evidence.redeemed), (Atomic::new(1_000), None));
                assert!(block <= self.chain.finalized().number, "settled what is not final");
                payment.decided = Some(true);
                self.decisions.0 += 1;
            }
            Finding::Contradiction(text) => assert!(self.lying, "{text}"),
            Finding::Pending(_) | Finding::Gone { .. } => {}
        }
    }

    /// What was decided stays true, whatever happens afterwards.
    fn check_history(&self) {
        for payment in &self.payments {
            let redeemed = self.chain.redemption(PAYER, &payment.authorization.nonce).is_some();
            assert!(payment.decided != Some(false) || !redeemed, "redeemed after it was released");
        }
    }

    fn step(&mut self) {
        match self.dice.below(12) {
            0..=2 => {
                let most = if self.dice.one_in(4) { 200 } else { 6 };
                self.time += 1 + self.dice.below(most);
                self.mine();
            }
            3 => self.send(),
            4 if self.dice.one_in(2) => self.reorganise(),
            5 => self.moods(),
            _ => self.look(),
        }
    }

    /// Once everything works and time goes on, everything is decided.
    fn settle(&mut self) {
        for node in &self.nodes {
            node.set(Mood::Honest);
        }
        for _ in 0..4 {
            self.time += 700;
            for _ in 0..=LAG {
                self.time += 1;
                self.mine();
            }
            for index in 0..self.payments.len() {
                self.look_at(index, None, Timestamp::from_secs(self.time));
                // The holders try to the very end.
                let call = redeem(&self.payments[index].authorization);
                self.pool.push(Transaction::new(1_000_000 + self.time, vec![call]));
            }
        }
        for payment in &self.payments {
            let redeemed = self.chain.redemption(PAYER, &payment.authorization.nonce).is_some();
            assert_eq!(payment.decided, Some(redeemed), "{:?}", payment.watch);
        }
    }
}

fn lie(dice: &mut Dice) -> Lie {
    match dice.below(14) {
        0 => Lie::NeverUsed,
        1 => Lie::StateUnused,
        2 => Lie::StateUsed,
        3 => Lie::NoLogs,
        4 => Lie::FinalAtHead,
        5 => Lie::TimeAhead(dice.below(2_000)),
        6 => Lie::NoHashReads,
        7 => Lie::RefusesHashes,
        8 => Lie::OtherChain(1),
        9 => Lie::NoCode,
        10 => Lie::StaleReceipts,
        11 => Lie::PaidTo(OTHER),
        12 => Lie::Paid(Atomic::new(u128::from(dice.below(2_000)))),
        _ => Lie::OtherHashes,
    }
}

fn play(seed: u64, which: Nodes) -> (u32, u32) {
    let mut game = Game::new(seed, which);
    for _ in 0..400 {
        game.step();
    }
    game.settle();
    game.decisions
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_node(seed in any::<u64>()) {
        play(seed, Nodes::One);
    }

    #[test]
    fn two_nodes(seed in any::<u64>()) {
        play(seed, Nodes::Two);
    }

    #[test]
    fn two_nodes_of_which_one_lies(seed in any::<u64>()) {
        play(seed, Nodes::TwoOneLying);
    }
}

#[test]
fn both_ends_are_played() {
    let seen: BTreeSet<_> = (0..20)
        .flat_map(|seed| {
            let (redeemed, unused) = play(seed, Nodes::Two);
            [(true, redeemed > 0), (false, unused > 0)]
        })
        .filter(|(_, happened)| *happened)
        .collect();
    assert_eq!(seen.len(), 2);
}
