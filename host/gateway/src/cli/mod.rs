//! The command line: arguments to calls, errors to text.

mod admin;
mod agents;
mod approvals;
mod ca;
mod explain;
mod ledger;
mod listing;
mod logging;
mod mcp;
mod payments;
mod policy;
mod run;
mod secrets;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Config, ConfigError, Environment};
use crate::{demo, init, reload, serve};

/// Holds the wallet so that agents do not: policies judge, budgets hold, and only then a key signs.
#[derive(Parser)]
#[command(name = "countersign", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Open files with which the default limits can be reached: two sockets for each call, and some.
const ENOUGH_DESCRIPTORS: u64 = 10_000;

#[derive(Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(ServeArgs),
    /// Write a configuration that serves unedited, a wallet, an operator and an agent token.
    Init {
        /// Where; the current folder if not given.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// An agent works through the pilot checklist against a chain and sellers in this process.
    Demo {
        /// End when the checklist is done, instead of serving on.
        #[arg(long)]
        exit: bool,
        /// Where agents may talk to the demo's gateway.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: std::net::SocketAddr,
    },
    /// Run a command behind the forward proxy, in a session of its own that is closed when it ends.
    Run(run::Run),
    /// Print the certificate that clients of the forward proxy must trust for intercepted hosts.
    Ca(ca::Ca),
    /// Payments in the ledger.
    #[command(subcommand)]
    Payments(payments::Payments),
    /// The books and the records: export, verify, checkpoint, reconcile.
    #[command(subcommand)]
    Ledger(ledger::Books),
    /// Purchases that wait for people.
    #[command(subcommand)]
    Approvals(approvals::Approvals),
    /// Policies: those that serve, and modules that might.
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Budgets and what is left of them.
    Budgets(Listing),
    /// Agents: who may buy.
    #[command(subcommand)]
    Agents(agents::Agents),
    /// Wallets: what pays.
    #[command(subcommand)]
    Wallets(agents::Wallets),
    /// Sessions.
    #[command(subcommand)]
    Sessions(admin::Sessions),
    /// The kill switch.
    #[command(subcommand)]
    Suspend(admin::Suspend),
    /// MCP over standard input and output, for clients that start a program. Holds no key: it talks to a
    /// running gateway with the token in COUNTERSIGN_AGENT_TOKEN.
    Mcp(mcp::Mcp),
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    common: Common,
    /// How to log, on standard error.
    #[arg(long, value_enum, default_value_t)]
    log: logging::Format,
}

/// Where the configuration is.
#[derive(Args, Clone)]
struct Common {
    /// The configuration file.
    #[arg(long, default_value = "countersign.toml")]
    config: PathBuf,
}

/// A listing of the ledger or of a running gateway.
#[derive(Args, Clone)]
struct Listing {
    #[command(flatten)]
    common: Common,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A command that a running gateway carries out.
#[derive(Args, Clone)]
struct Remote {
    #[command(flatten)]
    listing: Listing,
    /// The gateway's admin address; from the configuration if not given. The operator's token is
    /// read from COUNTERSIGN_OPERATOR_TOKEN.
    #[arg(long)]
    admin: Option<String>,
}

/// What went wrong, for a person: what, where, and what to do.
#[derive(Debug)]
struct Failure {
    message: String,
    hint: Option<String>,
    /// What the process exits with.
    code: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: 1 }
    }

    /// An outcome that was told already, and is none of success.
    const fn silent(code: u8) -> Self {
        Self { message: String::new(), hint: None, code }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

type Outcome = Result<(), Failure>;

/// Runs the command line; 2 for usage, 1 for failure.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                say_error(&format!("error: {}", failure.message));
            }
            if let Some(hint) = failure.hint {
                say_error(&format!("  hint: {hint}"));
            }
            ExitCode::from(failure.code)
        }
    }
}

fn run(command: Command) -> Outcome {
    let environment = secrets::environment()?;
    match command {
        Command::Serve(args) => {
            let config = reload::load(&args.common.config, &environment)?;
            secrets::hide(&config.secret_env, &environment)?;
            logging::start(args.log)?;
            leave_no_dump();
            take_descriptors();
            runtime()?.block_on(serve::run(config, environment))?;
            Ok(())
        }
        Command::Init { dir } => init(&dir),
        Command::Demo { exit, listen } => {
            if runtime()?.block_on(demo::run(listen, exit))? {
                return Ok(());
            }
            Err(Failure::new("the demo did not end as it must; see the table above"))
        }
        Command::Run(command) => run::run(&command, &environment),
        Command::Ca(command) => ca::run(&command),
        Command::Payments(command) => runtime()?.block_on(payments::run(command, &environment)),
        Command::Ledger(command) => runtime()?.block_on(ledger::run(command)),
        Command::Approvals(command) => runtime()?.block_on(approvals::run(command, &environment)),
        Command::Policy(command) => policy::run(command, &environment),
        Command::Budgets(args) => runtime()?.block_on(payments::budgets(&args)),
        Command::Agents(command) => runtime()?.block_on(agents::agents(command, &environment)),
        Command::Wallets(command) => runtime()?.block_on(agents::wallets(command, &environment)),
        Command::Sessions(command) => runtime()?.block_on(admin::sessions(command, &environment)),
        Command::Suspend(command) => runtime()?.block_on(admin::suspend(command, &environment)),
        Command::Mcp(args) => runtime()?.block_on(mcp::run(&args, &environment)),
    }
}

/// Keys are in this process's memory: no file is made of it when it crashes, and no other process of the same user may
/// look into it.
fn leave_no_dump() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps cannot be switched off");
    }
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable) {
        tracing::warn!(%error, "other processes of this user may read this one's memory");
    }
}

/// Lets this process have as many open files as it may: each call has a socket on either side, and what a shell allows
/// by default is for a person's programs.
fn take_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
    if let Some(most) = getrlimit(Resource::Nofile).current.filter(|most| *most < ENOUGH_DESCRIPTORS) {
        tracing::warn!(
            most,
            "few open files are allowed (ulimit -n): fewer calls can be under way than limits.calls says"
        );
    }
}

fn init(dir: &std::path::Path) -> Outcome {
    let mut random = |out: &mut [u8]| countersign_core::seams::Clock::random(&crate::clock::SystemClock, out);
    let report = init::init(dir, &mut random)?;
    say(report);
    Ok(())
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|e| Failure::new(format!("the runtime cannot start: {e}")))
}

/// Reads a configuration for a command that only looks: without its secrets.
fn inspect(common: &Common) -> Result<Config, ConfigError> {
    Config::inspect(&common.config)
}

/// Where the operator's token comes from.
const OPERATOR_TOKEN: &str = "COUNTERSIGN_OPERATOR_TOKEN";

/// The operator's token.
fn operator_token(environment: &Environment) -> Result<String, Failure> {
    environment.get(OPERATOR_TOKEN).map(str::to_owned).ok_or_else(|| {
        Failure::new("this needs an operator's token")
            .hint("set COUNTERSIGN_OPERATOR_TOKEN to the token that `countersign init` printed")
    })
}

/// Prints a line; a reader that went away is not an error.
fn say(line: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn say_error(line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{line}");
}
