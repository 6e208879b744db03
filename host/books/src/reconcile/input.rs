//! Reading a list of transfers: CSV or JSON, as a chain reader or an explorer's export gives it.
//!
//! Columns: `network`, `asset`, `from`, `to`, `amount` (atomic units), `transaction`, `log`, `block`, `time` (seconds
//! since the epoch), and `nonce` where the transfer redeemed an authorization. Others are ignored.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::Transfer;

/// The most transfers one list may have.
pub const MAX_TRANSFERS: usize = 5_000_000;

const COLUMNS: [&str; 9] = ["network", "asset", "from", "to", "amount", "transaction", "log", "block", "time"];
const NONCE: &str = "nonce";

/// Why a list could not be read, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputError {
    /// The line, or for a JSON array the item, from 1; none when the whole is at fault.
    pub line: Option<usize>,
    /// What is wrong and what was expected.
    pub what: String,
}

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "transfer list, line {line}: {}", self.what),
            None => write!(f, "transfer list: {}", self.what),
        }
    }
}

impl std::error::Error for InputError {}

fn fault(line: usize, what: impl Into<String>) -> InputError {
    InputError { line: Some(line), what: what.into() }
}

/// Reads a list: a JSON array of objects, one JSON object per line, or CSV with a header.
///
/// # Errors
/// [`InputError`] with the line, the column and what was expected there.
pub fn read(text: &str) -> Result<Vec<Transfer>, InputError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.trim_start().chars().next() {
        None => Err(InputError { line: None, what: "it is empty: write at least the header of a CSV file".into() }),
        Some('[') => array(text),
        Some('{') => lines(text),
        Some(_) => csv(text),
    }
}

fn array(text: &str) -> Result<Vec<Transfer>, InputError> {
    let items: Vec<Value> =
        serde_json::from_str(text).map_err(|e| InputError { line: Some(e.line()), what: format!("not JSON: {e}") })?;
    limit(items.len())?;
    items.iter().enumerate().map(|(i, item)| object(item, i.saturating_add(1))).collect()
}

fn lines(text: &str) -> Result<Vec<Transfer>, InputError> {
    let mut all = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = i.saturating_add(1);
        let item = serde_json::from_str(line).map_err(|e| fault(number, format!("not a JSON object: {e}")))?;
        all.push(object(&item, number)?);
        limit(all.len())?;
    }
    Ok(all)
}

fn limit(count: usize) -> Result<(), InputError> {
    if count <= MAX_TRANSFERS {
        return Ok(());
    }
    Err(InputError { line: None, what: format!("more than {MAX_TRANSFERS} transfers: reconcile a shorter period") })
}

fn object(item: &Value, line: usize) -> Result<Transfer, InputError> {
    let Value::Object(map) = item else {
        return Err(fault(line, "expected an object with the columns of a transfer"));
    };
    let mut fields = BTreeMap::new();
    for name in COLUMNS.into_iter().chain([NONCE]) {
        let text = match map.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.clone(),
            // Whole numbers only: what JSON calls a number may have been rounded by whoever wrote it.
            Some(Value::Number(n)) if n.is_u64() => n.to_string(),
            Some(_) => return Err(fault(line, format!("`{name}` is neither a text nor a whole number"))),
        };
        fields.insert(name, text);
    }
    transfer(&fields, line)
}

fn csv(text: &str) -> Result<Vec<Transfer>, InputError> {
    let mut records = Records { rest: text, line: 1 };
    let (line, header) = records.next_record()?.unwrap_or_default();
    let header: Vec<String> = header.into_iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    for name in COLUMNS.into_iter().chain([NONCE]) {
        let times = header.iter().filter(|h| *h == name).count();
        if times > 1 {
            return Err(fault(line, format!("the header names `{name}` twice")));
        }
        if times == 0 && name != NONCE {
            return Err(fault(line, format!("the header has no column `{name}`; needed are {}", COLUMNS.join(", "))));
        }
    }
    let mut all = Vec::new();
    while let Some((line, record)) = records.next_record()? {
        if record.len() == 1 && record.first().is_some_and(String::is_empty) {
            continue;
        }
        if record.len() != header.len() {
            let what = format!("{} fields, but the header names {}", record.len(), header.len());
            return Err(fault(line, what));
        }
        let mut fields = BTreeMap::new();
        for (name, value) in header.iter().zip(record) {
            if let Some(known) = COLUMNS.into_iter().chain([NONCE]).find(|known| known == name) {
                fields.insert(known, value);
            }
        }
        all.push(transfer(&fields, line)?);
        limit(all.len())?;
    }
    Ok(all)
}

/// RFC 4180, with either line end.
struct Records<'t> {
    rest: &'t str,
    line: usize,
}

impl Records<'_> {
    /// The next record with the line it began on.
    fn next_record(&mut self) -> Result<Option<(usize, Vec<String>)>, InputError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let begun = self.line;
        let mut record = Vec::new();
        loop {
            let (field, end) = if let Some(inside) = self.rest.strip_prefix('"') {
                self.rest = inside;
                self.quoted(begun)?
            } else {
                self.bare(begun)?
            };
            record.push(field);
            match end {
                End::Comma => {}
                End::Line => return Ok(Some((begun, record))),
            }
        }
    }

    fn bare(&mut self, begun: usize) -> Result<(String, End), InputError> {
        let (field, end) = match self.rest.split_once([',', '\n']) {
            None => (std::mem::take(&mut self.rest), End::Line),
            Some((field, after)) => {
                let comma = self.rest.as_bytes().get(field.len()) == Some(&b',');
                self.rest = after;
                (field, if comma { End::Comma } else { self.newline() })
            }
        };
        let field = if matches!(end, End::Line) { field.strip_suffix('\r').unwrap_or(field) } else { field };
        if field.contains('"') {
            return Err(fault(begun, "a quote in a field that does not begin with one"));
        }
        Ok((field.to_owned(), end))
    }

    fn quoted(&mut self, begun: usize) -> Result<(String, End), InputError> {
        let mut field = String::new();
        loop {
            let Some((part, after)) = self.rest.split_once('"') else {
                return Err(fault(begun, "a quoted field that never ends"));
            };
            self.line = self.line.saturating_add(part.matches('\n').count());
            field.push_str(part);
            if let Some(more) = after.strip_prefix('"') {
                field.push('"');
                self.rest = more;
                continue;
            }
            let ended = after.strip_prefix(',').map(|rest| (rest, End::Comma));
            let line = after.strip_prefix("\r\n").or_else(|| after.strip_prefix('\n'));
            let line = line.or_else(|| matches!(after, "" | "\r").then_some("")).map(|rest| (rest, End::Line));
            let Some((rest, end)) = ended.or(line) else {
                return Err(fault(self.line, "something after the quote that ends a field"));
            };
            self.rest = rest;
            return Ok((field, if matches!(end, End::Line) { self.newline() } else { end }));
        }
    }

    fn newline(&mut self) -> End {
        self.line = self.line.saturating_add(1);
        End::Line
    }
}

enum End {
    Comma,
    Line,
}

fn transfer(fields: &BTreeMap<&'static str, String>, line: usize) -> Result<Transfer, InputError> {
    let field = |name: &str| fields.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let needed = |name: &str| field(name).ok_or_else(|| fault(line, format!("`{name}` is missing or empty")));
    let number = |name: &str| {
        let text = needed(name)?;
        whole(text)
            .and_then(|n| u64::try_from(n).ok())
            .ok_or_else(|| fault(line, format!("`{name}` is {}: expected a whole number", shown(text))))
    };
    let network = needed("network")?.to_owned();
    let evm = network.starts_with("eip155:");
    let address = |name: &str| {
        let text = needed(name)?;
        if !evm {
            return Ok(text.to_owned());
        }
        hex(text, 40)
            .ok_or_else(|| fault(line, format!("`{name}` is {}: expected `0x` and 40 hex digits", shown(text))))
    };
    let hash = |name: &str, text: &str| {
        hex(text, 64)
            .ok_or_else(|| fault(line, format!("`{name}` is {}: expected `0x` and 64 hex digits", shown(text))))
    };
    let amount = needed("amount")?;
    let transaction = needed("transaction")?;
    Ok(Transfer {
        asset: address("asset")?,
        from: address("from")?,
        to: address("to")?,
        amount: whole(amount).ok_or_else(|| {
            fault(line, format!("`amount` is {}: expected atomic units, a whole number below 2^128", shown(amount)))
        })?,
        transaction: if evm { hash("transaction", transaction)? } else { transaction.to_owned() },
        log: number("log")?,
        block: number("block")?,
        time: number("time")?,
        nonce: field(NONCE).map(|text| hash(NONCE, text)).transpose()?,
        network,
    })
}

fn whole(text: &str) -> Option<u128> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// `0x` and so many hex digits, in lower case.
fn hex(text: &str, digits: usize) -> Option<String> {
    let body = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let good = body.len() == digits && body.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| format!("0x{}", body.to_ascii_lowercase()))
}

/// A foreign value in a message: on one line, cut.
fn shown(text: &str) -> String {
    let mut line = String::from("`");
    crate::text::visible(&mut line, &text.chars().take(80).collect::<String>(), "`");
    line.push('`');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "network,asset,from,to,amount,transaction,log,block,time,nonce\n";

    fn row(amount: &str, nonce: &str) -> String {
        let (a, t) = ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "AB".repeat(32));
        format!("eip155:84532,{a},{a},{a},{amount},0x{t},3,7,1795341600,{nonce}")
    }

    #[test]
    fn csv_and_json_say_the_same() {
        let nonce = format!("0x{}", "01".repeat(32));
        let csv = format!("\u{feff}{HEADER}{}\r\n\r\n{}\n", row("5", &nonce), row("\"6\"", ""));
        let from_csv = read(&csv).unwrap();
        assert_eq!(from_csv.len(), 2);
        assert_eq!(from_csv[0].transaction, format!("0x{}", "ab".repeat(32)));
        assert_eq!((from_csv[0].nonce.as_deref(), from_csv[1].nonce.as_deref()), (Some(nonce.as_str()), None));
        assert_eq!((from_csv[0].amount, from_csv[1].amount), (5, 6));
        let object = |t: &Transfer| {
            serde_json::json!({"network": t.network, "asset": t.asset, "from": t.from, "to": t.to,
                "amount": t.amount.to_string(), "transaction": t.transaction, "log": t.log, "block": t.block,
                "time": t.time, "nonce": t.nonce, "other": [1]})
        };
        let items: Vec<_> = from_csv.iter().map(object).collect();
        assert_eq!(read(&serde_json::to_string(&items).unwrap()).unwrap(), from_csv);
        let lines: String = items.iter().map(|item| format!("{item}\n")).collect();
        assert_eq!(read(&lines).unwrap(), from_csv);
        let mixed = "Time,extra,log,block,network,asset,from,to,transaction,amount\n1,\"a \"\"b\"\"\nc\",2,3,solana:x,A,B,C,T,4";
        assert_eq!(read(mixed).unwrap()[0].asset, "A");
    }

    #[test]
    fn errors_name_the_line_the_column_and_what_was_expected() {
        let check = |text: &str, line: Option<usize>, words: &str| {
            let error = read(text).unwrap_err();
            assert!(error.line == line && error.what.contains(words), "{text:?}: {error}");
        };
        check("", None, "empty");
        check("network,asset\n", Some(1), "no column `from`");
        check(&format!("time,{HEADER}"), Some(1), "`time` twice");
        check(&format!("{HEADER}a,b\n"), Some(2), "2 fields, but the header names 10");
        check(&format!("{HEADER}{}\n{}\n", row("1", ""), row("1.5", "")), Some(3), "`amount` is `1.5`");
        check(&format!("{HEADER}{}\n", row("-1", "")), Some(2), "`amount` is `-1`");
        check(&format!("{HEADER}{}\n", row("", "")), Some(2), "`amount` is missing");
        check(&format!("{HEADER}{}\n", row("1", "0x12")), Some(2), "`nonce` is `0x12`: expected `0x` and 64");
        check(&format!("{HEADER}\"a"), Some(2), "never ends");
        check(&format!("{HEADER}\"a\"b,"), Some(2), "after the quote");
        check(&format!("{HEADER}a\"b,\n"), Some(2), "does not begin with one");
        check("[{\"network\":1.5}]", Some(1), "`network` is neither");
        check("{}\n[1]", Some(1), "`network` is missing");
        check("[1]", Some(1), "expected an object");
        check("[", Some(1), "not JSON");
        let big = "340282366920938463463374607431768211456";
        check(&format!("{HEADER}{}\n", row(big, "")), Some(2), "below 2^128");
        check(&format!("{HEADER}{}\n", row("\"1\n2\"", "")), Some(2), "`1\\n2`");
    }
}
