//! Any bytes as an SRTP or SRTCP packet: from nobody, from a peer, and damaged on the way.

#![no_main]

#[path = "../../worker/tests/fuzz/srtp.rs"]
mod srtp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| srtp::srtp(data));
