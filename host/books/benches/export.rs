//! How many payments a second each export writes, on one core: `cargo bench -p countersign-books`.
#![expect(clippy::unwrap_used, reason = "a benchmark: a broken fixture must stop it")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;
use std::io;

use countersign_books::Entry;
use countersign_books::export::{Exporter, Format, Options};
use countersign_books::reconcile::{Coverage, LedgerRow, Transfer, reconcile};
use countersign_core::payment::State;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const PAYMENTS: u64 = 2_000;

fn exports(c: &mut Criterion) {
    let payments: Vec<_> = (0..PAYMENTS)
        .map(|n| common::payment(n, if n % 10 == 0 { State::Redeemable } else { State::Settled }, 1_000 + n))
        .collect();
    let mut group = c.benchmark_group("export");
    group.throughput(Throughput::Elements(PAYMENTS));
    for format in Format::ALL {
        group.bench_function(format.as_str(), |b| {
            b.iter(|| {
                let mut exporter = Exporter::new(format, Options::new("USD"), io::sink());
                for payment in &payments {
                    exporter.write(&Entry::of(black_box(payment))).unwrap();
                }
                exporter.finish().unwrap()
            });
        });
    }
    group.finish();

    let rows: Vec<_> = payments.iter().filter_map(LedgerRow::of).collect();
    let transfers: Vec<_> = rows
        .iter()
        .zip(0..)
        .filter(|(row, _)| row.state.is_spent())
        .map(|(row, block)| Transfer {
            network: row.network.clone(),
            asset: row.asset.clone(),
            from: row.payer.clone(),
            to: row.payee.clone(),
            amount: row.redeemed,
            transaction: row.transaction.clone().unwrap(),
            log: 0,
            block,
            time: row.created + 5,
            nonce: Some(row.nonce.clone()),
        })
        .collect();
    let coverage = [Coverage { network: common::NETWORK.into(), from: common::NOON, until: common::NOON * 2 }];
    let mut group = c.benchmark_group("reconcile");
    group.throughput(Throughput::Elements(PAYMENTS));
    group.bench_function("payments", |b| b.iter(|| reconcile(black_box(&rows), &transfers, &coverage, &[])));
    group.finish();
}

criterion_group!(benches, exports);
criterion_main!(benches);
