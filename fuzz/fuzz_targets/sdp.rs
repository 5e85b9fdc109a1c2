//! Any bytes as an offer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir::fuzz_sdp::offer(data));
