//! Properties: over many requests like these, never or always an answer like that.

use serde_json::{Value, json};

use crate::answer::{Decision, Verdict};
use crate::pattern::{Condition, OneOrMore, Pattern, Range};
use crate::request::{self, complete, ordinary};
use crate::run::Judge;

/// Requests tried when the property names no number.
const SAMPLES: u32 = 100;
const MOST_SAMPLES: u32 = 10_000;
/// Further requests spent on making a counterexample small.
const SHRINKS: u32 = 500;

#[derive(Clone, Debug)]
pub(crate) struct Property {
    pub(crate) name: String,
    pub(crate) settings: Option<Value>,
    pub(crate) base: Value,
    pub(crate) vary: Vec<(String, Values)>,
    pub(crate) samples: u32,
    pub(crate) when: When,
    pub(crate) never: Option<Rule>,
    pub(crate) always: Option<Rule>,
}

/// A pattern and how it was written.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    text: Value,
    pattern: Pattern,
}

impl Rule {
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        Ok(Self { text: value.clone(), pattern: Pattern::read(value)? })
    }
}

/// What a property speaks of; empty: everything.
#[derive(Clone, Debug, Default)]
pub(crate) struct When {
    /// Fields of the request.
    fields: Vec<(String, Condition)>,
    /// The answer's verdict.
    verdict: Option<OneOrMore<Verdict>>,
}

/// What a field takes in turn. The first is the simplest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    These(Vec<Value>),
    Range(u64, u64),
}

impl Values {
    pub(crate) fn read(path: &str, value: &Value) -> Result<Self, String> {
        match Condition::read(path, value)? {
            Condition::OneOf(values) => Ok(Self::These(values)),
            Condition::Range(Range { from, to: Some(to) }) => Ok(Self::Range(from.unwrap_or(0), to)),
            Condition::Range(_) => Err(format!("{}: name the end of the range with `to`", request::place(path))),
        }
    }
}

/// Checks the number of samples.
pub(crate) fn samples(asked: Option<u32>) -> Result<u32, String> {
    match asked.unwrap_or(SAMPLES) {
        n if (1..=MOST_SAMPLES).contains(&n) => Ok(n),
        n => Err(format!("samples: {n} is outside 1 to {MOST_SAMPLES}")),
    }
}

/// A request that breaks a property, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Counterexample {
    pub(crate) fragment: Value,
    pub(crate) expected: Value,
    pub(crate) got: Value,
}

/// What became of one request.
enum Trial {
    /// `when` does not speak of it.
    Beside,
    Kept(Decision),
    Broken {
        expected: Value,
        got: Value,
    },
}

/// The values chosen for one request, by field; a field that is not there stays ordinary.
type Choice = Vec<Option<Value>>;

impl Property {
    /// Tries the property; gives how many requests it spoke of, and the smallest counterexample found.
    pub(crate) fn run(&self, judge: &dyn Judge, seen: &mut dyn FnMut(&Decision)) -> (u64, Option<Counterexample>) {
        let mut spoken = 0_u64;
        for choice in self.choices() {
            match self.trial(judge, &choice) {
                Trial::Beside => {}
                Trial::Kept(decision) => {
                    spoken = spoken.saturating_add(1);
                    seen(&decision);
                }
                Trial::Broken { expected, got } => {
                    let first = Counterexample { fragment: self.fragment(&choice), expected, got };
                    return (spoken.saturating_add(1), Some(self.shrink(judge, choice, first)));
                }
            }
        }
        (spoken, None)
    }

    fn trial(&self, judge: &dyn Judge, choice: &Choice) -> Trial {
        // Base and values were checked when they were read; what does not fit together is no request.
        let Ok(request) = complete(ordinary(), &self.fragment(choice)) else { return Trial::Beside };
        if !self.when.fields.iter().all(|(path, condition)| condition.accepts(request::get(&request, path))) {
            return Trial::Beside;
        }
        let decision = match judge.judge(&request) {
            Ok(decision) => decision,
            Err(error) => return Trial::Broken { expected: "a decision".into(), got: error.into() },
        };
        if self.when.verdict.as_ref().is_some_and(|verdicts| !verdicts.contains(&decision.verdict)) {
            return Trial::Beside;
        }
        let never = self.never.as_ref().filter(|never| never.pattern.fits(&decision, &request));
        let always = self.always.as_ref().filter(|always| !always.pattern.fits(&decision, &request));
        let expected = match (never, always) {
            (Some(never), _) => json!({ "never": never.text }),
            (None, Some(always)) => json!({ "always": always.text }),
            (None, None) => return Trial::Kept(decision),
        };
        Trial::Broken { expected, got: serde_json::to_value(&decision).unwrap_or_default() }
    }

    fn fragment(&self, choice: &Choice) -> Value {
        let mut fragment = self.base.clone();
        for ((path, _), value) in self.vary.iter().zip(choice) {
            if let Some(value) = value {
                request::set(&mut fragment, path, value.clone());
            }
        }
        fragment
    }

    /// All combinations of the telling values if they are few; else as many of them and of values
    /// between as samples are asked for. The same every time.
    fn choices(&self) -> Vec<Choice> {
        let telling: Vec<Vec<Value>> = self.vary.iter().map(|(path, values)| self.telling(path, values)).collect();
        let combinations = telling.iter().try_fold(1_usize, |n, values| n.checked_mul(values.len()));
        let samples = usize::try_from(self.samples).unwrap_or(usize::MAX);
        let mut choices: Vec<Choice> = Vec::new();
        if let Some(all) = combinations.filter(|all| *all <= samples) {
            choices.extend((0..all).map(|index| combination(&telling, index)));
            if self.vary.iter().all(|(_, values)| matches!(values, Values::These(_))) {
                return choices;
            }
        }
        let mut random = Random::seeded(&self.name);
        while choices.len() < samples {
            let one = self.vary.iter().zip(&telling).map(|((_, values), telling)| match values {
                Values::Range(from, to) if random.below(2) == 0 => Some(random.between(*from, *to).into()),
                _ => random.pick(telling),
            });
            choices.push(one.collect());
        }
        choices
    }

    /// The values at which something may change: the ends, theirs and those of `when`, and their neighbours.
    fn telling(&self, path: &str, values: &Values) -> Vec<Value> {
        let (from, to) = match values {
            Values::These(values) => return values.clone(),
            Values::Range(from, to) => (*from, *to),
        };
        let ranges =
            self.when.fields.iter().filter(|(when, _)| when == path).filter_map(|(_, condition)| match condition {
                Condition::Range(range) => Some(range),
                Condition::OneOf(_) => None,
            });
        let ends = ranges.flat_map(|range| [range.from, range.to]).flatten().chain([from, to]);
        let mut telling: Vec<u64> = ends
            .flat_map(|end| [end.saturating_sub(1), end, end.saturating_add(1)])
            .filter(|n| (from..=to).contains(n))
            .collect();
        telling.sort_unstable();
        telling.dedup();
        telling.into_iter().map(Value::from).collect()
    }

    /// Makes a counterexample smaller as long as it stays one: fields back to the ordinary, choices to
    /// earlier ones, numbers down.
    fn shrink(&self, judge: &dyn Judge, mut choice: Choice, mut best: Counterexample) -> Counterexample {
        let mut left = SHRINKS;
        let mut smaller = true;
        while smaller {
            smaller = false;
            for (index, (_, values)) in self.vary.iter().enumerate() {
                let Some(now) = choice.get(index).cloned().flatten() else { continue };
                let mut attempts = Attempts::new(values, &now);
                while let Some(attempt) = attempts.next().filter(|_| left > 0) {
                    left = left.saturating_sub(1);
                    let mut tried = choice.clone();
                    if let Some(place) = tried.get_mut(index) {
                        place.clone_from(&attempt);
                    }
                    let broken = match self.trial(judge, &tried) {
                        Trial::Broken { expected, got } => {
                            best = Counterexample { fragment: self.fragment(&tried), expected, got };
                            choice = tried;
                            smaller = true;
                            true
                        }
                        Trial::Beside | Trial::Kept(_) => false,
                    };
                    attempts.tell(broken);
                }
            }
        }
        best
    }
}

/// Simpler values for one field, the simplest first; numbers by halving.
enum Attempts {
    These(std::vec::IntoIter<Option<Value>>),
    /// The field left ordinary first, then between the largest number known to be too small and the
    /// smallest known to do.
    Number {
        ordinary: bool,
        low: u64,
        high: u64,
        tried: Option<u64>,
        over: bool,
    },
}

impl Attempts {
    fn new(values: &Values, now: &Value) -> Self {
        match values {
            Values::These(values) => {
                let earlier = values.iter().take_while(|value| *value != now).cloned().map(Some);
                Self::These(std::iter::once(None).chain(earlier).collect::<Vec<_>>().into_iter())
            }
            Values::Range(from, _) => {
                let high = now.as_u64().unwrap_or(*from);
                Self::Number { ordinary: true, low: *from, high, tried: None, over: false }
            }
        }
    }

    fn next(&mut self) -> Option<Option<Value>> {
        match self {
            Self::These(values) => values.next(),
            Self::Number { over: true, .. } => None,
            Self::Number { ordinary: true, .. } => Some(None),
            Self::Number { low, high, tried, .. } => {
                let middle = *low + (*high - *low) / 2;
                *tried = (low < high).then_some(middle);
                tried.map(|n| Some(n.into()))
            }
        }
    }

    /// Whether the last attempt was a counterexample too.
    fn tell(&mut self, broken: bool) {
        match self {
            Self::These(values) => {
                if broken {
                    *values = Vec::new().into_iter();
                }
            }
            Self::Number { ordinary, low, high, tried, over } => {
                if std::mem::take(ordinary) {
                    *over = broken;
                } else if let Some(n) = *tried {
                    if broken { *high = n } else { *low = n.saturating_add(1) }
                }
            }
        }
    }
}

fn combination(telling: &[Vec<Value>], mut index: usize) -> Choice {
    let digit = |values: &Vec<Value>| {
        let value = values.get(index.checked_rem(values.len()).unwrap_or(0)).cloned();
        index = index.checked_div(values.len()).unwrap_or(0);
        value
    };
    telling.iter().map(digit).collect()
}

/// SplitMix64: the same numbers for the same name, everywhere and for ever.
struct Random(u64);

impl Random {
    fn seeded(name: &str) -> Self {
        // FNV-1a.
        Self(
            name.bytes()
                .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        )
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }

    /// Small distances from `from` as likely as large ones.
    fn between(&mut self, from: u64, to: u64) -> u64 {
        let span = to.saturating_sub(from).saturating_add(1);
        let bits = self.below(u64::from(u64::BITS - span.leading_zeros()).saturating_add(1));
        let scale = 1_u64.checked_shl(u32::try_from(bits).unwrap_or(u32::MAX)).unwrap_or(span).min(span);
        from.saturating_add(self.below(scale))
    }

    fn pick(&mut self, values: &[Value]) -> Option<Value> {
        let count = u64::try_from(values.len()).unwrap_or(0);
        usize::try_from(self.below(count)).ok().and_then(|index| values.get(index)).cloned()
    }
}

impl When {
    /// Reads `when`: dotted paths of the request, and `verdict` for the answer's.
    pub(crate) fn read(value: &Value) -> Result<Self, String> {
        let Value::Object(members) = value else { return Err("expected an object of dotted paths".to_owned()) };
        let mut when = Self::default();
        for (path, value) in members {
            if path == "verdict" {
                let verdict = serde_json::from_value(value.clone());
                when.verdict = Some(verdict.map_err(|_| "verdict: expected a verdict or a list of verdicts")?);
            } else {
                when.fields.push((path.clone(), Condition::read(path, value)?));
            }
        }
        Ok(when)
    }
}

/// Reads `vary`.
pub(crate) fn read_vary(value: &Value) -> Result<Vec<(String, Values)>, String> {
    let Value::Object(members) = value else { return Err("expected an object of dotted paths".to_owned()) };
    if members.is_empty() {
        return Err("names no field; a property is about more than one request".to_owned());
    }
    members.iter().map(|(path, value)| Ok((path.clone(), Values::read(path, value)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_and_repeatable() {
        let drawn = |name: &str| {
            let mut random = Random::seeded(name);
            (0..1_000).map(|_| random.between(10, 1_000_000)).collect::<Vec<_>>()
        };
        let numbers = drawn("a");
        assert_eq!(numbers, drawn("a"));
        assert_ne!(numbers, drawn("b"));
        assert!(numbers.iter().all(|n| (10..=1_000_000).contains(n)));
        assert!(numbers.iter().any(|n| *n < 100) && numbers.iter().any(|n| *n > 500_000));
        let mut random = Random::seeded("ends");
        assert!((0..20).all(|_| random.between(7, 7) == 7));
    }
}
