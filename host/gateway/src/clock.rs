//! The system's clock: the one place that asks the machine for the time or for randomness.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use countersign_core::ledger::Fut;
use countersign_core::seams::{Clock, ClockError};
use countersign_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// The machine's clock and its random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Result<Timestamp, ClockError> {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_err(|_| ClockError("the system clock is before 1970".to_owned()))?;
        let millis = u64::try_from(since.as_millis()).map_err(|_| ClockError("the clock overflows".to_owned()))?;
        if millis < 1_700_000_000_000 {
            // A machine that lost its clock would re-open every budget window of the past.
            return Err(ClockError("the system clock is before 2023; set it".to_owned()));
        }
        Ok(Timestamp::from_millis(millis))
    }

    fn random(&self, out: &mut [u8]) -> Result<(), ClockError> {
        getrandom::fill(out).map_err(|e| ClockError(format!("no randomness: {e}")))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn sleep(&self, millis: u64) -> Fut<'_, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(millis)))
    }
}

/// Measures how long something takes, for people: nothing is decided by it.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub fn nanos(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn micros(self) -> u64 {
        self.nanos() / 1_000
    }
}

/// Milliseconds since the machine started, time asleep included. Nobody can set it.
fn uptime() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000)
}

/// A clock that does not jump: where the time of day leaves the time since start behind, or falls behind
/// it, nothing may be decided, because a clock set forward empties every budget's window. It works again
/// once the time is back where it must be; if the new time is the right one, a restart accepts it.
pub struct SteadyClock {
    inner: Arc<dyn Clock>,
    uptime: fn() -> u64,
    last: Mutex<Option<(Timestamp, u64)>>,
}

impl SteadyClock {
    /// The farthest the two may come apart between two looks, in milliseconds. Slow corrections are followed.
    const JUMP: u64 = 300_000;

    /// Watches `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Clock>) -> Self {
        Self::by(inner, uptime)
    }

    fn by(inner: Arc<dyn Clock>, uptime: fn() -> u64) -> Self {
        Self { inner, uptime, last: Mutex::new(None) }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Result<Timestamp, ClockError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, up) = (self.inner.now()?, (self.uptime)());
        if let Some((then, since)) = *last {
            let expected = then.plus_millis(up.saturating_sub(since));
            let apart = now.since(expected).max(expected.since(now));
            if apart > Self::JUMP {
                return Err(ClockError(format!(
                    "the system clock says {now} where it must be about {expected}; set it right, or restart the gateway if it is right now"
                )));
            }
        }
        *last = Some((now, up));
        Ok(now)
    }

    fn random(&self, out: &mut [u8]) -> Result<(), ClockError> {
        self.inner.random(out)
    }

    fn sleep(&self, millis: u64) -> Fut<'_, ()> {
        self.inner.sleep(millis)
    }
}

/// Random bytes for an identifier or a nonce.
///
/// # Errors
/// When the clock has none.
pub fn random<const N: usize>(clock: &dyn Clock) -> Result<[u8; N], ClockError> {
    let mut bytes = [0_u8; N];
    clock.random(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    struct Set(AtomicU64);

    impl Clock for Set {
        fn now(&self) -> Result<Timestamp, ClockError> {
            Ok(Timestamp::from_millis(self.0.load(Ordering::SeqCst)))
        }

        fn random(&self, _: &mut [u8]) -> Result<(), ClockError> {
            Ok(())
        }

        fn sleep(&self, _: u64) -> Fut<'_, ()> {
            Box::pin(std::future::ready(()))
        }
    }

    thread_local!(static UP: Cell<u64> = const { Cell::new(0) });

    #[test]
    fn a_clock_that_jumps_decides_nothing_until_it_is_right_again() {
        const DAY: u64 = 86_400_000;
        let wall = Arc::new(Set(AtomicU64::new(20_000 * DAY)));
        let clock = SteadyClock::by(Arc::clone(&wall) as Arc<dyn Clock>, || UP.get());
        let at = |up: u64, shift: i64| {
            UP.set(up);
            wall.0.store((20_000 * DAY + up).checked_add_signed(shift).unwrap(), Ordering::SeqCst);
            clock.now().is_ok()
        };
        assert!(at(0, 0) && at(1_000, 0));
        assert!(at(DAY, 0), "a long quiet night is no jump");
        assert!(!at(DAY + 1_000, 300_001), "forward");
        assert!(!at(DAY + 2_000, -300_001), "back");
        assert!(!at(DAY + 3_000, 10 * i64::try_from(DAY).unwrap()));
        assert!(at(DAY + 4_000, 0), "right again");
        // Corrections of four minutes at a time are followed.
        assert!(at(DAY + 5_000, 240_000) && at(DAY + 6_000, 480_000) && at(DAY + 7_000, 240_000));
        assert!(!at(DAY + 8_000, 600_000));
    }

    #[test]
    fn the_machine_knows_how_long_it_runs() {
        let first = uptime();
        assert!(first > 0 && uptime() >= first);
    }
}
