//! Reconciliation: worlds whose truth is known, one corruption each, and exactly that is reported.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "test support: a broken fixture must fail the test loudly"
)]

mod common;

use std::collections::BTreeMap;

use common::{ASSET, NETWORK, NOON, PAYEE, PAYER, payment, refund, transaction};
use countersign_books::reconcile::{Class, Coverage, LedgerRow, Report, Transfer, Verdict, Wallet, read, reconcile};
use countersign_core::ledger::PaymentView;
use countersign_core::money::Atomic;
use countersign_core::payment::State;
use proptest::prelude::*;

/// Long after everything in these worlds is over.
const END: u64 = NOON + 100_000;

fn covered() -> Vec<Coverage> {
    // Two lists that touch: together they leave nothing out.
    let span = |from, until| Coverage { network: NETWORK.into(), from, until };
    vec![span(NOON + 51, END), span(NOON, NOON + 50)]
}

fn transfer(from: &str, to: &str, amount: u128, tx: u64, time: u64) -> Transfer {
    Transfer {
        network: NETWORK.into(),
        asset: ASSET.to_lowercase(),
        from: from.to_lowercase(),
        to: to.to_lowercase(),
        amount,
        transaction: transaction(tx),
        log: 0,
        block: 1_000 + tx,
        time,
        nonce: None,
    }
}

/// The transfer that redeemed a payment.
fn redemption(payment: &PaymentView, n: u64) -> Transfer {
    let amount = payment.evidence.as_ref().and_then(|e| e.redeemed).unwrap_or(payment.facts.amount).get();
    let nonce = Some(transaction(n));
    Transfer { nonce, ..transfer(PAYER, PAYEE, amount, n, NOON + n + 5) }
}

fn outsider() -> &'static str {
    "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc"
}

/// A world in which ledger and chain agree.
struct World {
    payments: Vec<PaymentView>,
    transfers: Vec<Transfer>,
}

impl World {
    /// A payment in every state that has an authorization, over and over.
    fn new(seeds: &[(u8, u64)]) -> Self {
        let mut world = Self { payments: vec![], transfers: vec![] };
        for (n, (kind, amount)) in seeds.iter().enumerate() {
            let n = u64::try_from(n).unwrap();
            let states =
                [State::Settled, State::Released, State::Refunded, State::Disputed, State::Denied, State::Review];
            let state = states[usize::from(*kind) % states.len()];
            let mut p = payment(n, state, *amount);
            p.facts.scheme = if kind % 4 == 0 { "upto".into() } else { "exact".into() };
            if p.facts.scheme == "upto" && state.is_spent() {
                p.evidence.as_mut().unwrap().redeemed = Some(Atomic::new(u128::from(*amount) / 2 + 1));
            }
            if state == State::Refunded {
                p.refunds = vec![refund(&p, 10_000 + n, *amount / 2 + 1)];
                world.transfers.push(transfer(PAYEE, PAYER, u128::from(*amount / 2 + 1), 10_000 + n, NOON + 55));
            }
            if state.is_spent() {
                world.transfers.push(redemption(&p, n));
            }
            world.payments.push(p);
        }
        world
    }

    fn report(&self, nonces: bool) -> Report {
        let rows: Vec<_> = self.payments.iter().filter_map(LedgerRow::of).collect();
        let mut transfers = self.transfers.clone();
        if !nonces {
            transfers.iter_mut().for_each(|t| t.nonce = None);
        }
        let wallet = Wallet { network: NETWORK.into(), address: PAYER.into() };
        reconcile(&rows, &transfers, &covered(), &[wallet])
    }
}

fn counts(report: &Report) -> BTreeMap<Class, i64> {
    report.counts.iter().map(|(class, count)| (*class, i64::try_from(*count).unwrap())).collect()
}

/// What one more and one fewer of each class is.
fn change(before: &Report, after: &Report) -> BTreeMap<Class, i64> {
    let mut change = counts(after);
    for (class, count) in counts(before) {
        *change.entry(class).or_default() -= count;
    }
    change.retain(|_, n| *n != 0);
    change
}

/// Adds one payment of a kind of its own at the end, so that the rest of the world is as it was.
const LAST: u64 = 500;

/// One corruption: what is done to a good world, and what the report must say more than before.
type Corruption = (&'static str, fn(&mut World), &'static [(Class, i64)], Verdict);

const CORRUPTIONS: [Corruption; 17] = [
    (
        "settled, and the chain has nothing",
        |w| w.payments.push(payment(LAST, State::Settled, 77)),
        &[(Class::LedgerOnlySettled, 1)],
        Verdict::Alarm,
    ),
    (
        "money left, and the ledger has nothing",
        |w| w.transfers.push(transfer(PAYER, outsider(), 77, LAST, NOON + 9)),
        &[(Class::ChainOnly, 1)],
        Verdict::Alarm,
    ),
    (
        "money left to a known payee under an unknown nonce",
        |w| {
            w.transfers
                .push(Transfer { nonce: Some(transaction(999)), ..transfer(PAYER, PAYEE, 77, LAST, NOON + 5_000) })
        },
        &[(Class::ChainOnly, 1)],
        Verdict::Alarm,
    ),
    (
        "released, and redeemed all the same",
        |w| {
            let p = payment(LAST, State::Released, 77);
            w.transfers.push(redemption(&p, LAST));
            w.payments.push(p);
        },
        &[(Class::ReleasedButRedeemed, 1)],
        Verdict::Alarm,
    ),
    (
        "another amount",
        |w| {
            let p = payment(LAST, State::Settled, 77);
            w.transfers.push(Transfer { amount: 78, ..redemption(&p, LAST) });
            w.payments.push(p);
        },
        &[(Class::AmountDiffers, 1)],
        Verdict::Alarm,
    ),
    (
        "less than an exact payment",
        |w| {
            let p = payment(LAST, State::Seen, 77);
            let mut t = redemption(&p, LAST);
            t.amount = 76;
            w.payments.push(PaymentView { transaction: Some(transaction(LAST)), ..p });
            w.transfers.push(t);
        },
        &[(Class::AmountDiffers, 1)],
        Verdict::Alarm,
    ),
    (
        "another payee",
        |w| {
            let p = payment(LAST, State::Settled, 77);
            w.transfers.push(Transfer { to: outsider().to_lowercase(), ..redemption(&p, LAST) });
            w.payments.push(p);
        },
        &[(Class::PayeeDiffers, 1)],
        Verdict::Alarm,
    ),
    (
        "another transaction",
        |w| {
            let p = payment(LAST, State::Settled, 77);
            w.transfers.push(Transfer { transaction: transaction(LAST + 1), ..redemption(&p, LAST) });
            w.payments.push(p);
        },
        &[(Class::TransactionDiffers, 1)],
        Verdict::Attention,
    ),
    (
        "redeemed, and the ledger has it open",
        |w| {
            let p = payment(LAST, State::Redeemable, 77);
            w.transfers.push(redemption(&p, LAST));
            w.payments.push(p);
        },
        &[(Class::NotBooked, 1)],
        Verdict::Attention,
    ),
    (
        "over, and the ledger still holds it",
        |w| w.payments.push(payment(LAST, State::Redeemable, 77)),
        &[(Class::ProvenUnspent, 1)],
        Verdict::Attention,
    ),
    ("stuck", |w| w.payments.push(payment(LAST, State::Stuck, 77)), &[(Class::InDoubt, 1)], Verdict::Attention),
    (
        "still underway",
        |w| w.payments.push(payment(END - NOON, State::Signed, 77)),
        &[(Class::InDoubt, 1)],
        Verdict::Clean,
    ),
    (
        "one purchase paid twice",
        |w| {
            let first = payment(LAST, State::Settled, 77);
            let mut second = payment(LAST + 1, State::Settled, 77);
            second.key = first.key.clone();
            w.transfers.extend([redemption(&first, LAST), redemption(&second, LAST + 1)]);
            w.payments.extend([first, second]);
        },
        &[(Class::Matched, 1), (Class::Duplicate, 1)],
        Verdict::Alarm,
    ),
    (
        "a refund nobody booked",
        |w| {
            let p = payment(LAST, State::Settled, 77);
            w.transfers.extend([redemption(&p, LAST), transfer(PAYEE, PAYER, 7, LAST + 1, NOON + 900)]);
            w.payments.push(p);
        },
        &[(Class::Matched, 1), (Class::RefundNotBooked, 1)],
        Verdict::Attention,
    ),
    (
        "a refund the chain does not show",
        |w| {
            let mut p = payment(1, State::Refunded, 77);
            p.id = payment(LAST, State::Settled, 1).id;
            p.key.purchase = payment(LAST, State::Settled, 1).key.purchase;
            p.authorization.as_mut().unwrap().nonce = [9; 32];
            p.refunds = vec![refund(&p, LAST + 1, 7)];
            p.transaction = Some(transaction(LAST));
            let nonce = Some(format!("0x{}", "09".repeat(32)));
            w.transfers.push(Transfer { nonce, ..transfer(PAYER, PAYEE, 77, LAST, NOON + 6) });
            w.payments.push(p);
        },
        &[(Class::Matched, 1), (Class::RefundMissing, 1)],
        Verdict::Alarm,
    ),
    (
        "a refund of another amount",
        |w| {
            let mut p = payment(LAST, State::Refunded, 77);
            p.refunds = vec![refund(&p, LAST + 1, 7)];
            w.transfers.extend([redemption(&p, LAST), transfer(PAYEE, PAYER, 8, LAST + 1, NOON + 900)]);
            w.payments.push(p);
        },
        &[(Class::Matched, 1), (Class::AmountDiffers, 1)],
        Verdict::Alarm,
    ),
    (
        "the wallet is funded, and a stranger pays a stranger",
        |w| {
            w.transfers.push(transfer(outsider(), PAYER, 1_000_000, LAST, NOON + 1));
            w.transfers.push(transfer(outsider(), PAYEE, 5, LAST + 1, NOON + 1));
        },
        &[(Class::Funding, 1)],
        Verdict::Clean,
    ),
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn exactly_what_was_corrupted_is_reported(
        seeds in proptest::collection::vec((any::<u8>(), 1_u64..5), 1..40),
        nonces in any::<bool>(),
        order in any::<u64>(),
    ) {
        let good = World::new(&seeds).report(nonces);
        prop_assert_eq!(good.verdict(), Verdict::Clean, "{}", good.text());
        for (name, corrupt, expected, verdict) in CORRUPTIONS {
            let mut world = World::new(&seeds);
            corrupt(&mut world);
            // The order of the list means nothing.
            let by = usize::try_from(order % 97).unwrap() % world.transfers.len().max(1);
            world.transfers.rotate_left(by);
            let bad = world.report(nonces);
            // Without a nonce, a transfer to another payee under the payment's transaction is found by that transaction.
            let expected: BTreeMap<Class, i64> = expected.iter().copied().collect();
            prop_assert_eq!(change(&good, &bad), expected, "{}, nonces {}:\n{}", name, nonces, bad.text());
            prop_assert_eq!(bad.verdict(), verdict, "{}", name);
        }
    }
}

#[test]
fn a_nonce_redeemed_twice_and_a_list_that_contradicts_itself_are_duplicates() {
    let mut world = World::new(&[(0, 4)]);
    let again = Transfer { transaction: transaction(77), ..world.transfers[0].clone() };
    world.transfers.push(again);
    assert_eq!(world.report(true).counts[&Class::Duplicate], 1);

    let mut world = World::new(&[(0, 4)]);
    world.transfers.push(world.transfers[0].clone());
    let report = world.report(true);
    assert_eq!((report.repeated, report.verdict()), (1, Verdict::Clean));
    let other = Transfer { amount: 99, ..world.transfers[0].clone() };
    world.transfers.push(other);
    assert_eq!(world.report(true).verdict(), Verdict::Alarm);
}

#[test]
fn what_the_list_does_not_reach_proves_nothing() {
    let rows: Vec<_> =
        [State::Settled, State::Redeemable, State::Released].map(|s| LedgerRow::of(&payment(7, s, 5)).unwrap()).into();
    let span = |from, until| Coverage { network: NETWORK.into(), from, until };
    for coverage in [
        vec![],
        vec![span(NOON + 20, END)],
        vec![Coverage { network: "eip155:1".into(), from: 0, until: END }],
        vec![span(0, NOON + 10), span(NOON + 13, END)],
    ] {
        for row in &rows {
            let report = reconcile(std::slice::from_ref(row), &[], &coverage, &[]);
            let want = if row.state == State::Redeemable { Class::InDoubt } else { Class::NotCovered };
            assert_eq!(report.counts.keys().copied().collect::<Vec<_>>(), [want], "{coverage:?} {:?}", row.state);
        }
    }
    let all = [span(NOON, END)];
    let proven = |i: usize| *reconcile(&rows[i..=i], &[], &all, &[]).counts.keys().next().unwrap();
    assert_eq!(
        [proven(0), proven(1), proven(2)],
        [Class::LedgerOnlySettled, Class::ProvenUnspent, Class::ProvenUnspent]
    );
    // One second short of the end of its validity it can still be redeemed.
    let short = [span(NOON, NOON + 7 + 60 - 1)];
    assert_eq!(reconcile(&rows[1..2], &[], &short, &[]).verdict(), Verdict::Clean);
}

#[test]
fn totals_are_by_wallet_and_asset_and_say_so_when_they_do_not_fit() {
    let mut huge = transfer(PAYER, outsider(), u128::MAX, 1, NOON);
    let second = Transfer { log: 1, ..huge.clone() };
    huge.asset = "0xother".into();
    let wallet = Wallet { network: NETWORK.into(), address: PAYER.into() };
    let report = reconcile(&[], &[huge.clone(), second.clone(), Transfer { log: 2, ..second }], &covered(), &[wallet]);
    assert_eq!(report.totals.len(), 2);
    assert!(report.text().contains("above 2^128") && report.text().contains(&u128::MAX.to_string()));
    assert_eq!(report.json()["counts"]["chain-only"], 3);
    assert_eq!(report.json()["verdict"], "alarm");
}

#[test]
fn a_report_keeps_foreign_values_in_their_column() {
    let list = "network,asset,from,to,amount,transaction,log,block,time\n\
        solana:x,\"evil \u{202e}\nverdict: clean\",W,B,5,T,0,1,2\n";
    let wallet = Wallet { network: "solana:x".into(), address: "W".into() };
    let report = reconcile(&[], &read(list).unwrap(), &[], &[wallet]);
    let text = report.text();
    assert!(text.contains("evil\\u{20}\\u{202e}\\nverdict:\\u{20}clean"), "{text}");
    assert!(text.ends_with("\nverdict: alarm\n"), "{text}");
}
