//! The certificate authority of the forward proxy, and TLS in the name of the hosts it may speak for.
//!
//! The authority is one key under one name. Its own certificate is made each time somebody asks, for the
//! hosts that are intercepted then: whoever trusts it trusts the gateway with exactly these. Nothing here
//! reads a clock, a disk or a socket.

mod leaves;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

pub use leaves::Leaves;

/// Clocks of clients may be behind ours by this much, in seconds.
const SKEW: u64 = 3_600;
/// The last second that is written into a certificate: the year 2100.
const LAST: u64 = 4_102_444_800;
/// What the authority calls itself.
const NAME: &str = "Countersign local proxy";
/// Stands where no name is meant: nobody can have it (RFC 6761).
const NOBODY: &str = "countersign.invalid";

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaError(String);

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CaError {}

impl From<rcgen::Error> for CaError {
    fn from(error: rcgen::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<rustls::Error> for CaError {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

/// Whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A name in lower case; as a bound also everything under it.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(ip) => fmt::Display::fmt(ip, f),
        }
    }
}

/// From when until when, and under which number. Numbers must not repeat.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// Unix seconds of now.
    pub now: u64,
    /// How long, in seconds.
    pub seconds: u64,
    /// Random bytes.
    pub serial: [u8; 16],
}

/// A key and a name that vouch for hosts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, CaError> {
        Ok(Self::of(KeyPair::generate()?))
    }

    /// The one whose key this is, as [`Self::key_pem`] wrote it.
    ///
    /// # Errors
    /// When it is not a key of ours.
    pub fn from_pem(text: &[u8]) -> Result<Self, CaError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(text).map_err(|_| CaError("not a PKCS #8 key in PEM".into()))?;
        Ok(Self::of(KeyPair::from_pkcs8_der_and_sign_algo(&key, &rcgen::PKCS_ECDSA_P256_SHA256)?))
    }

    /// Its private key. Whoever has it can be any host for those who trust the authority.
    #[must_use]
    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", self.issuer.key().serialized_der())
    }

    /// Its certificate in PEM, good for `hosts` and what is under them, and for nobody else.
    ///
    /// # Errors
    /// When a name is none.
    pub fn certificate(&self, hosts: &[Host], validity: Validity) -> Result<String, CaError> {
        let mut params = named();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.name_constraints = Some(constraints(hosts));
        set_validity(&mut params, validity);
        let certificate = params.self_signed(self.issuer.key())?;
        Ok(pem("CERTIFICATE", certificate.der()))
    }

    /// A certificate for one host, and the key to it.
    fn leaf(
        &self,
        host: &Host,
        validity: Validity,
    ) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let name = match host {
            Host::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Host::Address(ip) => SanType::IpAddress(*ip),
        };
        params.subject_alt_names = vec![name];
        params.distinguished_name = DistinguishedName::new();
        // A common name has at most 64 letters; clients look at the alternative name only.
        params.distinguished_name.push(DnType::OrganizationName, NAME);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), key))
    }

    fn of(key: KeyPair) -> Self {
        Self { issuer: Issuer::new(named(), key) }
    }
}

/// What every certificate of the authority says about it.
fn named() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, NAME);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let at = |seconds: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.min(LAST));
    params.not_before = at(validity.now.saturating_sub(SKEW));
    params.not_after = at(validity.now.saturating_add(validity.seconds));
    params.serial_number = Some(SerialNumber::from_slice(&positive(validity.serial)));
}

/// A serial number is a positive integer of at most twenty bytes.
fn positive(mut bytes: [u8; 16]) -> [u8; 16] {
    if let Some(first) = bytes.first_mut() {
        *first = (*first & 0x7f) | 0x40;
    }
    bytes
}

/// What is not said of a kind of name leaves it free: every kind a server can have is bound.
fn constraints(hosts: &[Host]) -> NameConstraints {
    let names = hosts.iter().filter_map(|host| match host {
        Host::Name(name) => Some(GeneralSubtree::DnsName(name.clone())),
        Host::Address(_) => None,
    });
    let addresses = hosts.iter().filter_map(|host| match host {
        Host::Name(_) => None,
        Host::Address(ip) => Some(only(*ip)),
    });
    let mut names: Vec<_> = names.collect();
    if names.is_empty() {
        names.push(GeneralSubtree::DnsName(NOBODY.to_owned()));
    }
    let addresses: Vec<_> = addresses.collect();
    let mut excluded = Vec::new();
    if addresses.is_empty() {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])));
    }
    NameConstraints { permitted_subtrees: names.into_iter().chain(addresses).collect(), excluded_subtrees: excluded }
}

fn only(ip: IpAddr) -> GeneralSubtree {
    GeneralSubtree::IpAddress(match ip {
        IpAddr::V4(ip) => CidrSubnet::V4(ip.octets(), [0xff; 4]),
        IpAddr::V6(ip) => CidrSubnet::V6(ip.octets(), [0xff; 16]),
    })
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let mut text = format!("-----BEGIN {label}-----\n");
    for chunk in der.chunks(48) {
        text.push_str(&BASE64.encode(chunk));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}
