//! What callers of three gateways saw of one budget is what a single counter would have told them.
//!
//! The checker believes answers and records only: every acknowledged purchase has one record, the arithmetic holds from
//! each record to the next whichever gateway wrote it, records stand in an order that contradicts nobody, and every
//! refusal quotes a state the budget was in while its caller waited.

use super::*;
use countersign_core::budget::BudgetId;
use countersign_core::verdict::{Unit, Window};
use countersign_model::history::{Answer, Broken, Call, Record, check, entries};
use load::everywhere;

/// Sessions, one after the other: each is a budget that fills up while everybody buys in it.
const SESSIONS: usize = 8;
/// A session's limit, in millionths: no sum of the prices below hits it each time.
const LIMIT: u64 = 45_500;
/// After so many refusals a client leaves a session.
const REFUSALS: usize = 4;

/// The callers' clock: it only rises.
fn moment() -> u64 {
    static MOMENT: AtomicU64 = AtomicU64::new(1);
    MOMENT.fetch_add(1, Ordering::SeqCst)
}

/// What a refusal says of a session's budget: what is left and what was asked for, in millionths.
fn figures(body: &Value) -> (u64, u64) {
    let detail = text(body, "/detail");
    let dollars: Vec<u64> = detail
        .split_whitespace()
        .filter(|word| word.contains('.'))
        .filter_map(|word| Micros::parse(word).ok())
        .map(Micros::get)
        .collect();
    match dollars.as_slice() {
        [left, limit, wanted] if *limit == LIMIT => (*left, *wanted),
        _ => panic!("no figures: {detail}"),
    }
}

/// One purchase; none, if nobody can tell what became of it.
fn buy(client: &Client, url: &str, session: &str) -> Option<Call> {
    let asked = moment();
    // Another query is another purchase: whoever asks for the same again while it is open gets the same payment.
    let answer = client.try_fetch(&format!("{url}?n={asked}"), json!({})).ok()?;
    let answered = moment();
    let (name, answer) = match answer.status {
        200 => (format!("payment-signed {}", header(&answer, "countersign-payment")), Answer::Done),
        403 => {
            let body = refusal(&answer, 403, "budget-exceeded");
            let (left, wanted) = figures(&body);
            let budget = BudgetId::of("host", &format!("session/{session}"), Unit::Micros, &Window::Lifetime);
            let row = (hex::encode(budget.as_bytes()), 0);
            (format!("refused {asked}"), Answer::Refused { row, used: LIMIT - left, wanted, limit: LIMIT })
        }
        // Another gateway took over what this one was about to do, or it was at its limits: nothing was signed.
        503 => return None,
        _ => panic!("{}: {}", answer.status, answer.text()),
    };
    Some(Call { name, asked, answered: Some((answered, answer)) })
}

/// Everything that was recorded, each record named by the call that caused it.
fn records(lines: &[String]) -> Vec<Record> {
    let all = lines.iter().filter(|line| line.starts_with('{')).enumerate();
    all.map(|(seq, line)| {
        let record: Value = serde_json::from_str(line).unwrap();
        let what = record["event"].as_str().or(record["kind"].as_str()).unwrap_or_default();
        let call = record["payment"].as_str().map_or(String::new(), |payment| format!("{what} {payment}"));
        Record { seq: u64::try_from(seq).unwrap(), call, entries: entries(line).unwrap() }
    })
    .collect()
}

/// Buys in sessions at three gateways, one of which is killed in every other session.
fn lived() -> (Vec<Record>, Vec<Call>) {
    let mut scene = Scene::new(3);
    let prices = ["/quote", "/choice"].map(|path| scene.seller("honest").url(path));
    let calls = Mutex::new(Vec::new());
    for round in 0..SESSIONS {
        let wish = json!({"agent": "scout", "limit": "0.0455", "max_payments": 1000});
        let (session, token) = scene.session(round % 3, &wish);
        let clients = everywhere(&scene, &token);
        let victim = &mut scene.gateways[round % 3];
        thread::scope(|scope| {
            for (number, client) in clients.iter().enumerate() {
                let (calls, prices, session) = (&calls, &prices, &session);
                scope.spawn(move || {
                    let (mut refused, mut turn) = (0, number);
                    while refused < REFUSALS {
                        turn += 1;
                        match buy(client, &prices[turn % 2], session) {
                            Some(call) => {
                                refused += usize::from(matches!(call.answered, Some((_, Answer::Refused { .. }))));
                                calls.lock().unwrap().push(call);
                            }
                            None => thread::sleep(Duration::from_millis(20)),
                        }
                    }
                });
            }
            if round % 2 == 1 {
                let granted = || calls.lock().unwrap().len() > round * clients.len();
                wait_for(PATIENCE, || granted().then_some(())).expect("nobody buys");
                victim.kill();
                victim.restart();
            }
        });
    }
    agree(&scene);
    (records(&scene.export(1)), calls.into_inner().unwrap())
}

#[test]
fn callers_of_three_gateways_see_one_counter() {
    let (records, calls) = lived();
    let checked = check(&records, &calls).unwrap_or_else(|e| panic!("{e}"));
    println!("{} calls: {checked:?}", calls.len());
    let done = |call: &&Call| matches!(call.answered, Some((_, Answer::Done)));
    assert!(calls.iter().filter(done).count() >= SESSIONS * 10, "hardly anything was bought");
    assert!(checked.refusals >= SESSIONS * REFUSALS * 3, "hardly anything was refused: {checked:?}");
    // The checker is awake: it misses an acknowledged purchase's record, and a figure that is off by one price.
    let lost = calls.iter().find(done).unwrap();
    let without: Vec<Record> = records
        .iter()
        .filter(|record| record.call != lost.name)
        .enumerate()
        .map(|(seq, record)| Record { seq: u64::try_from(seq).unwrap(), ..record.clone() })
        .collect();
    assert_eq!(check(&without, &calls), Err(Broken::Records(lost.name.clone(), 0)));
    let mut told = calls.clone();
    let wrong = told.iter_mut().find_map(|call| match &mut call.answered {
        Some((_, Answer::Refused { used, .. })) => {
            *used += 500;
            Some(call.name.clone())
        }
        _ => None,
    });
    assert_eq!(check(&records, &told), Err(Broken::Refusal(wrong.unwrap())));
}
