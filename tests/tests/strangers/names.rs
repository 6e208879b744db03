//! A seller whose name leads somewhere else with each question, against the whole gateway: between it and its resolver is
//! `resolver.c`, which answers for that name as a file says.

use super::*;
use countersign_tests::{
    peers::authority,
    refusal::refusal,
    till::{bought, caps, text},
};
use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

const NAME: &str = "turns.example";

/// Compiled by the C compiler that the bundled SQLite needs too.
static RESOLVER: LazyLock<(tempfile::TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("resolver.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/strangers/resolver.c");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut cc = Command::new(&compiler);
    cc.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).args([&library, &source]).arg("-ldl");
    let output = cc.output().unwrap_or_else(|e| panic!("this suite needs a C compiler, and {compiler:?}: {e}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, library)
});

/// A seller and a thief at the same port of two addresses of this machine, and a gateway that may reach the first.
struct Turning {
    gateway: Gateway,
    seller: Stub,
    thief: Stub,
    says: PathBuf,
    _folder: tempfile::TempDir,
}

impl Turning {
    fn new(paid: &str) -> Self {
        let (good, bad) = loop {
            let good = TcpListener::bind("127.0.0.2:0").unwrap();
            let port = good.local_addr().unwrap().port();
            if let Ok(bad) = TcpListener::bind(("127.0.0.1", port)) {
                break (good, bad);
            }
        };
        let sells =
            |paid: String| move |request: &str| if payment(request).is_some() { paid.clone() } else { asks(&honest()) };
        let seller = Stub::answering_on(good, sells(paid.to_owned()));
        let thief = Stub::answering_on(bad, sells(goods(&receipt(), "loot")));
        let folder = tempfile::tempdir().unwrap();
        let says = folder.path().join("says");
        fs::write(&says, "127.0.0.2").unwrap();
        let vendors = Policy::new("vendors", "builtin:vendor-allowlist").setting("hosts", vec![format!("{NAME}:*")]);
        let config = world()
            .config(&["honest"], [vendors, caps("5.00")])
            .allow_private(&seller.authority)
            .variable("LD_PRELOAD", RESOLVER.1.to_str().unwrap())
            .variable("RESOLVER_NAME", NAME)
            .variable("RESOLVER_SAYS", says.to_str().unwrap());
        Self { gateway: Gateway::start(config), seller, thief, says, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        let port = self.seller.authority.rsplit_once(':').unwrap().1;
        format!("http://{NAME}:{port}{path}")
    }

    /// The name leads there from now on. With several, to the next of them with each question; the last stays.
    fn leads_to(&self, addresses: &[&str]) {
        let next = self.says.with_extension("next");
        fs::write(&next, addresses.join("\n")).unwrap();
        fs::rename(next, &self.says).unwrap();
    }

    fn fetch(&self, path: &str, more: Value) -> Response {
        self.gateway.agent().fetch(&self.url(path), more)
    }
}

#[test]
fn the_payment_goes_to_the_address_that_the_terms_came_from() {
    let scene = Turning::new(&goods(&receipt(), "goods"));
    // The seller hangs up after its terms, so the payment needs a connection of its own; by then the name says otherwise.
    scene.leads_to(&["127.0.0.2", "127.0.0.1"]);
    let answer = scene.fetch("/quote", json!({}));
    bought(&answer, "0.001");
    assert_eq!(answer.text(), "goods");
    assert_eq!((scene.seller.seen().len(), scene.thief.seen().len()), (2, 0));
    assert_eq!(payments(&scene.seller).len(), 1);
    // The next call asks again, and is refused before it is made.
    let problem = refusal(&scene.fetch("/quote?2", json!({})), 400, "egress-forbidden");
    assert!(text(&problem, "/detail").contains("127.0.0.1"), "{problem}");
    assert_eq!((scene.seller.seen().len(), scene.thief.seen().len()), (2, 0));
}

#[test]
fn a_payment_is_not_presented_again_where_the_name_leads_by_then() {
    // It takes the payment and does not answer.
    let scene = Turning::new("");
    let order = json!({"purchase_id": "turned"});
    let problem = refusal(&scene.fetch("/quote", order.clone()), 504, "outcome-unknown");
    scene.leads_to(&["127.0.0.1"]);
    refusal(&scene.fetch("/quote", order.clone()), 400, "egress-forbidden");
    assert_eq!(scene.thief.seen(), Vec::<String>::new());
    let view = scene.gateway.agent().payment(text(&problem, "/payment"));
    assert_eq!(view["state"], "unknown", "{view:#}");
    scene.leads_to(&["127.0.0.2"]);
    refusal(&scene.fetch("/quote", order), 504, "outcome-unknown");
    let presented = payments(&scene.seller);
    assert!(presented.len() == 2 && presented[0] == presented[1], "{presented:?}");
}

#[test]
fn no_name_leads_to_the_gateway_or_inside_in_whatever_dress() {
    let scene = Turning::new("");
    let mut ports: Vec<&str> = [&scene.gateway.url, &scene.gateway.admin_url].map(|url| authority(url)).to_vec();
    let seller = scene.seller.authority.clone();
    ports.push(&seller);
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "::1", "10.0.0.1", "169.254.169.254", "0.0.0.0"]
    {
        scene.leads_to(&[address]);
        for place in &ports {
            let url = format!("http://{NAME}:{}/", place.rsplit_once(':').unwrap().1);
            refusal(&scene.gateway.agent().fetch(&url, json!({})), 400, "egress-forbidden");
        }
    }
    assert_eq!((scene.seller.seen().len(), scene.thief.seen().len()), (0, 0));
}
