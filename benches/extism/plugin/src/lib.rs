//! The rule of the policy `spend-caps` (plugins/spend-caps) as an Extism plugin: the request as JSON in, the
//! decision as JSON out, the settings from the plugin's config. It reads of a request what the rule needs.

use std::fmt::{self, Write as _};
use std::sync::OnceLock;

use extism_pdk::{Error, config};
use serde::{Deserialize, Serialize};

const HOUR_SECONDS: u32 = 3_600;
const MICROS_PER_UNIT: u64 = 1_000_000;
const MAX_MICROS: u64 = (1 << 53) - 1;

/// Millionths; in settings a decimal string such as `1.00`.
#[derive(Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Money(u64);

impl TryFrom<String> for Money {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        let (whole, fraction) = text.split_once('.').unwrap_or((&text, "0"));
        let well_formed =
            digits(whole) && digits(fraction) && fraction.len() <= 6 && (whole.len() == 1 || !whole.starts_with('0'));
        let micros = || {
            let (whole, fraction): (u64, u64) = (whole.parse().ok()?, format!("{fraction:0<6}").parse().ok()?);
            whole.checked_mul(MICROS_PER_UNIT)?.checked_add(fraction).filter(|micros| *micros <= MAX_MICROS)
        };
        let micros = if well_formed { micros() } else { None };
        micros.map(Self).ok_or_else(|| format!("`{}` is not an amount", text.escape_debug()))
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!("{:06}", self.0 % MICROS_PER_UNIT);
        write!(f, "{}.{:0<2}", self.0 / MICROS_PER_UNIT, fraction.trim_end_matches('0'))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Settings {
    per_payment: Option<Money>,
    per_session: Option<Money>,
    per_agent_hour: Option<Money>,
    per_agent_day: Option<Money>,
    per_agent_month: Option<Money>,
    timezone: Option<String>,
}

#[derive(Deserialize)]
struct Request {
    principal: Principal,
    payment: Payment,
}

#[derive(Deserialize)]
struct Principal {
    agent: String,
    session: Option<String>,
}

#[derive(Deserialize)]
struct Payment {
    value: u64,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Window {
    Rolling(u32),
    Day(String),
    Month(String),
    Lifetime,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Allow,
    Deny,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Unit {
    Micros,
}

#[derive(Serialize)]
struct Reason {
    code: &'static str,
    message: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Hold {
    budget: String,
    unit: Unit,
    window: Window,
    limit: Money,
    amount: Money,
    alert_at: Option<u64>,
    review_at: Option<u64>,
}

impl Hold {
    fn micros(budget: String, window: Window, limit: Money, amount: Money) -> Self {
        Self { budget, unit: Unit::Micros, window, limit, amount, alert_at: None, review_at: None }
    }
}

#[derive(Serialize)]
struct Decision {
    verdict: Verdict,
    reasons: Vec<Reason>,
    holds: Vec<Hold>,
}

struct SpendCaps {
    per_payment: Option<Money>,
    per_session: Option<Money>,
    per_agent: Vec<(Window, Money)>,
}

impl SpendCaps {
    fn configure(settings: Settings) -> Result<Self, Error> {
        let zone = settings.timezone.unwrap_or_else(|| "UTC".to_owned());
        if !is_zone_name(&zone) {
            return Err(Error::msg(format!("`{}` is not an IANA time zone", zone.escape_debug())));
        }
        let per_agent: Vec<(Window, Money)> = [
            (Window::Rolling(HOUR_SECONDS), settings.per_agent_hour),
            (Window::Day(zone.clone()), settings.per_agent_day),
            (Window::Month(zone), settings.per_agent_month),
        ]
        .into_iter()
        .filter_map(|(window, limit)| limit.map(|limit| (window, limit)))
        .collect();
        let policy = Self { per_payment: settings.per_payment, per_session: settings.per_session, per_agent };
        if policy.per_payment.is_none() && policy.per_session.is_none() && policy.per_agent.is_empty() {
            return Err(Error::msg("without a cap everything would be allowed"));
        }
        Ok(policy)
    }

    fn evaluate(&self, request: &Request) -> Decision {
        let value = Money(request.payment.value);
        let mut reasons = Vec::new();
        let mut holds = Vec::new();
        if value == Money(0) {
            reasons.push(Reason { code: "zero-value", message: "the payment is worth nothing".to_owned() });
        }
        if let Some(cap) = self.per_payment.filter(|cap| value > *cap) {
            let message = format!("the payment of {value} is above the {cap} allowed for one payment");
            reasons.push(Reason { code: "above-per-payment", message });
        }
        if let Some(cap) = self.per_session {
            match request.principal.session.as_deref().filter(|id| !id.is_empty()) {
                Some(id) => holds.push(Hold::micros(budget_path(["session", id]), Window::Lifetime, cap, value)),
                None => {
                    let message = "spending is capped per session and this payment belongs to none".to_owned();
                    reasons.push(Reason { code: "no-session", message });
                }
            }
        }
        let agent = budget_path(["agent", &request.principal.agent]);
        holds.extend(
            self.per_agent.iter().map(|(window, cap)| Hold::micros(agent.clone(), window.clone(), *cap, value)),
        );
        if reasons.is_empty() {
            Decision { verdict: Verdict::Allow, reasons, holds }
        } else {
            Decision { verdict: Verdict::Deny, reasons, holds: Vec::new() }
        }
    }
}

fn is_zone_name(text: &str) -> bool {
    let in_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_-+".contains(&byte);
    let is_part = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic()) && part.bytes().all(in_part);
    text.len() <= 64 && text.split('/').all(is_part)
}

fn budget_path<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut path = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            path.push('/');
        }
        for byte in part.bytes() {
            if byte.is_ascii_alphanumeric() || b"._-:".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(path, "@{byte:02x}");
            }
        }
    }
    path
}

/// Made by an instance's first call.
static POLICY: OnceLock<SpendCaps> = OnceLock::new();

fn policy() -> Result<&'static SpendCaps, Error> {
    if let Some(policy) = POLICY.get() {
        return Ok(policy);
    }
    let settings = config::get("settings")?.ok_or_else(|| Error::msg("no `settings` in the plugin's config"))?;
    let policy = SpendCaps::configure(serde_json::from_str(&settings)?)?;
    Ok(POLICY.get_or_init(|| policy))
}

mod export {
    use extism_pdk::{FnResult, Json, plugin_fn};

    use super::{Decision, Request, policy};

    #[plugin_fn]
    pub fn evaluate(Json(request): Json<Request>) -> FnResult<Json<Decision>> {
        Ok(Json(policy()?.evaluate(&request)))
    }
}
