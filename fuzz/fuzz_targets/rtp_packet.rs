//! Any bytes as an RTP packet.

#![no_main]

#[path = "../../worker/tests/fuzz/rtp.rs"]
mod rtp;

libfuzzer_sys::fuzz_target!(|data: &[u8]| rtp::rtp_packet(data));
