# Two commands matter: `make demo` shows Countersign, `make test` runs what CI runs. `make` lists the rest.
#
# One profile (release), so that tests, demo, benchmarks and lints share what they compile.

SHELL := bash
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo guests bindings test prove fuzz bench lint fmt clippy deny advisories doc

RELEASE := --release --locked
# What `cargo test --workspace` compiles, and the binary that the suites in tests/ start. A narrower selection would turn
# off features of shared dependencies, and each such difference compiles wasmtime again.
TESTED := --workspace --lib --bins --tests --examples
# The interpreters are a workspace of their own; its Cargo.toml says why. Its tests need no optimised build.
TEXT := cd plugins/text &&
# The fuzzer too: it brings C++.
DRIVER := cd fuzz/driver &&
TOOLS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/countersign/tools

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s  %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## builds, then walks through everything with sellers of its own; needs Rust only
	@tests/install rust
	@# Narrower than the tests' selection: a fresh machine compiles nothing that the demo does not run.
	cargo build $(RELEASE) -p countersign
	cargo run --quiet $(RELEASE) -p countersign -- demo --exit

guests: ## builds the same policy in every language: examples/policies/LANGUAGE/policy.wasm
	@tests/install guests
	examples/policies/build

# Committed, because the generator takes minutes to compile: only a change of the contract or of the generator needs this.
WIT_BINDGEN_VERSION := 0.61.1
WIT_BINDGEN := $(TOOLS)/wit-bindgen-cli-$(WIT_BINDGEN_VERSION)/bin/wit-bindgen
GENERATED := $(addprefix sdk/templates/,c/bindings/spend_policy.* go/go.mod go/wit_exports.go go/countersign_policy_*/*)
bindings: $(WIT_BINDGEN) ## generates what policies in C and Go speak the contract with: sdk/templates
	$(WIT_BINDGEN) c wit/v0.1 --world spend-policy --no-object-file --out-dir sdk/templates/c/bindings
	$(WIT_BINDGEN) go wit/v0.1 --world spend-policy --format=false --out-dir sdk/templates/go
	sha256sum wit/v0.1/policy.wit $(GENERATED) >sdk/templates/generated.sha256

$(WIT_BINDGEN):
	env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo install --quiet --locked wit-bindgen-cli --version $(WIT_BINDGEN_VERSION) --no-default-features --features c,go \
	  --root $(TOOLS)/wit-bindgen-cli-$(WIT_BINDGEN_VERSION)

# tests/install answers nothing when all can run, else the arguments that select what can.
test: ## installs what the tests need and runs them all; says what cannot run here, which fails if CI=true
	@set -e; only=$$(tests/install tests); \
	run() { echo "$$*"; "$$@"; }; \
	run cargo build $(RELEASE) $(TESTED); \
	if [ -z "$$only" ] || grep -qx -e --test=guests <<<"$$only"; then run examples/policies/build; fi; \
	run cargo test $(RELEASE) --workspace --no-fail-fast $$only; \
	($(TEXT) run cargo test --locked --workspace --no-fail-fast); \
	if [ -n "$$only" ]; then \
	  run cargo test $(RELEASE) --workspace --no-fail-fast --doc; \
	  echo "Not everything ran: what was skipped is said above, before the build."; \
	fi

prove: ## the long proofs: a thousand crashes, power cuts and more of everything else that the tests do a little of
	@tests/install rust
	cargo build $(RELEASE) $(TESTED)
	COUNTERSIGN_CYCLES=1000 cargo test $(RELEASE) --workspace --test crash
	PROPTEST_CASES=100000 cargo test $(RELEASE) -p countersign-core -p countersign-ledger
	COUNTERSIGN_KILLS=1000 COUNTERSIGN_CRASHES=100 COUNTERSIGN_HISTORIES=200 cargo test $(RELEASE) --workspace --test shared
	COUNTERSIGN_FAULTS=all COUNTERSIGN_IMAGES=1000 cargo test $(RELEASE) --workspace --test disk
	COUNTERSIGN_WINDOWS=50000 cargo test $(RELEASE) --workspace --test linear
	COUNTERSIGN_SEEDS=200000 COUNTERSIGN_CALLS=1000000 cargo test $(RELEASE) --workspace --test simulation

fuzz: ## every reader of foreign bytes under libFuzzer, COUNTERSIGN_FUZZ_SECONDS (600) each; needs a C++ compiler
	@tests/install rust
	fuzz/run

bench: ## measures
	@tests/install rust
	cargo bench --locked --workspace --bench '*'
	@tests/install tests
	cargo build $(RELEASE) $(TESTED)
	$${CARGO_TARGET_DIR:-target}/release/load
	$${CARGO_TARGET_DIR:-target}/release/compare '@x402/fetch=node tests/peers/v2/bench-client.mjs' \
	  'x402 (Python)=tests/peers/mcp/paid/.tools/bin/python tests/peers/mcp/paid/bench_client.py'
	$${CARGO_TARGET_DIR:-target}/release/crowd

lint: fmt deny clippy doc ## format, dependencies, clippy, documentation

fmt:
	cargo fmt --all --check
	$(TEXT) cargo fmt --all --check
	$(DRIVER) cargo fmt --check

clippy:
	@tests/install rust
	cargo clippy $(RELEASE) --workspace --all-targets -- -D warnings
	$(TEXT) cargo clippy --locked --workspace --all-targets -- -D warnings

doc:
	@tests/install rust
	RUSTDOCFLAGS=-Dwarnings cargo doc $(RELEASE) --workspace --no-deps
	$(TEXT) RUSTDOCFLAGS=-Dwarnings cargo doc --locked --workspace --no-deps

DENY_VERSION := 0.20.2
DENY := $(TOOLS)/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

# -D: an exception in deny.toml that is no longer needed must go. -A: but an arrow may be allowed and not used yet.
deny: $(DENY) advisories
	$(DENY) --locked --workspace check -D unnecessary-skip -D unmatched-skip -A unused-wrapper bans licenses sources
	$(TEXT) $(DENY) --locked --workspace check -D unnecessary-skip -D unmatched-skip bans licenses sources
	$(DRIVER) $(DENY) --locked check bans licenses sources

# The advisories are a git repository: fetched, else the copy of the last fetch if it is recent, else not checked.
RUSTSEC := https://github.com/RustSec/advisory-db
ADVISORIES := $(or $(CARGO_HOME),$(HOME)/.cargo)/advisory-dbs
advisories: $(DENY)
	@if curl --silent --fail --max-time 20 --output /dev/null '$(RUSTSEC)/info/refs?service=git-upload-pack'; then \
	  $(DENY) --locked --workspace check advisories; \
	  ($(TEXT) $(DENY) --locked --workspace check advisories); \
	  ($(DRIVER) $(DENY) --locked check advisories); \
	elif find $(ADVISORIES) -name FETCH_HEAD -mtime -30 2>/dev/null | grep -q .; then \
	  echo "advisories: checked with the last fetch, the database cannot be reached"; \
	  $(DENY) --locked --offline --workspace check advisories; \
	  ($(TEXT) $(DENY) --locked --offline --workspace check advisories); \
	  ($(DRIVER) $(DENY) --locked --offline check advisories); \
	else \
	  echo "advisories: not checked, the database could not be fetched"; \
	fi

# Without the optimisation that would take longer than all checks it will ever do.
$(DENY):
	env -u CARGO_TARGET_DIR CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo install --quiet --locked cargo-deny --version $(DENY_VERSION) --root $(TOOLS)/cargo-deny-$(DENY_VERSION)
