//! Random bytes where guests speak: `cargo run --release --example fuzz -- answers|settings|schemas SECONDS [SEED]`.
//!
//! * `answers`: a guest hands over memory that was a valid decision before it was damaged: pointers,
//!   lengths, tags, numbers, text. The host must answer within its limits, the same twice.
//! * `settings`: damaged settings documents for a guest whose schema says something about all of it.
//! * `schemas`: damaged schemas for valid settings; validating must end.
//!
//! Every input is a function of the seed and its number, and the number is printed when one fails, so
//! that a failure is one command away. Ends with a count, or with the first input that broke a promise.

#[path = "../tests/engine/support.rs"]
#[expect(dead_code, reason = "the guests of the tests, of which this needs a few")]
#[expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "as in the tests")]
mod support;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign_core::seams::Judge;
use countersign_core::verdict::{Decision, Failure, FailureKind, Opinion};
use countersign_engine::{Engine, EngineConfig, PolicySpec, Start};
use support::{Guest, full_decision};

/// Takes one input; answers how it ended, or which promise broke.
type Target = Box<dyn FnMut(&mut Random) -> Result<&'static str, String>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: fuzz answers|settings|schemas SECONDS [SEED]";
    let what = args.next().ok_or(usage)?;
    let seconds: u64 = args.next().ok_or(usage)?.parse()?;
    let seed: u64 = args.next().map_or(Ok(1), |n| n.parse())?;
    let engine = Engine::new(EngineConfig { instances: 8, ready: 0, ..EngineConfig::default() })?;
    let mut target: Target = match what.as_str() {
        "answers" => Box::new(answers(engine)),
        "settings" => Box::new(settings(engine)),
        "schemas" => Box::new(schemas(engine)),
        _ => return Err(usage.into()),
    };
    let began = now();
    let mut ends: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for number in 0_u64.. {
        if began.elapsed() >= Duration::from_secs(seconds) {
            break;
        }
        let end = target(&mut Random(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .map_err(|why| format!("input {number} of seed {seed}: {why}"))?;
        *ends.entry(end).or_default() += 1;
    }
    let total: u64 = ends.values().sum();
    println!("{what}: {total} inputs in {seconds} s, none broke a promise: {ends:?}");
    Ok(())
}

/// Deterministic, small, good enough to break things.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let a = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let b = (a ^ (a >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        b ^ (b >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn bytes<const N: usize>(&mut self, choices: [[u8; N]; 8]) -> [u8; N] {
        choices.get(self.below(8)).copied().unwrap_or([0; N])
    }

    /// A few damages to what was valid.
    fn damage(&mut self, bytes: &mut [u8]) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => put(bytes, at, &[self.next() as u8]),
                1 => put(bytes, at, &[1 << self.below(8)]),
                2 | 3 => {
                    let small = (self.next() as u32 % 70_000).to_le_bytes();
                    let any = (self.next() as u32).to_le_bytes();
                    let word = self.bytes([
                        [0; 4],
                        [1, 0, 0, 0],
                        [0xff; 4],
                        [0, 0, 0, 0x80],
                        [0xff, 0xff, 0xff, 0x7f],
                        small,
                        any,
                        [2, 0, 0, 0],
                    ]);
                    put(bytes, at & !3, &word);
                }
                4 => {
                    let from = self.below(bytes.len());
                    let piece: Vec<u8> = bytes.iter().skip(from).take(8).copied().collect();
                    put(bytes, at, &piece);
                }
                _ => put(bytes, at, &self.next().to_le_bytes()),
            }
        }
    }

    /// A few damages to text that keep it text.
    fn scribble(&mut self, text: &str) -> String {
        const PIECES: [&str; 16] = [
            "{",
            "}",
            "[",
            "]",
            "\"",
            ",",
            ":",
            "null",
            "true",
            "-1",
            "1e999",
            "\"\\u0000\"",
            "\u{feff}",
            "0.5",
            "\"$ref\"",
            "\"a\"",
        ];
        let mut chars: Vec<String> = text.chars().map(String::from).collect();
        for _ in 0..=self.below(3) {
            let at = self.below(chars.len());
            let piece = PIECES.get(self.below(16)).copied().unwrap_or_default().to_owned();
            match self.below(4) {
                0 => drop(chars.splice(at..(at + 1).min(chars.len()), [])),
                1 => chars.insert(at, piece),
                2 => {
                    let end = (at + self.below(12)).min(chars.len());
                    let copy: Vec<String> = chars.get(at..end).unwrap_or_default().to_vec();
                    let to = self.below(chars.len());
                    drop(chars.splice(to..to, copy));
                }
                _ => drop(chars.splice(at..(at + 1).min(chars.len()), [piece])),
            }
        }
        chars.concat()
    }
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(what) {
        *to = *from;
    }
}

/// The guest's data segment is the input: a hex string in its settings, decoded over the valid one.
fn answers(engine: Arc<Engine>) -> impl FnMut(&mut Random) -> Result<&'static str, String> {
    let mut guest = Guest::new();
    let at = guest.data.answer(&full_decision());
    let valid = guest.data.0.clone();
    let done = guest.configure.clone();
    guest.functions = "(func $nibble (param $c i32) (result i32)
        (select (i32.sub (local.get $c) (i32.const 87)) (i32.sub (local.get $c) (i32.const 48)) (i32.gt_u (local.get $c) (i32.const 57))))"
        .to_owned();
    // Settings are {"x":"<hex>"}: six bytes before, two after.
    guest.configure = format!(
        "(local $i i32) (local $n i32)
         (local.set $n (i32.div_u (i32.sub (local.get $len) (i32.const 8)) (i32.const 2)))
         (loop $next
           (i32.store8 (i32.add (i32.const 1024) (local.get $i))
             (i32.or
               (i32.shl (call $nibble (i32.load8_u offset=6 (i32.add (local.get $ptr) (i32.mul (local.get $i) (i32.const 2))))) (i32.const 4))
               (call $nibble (i32.load8_u offset=7 (i32.add (local.get $ptr) (i32.mul (local.get $i) (i32.const 2)))))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if $next (i32.lt_u (local.get $i) (local.get $n))))
         {done}"
    );
    guest.evaluate = format!("(i32.const {at})");
    let spec = PolicySpec { start: Start::Plain, ..guest.spec("p") };
    move |random| {
        let mut bytes = valid.clone();
        random.damage(&mut bytes);
        let settings = format!("{{\"x\":\"{}\"}}", hex::encode(&bytes));
        let set = match engine.stage(1, &[PolicySpec { settings, ..spec.clone() }]) {
            Ok(set) => set,
            // The damage hit what `configure` or `describe` answers.
            Err(_) => return Ok("refused"),
        };
        let ask = || set.judge(&["p".to_owned()], &support::request()).opinions.into_iter().next().ok_or("no opinion");
        let (one, two) = (ask()?, ask()?);
        if (Opinion { micros: 0, ..one.clone() }) != (Opinion { micros: 0, ..two }) {
            return Err(format!("answered differently the second time: {one:?}"));
        }
        match one.outcome {
            Ok(decision) => within_limits(&decision).map(|()| "decision"),
            Err(failure) => explained(&failure),
        }
    }
}

fn settings(engine: Arc<Engine>) -> impl FnMut(&mut Random) -> Result<&'static str, String> {
    const SCHEMA: &str = r##"{"type":"object","properties":{"a":{"type":"string","pattern":"^[a-z]+$","maxLength":9},
        "b":{"type":"array","items":{"$ref":"#/$defs/n"},"uniqueItems":true},"c":{"oneOf":[{"type":"null"},{"$ref":"#"}]}},
        "$defs":{"n":{"type":"integer","minimum":0,"exclusiveMaximum":100}},"required":["a"],"additionalProperties":false}"##;
    const VALID: &str = r#"{"a":"abc","b":[1,2,3],"c":{"a":"x","b":[],"c":null}}"#;
    let spec = PolicySpec { start: Start::Plain, ..Guest::allowing().with_schema(SCHEMA).spec("p") };
    move |random| {
        let settings = random.scribble(VALID);
        match engine.stage(1, &[PolicySpec { settings: settings.clone(), ..spec.clone() }]) {
            Ok(_) => match serde_json::from_str::<serde_json::Value>(&settings) {
                Ok(value) if value.get("a").is_some_and(serde_json::Value::is_string) => Ok("accepted"),
                _ => Err(format!("accepted {settings:?}")),
            },
            Err(error) if error.stage.code() == "settings" && !error.message.is_empty() => Ok("refused"),
            Err(error) => Err(format!("{settings:?}: {error}")),
        }
    }
}

fn schemas(engine: Arc<Engine>) -> impl FnMut(&mut Random) -> Result<&'static str, String> {
    const VALID: &str = r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/n"},"b":{"anyOf":[{"type":"string"},
        {"items":{"const":1}}]}},"patternProperties":{"^x":{"not":{"type":"null"}}},"$defs":{"n":{"minimum":1}},
        "if":{"required":["a"]},"then":{"maxProperties":3},"else":false}"##;
    move |random| {
        let schema = random.scribble(VALID);
        let settings = r#"{"a":1,"b":[1,1],"xy":{"a":[]}}"#.to_owned();
        let guest = Guest::allowing().with_schema(&schema);
        match engine.stage(1, &[PolicySpec { start: Start::Plain, settings, ..guest.spec("p") }]) {
            Ok(_) => Ok("accepted"),
            Err(error) if matches!(error.stage.code(), "settings" | "describe") => Ok(error.stage.code()),
            Err(error) => Err(format!("{schema:?}: {error}")),
        }
    }
}

fn within_limits(d: &Decision) -> Result<(), String> {
    let texts = d.reasons.iter().flat_map(|r| [&r.code, &r.message]).chain(d.holds.iter().map(|h| &h.budget));
    let longest = texts.map(String::len).max().unwrap_or(0);
    let amounts =
        d.holds.iter().all(|h| (1..=1_000_000_000_000_000).contains(&h.amount) && h.limit <= 4_000_000_000_000_000_000);
    if d.reasons.len() > 64 || d.holds.len() > 16 || d.notes.len() > 32 || longest > 4_096 || !amounts {
        return Err(format!("a decision beyond the limits: {d:?}"));
    }
    Ok(())
}

fn explained(failure: &Failure) -> Result<&'static str, String> {
    match failure.kind {
        FailureKind::Timeout | FailureKind::Unavailable => Err(format!("the host gave up: {failure:?}")),
        kind if failure.message.is_empty() => Err(format!("{} without a word", kind.code())),
        kind => Ok(kind.code()),
    }
}

#[expect(clippy::disallowed_methods, reason = "how long to go on; no input depends on it")]
fn now() -> Instant {
    Instant::now()
}
