//! What tests of real processes share.

#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use weir::{Family, Settings};

/// A bound on waiting for what must happen, so that a fault fails a test instead of hanging it.
const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits what must happen.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it happens before patience runs out")
}

/// Loopback, real workers, and patience with a busy machine.
pub(crate) fn settings(workers: u32) -> Settings {
    Settings {
        workers: NonZeroU32::new(workers),
        rtc_ipv4: Family::Address([127, 0, 0, 1].into()),
        rtc_ipv6: Family::Off,
        worker_binary: Some(env!("CARGO_BIN_EXE_weir-worker").into()),
        start_timeout: PATIENCE,
        ping_timeout: PATIENCE,
        ..Settings::default()
    }
}

/// Whether there is a process with this id, be it only a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A process's open descriptors, and what each is.
pub(crate) fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let folder = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives");
    folder
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            // The descriptor that reads the folder itself is gone by now.
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        })
        .collect()
}
