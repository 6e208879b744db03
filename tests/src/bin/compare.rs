//! The gateway beside others on the same seller, in turns of one run: `compare [NAME=COMMAND]…`. Prints one line of JSON;
//! what it is doing goes to standard error.
//!
//! - purchases: through a gateway on the disk, through one whose ledger is in memory (`/dev/shm`: what durability costs), and
//!   by each client that is named; `COMMAND URL N CONCURRENCY` pays N times with the key in `BUYER_KEY` and prints a line
//!   of JSON with `per_second`, `p50_ms`, `p99_ms` and `errors`. They keep no ledger;
//! - what costs nothing, straight from the seller, through nginx as a reverse proxy (if it is installed), through the
//!   gateway's forward proxy and through `/v1/fetch`; and `/v1/quote`, which fetches the price and judges.
//!
//! Clients, gateway, seller and chain share this machine.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a measurement that does not work must fail loudly"
)]
#![expect(clippy::disallowed_methods, reason = "it measures real time")]

use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign_tests::{
    config::SCOUT_TOKEN,
    measure::{load_average, policies, quantile, rounded, unlimited},
    peers::{BUYER, authority},
    process::{Gateway, free_port},
    wait_for,
    world::LocalWorld,
};
use serde_json::{Map, Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Calls at a time, and how many in all.
const PURCHASES: [(u32, u32); 3] = [(1, 300), (8, 1_200), (32, 2_400)];
const UNPAID: [(u32, u32); 3] = [(1, 1_000), (8, 4_000), (64, 8_000)];
/// Turns, of which the median is told.
const TURNS: usize = 3;

fn main() {
    let clients: Vec<(String, Vec<String>)> = std::env::args()
        .skip(1)
        .map(|text| {
            let (name, command) = text.split_once('=').expect("NAME=COMMAND");
            (name.to_owned(), command.split(' ').map(str::to_owned).collect())
        })
        .collect();
    let world = LocalWorld::start();
    let config = || unlimited(world.config(&["honest"], policies()));
    let disk = Gateway::start(config());
    let memory = tempfile::Builder::new().prefix("countersign-").tempdir_in("/dev/shm").unwrap();
    let in_memory = format!("sqlite:{}", memory.path().join("ledger.db").display());
    let in_memory = Gateway::start(config().set(&["ledger", "url"], in_memory));
    let seller = world.world().seller("honest").unwrap();
    let paid = purchases(&seller.url("/quote"), &disk, &in_memory, &clients);
    let free = unpaid(seller.authority(), &disk);
    println!("{}", json!({"purchases": paid, "unpaid": free, "load_average": load_average()}));
}

fn purchases(url: &str, disk: &Gateway, in_memory: &Gateway, clients: &[(String, Vec<String>)]) -> Value {
    let points = PURCHASES.map(|(concurrency, n)| {
        let mut turns: Map<String, Value> = Map::new();
        let mut note = |name: &str, result: Value| {
            assert_eq!(result.get("errors"), Some(&json!(0)), "{name}: {result}");
            let list = turns.entry(name.to_owned()).or_insert_with(|| json!([]));
            list.as_array_mut().unwrap().push(result);
        };
        for turn in 0..TURNS {
            eprintln!("purchases, {concurrency} at a time, turn {turn}");
            for (name, gateway) in [("gateway", disk), ("gateway, ledger in memory", in_memory)] {
                let address = authority(&gateway.url);
                note(name, run(n, concurrency, |number| order(address, "/v1/fetch", &format!("{url}?n={number}"))));
            }
            for (name, command) in clients {
                let [program, arguments @ ..] = command.as_slice() else { panic!("{name}: no command") };
                let output = Command::new(program)
                    .args(arguments)
                    .args([url, &n.to_string(), &concurrency.to_string()])
                    .env("BUYER_KEY", BUYER.key)
                    .stderr(Stdio::inherit())
                    .output()
                    .unwrap();
                note(name, serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{name}: {e}")));
            }
        }
        json!({"at_a_time": concurrency, "calls": n, "median_turn": medians(&turns)})
    });
    points.to_vec().into()
}

/// Of each that took part, the turn whose rate is in the middle.
fn medians(turns: &Map<String, Value>) -> Value {
    let rate = |turn: &Value| turn.get("per_second").and_then(Value::as_f64).unwrap_or_default();
    let middle = turns.iter().map(|(name, turns)| {
        let mut turns = turns.as_array().unwrap().clone();
        turns.sort_by(|a, b| rate(a).total_cmp(&rate(b)));
        let turn = turns.get(turns.len() / 2).unwrap();
        let part = |key: &str| turn.get(key).and_then(Value::as_f64).map_or(Value::Null, rounded);
        let told = json!({"per_second": part("per_second"), "p50_ms": part("p50_ms"), "p99_ms": part("p99_ms")});
        (name.clone(), told)
    });
    Value::Object(middle.collect())
}

fn unpaid(seller: &str, gateway: &Gateway) -> Value {
    let nginx = Nginx::start(seller);
    let own = authority(&gateway.url);
    let proxied = STANDARD.encode(format!("agent:{SCOUT_TOKEN}"));
    let get = |host: &str, target: &str, more: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").into_bytes()
    };
    let points = UNPAID.map(|(concurrency, n)| {
        let mut turns: Map<String, Value> = Map::new();
        let mut note = |name: &str, result: Value| {
            assert_eq!(result.get("errors"), Some(&json!(0)), "{name}: {result}");
            turns.entry(name.to_owned()).or_insert_with(|| json!([])).as_array_mut().unwrap().push(result);
        };
        for turn in 0..TURNS {
            eprintln!("unpaid, {concurrency} at a time, turn {turn}");
            let call = |address: &str, request: Vec<u8>| (address.to_owned(), request);
            note("the seller", run(n, concurrency, |_| call(seller, get(seller, "/free", ""))));
            if let Some(nginx) = &nginx {
                note("nginx", run(n, concurrency, |_| call(&nginx.address, get(&nginx.address, "/free", ""))));
            }
            let absolute = format!("http://{seller}/free");
            let authorised = format!("Proxy-Authorization: Basic {proxied}\r\n");
            note("forward proxy", run(n, concurrency, |_| call(own, get(seller, &absolute, &authorised))));
            note("/v1/fetch", run(n, concurrency, |_| order(own, "/v1/fetch", &absolute)));
            let priced = format!("http://{seller}/quote");
            note(
                "/v1/quote",
                run(n / 4, concurrency, |number| order(own, "/v1/quote", &format!("{priced}?n={number}"))),
            );
        }
        json!({"at_a_time": concurrency, "calls": n, "median_turn": medians(&turns)})
    });
    points.to_vec().into()
}

/// A call at the agents' API: where, and the bytes.
fn order(address: &str, path: &str, url: &str) -> (String, Vec<u8>) {
    let body = json!({"url": url}).to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {SCOUT_TOKEN}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    (address.to_owned(), head.into_bytes())
}

/// Makes `n` calls, `concurrency` at a time, each over a connection that is kept.
fn run(n: u32, concurrency: u32, request: impl Fn(u32) -> (String, Vec<u8>) + Sync) -> Value {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let left = AtomicU32::new(n);
    let client = || {
        let (mut times, mut errors, mut connection) = (Vec::new(), Vec::new(), None);
        while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            let (address, bytes) = request(CALLS.fetch_add(1, Ordering::Relaxed));
            let start = Instant::now();
            match exchange(&mut connection, &address, &bytes) {
                Ok(200) => times.push(start.elapsed()),
                other => errors.push(format!("{other:?}")),
            }
        }
        (times, errors)
    };
    let start = Instant::now();
    let (mut times, mut errors): (Vec<Duration>, Vec<String>) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..concurrency).map(|_| scope.spawn(client)).collect();
        for client in clients {
            let (one, wrong) = client.join().unwrap();
            times.extend(one);
            errors.extend(wrong);
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    times.sort_unstable();
    let rate = f64::from(u32::try_from(times.len()).unwrap()) / seconds;
    json!({"per_second": rounded(rate), "p50_ms": quantile(&times, 50), "p99_ms": quantile(&times, 99),
        "errors": errors.len(), "first_error": errors.first()})
}

/// Sends a request and reads the answer whole; its status. The connection is kept unless the other side ends it.
fn exchange(kept: &mut Option<BufReader<TcpStream>>, address: &str, request: &[u8]) -> Result<u16, String> {
    let told = |e: std::io::Error| e.to_string();
    let mut stream = match kept.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address).map_err(told)?;
            stream.set_nodelay(true).map_err(told)?;
            BufReader::new(stream)
        }
    };
    stream.get_mut().write_all(request).map_err(told)?;
    let line = |stream: &mut BufReader<TcpStream>| {
        let mut text = String::new();
        stream.read_line(&mut text).map_err(told)?;
        Ok::<_, String>(text.trim_end().to_ascii_lowercase())
    };
    let status = line(&mut stream)?;
    let status = status.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("{status:?}"))?;
    let (mut length, mut chunked, mut closes) = (0, false, false);
    loop {
        let header = line(&mut stream)?;
        match header.split_once(": ") {
            None => break,
            Some(("content-length", value)) => length = value.parse().map_err(|_| header.clone())?,
            Some(("transfer-encoding", "chunked")) => chunked = true,
            Some(("connection", "close")) => closes = true,
            Some(_) => {}
        }
    }
    let take = |stream: &mut BufReader<TcpStream>, length: usize| stream.read_exact(&mut vec![0; length]).map_err(told);
    if chunked {
        loop {
            let length = usize::from_str_radix(&line(&mut stream)?, 16).map_err(|e| e.to_string())?;
            take(&mut stream, length + 2)?;
            if length == 0 {
                break;
            }
        }
    } else {
        take(&mut stream, length)?;
    }
    *kept = (!closes).then_some(stream);
    Ok(status)
}

/// A reverse proxy in front of the seller, with connections to it that are kept.
struct Nginx {
    address: String,
    running: Child,
    _folder: tempfile::TempDir,
}

impl Nginx {
    /// None: it is not installed.
    fn start(seller: &str) -> Option<Self> {
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| Path::new(path).exists())?;
        let folder = tempfile::tempdir().unwrap();
        let (path, port) = (folder.path().display(), free_port());
        let address = format!("127.0.0.1:{port}");
        let config = format!(
            "daemon off; pid {path}/pid; error_log {path}/error.log; worker_processes 2;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 1000000;\n\
               client_body_temp_path {path}/b; proxy_temp_path {path}/p; fastcgi_temp_path {path}/f;\n\
               uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
               upstream seller {{ server {seller}; keepalive 64; }}\n\
               server {{ listen {address};\n\
                 location / {{ proxy_pass http://seller; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                   proxy_set_header Host {seller}; }} }} }}\n"
        );
        let file = folder.path().join("nginx.conf");
        fs::write(&file, config).unwrap();
        let running =
            Command::new(program).arg("-c").arg(&file).arg("-e").arg(folder.path().join("start.log")).spawn().unwrap();
        let up = wait_for(Duration::from_secs(10), || TcpStream::connect(&address).ok());
        assert!(up.is_some(), "nginx does not listen");
        Some(Self { address, running, _folder: folder })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers when it is asked to, not when it is killed.
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(self.running.id()).unwrap_or_default()) {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        drop(self.running.wait());
    }
}
