//! The reader against a real chain: anvil with a real EIP-3009 token, started as the other suites start it.

#[cfg(test)]
mod story;
