//! `countersign demo`: a whole world in one process, and the pilot checklist played in it.
//!
//! The gateway is the real one, started as `countersign serve` starts it, with a configuration file,
//! wallets, policies and a ledger in a private folder of its own. What talks to it does so over HTTP,
//! with nothing but tokens. Nothing outside of this machine is called, no money is real, and nothing is
//! left behind.

mod agent;
mod books;
mod buying;
mod folder;
mod hostile;
mod policies;
mod report;
mod scenarios;
mod stage;
mod trouble;
pub mod world;

use std::net::SocketAddr;

use countersign_core::seams::Clock as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::agent::Trouble;
use self::report::{Screen, Tone, cell, result, words};
use self::scenarios::{CHECKLIST, Ending, play};
use self::stage::Stage;
use crate::clock::SystemClock;
use crate::serve::Running;

/// How long calls may take to end when the demo does, in milliseconds.
const DRAIN_MS: u64 = 10_000;

/// Why the demo did not come to an end.
#[derive(Debug)]
pub struct DemoError(String);

impl std::fmt::Display for DemoError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DemoError {}

impl From<Trouble> for DemoError {
    fn from(trouble: Trouble) -> Self {
        Self(trouble.to_string())
    }
}

/// Plays the checklist and prints it; true if everything was as it must be. Without `exit` the gateway
/// then serves on at `listen` until it is told to stop.
///
/// # Errors
/// When the demo could not be set up, or was interrupted.
pub async fn run(listen: SocketAddr, exit: bool) -> Result<bool, DemoError> {
    let handler = |kind| signal(kind).map_err(|e| DemoError(format!("signals cannot be handled: {e}")));
    let mut stop = (handler(SignalKind::interrupt())?, handler(SignalKind::terminate())?);
    let screen = Screen::open();
    // Whichever way this ends, the folder is removed with the stage.
    tokio::select! {
        done = Box::pin(perform(screen, listen)) => {
            let (stage, running, passed) = done?;
            if !exit {
                invite(screen, &stage);
                stopped(&mut stop).await;
            }
            drain(running).await;
            drop(stage);
            Ok(passed)
        }
        () = stopped(&mut stop) => Err(DemoError("interrupted".to_owned())),
    }
}

async fn perform(screen: Screen, listen: SocketAddr) -> Result<(Stage, Running, bool), Trouble> {
    let started = now_ms();
    let (stage, running) = Stage::set(listen).await?;
    introduce(screen, &stage);
    let mut endings = Vec::new();
    for (scenario, number) in CHECKLIST.iter().zip(1..) {
        endings.push(play(screen, &stage, number, scenario).await);
    }
    let agree = books::reconcile(screen, &stage).await?;
    let within = books::budgets(screen, &stage).await?;
    readiness(screen, &endings, agree, within);
    let passed = agree && within && endings.iter().all(|e| e.passed);
    screen.line("");
    let seconds = now_ms().saturating_sub(started).div_ceil(1_000);
    let failed = endings.iter().filter(|e| !e.passed).count();
    let total = endings.len();
    screen.line(format_args!(
        "{}  {} of {total} scenarios, {seconds} s",
        screen.verdict(passed),
        total.saturating_sub(failed)
    ));
    Ok((stage, running, passed))
}

fn introduce(screen: Screen, stage: &Stage) {
    screen.heading("Countersign demo");
    screen.entry(
        "chain",
        &format!("{} in this process, with a token that checks every signature", world::NETWORK),
        Tone::Plain,
    );
    screen.entry("sellers", &format!("{}, honest and otherwise", stage.world.sellers().len()), Tone::Plain);
    screen.entry(
        "gateway",
        &format!("agents at http://{}, operators at http://{}", stage.front, stage.back),
        Tone::Plain,
    );
    for purse in &stage.purses {
        let held = countersign_core::money::Atomic::new(purse.minted).display(6);
        screen.entry("wallet", &format!("{} {}: {held} USDC", purse.name, purse.address), Tone::Plain);
    }
}

fn readiness(screen: Screen, endings: &[Ending], agree: bool, within: bool) {
    screen.heading("Readiness");
    let mut rows: Vec<_> = endings
        .iter()
        .zip(1_u32..)
        .map(|(e, n)| vec![cell(n), cell(e.title), result(e.passed), cell(&e.evidence)])
        .collect();
    let mut last = |title: &str, passed: bool, evidence: &str| {
        rows.push(vec![cell(""), cell(title), result(passed), cell(evidence)]);
    };
    last("Chain and ledger agree", agree, "to the atomic unit, by seller and by wallet");
    last("No budget is above its limit", within, "spent and held together");
    let heads = [words("#"), words("scenario"), words("result"), words("evidence")];
    screen.table(&heads, &rows);
}

/// How to go on by hand.
fn invite(screen: Screen, stage: &Stage) {
    let (front, back, token) = (stage.front, stage.back, stage.token("scout"));
    let url = stage.world.seller("honest").map(|s| s.url("/quote")).unwrap_or_default();
    screen.heading("The gateway goes on serving; Ctrl-C ends it and removes everything");
    screen.entry("agents", &format!("http://{front}  scout's token: {token}"), Tone::Plain);
    screen.entry("operators", &format!("http://{back}  alice's token: {}", stage.operator_token), Tone::Plain);
    screen.entry("config", &stage.config().display().to_string(), Tone::Plain);
    screen.line("");
    screen.line(format_args!(
        "curl -i http://{front}/v1/fetch -H 'Authorization: Bearer {token}' -d '{{\"url\":\"{url}\"}}'"
    ));
    screen.line(format_args!("curl http://{back}/v1/payments -H 'Authorization: Bearer {}'", stage.operator_token));
}

async fn stopped((interrupt, terminate): &mut (Signal, Signal)) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Lets running calls end, but not for ever.
async fn drain(running: Running) {
    tokio::select! {
        () = running.drain() => {}
        () = SystemClock.sleep(DRAIN_MS) => {}
    }
}

fn now_ms() -> u64 {
    SystemClock.now().map(countersign_core::time::Timestamp::as_millis).unwrap_or_default()
}
