//! Traces and metrics as OTLP's JSON encoding has them (opentelemetry-proto 1): identifiers in hex, 64-bit
//! integers as text, kinds as numbers.

use serde_json::{Value, json};

use super::attributes::{Attributes, Said};
use super::catalog::{Family, Kind, Metric, Sample, Value as Figure};
use super::trace::Finished;

/// `SPAN_KIND_SERVER`, `SPAN_KIND_INTERNAL`, `STATUS_CODE_ERROR`, `AGGREGATION_TEMPORALITY_CUMULATIVE`.
const SERVER: u8 = 2;
const INTERNAL: u8 = 1;
const ERROR: u8 = 2;
const CUMULATIVE: u8 = 2;

/// Who tells.
#[derive(Clone, Debug)]
pub struct Source {
    /// This store, for as long as it lives: several gateways report to one receiver.
    pub instance: String,
}

impl Source {
    fn resource(&self) -> Value {
        let attribute = |name: &str, value: &str| json!({"key": name, "value": {"stringValue": value}});
        json!({"attributes": [
            attribute("service.name", "countersign"),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", &self.instance),
        ]})
    }

    fn scope() -> Value {
        json!({"name": "countersign", "version": env!("CARGO_PKG_VERSION")})
    }

    /// The body of `/v1/traces`.
    #[must_use]
    pub fn traces(&self, traces: &[Finished]) -> Value {
        let spans: Vec<Value> = traces.iter().flat_map(spans).collect();
        json!({"resourceSpans": [{"resource": self.resource(), "scopeSpans": [{"scope": Self::scope(), "spans": spans}]}]})
    }

    /// The body of `/v1/metrics`, at nanoseconds since the epoch, counted since `started`.
    #[must_use]
    pub fn metrics(&self, families: &[Family], started: u64, at: u64) -> Value {
        let metrics: Vec<Value> =
            families.iter().filter(|f| !f.samples.is_empty()).map(|f| metric(f, started, at)).collect();
        json!({"resourceMetrics": [{"resource": self.resource(), "scopeMetrics": [{"scope": Self::scope(), "metrics": metrics}]}]})
    }
}

fn spans(trace: &Finished) -> Vec<Value> {
    let id = hex::encode(trace.trace);
    let span_id = |number: u64| hex::encode(trace.root.saturating_add(number).to_be_bytes());
    let at = |nanos: u64| trace.began.saturating_add(nanos).to_string();
    let status = |failed: Option<&str>| match failed {
        Some(code) => json!({"code": ERROR, "message": code}),
        None => json!({}),
    };
    let mut root = json!({
        "traceId": id,
        "spanId": span_id(0),
        "name": trace.name,
        "kind": SERVER,
        "startTimeUnixNano": at(0),
        "endTimeUnixNano": at(trace.took),
        "attributes": attributes(&trace.attributes),
        "status": status(trace.failed),
    });
    if let (Some(parent), Some(root)) = (trace.parent, root.as_object_mut()) {
        root.insert("parentSpanId".to_owned(), hex::encode(parent).into());
    }
    let steps = trace.spans.iter().map(|span| {
        json!({
            "traceId": id,
            "spanId": span_id(span.number),
            "parentSpanId": span_id(span.parent),
            "name": span.name,
            "kind": INTERNAL,
            "startTimeUnixNano": at(span.began),
            "endTimeUnixNano": at(span.ended),
            "attributes": attributes(&span.attributes),
            "status": status(span.failed),
        })
    });
    std::iter::once(root).chain(steps).collect()
}

fn attributes(of: &Attributes) -> Vec<Value> {
    let mut all = Vec::with_capacity(of.len());
    for (key, said) in of {
        let value = match said {
            Said::Text(text) => json!({"stringValue": text}),
            Said::Number(number) => json!({"intValue": number.to_string()}),
            Said::Flag(flag) => json!({"boolValue": flag}),
            Said::List(list) => {
                let values: Vec<Value> = list.iter().map(|text| json!({"stringValue": text})).collect();
                json!({"arrayValue": {"values": values}})
            }
        };
        if let Some(alias) = key.alias {
            all.push(json!({"key": alias, "value": value}));
        }
        all.push(json!({"key": key.name, "value": value}));
    }
    all
}

fn metric(family: &Family, started: u64, at: u64) -> Value {
    let Metric { name, kind, help, .. } = family.metric;
    let points: Vec<Value> = family.samples.iter().map(|sample| point(family.metric, sample, started, at)).collect();
    let unit = if name.ends_with("_seconds") || name.ends_with("_seconds_total") {
        "s"
    } else if name.ends_with("_bytes") {
        "By"
    } else {
        "1"
    };
    let (form, data) = match kind {
        Kind::Gauge => ("gauge", json!({"dataPoints": points})),
        Kind::Counter => {
            ("sum", json!({"dataPoints": points, "aggregationTemporality": CUMULATIVE, "isMonotonic": true}))
        }
        Kind::Histogram => ("histogram", json!({"dataPoints": points, "aggregationTemporality": CUMULATIVE})),
    };
    json!({"name": name, "description": help, "unit": unit, form: data})
}

fn point(metric: &Metric, sample: &Sample, started: u64, at: u64) -> Value {
    let labels: Vec<Value> = metric
        .labels
        .iter()
        .zip(&sample.labels)
        .map(|(name, value)| json!({"key": name, "value": {"stringValue": value}}))
        .collect();
    let mut point = match &sample.value {
        Figure::Number(number) => json!({"asDouble": number}),
        Figure::Histogram { bounds, below, count, sum } => {
            // Each bucket alone, where Prometheus has all below it.
            let before = std::iter::once(0).chain(below.iter().copied());
            let each = before.zip(below.iter().copied().chain([*count]));
            let buckets: Vec<String> = each.map(|(less, more)| more.saturating_sub(less).to_string()).collect();
            json!({"count": count.to_string(), "sum": sum, "bucketCounts": buckets, "explicitBounds": bounds})
        }
    };
    if let Some(point) = point.as_object_mut() {
        point.insert("attributes".to_owned(), labels.into());
        point.insert("startTimeUnixNano".to_owned(), started.to_string().into());
        point.insert("timeUnixNano".to_owned(), at.to_string().into());
    }
    point
}
