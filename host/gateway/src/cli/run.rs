//! `countersign run -- CMD`: a command whose way out is the forward proxy. It gets a session's token and
//! nothing else of ours: no key, no operator's token, none of our environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::IsTerminal as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use clap::Args;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::admin::Client;
use super::{Failure, OPERATOR_TOKEN, Outcome, Remote, inspect, runtime, say_error, secrets};
use crate::clock::{SystemClock, random};
use crate::config::Environment;

/// What the command keeps of our environment: where programs and its user are, its language, its terminal.
const KEPT: [&str; 17] = [
    "PATH",
    "HOME",
    "TERM",
    "COLORTERM",
    "LANG",
    "LANGUAGE",
    "LC_ALL",
    "LC_ADDRESS",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_IDENTIFICATION",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NAME",
    "LC_NUMERIC",
    "LC_PAPER",
    "LC_TIME",
];

/// Where systems keep the certificates they trust.
const ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Where Java's trust store is besides its own folder.
const JAVA_ROOTS: [&str; 2] = ["/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts"];
/// The password that every one of them has; there is nothing secret in them.
const JAVA_PASSWORD: &str = "changeit";

/// The arguments.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    remote: Remote,
    /// The agent it speaks for; the only one of the configuration if not given.
    #[arg(long)]
    agent: Option<String>,
    /// The most it may spend, in the reference currency.
    #[arg(long, default_value = "5.00")]
    limit: String,
    /// The most payments it may make.
    #[arg(long)]
    max_payments: Option<u32>,
    /// Seconds until the session ends, even if the command goes on.
    #[arg(long, default_value_t = 43_200)]
    expires_in: u32,
    /// The person.
    #[arg(long)]
    user: Option<String>,
    /// The client.
    #[arg(long)]
    client: Option<String>,
    /// The project.
    #[arg(long)]
    project: Option<String>,
    /// The task.
    #[arg(long)]
    task: Option<String>,
    /// Hosts to buy from over TLS, besides those of [proxy] intercept.
    #[arg(long, value_name = "HOST", num_args = 1.., value_delimiter = ',')]
    intercept: Vec<String>,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// How long the session may take to close.
const CLOSING: Duration = Duration::from_secs(10);

pub(super) fn run(args: &Run, environment: &Environment) -> Outcome {
    // The command is of our user and could read them where we have them. Without a configuration here there are
    // no secrets that it names.
    let common = &args.remote.listing.common;
    let configured = if common.config.exists() { inspect(common)?.secret_env } else { BTreeSet::new() };
    let ours = configured.into_iter().chain([OPERATOR_TOKEN.to_owned()]);
    secrets::hide(&ours.collect::<BTreeSet<String>>(), environment)?;
    runtime()?.block_on(within_session(args, environment))
}

async fn within_session(args: &Run, environment: &Environment) -> Outcome {
    let client = Client::new(&args.remote, environment)?;
    let session = client.must(Method::POST, "/v1/sessions", Some(wanted(args)?)).await?;
    let id = text(&session, "id")?;
    let outcome = behind_proxy(args, &session, environment).await;
    let path = format!("/v1/sessions/{id}");
    let closing = tokio::time::timeout(CLOSING, client.must(Method::DELETE, &path, None)).await;
    if let Err(failure) = closing.unwrap_or_else(|_| Err(Failure::new("the gateway does not answer"))) {
        say_error(&format!("warning: session {id} could not be closed and ends by itself: {}", failure.message));
    }
    outcome
}

fn wanted(args: &Run) -> Result<Value, Failure> {
    let agent = match &args.agent {
        Some(agent) => agent.clone(),
        None => {
            let agents = inspect(&args.remote.listing.common)?.agents;
            match agents.keys().collect::<Vec<_>>().as_slice() {
                [only] => (*only).clone(),
                _ => return Err(Failure::new("which agent? there is not exactly one").hint("name it with --agent")),
            }
        }
    };
    Ok(json!({"agent": agent, "limit": args.limit, "max_payments": args.max_payments, "expires_in": args.expires_in,
        "user": args.user, "client": args.client, "project": args.project, "task": args.task,
        "intercept": args.intercept}))
}

fn text(session: &Value, name: &str) -> Result<String, Failure> {
    let found = session.get(name).and_then(Value::as_str).map(str::to_owned);
    found.ok_or_else(|| Failure::new(format!("the gateway answered no `{name}`: is it of this version?")))
}

/// Runs the command to its end; its exit code is ours.
async fn behind_proxy(args: &Run, session: &Value, environment: &Environment) -> Outcome {
    let (proxy, token) = (text(session, "proxy")?, text(session, "token")?);
    let (scheme, address) = proxy.split_once("://").ok_or_else(|| Failure::new("the proxy's address is not a URL"))?;
    let proxy = format!("{scheme}://agent:{token}@{address}");
    let trust = session.get("ca").and_then(Value::as_str).map(|ca| Trust::write(ca, environment)).transpose()?;

    let mut variables: BTreeMap<&str, String> =
        KEPT.iter().filter_map(|name| Some((*name, environment.get(name)?.to_owned()))).collect();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        variables.insert(name, proxy.clone());
    }
    // Nothing goes around the gateway, whatever is preset somewhere.
    for name in ["NO_PROXY", "no_proxy"] {
        variables.insert(name, String::new());
    }
    variables.insert("NODE_USE_ENV_PROXY", "1".to_owned());
    variables.extend(trust.iter().flat_map(Trust::variables));
    if let Some((host, port)) = address.rsplit_once(':')
        && scheme == "http"
    {
        variables.insert("JDK_JAVA_OPTIONS", java_options(host, port, trust.as_ref().and_then(|t| t.java.as_deref())));
    }

    let (program, arguments) = args.command.split_first().ok_or_else(|| Failure::new("which command?"))?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(variables);
    let status = to_its_end(&mut command, program).await?;
    let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(128)));
    match code.map(u8::try_from) {
        Some(Ok(0)) => Ok(()),
        Some(Ok(code)) => Err(Failure::silent(code)),
        _ => Err(Failure::silent(1)),
    }
}

/// What Java has instead of the variables that others read. Java prints these options when it starts: the token is not
/// among them, and a program asks for it through an `Authenticator`, as with every proxy that wants to know who calls.
fn java_options(host: &str, port: &str, store: Option<&Path>) -> String {
    let proxy = |scheme: &str| format!("-D{scheme}.proxyHost={host} -D{scheme}.proxyPort={port}");
    let mut options = format!(
        "{} {} -Dhttp.nonProxyHosts= -Djdk.http.auth.tunneling.disabledSchemes=",
        proxy("http"),
        proxy("https")
    );
    if let Some(store) = store {
        let store = store.display();
        options.push_str(&format!(
            " \"-Djavax.net.ssl.trustStore={store}\" -Djavax.net.ssl.trustStorePassword={JAVA_PASSWORD}"
        ));
    }
    options
}

/// Starts a command and passes signals on to it until it ends.
async fn to_its_end(command: &mut Command, program: &str) -> Result<ExitStatus, Failure> {
    // Before it starts: nothing that happens to it is missed.
    let mut ended = signal(SignalKind::child())?;
    let (mut interrupt, mut quit) = (signal(SignalKind::interrupt())?, signal(SignalKind::quit())?);
    let (mut terminate, mut hangup) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let (mut user1, mut user2) = (signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?);
    // A terminal sends its signals to both of us.
    let terminal = std::io::stdin().is_terminal();
    let mut child = command.spawn().map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        Failure { code, ..Failure::new(format!("{program}: {error}")) }
    })?;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let passed = tokio::select! {
            _ = ended.recv() => None,
            _ = terminate.recv() => Some(Signal::TERM),
            _ = hangup.recv() => Some(Signal::HUP),
            _ = user1.recv() => Some(Signal::USR1),
            _ = user2.recv() => Some(Signal::USR2),
            _ = interrupt.recv() => (!terminal).then_some(Signal::INT),
            _ = quit.recv() => (!terminal).then_some(Signal::QUIT),
        };
        if let Some(signal) = passed {
            pass_on(&child, signal);
        }
    }
}

fn pass_on(child: &Child, signal: Signal) {
    // Its number is its own until we have waited for it; if it ended meanwhile, nobody is hit.
    if let Err(error) = kill_process(Pid::from_child(child), signal) {
        tracing::debug!(%error, "the command took no signal");
    }
}

/// Certificates for the command, in a folder that is gone when it ends.
struct Trust {
    folder: std::path::PathBuf,
    /// The same for Java, where there is one.
    java: Option<std::path::PathBuf>,
}

impl Trust {
    /// Writes ours, and ours with the system's for variables that stand in for those.
    fn write(ours: &str, environment: &Environment) -> Result<Self, Failure> {
        use std::os::unix::fs::DirBuilderExt as _;
        let name = format!("countersign-run-{}", hex::encode(random::<8>(&SystemClock)?));
        let mut trust = Self { folder: std::env::temp_dir().join(name), java: None };
        fs::DirBuilder::new().mode(0o700).create(&trust.folder)?;
        fs::write(trust.ours(), ours)?;
        let preset = environment.get("SSL_CERT_FILE").map(Path::new);
        let system = preset.into_iter().chain(ROOTS.map(Path::new)).find_map(|path| fs::read_to_string(path).ok());
        if system.is_none() {
            say_error("warning: no system certificates were found: the command can reach intercepted hosts only");
        }
        fs::write(trust.all(), format!("{}\n{ours}", system.unwrap_or_default()))?;
        trust.java = trust.for_java(environment);
        Ok(trust)
    }

    /// Ours beside what Java trusts, made by Java's own tool; none where there is no Java.
    fn for_java(&self, environment: &Environment) -> Option<std::path::PathBuf> {
        let folders = std::env::split_paths(environment.get("PATH")?).map(|folder| folder.join("keytool"));
        let tool = folders.into_iter().find_map(|file| fs::canonicalize(file).ok())?;
        let own = tool.parent()?.parent()?.join("lib/security/cacerts");
        let store = self.folder.join("java.p12");
        let mut known = std::iter::once(own).chain(JAVA_ROOTS.map(Into::into));
        if known.find_map(|path| fs::copy(path, &store).ok()).is_none() {
            say_error("warning: Java's certificates were not found: it can reach intercepted hosts only");
        }
        let mut command = Command::new(tool);
        command.args(["-importcert", "-noprompt", "-alias", "countersign", "-storepass", JAVA_PASSWORD]);
        command.arg("-keystore").arg(&store).arg("-file").arg(self.ours()).env_clear();
        let output = command.output().ok()?;
        if !output.status.success() {
            say_error("warning: keytool could not make a trust store: Java reaches no intercepted host");
            return None;
        }
        Some(store)
    }

    fn ours(&self) -> std::path::PathBuf {
        self.folder.join("ca.pem")
    }

    fn all(&self) -> std::path::PathBuf {
        self.folder.join("all.pem")
    }

    fn variables(&self) -> [(&'static str, String); 4] {
        let path = |path: std::path::PathBuf| path.display().to_string();
        [
            ("SSL_CERT_FILE", path(self.all())),
            ("REQUESTS_CA_BUNDLE", path(self.all())),
            ("CURL_CA_BUNDLE", path(self.all())),
            ("NODE_EXTRA_CA_CERTS", path(self.ours())),
        ]
    }
}

impl Drop for Trust {
    fn drop(&mut self) {
        // Certificates are no secret: what cannot be removed is only left over.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
