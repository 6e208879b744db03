//! How many records a second one core verifies.

#[path = "../tests/logs/mod.rs"]
mod logs;

use std::hint::black_box;

use countersign_audit::tlog::{Frontier, leaf_hash};
use countersign_audit::verify::Verifier;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use logs::{Ledger, chain, export, key};

const RECORDS: usize = 20_000;

fn verify(c: &mut Criterion) {
    let lines = chain(&Ledger::new(1).records(RECORDS));
    let bytes = export(&lines);
    let mut group = c.benchmark_group("verify");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
    group.bench_function("hashes", |b| {
        b.iter(|| {
            let mut tree = Frontier::default();
            lines.iter().for_each(|line| tree.push(leaf_hash(line.as_bytes())));
            black_box(tree.root())
        });
    });
    group.bench_function("everything", |b| {
        b.iter(|| Verifier::new(key().public().clone()).read(bytes.as_slice()).unwrap());
    });
    group.finish();
    println!("a record has {} bytes on average", bytes.len() / RECORDS);
}

criterion_group!(benches, verify);
criterion_main!(benches);
