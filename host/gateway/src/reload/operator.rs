//! What operators change without the files: a module put, a generation gone back to.

use countersign_core::generation::Generation;
use countersign_core::ledger::LedgerError;
use serde_json::Value;

use super::candidate::{Candidate, Restored};
use super::{Refused, Reloader, refused};
use crate::config::canonical_settings;
use crate::telemetry::Reloaded;

/// Largest settings document an operator may put, in bytes.
const MAX_SETTINGS: usize = 1 << 20;
/// Generations read at a time while looking for one.
const PAGE: u32 = 50;

impl Reloader {
    /// Lets a module serve in place of a policy's file, with its settings or with others, until the
    /// file says something else. Answers the generation.
    ///
    /// # Errors
    /// When the file pins the module, or the module does not come through the gate every edit passes.
    pub async fn put_module(
        &self,
        name: &str,
        bytes: Vec<u8>,
        settings: Option<String>,
        by: &str,
    ) -> Result<u64, Refused> {
        let _turn = self.turn.lock().await;
        let done = self.put(name, bytes, settings, by).await;
        self.told(done, by).await
    }

    async fn put(&self, name: &str, bytes: Vec<u8>, settings: Option<String>, by: &str) -> Result<u64, Refused> {
        let settings = settings.map(|text| object(name, &text)).transpose()?;
        let candidate = {
            let state = self.state();
            Candidate::with_module(&state.serving, &state.said, (name, bytes, settings), by)?
        };
        self.take(candidate).await
    }

    /// Goes back to the modules, settings and mandates of an earlier generation: the one given, or
    /// the last one before what serves that was not the same. Agents, operators, wallets, limits and
    /// suspensions stay as they are. Answers the generation.
    ///
    /// # Errors
    /// When there is none, the file pins another module, or it does not come through the gate.
    pub async fn rollback(&self, to: Option<u64>, by: &str) -> Result<u64, Refused> {
        let _turn = self.turn.lock().await;
        let done = self.back(to, by).await;
        self.told(done, by).await
    }

    async fn back(&self, to: Option<u64>, by: &str) -> Result<u64, Refused> {
        let earlier = self.earlier(to).await?;
        let unread = |e: LedgerError| refused("record", "", e.to_string());
        let restored = Restored::from_ledger(&*self.gateway.ledger, &earlier).await.map_err(unread)?;
        let broken: Vec<String> = self.gateway.live.load().policies.errors().map(|e| e.policy.clone()).collect();
        let candidate = {
            let state = self.state();
            let parts = &state.serving.parts;
            let live: Vec<_> = parts.iter().filter(|p| !broken.iter().any(|name| name == p.name())).cloned().collect();
            Candidate::rolled_back(restored, &live, &state.said, by)?
        };
        self.take(candidate).await
    }

    /// The generation to go back to.
    async fn earlier(&self, to: Option<u64>) -> Result<Generation, Refused> {
        let live = self.state().record.clone();
        let unread = |e: LedgerError| refused("record", "", e.to_string());
        if let Some(number) = to {
            let absent = || refused("not-found", "", format!("there is no generation {number}"));
            // The store counts in 63 bits.
            let above = number.checked_add(1).filter(|n| i64::try_from(*n).is_ok()).ok_or_else(absent)?;
            let found = self.gateway.ledger.generations(Some(above), 1).await.map_err(unread)?;
            return match found.into_iter().find(|g| g.number == number) {
                None => Err(absent()),
                Some(g) if !g.whole => {
                    Err(refused("not-found", "", format!("not every policy of generation {number} could be loaded")))
                }
                Some(g) => Ok(g),
            };
        }
        // Going back twice goes further back.
        let mut before = live.restores.unwrap_or(live.number);
        loop {
            let page = self.gateway.ledger.generations(Some(before), PAGE).await.map_err(unread)?;
            let last = page.last().map(|g| g.number);
            match page.into_iter().find(|g| g.whole && !g.serves_as(&live)) {
                Some(found) => return Ok(found),
                None => before = last.ok_or_else(|| refused("not-found", "", "there is no earlier generation"))?,
            }
        }
    }

    /// A refused change of an operator's is recorded with their name.
    pub(super) async fn told(&self, done: Result<u64, Refused>, by: &str) -> Result<u64, Refused> {
        if let (Err(why), Ok(now)) = (&done, self.now()) {
            self.gateway.telemetry.metrics.reload(Reloaded::Refused);
            self.note("policies-refused", by, why, now).await;
        }
        done
    }
}

/// Settings as the configuration would have them: an object, canonical.
fn object(policy: &str, text: &str) -> Result<String, Refused> {
    let fail = |why: String| refused("settings", policy, why);
    if text.len() > MAX_SETTINGS {
        return Err(fail(format!("the settings have more than {MAX_SETTINGS} bytes")));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| fail(format!("the settings are not JSON: {e}")))?;
    canonical_settings(&value).map_err(fail)
}
