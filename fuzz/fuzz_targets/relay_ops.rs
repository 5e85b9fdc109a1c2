//! Operations on a relay: whatever is asked and received, every packet is accounted for.

#![no_main]

libfuzzer_sys::fuzz_target!(|operations: Vec<weir_worker::fuzz::Operation>| weir_worker::fuzz::relay_ops(&operations));
