//! Any bytes as an RTCP compound packet.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir_worker::fuzz::rtcp(data));
