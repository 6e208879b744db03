//! `[issuer.NAME]`: whose JWTs say who an agent is.

use std::collections::BTreeSet;
use std::path::PathBuf;

use countersign_core::web::{Scheme, Target};
pub use countersign_wire::jose::Algorithm;

use super::reader::{Item, Read, Table};

/// Where an issuer's public keys come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeySource {
    /// A JWKS document in a file.
    File(PathBuf),
    /// A JWKS document at a URL.
    Url(String),
    /// What the issuer's own `/.well-known/openid-configuration` names.
    Discovery,
}

/// Which claim says what. What is not named here is not believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimNames {
    /// Who the agent is.
    pub agent: String,
    /// The person behind it.
    pub user: Option<String>,
    /// The workspace.
    pub workspace: Option<String>,
    /// The roles: a text or a list of texts.
    pub roles: Option<String>,
    /// The client.
    pub client: Option<String>,
    /// The project.
    pub project: Option<String>,
    /// The task.
    pub task: Option<String>,
}

impl Default for ClaimNames {
    fn default() -> Self {
        let none = || None;
        let (user, workspace, roles, client, project, task) = (none(), none(), none(), none(), none(), none());
        Self { agent: "sub".to_owned(), user, workspace, roles, client, project, task }
    }
}

impl ClaimNames {
    const KEYS: &'static [&'static str] = &["agent", "user", "workspace", "roles", "client", "project", "task"];

    fn read(item: &Item<'_>) -> Read<Self> {
        let mut table = item.table(Self::KEYS)?;
        let mut names = Self::default();
        if let Some(item) = table.take("agent") {
            names.agent = claim(&item)?;
        }
        let fields = [
            ("user", &mut names.user),
            ("workspace", &mut names.workspace),
            ("roles", &mut names.roles),
            ("client", &mut names.client),
            ("project", &mut names.project),
            ("task", &mut names.task),
        ];
        for (key, field) in fields {
            *field = table.take(key).map(|item| claim(&item)).transpose()?;
        }
        Ok(names)
    }
}

fn claim(item: &Item<'_>) -> Read<String> {
    match item.str()? {
        "" => Err(item.error("expected the name of a claim").hint("such as \"sub\"")),
        text => Ok(text.to_owned()),
    }
}

/// Who the agents of an issuer are that have no `[agent.NAME]` of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// The workspace, whatever a claim says.
    pub workspace: Option<String>,
    /// The person, whatever a claim says.
    pub user: Option<String>,
    /// Roles, besides those that a claim may give.
    pub roles: BTreeSet<String>,
}

/// An issuer of JWTs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerConfig {
    /// What `iss` must be, byte for byte.
    pub issuer: String,
    /// What `aud` must contain one of.
    pub audience: BTreeSet<String>,
    /// How tokens may be signed.
    pub algorithms: BTreeSet<Algorithm>,
    /// Where its keys come from.
    pub keys: KeySource,
    /// Which claim says what.
    pub claims: ClaimNames,
    /// The roles that a claim may give; all others in it are ignored.
    pub roles_allowed: BTreeSet<String>,
    /// Its agents without a table of their own; none: there are no such agents.
    pub template: Option<Template>,
    /// How far its clock may be from ours, in seconds.
    pub clock_skew: u64,
    /// The longest time between `iat` and `exp`, in seconds.
    pub max_lifetime: u64,
    /// Keys older than this are fetched again, in milliseconds.
    pub refresh_ms: u64,
    /// The least time between two fetches, whatever the reason, in milliseconds.
    pub refetch_ms: u64,
    /// Keys older than this are not used any more, in milliseconds.
    pub keep_ms: u64,
}

impl IssuerConfig {
    const KEYS: &'static [&'static str] = &[
        "issuer",
        "audience",
        "algorithms",
        "jwks-file",
        "jwks",
        "claims",
        "roles-allowed",
        "template",
        "clock-skew",
        "max-lifetime",
        "keys-refresh",
        "keys-refetch",
        "keys-keep",
    ];

    /// An issuer's name. Its agents without a table are called `NAME.SUBJECT`, so it contains no point.
    pub(super) fn name(item: &Item<'_>, text: &str) -> Read<String> {
        let name = item.named(text)?;
        if name.contains('.') {
            return Err(item.error("an issuer's name contains no point").hint("its agents are called NAME.SUBJECT"));
        }
        Ok(name)
    }

    pub(super) fn read(item: &Item<'_>) -> Read<Self> {
        const SECOND: u64 = 1_000;
        const HOUR: u64 = 3_600 * SECOND;
        const DAY: u64 = 24 * HOUR;
        let mut table = item.table(Self::KEYS)?;
        let issuer = url(&table.need("issuer", "what `iss` says, such as \"https://login.example.com\"")?)?;
        let audience = texts(&table.need("audience", "what `aud` must contain, such as \"countersign\"")?)?;
        let algorithms = match table.take("algorithms") {
            Some(item) => some(&item, item.choices(&Algorithm::ALL)?)?,
            None => Algorithm::ALL.into_iter().map(|(_, algorithm)| algorithm).collect(),
        };
        let keys = match (table.take("jwks-file"), table.take("jwks")) {
            (Some(_), Some(jwks)) => return Err(jwks.error("there is a jwks-file, too").hint("name one of them")),
            (Some(file), None) => KeySource::File(file.path()?),
            (None, Some(jwks)) => KeySource::Url(url(&jwks)?),
            (None, None) => KeySource::Discovery,
        };
        let claims = table.take("claims").map(|item| ClaimNames::read(&item)).transpose()?.unwrap_or_default();
        let allowed = table.take("roles-allowed");
        if claims.roles.is_some() != allowed.is_some() {
            let hint = "claims.roles names the claim, roles-allowed the roles that it may give: one is nothing without \
                        the other";
            return Err(allowed.map_or_else(|| table.missing("roles-allowed", hint), |i| i.error(hint)));
        }
        let roles_allowed = allowed.map(|item| item.names()).transpose()?.unwrap_or_default();
        let template = table.take("template").map(|item| template(&item)).transpose()?;
        let clock_skew = span(&mut table, "clock-skew", 60 * SECOND, 0, 300 * SECOND)? / SECOND;
        let max_lifetime = span(&mut table, "max-lifetime", DAY, SECOND, 7 * DAY)? / SECOND;
        let refresh_ms = span(&mut table, "keys-refresh", 600 * SECOND, SECOND, DAY)?;
        let refetch_ms = span(&mut table, "keys-refetch", 30 * SECOND, SECOND, HOUR)?;
        let keep = table.take("keys-keep");
        let keep_ms = keep.as_ref().map_or(Ok(DAY), |item| within(item, SECOND, 7 * DAY))?;
        if let Some(keep) = keep.filter(|_| keep_ms < refresh_ms.max(refetch_ms)) {
            let hint = "see keys-refresh and keys-refetch";
            return Err(keep.error("keys would be given up before they are fetched again").hint(hint));
        }
        Ok(Self {
            issuer,
            audience,
            algorithms,
            keys,
            claims,
            roles_allowed,
            template,
            clock_skew,
            max_lifetime,
            refresh_ms,
            refetch_ms,
            keep_ms,
        })
    }

    /// This issuer with only the restrictions of `new`; none if it is another issuer now, or has other
    /// keys: what they vouched for until now they do not any more.
    #[must_use]
    pub(super) fn restrict(&self, new: &Self) -> Option<Self> {
        let same = self.issuer == new.issuer && self.keys == new.keys && self.claims.agent == new.claims.agent;
        same.then(|| Self {
            audience: self.audience.intersection(&new.audience).cloned().collect(),
            algorithms: self.algorithms.intersection(&new.algorithms).copied().collect(),
            roles_allowed: self.roles_allowed.intersection(&new.roles_allowed).cloned().collect(),
            template: self.template.as_ref().zip(new.template.as_ref()).map(|(ours, theirs)| Template {
                roles: ours.roles.intersection(&theirs.roles).cloned().collect(),
                ..ours.clone()
            }),
            clock_skew: self.clock_skew.min(new.clock_skew),
            max_lifetime: self.max_lifetime.min(new.max_lifetime),
            keep_ms: self.keep_ms.min(new.keep_ms),
            ..self.clone()
        })
    }
}

fn template(item: &Item<'_>) -> Read<Template> {
    let mut table = item.table(&["workspace", "user", "roles"])?;
    Ok(Template {
        workspace: table.take("workspace").map(|i| i.name()).transpose()?,
        user: table.take("user").map(|i| i.name()).transpose()?,
        roles: table.take("roles").map(|i| i.names()).transpose()?.unwrap_or_default(),
    })
}

/// Whether keys may be fetched from there: over TLS, or without from this machine.
#[must_use]
pub(crate) fn vouched_for(target: &Target) -> bool {
    let local = target.hostname() == "localhost" || target.ip().is_some_and(|ip| ip.to_canonical().is_loopback());
    target.scheme() == Scheme::Https || local
}

fn url(item: &Item<'_>) -> Read<String> {
    let text = item.str()?;
    let target = Target::parse(text).map_err(|e| item.error(e.to_string()))?;
    if !vouched_for(&target) || text.contains(['?', '#']) {
        let hint = "whoever answers there says who agents are";
        return Err(item.error("expected https without a query, or http on this machine").hint(hint));
    }
    Ok(text.to_owned())
}

fn texts(item: &Item<'_>) -> Read<BTreeSet<String>> {
    let texts = item.one_or_list()?.iter().map(|i| Ok(i.str()?.to_owned())).collect::<Read<BTreeSet<_>>>()?;
    if texts.contains("") { Err(item.error("expected a text that is not empty")) } else { some(item, texts) }
}

fn some<T>(item: &Item<'_>, set: BTreeSet<T>) -> Read<BTreeSet<T>> {
    if set.is_empty() { Err(item.error("an empty list refuses everything")) } else { Ok(set) }
}

fn span(table: &mut Table<'_>, key: &str, default: u64, least: u64, most: u64) -> Read<u64> {
    table.take(key).map_or(Ok(default), |item| within(&item, least, most))
}

fn within(item: &Item<'_>, least: u64, most: u64) -> Read<u64> {
    let millis = item.millis()?;
    if (least..=most).contains(&millis) && millis % 1_000 == 0 {
        return Ok(millis);
    }
    let message = format!("expected whole seconds, {} s to {} s", least / 1_000, most / 1_000);
    Err(item.error(message).hint("such as \"60s\""))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Environment};
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("/srv/gateway"), &Environment::default()).map_err(|e| e.to_string())
    }

    const LEAST: &str = "[issuer.corp]\nissuer = \"https://login.example.com\"\naudience = \"countersign\"\n";

    #[test]
    fn what_is_not_said_is_strict() {
        let config = parse(LEAST).unwrap();
        let corp = &config.issuers["corp"];
        assert_eq!((corp.clock_skew, corp.max_lifetime), (60, 86_400));
        assert_eq!((corp.refresh_ms, corp.refetch_ms, corp.keep_ms), (600_000, 30_000, 86_400_000));
        assert_eq!((&corp.keys, corp.algorithms.len(), &corp.template), (&KeySource::Discovery, 3, &None));
        assert_eq!(corp.claims, ClaimNames::default());
        let full = format!(
            "{LEAST}algorithms = [\"EdDSA\"]\njwks-file = \"keys.json\"\nclock-skew = \"0\"\nmax-lifetime = \"15m\"\n\
             keys-refresh = \"1s\"\nkeys-refetch = \"1s\"\nkeys-keep = \"2s\"\nroles-allowed = [\"Analyst\"]\n\
             claims = {{ agent = \"azp\", roles = \"groups\" }}\n[issuer.corp.template]\nworkspace = \"Research\"\n\
             [agent.scout]\nissuer = \"corp\"\n[agent.robot]\nissuer = \"corp\"\nsubject = \"a|B\"\ntoken-sha256 = \"{}\"",
            "a".repeat(64)
        );
        let config = parse(&full).unwrap();
        let corp = &config.issuers["corp"];
        assert_eq!(corp.keys, KeySource::File("/srv/gateway/keys.json".into()));
        assert_eq!((corp.clock_skew, corp.max_lifetime, corp.keep_ms), (0, 900, 2_000));
        assert_eq!(corp.roles_allowed, BTreeSet::from(["analyst".to_owned()]));
        assert_eq!(corp.template.as_ref().unwrap().workspace.as_deref(), Some("research"));
        let subject = |name: &str| config.agents[name].subject.clone().unwrap().name;
        assert_eq!((subject("scout"), subject("robot")), ("scout".to_owned(), "a|B".to_owned()));
    }

    #[test]
    fn mistakes_are_named() {
        for (more, what) in [
            ("audiance = \"x\"", "did you mean `audience`?"),
            ("algorithms = [\"HS256\"]", "\"HS256\" is not one of the choices"),
            ("algorithms = [\"none\"]", "\"none\" is not one of the choices"),
            ("algorithms = []", "an empty list refuses everything"),
            ("jwks = \"http://login.example.com/keys\"", "expected https without a query, or http on this machine"),
            ("jwks = \"https://login.example.com/keys?a=b\"", "expected https without a query"),
            ("jwks = \"file:///etc/keys\"", "issuer.corp.jwks: "),
            ("jwks = \"https://a.example/\"\njwks-file = \"keys.json\"", "name one of them"),
            ("claims = { agent = \"\" }", "expected the name of a claim"),
            ("claims = { roles = \"groups\" }", "issuer.corp.roles-allowed: "),
            ("roles-allowed = [\"analyst\"]", "one is nothing without"),
            ("claims = { role = \"groups\" }", "did you mean `roles`?"),
            ("clock-skew = \"6m\"", "expected whole seconds, 0 s to 300 s"),
            ("max-lifetime = \"8d\"", "expected whole seconds, 1 s to 604800 s"),
            ("keys-refetch = \"0\"", "expected whole seconds, 1 s to 3600 s"),
            ("keys-keep = \"5m\"", "keys would be given up before they are fetched again"),
            ("template = { task = \"x\" }", "there is no key `task` in [issuer.corp.template]"),
            ("[agent.x]\nsubject = \"x\"", "a subject of which issuer?"),
            ("[agent.x]\nissuer = \"corp\"\nsubject = \"\"", "expected a text that is not empty"),
            ("[agent.x]\nissuer = \"corp\"\ncertificate-sha256 = \"x\"", "expected a SHA-256"),
            (
                "[agent.x]\nissuer = \"corp\"\ncertificate-sha256 = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"",
                "add client-ca to gateway.tls",
            ),
            ("[agent.x]\nworkspace = \"x\"", "agent.x.token-sha256: this key is required"),
            (
                "[agent.x]\nissuer = \"corp\"\n[agent.y]\nissuer = \"corp\"\nsubject = \"x\"",
                "the same subject as agent.x",
            ),
            (
                "template = {}\n[agent.\"corp.x\"]\nissuer = \"corp\"",
                "agents of issuer.corp without a table are called so",
            ),
            (
                "[issuer.two]\nissuer = \"https://login.example.com\"\naudience = \"x\"",
                "the same issuer as issuer.corp",
            ),
            (
                "[issuer.\"a.b\"]\nissuer = \"https://b.example\"\naudience = \"x\"",
                "an issuer's name contains no point",
            ),
        ] {
            let said = parse(&format!("{LEAST}{more}")).unwrap_err();
            assert!(said.contains(what), "{more}: {said}");
        }
        for (from, to, what) in [
            ("https://login", "http://login", "whoever answers there says who agents are"),
            ("audience = \"countersign\"", "", "issuer.corp.audience: this key is required"),
            ("\"countersign\"", "[]", "an empty list refuses everything"),
            ("\"countersign\"", "[\"\"]", "expected a text that is not empty"),
        ] {
            let said = parse(&LEAST.replacen(from, to, 1)).unwrap_err();
            assert!(said.contains(what), "{to}: {said}");
        }
        assert!(parse(&LEAST.replace("https://login.example.com", "http://127.0.0.1:40300")).is_ok());
        let warnings = parse(&format!("{LEAST}[agent.x]\nissuer = \"corq\"")).unwrap().warnings.join("\n");
        assert!(warnings.contains("agent x: there is no [issuer.corq], so no JWT speaks for it; did you mean `corp`?"));
    }
}
