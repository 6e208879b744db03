//! A PostgreSQL server of a test's own, which a test may kill, freeze, cut off and start again.
//!
//! Needs nothing but std and `tempfile`, so that the tests of other crates can have this very file by `#[path]`. The
//! server listens on 127.0.0.1 and in its own folder only, and goes when its handle is dropped or this process ends,
//! however it ends. Linux only: what belongs to the server is read from `/proc`.
#![expect(clippy::disallowed_methods, reason = "it drives a real process: it waits, within bounds, on the real clock")]

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The one user, who owns everything.
pub(crate) const USER: &str = "countersign";
/// The user's password.
pub(crate) const PASSWORD: &str = "a-password-that-must-not-be-logged";
/// How long the server may take to accept, recovery after a crash included, or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server and its folder.
#[derive(Debug)]
pub(crate) struct Postgres {
    pub(crate) bin: PathBuf,
    pub(crate) account: Option<Account>,
    pub(crate) port: u16,
    pub(crate) server: Option<Child>,
    /// Ends the server and removes the folder when its standard input closes, as it does when this process is gone.
    guardian: Child,
    pub(crate) folder: TempDir,
}

/// Whom the server runs as when the tests run as root, which PostgreSQL refuses.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    user: u32,
    group: u32,
}

impl Postgres {
    /// Makes a cluster in a temporary folder and starts its server, durable as in production. Panics, with the end of
    /// the server's log, when PostgreSQL is not installed or does not come up within a minute.
    pub(crate) fn start() -> Self {
        let bin = programs();
        let account = Account::when_root();
        let folder = tempfile::Builder::new().prefix("countersign-postgres-").tempdir().unwrap();
        if let Some(Account { user, group }) = account {
            chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).unwrap();
        let mut initdb = command(&bin.join("initdb"), account, folder.path());
        initdb.args(["--no-locale", "--encoding=UTF8", "--no-sync", "--auth=scram-sha-256", "--username", USER]);
        initdb.arg("--pwfile").arg(&secret).arg("--pgdata").arg(folder.path().join("data"));
        output(initdb, "");
        fs::remove_file(secret).unwrap();
        let settings = "listen_addresses = '127.0.0.1'\nshared_buffers = 16MB\nmax_connections = 80\n\
                        fsync = on\nsynchronous_commit = on\nfull_page_writes = on\n\
                        dynamic_shared_memory_type = mmap\nlog_line_prefix = '%m [%p] '\n";
        let sockets = format!("unix_socket_directories = '{}'\n", folder.path().display());
        let mut file = OpenOptions::new().append(true).open(folder.path().join("data/postgresql.conf")).unwrap();
        file.write_all([settings, &sockets].concat().as_bytes()).unwrap();

        let guardian = guardian(&bin, account, folder.path());
        let mut postgres = Self { bin, account, port: 0, server: None, guardian, folder };
        for _ in 0..20 {
            postgres.port = free_port();
            match postgres.launch() {
                Ok(()) => return postgres,
                // Somebody was faster.
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("PostgreSQL does not start: {log}"),
            }
        }
        panic!("no port for PostgreSQL")
    }

    /// URL of a database, with user and password.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// URL of a database, with the user alone.
    pub(crate) fn url_without_password(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database.
    pub(crate) fn create_database(&self, name: &str) {
        self.sql("postgres", &format!("create database \"{name}\""));
    }

    /// What `psql` prints for these statements: a line per row, columns divided by `|`. Panics when one fails.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        let mut psql = command(&self.bin.join("psql"), self.account, self.folder.path());
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f", "-", &self.url(database)]);
        output(psql, text).trim_end().to_owned()
    }

    /// Ends every other session of every database, as a failing network or an administrator would.
    pub(crate) fn disconnect(&self) {
        self.sql(
            "postgres",
            "select pg_terminate_backend(pid) from pg_stat_activity \
             where backend_type = 'client backend' and pid <> pg_backend_pid()",
        );
    }

    /// SIGKILL to all that belongs to the server: nothing is flushed, nothing is said.
    pub(crate) fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // Stopped first: nothing new is forked between looking and killing.
        signal("STOP", &[server.id()]);
        let mut all = children(server.id());
        all.push(server.id());
        signal("KILL", &all);
        server.wait().unwrap();
        let gone = wait_for(|| all.iter().all(|pid| !runs(*pid)).then_some(()));
        gone.expect("PostgreSQL outlived SIGKILL");
        self.forget();
    }

    /// Starts it again on the same folder and port, after an orderly stop when it runs, and waits until it accepts.
    pub(crate) fn restart(&mut self) {
        self.stop("INT");
        self.launch().unwrap_or_else(|log| panic!("PostgreSQL does not start again: {log}"));
    }

    /// Stops it in order. [`Postgres::restart`] starts it again.
    pub(crate) fn shut_down(&mut self) {
        self.stop("INT");
    }

    /// Freezes the server: connections stay open, new ones are taken by the kernel, and nothing is answered.
    pub(crate) fn pause(&self) {
        let Some(server) = &self.server else { return };
        signal("STOP", &[server.id()]);
        signal("STOP", &children(server.id()));
    }

    /// Lets a frozen server go on where it was.
    pub(crate) fn resume(&self) {
        let Some(server) = &self.server else { return };
        signal("CONT", &children(server.id()));
        signal("CONT", &[server.id()]);
    }

    /// Everything the server has logged, over all restarts.
    pub(crate) fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The error is its log, when it ended instead of accepting.
    fn launch(&mut self) -> Result<(), String> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = command(&self.bin.join("postgres"), self.account, self.folder.path());
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        // A group of its own: what a terminal interrupts is this process, and its end is what the guardian waits for.
        command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = command.spawn().unwrap();
        let ended = wait_for(|| match server.try_wait().unwrap() {
            Some(status) => Some(Some(status)),
            None => self.accepts().then_some(None),
        });
        self.server = Some(server);
        match ended {
            Some(None) => Ok(()),
            Some(Some(status)) => {
                self.server = None;
                self.forget();
                Err(format!("{status}: {}", self.log()))
            }
            None => panic!("PostgreSQL does not accept: {}", self.log()),
        }
    }

    fn accepts(&self) -> bool {
        let mut asks = command(&self.bin.join("pg_isready"), self.account, self.folder.path());
        asks.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string(), "-t", "5"]);
        TcpStream::connect(("127.0.0.1", self.port)).is_ok() && asks.status().unwrap().success()
    }

    fn stop(&mut self, how: &str) {
        self.resume();
        let Some(mut server) = self.server.take() else { return };
        signal(how, &[server.id()]);
        if wait_for(|| server.try_wait().unwrap()).is_none() {
            self.server = Some(server);
            self.kill();
        }
    }

    /// Removes what a server leaves that could not clean up: its lock, and the shared memory that the lock names.
    fn forget(&self) {
        let lock = self.data().join("postmaster.pid");
        let Ok(text) = fs::read_to_string(&lock) else { return };
        if let Some(memory) = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _there_is_no_such_program =
                Command::new("ipcrm").args(["-m", memory]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        fs::remove_file(lock).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("postgres.log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop("QUIT");
        // Finds nothing left to end, and may remove the folder before its handle does.
        drop(self.guardian.stdin.take());
        let _status = self.guardian.wait();
    }
}

impl Account {
    fn when_root() -> Option<Self> {
        let id = |args: &[&str]| -> Option<u32> {
            let out = Command::new("id").args(args).stderr(Stdio::null()).output().ok()?;
            String::from_utf8_lossy(&out.stdout).trim().parse().ok()
        };
        if id(&["-u"]) != Some(0) {
            return None;
        }
        let found = id(&["-u", "postgres"]).zip(id(&["-g", "postgres"]));
        let (user, group) = found.expect("PostgreSQL does not run as root, and there is no user `postgres`");
        Some(Self { user, group })
    }
}

/// The folder of the newest server on this machine.
fn programs() -> PathBuf {
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    let version = |path: &Path| path.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<u32>().ok());
    let mut versions: Vec<(u32, PathBuf)> =
        installed.filter_map(|path| Some((version(&path)?, path.join("bin")))).collect();
    versions.retain(|(_, bin)| bin.join("postgres").is_file());
    versions.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path =
        || std::env::split_paths(&path).find(|bin| ["postgres", "initdb"].iter().all(|p| bin.join(p).is_file()));
    let found = versions.pop().map(|(_, bin)| bin).or_else(on_path);
    found.expect("PostgreSQL is not installed: run `make test`, or install your system's package")
}

/// A program that runs as the server does, in its folder, and sees nothing of this process's environment.
pub(crate) fn command(program: &Path, account: Option<Account>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").current_dir(folder);
    if let Some(Account { user, group }) = account {
        command.uid(user).gid(group);
    }
    command
}

/// Standard output of a program that must succeed.
fn output(mut command: Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It may end before it has read everything; its status tells why.
    let _cut_short = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let [out, error] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{:?}: {}: {out}{error}\n{input}", command.get_program(), output.status);
    out
}

/// Runs as the server does: it could not end anybody else's process.
fn guardian(bin: &Path, account: Option<Account>, folder: &Path) -> Child {
    let script = "cat >/dev/null
        lock=$1/data/postmaster.pid
        if [ -e \"$lock\" ]; then kill -CONT \"$(head -n 1 \"$lock\")\"; \"$0\" stop -D \"$1/data\" -m immediate; fi
        rm -rf \"$1\"";
    let mut command = command(Path::new("/bin/sh"), account, Path::new("/"));
    command.args(["-c", script]).arg(bin.join("pg_ctl")).arg(folder);
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// A port below those the system gives to outgoing connections, so that it stays free while the server is down, and
/// above those of the gateways under test.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 30_000;
    const COUNT: u16 = 2_700;
    let start = u16::try_from(std::process::id().wrapping_mul(101) % u32::from(COUNT)).unwrap();
    for _ in 0..COUNT {
        let port = FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port")
}

/// Sends a signal by name; a process that is gone already is no error.
fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "signal=$0; for pid; do kill -s \"$signal\" \"$pid\"; done; true", name]).args(pids);
    assert!(shell.stderr(Stdio::null()).status().unwrap().success());
}

/// State and parent of a process, from what follows its name in `/proc/PID/stat`.
pub(crate) fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

pub(crate) fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// Whether a process is there and not only waiting to be collected.
pub(crate) fn runs(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

pub(crate) fn wait_for<T>(mut done: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let found = done();
        if found.is_some() || start.elapsed() >= PATIENCE {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
