//! Any bytes as a channel's stream, cut anywhere.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_channel::fuzz::decoder(data));
