//! FinOps FOCUS 1.2: one charge per settled purchase, one negative charge per refund.
//!
//! The columns of the specification come first, in its order. Then everything that the other exports know, under `x_`.
//! What is in doubt is no charge. The seller is provider, publisher and issuer at once; the wallet is the billing
//! account, the client the sub-account. No unit price is given: values are rounded up to the millionth, so quantity
//! times price would not be the cost.

use countersign_core::money::Micros;
use countersign_core::time::Timestamp;

use super::{journal, table};
use crate::Entry;
use crate::figures::{self, Day, Places, Sum};
use crate::row::{self, Cell};
use crate::text;

const COLUMNS: [&str; 29] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ResourceId",
    "ServiceCategory",
    "ServiceName",
    "SubAccountId",
    "SubAccountName",
    "Tags",
    "x_ChargeId",
];

/// One charge.
struct Charge<'a> {
    id: &'a str,
    at: Timestamp,
    sum: Sum,
    /// Whether it takes back what was charged.
    refund: bool,
    /// Whether what it takes back was charged in an earlier month.
    correction: bool,
}

pub(super) fn header(out: &mut String) {
    out.push_str(&COLUMNS.join(","));
    for name in table::COLUMNS {
        out.push_str(",x_");
        for part in name.split('_') {
            let mut chars = part.chars();
            out.extend(chars.next().map(|c| c.to_ascii_uppercase()));
            out.push_str(chars.as_str());
        }
    }
    out.push_str("\r\n");
}

pub(super) fn rows(entry: &Entry<'_>, currency: &str, out: &mut String) {
    let payment = entry.payment;
    let Some(at) = figures::settled_at(payment) else {
        return;
    };
    let sum = Sum::settled(payment);
    if sum.amount > 0 {
        let id = payment.id.to_string();
        charge(entry, currency, &Charge { id: &id, at, sum, refund: false, correction: false }, out);
    }
    let month = Day::of(at).month_bounds();
    for (i, (refund, sum)) in Sum::refunds(payment).enumerate() {
        let id = journal::refund_id(payment, i);
        let correction = Day::of(refund.at).month_bounds() != month;
        charge(entry, currency, &Charge { id: &id, at: refund.at, sum, refund: true, correction }, out);
    }
}

fn charge(entry: &Entry<'_>, currency: &str, charge: &Charge<'_>, out: &mut String) {
    let facts = &entry.payment.facts;
    let principal = &facts.principal;
    let sign = if charge.refund { "-" } else { "" };
    let cost = |out: &mut String| {
        out.push_str(sign);
        figures::decimal(out, u128::from(charge.sum.value), Micros::DECIMALS, Places::Least);
        out.push(',');
    };
    let foreign = |out: &mut String, value: Option<&str>| {
        if let Some(value) = value {
            text::csv(out, value);
        }
        out.push(',');
    };
    let midnight = |out: &mut String, day: Day| {
        day.write(out);
        out.push_str("T00:00:00Z,");
    };
    let (first, next) = Day::of(charge.at).month_bounds();

    cost(out);
    foreign(out, Some(&facts.wallet));
    foreign(out, Some(&facts.wallet));
    foreign(out, Some(currency));
    midnight(out, next);
    midnight(out, first);
    out.push_str("Usage,");
    out.push_str(if charge.correction { "Correction," } else { "," });
    let what = if charge.refund { "refund of " } else { "" };
    foreign(out, Some(&format!("{what}{} {}", facts.method, facts.url)));
    out.push_str("Usage-Based,");
    figures::second(out, charge.at.plus_millis(1_000));
    out.push(',');
    figures::second(out, charge.at);
    out.push(',');
    out.push_str(if charge.refund { ",," } else { "1,Requests," });
    cost(out);
    cost(out);
    foreign(out, Some(&facts.host));
    cost(out);
    out.push_str(sign);
    figures::decimal(out, charge.sum.amount, facts.asset_decimals, Places::Least);
    out.push(',');
    foreign(out, Some(&facts.asset_symbol));
    foreign(out, Some(&facts.host));
    foreign(out, Some(&facts.host));
    foreign(out, Some(&facts.url));
    out.push_str("Other,");
    foreign(out, Some(&facts.host));
    foreign(out, principal.client.as_deref());
    foreign(out, principal.client.as_deref());
    let tags: [(&'static str, Option<&String>); 7] = [
        ("workspace", principal.workspace.as_ref()),
        ("agent", Some(&principal.agent)),
        ("user", principal.user.as_ref()),
        ("session", principal.session.as_ref()),
        ("client", principal.client.as_ref()),
        ("project", principal.project.as_ref()),
        ("task", principal.task.as_ref()),
    ];
    let cells: Vec<_> =
        tags.into_iter().filter_map(|(name, value)| value.map(|value| (name, Cell::Text(value)))).collect();
    let mut json = String::new();
    table::json_object(&mut json, &cells);
    table::quote_json(out, &json);
    out.push(',');
    out.push_str(charge.id);
    out.push(',');
    row::write(entry, currency, &mut table::Csv::new(out));
    out.push_str("\r\n");
}
