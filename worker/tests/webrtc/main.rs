//! WebRTC transports against an ICE agent and a DTLS endpoint that others built, in virtual time.

mod client;
mod connect;
mod flood;
mod gates;
mod lifecycle;
mod network;
mod peer;
mod tcp;
mod world;
