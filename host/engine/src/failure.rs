//! From wasmtime's errors to the failures a record keeps. No other file looks inside them.

use countersign_core::verdict::{Failure, FailureKind};
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};

use crate::guest::{Guest, Refusal};

/// Where in the life of an instance an error happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Instantiate,
    Call(&'static str),
}

pub(crate) fn failure(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}

/// What became of a call that did not return.
pub(crate) fn classify(error: &wasmtime::Error, phase: Phase, guest: &Guest) -> Failure {
    let during = match phase {
        Phase::Instantiate => "while instantiating",
        Phase::Call(function) => function,
    };
    let (kind, what) = kind_of(error, phase);
    let mut message = format!("{during}: {what}");
    if kind == FailureKind::Trap {
        if let Some(function) = innermost(error) {
            message.push_str(&format!(", in `{function}`"));
        }
        if guest.memory.refused {
            message.push_str(&format!("; it had asked for more than its {} bytes of memory", guest.memory.limit()));
        }
        let words = guest.last_words();
        if !words.is_empty() {
            message.push_str(&format!("; it printed: {words}"));
        }
    }
    failure(kind, message)
}

fn kind_of(error: &wasmtime::Error, phase: Phase) -> (FailureKind, String) {
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return match trap {
            Trap::OutOfFuel => (FailureKind::Fuel, "used up its instructions".to_owned()),
            Trap::Interrupt => (FailureKind::Timeout, "passed its deadline".to_owned()),
            other => (FailureKind::Trap, other.to_string()),
        };
    }
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        let kind = match refusal {
            Refusal::TooMuch(_) => FailureKind::Oversize,
            Refusal::Absent(_) => FailureKind::Trap,
        };
        return (kind, refusal.to_string());
    }
    if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
        let message = "the host has no room to run it now; raise the engine's `instances`";
        return (FailureKind::Unavailable, message.to_owned());
    }
    let root = cut(&error.root_cause().to_string(), 300);
    // wasmtime keeps this error's type to itself; `tests/hostile.rs` notices if the text changes.
    if root.starts_with("too much data is being copied") {
        return (FailureKind::Oversize, "passed more data than the host accepts".to_owned());
    }
    match phase {
        Phase::Instantiate => (FailureKind::Trap, root),
        // Not a trap and not one of ours: the answer could not be read.
        Phase::Call(_) => (FailureKind::Error, format!("answered outside the contract: {root}")),
    }
}

/// The function a trap happened in, if the module kept its names.
fn innermost(error: &wasmtime::Error) -> Option<String> {
    let name = error.downcast_ref::<WasmBacktrace>()?.frames().first()?.func_name()?;
    let clean: String = name.chars().filter(|c| !c.is_control() && *c != '`').collect();
    Some(cut(&clean, 120))
}

/// At most `max` characters.
pub(crate) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(max).chain(['…']).collect(),
    }
}
