//! Memory that is free is given back to the system.
//!
//! A server that a thousand clients have left has no use for the memory that they took, and its machine may have. The C library
//! keeps it: docs/decisions/0031-strangers-over-http.md has the figures.

use std::convert::Infallible;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use weir_worker::net::heap::give_back_free_memory;
use weir_worker::net::usage::Usage;

/// How often it is given back. Each time costs a millisecond or so of one CPU.
const INTERVAL: Duration = Duration::from_secs(5);

/// So much more than after the start is left alone.
const LEFT_ALONE_BYTES: u64 = 8 * 1024 * 1024;

/// Gives it back for as long as the server lives, if the process has become large.
pub(super) async fn give_back() -> Infallible {
    let usage = Usage::open();
    let at_start = usage.resident_bytes();
    loop {
        sleep(INTERVAL).await;
        if usage.resident_bytes() > at_start + LEFT_ALONE_BYTES {
            // It fails only if the runtime ends, and this with it.
            let _ = spawn_blocking(give_back_free_memory).await;
        }
    }
}
