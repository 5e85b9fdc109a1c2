//! Any bytes as what a wire does to a handshake, with certificates of any kind.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::dtls_handshake(data));
