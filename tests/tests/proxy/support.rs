//! A gateway with a seller behind TLS, and a client that says exactly what it is told to.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Output;
use std::sync::OnceLock;
use std::time::Duration;

use countersign_tests::config::{Config, Policy, SCOUT_TOKEN};
use countersign_tests::http::Response;
use countersign_tests::peers::{Peers, authority};
use countersign_tests::process::Gateway;
use countersign_tests::till::{Till, caps};
use countersign_tests::tls::{Front, Roots};

/// The authority that sellers are certified by, for all tests.
pub(crate) fn roots() -> &'static Roots {
    static ROOTS: OnceLock<Roots> = OnceLock::new();
    ROOTS.get_or_init(Roots::new)
}

/// The official seller behind TLS.
pub(crate) fn shop() -> &'static Front {
    static SHOP: OnceLock<Front> = OnceLock::new();
    SHOP.get_or_init(|| Front::before(authority(&Peers::shared().v2), roots()))
}

/// A till that may buy at [`shop`], and at these fronts.
pub(crate) fn till(fronts: &[&Front], change: impl FnOnce(Config) -> Config) -> Till<'static> {
    let vendors =
        Policy::new("vendors", "builtin:vendor-allowlist").setting("hosts", vec!["127.0.0.1:*", "localhost:*"]);
    Till::at(Peers::shared(), [vendors, caps("5.00")], |config| {
        let config = config.set(&["egress", "roots"], roots().path().display().to_string());
        let fronts = fronts.iter().copied().chain([shop()]);
        change(fronts.fold(config, |config, front| config.allow_private(&front.address)))
    })
}

/// `host:port` of the agents' listener.
pub(crate) fn proxy(gateway: &Gateway) -> &str {
    authority(&gateway.url)
}

/// The `Proxy-Authorization` of a token.
pub(crate) fn basic(token: &str) -> String {
    format!("Basic {}", base64(format!("agent:{token}").as_bytes()))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .map(|chunk| {
            let bits = (0..3).fold(0_usize, |bits, n| bits << 8 | usize::from(*chunk.get(n).unwrap_or(&0)));
            let letter = |n: usize| char::from(LETTERS[bits >> (18 - 6 * n) & 63]);
            (0..4).map(|n| if n <= chunk.len() { letter(n) } else { '=' }).collect::<String>()
        })
        .collect()
}

/// A request to the proxy as these lines say, with scout's token and an end to the connection.
pub(crate) fn ask(gateway: &Gateway, lines: &[&str], body: &str) -> Response {
    let authorization = format!("Proxy-Authorization: {}", basic(SCOUT_TOKEN));
    let lines: Vec<&str> = lines.iter().copied().chain([authorization.as_str(), "Connection: close"]).collect();
    ask_raw(gateway, &lines, body)
}

/// A request to the proxy as these lines say.
pub(crate) fn ask_raw(gateway: &Gateway, lines: &[&str], body: &str) -> Response {
    let mut stream = dial(gateway);
    stream.write_all(format!("{}\r\n\r\n{body}", lines.join("\r\n")).as_bytes()).unwrap();
    answer(&mut stream)
}

/// A connection to the proxy.
pub(crate) fn dial(gateway: &Gateway) -> TcpStream {
    let stream = TcpStream::connect(proxy(gateway)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// Asks for a connection; the stream and the answer's head.
pub(crate) fn connect(gateway: &Gateway, place: &str, token: &str) -> (TcpStream, Response) {
    let mut stream = dial(gateway);
    let head = format!("CONNECT {place} HTTP/1.1\r\nHost: {place}\r\nProxy-Authorization: {}\r\n\r\n", basic(token));
    stream.write_all(head.as_bytes()).unwrap();
    let head = head_of(&mut stream);
    let mut response = parse(&head);
    let length = response.header("content-length").map_or(0, |length| length.parse().unwrap());
    response.body = vec![0; length];
    stream.read_exact(&mut response.body).unwrap();
    (stream, response)
}

/// An answer, read to the end of the connection or of its declared length.
pub(crate) fn answer(stream: &mut TcpStream) -> Response {
    let mut response = parse(&head_of(stream));
    match response.header("content-length").map(|length| length.parse::<usize>().unwrap()) {
        Some(length) => {
            response.body = vec![0; length];
            stream.read_exact(&mut response.body).unwrap();
        }
        None => {
            let mut chunked = Vec::new();
            // What was left unread on the other side may end it with a reset.
            let _reset = stream.read_to_end(&mut chunked);
            response.body = unchunked(&chunked);
        }
    }
    response
}

fn head_of(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&head)));
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn parse(head: &str) -> Response {
    let (status, fields) = head.trim_end().split_once("\r\n").unwrap_or((head.trim_end(), ""));
    let status = status.split(' ').nth(1).unwrap().parse().unwrap();
    let fields = fields.lines().filter_map(|line| line.split_once(':'));
    let headers = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    Response { status, headers, body: Vec::new() }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("an answer that ends");
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap().trim(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 2 + size + 2..];
    }
}

/// `countersign run` with these arguments, in the gateway's folder.
pub(crate) fn run(gateway: &Gateway, arguments: &[&str], command: &[&str]) -> Output {
    let arguments = [&["run", "--admin", &gateway.admin_url], arguments, &["--"], command].concat();
    gateway.command(&arguments)
}

/// A run's standard output, if it went well.
#[track_caller]
pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A server that sends back what it gets.
pub(crate) fn echo() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                let _ended = std::io::copy(&mut from, &mut to);
                let _ended = to.write_all(b"|that was all");
                let _ended = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}
