//! What the commands that measure a server have in common: the client's side of WebRTC, which CPU does what, numbers from a seed.

pub(in crate::cli) mod client;
pub(in crate::cli) mod cpu;
mod offer;
pub(in crate::cli) mod one_port;
pub(in crate::cli) mod progress;
pub(in crate::cli) mod random;
pub(in crate::cli) mod socket;
pub(in crate::cli) mod thread;
pub(in crate::cli) mod wire;
