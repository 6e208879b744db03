//! `[asset.NAME]`: what can be paid with, over the built-in table.

use std::collections::BTreeMap;

use countersign_core::evm::Address;
use countersign_core::x402::{Asset, AssetTable, Eip712, Network};

use super::reader::{Item, Read, Table};

const KEYS: &[&str] = &["network", "address", "symbol", "decimals", "eip712", "price"];
const MISSING: &str = "required for assets that are not built in";

pub(super) fn read(root: &mut Table<'_>) -> Read<AssetTable> {
    let mut table = AssetTable::builtin();
    let builtin = AssetTable::builtin();
    let mut places = BTreeMap::new();
    let assets =
        root.named("asset", |item, text| item.named(text), |name, item| Ok((asset(name, &item, &builtin)?, item)))?;
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
fn asset(id: &str, item: &Item<'_>, builtin: &AssetTable) -> Read<Asset> {
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
        (None, Some(known)) => known.price,
        (None, None) => return Err(table.missing("price", MISSING)),
    };
    Ok(Asset { id: id.to_owned(), network, address, symbol, decimals, eip712, price })
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
