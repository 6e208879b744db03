//! The reader against a chain in memory, and its way to a node over real sockets.

#[cfg(test)]
mod look;
#[cfg(test)]
mod random;
#[cfg(test)]
mod rpc;
#[cfg(test)]
mod scan;
#[cfg(test)]
mod support;
