//! Durable commits a second: three holds each, at 1, 16, 64 and 256 callers at once.
//!
//! What it shows is the ratio between the lines, which is what group commit is worth; the figures
//! themselves are the disk's and the scheduler's.

#![expect(clippy::unwrap_used, clippy::panic, dead_code, reason = "a measurement that cannot be made stops")]

#[path = "../tests/ledger/common.rs"]
mod common;

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use countersign_core::ledger::Ledger;
use countersign_core::verdict::Window;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

use common::{Rig, T0, block, commit, hold};

/// Starts every future, then waits for all of them.
struct All<'a, T>(Vec<Pin<Box<dyn Future<Output = T> + Send + 'a>>>);

impl<T> Future for All<'_, T> {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.retain_mut(|f| f.as_mut().poll(cx).is_pending());
        if self.0.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn commits(c: &mut Criterion) {
    let rig = Rig::new();
    let ledger = rig.open();
    let mut n = 0_u64;
    let mut group = c.benchmark_group("durable-commits");
    group.sample_size(20);
    for callers in [1_u64, 16, 64, 256] {
        group.throughput(Throughput::Elements(callers));
        group.bench_function(BenchmarkId::from_parameter(callers), |b| {
            b.iter(|| {
                let started = (0..callers).map(|i| {
                    n += 1;
                    let mine = format!("agent/{}", i % 16);
                    let holds = [
                        hold("wallet", Window::Day(String::new()), 1 << 50, 1),
                        hold(&mine, Window::Rolling(86_400), 1 << 50, 1),
                        hold("lifetime", Window::Lifetime, 1 << 50, 1),
                    ];
                    ledger.commit(commit(n, T0, &holds))
                });
                block(All(started.collect()));
            });
        });
    }
    group.finish();
    let wal = std::fs::metadata(format!("{}-wal", rig.path.display())).unwrap().len();
    println!("{n} commits; WAL {} MiB, store {} MiB", wal >> 20, std::fs::metadata(&rig.path).unwrap().len() >> 20);
}

criterion_group!(benches, commits);
criterion_main!(benches);
