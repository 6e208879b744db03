//! Connections through the proxy: how many, how long, and bytes that nobody reads on their way.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use countersign_core::seams::Clock;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::known;
use crate::config::Door;
use crate::problem::Code;
use crate::purchase::mandate;
use crate::state::Gateway;

/// How often it is looked whether whoever has a connection may still have it, in milliseconds.
const LOOK_MS: u64 = 5_000;

/// How many connections each agent has.
#[derive(Debug, Default)]
pub struct Tunnels(Arc<Mutex<BTreeMap<String, u32>>>);

/// One of an agent's connections.
#[derive(Debug)]
pub(super) struct Place {
    agent: String,
    open: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Tunnels {
    /// How many there are, of all agents.
    #[must_use]
    pub fn count(&self) -> u64 {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().map(|n| u64::from(*n)).sum()
    }

    /// One more for `agent`, unless it has `most` already.
    pub(super) fn take(&self, agent: &str, most: u32) -> Option<Place> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(agent.to_owned()).or_default();
        if *count >= most {
            return None;
        }
        *count = count.saturating_add(1);
        Some(Place { agent: agent.to_owned(), open: Arc::clone(&self.0) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.agent);
            }
        }
    }
}

/// Carries bytes both ways until both sides have ended, or one of the limits is reached. A side that has
/// said all it has to say may still listen.
pub(super) async fn carry(
    gateway: &Gateway,
    client: Upgraded,
    mut seller: TcpStream,
    token: &str,
    mut stop: watch::Receiver<bool>,
) {
    let limits = gateway.live.load().config.proxy.clone();
    let activity = Arc::new(Activity::default());
    let mut client = Watched::new(TokioIo::new(client), Arc::clone(&activity));
    let why = tokio::select! {
        ended = copy_bidirectional(&mut client, &mut seller) => match ended {
            Ok(_) => "both sides ended",
            Err(_) => "one side broke off",
        },
        () = activity.ceases(&*gateway.clock, limits.idle_ms) => "it was silent for too long",
        () = gateway.clock.sleep(limits.longest_ms) => "it lasted too long",
        () = revoked(gateway, token) => "its agent may no longer have it",
        _ = stop.wait_for(|stop| *stop) => "the gateway stops",
    };
    tracing::debug!(why, "a connection through the proxy ended");
}

/// Ends when the token no longer opens this door.
async fn revoked(gateway: &Gateway, token: &str) {
    loop {
        gateway.clock.sleep(LOOK_MS).await;
        let allowed = match known(gateway, token).await {
            Ok((snapshot, caller)) => mandate(&snapshot.config, &caller.principal, Door::Proxy).is_ok(),
            // A ledger that cannot be asked now says nothing about who may what.
            Err(problem) => {
                !matches!(problem.code, Code::Unauthenticated | Code::SessionExpired | Code::IssuerUnavailable)
            }
        };
        if !allowed {
            return;
        }
    }
}

/// Whether anything happens on a connection.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Counts what happened.
    events: AtomicU64,
    /// What is under way.
    busy: AtomicU64,
}

impl Activity {
    fn note(&self) {
        self.events.fetch_add(1, Ordering::Relaxed);
    }

    /// While the guard lives, the connection is not silent.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Ends when nothing has happened for `idle` milliseconds, and at the latest when nothing has for twice that.
    pub(super) async fn ceases(&self, clock: &dyn Clock, idle: u64) {
        loop {
            let before = self.events.load(Ordering::Relaxed);
            clock.sleep(idle).await;
            if self.events.load(Ordering::Relaxed) == before && self.busy.load(Ordering::Relaxed) == 0 {
                return;
            }
        }
    }
}

/// Something is under way.
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.note();
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream whose bytes are activity.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S> Watched<S> {
    pub(super) const fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if polled.is_ready() {
            this.activity.note();
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, bytes);
        if polled.is_ready() {
            this.activity.note();
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_back() {
        let tunnels = Tunnels::default();
        let first = tunnels.take("a", 2).unwrap();
        let _second = tunnels.take("a", 2).unwrap();
        assert!(tunnels.take("a", 2).is_none());
        assert!(tunnels.take("b", 2).is_some(), "agents do not share");
        drop(first);
        let third = tunnels.take("a", 2);
        assert!(third.is_some());
        drop((third, _second));
        assert!(tunnels.0.lock().unwrap().is_empty(), "nothing is left of agents that left");
    }
}
