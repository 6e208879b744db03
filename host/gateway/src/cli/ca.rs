//! `countersign ca`: what clients must trust so that the forward proxy may speak for intercepted hosts.

use clap::Args;

use super::{Common, Failure, Outcome, inspect, say};
use crate::clock::SystemClock;
use crate::vouch::Vouch;

/// How long a printed certificate is good for, in days.
const DAYS: u32 = 365;

/// The arguments.
#[derive(Args)]
pub(super) struct Ca {
    #[command(flatten)]
    common: Common,
    /// Days the certificate is good for.
    #[arg(long, default_value_t = DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS as i64))]
    days: u32,
}

pub(super) fn run(args: &Ca) -> Outcome {
    let config = inspect(&args.common)?;
    let hosts = &config.proxy.intercept;
    if hosts.is_empty() {
        return Err(Failure::new("no host is intercepted, so there is nothing to trust")
            .hint("list hosts under [proxy] intercept; `countersign run --intercept` needs none of this"));
    }
    let seconds = u64::from(args.days).saturating_mul(86_400);
    let certificate = Vouch::new(config.proxy.ca.clone()).certificate(hosts, seconds, &SystemClock)?;
    say(certificate.trim_end());
    Ok(())
}
