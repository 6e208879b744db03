//! What an engine is told when it starts.

use std::fmt;
use std::path::PathBuf;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, OperatorCost, PoolingAllocationConfig};

const MIB: usize = 1 << 20;

/// Address space reserved per linear memory; a memory limit above it raises it.
const RESERVED_PER_MEMORY: usize = 256 * MIB;
const GUARD_PER_MEMORY: usize = 32 * MIB;

/// The most of each that one component may have. A component made by a JavaScript toolchain has three
/// memories. The pool holds as many for every instance: only address space is reserved, and then the number
/// of instances is the one limit that can be reached.
const MEMORIES_PER_INSTANCE: u32 = 8;
const TABLES_PER_INSTANCE: u32 = 30;
const MODULES_PER_INSTANCE: u32 = 40;

/// More than half of what 47 bits of user address space can hold; not worth asking the kernel for.
const MOST_ADDRESS_SPACE: u64 = 1 << 46;

/// Engine settings. One number, `instances`, sizes everything that is reserved; the others bound
/// what one policy may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// How many policies may be running at once, in the whole process. The pool holds five times as
    /// many instances: those that are ready-made, those that are used up, and those of staging.
    pub instances: u32,
    /// How many instances of one policy to keep ready-made; fewer of a policy that takes much memory.
    /// Zero makes every instance when it is needed.
    pub ready: u32,
    /// Bytes of linear memory one policy may hold, over all its memories.
    pub memory_limit: usize,
    /// Fuel for `evaluate`: one per WebAssembly instruction, five for branches and calls, plus one
    /// per byte of bulk copying. Part of what a decision replays with, so changing it changes where a
    /// runaway policy stops. A policy in Rust uses some tens of thousands.
    pub fuel: u64,
    /// Fuel for instantiation and `configure` together, and for `describe`. Much more than `fuel`: rules as
    /// text are parsed in it, mostly ahead of time. A quarter of `instances` may be configured while a
    /// decision waits.
    pub configure_fuel: u64,
    /// Milliseconds for instantiation and `configure` together, and for `describe`.
    pub configure_deadline_ms: u32,
    /// Milliseconds a decision waits for a free instance before it fails as unavailable.
    pub admission_wait_ms: u32,
    /// Largest module accepted, in bytes.
    pub module_limit: usize,
    /// Where compiled code is kept over restarts; none: every start compiles.
    pub cache: Option<CacheConfig>,
}

/// A folder for compiled code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The folder: this user's, closed to everybody else (0700); made if it is not there.
    pub folder: PathBuf,
    /// What the files are authenticated with. Keep it elsewhere.
    pub key: CacheKey,
    /// Bytes the folder may take; what was used longest ago goes first.
    pub limit_bytes: u64,
}

impl CacheConfig {
    /// A folder of at most a GiB.
    #[must_use]
    pub fn new(folder: PathBuf, key: [u8; 32]) -> Self {
        Self { folder, key: CacheKey(key), limit_bytes: 1 << 30 }
    }
}

/// A secret; it is not printed.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheKey([u8; 32]);

impl CacheKey {
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CacheKey(..)")
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Self {
            instances: u32::try_from(cores.saturating_mul(4)).unwrap_or(64).max(64),
            ready: 16,
            memory_limit: 64 * MIB,
            fuel: 10_000_000,
            configure_fuel: 4_000_000_000,
            configure_deadline_ms: 10_000,
            admission_wait_ms: 500,
            module_limit: 32 * MIB,
            cache: None,
        }
    }
}

impl EngineConfig {
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        let zero = [
            ("instances", u64::from(self.instances)),
            ("memory_limit", self.memory_limit as u64),
            ("fuel", self.fuel),
            ("configure_fuel", self.configure_fuel),
            ("configure_deadline_ms", u64::from(self.configure_deadline_ms)),
            ("module_limit", self.module_limit as u64),
        ]
        .into_iter()
        .find(|(_, value)| *value == 0);
        if let Some((name, _)) = zero {
            return Err(EngineError::Config(format!("`{name}` must not be zero")));
        }
        let bytes = self.address_space();
        if bytes > MOST_ADDRESS_SPACE {
            let cause = format!("more than the {} GiB one process may reserve", MOST_ADDRESS_SPACE >> 30);
            return Err(self.pool_error(cause));
        }
        Ok(())
    }

    /// Bytes of address space (not of memory) the pool reserves.
    fn address_space(&self) -> u64 {
        let per_memory = (self.reserved_per_memory() as u64).saturating_add(GUARD_PER_MEMORY as u64);
        per_memory.saturating_mul(u64::from(MEMORIES_PER_INSTANCE)).saturating_mul(u64::from(self.pool()))
    }

    /// Instances the pool holds.
    fn pool(&self) -> u32 {
        self.instances.saturating_mul(5)
    }

    /// Instances that may be ready-made, over all policies.
    pub(crate) fn ready_in_all(&self) -> usize {
        (self.instances as usize).saturating_mul(2)
    }

    /// Used instances that may wait to be taken apart, and as many are being taken apart. The rest of the
    /// pool is for staging.
    pub(crate) fn used(&self) -> usize {
        self.instances as usize / 2
    }

    fn reserved_per_memory(&self) -> usize {
        self.memory_limit.max(RESERVED_PER_MEMORY)
    }

    pub(crate) fn pool_error(&self, cause: String) -> EngineError {
        EngineError::Pool { instances: self.instances, gib: self.address_space().div_ceil(1 << 30), cause }
    }

    pub(crate) fn wasmtime(&self, swap: bool) -> Config {
        let n = self.pool();
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(n)
            .total_core_instances(n.saturating_mul(MODULES_PER_INSTANCE))
            .total_memories(n.saturating_mul(MEMORIES_PER_INSTANCE))
            .total_tables(n.saturating_mul(TABLES_PER_INSTANCE))
            .max_memory_size(self.reserved_per_memory())
            .max_core_instances_per_component(MODULES_PER_INSTANCE)
            .max_memories_per_component(MEMORIES_PER_INSTANCE)
            .max_tables_per_component(TABLES_PER_INSTANCE)
            .table_elements(60_000)
            .max_core_instance_size(2 * MIB)
            .max_component_instance_size(2 * MIB)
            .max_unused_warm_slots(n)
            // Resetting a slot by copying a warm MiB instead of unmapping it keeps decisions off
            // the process-wide mmap lock: without it two threads are slower than one.
            .linear_memory_keep_resident(MIB)
            .table_keep_resident(64 << 10)
            // The kernel's page scan does not see pages that were swapped out.
            .pagemap_scan(if swap { Enabled::No } else { Enabled::Auto });

        let mut config = Config::new();
        config
            // Two ways to stop a policy: fuel stops the same run at the same instruction every
            // time, epochs stop whatever fuel does not see.
            .consume_fuel(true)
            .operator_cost(operator_cost())
            .epoch_interruption(true)
            .concurrency_support(false)
            .cranelift_nan_canonicalization(true)
            .relaxed_simd_deterministic(true)
            .shared_memory(false)
            .max_wasm_stack(512 << 10)
            .memory_reservation(self.reserved_per_memory() as u64)
            .memory_guard_size(GUARD_PER_MEMORY as u64)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config
    }
}

/// Fuel per instruction. Everything costs one except what may start another round: that is where the
/// checks for fuel and epoch sit, so an empty loop would otherwise buy many times the nanoseconds that
/// arithmetic does. With this, ten million units last some 0.7 to 10 ms whatever the code, so that fuel
/// runs out well before a deadline does. Part of what decisions replay with.
fn operator_cost() -> OperatorCost {
    const ROUND: u8 = 5;
    OperatorCost {
        Br: ROUND,
        BrIf: ROUND,
        BrTable: ROUND,
        Call: ROUND,
        CallIndirect: ROUND,
        ReturnCall: ROUND,
        ReturnCallIndirect: ROUND,
        ..OperatorCost::new()
    }
}

/// Whether the host has swap space. A host that will not say is taken to have some.
pub(crate) fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").map_or(true, |text| swap_in(&text))
}

/// `/proc/swaps` is a heading and then one line per swap device.
fn swap_in(proc_swaps: &str) -> bool {
    proc_swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Why an engine cannot start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineError {
    /// A setting makes no sense.
    Config(String),
    /// The instance pool could not be reserved.
    Pool {
        /// The number to lower.
        instances: u32,
        /// Address space it would have taken, in GiB.
        gib: u64,
        /// What stood in the way.
        cause: String,
    },
    /// The operating system gave no thread.
    Thread(String),
    /// The folder for compiled code cannot be used.
    Cache(String),
}

impl EngineError {
    /// Stable code for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Config(_) => "engine-config",
            Self::Pool { .. } => "engine-pool",
            Self::Thread(_) => "engine-thread",
            Self::Cache(_) => "engine-cache",
        }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(what) => write!(f, "policy engine settings: {what}"),
            Self::Pool { instances, gib, cause } => write!(
                f,
                "could not reserve the policy engine's instance pool ({gib} GiB of address space \
                 for `instances = {instances}`): {cause}; lower `instances`, or raise the process's \
                 address-space limit"
            ),
            Self::Thread(cause) => write!(f, "could not start a thread of the policy engine: {cause}"),
            Self::Cache(what) => write!(f, "the folder for compiled policies cannot be used: {what}"),
        }
    }
}

impl std::error::Error for EngineError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_read_from_the_kernels_table() {
        let heading = "Filename\tType\tSize\tUsed\tPriority\n";
        assert!(!swap_in(heading));
        assert!(swap_in(&format!("{heading}/dev/sda2 partition 1 0 -2\n")));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let check = |config: EngineConfig, code: &str, names: &str| {
            let error = config.check().unwrap_err();
            assert_eq!(error.code(), code);
            assert!(error.to_string().contains(names), "{error}");
        };
        let ok = EngineConfig::default();
        assert_eq!(ok.check(), Ok(()));
        check(EngineConfig { fuel: 0, ..ok.clone() }, "engine-config", "`fuel`");
        check(EngineConfig { instances: 0, ..ok.clone() }, "engine-config", "`instances`");
        check(EngineConfig { instances: u32::MAX, ..ok }, "engine-pool", "instances = 4294967295");
    }
}
