//! What an exported component does with one policy: shared by the macro and the native harness.

use std::sync::OnceLock;

use crate::{Decision, Description, Policy, Problem, SpendRequest, settings};

/// One instance of a policy: empty, then configured or refused, for good.
#[derive(Debug)]
pub struct Slot<P>(OnceLock<Option<P>>);

impl<P> Slot<P> {
    /// Not configured yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }
}

impl<P> Default for Slot<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Policy> Slot<P> {
    /// Parses the settings document and makes the policy.
    ///
    /// # Errors
    /// Every problem with the settings, or that this instance was configured before.
    pub fn configure(&self, document: &str) -> Result<(), Vec<Problem>> {
        if self.0.get().is_some() {
            return Err(vec![Problem::document("already configured: an instance takes settings exactly once")]);
        }
        let outcome = settings::parse(document).and_then(P::configure);
        let (policy, answer) = match outcome {
            Ok(policy) => (Some(policy), Ok(())),
            Err(problems) if problems.is_empty() => {
                (None, Err(vec![Problem::document("the policy refused these settings without saying why")]))
            }
            Err(problems) => (None, Err(problems)),
        };
        // A component has one thread, so nobody can have come in between.
        let _ = self.0.set(policy);
        answer
    }

    /// Judges one request.
    ///
    /// # Errors
    /// The policy's own, or that `configure` has not been called or has failed.
    pub fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        match self.0.get() {
            Some(Some(policy)) => policy.evaluate(request),
            Some(None) => Err("evaluate after configure refused the settings".to_owned()),
            None => Err("evaluate before configure".to_owned()),
        }
    }
}

/// The description the component exports.
#[must_use]
pub fn describe<P: Policy>() -> Description {
    Description {
        name: P::NAME.to_owned(),
        version: P::VERSION.to_owned(),
        summary: P::SUMMARY.to_owned(),
        settings_schema: P::settings_schema().to_owned(),
    }
}
