//! The bindings of C and Go are generated and committed, so that a policy in C or Go needs no generator. They must be
//! what the generator makes of the contract. After a change of either: `COUNTERSIGN_WRITE=1 cargo test --test bindings`.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test: whatever is not as expected must fail it loudly")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn generate(mut generator: Box<dyn WorldGenerator>) -> Files {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(root().join("wit/v0.1")).unwrap();
    let world = resolve.select_world(&[package], Some("spend-policy")).unwrap();
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files).unwrap();
    files
}

fn assert_committed(files: &Files, folder: &str) {
    let write = env::var_os("COUNTERSIGN_WRITE").is_some();
    for (name, generated) in files.iter() {
        let path = root().join(folder).join(name);
        if write {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, generated).unwrap();
        }
        let committed = fs::read(&path).unwrap_or_default();
        assert!(committed == generated, "{folder}/{name} is not what wit-bindgen makes of wit/v0.1; see this test");
    }
}

#[test]
fn of_c() {
    let options = wit_bindgen_c::Opts { no_object_file: true, ..Default::default() };
    let files = generate(options.build());
    assert_eq!(files.iter().count(), 2, "source and header");
    assert_committed(&files, "sdk/templates/c/bindings");
}

#[test]
fn of_go() {
    // As it comes: gofmt is not everywhere.
    let options = wit_bindgen_go::Opts { format: wit_bindgen_go::Format::False, ..Default::default() };
    assert_committed(&generate(options.build()), "sdk/templates/go");
}
