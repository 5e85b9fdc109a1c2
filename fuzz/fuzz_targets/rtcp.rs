//! Any bytes as an RTCP compound packet.

#![no_main]

#[path = "../../worker/tests/fuzz/rtp.rs"]
mod rtp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtp::rtcp(data));
