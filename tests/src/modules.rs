//! Policy modules to be swapped: the standard ones, in as many versions as a test wants.

use countersign::builtin;
use sha2::{Digest, Sha256};

/// A standard policy's module with a number in a custom section: other bytes, the same behaviour.
pub fn variant(name: &str, number: u32) -> Vec<u8> {
    let mut module = builtin::module(name).expect("a standard policy").to_vec();
    // Section 0, sixteen bytes: a name of seven, then eight digits.
    module.extend([0, 16, 7]);
    module.extend(b"variant");
    module.extend(format!("{number:08}").bytes());
    module
}

/// The digest by which decisions and status name a module: lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A standard policy's module that takes long to compile: it carries a core module of so many functions that
/// nobody calls. Other numbers are other bytes, with the same behaviour.
pub fn slow_variant(name: &str, functions: u32) -> Vec<u8> {
    // () -> (): a local i64 that is multiplied, shifted and tested in a loop, many times over.
    let mut body = vec![1, 1, 0x7e];
    for round in 0..16_u8 {
        body.extend([0x03, 0x40, 0x20, 0, 0x42, 7 + round, 0x7e, 0x42, 3, 0x88, 0x22, 0, 0x50, 0x0d, 0, 0x0b]);
    }
    body.push(0x0b);
    let one = [leb(u32::try_from(body.len()).unwrap()), body].concat();
    let code = [leb(functions), one.repeat(usize::try_from(functions).unwrap())].concat();
    let types = [leb(functions), vec![0; usize::try_from(functions).unwrap()]].concat();
    let sections = [section(1, &[1, 0x60, 0, 0]), section(3, &types), section(10, &code)].concat();
    let core = [b"\0asm\x01\0\0\0".to_vec(), sections].concat();
    let mut module = builtin::module(name).expect("a standard policy").to_vec();
    // Section 1 of a component is a core module.
    module.extend(section(1, &core));
    module
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [vec![id], leb(u32::try_from(content.len()).unwrap()), content.to_vec()].concat()
}

fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(number & 0x7f).unwrap();
        number >>= 7;
        if number == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}
