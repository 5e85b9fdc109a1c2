//! Any bytes as an SRTP or SRTCP packet: from nobody, from a peer, and damaged on the way.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::srtp(data));
