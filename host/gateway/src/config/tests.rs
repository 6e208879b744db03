use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use countersign_core::money::Micros;
use countersign_core::spend::{Commitment, Principal};
use countersign_core::time::Timestamp;
use countersign_core::verdict::Window;
use countersign_core::x402::Quote;

use super::*;

const TOKEN: &str = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08";
const OTHER_TOKEN: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

/// Every key of the contract.
fn full() -> String {
    format!(
        r#"
[gateway]
listen = "127.0.0.1:8402"
admin  = "127.0.0.1:8403"
currency = "USD"
admin-hosts = ["gateway.internal:8443"]

[ledger]
url = "sqlite:countersign.db"
log-key = "keys/log.key"
anchor = "/mnt/other/anchor"

[egress]
allow-private = ["127.0.0.1:40201"]
ports = [8443]
roots = "roots.pem"
answer-timeout = "20s"

[proxy]
intercept = ["api.example.com"]
max-replay-body = "1MiB"
ca = "keys/ca.key"
idle = "2m"
longest = "1h"
tunnels-per-agent = 8

[responses]
keep = "24h"
max-bytes = 1048576

[approvals]
quorum = 1
expires-in-seconds = 3600
policy-quorum = 2

[limits]
unresolved-per-seller = 3
unresolved-per-payee = 3
unresolved-per-agent = 10
reviews-per-agent = 5
purchases-per-agent-per-minute = 600
calls = 4096
calls-per-agent = 1000

[asset.usdc-base-sepolia]
network = "eip155:84532"
address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e"
symbol = "USDC"
decimals = 6
eip712 = {{ name = "USDC", version = "2" }}
price = "1.00"

[network."eip155:84532"]
rpc = "http://127.0.0.1:40245"
finality-blocks = 12

[wallet.research]
kind = "keystore"
path = "research-wallet.json"
passphrase = {{ env = "WALLET_PASSPHRASE" }}
networks = ["eip155:84532"]
daily-limit = "100.00"

[policy.vendors]
module = "builtin:vendor-allowlist"
sha256 = "{TOKEN}"
mode = "enforce"
deadline-ms = 60
claims = true
tell-agent = true
cases = "rules/vendors.toml"
[policy.vendors.settings]
hosts = ["api.example.com", "*.data.example", "localhost:*"]

[policy.caps]
module = "modules/caps.wasm"
[policy.caps.settings]
per-payment = "1.00"
nested = {{ b = [1, true], a = -2 }}

[budget."workspace/research"]
when = {{ workspace = "research" }}
per = "month"
timezone = "Europe/Berlin"
limit = "500.00"
alert = "400.00"
review = "450.00"

[[mandate]]
name = "research"
when = {{ workspace = "research", role = ["analyst", "buyer"] }}
wallet = "research"
policies = ["vendors", "caps"]
commitments = ["fixed", "ceiling"]
max-validity-seconds = 300
require-session = true
doors = ["fetch", "sign"]
unobserved = true

[agent.scout]
token-sha256 = "{TOKEN}"
workspace = "Research"
user = "alice"
roles = ["analyst"]

[operator.alice]
token-sha256 = "{OTHER_TOKEN}"
roles = ["viewer", "approver", "policy-admin", "session-admin", "suspender"]
groups = ["finance"]
"#
    )
}

fn environment() -> Environment {
    [("WALLET_PASSPHRASE", "open sesame"), ("EMPTY", ""), ("RPC_URL", "https://rpc.example/key")].into_iter().collect()
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/srv/gateway"), &environment())
}

/// The full configuration with one edit.
fn edited(from: &str, to: &str) -> Result<Config, ConfigError> {
    let text = full();
    assert!(text.contains(from), "{from:?} is not in the text");
    parse(&text.replacen(from, to, 1))
}

/// The line of the full configuration that starts with this, from 1.
fn line_of(start: &str) -> u32 {
    let lines = full();
    let found = lines.lines().zip(1..).find(|(line, _)| line.starts_with(start));
    found.unwrap().1
}

/// What a mistake says in one line.
fn told(result: Result<Config, ConfigError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(e) => format!("{}: {} ({})", e.key, e.message, e.hint.unwrap_or_default()),
    }
}

#[test]
fn every_key_of_the_contract_is_read() {
    let config = parse(&full()).unwrap();
    assert_eq!(config.gateway.listen, "127.0.0.1:8402".parse().unwrap());
    assert_eq!(config.gateway.admin_hosts, BTreeSet::from(["gateway.internal:8443".to_owned()]));
    assert_eq!(
        config.ledger,
        Ledger {
            store: Store::Sqlite { path: "/srv/gateway/countersign.db".into() },
            log_key: "/srv/gateway/keys/log.key".into(),
            anchor: Some("/mnt/other/anchor".into())
        }
    );
    assert!(config.egress.allows("127.0.0.1", "127.0.0.1".parse().unwrap(), 40201));
    assert!(config.proxy.intercepts("api.example.com", 443) && !config.proxy.intercepts("example.com", 443));
    assert_eq!((config.proxy.max_replay_body, config.proxy.tunnels_per_agent), (1 << 20, 8));
    assert_eq!((config.proxy.idle_ms, config.proxy.longest_ms), (120_000, 3_600_000));
    assert_eq!(config.proxy.ca, Path::new("/srv/gateway/keys/ca.key"));
    assert_eq!(config.egress.roots.as_deref(), Some(Path::new("/srv/gateway/roots.pem")));
    assert_eq!(config.egress.answer_ms, Some(20_000));
    assert_eq!(config.responses, Responses { keep_ms: 86_400_000, max_bytes: 1 << 20 });
    assert_eq!(config.approvals, Approvals { quorum: 1, expires_in_seconds: 3600, webhook: None, policy_quorum: 2 });
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.assets, AssetTable::builtin(), "the override says what is built in");
    let sepolia: Network = "eip155:84532".parse().unwrap();
    let network = &config.networks[&sepolia];
    assert_eq!((&*network.rpc, network.finality_blocks), (&["http://127.0.0.1:40245".to_owned()][..], Some(12)));

    let wallet = &config.wallets["research"];
    let passphrase = Secret::new("open sesame");
    let path = "/srv/gateway/research-wallet.json".into();
    assert_eq!(wallet.kind, WalletKind::Keystore { path, passphrase });
    assert_eq!(
        (wallet.networks.clone(), wallet.daily_limit),
        (BTreeSet::from([sepolia]), Micros::parse("100").unwrap())
    );
    assert_eq!(config.secret_env, BTreeSet::from(["WALLET_PASSPHRASE".to_owned()]));

    let vendors = &config.policies["vendors"];
    assert_eq!(vendors.module, Module::Builtin("vendor-allowlist".into()));
    assert_eq!(vendors.sha256, Some(TOKEN.to_ascii_lowercase()));
    assert_eq!(
        (vendors.mode, vendors.deadline_ms, vendors.claims, vendors.tell_agent),
        (Mode::Enforce, 60, true, true)
    );
    assert_eq!(vendors.settings, r#"{"hosts":["api.example.com","*.data.example","localhost:*"]}"#);
    assert_eq!(vendors.case_files(), [Path::new("/srv/gateway/rules/vendors.toml")]);
    let caps = &config.policies["caps"];
    let beside = ["/srv/gateway/modules/caps.cases.json", "/srv/gateway/modules/caps.cases.toml"];
    assert_eq!(caps.case_files(), beside.map(Path::new));
    assert_eq!(caps.module, Module::File("/srv/gateway/modules/caps.wasm".into()));
    assert_eq!((caps.mode, caps.deadline_ms, caps.claims, caps.tell_agent), (Mode::Enforce, 50, false, false));
    assert_eq!(caps.settings, r#"{"nested":{"a":-2,"b":[1,true]},"per-payment":"1.00"}"#);

    let budget = &config.budgets[0];
    assert_eq!((budget.name.as_str(), &budget.window), ("workspace/research", &Window::Month("Europe/Berlin".into())));
    assert_eq!((budget.limit, budget.alert), (Micros::parse("500").unwrap(), Some(Micros::parse("400").unwrap())));

    let mandate = &config.mandates[0];
    assert_eq!(mandate.policies, ["vendors", "caps"]);
    assert_eq!(mandate.commitments, BTreeSet::from([Commitment::Fixed, Commitment::Ceiling]));
    assert_eq!(mandate.doors, BTreeSet::from([Door::Fetch, Door::Sign]));
    assert!(mandate.require_session && mandate.unobserved);
    let principal =
        Principal { workspace: Some("research".into()), roles: vec!["buyer".into()], ..Principal::default() };
    assert!(mandate.when.matches(&principal));

    let scout = &config.agents["scout"];
    assert_eq!(
        (scout.token_sha256.as_deref(), scout.workspace.as_deref()),
        (Some(&*TOKEN.to_ascii_lowercase()), Some("research"))
    );
    let alice = &config.operators["alice"];
    assert_eq!(alice.roles, OperatorRole::ALL.iter().map(|(_, role)| *role).collect());
    assert_eq!(config.warnings, Vec::<String>::new());
    assert!(!format!("{config:?}").contains("sesame"));
}

#[test]
fn nothing_is_a_configuration_that_buys_nothing() {
    let config = parse("").unwrap();
    assert_eq!(config.gateway.admin, "127.0.0.1:8403".parse().unwrap());
    assert_eq!((config.gateway.currency.as_str(), config.responses.keep_ms), ("USD", 86_400_000));
    assert_eq!(config.ledger.log_key, Path::new("/srv/gateway/countersign.db.log-key"));
    assert_eq!(config.ledger.anchor, None);
    assert_eq!(config.warnings, ["there is no [[mandate]], so every purchase is denied"]);
    let mandate = "[wallet.w]\nkind='key'\nkey={env='WALLET_PASSPHRASE'}\nnetworks=['eip155:8453']\ndaily-limit='1'\n\
        [policy.p]\nmodule='builtin:x'\n[[mandate]]\nname='m'\nwhen={}\nwallet='w'\npolicies=['p']\n";
    let mandate = &parse(mandate).unwrap().mandates[0];
    assert_eq!(mandate.commitments, BTreeSet::from([Commitment::Fixed]));
    assert_eq!(mandate.doors, BTreeSet::from([Door::Fetch, Door::Proxy, Door::Mcp]));
    assert_eq!((mandate.max_validity_seconds, mandate.require_session, mandate.unobserved), (300, false, false));
    assert_eq!(mandate.when, When::default());
}

#[test]
fn mistakes_say_what_where_and_what_to_do() {
    let error = edited("daily-limit = \"100.00\"", "  daily-limt = \"100.00\"").unwrap_err();
    assert_eq!(error.line, line_of("daily-limit"));
    assert_eq!(
        error.to_string(),
        "/srv/gateway/countersign.toml:62:3\n  \
         wallet.research.daily-limt: there is no key `daily-limt` in [wallet.research]\n  \
         hint: did you mean `daily-limit`?"
    );
    let error = edited("[limits]", "[limits]\nx = = 1").unwrap_err();
    assert_eq!((error.line, error.column, error.key.as_str()), (line_of("[limits]") + 1, 5, ""));
    assert!(error.message.starts_with("not valid TOML: "), "{error}");
    let error = edited("wallet = \"research\"", "wallet = \"reserch\"").unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (line_of("wallet = "), "mandate[0].wallet"));
    assert_eq!(error.hint.as_deref(), Some("did you mean `research`?"));
    let config = parse(&full()).unwrap();
    let error = config.error_at("policy.caps.settings", "refused");
    assert_eq!((error.line, error.column), (line_of("[policy.caps.settings]"), 14));
}

#[test]
fn unknown_keys_are_refused_in_every_table() {
    let check = |table: &str, key: &str, want: &str| {
        let got = told(edited(table, &format!("{table}\n{key} = 1")));
        assert!(got.contains(want), "{key}: {got}");
    };
    check(
        "currency = \"USD\"",
        "listn",
        "gateway.listn: there is no key `listn` in [gateway] (did you mean `listen`?)",
    );
    check("[ledger]", "uri", "did you mean `url`?");
    check("[egress]", "allow_private", "did you mean `allow-private`?");
    check("[proxy]", "frobnicate", "one of `intercept`, `max-replay-body`");
    check("[responses]", "keeps", "did you mean `keep`?");
    check("[approvals]", "Quorum", "did you mean `quorum`?");
    check("[limits]", "x", "limits.x");
    check("[asset.usdc-base-sepolia]", "nework", "did you mean `network`?");
    check("[network.\"eip155:84532\"]", "rcp", "network.\"eip155:84532\".rcp");
    check("[wallet.research]", "pathh", "did you mean `path`?");
    check("[policy.vendors]", "setings", "did you mean `settings`?");
    check("[budget.\"workspace/research\"]", "perr", "budget.\"workspace/research\".perr");
    check("[[mandate]]", "polices", "mandate[0].polices");
    check("[agent.scout]", "token", "agent.scout.token");
    check("[operator.alice]", "role", "did you mean `roles`?");
    assert!(
        told(parse("[walet.x]\n"))
            .contains("walet: there is no key `walet` at the top of the file (did you mean `wallet`?)")
    );
    assert!(
        told(edited("{ workspace = \"research\" }", "{ workspce = \"research\" }"))
            .contains("did you mean `workspace`?")
    );
    assert!(told(edited("version = \"2\"", "version = \"2\", salt = \"3\"")).contains("eip712.salt"));
}

#[test]
fn values_are_checked_where_they_stand() {
    let check = |from: &str, to: &str, want: &str| {
        let got = told(edited(from, to));
        assert!(got.contains(want), "{to}: {got}");
    };
    let listen = "listen = \"127.0.0.1:8402\"";
    check(listen, "listen = \"0.0.0.0:8402\"", "clear text (add tls");
    check(listen, "listen = \"[::]:8402\"", "clear text");
    check(listen, "listen = \"[::1]:8402\"", "ok");
    check(listen, "listen = \"0.0.0.0:8402\"\ntls = { cert = \"c.pem\", key = \"k.pem\" }", "ok");
    check(listen, "listen = \"0.0.0.0:8402\"\ntls = { cert = \"c.pem\" }", "gateway.tls.key: this key is required");
    check(listen, "listen = \"localhost:8402\"", "not an IP address and a port");
    check(listen, "listen = \"127.0.0.1:8403\"", "the same as listen");
    check("currency = \"USD\"", "currency = \"usd\"", "three capital letters");
    check("gateway.internal:8443", "*.internal", "expected a host");
    check("sqlite:countersign.db", "postgres://db/x", "a user");
    check("sqlite:countersign.db", "postgres://me@db", "a database");
    check("sqlite:countersign.db", "postgres://me@db/x", "`path` is missing");
    check("sqlite:countersign.db", "sqlite::memory:", "forget");
    check("sqlite:countersign.db", "sqlite:", "not a ledger");
    check("sqlite:countersign.db", "countersign.db", "not a ledger");
    check("127.0.0.1:40201\"]", "127.0.0.1/8\"]", "is not a place");
    check("[8443]", "[0]", "egress.ports[0]: expected a number from 1 to 65535");
    check("intercept = [\"api.example.com\"]", "intercept = [\"https://x\"]", "host pattern");
    check("\"1MiB\"", "\"1MB\"", "not a size");
    check("\"1MiB\"", "\"1GiB\"", "expected 0 to 67108864 bytes");
    check("\"24h\"", "\"1 day\"", "not a span of time");
    check("\"24h\"", "\"91d\"", "90 days");
    check("\"24h\"", "24", "a number and a unit");
    check("\"24h\"", "\"0\"", "ok");
    check("quorum = 1", "quorum = 0", "from 1 to 255");
    check("expires-in-seconds = 3600", "expires-in-seconds = 86401", "to 86400");
    check("reviews-per-agent = 5", "reviews-per-agent = -5", "expected a number");
    check("reviews-per-agent = 5", "reviews-per-agent = \"5\"", "not a string");
    check("reviews-per-agent = 5", "reviews-per-agent = 0x05", "ok");
    check("eip155:84532\"\naddress", "base-sepolia\"\naddress", "write \"eip155:84532\"");
    check("7e\"\nsymbol", "7f\"\nsymbol", "checksum");
    check("decimals = 6", "decimals = 25", "from 0 to 24");
    check("price = \"1.00\"", "price = \"0\"", "price must be above zero");
    check("price = \"1.00\"", "price = 1.0", "in quotes");
    check("price = \"1.00\"", "", "ok");
    check("[asset.usdc-base-sepolia]", "[asset.mine]", "ok");
    check("7e\"\nsymbol = \"USDC\"", "00\"\nsymbol = \"USDC\"", "checksum");
    check("\"http://127.0.0.1:40245\"", "\"http://rpc.example\"", "must be https");
    check("\"http://127.0.0.1:40245\"", "[]", "1 to 8 endpoints");
    check("\"http://127.0.0.1:40245\"", "[\"https://a.example\", \"http://[::1]:1\"]", "ok");
    check("\"http://127.0.0.1:40245\"", "{ env = \"RPC_URL\" }", "ok");
    check("\"http://127.0.0.1:40245\"", "\"ws://127.0.0.1\"", "must be https");
    check("daily-limit = \"100.00\"", "", "daily-limit: this key is required (the most this wallet may pay");
    check("daily-limit = \"100.00\"", "daily-limit = 100", "write amounts in quotes");
    check("networks = [\"eip155:84532\"]", "networks = []", "can pay nothing");
    check("networks = [\"eip155:84532\"]", "", "wallet.research.networks: this key is required");
    for kind in ["cdp", "privy", "aws-kms", "gcp-kms"] {
        let want =
            format!("\"{kind}\" are not supported by this version (supported kinds are \"keystore\" and \"key\")");
        check("kind = \"keystore\"", &format!("kind = \"{kind}\"\nsecret = 1"), &want);
    }
    check("kind = \"keystore\"", "kind = \"ledger\"", "is not a kind of wallet");
    check("kind = \"keystore\"", "kind = \"key\"", "there is no key `path`");
    check("kind = \"keystore\"", "", "kind: this key is required");
    check("\"builtin:vendor-allowlist\"", "\"builtin:\"", "needs a name");
    check("\"builtin:vendor-allowlist\"", "\"\"", "expected a path");
    check(
        "[policy.caps]",
        "[policy.Host]\nmodule = \"x\"\n[policy.caps]",
        "policy.Host: this name is the gateway's own",
    );
    check("mode = \"enforce\"", "mode = \"monitr\"", "did you mean `monitor`?");
    check("deadline-ms = 60", "deadline-ms = 5001", "from 1 to 5000");
    check("claims = true", "claims = 1", "expected `true` or `false`, not an integer");
    check("per-payment = \"1.00\"", "per-payment = 1.00", "write it in quotes: \"1.00\"");
    check("per-payment = \"1.00\"", "since = 2026-11-22", "write it in quotes: \"2026-11-22\"");
    check("per-payment = \"1.00\"", "n = 9007199254740992", "not exact in every language");
    check("[budget.\"workspace/research\"]", "[budget.\"workspace//x\"]", "not a budget's name");
    check("[budget.\"workspace/research\"]", "[budget.\"wallet/research\"]", "the gateway's own");
    check("when = { workspace = \"research\" }\nper", "per", "when: this key is required");
    check("per = \"month\"", "per = \"week\"", "is not one of the choices");
    check("per = \"month\"", "per = \"hour\"", "midnight");
    check("Europe/Berlin", "Europe/Berlim", "not an IANA time zone");
    check("alert = \"400.00\"", "alert = \"500.01\"", "never be reached");
    check("workspace = \"research\" }\nper", "workspace = [] }\nper", "matches nobody");
    check("policies = [\"vendors\", \"caps\"]", "policies = []", "refuses everything");
    check("policies = [\"vendors\", \"caps\"]", "policies = [\"caps\", \"caps\"]", "named twice");
    check(
        "policies = [\"vendors\", \"caps\"]",
        "policies = [\"cap\"]",
        "there is no [policy.cap] (did you mean `caps`?)",
    );
    check("commitments = [\"fixed\", \"ceiling\"]", "commitments = []", "refuses everything");
    check("commitments = [\"fixed\", \"ceiling\"]", "commitments = [\"fix\"]", "did you mean `fixed`?");
    check("max-validity-seconds = 300", "max-validity-seconds = 3601", "from 10 to 3600");
    check("doors = [\"fetch\", \"sign\"]", "doors = [\"signer\"]", "did you mean `sign`?");
    check("[[mandate]]", "[mandate]", "expected a list in [ ], not a table (write [[mandate]] in double brackets)");
    check("workspace = \"Research\"", "workspace = \"re search\"", "is not a name");
    check(
        &format!("[agent.scout]\ntoken-sha256 = \"{TOKEN}\""),
        "[agent.scout]\ntoken-sha256 = \"…\"",
        "agents create",
    );
    check("[agent.scout]\n", "[agent.Scout]\ntoken-sha256 = \"\"\n[agent.scout]\n", "expected a SHA-256");
    check(OTHER_TOKEN, &TOKEN.to_ascii_lowercase(), "operator.alice.token-sha256: the same token as agent.scout");
    check("\"viewer\", ", "\"view\", ", "did you mean `viewer`?");
    check("[agent.scout]", "[agent.\"a b\"]", "is not a name");
}

#[test]
fn one_name_is_configured_once() {
    let text = format!("[agent.scout]\ntoken-sha256='{TOKEN}'\n[agent.Scout]\ntoken-sha256='{OTHER_TOKEN}'\n");
    assert!(told(parse(&text)).contains("agent.Scout: `scout` is configured twice"));
    let twice = full() + "[[mandate]]\nname = \"RESEARCH\"\nwhen = {}\nwallet = \"research\"\npolicies = [\"caps\"]\n";
    assert!(told(parse(&twice)).contains("mandate[1].name: another mandate is named `research`"));
    let same = "[asset.a]\nnetwork='eip155:8453'\naddress='0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'\n\
        [asset.b]\nnetwork='eip155:8453'\naddress='0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'\n";
    assert!(told(parse(same)).contains("asset.b: the same network and address as asset.a"));
}

#[test]
fn new_assets_must_say_everything() {
    let asset = "[asset.eurx]\nnetwork='eip155:8453'\naddress='0x0000000000000000000000000000000000000007'\n\
        symbol='EURX'\ndecimals=6\neip712={name='EURX',version='1'}\nprice='1.08'\n\
        price-as-of='2026-11-22T12:00:00Z'\nprice-max-age='24h'\nprice-margin='2.5%'\n";
    let config = parse(asset).unwrap();
    let base: Network = "eip155:8453".parse().unwrap();
    let found = config.assets.iter().find(|a| a.id == "eurx").unwrap();
    assert_eq!((found.network, found.price), (base, Micros::parse("1.08").unwrap()));
    for key in ["network", "address", "symbol", "decimals", "eip712", "price"] {
        let text: String =
            asset.lines().filter(|line| !line.starts_with(key)).map(|line| format!("{line}\n")).collect();
        let got = told(parse(&text));
        assert!(got.contains(&format!("asset.eurx.{key}: this key is required")), "{got}");
    }
    let moving = "price='0.99'\nprice-as-of='2026-11-22T12:00:00Z'\nprice-max-age='24h'\nprice-margin='2.5%'\n";
    let repriced = parse(&format!("[asset.usdc-base]\n{moving}")).unwrap();
    let usdc = repriced.assets.iter().find(|a| a.id == "usdc-base").unwrap();
    assert_eq!((usdc.price, usdc.symbol.as_str()), (Micros::parse("0.99").unwrap(), "USDC"));
    let as_of = Timestamp::parse("2026-11-22T12:00:00Z").unwrap();
    assert_eq!(usdc.quote, Some(Quote { as_of, max_age: 86_400, margin_ppm: 25_000 }));
    assert_eq!(repriced.assets.iter().count(), AssetTable::builtin().iter().count());
    for (from, to, want) in [
        ("price-as-of='2026-11-22T12:00:00Z'\n", "", "a price that is not 1 moves"),
        ("price-max-age='24h'\n", "", "a price that is not 1 moves"),
        ("price-margin='2.5%'\n", "", "a price that is not 1 moves"),
        ("12:00:00Z", "", "is not a moment"),
        ("'24h'", "'32d'", "1s to 31d"),
        ("'2.5%'", "'2.5'", "not a margin"),
        ("'2.5%'", "'51%'", "not a margin"),
        ("'2.5%'", "'0.00001%'", "not a margin"),
    ] {
        let told = told(parse(&format!("[asset.usdc-base]\n{}", moving.replace(from, to))));
        assert!(told.contains(want), "{to}: {told}");
    }
}

#[test]
fn dollars_are_not_worth_one_of_another_currency() {
    let euro = |assets: &str| parse(&format!("[gateway]\ncurrency='EUR'\n{assets}"));
    assert_eq!(euro("").unwrap().assets, AssetTable::empty());
    let told = told(euro("[asset.usdc-base]\n"));
    assert!(told.contains("asset.usdc-base.price: this key is required"), "{told}");
    let moving = "price='0.92'\nprice-as-of='2026-11-22T12:00:00Z'\nprice-max-age='24h'\nprice-margin='2%'\n";
    let priced = euro(&format!("[asset.usdc-base]\n{moving}")).unwrap();
    let ids: Vec<_> = priced.assets.iter().map(|a| a.id.as_str()).collect();
    assert_eq!(ids, ["usdc-base"], "one was priced");
}

#[test]
fn warnings_name_what_is_probably_not_meant() {
    let check = |from: &str, to: &str, want: &[&str]| {
        let warnings = edited(from, to).unwrap().warnings;
        assert_eq!(warnings.len(), want.len(), "{warnings:?}");
        for (warning, want) in warnings.iter().zip(want) {
            assert!(warning.contains(want), "{warning}");
        }
    };
    check(
        "networks = [\"eip155:84532\"]",
        "networks = [\"eip155:84532\", \"eip155:99\"]",
        &["no asset is known on eip155:99"],
    );
    check("doors = [\"fetch\", \"sign\"]", "doors = [\"fetch\"]", &["`unobserved` does nothing"]);
    check("policies = [\"vendors\", \"caps\"]", "policies = [\"vendors\"]", &["policy.caps: no mandate uses it"]);
    let key = "kind = \"key\"\nkey = { env = \"WALLET_PASSPHRASE\" }";
    let keystore = "kind = \"keystore\"\npath = \"research-wallet.json\"\npassphrase = { env = \"WALLET_PASSPHRASE\" }";
    check(keystore, key, &["for development"]);
    let monitor = full().replace("[policy.caps.settings]", "mode = \"monitor\"\n[policy.caps.settings]");
    let monitor = parse(&monitor.replace("mode = \"enforce\"", "mode = \"monitor\"")).unwrap();
    assert_eq!(monitor.warnings, ["mandate research: all its policies only monitor, so every purchase is denied"]);
}

#[test]
fn builtins_are_checked_by_whoever_has_them() {
    let config = parse(&full()).unwrap();
    assert_eq!(config.check_builtins(&["vendor-allowlist"]), Ok(()));
    let error = config.check_builtins(&["vendor-allow-list", "spend-caps"]).unwrap_err();
    assert_eq!((error.line, error.key.as_str()), (line_of("module = \"builtin"), "policy.vendors.module"));
    assert_eq!(error.hint.as_deref(), Some("did you mean `vendor-allow-list`?"));
}

#[test]
fn secrets_are_only_referred_to() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pass");
    let load = |value: &str| {
        let text = full().replace("{ env = \"WALLET_PASSPHRASE\" }", value);
        Config::parse(&text, dir.path(), &environment())
    };
    let check = |value: &str, want: Result<&str, &str>| match (load(value), want) {
        (Ok(config), Ok(want)) => match &config.wallets["research"].kind {
            WalletKind::Keystore { passphrase, .. } => assert_eq!(passphrase.expose(), want),
            other => panic!("{other:?}"),
        },
        (Err(e), Err(want)) => {
            let text = e.to_string();
            assert!(text.contains(want), "{value}: {text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        (got, want) => panic!("{value}: {got:?}, not {want:?}"),
    };
    check("{ env = \"WALLET_PASSPHRASE\" }", Ok("open sesame"));
    check(
        "\"hunter2\"",
        Err("a secret must not be written here\n  hint: write { env = \"NAME\" } or { file = \"path\" }"),
    );
    check("{ env = \"NOT_SET\" }", Err("NOT_SET is not set"));
    check("{ env = \"EMPTY\" }", Err("EMPTY is empty"));
    check("{ value = \"hunter2\" }", Err("no key `value`"));
    check("{ env = \"A\", file = \"b\" }", Err("exactly one"));
    check("{}", Err("exactly one"));
    check("{ file = \"pass\" }", Err("does not exist"));
    for (content, want) in [("hunter2\n", "hunter2"), ("hunter2\r\n", "hunter2"), (" a \n\n", " a \n"), ("b", "b")] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        check("{ file = \"pass\" }", Ok(want));
    }
    fs::write(&file, "\n").unwrap();
    check("{ file = \"pass\" }", Err("is empty"));
    fs::write(&file, "hunter2\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    check("{ file = \"pass\" }", Err("other users can read it\n  hint: run: chmod 600"));
}

#[test]
fn a_file_that_others_may_write_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("countersign.toml");
    let missing = Config::load(&path, &environment()).unwrap_err();
    assert!(missing.to_string().contains("no such file") && missing.hint.is_some());
    fs::write(&path, full()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let config = Config::load(&path, &environment()).unwrap();
    assert_eq!(config.base_dir, dir.path());
    let looked = Config::inspect(&path).unwrap();
    assert!(looked.needs_restart(&config).contains(&"wallet.research.passphrase".to_owned()), "it has no secrets");

    let absent = config.check_paths().unwrap_err();
    assert_eq!(absent.key, "wallet.research.path");
    fs::write(dir.path().join("research-wallet.json"), "{}").unwrap();
    let open = config.check_paths().unwrap_err();
    assert!(open.hint.unwrap_or_default().starts_with("run: chmod 600 "));

    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    let error = Config::load(&path, &environment()).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
}

#[test]
fn edits_to_what_cannot_change_ask_for_a_restart() {
    let old = parse(&full()).unwrap();
    let check = |from: &str, to: &str, want: &[&str]| {
        assert_eq!(old.needs_restart(&edited(from, to).unwrap()), want, "{to}");
    };
    check("[limits]", "[limits]", &[]);
    check("quorum = 1", "quorum = 2", &[]);
    check("per-payment = \"1.00\"", "per-payment = \"2.00\"", &[]);
    check("127.0.0.1:8402", "127.0.0.1:8404", &["gateway.listen"]);
    check(
        "currency = \"USD\"",
        "currency = \"EUR\"\ntls = { cert = \"c\", key = \"k\" }",
        &["gateway.currency", "gateway.tls"],
    );
    // The folder for compiled policies is beside the ledger unless the file says otherwise.
    check("sqlite:countersign.db", "sqlite:/var/lib/other.db", &["ledger.url", "engine"]);
    check("[limits]", "[engine]\ninstances = 7\n[limits]", &["engine"]);
    check("roots.pem", "other.pem", &["egress.roots"]);
    check("keys/ca.key", "keys/other.key", &["proxy.ca"]);
    check("idle = \"2m\"", "idle = \"3m\"", &[]);
    check("daily-limit = \"100.00\"", "daily-limit = \"200.00\"", &["wallet.research.daily-limit"]);
    check("{ env = \"WALLET_PASSPHRASE\" }", "{ env = \"RPC_URL\" }", &["wallet.research.passphrase"]);
    let another = "[wallet.b]\nkind='key'\nkey={env='RPC_URL'}\nnetworks=['eip155:1']\ndaily-limit='1'\n[agent.scout]";
    check("[agent.scout]", another, &["wallet.b"]);
    let with_b = edited("[agent.scout]", another).unwrap();
    assert_eq!(with_b.needs_restart(&old), ["wallet.b"]);
}

#[test]
fn a_restriction_holds_whatever_else_the_edit_says() {
    let old = parse(&full()).unwrap();
    let new_token = "a".repeat(64);
    let edits = [
        ("127.0.0.1:8402", "127.0.0.1:9999"),
        ("[\"127.0.0.1:40201\"]", "[\"10.0.0.0/8\"]"),
        ("ports = [8443]", "ports = [9443]"),
        ("quorum = 1", "quorum = 2"),
        ("expires-in-seconds = 3600", "expires-in-seconds = 7200"),
        ("unresolved-per-seller = 3", "unresolved-per-seller = 1"),
        ("unresolved-per-payee = 3", "unresolved-per-payee = 9"),
        ("daily-limit = \"100.00\"", "daily-limit = \"50.00\""),
        ("networks = [\"eip155:84532\"]", "networks = [\"eip155:8453\"]"),
        ("[network.\"eip155:84532\"]", "[network.\"eip155:8453\"]"),
        ("per-payment = \"1.00\"", "per-payment = \"9.00\""),
        ("limit = \"500.00\"", "limit = \"900.00\""),
        ("require-session = true", "require-session = false"),
        (OTHER_TOKEN, new_token.as_str()),
        ("\"policy-admin\", \"session-admin\", ", ""),
        ("groups = [\"finance\"]", "groups = [\"board\"]"),
        ("workspace = \"Research\"", "workspace = \"sales\""),
        ("roles = [\"analyst\"]", "roles = [\"analyst\", \"buyer\"]"),
    ];
    let text = edits.iter().fold(full(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    });
    let extra = format!("\n[agent.intruder]\ntoken-sha256 = '{}'\n", "b".repeat(64));
    let new = parse(&(text + &extra)).unwrap();
    let held = old.restrict(&new);

    assert_eq!(held.gateway, old.gateway);
    assert_eq!((held.egress.allow_private.len(), held.egress.ports.len()), (0, 0));
    assert_eq!(held.approvals, Approvals { quorum: 2, expires_in_seconds: 3600, webhook: None, policy_quorum: 2 });
    assert_eq!((held.limits.unresolved_per_seller, held.limits.unresolved_per_payee), (1, 3));
    assert!(held.networks.is_empty());
    let wallet = &held.wallets["research"];
    assert_eq!((wallet.networks.len(), wallet.daily_limit), (0, Micros::parse("50").unwrap()));
    assert_eq!((&held.policies, &held.mandates, &held.budgets), (&old.policies, &old.mandates, &old.budgets));
    let scout = &held.agents["scout"];
    assert_eq!((scout.workspace.as_deref(), &scout.roles), (Some("research"), &BTreeSet::from(["analyst".to_owned()])));
    assert_eq!(held.agents.len(), 1, "nobody is added");
    let alice = &held.operators["alice"];
    assert_eq!(alice.token_sha256, new_token);
    assert_eq!(alice.roles, BTreeSet::from([OperatorRole::Viewer, OperatorRole::Approver, OperatorRole::Suspender]));
    assert!(alice.groups.is_empty());

    let nothing = old.restrict(&parse("").unwrap());
    assert!(nothing.agents.is_empty() && nothing.operators.is_empty());
    assert!(nothing.wallets["research"].networks.is_empty(), "a wallet that is gone signs nothing");
    let same = old.restrict(&old);
    assert_eq!((same.agents, same.operators, same.egress), (old.agents, old.operators, old.egress));
}

#[test]
fn rule_15_what_the_operator_knows_about_vendors_is_read_strictly() {
    use countersign_core::web::Scheme;
    let with = |text: &str| parse(&format!("{}\n{text}", full()));
    let vendors = "[vendor.quotes]\nhosts = [\"api.example.com\", \"*.data.example\"]\n\
                   facts = { data-class = \"public\", category = \"market-data\" }\n\
                   [vendor.rest]\nhosts = [\"*.example\"]\nfacts = { category = \"other\" }";
    let config = with(vendors).unwrap();
    let of = |host: &str, port| {
        let found = config.vendors.iter().find(|v| v.matches(Scheme::Https, host, port));
        found.map(|v| v.facts.iter().map(|f| format!("{}={}", f.name, f.value)).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(of("api.example.com", 443).as_deref(), Some("category=market-data data-class=public"));
    assert_eq!(of("api.example.com", 8443), None);
    assert_eq!(of("a.data.example", 443).as_deref(), Some("category=market-data data-class=public"), "the first match");
    assert_eq!(of("b.example", 443).as_deref(), Some("category=other"));
    let refused = |key: &str, facts: &str| {
        let hosts = if key == "hosts" { "" } else { "hosts = [\"a.example\"]\n" };
        told(with(&format!("[vendor.x]\n{hosts}{facts}")))
    };
    for name in ["door", "mandate", "approved-value", "agent-judged", "agent-x", "mcp-tool"] {
        let said = refused("", &format!("facts = {{ {name} = \"x\" }}"));
        assert!(said.contains(name) && said.contains("the gateway itself states"), "{said}");
    }
    for (facts, what) in [
        ("facts = { Category = \"x\" }", "is not a fact's name"),
        ("facts = { category = 1 }", "expected text in quotes"),
        ("facts = { category = \"\" }", "expected 1 to 128 bytes"),
        ("facts = \"x\"", "expected a table"),
        ("fact = {}", "did you mean `facts`?"),
        ("", "this key is required"),
    ] {
        let said = refused("", facts);
        assert!(said.contains(what), "{facts}: {said}");
    }
    let said = refused("hosts", "hosts = [\"*\"]\nfacts = {}");
    assert!(said.contains("is not a host pattern"), "{said}");
}

#[test]
fn the_proxys_bounds_are_bounds() {
    let config = parse("").unwrap();
    let defaults = (config.proxy.max_replay_body, config.proxy.idle_ms, config.proxy.longest_ms);
    assert_eq!(defaults, (1 << 20, 300_000, 43_200_000));
    assert_eq!(config.proxy.tunnels_per_agent, 64);
    assert_eq!(config.proxy.ca, Path::new("/srv/gateway/countersign.db.ca-key"), "beside the ledger");
    assert!(config.egress.roots.is_none() && config.proxy.intercept.is_empty());
    for (from, to, what) in [
        ("idle = \"2m\"", "idle = \"0\"", "proxy.idle: expected a time of at most 7 days"),
        ("longest = \"1h\"", "longest = \"8d\"", "proxy.longest: expected a time of at most 7 days"),
        ("tunnels-per-agent = 8", "tunnels-per-agent = 0", "proxy.tunnels-per-agent: "),
        ("max-replay-body = \"1MiB\"", "max-replay-body = \"1GiB\"", "proxy.max-replay-body: "),
        ("[\"api.example.com\"]", "[\"*\"]", "proxy.intercept[0]: \"*\" is not a host pattern"),
        ("ca = \"keys/ca.key\"", "ca = 1", "proxy.ca: "),
        ("roots = \"roots.pem\"", "roots = []", "egress.roots: "),
    ] {
        let said = told(edited(from, to));
        assert!(said.contains(what), "{to}: {said}");
    }
}

#[test]
fn silence_and_lone_operators_have_bounds() {
    let config = parse("").unwrap();
    assert_eq!((config.egress.answer_ms, config.approvals.policy_quorum), (None, 1));
    for (from, to, what) in [
        ("answer-timeout = \"20s\"", "answer-timeout = \"999ms\"", "egress.answer-timeout: expected \"1s\" to \"15m\""),
        ("answer-timeout = \"20s\"", "answer-timeout = \"16m\"", "egress.answer-timeout: expected \"1s\" to \"15m\""),
        ("answer-timeout = \"20s\"", "answer-timeout = 20", "egress.answer-timeout: "),
        ("policy-quorum = 2", "policy-quorum = 0", "approvals.policy-quorum: "),
    ] {
        let said = told(edited(from, to));
        assert!(said.contains(what), "{to}: {said}");
    }
    let old = parse(&full()).unwrap();
    let of = |text: &str| parse(&full().replacen("answer-timeout = \"20s\"", text, 1)).unwrap();
    assert_eq!(old.needs_restart(&of("answer-timeout = \"21s\"")), ["egress.answer-timeout"]);
    // A lower quorum waits for the whole edit, a higher one does not.
    let quorum = |n: u8| parse(&full().replacen("policy-quorum = 2", &format!("policy-quorum = {n}"), 1)).unwrap();
    let held = |new: &Config| old.restrict(new).approvals.policy_quorum;
    assert_eq!((held(&quorum(1)), held(&quorum(3))), (2, 3));
}
