//! Double entry, read back by beancount and hledger themselves.
#![expect(clippy::unwrap_used, reason = "test support: a broken fixture must fail the test loudly")]

mod common;
mod hostile;

use std::fs;

use countersign_books::Entry;
use countersign_books::export::{Format, Options, export};
use countersign_core::ledger::PaymentView;
use countersign_core::money::Micros;
use countersign_core::payment::State;
use hostile::{expected, python, world};

fn written(format: Format, options: Options, payments: &[PaymentView]) -> Vec<u8> {
    export(format, options, payments.iter().map(Entry::of), Vec::new()).unwrap()
}

/// Both programs accept the whole file, and every account's balance is exact, dust or not.
#[test]
fn beancount_and_hledger_read_back_exactly_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    for (seed, dust) in [(0, 0), (1, 0), (2, 10_000), (3, 1_000_000)] {
        let payments = world(seed, 200);
        let truth = folder.path().join("truth.json");
        fs::write(&truth, expected(&payments).to_string()).unwrap();
        for format in [Format::Beancount, Format::Hledger] {
            let options = Options { dust_below: Micros::new(dust).unwrap(), ..Options::new("USD") };
            let file = folder.path().join(format.as_str());
            fs::write(&file, written(format, options, &payments)).unwrap();
            let dust = dust.to_string();
            python("read_journals.py", &[format.as_str().as_ref(), file.as_os_str(), truth.as_os_str(), dust.as_ref()]);
        }
    }
}

/// The biggest and the most precise amounts there are, and tokens with awkward names.
#[test]
fn any_token_and_any_size_balances() {
    let folder = tempfile::tempdir().unwrap();
    let mut payments = Vec::new();
    for (n, (symbol, decimals, amount, value)) in [
        ("USDC.e", 6, 1_u128, 1),
        ("USD", 18, 1, 1),
        ("USD₮0", 6, 123_456_789, 123_456_789),
        ("1INCH", 0, 3, 999_999),
        ("DAI", 18, 999_999_999_999_999_999_999_999_999, 999_999_999_999_999),
        ("DAI", 18, 7, 1),
    ]
    .into_iter()
    .enumerate()
    {
        for state in [State::Settled, State::Redeemable, State::Disputed] {
            let mut p = common::payment(u64::try_from(n).unwrap() * 10 + u64::from(state.number()), state, 1);
            p.facts.asset_symbol = symbol.into();
            p.facts.asset_decimals = decimals;
            p.facts.amount = countersign_core::money::Atomic::new(amount);
            p.facts.value = Micros::new(value).unwrap();
            payments.push(p);
        }
    }
    for format in [Format::Beancount, Format::Hledger] {
        let file = folder.path().join(format.as_str());
        fs::write(&file, written(format, Options { dust_below: Micros::ZERO, ..Options::new("USD") }, &payments))
            .unwrap();
        python("check_journal.py", &[format.as_str().as_ref(), file.as_os_str()]);
    }
}
