//! WebRTC transports against an ICE agent and a DTLS endpoint that others built, in virtual time.

#![expect(
    clippy::unwrap_used,
    reason = "the world of a test falls apart when one of these fails"
)]

mod client;
mod connect;
mod flood;
mod gates;
mod lifecycle;
mod network;
mod pairs;
mod peer;
mod residue;
mod tcp;
mod whole_stack;
mod world;
