//! Any words in the page of a worker that is dead.

#![no_main]

#[path = "../../worker/tests/fuzz/page.rs"]
mod page;

libfuzzer_sys::fuzz_target!(|data: &[u8]| page::page(data));
