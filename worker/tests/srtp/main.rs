//! SRTP and SRTCP from the outside: what is unprotected and what is not, which index is protected and which is not, and whether
//! another implementation agrees.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod differential;
mod inbound;
mod outbound;
mod packets;
mod train;
