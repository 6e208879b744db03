//! A bar on a terminal; nothing elsewhere.

use std::io::{IsTerminal, Write};

const WIDTH: u64 = 32;

pub(super) struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    shown: Option<u64>,
    terminal: bool,
}

impl Progress {
    pub(super) fn new(what: &'static str, total: u64) -> Self {
        Self { what, total: total.max(1), done: 0, shown: None, terminal: std::io::stderr().is_terminal() }
    }

    pub(super) fn add(&mut self, more: u64) {
        self.done = self.done.saturating_add(more).min(self.total);
        let percent = self.done.saturating_mul(100) / self.total;
        if self.terminal && self.shown != Some(percent) {
            self.shown = Some(percent);
            let full = usize::try_from(percent.saturating_mul(WIDTH) / 100).unwrap_or(0);
            let bar: String = (0..WIDTH).map(|n| if n < full as u64 { '█' } else { '░' }).collect();
            self.write(&format!("\r{} {bar} {percent:>3} % of {}", self.what, self.total));
        }
    }

    fn write(&self, text: &str) {
        let mut out = std::io::stderr();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            self.write("\r\u{1b}[K");
        }
    }
}
