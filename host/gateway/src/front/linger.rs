//! Closing a connection so that the last answer arrives.
//!
//! A caller is refused before its body is read. A socket that is closed with bytes unread resets the connection,
//! and a reset takes back what was sent: whoever is still sending hears "broken pipe" in place of the reason.
//! So the gateway stops sending first, and reads on for a while what nobody wants.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a caller may send nothing before the connection is closed, and how long it may go on sending.
const PATIENCE: Patience = Patience { quiet: Duration::from_secs(2), longest: Duration::from_secs(10) };
/// Read at a time, in bytes.
const PIECE: usize = 16 * 1024;

/// Whether a connection may end with bytes on their way to us: its last request had a body.
#[derive(Clone, Default)]
pub(super) struct Lingers(Arc<AtomicBool>);

impl Lingers {
    /// Notes of the request being answered whether it has a body.
    pub(super) fn set(&self, has_body: bool) {
        self.0.store(has_body, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy)]
struct Patience {
    quiet: Duration,
    longest: Duration,
}

/// A stream whose shutdown waits for the other side to end, or to be quiet, if its [`Lingers`] says so.
pub(super) struct Lingering<S> {
    stream: S,
    lingers: Lingers,
    patience: Patience,
    stage: Stage,
}

enum Stage {
    Open,
    /// We have said that we are done.
    Waiting {
        quiet: Pin<Box<Sleep>>,
        longest: Instant,
    },
    Done,
}

impl<S> Lingering<S> {
    pub(super) fn new(stream: S, lingers: Lingers) -> Self {
        Self { stream, lingers, patience: PATIENCE, stage: Stage::Open }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, lingers, patience, stage } = self.get_mut();
        loop {
            *stage = match stage {
                Stage::Open => {
                    ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
                    if lingers.0.load(Ordering::Relaxed) {
                        let now = Instant::now();
                        let quiet = Box::pin(tokio::time::sleep_until(now + patience.quiet));
                        Stage::Waiting { quiet, longest: now + patience.longest }
                    } else {
                        Stage::Done
                    }
                }
                Stage::Waiting { quiet, longest } => {
                    let mut piece = [std::mem::MaybeUninit::uninit(); PIECE];
                    let mut piece = ReadBuf::uninit(&mut piece);
                    match Pin::new(&mut *stream).poll_read(cx, &mut piece) {
                        Poll::Ready(Ok(())) if !piece.filled().is_empty() => {
                            let now = Instant::now();
                            if now < *longest {
                                quiet.as_mut().reset((now + patience.quiet).min(*longest));
                                continue;
                            }
                        }
                        Poll::Ready(_) => {}
                        Poll::Pending => ready!(quiet.as_mut().poll(cx)),
                    }
                    Stage::Done
                }
                Stage::Done => return Poll::Ready(Ok(())),
            };
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const NEVER: Duration = Duration::from_secs(3_600);
    const SOON: Duration = Duration::from_millis(20);

    fn lingering(
        has_body: bool,
        quiet: Duration,
        longest: Duration,
    ) -> (Lingering<tokio::io::DuplexStream>, tokio::io::DuplexStream) {
        let (ours, theirs) = tokio::io::duplex(64);
        let lingers = Lingers::default();
        lingers.set(has_body);
        let lingering = Lingering { patience: Patience { quiet, longest }, ..Lingering::new(ours, lingers) };
        (lingering, theirs)
    }

    #[tokio::test]
    async fn what_is_still_sent_is_read_until_the_other_side_ends() {
        let (mut ours, mut theirs) = lingering(true, NEVER, NEVER);
        let caller = async move {
            // Far more than fits between the two.
            theirs.write_all(&[7; 100_000]).await.expect("nobody closes while it is sent");
            let mut answer = Vec::new();
            theirs.read_to_end(&mut answer).await.expect("the answer");
            answer
        };
        ours.write_all(b"no").await.expect("it fits");
        let (ended, answer) = tokio::join!(ours.shutdown(), caller);
        ended.expect("a shutdown");
        assert_eq!(answer, b"no");
    }

    // What these show is that they end.

    #[tokio::test]
    async fn whoever_is_quiet_is_not_waited_for() {
        let (mut ours, _theirs) = lingering(true, SOON, NEVER);
        ours.shutdown().await.expect("a shutdown");
    }

    #[tokio::test]
    async fn whoever_never_ends_is_not_waited_for() {
        let (mut ours, mut theirs) = lingering(true, NEVER, SOON);
        let drip = tokio::spawn(async move { while theirs.write_all(&[7; 64]).await.is_ok() {} });
        ours.shutdown().await.expect("a shutdown");
        drop(ours);
        drip.await.expect("the drip ends with the connection");
    }

    #[tokio::test]
    async fn a_connection_whose_last_request_had_no_body_closes_at_once() {
        let (mut ours, _theirs) = lingering(false, NEVER, NEVER);
        ours.shutdown().await.expect("a shutdown");
    }
}
