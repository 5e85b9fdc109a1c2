//! Any frames on the connection of a WebRTC transport whose peer has passed its checks.

#![no_main]

#[path = "../../worker/tests/fuzz/webrtc.rs"]
mod webrtc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| webrtc::webrtc_transport(data));
