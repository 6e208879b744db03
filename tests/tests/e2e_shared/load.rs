//! Many clients at every gateway, who remember what they were told.

use super::*;

/// One purchase a client wants: its id and where it is sold.
type Order = (String, String);

/// What all clients of a scene share; the scene itself is left to whoever breaks it.
pub(crate) struct Load {
    /// The agent `scout` at each gateway.
    agents: Vec<Client>,
    seller: String,
    made: AtomicU64,
    stop: AtomicBool,
    /// Orders without an answer that ends them.
    open: Mutex<Vec<Order>>,
    over: Mutex<Vec<Order>>,
    /// Purchases that were acknowledged, with their payment.
    acks: Mutex<Vec<(String, String)>>,
    /// How often which answer came.
    answers: Mutex<BTreeMap<String, u64>>,
    /// Answers that nothing done to the gateways explains.
    strange: Mutex<Vec<String>>,
}

impl Load {
    pub(crate) fn on(scene: &Scene) -> Self {
        Self {
            agents: scene.gateways.iter().map(Gateway::agent).collect(),
            seller: scene.seller("honest").base_url().to_owned(),
            made: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            open: Mutex::default(),
            over: Mutex::default(),
            acks: Mutex::default(),
            answers: Mutex::default(),
            strange: Mutex::default(),
        }
    }

    /// Lets clients buy at these gateways while `meanwhile` runs.
    pub(crate) fn during<T>(&self, gateways: &[usize], meanwhile: impl FnOnce() -> T) -> T {
        self.stop.store(false, Ordering::SeqCst);
        thread::scope(|scope| {
            for gateway in gateways {
                for client in 0..CLIENTS {
                    scope.spawn(move || self.buy(*gateway, client));
                }
            }
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
            self.stop.store(true, Ordering::SeqCst);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Mostly new things, but also what got no answer, and what was done: at whichever gateway that was.
    fn buy(&self, gateway: usize, client: usize) {
        let mut round = client;
        while !self.stop.load(Ordering::SeqCst) {
            round += 1;
            let again = match round % 5 {
                0 => pick(&self.open, round),
                1 => pick(&self.over, round),
                _ => None,
            };
            let order = again.unwrap_or_else(|| {
                let n = self.made.fetch_add(1, Ordering::Relaxed);
                let order = (format!("order-{n}"), format!("{}/quote?order={n}", self.seller));
                self.open.lock().unwrap().push(order.clone());
                order
            });
            if !self.place(gateway, &order) {
                // Nobody is there, or not now.
                thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Sends an order; whether it was answered for good.
    fn place(&self, gateway: usize, order: &Order) -> bool {
        let Ok(answer) = self.agents[gateway].try_fetch(&order.1, json!({"purchase_id": order.0})) else {
            self.count("cut off");
            return false;
        };
        let problem = if answer.status == 200 { Value::Null } else { answer.json() };
        let code = problem["code"].as_str().unwrap_or_default();
        self.count(&format!("{} {code}", answer.status));
        let over = match (answer.status, code) {
            (200, _) => {
                let payment = header(&answer, "countersign-payment").to_owned();
                self.acks.lock().unwrap().push((order.0.clone(), payment));
                true
            }
            (403, "budget-exceeded") | (409, "already-settled") => true,
            // Presented before by somebody who could not tell any more; the seller does not deliver twice.
            (502, "payment-refused") | (409, "payment-unknown") | (504, "outcome-unknown") => true,
            // Nothing was signed; or it was, and nobody knew in time.
            (503, "ledger-unavailable" | "overloaded") => false,
            _ => {
                self.strange.lock().unwrap().push(format!("{order:?}: {} {}", answer.status, answer.text()));
                true
            }
        };
        if over {
            self.open.lock().unwrap().retain(|open| open != order);
            let mut done = self.over.lock().unwrap();
            if !done.contains(order) {
                done.push(order.clone());
            }
        }
        over
    }

    /// Repeats every order that got no answer at a gateway, until each has one.
    #[track_caller]
    pub(crate) fn finish(&self, gateway: usize) {
        let found = wait_for(PATIENCE, || {
            let open = self.open.lock().unwrap().clone();
            for order in &open {
                self.place(gateway, order);
            }
            self.open.lock().unwrap().is_empty().then_some(())
        });
        found.unwrap_or_else(|| panic!("never answered: {:?}; {:?}", self.open.lock().unwrap(), self.answers()));
    }

    fn count(&self, what: &str) {
        *self.answers.lock().unwrap().entry(what.to_owned()).or_default() += 1;
    }

    /// How often which answer came.
    pub(crate) fn answers(&self) -> BTreeMap<String, u64> {
        self.answers.lock().unwrap().clone()
    }

    /// How many purchases were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acks.lock().unwrap().len()
    }

    /// Waits until so many purchases more were acknowledged.
    #[track_caller]
    pub(crate) fn goes_on(&self, more: usize) {
        let before = self.acknowledged();
        let found = wait_for(PATIENCE, || (self.acknowledged() >= before + more).then_some(()));
        found.unwrap_or_else(|| panic!("nothing is bought any more: {:?}", self.answers()));
    }

    /// Purchases that were acknowledged, with their payments. Every answer must have been one that can be explained.
    #[track_caller]
    pub(crate) fn acks(&self) -> Vec<(String, String)> {
        let strange = self.strange.lock().unwrap();
        assert!(strange.is_empty(), "{} answers nobody expects: {strange:#?}", strange.len());
        println!("answers: {:?}", self.answers());
        self.acks.lock().unwrap().clone()
    }
}

fn pick(orders: &Mutex<Vec<Order>>, round: usize) -> Option<Order> {
    let orders = orders.lock().unwrap();
    (!orders.is_empty()).then(|| orders[round.wrapping_mul(31) % orders.len()].clone())
}

/// Lets clients buy at once until each is refused for want of budget; returns the payments and the refusals.
#[track_caller]
pub(crate) fn drain(scene: &Scene, clients: &[Client]) -> (Vec<String>, Vec<Value>) {
    let (paid, refusals) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let start = Barrier::new(clients.len());
    thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| {
                start.wait();
                loop {
                    let answer = client.fetch(&scene.quote(), json!({}));
                    match answer.status {
                        200 => paid.lock().unwrap().push(bought(&answer, "0.001")),
                        // Nothing was signed: too many at once, or a store that a test is hard on.
                        503 if scene.own.is_some() && answer.text().contains("ledger-unavailable") => {
                            thread::sleep(Duration::from_millis(20));
                        }
                        503 => drop(refusal(&answer, 503, "overloaded")),
                        _ => {
                            refusals.lock().unwrap().push(refusal(&answer, 403, "budget-exceeded"));
                            return;
                        }
                    }
                }
            });
        }
    });
    (paid.into_inner().unwrap(), refusals.into_inner().unwrap())
}

/// So many clients at each gateway of a scene, with a token.
pub(crate) fn everywhere(scene: &Scene, token: &str) -> Vec<Client> {
    let clients = |gateway: &Gateway| (0..CLIENTS).map(|_| gateway.agent_with(token)).collect::<Vec<_>>();
    scene.gateways.iter().flat_map(clients).collect()
}
