//! `countersign run`: what its command is given, and what becomes of it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use countersign_tests::config::ALICE_TOKEN;
use countersign_tests::process::{Gateway, binary};
use countersign_tests::till::{items, text};
use countersign_tests::tls::certificates;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{run, said, till};

const SCOUT: [&str; 2] = ["--agent", "scout"];

fn sessions(gateway: &Gateway) -> Vec<Value> {
    items(&gateway.operator().get("/v1/sessions"))
}

#[test]
fn the_command_gets_a_way_out_and_nothing_else() {
    let till = till(&[], |config| config);
    let mut command = Command::new(binary());
    command
        .current_dir(till.gateway.dir())
        .args(["run", "--admin", &till.gateway.admin_url, "--agent", "scout", "--task", "t-1", "--client", "acme"])
        .args(["--limit", "0.25", "--intercept", "localhost:*", "--", "sh", "-c"])
        .arg("env; ls \"$SSL_CERT_FILE\" \"$NODE_EXTRA_CA_CERTS\" >&2; cp \"$SSL_CERT_FILE\" all; cp \"$NODE_EXTRA_CA_CERTS\" ours")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs([("HOME", "/nowhere"), ("LANG", "C.UTF-8")])
        .envs([("COUNTERSIGN_OPERATOR_TOKEN", ALICE_TOKEN), ("WALLET_KEY", "0xsecret"), ("AWS_SECRET", "x")])
        .envs([("TERM", "dumb"), ("NO_PROXY", "localhost"), ("LC_TIME", "C"), ("LD_PRELOAD", "")]);
    let output = command.output().unwrap();
    let printed = said(&output);
    let mut given: BTreeMap<&str, &str> = printed.lines().filter_map(|line| line.split_once('=')).collect();
    // The shell's own.
    for own in ["PWD", "SHLVL", "_", "OLDPWD"] {
        given.remove(own);
    }
    let proxy = given["https_proxy"];
    let (user, address) = proxy.strip_prefix("http://agent:css_").unwrap().split_once('@').unwrap();
    assert_eq!(format!("http://{address}"), till.gateway.url);
    assert!(user.len() > 40);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        assert_eq!(given.remove(name), Some(proxy), "{name}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        assert_eq!(given.remove(name), Some(""), "{name}");
    }
    assert_eq!(given.remove("NODE_USE_ENV_PROXY"), Some("1"));
    let java = given.remove("JDK_JAVA_OPTIONS").unwrap();
    assert!(java.contains("-Dhttps.proxyHost=127.0.0.1 ") && java.contains("trustStore="), "{java}");
    assert!(!java.contains("css_"), "Java prints its options: {java}");
    let all = given.remove("SSL_CERT_FILE").unwrap();
    assert_eq!((given.remove("REQUESTS_CA_BUNDLE"), given.remove("CURL_CA_BUNDLE")), (Some(all), Some(all)));
    let ours = given.remove("NODE_EXTRA_CA_CERTS").unwrap();
    assert!(given.remove("PATH").is_some());
    let rest = BTreeMap::from([("HOME", "/nowhere"), ("LANG", "C.UTF-8"), ("TERM", "dumb"), ("LC_TIME", "C")]);
    assert_eq!(given, rest, "nothing else");

    assert!(!Path::new(all).exists() && !Path::new(ours).exists(), "gone with the command");
    assert_eq!(certificates(&till.gateway.dir().join("ours")), 1);
    assert!(certificates(&till.gateway.dir().join("all")) > 1, "the system's, too");
    let session = &sessions(&till.gateway)[0];
    assert_eq!((text(session, "/task"), text(session, "/client"), text(session, "/limit")), ("t-1", "acme", "0.25"));
    assert_eq!(session["intercept"], serde_json::json!(["localhost:*"]));
    assert!(session["closed_at"].is_string(), "{session}");
}

#[test]
fn our_secrets_are_nowhere_the_command_could_look() {
    let till = till(&[], |config| config);
    let script = "tr '\\0' '\\n' </proc/$PPID/environ; echo and mine; env";
    let printed = said(&run(&till.gateway, &SCOUT, &["sh", "-c", script]));
    let (parents, own) = printed.split_once("and mine").unwrap();
    assert!(parents.contains("NO_PROXY=127.0.0.1"), "its parent can be looked at: {printed}");
    assert!(!printed.contains(ALICE_TOKEN) && !printed.contains(&till.purse.key), "{printed}");
    // Without interception nobody needs to be told whom to trust.
    assert!(own.contains("https_proxy=") && !own.contains("SSL_CERT_FILE") && !own.contains("CA_BUNDLE"), "{own}");
}

#[test]
fn its_end_is_ours() {
    let till = till(&[], |config| config);
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let output = run(&till.gateway, &SCOUT, &["sh", "-c", script]);
        assert_eq!(output.status.code(), Some(code), "{script}");
    }
    let missing = run(&till.gateway, &SCOUT, &["no-such-command-anywhere"]);
    assert_eq!(missing.status.code(), Some(127));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("error: no-such-command-anywhere: "));
    let sessions = sessions(&till.gateway);
    assert_eq!(sessions.len(), 4);
    assert!(sessions.iter().all(|session| session["closed_at"].is_string()), "{sessions:?}");
    let unknown = run(&till.gateway, &["--agent", "nobody"], &["true"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no [agent.nobody]"));
    let odd = run(&till.gateway, &["--agent", "scout", "--intercept", "a b"], &["true"]);
    assert!(String::from_utf8_lossy(&odd.stderr).contains("is not a host"));
    assert_eq!(run(&till.gateway, &SCOUT, &[]).status.code(), Some(2), "no command is a mistake of usage");
    // With one agent in the file nobody need name it.
    assert_eq!(run(&till.gateway, &[], &["true"]).status.code(), Some(0));
}

#[test]
fn signals_reach_it() {
    let till = till(&[], |config| config);
    for (signal, name) in [(Signal::TERM, "TERM"), (Signal::INT, "INT"), (Signal::HUP, "HUP"), (Signal::USR1, "USR1")] {
        let script = format!("trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child = Command::new(binary())
            .current_dir(till.gateway.dir())
            .args(["run", "--admin", &till.gateway.admin_url, "--agent", "scout", "--", "sh", "-c", &script])
            .env("COUNTERSIGN_OPERATOR_TOKEN", ALICE_TOKEN)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), format!("got {name}"));
        assert_eq!(child.wait().unwrap().code(), Some(3));
    }
    assert!(sessions(&till.gateway).iter().all(|session| session["closed_at"].is_string()));
}

#[test]
fn the_certificate_for_configured_hosts_can_be_printed() {
    let till = till(&[], |config| config.set(&["proxy", "intercept"], vec!["localhost:*", "*.data.example"]));
    let ca = said(&till.gateway.command(&["ca"]));
    std::fs::write(till.gateway.dir().join("ca.pem"), &ca).unwrap();
    assert_eq!(certificates(&till.gateway.dir().join("ca.pem")), 1);
    // Good for a client that was not started by us.
    let url = crate::support::shop().url("/cheap");
    let output = Command::new("curl")
        .current_dir(till.gateway.dir())
        .args(["-sS", "--cacert", "ca.pem", "--noproxy", "", "--proxy", &till.gateway.url, "--proxy-user"])
        .arg(format!("agent:{}", countersign_tests::config::SCOUT_TOKEN))
        .arg(url)
        .output()
        .unwrap();
    assert!(said(&output).contains("\"cheap\""));
    assert_eq!(till.amounts(), [1_000]);

    let none = crate::support::till(&[], |config| config);
    let refused = none.gateway.command(&["ca"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no host is intercepted"));
}
