//! Any bytes as a STUN message.

#![no_main]

#[path = "../../worker/tests/fuzz/webrtc.rs"]
mod webrtc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| webrtc::stun(data));
