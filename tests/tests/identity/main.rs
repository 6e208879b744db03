//! Who is asking: agents known by JWTs of an issuer on this machine, operators of one scope, and how many sessions they
//! open. Against the real binary, a chain and sellers in this process.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test: whatever is not as expected must fail it loudly"
)]

mod budgets;
mod keys;
mod sessions;
mod tokens;

use countersign_tests::{
    agent::Client,
    config::{Config, Policy},
    http::Response,
    issuer::{AUDIENCE, Issuer, Key},
    process::Gateway,
    till::caps,
    wait_for,
    world::LocalWorld,
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long something may take that happens by itself.
const SOON: Duration = Duration::from_secs(30);

/// A gateway that believes an issuer, and a world around it.
struct Scene {
    world: LocalWorld,
    issuer: Issuer,
    key: Key,
    gateway: Gateway,
}

impl Scene {
    fn new() -> Self {
        Self::with(|config, _| config)
    }

    fn with(change: impl FnOnce(Config, &Issuer) -> Config) -> Self {
        let (world, key) = (LocalWorld::start(), Key::new("first"));
        let issuer = Issuer::start(&[&key]);
        let config = believing(world.config(&["honest"], [Policy::vendors(), caps("5.00")]), &issuer);
        Self { gateway: Gateway::start(change(config, &issuer)), world, issuer, key }
    }

    /// Where a thousandth of a dollar is asked for.
    fn url(&self) -> String {
        self.world.world().seller("honest").unwrap().url("/quote")
    }

    /// A good token for somebody.
    fn token(&self, subject: &str) -> String {
        self.key.token(&self.issuer.claims(subject))
    }

    fn client(&self, token: &str) -> Client {
        self.gateway.agent_with(token)
    }

    /// Asks what the agent of a token may ask without buying.
    fn look(&self, token: &str) -> Response {
        self.client(token).get("/v1/payments")
    }

    /// Waits until a token is answered so.
    #[track_caller]
    fn until(&self, token: &str, status: u16) {
        let found = wait_for(SOON, || (self.look(token).status == status).then_some(()));
        found.unwrap_or_else(|| assert_eq!(self.look(token).status, status));
    }

    /// How often the chain moved money since the last look.
    fn moved(&self) -> usize {
        self.world.new_redemptions().len()
    }
}

/// With `[issuer.corp]`, whose `jwt-scout` is agent `jwt-scout` here, and whose others are guests. Its keys are asked for
/// as often as the configuration lets anybody ask.
fn believing(config: Config, issuer: &Issuer) -> Config {
    config
        .allow_private(issuer.authority())
        .set(&["issuer", "corp", "issuer"], issuer.url())
        .set(&["issuer", "corp", "audience"], AUDIENCE)
        .set(&["issuer", "corp", "jwks"], issuer.jwks_url())
        .set(&["issuer", "corp", "keys-refetch"], "1s")
        .set(&["issuer", "corp", "keys-refresh"], "1s")
        .set(&["issuer", "corp", "claims", "roles"], "groups")
        .set(&["issuer", "corp", "claims", "client"], "customer")
        .set(&["issuer", "corp", "roles-allowed"], vec!["analyst"])
        .set(&["issuer", "corp", "template", "workspace"], "guests")
        .set(&["agent", "jwt-scout", "issuer"], "corp")
        .set(&["agent", "jwt-scout", "workspace"], "research")
}

/// `claims` with one of them changed.
fn claiming(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

/// Nothing but a URL.
fn plainly() -> Value {
    json!({})
}
