//! Any bytes as an RTP packet.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::rtp_packet(data));
