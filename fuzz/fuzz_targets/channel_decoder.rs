//! Any bytes as a channel's stream, cut anywhere.

#![no_main]

#[path = "../../channel/tests/fuzz.rs"]
mod channel;

libfuzzer_sys::fuzz_target!(|data: &[u8]| channel::decoder(data));
