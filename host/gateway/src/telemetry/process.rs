//! What the system knows of this process. Where there is no `/proc`, nothing is told.

use std::fs;

/// Figures of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Seconds of processor time.
    pub(super) cpu_seconds: Option<f64>,
    /// Resident bytes.
    pub(super) memory: Option<u64>,
    /// Open descriptors.
    pub(super) fds: Option<u64>,
    /// How many there may be.
    pub(super) max_fds: Option<u64>,
    /// Since when, in seconds since the epoch.
    pub(super) started: Option<f64>,
}

/// Reads them.
pub(super) fn read() -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = ticks(&stat);
    Process {
        cpu_seconds: ticks.map(|(cpu, _)| seconds(cpu)),
        memory: line(&status, "VmRSS:").and_then(|kib| kib.checked_mul(1_024)),
        fds: fs::read_dir("/proc/self/fd").ok().and_then(|all| u64::try_from(all.count()).ok()),
        max_fds: line(&limits, "Max open files"),
        started: ticks.zip(line(&system, "btime ")).map(|((_, after), boot)| seconds(after) + float(boot)),
    }
}

/// Every Linux tells user space about a hundredth of a second, whatever it counts in itself.
fn seconds(ticks: u64) -> f64 {
    float(ticks) / 100.0
}

/// Processor ticks, and the tick after boot at which the process started. The name before them may hold anything.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let started = fields.nth(6)?.parse().ok()?;
    Some((user.saturating_add(system), started))
}

/// The first number of the line that begins so.
fn line(text: &str, start: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(start))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// A whole number as a metric has it: exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "metrics are floating-point numbers; nothing is counted with them")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_hides_nothing() {
        let stat =
            "17 (a) b) c) S 1 17 17 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 4321 1000 25 18446744073709551615";
        assert_eq!(ticks(stat), Some((300, 4_321)));
        assert_eq!(ticks("17 (x"), None);
    }

    #[test]
    fn this_process_has_memory_and_descriptors() {
        let process = read();
        assert!(process.memory.unwrap() > 1 << 20);
        assert!(process.fds.unwrap() > 2 && process.max_fds.unwrap() >= process.fds.unwrap());
        assert!(process.started.unwrap() > 1_700_000_000.0);
        assert!(process.cpu_seconds.is_some());
    }
}
