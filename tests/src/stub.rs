//! A server that writes down what reaches it, byte for byte, and answers what it was told to.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A listener on this machine. It serves until the process ends; every connection gets one answer.
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
    pub fn answering<A: Into<Vec<u8>>>(answer: impl Fn(&str) -> A + Send + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stub = Self::at(&listener);
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
    pub fn answering_at_once<A: Into<Vec<u8>>>(answer: impl Fn(&str) -> A + Send + Sync + 'static) -> Self {
        Self::answering_on(TcpListener::bind(("127.0.0.1", 0)).unwrap(), answer)
    }

    /// As [`Stub::answering_at_once`], where this listener is.
    pub fn answering_on<A: Into<Vec<u8>>>(
        listener: TcpListener,
        answer: impl Fn(&str) -> A + Send + Sync + 'static,
    ) -> Self {
        let stub = Self::at(&listener);
        let (seen, answer) = (Arc::clone(&stub.seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                std::thread::spawn(move || converse(stream, &seen, &*answer));
            }
        });
        stub
    }

    fn at(listener: &TcpListener) -> Self {
        Self { authority: listener.local_addr().unwrap().to_string(), seen: Arc::default() }
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

fn converse<A: Into<Vec<u8>>>(mut stream: TcpStream, seen: &Mutex<Vec<String>>, answer: &impl Fn(&str) -> A) {
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
    let _left = stream.write_all(&answer(&request).into());
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
