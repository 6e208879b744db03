//! What can be paid with. An offer names a token and a number; how many decimals the number has,
//! what a unit is worth and which EIP-712 domain the contract verifies are taken from this table
//! and never from the seller.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::evm::{Address, Eip712Domain};
use crate::money::{Atomic, Micros, MoneyError, Price};
use crate::time::Timestamp;

/// Not a network we can pay on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError;

impl fmt::Display for NetworkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected `eip155:` and a chain id without leading zeros, like `eip155:8453`")
    }
}

impl std::error::Error for NetworkError {}

/// An EVM chain by its id; CAIP-2 on the outside.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(u64);

/// Version 1 of x402 names networks instead of numbering them.
const V1_NAMES: [(&str, u64); 23] = [
    ("abstract", 2741),
    ("abstract-testnet", 11124),
    ("avalanche", 43114),
    ("avalanche-fuji", 43113),
    ("base", 8453),
    ("base-sepolia", 84532),
    ("celo", 42220),
    ("educhain", 41923),
    ("ethereum", 1),
    ("flare", 14),
    ("iotex", 4689),
    ("megaeth", 4326),
    ("monad", 143),
    ("peaq", 3338),
    ("polygon", 137),
    ("polygon-amoy", 80002),
    ("sei", 1329),
    ("sei-testnet", 1328),
    ("sepolia", 11_155_111),
    ("skale-base-sepolia", 324_705_682),
    ("stable", 988),
    ("stable-testnet", 2201),
    ("story", 1514),
];

impl Network {
    /// The CAIP-2 namespace of EVM chains.
    pub const NAMESPACE: &'static str = "eip155";

    /// A chain by its id; none for 0.
    #[must_use]
    pub const fn new(chain_id: u64) -> Option<Self> {
        if chain_id == 0 { None } else { Some(Self(chain_id)) }
    }

    /// The chain id.
    #[must_use]
    pub const fn chain_id(self) -> u64 {
        self.0
    }

    /// The chain that x402 version 1 calls `name`.
    #[must_use]
    pub fn from_v1_name(name: &str) -> Option<Self> {
        let found = V1_NAMES.iter().find(|(n, _)| *n == name)?;
        Some(Self(found.1))
    }

    /// What x402 version 1 calls this chain.
    #[must_use]
    pub fn v1_name(self) -> Option<&'static str> {
        let found = V1_NAMES.iter().find(|(_, id)| *id == self.0)?;
        Some(found.0)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", Self::NAMESPACE, self.0)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (namespace, id) = text.split_once(':').ok_or(NetworkError)?;
        let plain = id.bytes().all(|b| b.is_ascii_digit()) && !id.starts_with('0');
        if namespace != Self::NAMESPACE || !plain {
            return Err(NetworkError);
        }
        id.parse().ok().and_then(Self::new).ok_or(NetworkError)
    }
}

impl Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The part of a token's EIP-712 domain that is not its address: exactly what its contract says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eip712 {
    /// The contract's name, such as `USD Coin`; it differs between chains.
    pub name: String,
    /// The contract's version.
    pub version: String,
}

/// A token with EIP-3009 transfers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asset {
    /// The name configuration overrides it by, such as `usdc-base`.
    pub id: String,
    /// Where it lives.
    pub network: Network,
    /// Its contract.
    pub address: Address,
    /// For people, such as `USDC`.
    pub symbol: String,
    /// How many decimals an atomic amount has.
    pub decimals: u8,
    /// What its signatures are bound to.
    pub eip712: Eip712,
    /// Reference currency per whole unit.
    pub price: Micros,
    /// Where the price is from, unless it is fixed by what the asset is. Recorded with what is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quote: Option<Quote>,
}

/// A price that moves: when it was read, how long it is believed, and what is added because it moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// When somebody read it.
    pub as_of: Timestamp,
    /// How long it is believed, in seconds.
    pub max_age: u64,
    /// Added to every value, in parts of a million.
    pub margin_ppm: u32,
}

impl Quote {
    /// A quote from further ahead than a clock may be wrong, in milliseconds, is not believed either.
    const AHEAD: u64 = 300_000;

    /// Whether it is too old to spend by, or from the future.
    #[must_use]
    pub const fn is_stale(&self, now: Timestamp) -> bool {
        now.since(self.as_of) > self.max_age.saturating_mul(1_000) || self.as_of.since(now) > Self::AHEAD
    }
}

impl Asset {
    /// The reference-currency value of `amount`, its margin included, rounded up.
    ///
    /// # Errors
    /// [`MoneyError::TooLarge`] when the value passes [`Micros::MAX`]; the others only for an asset
    /// that no table admits.
    pub fn value(&self, amount: Atomic) -> Result<Micros, MoneyError> {
        let value = Price::new(self.price, self.decimals)?.value(amount)?;
        let Some(quote) = self.quote else { return Ok(value) };
        let factor = u128::from(quote.margin_ppm).saturating_add(1_000_000);
        let with_margin = u128::from(value.get()).saturating_mul(factor).div_ceil(1_000_000);
        u64::try_from(with_margin).map_err(|_| MoneyError::TooLarge).and_then(Micros::new)
    }

    /// The domain every authorization over this asset is signed under.
    #[must_use]
    pub fn domain(&self) -> Eip712Domain {
        Eip712Domain {
            name: self.eip712.name.clone(),
            version: self.eip712.version.clone(),
            chain_id: self.network.chain_id(),
            verifying_contract: self.address,
        }
    }
}

/// Why an asset was not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssetError {
    /// The asset's id.
    pub id: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl AssetError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        "asset-invalid"
    }
}

impl fmt::Display for AssetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asset.{}: {}", self.id, self.problem)
    }
}

impl std::error::Error for AssetError {}

/// Every asset that may be paid with, by network and address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssetTable {
    assets: BTreeMap<(Network, Address), Asset>,
}

impl AssetTable {
    /// No asset at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self { assets: BTreeMap::new() }
    }

    /// The dollar tokens that x402 sellers ask for, each priced at one unit of the reference
    /// currency. Tokens without EIP-3009 (paid through Permit2) are absent: they cannot be paid.
    #[must_use]
    pub fn builtin() -> Self {
        let assets = BUILTIN.iter().filter_map(Row::asset);
        Self { assets: assets.map(|a| ((a.network, a.address), a)).collect() }
    }

    /// This table with `asset` instead of whatever had its id, or its network and address.
    ///
    /// # Errors
    /// When the asset cannot be priced or signed for.
    pub fn with_override(mut self, asset: Asset) -> Result<Self, AssetError> {
        let problem = if Price::new(asset.price, asset.decimals).is_err() {
            Some("price must be above zero and decimals at most 24")
        } else if asset.address.is_zero() {
            Some("address must not be the zero address")
        } else if asset.eip712.name.is_empty() || asset.eip712.version.is_empty() {
            Some("eip712.name and eip712.version must be what the token's contract says")
        } else {
            None
        };
        if let Some(problem) = problem {
            let id = asset.id;
            return Err(AssetError { id, problem });
        }
        self.assets.retain(|_, a| a.id != asset.id);
        self.assets.insert((asset.network, asset.address), asset);
        Ok(self)
    }

    /// This table without the assets that `keep` does not want.
    #[must_use]
    pub fn only(mut self, keep: impl Fn(&Asset) -> bool) -> Self {
        self.assets.retain(|_, asset| keep(asset));
        self
    }

    /// The asset at an address.
    #[must_use]
    pub fn get(&self, network: Network, address: Address) -> Option<&Asset> {
        self.assets.get(&(network, address))
    }

    /// Whether anything can be paid with on a network.
    #[must_use]
    pub fn knows(&self, network: Network) -> bool {
        self.assets.keys().any(|(n, _)| *n == network)
    }

    /// Every asset, by network and address.
    pub fn iter(&self) -> impl Iterator<Item = &Asset> {
        self.assets.values()
    }
}

struct Row {
    id: &'static str,
    chain_id: u64,
    address: &'static str,
    symbol: &'static str,
    name: &'static str,
    version: &'static str,
}

impl Row {
    /// All of them are dollars with six decimals.
    fn asset(&self) -> Option<Asset> {
        Some(Asset {
            id: self.id.to_owned(),
            network: Network::new(self.chain_id)?,
            address: self.address.parse().ok()?,
            symbol: self.symbol.to_owned(),
            decimals: 6,
            eip712: Eip712 { name: self.name.to_owned(), version: self.version.to_owned() },
            price: Micros::new(1_000_000).ok()?,
            quote: None,
        })
    }
}

const fn row(
    id: &'static str,
    chain_id: u64,
    address: &'static str,
    symbol: &'static str,
    (name, version): (&'static str, &'static str),
) -> Row {
    Row { id, chain_id, address, symbol, name, version }
}

const USD_COIN: (&str, &str) = ("USD Coin", "2");
const USDC: (&str, &str) = ("USDC", "2");

/// From the token tables of the published x402 packages.
#[rustfmt::skip]
const BUILTIN: [Row; 18] = [
    row("usdc-base", 8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USDC", USD_COIN),
    row("usdc-base-sepolia", 84532, "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", USDC),
    row("usdc-ethereum", 1, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USDC", USD_COIN),
    row("usdc-polygon", 137, "0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USDC", USD_COIN),
    row("usdc-arbitrum", 42161, "0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USDC", USD_COIN),
    row("usdc-arbitrum-sepolia", 421_614, "0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", "USDC", USD_COIN),
    row("usdc-avalanche", 43114, "0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USDC", USD_COIN),
    row("usdc-monad", 143, "0x754704Bc059F8C67012fEd69BC8A327a5aafb603", "USDC", USDC),
    row("usdc-celo", 42220, "0xcebA9300f2b948710d2653dD7B07f33A8B32118C", "USDC", USDC),
    row("usdt-celo", 42220, "0x48065fbBE25f71C9282ddf5e1cD6D6A887483D5e", "USDT", ("Tether USD", "1")),
    row("usdc-celo-sepolia", 11_142_220, "0x01C5C0122039549AD1493B8220cABEdD739BC44E", "USDC", USDC),
    row("usdc-sei", 1329, "0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392", "USDC", USDC),
    row("usdc-sei-testnet", 1328, "0x4fCF1784B31630811181f670Aea7A7bEF803eaED", "USDC", USDC),
    row("usdc-xdc", 50, "0xfA2958CB79b0491CC627c1557F441eF849Ca8eb1", "USDC", USDC),
    row("usdc-xdc-testnet", 51, "0xb5AB69F7bBada22B28e79C8FFAECe55eF1c771D4", "USDC", USDC),
    row("usdt0-stable", 988, "0x779Ded0c9e1022225f8E0630b35a9b54bE713736", "USDT0", ("USDT0", "1")),
    row("usdt0-stable-testnet", 2201, "0x78Cf24370174180738C5B8E352B6D14c83a6c9A9", "USDT0", ("USDT0", "1")),
    row("usdt0-flare", 14, "0xe7cd86e13AC4309349F30B3435a9d337750fC82D", "USDT0", ("USD\u{20ae}0", "1")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_spelling() {
        assert_eq!("eip155:8453".parse::<Network>().map(Network::chain_id), Ok(8453));
        assert_eq!(Network(84532).to_string(), "eip155:84532");
        for bad in [
            "",
            "eip155",
            "eip155:",
            "eip155:0",
            "eip155:084532",
            "eip155:+1",
            "eip155: 1",
            "eip155:0x1",
            "eip155:1:2",
            "eip155:*",
            "EIP155:1",
            "base",
            "solana:5eykt4",
            "eip155:18446744073709551616",
            "eip155:１",
        ] {
            assert_eq!(bad.parse::<Network>(), Err(NetworkError), "{bad:?}");
        }
    }

    #[test]
    fn version_1_names_map_both_ways() {
        for (name, id) in V1_NAMES {
            let network = Network::from_v1_name(name).unwrap();
            assert_eq!((network.chain_id(), network.v1_name()), (id, Some(name)));
        }
        assert_eq!(Network::from_v1_name("base").map(Network::chain_id), Some(8453));
        assert_eq!(Network::from_v1_name("eip155:8453"), None);
        assert_eq!(Network::from_v1_name("solana"), None);
    }

    #[test]
    fn every_builtin_row_is_admitted() {
        let table = AssetTable::builtin();
        assert_eq!(table.iter().count(), BUILTIN.len(), "no row is misspelled or doubled");
        for (row, others) in BUILTIN.iter().zip(1..) {
            let asset = row.asset().unwrap();
            assert_eq!(asset.address.to_string(), row.address, "checksummed");
            let later = BUILTIN.iter().skip(others);
            assert!(later.into_iter().all(|r| r.id != row.id), "{}", row.id);
            let found = table.get(asset.network, asset.address).unwrap();
            assert_eq!(found.value(Atomic::new(1000)), Micros::new(1000), "{}", row.id);
            assert!(AssetTable::empty().with_override(asset).is_ok());
        }
    }

    #[test]
    fn an_override_replaces_by_id_and_by_place() {
        let table = AssetTable::builtin();
        let count = table.iter().count();
        let base = Network(84532);
        let usdc: Address = "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap();
        let moved = Asset { address: Address::new([7; 20]), ..table.get(base, usdc).unwrap().clone() };
        let table = table.with_override(moved).unwrap();
        assert_eq!(table.get(base, usdc), None, "the same id lives elsewhere now");
        assert_eq!(table.iter().count(), count);
        let named = Asset { id: "mine".into(), ..table.get(base, Address::new([7; 20])).unwrap().clone() };
        let table = table.with_override(named.clone()).unwrap();
        assert_eq!(table.iter().count(), count);
        assert!(table.knows(base) && !table.knows(Network(99)));

        for (broken, what) in [
            (Asset { price: Micros::ZERO, ..named.clone() }, "price"),
            (Asset { decimals: 25, ..named.clone() }, "decimals"),
            (Asset { address: Address::new([0; 20]), ..named.clone() }, "address"),
            (Asset { eip712: Eip712 { name: String::new(), version: "1".into() }, ..named.clone() }, "eip712"),
        ] {
            let error = table.clone().with_override(broken).unwrap_err();
            assert!(error.to_string().starts_with("asset.mine: ") && error.to_string().contains(what));
        }
        let stored = serde_json::to_string(&named).unwrap();
        assert_eq!(serde_json::from_str::<Asset>(&stored).unwrap(), named);
    }

    #[test]
    fn a_moving_price_is_believed_for_a_while_and_counts_its_margin() {
        let table = AssetTable::builtin();
        let base = table.iter().next().unwrap();
        let as_of = Timestamp::from_secs(1_795_000_000);
        let quote = Quote { as_of, max_age: 60, margin_ppm: 20_000 };
        let moving = Asset { price: Micros::new(1_084_300).unwrap(), quote: Some(quote), ..base.clone() };
        let value = |amount: u64| moving.value(Atomic::new(u128::from(amount))).unwrap().get();
        // 1.0843 and two per cent: each step rounds up.
        assert_eq!([value(1_000_000), value(1), value(7)], [1_105_986, 3, 9]);
        let stale = |secs: u64| quote.is_stale(Timestamp::from_secs(1_795_000_000 + secs - 1_000));
        assert_eq!([stale(1_000), stale(1_060), stale(1_061)], [false, false, true]);
        assert_eq!([stale(700), stale(699)], [false, true], "a price from the future");
    }
}
