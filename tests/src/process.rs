//! The real `countersign` binary, started and ended as an operator would, or as a power cut would.

use crate::{
    agent::Client,
    canary,
    config::{ALICE_TOKEN, Config, SCOUT_TOKEN},
    http, tail, wait_for,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};
use tempfile::TempDir;

/// How long the gateway may take until `/readyz` says 200.
const START: Duration = Duration::from_secs(60);
/// How long it may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(150);

/// A gateway in a directory of its own (mode 0700), which holds `countersign.toml`, the ledger and `gateway.log`.
#[derive(Debug)]
pub struct Gateway {
    /// Base URL of the agent API.
    pub url: String,
    /// Base URL of the admin API.
    pub admin_url: String,
    config: Config,
    /// What it was ever told and may write nowhere.
    secrets: Vec<String>,
    dir: TempDir,
    running: Option<Running>,
}

impl Drop for Gateway {
    /// The end of its life: nothing that it wrote may hold a secret. A test that failed already has said enough.
    fn drop(&mut self) {
        self.running = None;
        if !std::thread::panicking() {
            canary::look(self.dir.path(), &self.log(), &self.secrets);
        }
    }
}

/// A process and the watchdog that kills it should we die first.
#[derive(Debug)]
struct Running {
    child: Child,
    watchdog: Child,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        // Its standard input closes when this process ends, however it ends.
        let watchdog = Command::new("/bin/sh")
            .args(["-c", "read -r _; kill -9 \"$0\"", &child.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, watchdog }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _status = self.child.wait();
        // Ended before its input closes, or it would kill whoever has the number by then.
        let _already_gone = self.watchdog.kill();
        let _status = self.watchdog.wait();
    }
}

impl Gateway {
    /// Starts `countersign serve` in a new directory and returns when it is ready; panics with the end of its log when it
    /// ends or takes more than a minute.
    pub fn start(config: Config) -> Self {
        let mut gateway = Self::prepare(config);
        gateway.restart();
        gateway
    }

    /// For configurations that must be refused: starts it, waits for its end, returns status and output. Panics when it
    /// becomes ready or does neither within a minute.
    pub fn refused(config: Config) -> (ExitStatus, String) {
        Self::refused_in(config, |_| {})
    }

    /// As [`Gateway::refused`], in a directory that `change` has been at before the start.
    pub fn refused_in(config: Config, change: impl FnOnce(&Path)) -> (ExitStatus, String) {
        let mut gateway = Self::prepare(config);
        change(gateway.dir.path());
        gateway.spawn();
        match gateway.wait_ready() {
            Some(status) => (status, gateway.log()),
            None => panic!("the gateway took the configuration"),
        }
    }

    /// Writes the directory, starts nothing.
    fn prepare(config: Config) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("countersign-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .unwrap();
        let (listen, admin) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let (url, admin_url) = (format!("http://{listen}"), format!("http://{admin}"));
        let config = config.set(&["gateway", "listen"], listen).set(&["gateway", "admin"], admin);
        let secrets = config.secrets().to_vec();
        let gateway = Self { url, admin_url, config, secrets, dir, running: None };
        gateway.write(&gateway.config);
        gateway
    }

    /// The agent `scout`.
    pub fn agent(&self) -> Client {
        self.agent_with(SCOUT_TOKEN)
    }

    /// An agent with another token, of a session for example.
    pub fn agent_with(&self, token: &str) -> Client {
        Client::new(&self.url, token)
    }

    /// The operator `alice`.
    pub fn operator(&self) -> Client {
        Client::new(&self.admin_url, ALICE_TOKEN)
    }

    /// The gateway's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The configuration in force, for changing and handing to [`Gateway::write_config`].
    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// Everything the gateway has written to its standard output and error, over all restarts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process id; panics when it was stopped.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().expect("the gateway is stopped").child.id()
    }

    /// Replaces the configuration file in one step, as careful editors do. A running gateway watches the file.
    pub fn write_config(&mut self, config: Config) {
        self.write(&config);
        self.secrets.extend_from_slice(config.secrets());
        self.config = config;
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// SIGTERM; returns how it ended, panics when it has not after the two minutes that a gateway gives itself, and some.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut running = self.running.take().expect("the gateway is stopped");
        let pid = Pid::from_child(&running.child);
        kill_process(pid, Signal::TERM).unwrap();
        wait_for(STOP, || running.child.try_wait().unwrap())
            .unwrap_or_else(|| panic!("still there after SIGTERM: {}", self.tail()))
    }

    /// Starts it (again) in the same directory on the same ports, after SIGKILL when it is running, and waits until it is ready.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        if let Some(status) = self.wait_ready() {
            panic!("countersign serve ended ({status}): {}", self.tail());
        }
    }

    /// Starts it (again) as [`Gateway::restart`] does, but does not wait: for killing it before it is ready.
    pub fn spawn_again(&mut self) {
        self.kill();
        self.spawn();
    }

    /// As [`Gateway::refused`], for one that served before: starts it again in its directory, after SIGKILL when it is
    /// running, and returns status and what it has written since.
    pub fn refused_again(&mut self) -> (ExitStatus, String) {
        self.kill();
        let before = self.log().len();
        self.spawn();
        let status = self.wait_ready().expect("the gateway serves");
        self.running = None;
        (status, self.log().get(before..).unwrap_or_default().to_owned())
    }

    /// SIGSTOP: as a machine that hangs, with all its connections open.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on in the middle of whatever it was doing.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("the gateway is stopped");
        kill_process(Pid::from_child(&running.child), signal).unwrap();
    }

    /// Whether `GET /readyz` says 200 now.
    pub fn is_ready(&self) -> bool {
        http::get(&format!("{}/readyz", self.admin_url)).try_send().is_ok_and(|answer| answer.status == 200)
    }

    /// Runs another command of the binary in the gateway's directory and environment, with the operator's token in
    /// `COUNTERSIGN_OPERATOR_TOKEN`; `--admin` is the caller's to add.
    pub fn command(&self, args: &[&str]) -> Output {
        let output = self
            .base_command()
            .env("COUNTERSIGN_OPERATOR_TOKEN", ALICE_TOKEN)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        for printed in [&output.stdout, &output.stderr] {
            canary::look_at_output(&args, printed, &self.secrets);
        }
        output
    }

    fn base_command(&self) -> Command {
        let mut command = Command::new(binary());
        command.current_dir(self.dir.path()).env("NO_PROXY", "127.0.0.1,localhost");
        command.envs(self.config.variables().iter().map(|(name, value)| (name, value)));
        command
    }

    fn spawn(&mut self) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.base_command();
        command.args(["serve", "--config", "countersign.toml", "--log", "json"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.running = Some(Running::start(command));
    }

    /// Waits until it is ready (`None`) or has ended; panics when it does neither.
    fn wait_ready(&mut self) -> Option<ExitStatus> {
        let ready = format!("{}/readyz", self.admin_url);
        let child = &mut self.running.as_mut().expect("started").child;
        let outcome = wait_for(START, || match child.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => http::get(&ready).try_send().is_ok_and(|answer| answer.status == 200).then_some(None),
        });
        outcome.unwrap_or_else(|| panic!("countersign serve is not ready: {}", self.tail()))
    }

    fn write(&self, config: &Config) {
        let (file, next) = (self.dir.path().join("countersign.toml"), self.dir.path().join("countersign.toml.next"));
        let mut out = File::create(&next).unwrap();
        out.set_permissions(Permissions::from_mode(0o600)).unwrap();
        out.write_all(config.to_toml().as_bytes()).unwrap();
        fs::rename(next, file).unwrap();
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("gateway.log")
    }

    fn tail(&self) -> String {
        tail(&self.log_path())
    }
}

/// The binary under test: `COUNTERSIGN_BIN`, else `release/countersign` of the target directory this test was built in.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("COUNTERSIGN_BIN") {
        return PathBuf::from(path);
    }
    let this = std::env::current_exe().unwrap();
    let found = this.ancestors().map(|dir| dir.join("release/countersign")).find(|path| path.is_file());
    found.expect("no countersign binary: run `cargo build --release -p countersign`, or set COUNTERSIGN_BIN")
}

/// A port nobody listens on, below those the system gives to outgoing connections, and never the same one twice: it
/// stays free over a restart of the gateway.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 18_000;
    let start = u16::try_from(std::process::id().wrapping_mul(101) % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port")
}
