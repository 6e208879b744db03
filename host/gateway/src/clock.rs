//! The system's clock: the one place that asks the machine for the time or for randomness.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use countersign_core::ledger::Fut;
use countersign_core::seams::{Clock, ClockError};
use countersign_core::time::Timestamp;

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

/// Random bytes for an identifier or a nonce.
///
/// # Errors
/// When the clock has none.
pub fn random<const N: usize>(clock: &dyn Clock) -> Result<[u8; N], ClockError> {
    let mut bytes = [0_u8; N];
    clock.random(&mut bytes)?;
    Ok(bytes)
}
