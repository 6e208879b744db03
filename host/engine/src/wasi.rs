//! The inert WASI a policy may see.
//!
//! Compilers for Rust's standard library, C, Go and others leave WASI imports in whatever they
//! build, used or not. This module answers them so that nothing gets out and nothing non-determinate
//! gets in: no arguments, environment, directories or input; output is swallowed; clocks stand at
//! the decision's moment; random bytes are a function of the decision.
//!
//! **Nothing here blocks.** Epochs do not interrupt host calls, so a sleep in here would hold a
//! thread for as long as the guest likes. Time does not pass inside a policy, therefore every
//! pollable is ready at once: a guest that sleeps goes on immediately, one that loops until some
//! later time runs out of fuel.
//!
//! Functions that need something a policy can never have (a descriptor, say) trap when called.

use wasmtime::component::types::ComponentItem;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, Resource, ResourceType, WasmList};
use wasmtime::{Engine, Result, StoreContextMut};

use crate::guest::{Guest, Refusal, Stream};

/// Interfaces a policy may import, without their version, which is any `0.2.x`.
pub(crate) const GRANTED: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// The granted interface an import such as `wasi:io/poll@0.2.6` names, or none.
pub(crate) fn granted(import: &str) -> Option<&'static str> {
    let (name, version) = import.split_once('@')?;
    let patch = version.strip_prefix("0.2.")?;
    let released = !patch.is_empty() && patch.bytes().all(|b| b.is_ascii_digit());
    GRANTED.into_iter().find(|g| released && *g == name)
}

struct IoError;
struct Pollable;
struct InputStream;
struct OutputStream;
struct Descriptor;
struct DirectoryEntryStream;
struct TerminalInput;
struct TerminalOutput;

/// Which output stream a resource is.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// What `check-write` promises: more than any guest writes at once.
const WRITABLE: u64 = 64 << 10;

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

type Store<'a> = StoreContextMut<'a, Guest>;
type Written = (std::result::Result<(), StreamError>,);

/// Fills one imported interface: first a trap for every function the component asks for, then over
/// them what can be answered.
pub(crate) fn define(
    engine: &Engine,
    interface: &str,
    wanted: &wasmtime::component::types::ComponentInstance,
    linker: &mut LinkerInstance<'_, Guest>,
) -> Result<()> {
    for (name, item) in wanted.exports(engine) {
        if let ComponentItem::ComponentFunc(_) = item.ty {
            let what = format!("`{interface}#{name}` is not available to a policy");
            linker.func_new(name, move |_, _, _, _| Err(Refusal::Absent(what.clone()).into()))?;
        }
    }
    match interface {
        "wasi:cli/environment" => environment(linker),
        "wasi:cli/stdin" => func(linker, "get-stdin", |mut store, (): ()| Ok((handle::<InputStream>(&mut store, 0),))),
        "wasi:cli/stdout" => output(linker, "get-stdout", STDOUT),
        "wasi:cli/stderr" => output(linker, "get-stderr", STDERR),
        "wasi:cli/terminal-input" => resource::<TerminalInput>(linker, "terminal-input"),
        "wasi:cli/terminal-output" => resource::<TerminalOutput>(linker, "terminal-output"),
        "wasi:cli/terminal-stdin" => {
            func(linker, "get-terminal-stdin", |_, (): ()| Ok((None::<Resource<TerminalInput>>,)))
        }
        "wasi:cli/terminal-stdout" => no_terminal(linker, "get-terminal-stdout"),
        "wasi:cli/terminal-stderr" => no_terminal(linker, "get-terminal-stderr"),
        "wasi:clocks/monotonic-clock" => monotonic_clock(linker),
        "wasi:clocks/wall-clock" => wall_clock(linker),
        "wasi:filesystem/preopens" => {
            func(linker, "get-directories", |_, (): ()| Ok((Vec::<(Resource<Descriptor>, String)>::new(),)))
        }
        "wasi:filesystem/types" => {
            resource::<Descriptor>(linker, "descriptor")?;
            resource::<DirectoryEntryStream>(linker, "directory-entry-stream")
        }
        "wasi:io/error" => {
            resource::<IoError>(linker, "error")?;
            func(linker, "[method]error.to-debug-string", |_, (_,): (Resource<IoError>,)| {
                Ok(("not available to a policy".to_owned(),))
            })
        }
        "wasi:io/poll" => poll(linker),
        "wasi:io/streams" => streams(linker),
        "wasi:random/random" => random(linker, "get-random-bytes", "get-random-u64", Stream::Secure),
        "wasi:random/insecure" => {
            random(linker, "get-insecure-random-bytes", "get-insecure-random-u64", Stream::Insecure)
        }
        "wasi:random/insecure-seed" => func(linker, "insecure-seed", |mut store, (): ()| {
            let guest = store.data_mut();
            Ok(((guest.random_u64(Stream::InsecureSeed), guest.random_u64(Stream::InsecureSeed)),))
        }),
        // `wasi:cli/exit` has nothing but traps.
        _ => Ok(()),
    }
}

/// Defines a function whose calls are counted.
fn func<P, R, F>(linker: &mut LinkerInstance<'_, Guest>, name: &str, answer: F) -> Result<()>
where
    F: Fn(Store<'_>, P) -> Result<R> + Send + Sync + 'static,
    P: wasmtime::component::ComponentNamedList + Lift + 'static,
    R: wasmtime::component::ComponentNamedList + Lower + 'static,
{
    linker.func_wrap(name, move |mut store: Store<'_>, params: P| {
        store.data_mut().called()?;
        answer(store, params)
    })
}

fn resource<T: 'static>(linker: &mut LinkerInstance<'_, Guest>, name: &str) -> Result<()> {
    linker.resource(name, ResourceType::host::<T>(), |_, _| Ok(()))
}

/// A handle the guest will own.
fn handle<T: 'static>(store: &mut Store<'_>, which: u32) -> Resource<T> {
    store.data_mut().hand_out();
    Resource::new_own(which)
}

fn environment(linker: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    func(linker, "get-environment", |_, (): ()| Ok((Vec::<(String, String)>::new(),)))?;
    func(linker, "get-arguments", |_, (): ()| Ok((Vec::<String>::new(),)))?;
    func(linker, "initial-cwd", |_, (): ()| Ok((None::<String>,)))
}

fn output(linker: &mut LinkerInstance<'_, Guest>, name: &str, which: u32) -> Result<()> {
    func(linker, name, move |mut store, (): ()| Ok((handle::<OutputStream>(&mut store, which),)))
}

fn no_terminal(linker: &mut LinkerInstance<'_, Guest>, name: &str) -> Result<()> {
    func(linker, name, |_, (): ()| Ok((None::<Resource<TerminalOutput>>,)))
}

/// Every pollable is ready at once.
fn ready(mut store: Store<'_>) -> (Resource<Pollable>,) {
    (handle(&mut store, 0),)
}

fn poll(linker: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    resource::<Pollable>(linker, "pollable")?;
    func(linker, "[method]pollable.ready", |_, (_,): (Resource<Pollable>,)| Ok((true,)))?;
    func(linker, "[method]pollable.block", |_, (_,): (Resource<Pollable>,)| Ok(()))?;
    func(linker, "poll", |_, (all,): (Vec<Resource<Pollable>>,)| {
        if all.is_empty() {
            return Err(Refusal::Absent("`poll` of nothing would wait for ever".to_owned()).into());
        }
        Ok(((0_u32..).take(all.len()).collect::<Vec<_>>(),))
    })
}

fn monotonic_clock(linker: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    func(linker, "now", |store, (): ()| Ok((store.data().clock().as_millis().saturating_mul(1_000_000),)))?;
    func(linker, "resolution", |_, (): ()| Ok((1_000_000_u64,)))?;
    func(linker, "subscribe-instant", |store, (_,): (u64,)| Ok(ready(store)))?;
    func(linker, "subscribe-duration", |store, (_,): (u64,)| Ok(ready(store)))
}

fn wall_clock(linker: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    func(linker, "now", |store, (): ()| {
        let clock = store.data().clock();
        let nanoseconds = (clock.as_millis() % 1_000) as u32 * 1_000_000;
        Ok((Datetime { seconds: clock.as_secs(), nanoseconds },))
    })?;
    func(linker, "resolution", |_, (): ()| Ok((Datetime { seconds: 0, nanoseconds: 1_000_000 },)))
}

fn random(linker: &mut LinkerInstance<'_, Guest>, bytes: &str, number: &str, stream: Stream) -> Result<()> {
    func(linker, bytes, move |mut store, (len,): (u64,)| Ok((store.data_mut().random(stream, len)?,)))?;
    func(linker, number, move |mut store, (): ()| Ok((store.data_mut().random_u64(stream),)))
}

fn streams(linker: &mut LinkerInstance<'_, Guest>) -> Result<()> {
    type Output = Resource<OutputStream>;
    resource::<InputStream>(linker, "input-stream")?;
    resource::<OutputStream>(linker, "output-stream")?;
    for name in ["read", "blocking-read"] {
        let name = format!("[method]input-stream.{name}");
        func(linker, &name, |_, (_, _): (Resource<InputStream>, u64)| Ok((Err::<Vec<u8>, _>(StreamError::Closed),)))?;
    }
    for name in ["skip", "blocking-skip"] {
        let name = format!("[method]input-stream.{name}");
        func(linker, &name, |_, (_, _): (Resource<InputStream>, u64)| Ok((Err::<u64, _>(StreamError::Closed),)))?;
    }
    func(linker, "[method]input-stream.subscribe", |store, (_,): (Resource<InputStream>,)| Ok(ready(store)))?;
    func(linker, "[method]output-stream.subscribe", |store, (_,): (Output,)| Ok(ready(store)))?;
    func(linker, "[method]output-stream.check-write", |_, (_,): (Output,)| Ok((Ok::<_, StreamError>(WRITABLE),)))?;
    for name in ["write", "blocking-write-and-flush"] {
        let name = format!("[method]output-stream.{name}");
        func(linker, &name, |mut store, (stream, bytes): (Output, WasmList<u8>)| {
            if stream.rep() == STDERR {
                let text = bytes.as_le_slice(&store).to_owned();
                store.data_mut().print_error(&text);
            }
            Ok::<Written, _>((Ok(()),))
        })?;
    }
    for name in ["flush", "blocking-flush"] {
        let name = format!("[method]output-stream.{name}");
        func(linker, &name, |_, (_,): (Output,)| Ok::<Written, _>((Ok(()),)))?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        let name = format!("[method]output-stream.{name}");
        func(linker, &name, |_, (_, _): (Output, u64)| Ok::<Written, _>((Ok(()),)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_exact_about_names_and_versions() {
        assert_eq!(granted("wasi:io/poll@0.2.6"), Some("wasi:io/poll"));
        assert_eq!(granted("wasi:random/random@0.2.12"), Some("wasi:random/random"));
        for refused in [
            "wasi:io/poll",
            "wasi:io/poll@0.2",
            "wasi:io/poll@0.2.",
            "wasi:io/poll@0.2.0-rc-2023-11-10",
            "wasi:io/poll@0.3.0",
            "wasi:sockets/tcp@0.2.0",
            "wasi:http/outgoing-handler@0.2.0",
            "wasi:cli/run@0.2.0",
        ] {
            assert_eq!(granted(refused), None, "{refused}");
        }
    }
}
