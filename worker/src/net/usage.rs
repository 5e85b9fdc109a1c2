//! What this process uses of the machine.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::{SysconfVar, sysconf};

use super::clock;

/// Reads what the process uses. Opened at start-up, because a worker opens no file afterwards.
#[derive(Debug)]
pub struct Usage {
    statm: Option<File>,
    page_bytes: u64,
}

impl Usage {
    /// Opens `/proc/self/statm`; without it the resident memory is reported as its peak.
    pub fn open() -> Self {
        let page_bytes = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
        Self {
            statm: File::open("/proc/self/statm").ok(),
            page_bytes: page_bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(4096),
        }
    }

    /// User and system CPU time, in nanoseconds.
    pub fn cpu_ns(&self) -> u64 {
        clock::process_cpu_ns()
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.resident_pages()
            .map_or_else(peak_resident_bytes, |pages| pages * self.page_bytes)
    }

    /// The second number of statm.
    fn resident_pages(&self) -> Option<u64> {
        let mut text = [0; 128];
        let len = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(&text[..len])
            .ok()?
            .split_ascii_whitespace()
            .nth(1)?
            .parse()
            .ok()
    }
}

fn peak_resident_bytes() -> u64 {
    // In kilobytes on Linux.
    getrusage(UsageWho::RUSAGE_SELF).map_or(0, |usage| usage.max_rss().unsigned_abs() * 1024)
}
