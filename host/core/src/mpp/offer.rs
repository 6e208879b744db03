//! From a challenge to an offer that could be paid.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::challenge::{Challenge, place};
use crate::evm::Address;
use crate::json::Json;
use crate::money::Atomic;
use crate::time::Timestamp;
use crate::x402::{
    AssetTable, MAX_IDENTIFIER, MAX_TIMEOUT, Network, Node, Offer, Offers, Protocol, RailError, Skipped, payee_problem,
    text,
};

/// The one method and intent that are paid, and what pays them.
const METHOD: &str = "evm";
const INTENT: &str = "charge";
pub(super) const CREDENTIAL: &str = "authorization";
/// The header that carries it.
pub(super) const HEADER: &str = "authorization";
const MAX_REQUEST: usize = 16 * 1024;

/// The offers in these challenges. One that is malformed makes all of them suspect. `sent` is the SHA-256 of the body that is
/// sent, where a digest can be of one.
pub(super) fn read(
    challenges: Vec<Challenge>,
    sent: Option<[u8; 32]>,
    assets: &AssetTable,
    payer: Address,
) -> Result<Offers, RailError> {
    let reader = Reader { sent, assets, payer };
    let (mut offers, mut skipped) = (Vec::new(), Vec::new());
    for (index, challenge) in challenges.into_iter().enumerate() {
        match reader.offer(index, challenge)? {
            Ok(offer) => offers.push(offer),
            Err(skip) => skipped.push(skip),
        }
    }
    if offers.is_empty() {
        return Err(RailError::NothingPayable(skipped));
    }
    Ok(Offers { offers, skipped, error: None })
}

struct Reader<'t> {
    sent: Option<[u8; 32]>,
    assets: &'t AssetTable,
    payer: Address,
}

impl Reader<'_> {
    /// An offer to pay, or the reason to leave it aside.
    fn offer(&self, index: usize, challenge: Challenge) -> Result<Result<Offer, Skipped>, RailError> {
        let skip = |code, message: String| Ok(Err(Skipped { rail: "mpp", index, code, message }));
        let at = |name: &str| format!("{}.{name}", place(index));
        for (what, said, known, code) in [
            ("method", &challenge.method, METHOD, "unknown-method"),
            ("intent", &challenge.intent, INTENT, "unknown-intent"),
        ] {
            if said != known {
                return skip(code, format!("has {what} {}, and only `{known}` is known", text::token(said)));
            }
        }
        // A credential in any other place than the seller's is one that is shown to strangers.
        if let Some(header) = challenge.header.as_deref().filter(|name| !name.eq_ignore_ascii_case(HEADER)) {
            let message = format!("wants the credential in {}, and it is only sent in `{HEADER}`", text::token(header));
            return skip("unsupported-header", message);
        }
        if let Some(expires) = &challenge.expires
            && Timestamp::parse(expires).is_none()
        {
            return Err(RailError::malformed(at("expires"), "expected a moment in RFC 3339"));
        }
        if let Some(digest) = &challenge.digest
            && !self.is_digest(digest)
        {
            let message = "is for another body than is sent, or its digest is not of SHA-256".to_owned();
            return skip("digest-mismatch", message);
        }
        let bytes = challenge.request().map_err(|problem| RailError::malformed(at("request"), problem))?;
        let json = Json::parse(&bytes, MAX_REQUEST).map_err(|e| RailError::malformed(at("request"), e.to_string()))?;
        let request = Node::new(&json, at("request"));
        if !json.is_object() {
            return Err(request.bad("expected a JSON object"));
        }
        let Some(details) = request.object("methodDetails")? else {
            return Err(RailError::malformed(request.at("methodDetails"), "missing; expected an object"));
        };
        if details.member("version").is_some_and(|version| version.json.as_u64() != Some(1)) {
            return skip("unknown-version", "follows a version of its method that is not known".to_owned());
        }
        if !takes_authorizations(&details)? {
            let message = format!("does not take `{CREDENTIAL}`, and no other credential is known");
            return skip("unsupported-credential", message);
        }
        if details.member("splits").is_some() {
            return skip("unsupported-splits", "wants the payment split, which no authorization can do".to_owned());
        }
        let network = details.json.get("chainId").and_then(Json::as_u64).and_then(Network::new).ok_or_else(|| {
            RailError::malformed(details.at("chainId"), "expected the chain's number, a whole one above 0")
        })?;
        let amount = Atomic::parse_price(request.required_text("amount", MAX_IDENTIFIER)?).map_err(|_| {
            let problem = "expected a positive amount below 2^128 in plain decimal digits";
            RailError::malformed(request.at("amount"), problem)
        })?;
        let address = request.address("currency")?;
        let pay_to = request.address("recipient")?;
        let words = request.text("description", usize::MAX)?;
        let words = challenge.description.as_deref().or(words);
        let description = words.map(|t| text::plain(t, text::MAX_WORDS)).filter(|t| !t.is_empty());

        let Some(asset) = self.assets.get(network, address) else {
            let (code, what) = if self.assets.knows(network) {
                ("unknown-asset", format!("wants asset {address} on {network}"))
            } else {
                ("unknown-network", format!("is on network {network}"))
            };
            return skip(code, format!("{what}, which is not in the asset table"));
        };
        if details.member("decimals").is_some_and(|d| d.json.as_u64() != Some(u64::from(asset.decimals))) {
            return skip("decimals-mismatch", format!("gives {} other decimals than its contract has", asset.id));
        }
        if let Some(why) = payee_problem(pay_to, address, self.payer) {
            return Err(RailError::PayeeForbidden { path: request.at("recipient"), why });
        }
        if asset.value(amount).is_err() {
            return skip("amount-above-maximum", "costs more than a ledger entry can hold".to_owned());
        }
        Ok(Ok(Offer {
            index,
            scheme: INTENT.to_owned(),
            network,
            network_name: network.to_string(),
            asset: asset.clone(),
            amount,
            pay_to,
            max_timeout_seconds: MAX_TIMEOUT,
            raw: json.raw.to_owned(),
            resource: None,
            extensions: None,
            needs_identifier: false,
            description,
            mime_type: None,
            category: None,
            resource_url: None,
            protocol: Protocol::Mpp(Box::new(challenge)),
        }))
    }

    /// Whether a digest is that of the body that is sent, as RFC 9530 writes it or as the reference server does.
    fn is_digest(&self, said: &str) -> bool {
        let ours = self.sent.map(|sent| STANDARD.encode(sent));
        let value = said.strip_prefix("sha-256=");
        let value = value.map(|v| v.strip_prefix(':').and_then(|v| v.strip_suffix(':')).unwrap_or(v));
        ours.is_some() && value == ours.as_deref()
    }
}

/// A seller that does not say what it takes need not take authorizations.
fn takes_authorizations(details: &Node<'_, '_>) -> Result<bool, RailError> {
    let Some(list) = details.member("credentialTypes") else { return Ok(false) };
    let mut takes = false;
    for item in list.items()? {
        let Some(kind) = item.json.as_str() else { return Err(item.bad("expected a string")) };
        takes |= kind == CREDENTIAL;
    }
    Ok(takes)
}
