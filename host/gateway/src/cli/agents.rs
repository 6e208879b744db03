//! `countersign agents` and `countersign wallets`: who may buy, and what pays.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::Subcommand;
use countersign_core::seams::Clock as _;
use http::Method;

use super::admin::Client;
use super::listing::{column, print};
use super::{Common, Failure, Outcome, Remote, say};
use crate::clock::SystemClock;
use crate::config::names::normalise;
use crate::config::{Config, Environment};
use crate::identity::token_sha256;

/// Agents: who may buy.
#[derive(Subcommand)]
pub(super) enum Agents {
    /// Every agent of the running gateway's configuration.
    List(Remote),
    /// Add an agent to the configuration file; its token is printed once. A running gateway takes it up.
    Create {
        #[command(flatten)]
        common: Common,
        /// Its name: 1 to 64 of a-z, 0-9, `.`, `_` and `-`.
        name: String,
        /// The workspace it buys for.
        #[arg(long)]
        workspace: Option<String>,
        /// A role it has; may be given more than once.
        #[arg(long = "role")]
        roles: Vec<String>,
        /// Print what belongs into the file instead of writing it there.
        #[arg(long)]
        print: bool,
    },
}

/// Wallets: what pays.
#[derive(Subcommand)]
pub(super) enum Wallets {
    /// Every wallet of the running gateway, with its address and what is left of its day.
    List(Remote),
}

pub(super) async fn agents(command: Agents, environment: &Environment) -> Outcome {
    match command {
        Agents::List(remote) => {
            let answer = Client::new(&remote, environment)?.must(Method::GET, "/v1/agents", None).await?;
            let columns = [
                column("AGENT", "/agent"),
                column("WORKSPACE", "/workspace"),
                column("ROLES", "/roles"),
                column("TOKEN", "/token"),
                column("SUSPENDED", "/suspended"),
            ];
            print(remote.listing.json, &answer, &columns);
            Ok(())
        }
        Agents::Create { common, name, workspace, roles, print } => {
            let names = [Some(&name), workspace.as_ref()].into_iter().flatten().chain(&roles);
            if let Some(wrong) = names.into_iter().find(|name| normalise(name).as_ref() != Some(*name)) {
                let why = format!("{wrong:?}: expected 1 to 64 of a-z, 0-9, `.`, `_` and `-`");
                return Err(Failure { code: 2, ..Failure::new(why) });
            }
            let mut secret = [0_u8; 32];
            SystemClock.random(&mut secret).map_err(|e| Failure::new(e.to_string()))?;
            let token = format!("csa_{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
            let table = table(&name, workspace.as_deref(), &roles, &token_sha256(&token));
            if print {
                say(table.trim_end());
            } else {
                append(&common.config, &name, &table)?;
                say(format_args!("Added [agent.{name}] to {}", common.config.display()));
            }
            say(format_args!("{token}\nThe token is shown this once; the file keeps only its SHA-256."));
            Ok(())
        }
    }
}

pub(super) async fn wallets(command: Wallets, environment: &Environment) -> Outcome {
    let Wallets::List(remote) = command;
    let answer = Client::new(&remote, environment)?.must(Method::GET, "/v1/wallets", None).await?;
    let columns = [
        column("WALLET", "/wallet"),
        column("KIND", "/kind"),
        column("ADDRESS", "/address"),
        column("NETWORKS", "/networks"),
        column("DAY", "/daily_limit"),
        column("LEFT", "/available"),
        column("SUSPENDED", "/suspended"),
    ];
    print(remote.listing.json, &answer, &columns);
    Ok(())
}

fn table(name: &str, workspace: Option<&str>, roles: &[String], token_sha256: &str) -> String {
    let workspace = workspace.map(|workspace| format!("workspace = \"{workspace}\"\n")).unwrap_or_default();
    let list = roles.iter().map(|role| format!("\"{role}\"")).collect::<Vec<_>>().join(", ");
    let roles = if roles.is_empty() { String::new() } else { format!("roles = [{list}]\n") };
    format!("[agent.\"{name}\"]\ntoken-sha256 = \"{token_sha256}\"\n{workspace}{roles}")
}

/// Writes a table to the end of the file, which is replaced in one step. Everything before it stays as it is.
fn append(path: &Path, name: &str, table: &str) -> Outcome {
    let told = |what: &str, e: std::io::Error| Failure::new(format!("{}: cannot be {what}: {e}", path.display()));
    // Through links: what they lead to is the file.
    let path = &fs::canonicalize(path).map_err(|e| told("found", e))?;
    let held = hold(path).map_err(|e| told("read", e))?;
    let before = Config::inspect(path)?;
    if before.agents.contains_key(name) {
        let taken = format!("{}: there is an [agent.{name}] already; nothing was changed", path.display());
        return Err(Failure::new(taken).hint("remove it first to give it another token, or choose another name"));
    }
    let text = fs::read_to_string(path).map_err(|e| told("read", e))?;
    let meta = held.metadata().map_err(|e| told("read", e))?;
    let next = path.with_extension(format!("{}.new", std::process::id()));
    let write = || {
        let mode = meta.permissions().mode() & 0o7777;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&next)?;
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (meta.uid(), meta.gid()) {
            // Whoever serves must be able to read it, and nobody else.
            fchown(&file, Some(meta.uid()), Some(meta.gid()))?;
        }
        file.write_all(format!("{}\n\n{table}", text.trim_end()).as_bytes())?;
        file.sync_all()
    };
    let written = write().map_err(|e| told("written", e));
    // Read as the gateway will: a file that it would refuse is not put in its place.
    let checked = written.and_then(|()| Ok(Config::inspect(&next)?));
    let placed = checked.and_then(|_| {
        if fs::read_to_string(path).map_err(|e| told("read", e))? != text {
            let why = format!("{}: somebody else has just changed it; nothing was changed", path.display());
            return Err(Failure::new(why).hint("try again"));
        }
        fs::rename(&next, path).map_err(|e| told("replaced", e))
    });
    if placed.is_err() {
        // Nothing else has this name.
        drop(fs::remove_file(&next));
    }
    placed
}

/// Opens a file that others replace in the same way, and keeps them from it until it is closed.
fn hold(path: &Path) -> std::io::Result<File> {
    loop {
        let file = File::open(path)?;
        file.lock()?;
        let (held, there) = (file.metadata()?, fs::metadata(path)?);
        if (held.dev(), held.ino()) == (there.dev(), there.ino()) {
            return Ok(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_is_added_once_and_nothing_else_changes() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = |out: &mut [u8]| SystemClock.random(out);
        let file = crate::init::init(&folder.path().join("g"), &mut random).unwrap().config;
        let before = fs::read_to_string(&file).unwrap();
        let sha256 = token_sha256("csa_x");
        append(&file, "helper.2", &table("helper.2", Some("research"), &["analyst".to_owned()], &sha256)).unwrap();
        let after = fs::read_to_string(&file).unwrap();
        assert!(after.starts_with(before.trim_end()));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let agent = &Config::inspect(&file).unwrap().agents["helper.2"];
        assert_eq!((agent.token_sha256.as_deref(), agent.workspace.as_deref()), (Some(&*sha256), Some("research")));
        assert!(agent.roles.contains("analyst"));

        let again = append(&file, "helper.2", &table("helper.2", None, &[], &sha256)).unwrap_err();
        assert!(again.message.contains("already"), "{}", again.message);
        // The same token would be two agents' at once: the reader refuses it, and the file stays.
        assert!(append(&file, "twin", &table("twin", None, &[], &sha256)).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), after);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 3, "nothing is left over");
    }

    #[test]
    fn agents_that_are_added_at_the_same_time_are_all_there() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = |out: &mut [u8]| SystemClock.random(out);
        let file = crate::init::init(&folder.path().join("g"), &mut random).unwrap().config;
        let names: Vec<String> = (0..8).map(|n| format!("helper-{n}")).collect();
        std::thread::scope(|scope| {
            for name in &names {
                let file = &file;
                scope.spawn(move || append(file, name, &table(name, None, &[], &token_sha256(name))).unwrap());
            }
        });
        let agents = Config::inspect(&file).unwrap().agents;
        assert!(names.iter().all(|name| agents.contains_key(name)), "{:?}", agents.keys());
    }
}
