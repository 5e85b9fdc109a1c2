//! Any bytes as a payload of each codec.

#![no_main]

#[path = "../../worker/tests/fuzz/rtp.rs"]
mod rtp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtp::codec_peeks(data));
