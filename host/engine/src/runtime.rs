//! wasmtime with our settings, and the two ways to an instance: from its own bytes, or from a snapshot.

use countersign_core::verdict::Failure;
use wasmtime::Store;

use crate::bindings::SpendPolicy;
use crate::cache::Digest;
use crate::compiled::Compiled;
use crate::config::EngineConfig;
use crate::digest::digest_of;
use crate::failure::{Phase, classify};
use crate::guest::{Guest, seed};
use crate::settings::problems_text;

/// Most a guest may hand over in one call. wasmtime's own default would let it copy 128 MiB.
const HOSTCALL_BYTES: usize = 1 << 20;

/// What every thread of the engine shares.
pub(crate) struct Runtime {
    pub(crate) wasm: wasmtime::Engine,
    pub(crate) config: EngineConfig,
}

/// An instance that has its settings and was asked nothing yet.
pub(crate) struct Configured {
    pub(crate) store: Store<Guest>,
    pub(crate) policy: SpendPolicy,
}

/// Why an instance is not ready to be asked.
#[derive(Debug)]
pub(crate) enum Unready {
    Failed(Failure),
    /// It found problems in its settings.
    Refused(String),
}

impl Runtime {
    /// A store with the budgets of everything before `evaluate`.
    pub(crate) fn store(&self, seed: [u8; 32]) -> Store<Guest> {
        let mut store = Store::new(&self.wasm, Guest::new(self.config.memory_limit, seed));
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        give(&mut store, self.config.configure_fuel, self.config.configure_deadline_ms);
        store
    }

    /// Instantiates the module's own bytes and configures.
    pub(crate) fn configured(
        &self,
        compiled: &Compiled,
        seed: [u8; 32],
        settings: &str,
    ) -> Result<Configured, Unready> {
        let mut store = self.store(seed);
        let policy = compiled
            .pre
            .instantiate(&mut store)
            .map_err(|e| Unready::Failed(classify(&e, Phase::Instantiate, store.data())))?;
        configure(&mut store, &policy, settings)?;
        Ok(Configured { store, policy })
    }

    /// Instantiates a snapshot, which is configured already.
    pub(crate) fn restored(
        &self,
        snapshot: &crate::bindings::SpendPolicyPre<Guest>,
        seed: [u8; 32],
    ) -> Result<Configured, Unready> {
        let mut store = self.store(seed);
        let policy = snapshot
            .instantiate(&mut store)
            .map_err(|e| Unready::Failed(classify(&e, Phase::Instantiate, store.data())))?;
        Ok(Configured { store, policy })
    }
}

/// Calls `configure`.
pub(crate) fn configure(store: &mut Store<Guest>, policy: &SpendPolicy, settings: &str) -> Result<(), Unready> {
    match policy.countersign_policy_policy().call_configure(&mut *store, settings) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(problems)) => Err(Unready::Refused(problems_text(&problems))),
        Err(e) => Err(Unready::Failed(classify(&e, Phase::Call("configure"), store.data()))),
    }
}

/// Sets both budgets anew.
pub(crate) fn give(store: &mut Store<Guest>, fuel: u64, deadline_ms: u32) {
    // Fails only on an engine without fuel, and then nothing runs at all.
    drop(store.set_fuel(fuel));
    // The current epoch has partly passed already: one more, so that nobody gets less.
    store.set_epoch_deadline(u64::from(deadline_ms).saturating_add(1));
}

/// The randomness a policy sees until `evaluate`: one value for each module and settings.
pub(crate) fn configure_seed(module: &Digest, settings: &str) -> [u8; 32] {
    seed("configure", &[module, &digest_of(settings.as_bytes())])
}
