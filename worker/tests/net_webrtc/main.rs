//! WebRTC transports of a worker over real sockets: with clients that others built, or that are put together from what others
//! built.

#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

mod client;
mod commands;
mod copies;
#[path = "../loopback/mod.rs"]
mod loopback;
mod media;
mod pairs;
mod room;
mod shared_port;
mod ssrc_again;
mod str0m_client;
#[path = "../supervisor/mod.rs"]
mod supervisor;
mod tcp;
mod unheard;
