//! What PostgreSQL itself refuses, whatever a gateway does; and that its tables are those of the copies.

use std::collections::{BTreeMap, BTreeSet};

use countersign_core::ledger::{Commit, FactsQuery, Ledger, PaymentFacts};
use countersign_core::payment::{Event, State, TRANSITIONS};
use countersign_core::verdict::Window;

use crate::backend::server;
use crate::common::*;
use crate::fleet::{Dice, Gateway, database};

/// What the server says to statements that it must refuse.
fn refusal(name: &str, sql: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(&server().url(name), tokio_postgres::NoTls).await.unwrap();
        let connection = tokio::spawn(connection);
        let told = client.batch_execute(&format!("begin; {sql}; commit")).await;
        drop(client);
        connection.await.unwrap().unwrap();
        match told {
            Err(e) => e.as_db_error().unwrap().message().to_owned(),
            Ok(()) => panic!("it was done: {sql}"),
        }
    })
}

#[test]
fn the_database_itself_refuses_what_must_not_be() {
    let (name, database) = database();
    let gateway = Gateway::new();
    let ledger = gateway.open(&database);
    for n in 1..=4 {
        granted(
            &ledger,
            commit(n, T0, &[hold("b", Window::Lifetime, 100, 10), hold("r", Window::Rolling(60), 100, 1)]),
        );
    }
    step(&ledger, event(2, State::Signed, Event::Redeemed, T0)).unwrap();
    block(ledger.store_signature(payment_id(1), signature(1))).unwrap();
    reviewed(&ledger, in_review(5, T0, &[]));
    reviewed(&ledger, in_review(6, T0, &[]));
    block(ledger.vote(cast(6, "alice", false, T0))).unwrap();
    let came = came_back(2, 400, 1);
    block(ledger.refund(came)).unwrap();
    let head = "2".repeat(32);
    drop(ledger);
    let id = |n| format!("'\\x{}'", hex::encode(payment_id(n).as_bytes()));
    let payment = |set: &str, n| format!("update countersign.payment set {set} where id={}", id(n));
    let step = |n, version: u64, state| {
        format!("insert into countersign.step(payment,n,at,state,why) values({},{version},0,{state},'')", id(n))
    };
    let again = |set: &str| {
        let columns = server().sql(
            &name,
            "select string_agg(quote_ident(column_name),',' order by ordinal_position) from information_schema.columns
             where table_schema='countersign' and table_name='payment'",
        );
        let new: Vec<String> = columns
            .split(',')
            .map(|c| set.split(';').find_map(|s| s.strip_prefix(&format!("{c}="))).unwrap_or(c).to_owned())
            .collect();
        format!(
            "insert into countersign.step(payment,n,at,state,why) values('\\x{head_id}',0,0,4,'');
             insert into countersign.payment({columns}) select {} from countersign.payment where id={}",
            new.join(","),
            id(1),
            head_id = head,
        )
    };
    let new_id = format!("id='\\x{head}'");
    for (sql, says) in [
        ("update countersign.budget_window set spent=lim+1".to_owned(), "budget_window_check"),
        ("update countersign.budget_window set held=-1".to_owned(), "held_check"),
        ("update countersign.budget_window set lim=1".to_owned(), "budget_window_check"),
        ("update countersign.budget_window set mark=-1".to_owned(), "never goes back"),
        ("update countersign.hold set amount=0".to_owned(), "amount_check"),
        ("update countersign.hold set open=1,settled=amount".to_owned(), "hold_check"),
        ("update countersign.hold set refunded=amount+1".to_owned(), "hold_check"),
        (payment("payload='{}'", 1), "a payload is written once"),
        (payment("nonce='\\x00'", 1), "a payload is written once"),
        (payment("valid_before=valid_before+1", 1), "a payload is written once"),
        (payment("payer='\\x00'", 1), "a payload is written once"),
        (payment("signature=null", 1), "a signature is written once"),
        (payment("redeemed=payment.amount-payment.amount", 2), "operator does not exist"),
        (payment("redeemed=decode(repeat('00',32),'hex')", 2), "what was redeemed is written once"),
        (payment("state=8", 1), "where its last step left it"),
        (format!("{}; {}", step(1, 1, 7), payment("state=7,version=1", 1)), "violates check constraint"),
        (format!("{}; {}", step(2, 3, 8), payment("state=8,version=3", 2)), "no such step"),
        (format!("{}; {}", step(2, 3, 4), payment("state=4,version=3", 2)), "no such step"),
        (step(1, 7, 8), "no payment begins in this state"),
        (again(&new_id), "payment_attempt"),
        (again(&format!("{new_id};attempt=attempt+1")), "payment_live"),
        (again(&format!("{new_id};purchase='other'")), "payment_nonce"),
        ("update countersign.approval set state=1 where state=2".to_owned(), "decided and used once"),
        ("update countersign.refund set amount=amount".to_owned(), "nothing is changed"),
        (
            "insert into countersign.refund select payment,n+1,network,amount,txhash,log,block,by,reference,at from countersign.refund".to_owned(),
            "refund_transfer",
        ),
        ("update countersign.step set state=8".to_owned(), "nothing is changed"),
        ("update countersign.decision set verdict='allow'".to_owned(), "nothing is changed"),
        ("update countersign.audit set body='{}'".to_owned(), "nothing is changed"),
        ("insert into countersign.audit select * from countersign.audit".to_owned(), "audit_pkey"),
        ("update countersign.head set hash='\\x00'".to_owned(), "hash_check"),
        ("insert into countersign.head select 2,schema,seq,hash from countersign.head".to_owned(), "one_check"),
        ("insert into countersign.change select * from countersign.change".to_owned(), "change_pkey"),
        ("insert into countersign.writer select * from countersign.writer".to_owned(), "writer_pkey"),
    ] {
        let told = refusal(&name, &sql);
        assert!(told.contains(says), "{sql}: {told}");
    }
    let kept = "payment step refund finalized decision generation audit audit_node checkpoint head change writer";
    for table in kept.split_whitespace() {
        for how in ["delete from", "truncate"] {
            let told = refusal(
                &name,
                &format!("{how} countersign.{table}{}", if how == "truncate" { " cascade" } else { "" }),
            );
            assert!(told.contains("nothing is deleted"), "{how} {table}: {told}");
        }
    }
    gateway.check(&database);
}

#[test]
fn the_longest_paths_are_bought_approved_and_settled() {
    let (_, database) = database();
    let gateway = Gateway::new();
    let ledger = gateway.open(&database);
    let mut dice = Dice::new(1);
    // Longer than a key of the database may be, and nothing that packs.
    let long: String = (0..7_500)
        .map(|_| char::from(b"0123456789abcdefghijklmnopqrstuv"[usize::try_from(dice.below(32)).unwrap()]))
        .collect();
    let path = format!("/{long}");
    let facts = PaymentFacts { path: path.clone(), url: format!("https://api.example.com{path}"), ..facts() };
    let of = |n| FactsQuery { path: path.clone(), ..facts_query(n) };
    granted(&ledger, Commit { facts: facts.clone(), ..commit(1, T0, &[]) });
    step(&ledger, event(1, State::Signed, Event::Redeemed, T0)).unwrap();
    assert_eq!(block(ledger.facts(of(2))).unwrap().seller.last_price, Some(micros(1_000)));
    reviewed(&ledger, Commit { facts: facts.clone(), ..in_review(2, T0, &[]) });
    block(ledger.vote(cast(2, "alice", true, T0))).unwrap();
    granted(&ledger, Commit { facts, ..resumed(2, T0, &[]) });
    assert!(block(ledger.facts(of(3))).unwrap().approved.is_some());
    // Another that begins the same way is another.
    let other = FactsQuery { path: format!("{path}x"), ..facts_query(3) };
    let other = block(ledger.facts(other)).unwrap();
    assert_eq!((other.seller.last_price, other.approved), (None, None));
    drop(ledger);
    gateway.check(&database);
}

#[test]
fn the_database_knows_the_same_steps_as_the_table() {
    let (name, database) = database();
    drop(Gateway::new().open(&database));
    let source = server().sql(&name, "select prosrc from pg_proc where proname='step_is_legal'");
    let list = source.split("before*100+NEW.state NOT IN").nth(1).unwrap().split(['(', ')']).nth(1).unwrap();
    let listed: Vec<u32> = list.split(',').map(|n| n.trim().parse().unwrap()).collect();
    let number = |from: State, to: State| u32::from(from.number()) * 100 + u32::from(to.number());
    let steps = TRANSITIONS.iter().filter(|r| r.from != r.to).map(|r| number(r.from, r.to));
    assert_eq!(listed, steps.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
    let states = State::ALL.map(|s| s.number().to_string()).join(", ");
    let check = "select pg_get_constraintdef(oid) from pg_constraint where conname='payment_state_check'";
    let check = server().sql(&name, check);
    assert!(
        check.contains(&format!(
            "[{}]",
            states.split(", ").map(|s| format!("({s})::bigint")).collect::<Vec<_>>().join(", ")
        )),
        "{check}"
    );
}

/// Of each table: its columns in order with their kind and whether they may be missing, and its key.
type Tables = BTreeMap<String, (Vec<(String, String, bool)>, Vec<String>)>;

#[test]
fn the_tables_of_the_database_are_those_of_the_copies() {
    let (name, database) = database();
    let gateway = Gateway::new();
    drop(gateway.open(&database));
    let raw = rusqlite::Connection::open(&gateway.path).unwrap();
    let sql =
        "SELECT m.name,t.name,t.type,t.\"notnull\" OR t.pk>0,t.pk FROM sqlite_schema m, pragma_table_info(m.name) t
               WHERE m.type='table' AND m.name<>'copy' ORDER BY m.name,t.cid";
    let mut statement = raw.prepare(sql).unwrap();
    let mut ours = Tables::new();
    let mut keys = BTreeMap::<String, Vec<(u32, String)>>::new();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (table, column, kind): (String, String, String) =
            (row.get(0).unwrap(), row.get(1).unwrap(), row.get(2).unwrap());
        let kind = match kind.as_str() {
            "INTEGER" => "bigint",
            "TEXT" => "text",
            "BLOB" | "ANY" => "bytea",
            other => panic!("{other}"),
        };
        let place: u32 = row.get(4).unwrap();
        if place > 0 {
            keys.entry(table.clone()).or_default().push((place, column.clone()));
        }
        ours.entry(table).or_default().0.push((column, kind.to_owned(), row.get(3).unwrap()));
    }
    for (table, mut key) in keys {
        key.sort();
        ours.get_mut(&table).unwrap().1 = key.into_iter().map(|(_, column)| column).collect();
    }

    let mut theirs = Tables::new();
    let columns = "select c.relname, a.attname, format_type(a.atttypid,a.atttypmod), a.attnotnull,
          coalesce((select array_position(i.indkey::smallint[], a.attnum) from pg_index i where i.indrelid=c.oid and i.indisprimary),-1)
        from pg_class c join pg_attribute a on a.attrelid=c.oid and a.attnum>0 and not a.attisdropped
        where c.relnamespace='countersign'::regnamespace and c.relkind='r' order by c.relname, a.attnum";
    let mut keys = BTreeMap::<String, Vec<(i64, String)>>::new();
    for line in server().sql(&name, columns).lines() {
        let [table, column, kind, required, place] = line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let place: i64 = place.parse().unwrap();
        if place >= 0 {
            keys.entry(table.to_owned()).or_default().push((place, column.to_owned()));
        }
        theirs.entry(table.to_owned()).or_default().0.push((column.to_owned(), kind.to_owned(), required == "t"));
    }
    for (table, mut key) in keys {
        key.sort();
        theirs.get_mut(&table).unwrap().1 = key.into_iter().map(|(_, column)| column).collect();
    }
    let only: Vec<_> = theirs.keys().filter(|t| !ours.contains_key(*t)).cloned().collect();
    assert_eq!(only, ["answer", "answers", "change", "head", "writer"]);
    theirs.retain(|table, _| ours.contains_key(table));
    for (table, found) in &ours {
        assert_eq!(theirs.get(table), Some(found), "{table}");
    }
    assert!(ours.len() > 20 && ours["hold"].1 == ["payment", "budget", "win"]);
}
