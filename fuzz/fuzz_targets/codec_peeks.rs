//! Any bytes as a payload of each codec.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::codec_peeks(data));
