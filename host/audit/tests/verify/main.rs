//! The offline verifier against sound and damaged logs, and against a second verifier.

#[cfg(test)]
mod exports;
#[cfg(test)]
mod logs;
