//! Operations on a relay: whatever is asked and received, every packet is accounted for.

#![no_main]

#[path = "../../worker/tests/fuzz/relay.rs"]
mod relay;

libfuzzer_sys::fuzz_target!(|operations: Vec<relay::Operation>| {
    relay::relay_ops(&operations);
});
