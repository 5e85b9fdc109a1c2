#![no_main]

libfuzzer_sys::fuzz_target!(|operations: Vec<weir_worker::fuzz::Operation>| weir_worker::fuzz::relay_ops(&operations));
