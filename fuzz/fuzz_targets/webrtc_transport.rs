//! Any frames on the connection of a WebRTC transport whose peer has passed its checks.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::webrtc_transport(data));
