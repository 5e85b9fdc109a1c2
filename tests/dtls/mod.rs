//! Handshakes with other people's DTLS over a bad network.

pub(crate) mod certificates;
pub(crate) mod handshake;
mod network;
pub(crate) mod peers;
