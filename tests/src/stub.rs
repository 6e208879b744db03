//! A server that writes down what reaches it, byte for byte, and answers what it was told to.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A listener on 127.0.0.1. It serves until the process ends; every connection gets one answer.
#[derive(Debug, Clone)]
pub struct Stub {
    /// `host:port`.
    pub authority: String,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    /// Answers every request with these bytes and closes. Say `Connection: close` in them.
    pub fn start(answer: impl Into<String>) -> Self {
        let answer: String = answer.into();
        Self::answering(move |_| answer.clone())
    }

    /// Answers every request with what `answer` makes of it, one after the other. Say `Connection: close` in it.
    pub fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let (stub, listener) = Self::listen();
        let seen = Arc::clone(&stub.seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                converse(stream, &seen, &answer);
            }
        });
        stub
    }

    /// As [`Stub::answering`], but all at the same time: for answers that take long, and for callers that connect in
    /// advance.
    pub fn answering_at_once(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let (stub, listener) = Self::listen();
        let (seen, answer) = (Arc::clone(&stub.seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, &seen, &*answer));
            }
        });
        stub
    }

    fn listen() -> (Self, TcpListener) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        (Self { authority, seen: Arc::default() }, listener)
    }

    /// Its URL with a path that begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority)
    }

    /// The requests so far, heads and bodies as they came; a connection that sent nothing is an empty text.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

fn converse(mut stream: TcpStream, seen: &Mutex<Vec<String>>, answer: &impl Fn(&str) -> String) {
    let _unlimited = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let (mut bytes, mut chunk) = (Vec::new(), [0; 4096]);
    while !complete(&bytes) {
        match stream.read(&mut chunk) {
            Ok(n @ 1..) => bytes.extend_from_slice(chunk.get(..n).unwrap()),
            _ => break,
        }
    }
    // Before the answer: who has the answer may look at once.
    let request = String::from_utf8_lossy(&bytes).into_owned();
    seen.lock().unwrap().push(request.clone());
    let _left = stream.write_all(answer(&request).as_bytes());
}

fn complete(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    body.len() >= length.unwrap_or(0)
}
