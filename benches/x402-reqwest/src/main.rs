//! Pays one URL N times with the official Rust client, C calls at a time: `x402-reqwest-bench URL N C`, the key in `BUYER_KEY`.
//!
//! Prints one JSON line in the shape of `tests/peers/v2/bench-client.mjs`.

use alloy_signer_local::PrivateKeySigner;
use std::{
    env,
    error::Error,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use x402_chain_eip155::V2Eip155ExactClient;
use x402_reqwest::{ReqwestWithPayments as _, ReqwestWithPaymentsBuild as _, X402Client};

type Anyhow<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Anyhow<()> {
    let mut arguments = env::args().skip(1);
    let (Some(url), Some(n), Some(concurrency)) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: x402-reqwest-bench URL N CONCURRENCY, the key in BUYER_KEY".into());
    };
    let (n, concurrency): (usize, usize) = (n.parse()?, concurrency.parse()?);
    let signer: Arc<PrivateKeySigner> = Arc::new(env::var("BUYER_KEY")?.parse()?);
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(120)).build()?;
    let client = client.with_payments(X402Client::new().register(V2Eip155ExactClient::new(signer))).build();
    let (started, times) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::with_capacity(n))));

    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.min(n) {
        let (client, url, started, times) = (client.clone(), url.clone(), started.clone(), times.clone());
        workers.spawn(async move {
            let mut errors = Vec::new();
            while started.fetch_add(1, Ordering::Relaxed) < n {
                let begun = Instant::now();
                let answer = async { client.get(&url).send().await?.error_for_status()?.bytes().await.map_err(Into::into) };
                let answer: Result<_, Box<dyn Error + Send + Sync>> = answer.await;
                match answer {
                    Ok(_) => times.lock().unwrap_or_else(|e| e.into_inner()).push(begun.elapsed()),
                    Err(error) => errors.push(error.to_string()),
                }
            }
            errors
        });
    }
    let errors: Vec<String> = workers.join_all().await.concat();
    let seconds = begun.elapsed().as_secs_f64();

    let mut times = times.lock().unwrap_or_else(|e| e.into_inner()).clone();
    times.sort_unstable();
    let quantile = |percent: usize| {
        let rank = (times.len() * percent).div_ceil(100).max(1);
        times.get(rank - 1).map(|time| (time.as_secs_f64() * 1e5).round() / 100.0)
    };
    println!(
        "{}",
        serde_json::json!({
            "n": n, "concurrency": concurrency, "seconds": seconds, "per_second": times.len() as f64 / seconds,
            "p50_ms": quantile(50), "p99_ms": quantile(99), "errors": errors.len(), "first_error": errors.first(),
        })
    );
    Ok(())
}
