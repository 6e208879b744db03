//! Times and sizes as people write them.

/// `"24h"`, `"10m"`, `"30s"`, `"500ms"`, `"7d"` or `"0"`, in milliseconds.
pub(super) fn millis(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    scaled(text, &UNITS)
}

/// `"1MiB"`, `"512KiB"`, `"2GiB"`, `"100B"` or plain digits, in bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] = [("B", 1), ("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    scaled(text, &UNITS)
}

/// Plain digits and exactly one of the units; nothing needs no unit.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    digits.parse::<u64>().ok()?.checked_mul(*scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_exact() {
        let check = |text: &str, time: Option<u64>, size: Option<u64>| {
            assert_eq!((millis(text), bytes(text)), (time, size), "{text:?}");
        };
        check("0", Some(0), Some(0));
        check("24h", Some(86_400_000), None);
        check("7d", Some(604_800_000), None);
        check("10m", Some(600_000), None);
        check("30s", Some(30_000), None);
        check("250ms", Some(250), None);
        check("1MiB", None, Some(1 << 20));
        check("512KiB", None, Some(512 << 10));
        check("2GiB", None, Some(2 << 30));
        check("17B", None, Some(17));
        check("17", None, Some(17));
        for bad in
            ["", "h", "-1h", "1 h", "1.5h", "1H", "1MB", "1mib", "0x10", "99999999999999999999s", "9999999999999999h"]
        {
            check(bad, None, None);
        }
    }
}
