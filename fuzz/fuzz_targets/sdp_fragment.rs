//! Any bytes as a fragment of SDP.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir::fuzz_sdp::fragment(data));
