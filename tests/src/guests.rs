//! Policies in WebAssembly text, for what no standard policy does.

use std::fmt::Write;

use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::Resolve;

const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/v0.1");

/// Where the guest's constants are.
const NAME: u32 = 1024;
const DESCRIPTION: u32 = 1120;
const CONFIGURED: u32 = 1160;
const CODE: u32 = 1184;
const REASON: u32 = 1264;
const ANSWER: u32 = 1280;
const NOTE: u32 = 1344;
const MESSAGE: u32 = 1408;
/// Where the host's arguments are put.
const HEAP: u32 = 65_536;

/// Says in its reason's code, in 16 hex digits, the digest of every byte it was asked. Allows with empty settings
/// (`{}`), denies with any others.
pub fn echo() -> Vec<u8> {
    let configure = "(global.set $settings (local.get $len))";
    let evaluate = format!(
        "(local $hash i64) (local $at i32) (local $i i32) (local $digit i32)
        (local.set $hash (i64.const 0xcbf29ce484222325))
        (local.set $at (i32.const {HEAP}))
        (block $end (loop $next
          (br_if $end (i32.ge_u (local.get $at) (global.get $heap)))
          (local.set $hash (i64.mul
            (i64.xor (local.get $hash) (i64.load8_u (local.get $at))) (i64.const 0x100000001b3)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $next)))
        (loop $hex
          (local.set $digit (i32.wrap_i64 (i64.and (local.get $hash) (i64.const 15))))
          (i32.store8 (i32.add (i32.const {CODE}) (local.get $i))
            (i32.add (local.get $digit)
              (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
          (local.set $hash (i64.shr_u (local.get $hash) (i64.const 4)))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $hex (i32.lt_u (local.get $i) (i32.const 16))))
        (if (i32.gt_u (global.get $settings) (i32.const 2)) (then (i32.store8 (i32.const {verdict}) (i32.const 0))))",
        verdict = ANSWER + 4,
    );
    component(configure, &evaluate, "0000000000000000", "what I was asked")
}

/// Denies as `said-too-much`, and says `words` wherever a policy can use words: message, note and log.
pub fn talkative(words: &str) -> Vec<u8> {
    let say = format!("(call $log (i32.const 1) (i32.const {MESSAGE}) (i32.const {}))", words.len());
    let deny = format!("(i32.store8 (i32.const {}) (i32.const 0))", ANSWER + 4);
    component("", &format!("{say}{deny}"), "said-too-much", words)
}

fn component(configure: &str, evaluate: &str, code: &str, message: &str) -> Vec<u8> {
    let mut data = String::new();
    let mut put = |at: u32, bytes: &[u8]| {
        let text: String = bytes.iter().map(|b| format!("\\{b:02x}")).collect();
        writeln!(data, "(data (i32.const {at}) \"{text}\")").unwrap();
    };
    let words = |pairs: &[(u32, usize)]| -> Vec<u8> {
        pairs.iter().flat_map(|(at, n)| [*at, u32::try_from(*n).unwrap()]).flat_map(u32::to_le_bytes).collect()
    };
    assert!(code.len() <= 64 && message.len() <= 1_000);
    let about = ["guest", "1.0.0", "a test's own", r#"{"type":"object"}"#];
    let places: Vec<(u32, usize)> = (0..).map(|n| NAME + 24 * n).zip(about.map(str::len)).collect();
    about.iter().zip(&places).for_each(|(text, (at, _))| put(*at, text.as_bytes()));
    put(DESCRIPTION, &words(&places));
    put(CODE, code.as_bytes());
    put(MESSAGE, message.as_bytes());
    put(REASON, &words(&[(CODE, code.len()), (MESSAGE, message.len())]));
    put(NOTE, &words(&[(MESSAGE, message.len()), (MESSAGE, message.len())]));
    // ok, allow; one reason, no holds, no review, no obligations, one note
    put(ANSWER, &words(&[(0, 2), (REASON, 1), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (NOTE, 1)]));
    let exports = "countersign:policy/policy@0.1.0";
    let text = format!(
        r#"(module
        (import "countersign:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
        (memory (export "memory") 17)
        (global $heap (mut i32) (i32.const {HEAP}))
        (global $settings (mut i32) (i32.const 0))
        {data}
        (func (export "cabi_realloc") (param $old i32) (param $olds i32) (param $align i32) (param $size i32) (result i32)
          (local $at i32)
          (local.set $at (i32.and
            (i32.add (global.get $heap) (i32.sub (local.get $align) (i32.const 1)))
            (i32.sub (i32.const 0) (local.get $align))))
          (global.set $heap (i32.add (local.get $at) (local.get $size)))
          (local.get $at))
        (func (export "{exports}#describe") (result i32) (i32.const {DESCRIPTION}))
        (func (export "{exports}#configure") (param $ptr i32) (param $len i32) (result i32)
          {configure}
          ;; Settings leave no trace where the question will be.
          (memory.fill (local.get $ptr) (i32.const 0) (local.get $len))
          (global.set $heap (i32.const {HEAP}))
          (i32.const {CONFIGURED}))
        (func (export "{exports}#evaluate") (param $req i32) (result i32)
          {evaluate}
          (i32.const {ANSWER})))"#
    );
    let mut resolve = Resolve::default();
    resolve.push_dir(WIT).unwrap();
    let world = "package test:guest;\nworld guest { include countersign:policy/spend-policy@0.1.0; }";
    let package = resolve.push_source("guest.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("guest")).unwrap();
    let mut module = wat::parse_str(text).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap()
}
