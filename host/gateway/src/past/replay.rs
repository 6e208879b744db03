//! Replay: a recorded decision, made again from the record alone, must come out bit for bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use countersign_core::id::{DecisionId, PaymentId};
use countersign_core::ledger::{Ledger, LedgerError, Past, PastDecision};
use countersign_core::seams::Judge;
use countersign_core::verdict::{FailureKind, Opinion};
use countersign_engine::{Engine, PolicySet, PolicySpec, Start};
use serde::Serialize;
use serde_json::{Value, json};

use super::{PATIENCE_MS, Stream};

/// Staged policies kept at once; each is staged once as long as no more than these alternate.
const MOST_STAGED: usize = 64;
/// Mismatches that are told one by one.
const MOST_TOLD: usize = 100;
/// Decisions named for each reason why something was not replayed.
const MOST_NAMED: usize = 20;
/// Differences told of one opinion.
const MOST_DIFFERENCES: usize = 20;

/// What a replay found.
#[derive(Debug, Default, Serialize)]
pub struct Replay {
    /// Decisions read.
    pub decisions: u64,
    /// Opinions judged again, and equal.
    pub matched: u64,
    /// Decisions of which something differs.
    pub mismatched: u64,
    /// The first of them.
    pub mismatches: Vec<Mismatch>,
    /// Opinions that cannot be judged again, by reason.
    pub not_replayable: BTreeMap<&'static str, Skipped>,
}

/// Opinions that cannot be judged again.
#[derive(Debug, Default, Serialize)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// The first of their decisions.
    pub decisions: Vec<DecisionId>,
}

/// A decision that did not come out as recorded.
#[derive(Debug, Serialize)]
pub struct Mismatch {
    /// Which.
    pub decision: DecisionId,
    /// Its payment.
    pub payment: PaymentId,
    /// The policy; none when it is the record itself.
    pub policy: Option<String>,
    /// What differs.
    pub differs: Vec<Difference>,
}

/// One difference.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Where, as a JSON pointer into the opinion.
    pub at: String,
    /// What the record says.
    pub recorded: Value,
    /// What came out now.
    pub replayed: Value,
}

/// Why an opinion was not compared.
enum Not {
    Replayable(&'static str),
    Same(Vec<Difference>),
}

/// Judges again; `progress` is told of every page.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn replay(
    ledger: &dyn Ledger,
    engine: &Arc<Engine>,
    which: Past,
    mut progress: impl FnMut(u64),
) -> Result<Replay, LedgerError> {
    let mut found = Replay::default();
    let mut staged = Staged { engine, ledger, sets: BTreeMap::new() };
    let mut stream = Stream::new(ledger, which);
    loop {
        let page = stream.page().await?;
        if page.is_empty() {
            return Ok(found);
        }
        for decision in &page {
            found.one(&mut staged, decision).await?;
        }
        progress(u64::try_from(page.len()).unwrap_or(u64::MAX));
    }
}

impl Replay {
    /// Whether everything that can be judged again came out as recorded.
    #[must_use]
    pub const fn is_faithful(&self) -> bool {
        self.mismatched == 0
    }

    async fn one(&mut self, staged: &mut Staged<'_>, decision: &PastDecision) -> Result<(), LedgerError> {
        self.decisions = self.decisions.saturating_add(1);
        let id = decision.record.id;
        let mut wrong = Vec::new();
        if let Some(damage) = &decision.damage {
            wrong.push((None, vec![difference("", json!("as recorded"), json!(damage))]));
        }
        for opinion in &decision.record.judgement.opinions {
            match staged.again(opinion, decision).await? {
                None => self.matched = self.matched.saturating_add(1),
                Some(Not::Same(differs)) => wrong.push((Some(opinion.policy.clone()), differs)),
                Some(Not::Replayable(why)) => {
                    let skipped = self.not_replayable.entry(why).or_default();
                    skipped.count = skipped.count.saturating_add(1);
                    if skipped.decisions.len() < MOST_NAMED {
                        skipped.decisions.push(id);
                    }
                }
            }
        }
        if !wrong.is_empty() {
            self.mismatched = self.mismatched.saturating_add(1);
        }
        for (policy, differs) in wrong {
            if self.mismatches.len() < MOST_TOLD {
                self.mismatches.push(Mismatch { decision: id, payment: decision.payment, policy, differs });
            }
        }
        Ok(())
    }
}

/// Module, settings, name, and whether it is shown claims: all that an opinion depends on beside the
/// request.
type Key = (String, String, String, bool);

struct Staged<'a> {
    engine: &'a Arc<Engine>,
    ledger: &'a dyn Ledger,
    sets: BTreeMap<Key, Arc<PolicySet>>,
}

impl Staged<'_> {
    async fn again(&mut self, recorded: &Opinion, decision: &PastDecision) -> Result<Option<Not>, LedgerError> {
        if let Err(failure) = &recorded.outcome
            && matches!(failure.kind, FailureKind::Timeout | FailureKind::Unavailable)
        {
            return Ok(Some(Not::Replayable(failure.kind.code())));
        }
        let set = match self.set(recorded).await? {
            Ok(set) => set,
            Err(not) => return Ok(Some(not)),
        };
        let judgement = set.judge(std::slice::from_ref(&recorded.policy), &decision.record.request);
        let Some(replayed) = judgement.opinions.first() else { return Ok(Some(Not::Replayable("not-asked"))) };
        if let Err(failure) = &replayed.outcome
            && matches!(failure.kind, FailureKind::Timeout | FailureKind::Unavailable)
        {
            return Ok(Some(Not::Replayable("too-slow-here")));
        }
        let mut differs = Vec::new();
        compare("", &comparable(recorded), &comparable(replayed), &mut differs);
        Ok((!differs.is_empty()).then_some(Not::Same(differs)))
    }

    async fn set(&mut self, recorded: &Opinion) -> Result<Result<Arc<PolicySet>, Not>, LedgerError> {
        let key = (
            recorded.module_sha256.clone(),
            recorded.settings_sha256.clone(),
            recorded.policy.clone(),
            recorded.claims,
        );
        if let Some(set) = self.sets.get(&key) {
            return Ok(Ok(Arc::clone(set)));
        }
        let module = match self.blob(&recorded.module_sha256, "module-missing", "/module_sha256").await {
            Ok(module) => module,
            Err(not) => return Ok(Err(not)),
        };
        let settings = match self.blob(&recorded.settings_sha256, "settings-missing", "/settings_sha256").await {
            Ok(settings) => String::from_utf8_lossy(&settings).into_owned(),
            Err(not) => return Ok(Err(not)),
        };
        let spec = PolicySpec {
            deadline_ms: PATIENCE_MS,
            claims: recorded.claims,
            settings,
            start: Start::Plain,
            ..PolicySpec::new(recorded.policy.as_str(), module)
        };
        let set = match self.engine.stage(0, &[spec]) {
            Ok(set) => Arc::new(set),
            Err(error) => {
                return Ok(Err(Not::Same(vec![difference("", json!("it was loaded"), json!(error.to_string()))])));
            }
        };
        if self.sets.len() >= MOST_STAGED {
            self.sets.clear();
        }
        self.sets.insert(key, Arc::clone(&set));
        Ok(Ok(set))
    }

    /// Remembered bytes, which the ledger gives only as long as they are what they are called.
    async fn blob(&self, sha256: &str, missing: &'static str, at: &str) -> Result<Vec<u8>, Not> {
        let mut digest = [0; 32];
        hex::decode_to_slice(sha256, &mut digest).map_err(|_| Not::Replayable(missing))?;
        match self.ledger.blob(digest).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(Not::Replayable(missing)),
            Err(error) => Err(Not::Same(vec![difference(at, json!(sha256), json!(error.to_string()))])),
        }
    }
}

/// Everything of an opinion but how long it took and whether it counted.
fn comparable(opinion: &Opinion) -> Value {
    json!({
        "version": opinion.version,
        "outcome": opinion.outcome,
        "log": opinion.log,
        "fuel": opinion.fuel,
    })
}

fn difference(at: &str, recorded: Value, replayed: Value) -> Difference {
    Difference { at: at.to_owned(), recorded, replayed }
}

fn compare(at: &str, recorded: &Value, replayed: &Value, differs: &mut Vec<Difference>) {
    if recorded == replayed || differs.len() >= MOST_DIFFERENCES {
        return;
    }
    match (recorded, replayed) {
        (Value::Object(a), Value::Object(b)) if a.keys().eq(b.keys()) => {
            for ((key, a), b) in a.iter().zip(b.values()) {
                compare(&format!("{at}/{key}"), a, b, differs);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (n, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{at}/{n}"), a, b, differs);
            }
        }
        (a, b) => differs.push(difference(at, a.clone(), b.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_where_they_are() {
        let recorded = json!({"fuel": 7, "log": [{"message": "a"}], "outcome": {"Ok": {"verdict": "allow"}}});
        let replayed = json!({"fuel": 8, "log": [{"message": "a"}], "outcome": {"Err": {"kind": "trap"}}});
        let mut differs = Vec::new();
        compare("", &recorded, &replayed, &mut differs);
        let at: Vec<&str> = differs.iter().map(|d| d.at.as_str()).collect();
        assert_eq!(at, ["/fuel", "/outcome"]);
        differs.clear();
        compare("", &recorded, &recorded, &mut differs);
        assert_eq!(differs, []);
    }
}
