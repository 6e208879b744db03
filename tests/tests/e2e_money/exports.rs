//! The books: complete, the same at every door, and nobody else's text breaks out of its place.

use super::*;
use std::{collections::BTreeMap, fs};

const FORMATS: [(&str, &str); 5] = [
    ("csv", "text/csv"),
    ("jsonl", "application/x-ndjson"),
    ("beancount", "text/plain"),
    ("hledger", "text/plain"),
    ("focus", "text/csv"),
];
/// Where the seller with a hostile description sells: its path as it is in the catalogue.
const FORMULA: &str = "/=1+1;@SUM(A1);-2%0A%0D%22,%E2%80%AE";
/// What an agent says its purpose is: formulas, quotes, line ends, control and direction characters.
const PURPOSE: &str = "=HYPERLINK(\"http://evil.example\";\"x\")\r\n@cmd|' /C calc'!A0,\u{1b}[2J\u{202e}drawkcab\n+1\n";
/// Characters that must never be in a file as they are, beside line ends.
const HIDDEN: [char; 6] = ['\u{1b}', '\u{202e}', '\u{2028}', '\u{0}', '\u{8}', '\u{7f}'];

/// What was paid for what [`sold`] bought, in millionths.
const PAID: u64 = 42_000;

/// Four purchases that the chain proves, two of 0.001 USDC and two of 0.02 with hostile text, and one in doubt.
fn sold() -> Scene {
    let scene = Scene::new(&["honest", "talks-to-the-model", KEEPER]);
    for _ in 0..2 {
        scene.settled("honest");
    }
    scene.seller("talks-to-the-model").set_price(FORMULA, 20_000);
    let url = scene.seller("talks-to-the-model").url(FORMULA);
    for more in [json!({"purpose": PURPOSE}), json!({"purpose": "-2+3"})] {
        let payment = bought(&scene.agent().fetch(&url, more), "0.02");
        scene.until(&payment, "settled");
    }
    scene.doubtful();
    scene
}

fn export(scene: &Scene, query: &str) -> Response {
    scene.operator().get(&format!("/v1/export?{query}"))
}

#[track_caller]
fn exported(scene: &Scene, query: &str) -> String {
    let answer = export(scene, query);
    assert_eq!(answer.status, 200, "{}", answer.text());
    String::from_utf8(answer.body).unwrap()
}

/// The records of a CSV file (RFC 4180) by the names in its header; panics when it is not one.
fn records(csv: &str) -> Vec<BTreeMap<String, String>> {
    let (mut lines, mut fields, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut chars, mut quoted) = (csv.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                fields.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut fields));
            }
            c => field.push(c),
        }
    }
    assert!(!quoted && field.is_empty() && fields.is_empty(), "it does not end with a whole line");
    let header = lines.remove(0);
    assert!(header.iter().all(|name| !name.is_empty()), "{header:?}");
    let record = |line: Vec<String>| {
        assert_eq!(line.len(), header.len(), "{line:?}");
        header.iter().cloned().zip(line).collect()
    };
    lines.into_iter().map(record).collect()
}

/// The sum of a column, in millionths.
fn sum(records: &[BTreeMap<String, String>], column: &str) -> u64 {
    records.iter().map(|record| micros(&json!(record[column]))).sum()
}

#[test]
fn every_format_is_streamed_as_what_it_is_and_both_doors_give_the_same_bytes() {
    let scene = sold();
    for (format, media) in FORMATS {
        let answer = export(&scene, &format!("format={format}"));
        assert_eq!(answer.status, 200, "{format}: {}", answer.text());
        assert!(answer.header("content-type").unwrap().starts_with(media), "{format}: {:?}", answer.headers);
        assert!(!answer.body.is_empty());
        let printed = scene.gateway.command(&["ledger", "export", "--format", format]);
        said(&printed);
        assert!(printed.stdout == answer.body, "{format}: the command line says something else");
        let file = format!("books.{format}");
        said(&scene.gateway.command(&["ledger", "export", "--format", format, "--out", &file]));
        let written = fs::read(scene.gateway.dir().join(&file)).unwrap();
        assert!(written == answer.body, "{format}: the file is something else");
        // Nothing happened meanwhile: nothing else is said.
        assert!(export(&scene, &format!("format={format}")).body == answer.body, "{format} is not the same twice");
    }
}

#[test]
fn the_books_say_what_was_paid() {
    let scene = sold();
    let paid: u128 = scene.world.new_redemptions().values().map(|redemption| redemption.value).sum();
    let paid = u64::try_from(paid).unwrap();
    assert_eq!(paid, PAID);

    let csv = records(&exported(&scene, "format=csv"));
    assert_eq!(csv.len(), 5);
    assert_eq!((sum(&csv, "settled_value"), sum(&csv, "settled_amount")), (paid, paid));
    assert_eq!(csv.iter().filter(|record| record["state"] == "settled").count(), 4);
    assert_eq!(csv.iter().filter(|record| record["state"] == "unknown").count(), 1);
    assert_eq!(sum(&csv, "in_doubt_value"), 1_000);

    let jsonl: Vec<Value> =
        exported(&scene, "format=jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(jsonl.iter().map(|row| micros(&row["settled_value"])).sum::<u64>(), paid);
    for (row, record) in jsonl.iter().zip(&csv) {
        assert_eq!(row["id"], record["id"]);
        let payment = scene.payment(text(row, "/id"));
        assert_eq!((&row["state"], &row["transaction"]), (&payment["state"], &payment["transaction"]));
        assert_eq!((&row["agent"], &row["seller"]), (&payment["agent"], &payment["seller"]["host"]));
    }
    assert_eq!(jsonl.len(), csv.len());

    let focus = records(&exported(&scene, "format=focus"));
    assert_eq!((focus.len(), sum(&focus, "BilledCost"), sum(&focus, "EffectiveCost")), (4, paid, paid));

    for format in ["beancount", "hledger"] {
        let journal = exported(&scene, &format!("format={format}"));
        // What is in doubt is no expense.
        let expenses = journal.lines().filter_map(|line| {
            let posting = line.trim_start().strip_prefix("Expenses:")?;
            Some(micros(&json!(posting.split_whitespace().nth(1)?)))
        });
        assert_eq!(expenses.sum::<u64>(), paid, "{format}: {journal}");
    }
}

#[test]
fn a_refund_is_in_the_books() {
    let scene = Scene::new(&["honest"]);
    let payment = scene.settled("honest");
    let body = json!({"amount": "0.0004", "reference": "=CN;1"});
    let answer = scene.operator().post(&format!("/v1/payments/{payment}/refunds"), &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let csv = records(&exported(&scene, "format=csv"));
    assert_eq!((sum(&csv, "settled_value"), sum(&csv, "refunded_value")), (1_000, 400));
    let focus = records(&exported(&scene, "format=focus"));
    let costs: Vec<&str> = focus.iter().map(|record| record["BilledCost"].as_str()).collect();
    assert_eq!(costs, ["0.001", "-0.0004"]);
    for format in ["beancount", "hledger"] {
        assert!(exported(&scene, &format!("format={format}")).contains("0.0004"), "{format}");
    }
}

#[test]
fn rule_23_foreign_text_stays_on_its_line_and_is_no_formula() {
    let scene = sold();
    for (format, _) in FORMATS {
        let file = exported(&scene, &format!("format={format}"));
        for hidden in HIDDEN {
            assert!(!file.contains(hidden), "{format} has {hidden:?} in it");
        }
        let alone = file.replace("\r\n", "\n");
        assert!(!alone.contains('\r'), "{format} has half a line end in it");
        assert!(file.contains("HYPERLINK"), "{format} lost the purpose");
    }
    for format in ["csv", "focus"] {
        let file = exported(&scene, &format!("format={format}"));
        let records = records(&file);
        assert_eq!(file.lines().count(), records.len() + 1, "{format}: one physical line each");
        for record in &records {
            for (name, value) in record {
                let formula = value.trim_start().starts_with(['=', '+', '@', '\t']);
                let number = value.strip_prefix('-').is_some_and(|digits| digits.parse::<f64>().is_ok());
                let minus = value.trim_start().starts_with('-') && !number;
                assert!(!formula && !minus, "{format}: {name} is {value:?}");
            }
        }
        let whole = if format == "csv" { 5 } else { 4 };
        assert_eq!(records.len(), whole);
    }
    // JSON escapes what is hidden, and gives all of it back.
    let rows: Vec<Value> =
        exported(&scene, "format=jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.iter().any(|row| row["purpose"].as_str().is_some_and(|purpose| purpose.starts_with("=HYPERLINK"))));
    assert!(rows.iter().any(|row| text(row, "/url").ends_with("%0A%0D%22,%E2%80%AE")), "{rows:?}");
    // A journal's lines begin with nothing that a stranger chose.
    for format in ["beancount", "hledger"] {
        for line in exported(&scene, &format!("format={format}")).lines() {
            let ours = line.is_empty()
                || line.starts_with(' ')
                || line.starts_with(|c: char| c.is_ascii_digit())
                || ["option ", "decimal-mark ", "account ", "commodity ", "plugin ", ";"]
                    .iter()
                    .any(|w| line.starts_with(w));
            assert!(ours, "{format}: {line:?}");
        }
    }
}

#[test]
fn an_export_is_narrowed_by_state_and_time() {
    let scene = sold();
    let count = |query: &str| records(&exported(&scene, &format!("format=csv&{query}"))).len();
    assert_eq!(count("state=settled"), 4);
    assert_eq!(count("state=unknown"), 1);
    assert_eq!(count("state=unknown&state=settled"), 5);
    assert_eq!(count("state=refunded"), 0);
    let all = items(&scene.operator().get("/v1/payments"));
    let (newest, oldest) = (text(&all[0], "/created_at"), text(&all[4], "/created_at"));
    assert_eq!(count(&format!("since={newest}")), 1, "from this moment on");
    assert_eq!(count(&format!("until={newest}")), 4, "and not this one");
    assert_eq!(count(&format!("since={oldest}")), 5);
    assert_eq!(count(&format!("until={oldest}")), 0);
    assert_eq!(count("since=2100-01-01T00:00:00Z"), 0);

    let narrow = ["--state", "settled", "--since", oldest, "--until", newest];
    let command = [["ledger", "export", "--format", "csv"].as_slice(), narrow.as_slice()].concat();
    let printed = said(&scene.gateway.command(&command));
    assert_eq!(printed, exported(&scene, &format!("format=csv&state=settled&since={oldest}&until={newest}")));
    assert_eq!(records(&printed).len(), 4);
}

#[test]
fn what_an_export_does_not_know_is_refused_with_what_it_does() {
    let scene = Scene::with(&["honest"], 2, |config, _| config.operator("bob", OTHER_TOKEN, &["approver"]));
    scene.settled("honest");
    for (query, words) in [
        ("format=csv&colour=red", vec!["colour", "state", "since", "until"]),
        ("format=xls", vec!["xls", "csv", "jsonl", "beancount", "focus"]),
        ("", vec!["csv", "jsonl", "beancount", "focus"]),
        ("format=csv&state=gone", vec!["gone", "settled"]),
        ("format=csv&since=yesterday", vec!["since"]),
        ("format=csv&until=2026-13-01T00:00:00Z", vec!["until"]),
    ] {
        let told = refused(&export(&scene, query), 400).to_string();
        assert!(words.iter().all(|word| told.contains(word)), "{query}: {told}");
    }
    for (args, word) in [
        (vec!["ledger", "export", "--format", "xls"], "beancount"),
        (vec!["ledger", "export", "--format", "csv", "--state", "gone"], "settled"),
        (vec!["ledger", "export", "--format", "csv", "--since", "yesterday"], "since"),
    ] {
        let told = failed(&scene.gateway.command(&args));
        assert!(told.contains(word), "{args:?}: {told}");
    }
    let csv = "/v1/export?format=csv";
    refused(&Client::new(&scene.gateway.admin_url, OTHER_TOKEN).get(csv), 403);
    refused(&Client::new(&scene.gateway.admin_url, "nobody").get(csv), 401);
    assert_ne!(scene.agent().get(csv).status, 200, "not for agents");
}

#[test]
fn an_empty_ledger_has_empty_books() {
    let scene = Scene::new(&["honest"]);
    for (format, _) in FORMATS {
        let file = exported(&scene, &format!("format={format}"));
        if ["csv", "focus"].contains(&format) {
            assert_eq!(records(&file).len(), 0);
        }
        if format == "jsonl" {
            assert_eq!(file, "");
        }
    }
}
