//! Where a seller's name leads. A seam, because names are answered by strangers: whoever owns one may answer each
//! question differently.

use std::io;
use std::net::SocketAddr;

use countersign_core::ledger::Fut;

/// Who is asked for the addresses of a name.
pub trait Names: Send + Sync {
    /// The addresses of a host, at `port`, in the order in which they are tried.
    ///
    /// # Errors
    /// When the name has none, or nobody could be asked.
    fn addresses<'a>(&'a self, host: &'a str, port: u16) -> Fut<'a, io::Result<Vec<SocketAddr>>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn addresses<'a>(&'a self, host: &'a str, port: u16) -> Fut<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}
