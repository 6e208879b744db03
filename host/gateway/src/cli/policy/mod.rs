//! `countersign policy`: the policies that serve, and modules that might.

mod bench;
mod check;
mod hostile;
mod live;
mod make;
mod new;
mod past;
mod progress;
mod schema;
mod show;
mod source;
mod template;
mod test;

use clap::Subcommand;

use crate::cli::{Outcome, Remote, runtime};
use crate::config::Environment;

/// Policies.
#[derive(Subcommand)]
pub(in crate::cli) enum Policy {
    /// The policies of the running gateway.
    List(Remote),
    /// What served before, newest first.
    Generations(Remote),
    /// Let a module serve in place of a policy's file, until the file changes.
    Activate(live::Activate),
    /// Go back to the modules, settings and mandates of an earlier generation.
    Rollback(live::Rollback),
    /// Start a policy of your own: a folder with code, settings, cases and the contract.
    New(new::New),
    /// Build a policy's project to `policy.wasm`.
    Build(make::Build),
    /// Whether a policy would be loaded and holds up: imports, schema, settings, extreme requests.
    Check(check::Check),
    /// Run a policy's cases.
    Test(test::Test),
    /// What a policy's decisions cost.
    Bench(bench::Bench),
    /// Make recorded decisions again, from the record alone; they must come out bit for bit.
    Replay(past::ReplayArgs),
    /// What recorded purchases would have come to under another policy.
    Backtest(past::BacktestArgs),
    /// Let a candidate judge beside a policy: start, look, drop.
    Shadow(past::ShadowArgs),
    /// What a module says about itself and what it touches.
    Inspect(show::Inspect),
}

pub(in crate::cli) fn run(command: Policy, environment: &Environment) -> Outcome {
    match command {
        Policy::List(remote) => runtime()?.block_on(live::list(&remote, environment)),
        Policy::Generations(remote) => runtime()?.block_on(live::generations(&remote, environment)),
        Policy::Activate(command) => runtime()?.block_on(live::activate(&command, environment)),
        Policy::Rollback(command) => runtime()?.block_on(live::rollback(&command, environment)),
        Policy::New(new) => new::run(&new),
        Policy::Build(build) => make::run(&build),
        Policy::Check(check) => check::run(&check),
        Policy::Test(test) => test::run(&test),
        Policy::Bench(bench) => bench::run(&bench),
        Policy::Inspect(inspect) => show::run(&inspect),
        Policy::Replay(args) => runtime()?.block_on(past::replay(&args)),
        Policy::Backtest(args) => runtime()?.block_on(past::backtest(&args)),
        Policy::Shadow(args) => runtime()?.block_on(past::shadow(&args, environment)),
    }
}
