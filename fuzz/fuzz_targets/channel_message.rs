//! Any bytes as the body of a frame.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_channel::fuzz::message(data));
