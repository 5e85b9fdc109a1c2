//! What tests of real processes share.

#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;
use std::path::Path;

#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use crate::loopback::settings;

/// Awaits what must happen.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    crate::loopback::soon("what must happen", future).await
}

/// Whether there is a process with this id, be it only a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until there is none. A death may be told while the kernel is still closing what the process had.
pub(crate) async fn gone(pid: u32) {
    soon(async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    })
    .await;
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
