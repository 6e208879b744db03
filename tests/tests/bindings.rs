//! The bindings of C and Go are generated and committed, so that a policy in C or Go needs no generator. They are what
//! the generator made of the contract as it is: `make bindings` generates them again and notes the digests.

use std::{collections::BTreeMap, fs, path::Path};

use countersign_tests::modules::sha256;

#[test]
fn what_is_generated_is_of_this_contract_and_untouched() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let noted = fs::read_to_string(root.join("sdk/templates/generated.sha256")).unwrap();
    let noted: BTreeMap<&str, &str> =
        noted.lines().map(|line| line.split_once("  ").unwrap()).map(|(digest, file)| (file, digest)).collect();
    for file in ["wit/v0.1/policy.wit", "sdk/templates/c/bindings/spend_policy.c", "sdk/templates/go/wit_exports.go"] {
        assert!(noted.contains_key(file), "{file} is not noted");
    }
    let changed: Vec<_> = noted
        .iter()
        .filter(|(file, digest)| sha256(&fs::read(root.join(file)).unwrap_or_default()) != **digest)
        .map(|(file, _)| file)
        .collect();
    assert!(changed.is_empty(), "changed since the bindings were generated: {changed:?}; run: make bindings");
}
