//! Every metric by name, with what it means. Nothing is measured under a name that is not here, and
//! `docs/observability.md` lists exactly these.

/// How a metric's numbers are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// A figure of this moment.
    Gauge,
    /// How many were below which bound.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, the same at `/metrics` and over OTLP.
    pub name: &'static str,
    /// What it counts.
    pub kind: Kind,
    /// What it means.
    pub help: &'static str,
    /// Its labels. Their values come from the configuration and from fixed lists, never from what somebody sent.
    pub labels: &'static [&'static str],
}

macro_rules! metrics {
    ($($constant:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric =
            Metric { name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*] };)*

        /// All of them, in the order they are told in.
        pub const ALL: &[&Metric] = &[$(&$constant),*];
    };
}

metrics! {
    BUILD Gauge "countersign_build_info" ["version"]
        "Always 1; the version that runs.";
    GENERATION Gauge "countersign_generation" []
        "The generation of configuration and policies that serves.";

    PURCHASES Counter "countersign_purchases_total" ["door", "outcome"]
        "Calls of the purchase flow by how they ended: paid, replayed (a kept answer), free, waiting (for people), refused, failed.";
    PURCHASE_SECONDS Histogram "countersign_purchase_duration_seconds" ["outcome"]
        "From a call of the purchase flow to the head of its answer.";
    STEP_SECONDS Histogram "countersign_step_duration_seconds" ["step"]
        "One step of the purchase flow.";
    REFUSALS Counter "countersign_refusals_total" ["door", "code"]
        "Problem answers to agents by code: rate-limited, overloaded and unauthenticated are turned away at the door.";
    RUNNING Gauge "countersign_calls_running" []
        "Payments whose call is running.";
    JUDGING Gauge "countersign_judging" []
        "Judgements that are being made.";

    DECISION_SECONDS Histogram "countersign_policy_decision_duration_seconds" ["policy", "generation"]
        "One policy judging one purchase or quote. The generation is the one its policy set was staged for.";
    DECISIONS Counter "countersign_policy_decisions_total" ["policy", "generation", "answer"]
        "What a policy answered: a verdict, or the code of its failure.";
    POLICY_VALID Gauge "countersign_policy_valid" ["policy", "generation"]
        "1 if the policy can judge, 0 if it failed to load and every purchase it judges is denied.";
    READY Gauge "countersign_policy_ready_instances" ["policy", "generation"]
        "Instances that are ready-made now.";
    RELOADS Counter "countersign_reloads_total" ["result"]
        "Edits and operators' changes of policies: activated, restricted (only what they take away), refused.";
    RELOAD_OK Gauge "countersign_last_reload_ok" []
        "0 while the last edit is refused and the one before it serves.";

    OPEN Gauge "countersign_payments_open" ["state"]
        "Payments that wait for people or for proof, by state.";
    HELD Gauge "countersign_payments_open_value" ["state"]
        "What they hold, in the reference currency.";
    APPROVALS Gauge "countersign_approvals_waiting" []
        "Purchases that wait for people.";
    SESSIONS Gauge "countersign_sessions_open" []
        "Sessions that are neither closed nor over.";

    LEDGER_UP Gauge "countersign_ledger_up" []
        "1 if the ledger could be read for these figures; 0 takes the figures of what is open away.";
    COMMIT_SECONDS Histogram "countersign_ledger_commit_duration_seconds" []
        "One transaction of the ledger's writer, its fsync included.";
    BATCH Histogram "countersign_ledger_batch_jobs" []
        "Writes that shared one transaction.";
    QUEUE Gauge "countersign_ledger_queue_depth" []
        "Writes that wait for the ledger's writer.";

    PROXIED Gauge "countersign_proxy_connections" []
        "Connections through the forward proxy.";
    SHADOWS_DROPPED Counter "countersign_shadow_dropped_total" []
        "Decisions that shadows and monitors did not see because they came too fast.";

    CHAIN_BLOCK Gauge "countersign_chain_final_block" ["network"]
        "The last block that all nodes of the network called final.";
    CHAIN_AGE Gauge "countersign_chain_final_age_seconds" ["network"]
        "How old that block is.";
    CHAIN_FAILURES Counter "countersign_chain_read_failures_total" ["network"]
        "Readings of what is final that failed.";

    ALERTS_WAITING Gauge "countersign_alerts_waiting" []
        "Alerts of which nobody was told yet.";
    ALERTS Counter "countersign_alert_attempts_total" ["result"]
        "Attempts to tell the webhook of an alert: delivered, failed, given-up.";
    EXPORTED Counter "countersign_otlp_exports_total" ["signal", "result"]
        "Messages to the OTLP receiver: sent, failed.";
    SPANS_DROPPED Counter "countersign_otlp_dropped_traces_total" []
        "Traces that were not told because the queue was full or the receiver did not take them.";

    CPU Counter "process_cpu_seconds_total" []
        "Processor time, user and system.";
    MEMORY Gauge "process_resident_memory_bytes" []
        "Memory that is really there.";
    FDS Gauge "process_open_fds" []
        "Open file descriptors.";
    MAX_FDS Gauge "process_max_fds" []
        "How many there may be.";
    STARTED Gauge "process_start_time_seconds" []
        "When the process started, in seconds since 1970.";
}

/// What is told of one metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    /// Which.
    pub metric: &'static Metric,
    /// One for each combination of label values.
    pub samples: Vec<Sample>,
}

/// One figure, or one histogram.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The values of the metric's labels, in their order.
    pub labels: Vec<String>,
    /// The figure.
    pub value: Value,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A histogram: for each bound how many were below it, how many there were, and their sum.
    Histogram {
        /// In the metric's unit, ascending.
        bounds: Vec<f64>,
        /// How many were below each bound.
        below: Vec<u64>,
        /// How many there were.
        count: u64,
        /// Their sum in the metric's unit.
        sum: f64,
    },
}

impl Family {
    /// A metric with its figures.
    #[must_use]
    pub fn new(metric: &'static Metric, samples: impl IntoIterator<Item = Sample>) -> Self {
        Self { metric, samples: samples.into_iter().collect() }
    }

    /// A metric that is one number.
    #[must_use]
    pub fn one(metric: &'static Metric, value: f64) -> Self {
        Self::new(metric, [Sample::new([], value)])
    }
}

impl Sample {
    /// A number under label values.
    #[must_use]
    pub fn new<const N: usize>(labels: [&str; N], value: f64) -> Self {
        Self { labels: labels.map(str::to_owned).into(), value: Value::Number(value) }
    }
}
