//! Any bytes as a STUN message.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::stun(data));
