//! Any bytes as what a wire does to a handshake, with certificates of any kind.

#![no_main]

#[path = "../../worker/tests/fuzz/dtls.rs"]
mod dtls;

libfuzzer_sys::fuzz_target!(|data: &[u8]| dtls::dtls_handshake(data));
