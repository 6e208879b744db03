//! Lines for the decision record.
//!
//! In a component they go to the host, which stores them with the decision; natively they do
//! nothing. They never influence a verdict, and the host cuts what is too long or too much.

#[cfg(target_family = "wasm")]
use crate::bindings::countersign::policy::log as host;

/// Detail that helps the author.
pub fn debug(message: impl AsRef<str>) {
    #[cfg(target_family = "wasm")]
    host::log(host::Level::Debug, message.as_ref());
    #[cfg(not(target_family = "wasm"))]
    drop(message);
}

/// Something an auditor may want to read.
pub fn info(message: impl AsRef<str>) {
    #[cfg(target_family = "wasm")]
    host::log(host::Level::Info, message.as_ref());
    #[cfg(not(target_family = "wasm"))]
    drop(message);
}

/// Something the operator should look at.
pub fn warn(message: impl AsRef<str>) {
    #[cfg(target_family = "wasm")]
    host::log(host::Level::Warn, message.as_ref());
    #[cfg(not(target_family = "wasm"))]
    drop(message);
}

/// Something that is wrong.
pub fn error(message: impl AsRef<str>) {
    #[cfg(target_family = "wasm")]
    host::log(host::Level::Error, message.as_ref());
    #[cfg(not(target_family = "wasm"))]
    drop(message);
}
