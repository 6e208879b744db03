//! A world, a database, and the gateways that share it.

use super::*;

/// The server of all tests that leave it alone. It ends with this process.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(Postgres::start)
}

/// Whose server a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Everybody's, which is left alone.
    Shared,
    /// Its own, to be killed and frozen.
    Own,
}

/// Gateways on one database of a test's own.
pub(crate) struct Scene {
    pub(crate) gateways: Vec<Gateway>,
    pub(crate) world: LocalWorld,
    /// The server, when it is the test's own.
    pub(crate) own: Option<Postgres>,
    pub(crate) database: String,
    /// The log's key and the local copies.
    pub(crate) folder: TempDir,
    base: Config,
    made: AtomicU64,
}

impl Scene {
    /// That many gateways, with nothing that limits.
    pub(crate) fn new(gateways: usize) -> Self {
        Self::with(Place::Shared, gateways, &["honest"], open_handed(), |config| config)
    }

    /// That many gateways with a budget of so many quotes.
    pub(crate) fn limited(place: Place, gateways: usize, quotes: usize) -> Self {
        Self::with(place, gateways, &["honest"], open_handed(), |config| with_budget(config, quotes))
    }

    /// Starts gateways one after the other, with the configuration they share changed first.
    pub(crate) fn with(
        place: Place,
        gateways: usize,
        sellers: &[&str],
        policies: Vec<Policy>,
        change: impl FnOnce(Config) -> Config,
    ) -> Self {
        let mut scene = Self::without(place, sellers, policies, change);
        for _ in 0..gateways {
            scene.join();
        }
        scene
    }

    /// The same, before any gateway is started.
    pub(crate) fn without(
        place: Place,
        sellers: &[&str],
        policies: Vec<Policy>,
        change: impl FnOnce(Config) -> Config,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let database = format!("ledger_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let own = (place == Place::Own).then(Postgres::start);
        let world = LocalWorld::start();
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir().unwrap();
        // Two names are two nodes: what frees money needs two that agree.
        let nodes = ["127.0.0.1", "localhost"].map(|name| Node::before(world.world().rpc_url()).url(name));
        let config = world
            .config(sellers, policies)
            .set(&["network", NETWORK, "rpc"], nodes.to_vec())
            .set(&["limits", "purchases-per-agent-per-minute"], 1_000_000)
            .set(&["limits", "unresolved-per-seller"], 1_000_000)
            .set(&["limits", "unresolved-per-payee"], 1_000_000)
            .set(&["limits", "unresolved-per-agent"], 1_000_000)
            .set(&["ledger", "log-key"], folder.path().join("log.key").to_str().unwrap());
        let base = change(config);
        let mut scene = Self { gateways: Vec::new(), world, own, database, folder, base, made: AtomicU64::new(0) };
        scene.postgres().create_database(&scene.database);
        let url = scene.postgres().url(&scene.database);
        scene.base = scene.base.set(&["ledger", "url"], url);
        scene
    }

    /// The database's server.
    pub(crate) fn postgres(&self) -> &Postgres {
        self.own.as_ref().unwrap_or_else(|| server())
    }

    /// The server, which is the test's own.
    pub(crate) fn server(&mut self) -> &mut Postgres {
        self.own.as_mut().expect("a server of the test's own")
    }

    /// The configuration of the gateway with this number.
    pub(crate) fn config(&self, number: usize) -> Config {
        let copy = self.copy(number);
        if !copy.exists() {
            fs::create_dir(&copy).unwrap();
            fs::set_permissions(&copy, Permissions::from_mode(0o700)).unwrap();
        }
        self.base.clone().set(&["ledger", "path"], copy.to_str().unwrap())
    }

    /// The folder of a gateway's local copy.
    pub(crate) fn copy(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("copy-{number}"))
    }

    /// Starts one gateway more.
    pub(crate) fn join(&mut self) -> &Gateway {
        let config = self.config(self.gateways.len());
        self.gateways.push(Gateway::start(config));
        self.gateways.last().unwrap()
    }

    /// Stops them all in order.
    pub(crate) fn terminate(&mut self) {
        for gateway in &mut self.gateways {
            assert!(gateway.terminate().success(), "{}", gateway.log());
        }
    }

    /// Starts them all again.
    pub(crate) fn restart(&mut self) {
        self.gateways.iter_mut().for_each(Gateway::restart);
    }

    pub(crate) fn chain(&self) -> &Chain {
        self.world.world().chain()
    }

    pub(crate) fn seller(&self, name: &str) -> &Seller {
        self.world.world().seller(name).unwrap()
    }

    /// What the honest seller sells for 0.001 USD, under an address that no other call returns.
    pub(crate) fn quote(&self) -> String {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        self.seller("honest").url(&format!("/quote?n={n}"))
    }

    /// The agent `scout` at a gateway.
    pub(crate) fn agent(&self, gateway: usize) -> Client {
        self.gateways[gateway].agent()
    }

    /// The operator `alice` at a gateway.
    pub(crate) fn operator(&self, gateway: usize) -> Client {
        self.gateways[gateway].operator()
    }

    /// Buys a quote at a gateway; returns the payment.
    #[track_caller]
    pub(crate) fn buy(&self, gateway: usize) -> String {
        bought(&self.agent(gateway).fetch(&self.quote(), json!({})), "0.001")
    }

    /// Waits for a payment's state at every gateway; returns the payment as the last one tells it.
    #[track_caller]
    pub(crate) fn until(&self, payment: &str, state: &str) -> Value {
        let mut last = Value::Null;
        for (n, gateway) in self.gateways.iter().enumerate() {
            let look = || gateway.operator().payment(payment);
            let found = wait_for(PATIENCE, || Some(look()).filter(|p| p["state"] == state));
            last = found.unwrap_or_else(|| panic!("not {state} at gateway {n}: {:#}", look()));
        }
        last
    }

    /// Opens a session at a gateway; returns its id and token.
    #[track_caller]
    pub(crate) fn session(&self, gateway: usize, wish: &Value) -> (String, String) {
        let session = done(&self.operator(gateway).post("/v1/sessions", wish));
        (text(&session, "/id").to_owned(), text(&session, "/token").to_owned())
    }

    /// The row of a budget in a gateway's list.
    #[track_caller]
    pub(crate) fn budget(&self, gateway: usize, name: &str) -> Value {
        let rows = items(&self.operator(gateway).get("/v1/budgets"));
        rows.into_iter().find(|row| text(row, "/budget").contains(name)).unwrap_or(Value::Null)
    }

    /// Waits until a gateway sells again; every answer until then must be an honest "not now".
    #[track_caller]
    pub(crate) fn recovers(&self, gateway: usize) {
        let found = wait_for(PATIENCE, || {
            let answer = self.agent(gateway).fetch(&self.seller("honest").url("/free"), json!({}));
            let ready = self.gateways[gateway].is_ready();
            assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
            (answer.status == 200 && ready).then_some(())
        });
        found.unwrap_or_else(|| panic!("gateway {gateway} does not come back: {}", self.gateways[gateway].log()));
    }

    /// Exports the whole log at a gateway, up to its newest checkpoint at least, and verifies it there; returns its lines,
    /// of which the last is the checkpoint.
    #[track_caller]
    pub(crate) fn export(&self, gateway: usize) -> Vec<String> {
        let gateway = &self.gateways[gateway];
        let checkpoint = done(&gateway.operator().get("/v1/audit/checkpoint"));
        let size = usize::try_from(checkpoint["size"].as_u64().unwrap()).unwrap();
        let run = |args: &[&str]| said(&gateway.command(args));
        let lines = wait_for(PATIENCE, || {
            run(&["ledger", "export", "--format", "audit", "--out", "whole.audit"]);
            let file = fs::read_to_string(gateway.dir().join("whole.audit")).unwrap();
            let lines: Vec<String> = file.lines().map(str::to_owned).collect();
            (lines.len() > size).then_some(lines)
        });
        let lines = lines.unwrap_or_else(|| panic!("the export has not the {size} records that were signed for"));
        let told = run(&["ledger", "verify", "whole.audit", "--key", text(&checkpoint, "/key")]);
        assert!(told.contains(&format!("{} records", lines.len() - 1)), "{told}");
        lines
    }
}
