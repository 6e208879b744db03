//! Whether what concurrent callers saw of budgets is what counters with a limit would have told them.
//!
//! In general that question is NP-hard. Here it is not, because each record names the counters after it
//! and records are numbered: the numbers are the order. What is left to check is that the arithmetic holds
//! from each record to the next, that nothing was granted over its limit, that the order does not contradict
//! what the callers saw (who had an answer before another asked, comes first), that every acknowledged call
//! has its record, and that every refusal quotes a state the budget was in while the caller waited. Sorting
//! apart, the time is linear in the history, as long as few calls overlap any one refusal.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// A budget's counter row: the budget's identity and the window's start.
pub type Row = (String, u64);

/// How one record moved one row, and what it left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Entry {
    /// The budget's identity.
    pub budget: String,
    /// The window's start in milliseconds since the epoch; 0 for lifetime and rolling windows.
    pub win: u64,
    /// The limit last stated.
    pub limit: u64,
    /// Reserved, afterwards.
    pub held: u64,
    /// Gone, afterwards.
    pub spent: u64,
    /// Newly reserved.
    #[serde(default)]
    pub hold: u64,
    /// Left what is reserved.
    #[serde(default)]
    pub release: u64,
    /// Added to what is gone.
    #[serde(default)]
    pub spend: u64,
    /// Came back.
    #[serde(default)]
    pub refund: u64,
    /// Left what is reserved because of its age.
    #[serde(default)]
    pub aged: u64,
    /// Of that, added to what is gone.
    #[serde(default)]
    pub aged_spent: u64,
    /// Left a rolling window.
    #[serde(default)]
    pub left: u64,
    /// Taken over from another window of the same budget.
    #[serde(default)]
    pub seeded: u64,
}

/// A numbered record of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// Names the call that caused it; empty, if none of the history did.
    pub call: String,
    /// What it moved.
    pub entries: Vec<Entry>,
}

/// What a caller was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done: there must be a record.
    Done,
    /// There was no room: nothing was written.
    Refused {
        /// Which row had none.
        row: Row,
        /// Reserved and gone, as the caller was told.
        used: u64,
        /// What was asked for.
        wanted: u64,
        /// Up to which limit.
        limit: u64,
    },
}

/// One call as its caller saw it. Moments are drawn from one counter that only rises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name; no two share one.
    pub name: String,
    /// When it was asked.
    pub asked: u64,
    /// When the answer was there; never, if none came.
    pub answered: Option<(u64, Answer)>,
}

/// Why a history is not that of counters with limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Two records have this number.
    Number(u64),
    /// The counters after this record are not those before it, moved by what it says.
    Arithmetic(u64),
    /// This record reserves beyond the limit.
    Over(u64),
    /// This record comes after one whose call was asked only when this one's answer was there.
    Order(u64),
    /// This call was acknowledged and has no record, or several.
    Records(String, usize),
    /// This call was refused, though no state it may have met had too little room, or not the one it quotes.
    Refusal(String),
    /// This call was refused and has a record all the same.
    RefusedYetDone(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(seq) => write!(f, "two records have the number {seq}"),
            Self::Arithmetic(seq) => write!(f, "record {seq}: the counters do not follow from those before it"),
            Self::Over(seq) => write!(f, "record {seq}: reserves beyond the limit"),
            Self::Order(seq) => write!(f, "record {seq}: its call had its answer before an earlier record's was asked"),
            Self::Records(name, count) => write!(f, "call {name} was acknowledged and has {count} records"),
            Self::Refusal(name) => write!(f, "call {name} was refused by a state that never was"),
            Self::RefusedYetDone(name) => write!(f, "call {name} was refused and has a record"),
        }
    }
}

impl std::error::Error for Broken {}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Records.
    pub records: usize,
    /// Rows they moved.
    pub rows: usize,
    /// Refusals that quote a state which was.
    pub refusals: usize,
}

/// Reads the `budgets` of a record's body.
///
/// # Errors
/// When the body is not JSON or its entries are not as agreed.
pub fn entries(body: &str) -> Result<Vec<Entry>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        budgets: Vec<Entry>,
    }
    Ok(serde_json::from_str::<Body>(body)?.budgets)
}

/// One row through time: after each record that moved it.
#[derive(Default)]
struct Story {
    /// Held and spent together, first before any record.
    used: Vec<u64>,
    /// The calls of the records.
    calls: Vec<Option<(u64, Option<u64>)>>,
    held: u64,
    spent: u64,
}

/// Whether this is a history of counters with limits.
///
/// # Errors
/// The first thing that shows it is not.
pub fn check(records: &[Record], calls: &[Call]) -> Result<Checked, Broken> {
    let mut ordered: Vec<&Record> = records.iter().collect();
    ordered.sort_by_key(|record| record.seq);
    if let Some(twice) = ordered.windows(2).find_map(|pair| match pair {
        [a, b] if a.seq == b.seq => Some(a.seq),
        _ => None,
    }) {
        return Err(Broken::Number(twice));
    }
    let by_name: BTreeMap<&str, &Call> = calls.iter().map(|call| (call.name.as_str(), call)).collect();
    acknowledged(&ordered, calls)?;
    let stories = retold(&ordered, &by_name)?;
    let times: BTreeMap<&Row, Times> = stories.iter().map(|(row, story)| (row, Times::of(story))).collect();
    let mut refusals = 0_usize;
    for call in calls {
        if let Some((answered, Answer::Refused { row, used, wanted, limit })) = &call.answered {
            let met = match (stories.get(row), times.get(row)) {
                (Some(story), Some(times)) => times.states(story, call.asked, *answered).any(|state| state == *used),
                _ => *used == 0,
            };
            if !met || used.saturating_add(*wanted) <= *limit {
                return Err(Broken::Refusal(call.name.clone()));
            }
            refusals = refusals.saturating_add(1);
        }
    }
    Ok(Checked { records: records.len(), rows: stories.len(), refusals })
}

fn acknowledged(ordered: &[&Record], calls: &[Call]) -> Result<(), Broken> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for record in ordered {
        let of = count.entry(record.call.as_str()).or_default();
        *of = of.saturating_add(1);
    }
    for call in calls {
        let records = count.get(call.name.as_str()).copied().unwrap_or(0);
        match &call.answered {
            Some((_, Answer::Done)) if records != 1 => return Err(Broken::Records(call.name.clone(), records)),
            Some((_, Answer::Refused { .. })) if records > 0 => return Err(Broken::RefusedYetDone(call.name.clone())),
            _ => {}
        }
    }
    Ok(())
}

fn retold(ordered: &[&Record], calls: &BTreeMap<&str, &Call>) -> Result<BTreeMap<Row, Story>, Broken> {
    let mut stories: BTreeMap<Row, Story> = BTreeMap::new();
    // When the last of the calls that come first was asked.
    let mut asked_last = 0_u64;
    for record in ordered {
        let call = calls.get(record.call.as_str()).map(|call| (call.asked, call.answered.as_ref().map(|a| a.0)));
        if let Some((asked, answered)) = call {
            if answered.is_some_and(|answered| answered < asked_last) {
                return Err(Broken::Order(record.seq));
            }
            asked_last = asked_last.max(asked);
        }
        for e in &record.entries {
            let story =
                stories.entry((e.budget.clone(), e.win)).or_insert_with(|| Story { used: vec![0], ..Story::default() });
            let wide = u128::from;
            let held = (wide(story.held) + wide(e.hold)).checked_sub(wide(e.release) + wide(e.aged));
            let more = wide(story.spent) + wide(e.spend) + wide(e.aged_spent) + wide(e.seeded);
            let spent = more.checked_sub(wide(e.left) + wide(e.refund));
            if (held, spent) != (Some(wide(e.held)), Some(wide(e.spent))) {
                return Err(Broken::Arithmetic(record.seq));
            }
            let used = wide(e.held) + wide(e.spent);
            if e.hold > 0 && used > wide(e.limit) {
                return Err(Broken::Over(record.seq));
            }
            (story.held, story.spent) = (e.held, e.spent);
            story.used.push(u64::try_from(used).unwrap_or(u64::MAX));
            story.calls.push(call);
        }
    }
    Ok(stories)
}

/// When calls of one row were asked and answered, for finding where a refusal may stand in its story.
struct Times {
    /// (answered, the latest record of a call answered by then), by the first.
    answered: Vec<(u64, usize)>,
    /// (asked, the earliest record of a call asked from then on), by the first.
    asked: Vec<(u64, usize)>,
}

impl Times {
    fn of(story: &Story) -> Self {
        let known = || story.calls.iter().enumerate().filter_map(|(index, call)| call.map(|call| (index, call)));
        let mut answered: Vec<_> =
            known().filter_map(|(index, (_, done))| done.map(|done| (done, index.saturating_add(1)))).collect();
        answered.sort_unstable();
        let mut latest = 0;
        for (_, index) in &mut answered {
            latest = latest.max(*index);
            *index = latest;
        }
        let mut asked: Vec<_> = known().map(|(index, (begun, _))| (begun, index)).collect();
        asked.sort_unstable();
        let mut earliest = usize::MAX;
        for (_, index) in asked.iter_mut().rev() {
            earliest = earliest.min(*index);
            *index = earliest;
        }
        Self { answered, asked }
    }

    /// The states a call may have met: after every record whose answer was there before it was asked, and
    /// before every record that was asked for only when it had its answer.
    fn states<'a>(&self, story: &'a Story, asked: u64, answered: u64) -> impl Iterator<Item = u64> + 'a {
        let before = self.answered.partition_point(|(done, _)| *done < asked);
        let first = before.checked_sub(1).and_then(|last| self.answered.get(last)).map_or(0, |(_, index)| *index);
        let after = self.asked.partition_point(|(begun, _)| *begun <= answered);
        let last = self.asked.get(after).map_or(story.calls.len(), |(_, index)| *index);
        story.used.iter().copied().take(last.saturating_add(1)).skip(first)
    }
}
