//! Offers: what a 402 asks for, read strictly.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::assets::{Asset, AssetTable, Network};
use super::error::{RailError, Skipped};
use super::{MIN_VALIDITY_SECONDS, header, text};
use crate::evm::Address;
use crate::json::{Fault, Json};
use crate::money::{Atomic, Micros};
use crate::mpp;
use crate::spend::Commitment;
use crate::time::Timestamp;

/// Where version 2 puts its terms.
pub(super) const REQUIRED: &str = "payment-required";
/// Most bytes of terms in a header, decoded.
pub const MAX_HEADER_TERMS: usize = 64 * 1024;
/// Most bytes of terms in a body.
pub const MAX_BODY_TERMS: usize = 256 * 1024;
/// Most offers in one 402.
pub const MAX_OFFERS: usize = 32;
/// Most offers that are decided on.
pub const MAX_CANDIDATES: usize = 4;

pub(crate) const MAX_TIMEOUT: u32 = 1 << 31;
pub(crate) const MAX_IDENTIFIER: usize = 128;
const MAX_RESOURCE_URL: usize = 2048;

/// A 402, as far as rails look at it.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// Names in lower case, in order; a name may come more than once.
    pub headers: &'a [(String, Vec<u8>)],
    /// Only needed when [`needs_body`] says so.
    pub body: Option<&'a [u8]>,
    /// SHA-256 of the body that was sent and will be sent again, if there is one.
    pub request_sha256: Option<[u8; 32]>,
}

/// Whether the terms can only be in the body. It is never read otherwise.
#[must_use]
pub fn needs_body(headers: &[(String, Vec<u8>)]) -> bool {
    header::all(headers, &[REQUIRED]).next().is_none()
}

/// The version of x402 an offer is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Version {
    /// Terms in the body, payment in `X-PAYMENT`.
    V1,
    /// Terms in `PAYMENT-REQUIRED`, payment in `PAYMENT-SIGNATURE`.
    V2,
}

impl From<Version> for u8 {
    fn from(version: Version) -> Self {
        match version {
            Version::V1 => 1,
            Version::V2 => 2,
        }
    }
}

impl TryFrom<u8> for Version {
    type Error = RailError;
    fn try_from(number: u8) -> Result<Self, RailError> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(RailError::Version),
        }
    }
}

/// The protocol an offer is made in, which is the one it is paid in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// x402, in this version.
    X402(Version),
    /// The Machine Payments Protocol, by this challenge.
    Mpp(Box<mpp::Challenge>),
}

/// One offer that could be paid: in a scheme, on a network and in an asset that we know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it was made in.
    pub protocol: Protocol,
    /// Its place in `accepts`, or among the challenges.
    pub index: usize,
    /// `exact`, or MPP's `charge`.
    pub scheme: String,
    /// The chain.
    pub network: Network,
    /// The chain as the seller spelled it: CAIP-2, or a name in version 1.
    pub network_name: String,
    /// The asset, from our own table.
    pub asset: Asset,
    /// The price.
    pub amount: Atomic,
    /// Who is paid.
    pub pay_to: Address,
    /// How long the seller wants the signature to be redeemable.
    pub max_timeout_seconds: u32,
    /// The offer's exact JSON; x402's version 2 echoes it. Of MPP, what the challenge's `request` says.
    pub raw: String,
    /// The exact JSON of `resource`, to be echoed.
    pub resource: Option<String>,
    /// The exact JSON of `extensions`, to be echoed.
    pub extensions: Option<String>,
    /// The seller refuses payments without an identifier.
    pub needs_identifier: bool,
    /// The seller's words: untrusted, cut, without hidden characters.
    pub description: Option<String>,
    /// The seller's words.
    pub mime_type: Option<String>,
    /// The seller's words: the first of the resource's tags.
    pub category: Option<String>,
    /// What the seller says is bought. Often wrong in good faith, so nothing relies on it.
    pub resource_url: Option<String>,
}

impl Offer {
    /// What signing binds the wallet to.
    #[must_use]
    pub const fn commitment(&self) -> Commitment {
        Commitment::Fixed
    }

    /// `x402` or `mpp`.
    #[must_use]
    pub const fn rail(&self) -> &'static str {
        match self.protocol {
            Protocol::X402(_) => "x402",
            Protocol::Mpp(_) => "mpp",
        }
    }

    /// What people call it among the offers of its 402.
    #[must_use]
    pub fn place(&self) -> String {
        super::error::place(self.rail(), self.index)
    }

    /// How long a signature made `now` would stay redeemable: the shorter of the seller's wish and ours, and never
    /// longer than the challenge it answers.
    ///
    /// # Errors
    /// [`RailError::ValidityTooShort`] or [`RailError::Ended`] when that is not enough to be settled.
    pub fn valid_for_seconds(&self, max_validity_seconds: u32, now: Timestamp) -> Result<u32, RailError> {
        let least = MIN_VALIDITY_SECONDS;
        let mut seconds = self.max_timeout_seconds.min(max_validity_seconds);
        if let Protocol::Mpp(challenge) = &self.protocol
            && let Some(at) = challenge.ends()
        {
            // Whole seconds on both sides, as the chain counts.
            let left = u32::try_from(at.as_secs().saturating_sub(now.as_secs())).unwrap_or(u32::MAX);
            if left < least {
                return Err(RailError::Ended { at, least });
            }
            seconds = seconds.min(left);
        }
        if seconds < least {
            return Err(RailError::ValidityTooShort { seconds, least });
        }
        Ok(seconds)
    }

    /// SHA-256 over everything that decides what is signed and sent, but for what names one challenge of many for the
    /// same thing: its id, its end and the seller's own note. Every field is prefixed with its length, so that no two
    /// offers share the bytes that are hashed.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut add = |bytes: &[u8]| {
            let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            hasher.update(length.to_be_bytes());
            hasher.update(bytes);
        };
        add(b"countersign x402 offer 1");
        match &self.protocol {
            Protocol::X402(version) => add(&[u8::from(*version)]),
            Protocol::Mpp(challenge) => {
                add(&[0]);
                add(challenge.realm.as_bytes());
                // What the approver read.
                add(challenge.description.as_deref().unwrap_or_default().as_bytes());
            }
        }
        add(self.scheme.as_bytes());
        add(self.network_name.as_bytes());
        add(&self.network.chain_id().to_be_bytes());
        add(self.asset.address.as_bytes());
        add(self.asset.eip712.name.as_bytes());
        add(self.asset.eip712.version.as_bytes());
        add(&[self.asset.decimals]);
        add(&self.amount.to_be_bytes32());
        add(self.pay_to.as_bytes());
        add(&self.max_timeout_seconds.to_be_bytes());
        add(self.raw.as_bytes());
        for echoed in [&self.resource, &self.extensions] {
            add(&[u8::from(echoed.is_some())]);
            add(echoed.as_deref().unwrap_or_default().as_bytes());
        }
        hasher.finalize().into()
    }
}

/// What a 402 offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offers {
    /// Payable ones, in the seller's order; at least one.
    pub offers: Vec<Offer>,
    /// Understood and left aside.
    pub skipped: Vec<Skipped>,
    /// The seller's words: untrusted, escaped and cut.
    pub error: Option<String>,
}

/// An offer and what it costs in the reference currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The offer.
    pub offer: Offer,
    /// Its value, rounded up.
    pub value: Micros,
}

/// The offers to decide on: the cheapest first, the seller's order among equals, at most
/// [`MAX_CANDIDATES`].
#[must_use]
pub fn candidates(offers: Vec<Offer>) -> Vec<Priced> {
    let priced = offers.into_iter().filter_map(|offer| {
        // Reading has left aside what has no value; an offer from elsewhere may still have none.
        let value = offer.asset.value(offer.amount).ok()?;
        Some(Priced { offer, value })
    });
    let mut priced: Vec<Priced> = priced.collect();
    priced.sort_by_key(|p| p.value);
    priced.truncate(MAX_CANDIDATES);
    priced
}

/// Reads the terms of a 402.
pub(super) fn read(challenge: &Challenge<'_>, assets: &AssetTable, payer: Address) -> Result<Offers, RailError> {
    let Some(value) = header::only(challenge.headers, &[REQUIRED])
        .map_err(|problem| RailError::malformed("PAYMENT-REQUIRED", problem))?
    else {
        return read_body(challenge.body, assets, payer);
    };
    let bad = |problem: &str| RailError::malformed("PAYMENT-REQUIRED", problem);
    let bytes = header::decode(value, MAX_HEADER_TERMS).map_err(bad)?;
    read_document("PAYMENT-REQUIRED", &bytes, MAX_HEADER_TERMS, assets, payer)
}

/// Reads terms that are a JSON document of their own, of either version.
pub(super) fn read_document(
    place: &str,
    bytes: &[u8],
    limit: usize,
    assets: &AssetTable,
    payer: Address,
) -> Result<Offers, RailError> {
    let bad = |problem: String| RailError::malformed(place, problem);
    let json = Json::parse(bytes, limit).map_err(|e| bad(e.to_string()))?;
    if !json.is_object() {
        return Err(bad("expected a JSON object".to_owned()));
    }
    match json.get("x402Version").and_then(Json::as_u64) {
        Some(2) => read_terms(&json, Version::V2, assets, payer),
        Some(1) => read_terms(&json, Version::V1, assets, payer),
        _ => Err(RailError::Version),
    }
}

fn read_body(body: Option<&[u8]>, assets: &AssetTable, payer: Address) -> Result<Offers, RailError> {
    let nothing = |why| Err(RailError::NotThisRail(why));
    let Some(body) = body else {
        return nothing("no PAYMENT-REQUIRED header, and no body");
    };
    let json = match Json::parse(body, MAX_BODY_TERMS) {
        Ok(json) => json,
        Err(e) if matches!(e.fault, Fault::Expected(_) | Fault::NotUtf8) => {
            return nothing("no PAYMENT-REQUIRED header, and the body is not JSON");
        }
        Err(e) => return Err(RailError::malformed("body", e.to_string())),
    };
    match json.get("x402Version") {
        None => nothing("no PAYMENT-REQUIRED header, and no x402Version in the body"),
        Some(version) => match version.as_u64() {
            Some(1) => read_terms(&json, Version::V1, assets, payer),
            Some(2) => Err(RailError::TermsInBody),
            _ => Err(RailError::Version),
        },
    }
}

/// What the offers of one version 2 402 share.
#[derive(Default)]
struct Shared {
    resource: Option<String>,
    extensions: Option<String>,
    needs_identifier: bool,
    words: Words,
}

#[derive(Clone, Default)]
struct Words {
    description: Option<String>,
    mime_type: Option<String>,
    category: Option<String>,
    resource_url: Option<String>,
}

fn read_terms(json: &Json<'_>, version: Version, assets: &AssetTable, payer: Address) -> Result<Offers, RailError> {
    let terms = Node { json, path: String::new() };
    let error = terms.text("error", usize::MAX)?;
    let shared = match version {
        Version::V1 => Shared::default(),
        Version::V2 => read_shared(&terms)?,
    };
    let accepts =
        terms.member("accepts").ok_or_else(|| RailError::malformed("accepts", "missing; expected a list of offers"))?;
    let items = accepts.items()?;
    if items.is_empty() || items.len() > MAX_OFFERS {
        let problem = format!("expected 1 to {MAX_OFFERS} offers, found {}", items.len());
        return Err(accepts.bad(problem));
    }
    let reader = Reader { version, shared: &shared, assets, payer };
    let mut offers = Vec::new();
    let mut skipped = Vec::new();
    for (index, item) in items.iter().enumerate() {
        match reader.offer(index, item)? {
            Ok(offer) => offers.push(offer),
            Err(skip) => skipped.push(skip),
        }
    }
    if offers.is_empty() {
        return Err(RailError::NothingPayable(skipped));
    }
    let error = error.map(|e| text::clean(e, text::MAX_WORDS));
    Ok(Offers { offers, skipped, error })
}

fn read_shared(terms: &Node<'_, '_>) -> Result<Shared, RailError> {
    let mut shared = Shared::default();
    if let Some(resource) = terms.object("resource")? {
        shared.resource = Some(resource.json.raw.to_owned());
        shared.words = read_words(&resource, "url")?;
        if let Some(tags) = resource.member("tags") {
            for tag in tags.items()? {
                let Some(tag_text) = tag.json.as_str() else {
                    return Err(tag.bad("expected a string"));
                };
                let word = text::plain(tag_text, text::MAX_WORDS);
                shared.words.category.get_or_insert(word);
            }
        }
    }
    if let Some(extensions) = terms.object("extensions")? {
        shared.extensions = Some(extensions.json.raw.to_owned());
        shared.needs_identifier = needs_identifier(&extensions)?;
    }
    Ok(shared)
}

/// Sellers may demand a `payment-identifier`. One that already names it leaves no room for ours.
fn needs_identifier(extensions: &Node<'_, '_>) -> Result<bool, RailError> {
    let Some(extension) = extensions.object(IDENTIFIER)? else {
        return Ok(false);
    };
    let Some(info) = extension.object("info")? else {
        return Ok(false);
    };
    let Some(required) = info.member("required") else {
        return Ok(false);
    };
    match required.json.as_bool() {
        None => Err(required.bad("expected true or false")),
        Some(true) if info.json.has("id") => {
            let path = format!("{}.id", info.path);
            Err(RailError::malformed(path, "expected to be left to the payer"))
        }
        Some(required) => Ok(required),
    }
}

/// The extension that carries our payment id.
pub(super) const IDENTIFIER: &str = "payment-identifier";

fn read_words(node: &Node<'_, '_>, url: &str) -> Result<Words, RailError> {
    let words = |key| -> Result<Option<String>, RailError> {
        let found = node.text(key, usize::MAX)?;
        Ok(found.map(|t| text::plain(t, text::MAX_WORDS)).filter(|t| !t.is_empty()))
    };
    Ok(Words {
        description: words("description")?,
        mime_type: words("mimeType")?,
        category: None,
        resource_url: node.text(url, MAX_RESOURCE_URL)?.map(|t| text::plain(t, MAX_RESOURCE_URL)),
    })
}

struct Reader<'t> {
    version: Version,
    shared: &'t Shared,
    assets: &'t AssetTable,
    payer: Address,
}

impl Reader<'_> {
    /// An offer to pay, or the reason to leave it aside; malformed ones end the reading.
    fn offer(&self, index: usize, node: &Node<'_, '_>) -> Result<Result<Offer, Skipped>, RailError> {
        let skip = |code, message: String| Ok(Err(Skipped { rail: "x402", index, code, message }));
        if !node.json.is_object() {
            return Err(node.bad("expected an object"));
        }
        let scheme = node.required_text("scheme", MAX_IDENTIFIER)?;
        if scheme != "exact" {
            let message = format!("has scheme {}, and only `exact` is known", text::token(scheme));
            return skip("unknown-scheme", message);
        }
        let network_name = node.required_text("network", MAX_IDENTIFIER)?;
        let Some(network) = self.network(node, network_name)? else {
            let message = format!("is on network {}, which is not known", text::token(network_name));
            return skip("unknown-network", message);
        };
        let extra = node.object("extra")?;
        for (key, known, code) in [
            ("assetTransferMethod", "eip3009", "unsupported-transfer-method"),
            ("paymentFlow", "authorization", "unsupported-payment-flow"),
        ] {
            let found = extra.as_ref().map(|e| e.text(key, MAX_IDENTIFIER)).transpose()?.flatten();
            if let Some(other) = found.filter(|f| *f != known) {
                let message = format!("wants {key} {}, and only `{known}` is known", text::token(other));
                return skip(code, message);
            }
        }

        let amount = self.amount(node)?;
        let address = node.address("asset")?;
        let pay_to = node.address("payTo")?;
        let max_timeout_seconds = node.timeout()?;
        let domain = |key| extra.as_ref().map(|e| e.text(key, MAX_IDENTIFIER)).transpose();
        let (name, version) = (domain("name")?.flatten(), domain("version")?.flatten());
        let words = match self.version {
            Version::V1 => read_words(node, "resource")?,
            Version::V2 => self.shared.words.clone(),
        };

        let Some(asset) = self.assets.get(network, address) else {
            let (code, what) = if self.assets.knows(network) {
                ("unknown-asset", format!("wants asset {address} on {network}"))
            } else {
                ("unknown-network", format!("is on network {network}"))
            };
            return skip(code, format!("{what}, which is not in the asset table"));
        };
        let agrees = |theirs: Option<&str>, ours: &str| theirs.is_none_or(|t| t == ours);
        if !agrees(name, &asset.eip712.name) || !agrees(version, &asset.eip712.version) {
            let message = format!("gives {} another EIP-712 name or version than its contract has", asset.id);
            return skip("eip712-mismatch", message);
        }
        if let Some(why) = payee_problem(pay_to, address, self.payer) {
            return Err(RailError::PayeeForbidden { path: node.at("payTo"), why });
        }
        if asset.value(amount).is_err() {
            let message = "costs more than a ledger entry can hold".to_owned();
            return skip("amount-above-maximum", message);
        }
        Ok(Ok(Offer {
            protocol: Protocol::X402(self.version),
            index,
            scheme: scheme.to_owned(),
            network,
            network_name: network_name.to_owned(),
            asset: asset.clone(),
            amount,
            pay_to,
            max_timeout_seconds,
            raw: node.json.raw.to_owned(),
            resource: self.shared.resource.clone(),
            extensions: self.shared.extensions.clone(),
            needs_identifier: self.shared.needs_identifier,
            description: words.description,
            mime_type: words.mime_type,
            category: words.category,
            resource_url: words.resource_url,
        }))
    }

    /// None for a network of another kind; an EVM network in a wrong spelling is malformed.
    fn network(&self, node: &Node<'_, '_>, name: &str) -> Result<Option<Network>, RailError> {
        match self.version {
            Version::V1 => Ok(Network::from_v1_name(name)),
            Version::V2 => match name.split_once(':') {
                Some((namespace, _)) if namespace.eq_ignore_ascii_case(Network::NAMESPACE) => name
                    .parse()
                    .map(Some)
                    .map_err(|e: super::NetworkError| RailError::malformed(node.at("network"), e.to_string())),
                _ => Ok(None),
            },
        }
    }

    /// The price under its version's key. The other version's key may be there too, as long as it
    /// says the same: some reader will take that one.
    fn amount(&self, node: &Node<'_, '_>) -> Result<Atomic, RailError> {
        let (key, other) = match self.version {
            Version::V1 => ("maxAmountRequired", "amount"),
            Version::V2 => ("amount", "maxAmountRequired"),
        };
        let price = node.required_text(key, MAX_IDENTIFIER)?;
        if let Some(other) = node.member(other)
            && other.json.as_str() != Some(price)
        {
            return Err(other.bad(format!("expected to be absent or to equal {key}")));
        }
        Atomic::parse_price(price).map_err(|_| {
            let problem = "expected a positive amount below 2^128 in plain decimal digits";
            RailError::malformed(node.at(key), problem)
        })
    }
}

/// Why nobody can mean to pay this payee.
pub(crate) fn payee_problem(pay_to: Address, asset: Address, payer: Address) -> Option<&'static str> {
    if pay_to.is_zero() {
        Some("the zero address is nobody's")
    } else if pay_to == asset {
        Some("the payee is the token's own contract")
    } else if pay_to == payer {
        Some(PAYEE_IS_PAYER)
    } else {
        None
    }
}

pub(super) const PAYEE_IS_PAYER: &str = "the payee is the paying wallet itself";

/// A value and where it was found.
pub(crate) struct Node<'j, 'a> {
    /// The value.
    pub(crate) json: &'j Json<'a>,
    path: String,
}

impl<'j, 'a> Node<'j, 'a> {
    pub(crate) const fn new(json: &'j Json<'a>, path: String) -> Self {
        Self { json, path }
    }

    pub(crate) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn bad(&self, problem: impl Into<String>) -> RailError {
        RailError::malformed(self.path.clone(), problem)
    }

    /// A member that is there and not null.
    pub(crate) fn member(&self, key: &str) -> Option<Node<'j, 'a>> {
        let json = self.json.get(key)?;
        Some(Node { json, path: self.at(key) })
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Node<'j, 'a>>, RailError> {
        match self.member(key) {
            Some(node) if !node.json.is_object() => Err(node.bad("expected an object")),
            node => Ok(node),
        }
    }

    pub(crate) fn items(&self) -> Result<Vec<Node<'j, 'a>>, RailError> {
        let items = self.json.as_array().ok_or_else(|| self.bad("expected a list"))?;
        let nodes =
            items.iter().enumerate().map(|(index, json)| Node { json, path: format!("{}[{index}]", self.path) });
        Ok(nodes.collect())
    }

    pub(crate) fn text(&self, key: &str, max: usize) -> Result<Option<&'j str>, RailError> {
        let Some(node) = self.member(key) else {
            return Ok(None);
        };
        match node.json.as_str() {
            None => Err(node.bad("expected a string")),
            Some(text) if text.len() > max => Err(node.bad(format!("expected at most {max} bytes"))),
            Some(text) => Ok(Some(text)),
        }
    }

    pub(crate) fn required_text(&self, key: &str, max: usize) -> Result<&'j str, RailError> {
        self.text(key, max)?.ok_or_else(|| RailError::malformed(self.at(key), "missing; expected a string"))
    }

    pub(crate) fn address(&self, key: &str) -> Result<Address, RailError> {
        let text = self.required_text(key, MAX_IDENTIFIER)?;
        text.parse().map_err(|e: crate::evm::EvmError| RailError::malformed(self.at(key), e.to_string()))
    }

    fn timeout(&self) -> Result<u32, RailError> {
        let seconds = self
            .json
            .get("maxTimeoutSeconds")
            .and_then(Json::as_u64)
            .and_then(|s| u32::try_from(s).ok())
            .filter(|s| (1..=MAX_TIMEOUT).contains(s));
        seconds.ok_or_else(|| {
            let problem = format!("expected a whole number from 1 to {MAX_TIMEOUT}");
            RailError::malformed(self.at("maxTimeoutSeconds"), problem)
        })
    }
}
