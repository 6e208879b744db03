//! A component as `configure` left it: the module rewritten so that its memories and globals start
//! where a configured instance stood.
//!
//! A snapshot is only ever a faster start. It is made in the background after the policy serves, and
//! used only if a probe of it says bit for bit what a configured instance of the original says.

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use countersign_core::time::Timestamp;
use wasmtime::Store;
use wasmtime::component::{Component, Instance, Lift, WasmList};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

use crate::artifacts::{Artifacts, Made};
use crate::bindings::SpendPolicy;
use crate::bindings::countersign::policy::types as wit;
use crate::compiled;
use crate::engine::now;
use crate::failure::{Phase, classify, cut};
use crate::guest::{Guest, seed};
use crate::prepared::{Prepared, Snapshot};
use crate::runtime::{Configured, Runtime, Unready, configure, give};

/// Reading a memory hands over all of it at once, to the host's own code.
const WHOLE_MEMORY: usize = 1 << 30;

/// Questions put to either kind of instance, unless that takes too long.
const RUNS: usize = 8;
const LEAST_RUNS: usize = 2;
const LONG: Duration = Duration::from_secs(1);

/// A snapshot that answers as a configured instance of the module does, and sooner.
///
/// # Errors
/// Why instances of this policy are better configured one by one, for people.
pub(crate) fn prepare(runtime: &Runtime, artifacts: &Artifacts, prepared: &Prepared, module: &[u8]) -> Snapshot {
    let made = Made::Snapshot(&prepared.seed);
    let component = match artifacts.get(&runtime.wasm, made) {
        Some(component) => component,
        None => {
            let bytes = take(runtime, module, prepared.seed, &prepared.settings)?;
            let component = Component::from_binary(&runtime.wasm, &bytes).map_err(|e| told(&e))?;
            artifacts.put(made, &component);
            component
        }
    };
    let pre = compiled::linked(&runtime.wasm, &component).map_err(|e| told(&e))?;
    let restored = probe(runtime, || runtime.restored(&pre, prepared.seed))?;
    let configured = probe(runtime, || prepared.make_from_module(runtime))?;
    let same = restored.answers.iter().zip(&configured.answers).all(|(a, b)| a == b);
    if !same {
        return Err("its snapshot does not answer as it does".to_owned());
    }
    if restored.took > configured.took {
        return Err("configuring an instance costs no more than restoring one".to_owned());
    }
    Ok(pre)
}

struct Probe {
    /// What every run came to, with its fuel.
    answers: Vec<String>,
    /// The fastest of all lives of an instance: made, asked, taken apart. A snapshot's pages are copied when
    /// they are first written to, which can cost more than configuring a small guest.
    took: Duration,
}

/// Makes instances and asks each a question.
fn probe(runtime: &Runtime, make: impl Fn() -> Result<Configured, Unready>) -> Result<Probe, String> {
    let mut probe = Probe { answers: Vec::new(), took: Duration::MAX };
    let first = now();
    for turn in 0..RUNS {
        if turn >= LEAST_RUNS && now().saturating_duration_since(first) > LONG {
            break;
        }
        let began = now();
        let Configured { mut store, policy } = make().map_err(|e| format!("an instance failed to start: {e:?}"))?;
        store.data_mut().begin_evaluate(Timestamp::from_secs(1_768_478_400), seed("probe", &[&turn.to_be_bytes()]));
        give(&mut store, runtime.config.fuel, runtime.config.configure_deadline_ms);
        let answer = policy.countersign_policy_policy().call_evaluate(&mut store, question(turn));
        let answer = answer.map_err(|e| classify(&e, Phase::Call("evaluate"), store.data()));
        let log = store.data_mut().take_log();
        let left = store.get_fuel().ok();
        drop(store);
        probe.took = probe.took.min(now().saturating_duration_since(began));
        probe.answers.push(format!("{answer:?} {log:?} {left:?}"));
    }
    Ok(probe)
}

/// Something ordinary to ask; every other time with nothing in it that may be left out.
fn question(turn: usize) -> wit::SpendRequest<'static> {
    let whole = turn.is_multiple_of(2);
    let maybe = |value: &'static str| whole.then_some(value);
    let tally = || wit::Tally { count: 3, value: 150_000 };
    wit::SpendRequest {
        id: "00000000000000000000000000",
        purchase_id: "probe",
        at: 1_768_478_400_000,
        principal: wit::Principal {
            agent: "scout",
            user: maybe("u1"),
            workspace: maybe("research"),
            roles: if whole { &["analyst"] } else { &[] },
            session: maybe("s1"),
            client: maybe("acme"),
            project: maybe("p1"),
            task: maybe("t1"),
        },
        purchase: wit::Purchase {
            method: "GET",
            url: "https://api.example.com/v1/quote",
            host: "api.example.com",
            path: "/v1/quote",
            query_digest: None,
            body_digest: None,
            observed: true,
            description: maybe("a quote"),
            media_type: maybe("application/json"),
            category: None,
        },
        seller: wit::Seller {
            host: "api.example.com",
            pay_to: "0x209693bc6afc0c5328ba36faf03c514ef312287c",
            host_first_paid: whole.then_some(1_765_886_400_000),
            pay_to_first_paid: whole.then_some(1_765_886_400_000),
            pay_to_changed: false,
            last_price: whole.then_some(50_000),
            judged: 0,
            useful: 0,
        },
        payment: wit::Payment {
            rail: "x402",
            scheme: "exact",
            commitment: wit::Commitment::Fixed,
            network: "eip155:84532",
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            asset_symbol: "USDC",
            asset_decimals: 6,
            amount: "50000",
            value: 50_000,
            valid_for_seconds: 60,
            wallet: "research",
        },
        history: wit::History {
            agent_hour: tally(),
            agent_day: tally(),
            session: tally(),
            seller_day: tally(),
            seller_lifetime: tally(),
            repeats: 0,
        },
        claims: &[],
        facts: &[wit::AttributeParam { name: "door", value: "fetch" }],
    }
}

/// The bytes of a component that starts configured.
fn take(runtime: &Runtime, module: &[u8], seed: [u8; 32], settings: &str) -> Result<Vec<u8>, String> {
    if has_resources(module)? {
        return Err("it makes resources of its own, which are not part of its memory".to_owned());
    }
    let mut wizer = Wizer::new();
    wizer.keep_init_func(true);
    let (context, instrumented) = wizer.instrument_component(module).map_err(|e| told(&e))?;
    let component = Component::from_binary(&runtime.wasm, &instrumented).map_err(|e| told(&e))?;
    let pre = compiled::linked(&runtime.wasm, &component).map_err(|e| told(&e))?;
    let mut store = runtime.store(seed);
    let instance = pre.instance_pre().instantiate(&mut store).map_err(|e| told(&e))?;
    let policy = SpendPolicy::new(&mut store, &instance).map_err(|e| told(&e))?;
    configure(&mut store, &policy, settings).map_err(|e| format!("configuring it failed: {e:?}"))?;
    if store.data().handles() > 0 {
        return Err("`configure` takes a handle from the host, which is not part of its memory".to_owned());
    }
    store.set_hostcall_fuel(WHOLE_MEMORY);
    let mut state = State { store: &mut store, instance, failed: None };
    let snapshot = finish(wizer.snapshot_component(&context, &mut state))?;
    if let Some(error) = state.failed {
        return Err(error);
    }
    snapshot.map_err(|e| told(&e))
}

/// Whether the component makes resources: the table of their handles is the host's.
fn has_resources(module: &[u8]) -> Result<bool, String> {
    for payload in wasmparser::Parser::new(0).parse_all(module) {
        let wasmparser::Payload::ComponentCanonicalSection(section) = payload.map_err(|e| e.to_string())? else {
            continue;
        };
        for function in section {
            if matches!(function.map_err(|e| e.to_string())?, wasmparser::CanonicalFunction::ResourceNew { .. }) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn told(error: &wasmtime::Error) -> String {
    cut(&format!("{error:#}"), 200)
}

/// Runs a future that never waits: everything it awaits is answered by [`State`], at once.
fn finish<T>(future: impl Future<Output = T>) -> Result<T, String> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err("the snapshot waits for something".to_owned()),
    }
}

/// A running instance that tells its memories and globals.
struct State<'a> {
    store: &'a mut Store<Guest>,
    instance: Instance,
    /// The trait has no way to fail, so the first failure is kept here and the rest means nothing.
    failed: Option<String>,
}

impl State<'_> {
    fn read<R: Lift + 'static, T: Default>(
        &mut self,
        instance: &str,
        name: &str,
        take: impl FnOnce(&Store<Guest>, R) -> T,
    ) -> T {
        let answer = self.call::<R>(instance, name).map(|value| take(self.store, value));
        answer.unwrap_or_else(|error| {
            self.failed.get_or_insert(error);
            T::default()
        })
    }

    fn call<R: Lift + 'static>(&mut self, instance: &str, name: &str) -> Result<R, String> {
        let absent = || format!("the instrumented module lacks `{instance}#{name}`");
        let outer = self.instance.get_export_index(&mut *self.store, None, instance).ok_or_else(absent)?;
        let inner = self.instance.get_export_index(&mut *self.store, Some(&outer), name).ok_or_else(absent)?;
        let func = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, inner).map_err(|e| told(&e))?;
        func.call(&mut *self.store, ()).map(|(value,)| value).map_err(|e| told(&e))
    }
}

impl ComponentInstanceState for State<'_> {
    async fn call_func_ret_list_u8(&mut self, instance: &str, func: &str, contents: impl FnOnce(&[u8]) + Send) {
        self.read(instance, func, |store, list: WasmList<u8>| contents(list.as_le_slice(store)));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, func: &str) -> i32 {
        self.read(instance, func, |_, value| value)
    }

    async fn call_func_ret_s64(&mut self, instance: &str, func: &str) -> i64 {
        self.read(instance, func, |_, value| value)
    }

    async fn call_func_ret_f32(&mut self, instance: &str, func: &str) -> u32 {
        self.read(instance, func, |_, value: f32| value.to_bits())
    }

    async fn call_func_ret_f64(&mut self, instance: &str, func: &str) -> u64 {
        self.read(instance, func, |_, value: f64| value.to_bits())
    }
}
