//! Pays one URL N times with `x402-reqwest`, C calls at a time: `x402-reqwest-client URL N C`, the key in `BUYER_KEY`.
//! Prints one JSON line in the shape of `tests/peers/v2/bench-client.mjs`.
#![allow(clippy::unwrap_used, reason = "a measurement that does not work must fail loudly")]

use alloy_signer_local::PrivateKeySigner;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use x402_chain_eip155::V2Eip155ExactClient;
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (url, n, concurrency): (String, usize, usize) =
        (arguments[1].clone(), arguments[2].parse().unwrap(), arguments[3].parse().unwrap());
    let signer: Arc<PrivateKeySigner> = Arc::new(std::env::var("BUYER_KEY").unwrap().parse().unwrap());
    let payments = X402Client::new().register(V2Eip155ExactClient::new(signer));
    let client = Arc::new(reqwest::Client::builder().no_proxy().build().unwrap().with_payments(payments).build());
    let started = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let workers: Vec<_> = (0..concurrency)
        .map(|_| {
            let (client, started, url) = (Arc::clone(&client), Arc::clone(&started), url.clone());
            tokio::spawn(async move {
                let (mut times, mut errors) = (Vec::new(), Vec::new());
                while started.fetch_add(1, Ordering::Relaxed) < n {
                    let from = Instant::now();
                    let answer = async {
                        let answer = client.get(&url).send().await.map_err(|e| e.to_string())?;
                        let status = answer.status();
                        let body = answer.text().await.map_err(|e| e.to_string())?;
                        if status.is_success() { Ok(()) } else { Err(format!("{status}: {body}")) }
                    };
                    match answer.await {
                        Ok(()) => times.push(from.elapsed()),
                        Err(error) => errors.push(error),
                    }
                }
                (times, errors)
            })
        })
        .collect();
    let (mut times, mut errors): (Vec<Duration>, Vec<String>) = (Vec::new(), Vec::new());
    for worker in workers {
        let (one, wrong) = worker.await.unwrap();
        times.extend(one);
        errors.extend(wrong);
    }
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let quantile = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    };
    println!(
        "{}",
        json!({"n": n, "concurrency": concurrency, "seconds": seconds, "per_second": times.len() as f64 / seconds,
            "p50_ms": quantile(50), "p99_ms": quantile(99), "errors": errors.len(), "first_error": errors.first()})
    );
}
