//! Server-sent events as they arrive, however they are cut.

/// What has arrived and is no event yet. Whoever adds bytes bounds them.
#[derive(Debug, Default)]
pub(crate) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
}

impl Events {
    /// The data of the events that end in these bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut done = Vec::new();
        for byte in bytes {
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if line.is_empty() && !self.data.is_empty() {
                done.push(std::mem::take(&mut self.data));
            } else if let Some(data) = line.strip_prefix(b"data:") {
                self.data.extend_from_slice(data.strip_prefix(b" ").unwrap_or(data));
            }
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let stream = b": ping\n\nid: 1\r\ndata: {\"a\":\r\ndata: 1}\r\n\r\ndata:\n\ndata:{}\n\n";
        for cut in 1..stream.len() {
            let mut events = Events::default();
            let found: Vec<_> = stream.chunks(cut).flat_map(|chunk| events.add(chunk)).collect();
            assert_eq!(found, [b"{\"a\":1}".to_vec(), b"{}".to_vec()], "{cut}");
        }
    }
}
