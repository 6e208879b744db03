//! What a gateway does not start with; each error says what to do, and none tells a password.

use super::*;
use postgres::USER;

/// A scene without gateways, for a first one that must not start.
fn scene() -> Scene {
    Scene::without(Place::Shared, &["honest"], open_handed(), |config| config)
}

/// Checks that a configuration is refused in these words.
#[track_caller]
fn refused(config: Config, words: &[&str]) {
    let (status, log) = Gateway::refused(config);
    says(status.success(), &log, words);
}

#[track_caller]
fn says(success: bool, log: &str, words: &[&str]) {
    assert!(!success, "{log}");
    let lower = log.to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "it does not say {word}: {log}");
    }
    assert!(!log.contains(PASSWORD), "it tells the password: {log}");
    assert!(!lower.contains("panicked"), "{log}");
}

/// Host and port of the server.
fn address(scene: &Scene) -> String {
    let url = scene.postgres().url_without_password(&scene.database);
    url.split_once('@').and_then(|(_, rest)| rest.split_once('/')).map(|(address, _)| address.to_owned()).unwrap()
}

/// A file with the password.
fn secret(scene: &Scene, mode: u32) -> PathBuf {
    let file = scene.folder.path().join("database.password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    file
}

#[test]
fn a_wrong_password() {
    let scene = scene();
    let wrong = format!("postgres://{USER}:not-the-password@{}/{}", address(&scene), scene.database);
    let config = scene.config(0).set(&["ledger", "url"], wrong);
    let (status, log) = Gateway::refused(config);
    says(status.success(), &log, &["password", USER, &address(&scene)]);
    assert!(!log.contains("not-the-password"), "{log}");
}

#[test]
fn no_password() {
    let scene = scene();
    let url = scene.postgres().url_without_password(&scene.database);
    refused(scene.config(0).set(&["ledger", "url"], url), &["password"]);
}

#[test]
fn no_such_database() {
    let scene = scene();
    let url = scene.postgres().url("nowhere");
    refused(scene.config(0).set(&["ledger", "url"], url), &["nowhere", "create"]);
}

#[test]
fn no_such_user() {
    let scene = scene();
    let url = format!("postgres://nobody:{PASSWORD}@{}/{}", address(&scene), scene.database);
    refused(scene.config(0).set(&["ledger", "url"], url), &["nobody"]);
}

#[test]
fn nobody_listens() {
    let scene = scene();
    let address = format!("127.0.0.1:{}", countersign_tests::process::free_port());
    let url = format!("postgres://{USER}:{PASSWORD}@{address}/{}", scene.database);
    refused(scene.config(0).set(&["ledger", "url"], url), &[&address]);
}

#[test]
fn a_database_of_a_newer_schema() {
    let mut scene = Scene::new(1);
    scene.terminate();
    // Whatever counts the schema's version counts a thousand more.
    let text = "do $$ declare found record; changed bigint; total bigint := 0; begin
        set local session_replication_role = replica;
        for found in select table_schema s, table_name t, column_name c from information_schema.columns
            where table_schema not in ('pg_catalog', 'information_schema') and column_name ~ '(schema|version)'
            and data_type in ('smallint', 'integer', 'bigint') loop
            execute format('update %I.%I set %I = %I + 1000', found.s, found.t, found.c, found.c);
            get diagnostics changed = row_count;
            total := total + changed;
        end loop;
        if total = 0 then raise exception 'nothing counts the version of the schema'; end if;
    end $$";
    scene.postgres().sql(&scene.database, text);
    let (status, log) = scene.gateways[0].refused_again();
    says(status.success(), &log, &["newer"]);
}

#[test]
fn two_gateways_with_one_local_folder() {
    let scene = Scene::new(1);
    refused(scene.config(0), &["copy-0"]);
    scene.buy(0);
}

#[test]
fn no_local_folder() {
    let scene = scene();
    refused(scene.config(0).remove(&["ledger", "path"]), &["path"]);
}

#[test]
fn a_local_folder_that_others_may_write() {
    let scene = scene();
    let config = scene.config(0);
    fs::set_permissions(scene.copy(0), Permissions::from_mode(0o777)).unwrap();
    refused(config, &["copy-0"]);
}

#[test]
fn a_password_file_that_others_may_read() {
    let scene = scene();
    let url = scene.postgres().url_without_password(&scene.database);
    for mode in [0o644, 0o640, 0o604] {
        let file = secret(&scene, mode);
        let config = scene.config(0).set(&["ledger", "url"], url.as_str());
        refused(config.set(&["ledger", "password", "file"], file.to_str().unwrap()), &["database.password", "600"]);
    }
}

#[test]
fn a_password_file_that_is_not_there() {
    let scene = scene();
    let url = scene.postgres().url_without_password(&scene.database);
    let config = scene.config(0).set(&["ledger", "url"], url);
    refused(config.set(&["ledger", "password", "file"], "no-such.password"), &["no-such.password"]);
}

#[test]
fn a_password_variable_that_is_not_set() {
    let scene = scene();
    let url = scene.postgres().url_without_password(&scene.database);
    let config = scene.config(0).set(&["ledger", "url"], url);
    refused(config.set(&["ledger", "password", "env"], "NO_SUCH_PASSWORD"), &["NO_SUCH_PASSWORD"]);
}

#[test]
fn passwords_by_file_and_by_variable_are_taken_and_not_told() {
    let mut scene = scene();
    let url = scene.postgres().url_without_password(&scene.database);
    let file = secret(&scene, 0o600);
    let by_file = scene.config(0).set(&["ledger", "url"], url.as_str());
    let by_file = by_file.set(&["ledger", "password", "file"], file.to_str().unwrap());
    let by_variable = scene.config(1).set(&["ledger", "url"], url).env("LEDGER_PASSWORD", PASSWORD);
    let by_variable = by_variable.set(&["ledger", "password", "env"], "LEDGER_PASSWORD");
    scene.gateways = [by_file, by_variable].map(Gateway::start).into();
    let in_the_url = scene.config(2);
    scene.gateways.push(Gateway::start(in_the_url));
    for gateway in 0..3 {
        scene.buy(gateway);
    }
    agree(&scene);
    for gateway in &scene.gateways {
        assert!(!gateway.log().contains(PASSWORD));
        let told = ["/v1/policies", "/v1/policies/generations?limit=500", "/readyz"];
        for path in told {
            assert!(!gateway.operator().get(path).text().contains(PASSWORD), "{path}");
        }
    }
    let lines = scene.export(0);
    assert!(!lines.iter().any(|line| line.contains(PASSWORD)));
}

#[test]
fn another_key_for_the_same_log() {
    let scene = Scene::new(1);
    scene.buy(0);
    done(&scene.operator(0).get("/v1/audit/checkpoint"));
    let other = scene.folder.path().join("other.key");
    refused(scene.config(1).set(&["ledger", "log-key"], other.to_str().unwrap()), &["other.key"]);
    fs::write(&other, format!("{}\n", "11".repeat(32))).unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    refused(scene.config(1).set(&["ledger", "log-key"], other.to_str().unwrap()), &["other.key"]);
    scene.buy(0);
}

#[test]
fn another_currency() {
    let scene = Scene::new(1);
    scene.buy(0);
    refused(scene.config(1).set(&["gateway", "currency"], "EUR"), &["currency"]);
}
