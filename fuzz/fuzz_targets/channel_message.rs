//! Any bytes as the body of a frame.

#![no_main]

#[path = "../../channel/tests/fuzz.rs"]
mod channel;

libfuzzer_sys::fuzz_target!(|data: &[u8]| channel::message(data));
