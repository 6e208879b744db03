//! One binary for every target: `COUNTERSIGN_FUZZ_TARGET` names the property, libFuzzer's own arguments follow. The
//! inputs that have to be made are left in the folder `COUNTERSIGN_FUZZ_SEEDS` before the corpus is read.
#![no_main]

use std::fs;
use std::sync::OnceLock;

use countersign_properties::{Property, named, seeds};
use libfuzzer_sys::fuzz_target;

static PROPERTY: OnceLock<Property> = OnceLock::new();

fn choose() {
    let name = std::env::var("COUNTERSIGN_FUZZ_TARGET").unwrap_or_default();
    let property = named(&name).unwrap_or_else(|| panic!("COUNTERSIGN_FUZZ_TARGET: there is no target `{name}`"));
    if let Some(folder) = std::env::var_os("COUNTERSIGN_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        for (n, seed) in seeds(&name).iter().enumerate() {
            fs::write(folder.join(format!("seed-{n}")), seed).expect("COUNTERSIGN_FUZZ_SEEDS: a folder to write to");
        }
    }
    PROPERTY.get_or_init(|| property);
}

fuzz_target!(init: choose(), |bytes: &[u8]| if let Some(property) = PROPERTY.get() {
    property(bytes);
});
