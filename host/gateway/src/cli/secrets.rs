//! The environment is read once. `serve` then replaces its own process image by one without the
//! configured secrets: what `/proc/PID/environ` shows and what a child inherits cannot be taken back
//! in any other way.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Failure;
use crate::config::Environment;

/// Names the pipe that carries the secrets across the change of image.
const HANDOVER: &str = "COUNTERSIGN_SECRETS_FD";
/// A pipe holds at least this much without a reader.
const MAX_SECRETS: usize = 32 * 1024;

/// The environment, with the secrets that an earlier image handed over.
pub(super) fn environment() -> Result<Environment, Failure> {
    let environment = Environment::capture();
    let Some(fd) = environment.get(HANDOVER).map(str::to_owned) else { return Ok(environment) };
    let number: u32 = fd.parse().map_err(|_| Failure::new(format!("{HANDOVER} is the gateway's own; unset it")))?;
    let mut json = Vec::new();
    std::fs::File::open(format!("/proc/self/fd/{number}"))
        .and_then(|mut pipe| pipe.read_to_end(&mut json))
        .map_err(|e| Failure::new(format!("{HANDOVER} is the gateway's own; unset it ({e})")))?;
    let secrets: BTreeMap<String, String> = serde_json::from_slice(&json)?;
    Ok(environment.with(secrets))
}

/// Starts over without these secrets in the environment, if any are there.
pub(super) fn hide(secrets: &BTreeSet<String>, environment: &Environment) -> Result<(), Failure> {
    let exposed: BTreeMap<&str, &str> = secrets
        .iter()
        .filter(|name| std::env::var_os(name).is_some())
        .filter_map(|name| Some((name.as_str(), environment.get(name)?)))
        .collect();
    if exposed.is_empty() {
        return Ok(());
    }
    let json = serde_json::to_vec(&exposed)?;
    if json.len() > MAX_SECRETS {
        return Err(Failure::new("the secrets in the environment are too large").hint("use { file = \"…\" } instead"));
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    std::fs::File::from(writer).write_all(&json)?;
    fcntl_setfd(&reader, FdFlags::empty())?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).env(HANDOVER, reader.as_raw_fd().to_string());
    for name in exposed.keys() {
        command.env_remove(name);
    }
    // Only returns if it failed.
    let error = command.exec();
    Err(Failure::new(format!("the gateway cannot start over without its secrets: {error}")))
}
