//! WebRTC transports without sockets, clocks and threads: bytes and time in, datagrams and events out.
//!
//! [`demux`] says what a datagram is, [`ice`] whose it is and where answers go, [`dtls`] agrees on keys, and
//! [`transport`] ties them together for one peer; [`srtp`] protects its media with these keys. [`framing`] is for peers
//! that come over TCP. Until a peer has proven itself it costs a bounded amount of work ([`budget`]) and memory.

pub mod budget;
pub mod demux;
pub mod dtls;
pub mod entropy;
pub mod framing;
pub mod ice;
mod residue;
pub mod srtp;
pub mod stun;
pub mod succession;
pub mod transport;
