//! `[asset.NAME]`: what can be paid with, over the built-in table.

use std::collections::BTreeMap;

use countersign_core::evm::Address;
use countersign_core::money::Micros;
use countersign_core::time::Timestamp;
use countersign_core::x402::{Asset, AssetTable, Eip712, Network, Quote};

use super::reader::{Item, Read, Table};

const KEYS: &[&str] =
    &["network", "address", "symbol", "decimals", "eip712", "price", "price-as-of", "price-max-age", "price-margin"];
const NOT_DOLLARS: &str = "required where the reference currency is not USD: built-in assets are dollars";
/// What the built-in assets are worth one of.
const DOLLAR: &str = "USD";
/// The longest a price may be believed: a month, in milliseconds.
const OLDEST: u64 = 31 * 86_400_000;
const MISSING: &str = "required for assets that are not built in";

pub(super) fn read(root: &mut Table<'_>, currency: &str) -> Read<AssetTable> {
    let builtin = AssetTable::builtin();
    // A dollar is not one of any other currency: there, what is paid with needs a price of its own.
    let mut table = builtin.clone().only(|_| currency == DOLLAR);
    let mut places = BTreeMap::new();
    let assets = root.named(
        "asset",
        |item, text| item.named(text),
        |name, item| Ok((asset(name, &item, &builtin, currency)?, item)),
    )?;
    for (name, (asset, item)) in assets {
        if let Some(other) = places.insert((asset.network, asset.address), name) {
            return Err(item.error(format!("the same network and address as asset.{other}")));
        }
        table = table.with_override(asset).map_err(|e| item.error(e.problem))?;
    }
    Ok(table)
}

/// One asset; what it does not say is taken from the built-in one of that name, or of that network
/// and address.
fn asset(id: &str, item: &Item<'_>, builtin: &AssetTable, currency: &str) -> Read<Asset> {
    let mut table = item.table(KEYS)?;
    let named = builtin.iter().find(|a| a.id == id);
    let network = match (table.take("network"), named) {
        (Some(item), _) => network(&item)?,
        (None, Some(known)) => known.network,
        (None, None) => return Err(table.missing("network", MISSING)),
    };
    let address = match (table.take("address"), named) {
        (Some(item), _) => item.str()?.parse::<Address>().map_err(|e| item.error(e.to_string()))?,
        (None, Some(known)) => known.address,
        (None, None) => return Err(table.missing("address", MISSING)),
    };
    let base = named.or_else(|| builtin.get(network, address));
    let symbol = match (table.take("symbol"), base) {
        (Some(item), _) => symbol(&item)?,
        (None, Some(known)) => known.symbol.clone(),
        (None, None) => return Err(table.missing("symbol", MISSING)),
    };
    let decimals = match (table.take("decimals"), base) {
        (Some(item), _) => u8::try_from(item.integer(0..=24)?).unwrap_or(u8::MAX),
        (None, Some(known)) => known.decimals,
        (None, None) => return Err(table.missing("decimals", MISSING)),
    };
    let eip712 = match (table.take("eip712"), base) {
        (Some(item), _) => domain(&item)?,
        (None, Some(known)) => known.eip712.clone(),
        (None, None) => return Err(table.missing("eip712", MISSING)),
    };
    let price = match (table.take("price"), base) {
        (Some(item), _) => item.money()?,
        (None, Some(known)) if currency == DOLLAR => known.price,
        (None, Some(_)) => return Err(table.missing("price", NOT_DOLLARS)),
        (None, None) => return Err(table.missing("price", MISSING)),
    };
    let quote = quote(&mut table, price)?;
    Ok(Asset { id: id.to_owned(), network, address, symbol, decimals, eip712, price, quote })
}

/// Where a price is from. One whole unit of the reference currency may be what the asset is; any other
/// price moves, and somebody must have read it at some moment.
fn quote(table: &mut Table<'_>, price: Micros) -> Read<Option<Quote>> {
    let (as_of, max_age, margin) = (table.take("price-as-of"), table.take("price-max-age"), table.take("price-margin"));
    let fixed = matches!(price.get(), 0 | 1_000_000);
    if fixed && as_of.is_none() && max_age.is_none() && margin.is_none() {
        return Ok(None);
    }
    let why = "a price that is not 1 moves: say when it was read, how long it is believed, and what to add for its moving, such as price-as-of = \"2026-11-01T12:00:00Z\", price-max-age = \"24h\", price-margin = \"2%\"";
    let as_of = as_of.ok_or_else(|| table.missing("price-as-of", why))?;
    let max_age = max_age.ok_or_else(|| table.missing("price-max-age", why))?;
    let margin = margin.ok_or_else(|| table.missing("price-margin", why))?;
    let text = as_of.str()?;
    let moment = Timestamp::parse(text)
        .ok_or_else(|| as_of.error(format!("{text:?} is not a moment")).hint("such as \"2026-11-01T12:00:00Z\""))?;
    let age = max_age.millis()?;
    if !(1_000..=OLDEST).contains(&age) {
        return Err(max_age.error("expected 1s to 31d"));
    }
    Ok(Some(Quote { as_of: moment, max_age: age / 1_000, margin_ppm: percent(&margin)? }))
}

/// `"2%"` or `"0.5%"`, up to 50, in parts of a million.
fn percent(item: &Item<'_>) -> Read<u32> {
    let hint = "such as \"2%\", at most \"50%\"";
    let error = || item.error("not a margin").hint(hint);
    let digits = item.str().map_err(|e| e.hint(hint))?.strip_suffix('%').ok_or_else(error)?;
    // Micros of a per cent are hundredths of a millionth.
    let micros = Micros::parse(digits).map_err(|_| error())?.get();
    match u32::try_from(micros / 100) {
        Ok(ppm) if ppm <= 500_000 && micros % 100 == 0 => Ok(ppm),
        _ => Err(error()),
    }
}

fn symbol(item: &Item<'_>) -> Read<String> {
    let text = item.str()?;
    if (1..=16).contains(&text.chars().count()) && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Ok(text.to_owned())
    } else {
        Err(item.error("a symbol is 1 to 16 characters without blanks"))
    }
}

fn domain(item: &Item<'_>) -> Read<Eip712> {
    let mut table = item.table(&["name", "version"])?;
    let why = "exactly what the token's contract says, such as eip712 = { name = \"USDC\", version = \"2\" }";
    let name = table.need("name", why)?.str()?.to_owned();
    let version = table.need("version", why)?.str()?.to_owned();
    Ok(Eip712 { name, version })
}

/// A CAIP-2 network we can pay on.
pub(super) fn network(item: &Item<'_>) -> Read<Network> {
    network_named(item, item.str()?)
}

pub(super) fn network_named(item: &Item<'_>, text: &str) -> Read<Network> {
    text.parse::<Network>().map_err(|e| {
        let error = item.error(format!("{text:?} is not a network: {e}"));
        match Network::from_v1_name(text) {
            Some(network) => error.hint(format!("write \"{network}\"")),
            None => error,
        }
    })
}
