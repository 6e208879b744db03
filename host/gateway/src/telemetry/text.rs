//! Metrics as Prometheus reads them: the text format, version 0.0.4.

use std::fmt::Write as _;

use super::catalog::{Family, Kind, Metric, Sample, Value};

/// The media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole page.
#[must_use]
pub fn page(families: &[Family]) -> String {
    let mut out = String::new();
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        let Metric { name, kind, help, .. } = family.metric;
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string does not fail.
        let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for sample in &family.samples {
            write_sample(&mut out, family.metric, sample);
        }
    }
    out
}

fn write_sample(out: &mut String, metric: &Metric, sample: &Sample) {
    let name = metric.name;
    match &sample.value {
        Value::Number(number) => {
            let _ = writeln!(out, "{name}{} {number}", labels(metric, sample, None));
        }
        Value::Histogram { bounds, below, count, sum } => {
            for (bound, below) in bounds.iter().zip(below) {
                let _ = writeln!(out, "{name}_bucket{} {below}", labels(metric, sample, Some(&bound.to_string())));
            }
            let _ = writeln!(out, "{name}_bucket{} {count}", labels(metric, sample, Some("+Inf")));
            let plain = labels(metric, sample, None);
            let _ = writeln!(out, "{name}_sum{plain} {sum}\n{name}_count{plain} {count}");
        }
    }
}

fn labels(metric: &Metric, sample: &Sample, le: Option<&str>) -> String {
    let own = metric.labels.iter().copied().zip(sample.labels.iter().map(String::as_str));
    let all: Vec<String> = own.chain(le.map(|le| ("le", le))).map(|(n, v)| format!("{n}=\"{}\"", escape(v))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::catalog;

    #[test]
    fn a_page_reads_as_prometheus_wants_it() {
        let histogram =
            Value::Histogram { bounds: vec![0.000_016, 1.5], below: vec![1, 3], count: 4, sum: 7.000_000_25 };
        let families = [
            Family::new(&catalog::RELOADS, [Sample::new(["a\"b\\c\nd"], 3.0)]),
            Family::one(&catalog::CPU, 0.25),
            Family::new(&catalog::SESSIONS, []),
            Family::new(&catalog::STEP_SECONDS, [Sample { labels: vec!["fetch".to_owned()], value: histogram }]),
        ];
        let expected = format!(
            r#"# HELP countersign_reloads_total {}
# TYPE countersign_reloads_total counter
countersign_reloads_total{{result="a\"b\\c\nd"}} 3
# HELP process_cpu_seconds_total {}
# TYPE process_cpu_seconds_total counter
process_cpu_seconds_total 0.25
# HELP countersign_step_duration_seconds {}
# TYPE countersign_step_duration_seconds histogram
countersign_step_duration_seconds_bucket{{step="fetch",le="0.000016"}} 1
countersign_step_duration_seconds_bucket{{step="fetch",le="1.5"}} 3
countersign_step_duration_seconds_bucket{{step="fetch",le="+Inf"}} 4
countersign_step_duration_seconds_sum{{step="fetch"}} 7.00000025
countersign_step_duration_seconds_count{{step="fetch"}} 4
"#,
            catalog::RELOADS.help,
            catalog::CPU.help,
            catalog::STEP_SECONDS.help
        );
        assert_eq!(page(&families), expected);
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut names: Vec<&str> = catalog::ALL.iter().map(|m| m.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
        for metric in catalog::ALL {
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            let named = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(named(metric.name) && metric.labels.iter().all(|label| named(label)), "{}", metric.name);
            assert!(!metric.help.contains(['\\', '\n']), "{}", metric.name);
        }
    }
}
