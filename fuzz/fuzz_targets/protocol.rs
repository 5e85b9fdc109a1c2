//! Any bytes as what the clients of a room say.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir::fuzz::protocol(data));
