//! The local copy may be lost, but it may never know more than the database.

use super::*;

/// Takes a database's place with a copy of it as it was; nobody may be connected.
fn restore(scene: &Scene, backup: &str) {
    let (live, server) = (&scene.database, scene.postgres());
    server.sql("postgres", &format!("drop database \"{live}\""));
    server.sql("postgres", &format!("alter database \"{backup}\" rename to \"{live}\""));
}

/// Copies the database as it is; nobody may be connected.
fn backup(scene: &Scene) -> String {
    let name = format!("{}_before", scene.database);
    scene.postgres().sql("postgres", &format!("create database \"{name}\" template \"{}\"", scene.database));
    name
}

fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)
        } else {
            fs::copy(entry.path(), target).map(|_bytes| ()).unwrap()
        }
    }
}

#[test]
fn a_copy_that_is_gone_is_made_again() {
    let mut scene = Scene::limited(Place::Shared, 2, 10);
    let (url, order) = (scene.quote(), json!({"purchase_id": "kept"}));
    let payment = bought(&scene.agent(0).fetch(&url, order.clone()), "0.001");
    scene.until(&payment, "settled");
    assert!(scene.gateways[0].terminate().success());
    assert!(fs::read_dir(scene.copy(0)).unwrap().next().is_some(), "there is no local copy");
    clear(&scene.copy(0));
    scene.buy(1);
    scene.gateways[0].restart();
    let again = scene.agent(0).fetch(&url, order);
    assert_eq!((again.status, header(&again, "countersign-replayed")), (200, "true"), "{}", again.text());
    scene.buy(0);

    // Nobody has one any more.
    scene.terminate();
    for gateway in [0, 1] {
        clear(&scene.copy(gateway));
    }
    scene.restart();
    let (paid, _) = drain(&scene, &load::everywhere(&scene, countersign_tests::config::SCOUT_TOKEN));
    assert_eq!(paid.len(), 7);
    assert_eq!(sound(&scene, &["honest"], &[]).len(), 10);
}

#[test]
fn a_copy_that_is_behind_catches_up() {
    let mut scene = Scene::new(2);
    scene.buy(0);
    assert!(scene.gateways[0].terminate().success());
    let old = scene.folder.path().join("old");
    copy_folder(&scene.copy(0), &old);
    scene.gateways[0].restart();
    for gateway in [0, 1, 0] {
        scene.buy(gateway);
    }
    done(&scene.operator(1).post("/v1/suspend", &json!({"reason": "drill"})));
    assert!(scene.gateways[0].terminate().success());
    clear(&scene.copy(0));
    copy_folder(&old, &scene.copy(0));
    scene.gateways[0].restart();
    refusal(&scene.agent(0).fetch(&scene.quote(), json!({})), 403, "suspended");
    let lifted = scene.operator(0).delete("/v1/suspend");
    assert!(matches!(lifted.status, 200 | 204), "{}", lifted.text());
    scene.buy(0);
    assert_eq!(sound(&scene, &["honest"], &[]).len(), 5);
}

#[test]
fn a_copy_that_knows_more_than_a_restored_database_refuses_to_serve() {
    let mut scene = Scene::limited(Place::Own, 2, 3);
    scene.buy(0);
    scene.terminate();
    let before = backup(&scene);
    scene.restart();
    scene.buy(0);
    scene.buy(1);
    agree(&scene);
    scene.terminate();
    // Two payments are forgotten, and could be made again.
    restore(&scene, &before);
    let authorizations = scene.seller("honest").stats().authorizations;
    for gateway in &mut scene.gateways {
        let (status, log) = gateway.refused_again();
        assert!(!status.success());
        let log = log.to_lowercase();
        for word in ["restore", "copy"] {
            assert!(log.contains(word), "it does not say {word}: {log}");
        }
    }
    assert_eq!(scene.seller("honest").stats().authorizations, authorizations);
}

#[test]
fn a_database_that_is_restored_under_running_gateways_signs_nothing() {
    let mut scene = Scene::limited(Place::Own, 2, 3);
    scene.buy(0);
    scene.terminate();
    let before = backup(&scene);
    scene.restart();
    scene.buy(0);
    scene.buy(1);
    agree(&scene);
    let sql = |text: String| scene.postgres().sql("postgres", &text);
    sql(format!("alter database \"{}\" allow_connections false", scene.database));
    scene.postgres().disconnect();
    let alone = wait_for(PATIENCE, || {
        let count = sql(format!("select count(*) from pg_stat_activity where datname = '{}'", scene.database));
        (count == "0").then_some(())
    });
    alone.expect("they are still connected");
    restore(&scene, &before);
    let presented = scene.seller("honest").stats().presented;
    // Long enough for each to have connected again, seen by the server.
    let seen = wait_for(PATIENCE, || {
        for gateway in [0, 1] {
            let answer = scene.agent(gateway).try_fetch(&scene.quote(), json!({}));
            assert!(!answer.is_ok_and(|answer| answer.status == 200), "a forgotten payment was made again");
        }
        let log = scene.gateways.iter().map(Gateway::log).collect::<Vec<_>>();
        log.iter().all(|log| log.to_lowercase().contains("restore")).then_some(())
    });
    assert!(seen.is_some(), "nobody is told why: {}", scene.gateways[0].log());
    assert_eq!(scene.seller("honest").stats().presented, presented, "something was signed");
}

#[test]
fn a_copy_of_another_ledger_is_refused() {
    let mut scene = Scene::new(1);
    scene.buy(0);
    scene.terminate();
    let other = Scene::new(1);
    other.buy(0);
    let config = other.config(7).set(&["ledger", "path"], scene.copy(0).to_str().unwrap());
    let (status, log) = Gateway::refused(config);
    assert!(!status.success());
    assert!(log.contains("copy-0"), "it does not name the folder: {log}");
    other.buy(0);
}

#[test]
fn a_new_database_beside_a_used_copy_is_refused() {
    let mut scene = Scene::new(1);
    scene.buy(0);
    scene.terminate();
    scene.postgres().sql("postgres", &format!("drop database \"{}\"", scene.database));
    scene.postgres().create_database(&scene.database);
    let (status, log) = scene.gateways[0].refused_again();
    assert!(!status.success());
    assert!(log.to_lowercase().contains("copy"), "{log}");
}
