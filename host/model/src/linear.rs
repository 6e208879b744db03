//! Whether what concurrent callers saw of one budget can be put into an order that a counter with a limit allows.
//!
//! Nothing but what callers were told is believed: no record, no number of a record. That makes the question NP-hard,
//! so it is asked of a few calls at a time, which all began when the counter was known. The search is that of Wing and
//! Gong with the memory of Lowe: a set of calls that was tried and left the counter where it is now is not tried again.

use std::collections::BTreeSet;
use std::fmt;

/// Calls of one window. With more, the search may take too long.
pub const MOST: usize = 12;

/// What is asked of the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To reserve so much.
    Take(u64),
    /// To give so much of it back.
    Give(u64),
}

/// What a caller was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It is done.
    Done,
    /// There is no room; so much was in use.
    Full(u64),
}

/// One call as its caller saw it. Moments are drawn from one counter that only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked.
    pub asks: Asked,
    /// When.
    pub asked: u64,
    /// When the answer was there, and what it said. None if it never came: then the call happened once, or never.
    pub answered: Option<(u64, Told)>,
}

/// Why a window is not one of a counter with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// No order of the calls explains what their callers were told. The longest that did has so many.
    NoOrder(usize),
    /// There are more calls than [`MOST`].
    TooMany(usize),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoOrder(longest) => {
                write!(
                    f,
                    "no order of the calls explains what callers were told; one of {longest} of them comes closest"
                )
            }
            Self::TooMany(calls) => write!(f, "{calls} calls are more than the {MOST} that can be ordered"),
        }
    }
}

impl std::error::Error for Broken {}

struct Search<'a> {
    limit: u64,
    calls: &'a [Call],
    /// Sets of calls, one bit for each, with what was in use after them: nothing comes of these.
    tried: BTreeSet<(u32, u64)>,
    order: Vec<usize>,
    longest: usize,
}

impl Search<'_> {
    const fn bit(index: usize) -> u32 {
        1_u32.wrapping_shl(index as u32)
    }

    /// Extends the order until every answered call is in it.
    fn extend(&mut self, done: u32, used: u64) -> bool {
        self.longest = self.longest.max(self.order.len());
        let left = || self.calls.iter().enumerate().filter(move |(index, _)| done & Self::bit(*index) == 0);
        // Whoever asks only when this answer is there comes later.
        let Some(first) = left().filter_map(|(_, call)| call.answered.map(|(moment, _)| moment)).min() else {
            return true;
        };
        if !self.tried.insert((done, used)) {
            return false;
        }
        let may_be_next: Vec<_> = left().filter(|(_, call)| call.asked <= first).map(|(i, call)| (i, *call)).collect();
        for (index, call) in may_be_next {
            if let Some(used) = after(used, self.limit, &call) {
                self.order.push(index);
                if self.extend(done | Self::bit(index), used) {
                    return true;
                }
                self.order.pop();
            }
        }
        false
    }
}

/// What is in use after this call, if it can have been told what it was.
fn after(used: u64, limit: u64, call: &Call) -> Option<u64> {
    match (call.asks, call.answered.map(|(_, told)| told)) {
        (Asked::Take(amount), Some(Told::Done) | None) => used.checked_add(amount).filter(|used| *used <= limit),
        (Asked::Take(amount), Some(Told::Full(quoted))) => {
            (quoted == used && used.saturating_add(amount) > limit).then_some(used)
        }
        (Asked::Give(amount), Some(Told::Done) | None) => used.checked_sub(amount),
        (Asked::Give(_), Some(Told::Full(_))) => None,
    }
}

/// An order of the calls, by their indices, that a counter explains which begins at `used` and never passes `limit`.
///
/// # Errors
/// When there is none, or there are too many calls to look for one.
pub fn order(limit: u64, used: u64, calls: &[Call]) -> Result<Vec<usize>, Broken> {
    if calls.len() > MOST {
        return Err(Broken::TooMany(calls.len()));
    }
    let mut search = Search { limit, calls, tried: BTreeSet::new(), order: Vec::new(), longest: 0 };
    if search.extend(0, used) { Ok(search.order) } else { Err(Broken::NoOrder(search.longest)) }
}
