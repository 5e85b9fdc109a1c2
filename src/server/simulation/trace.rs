//! What happened, in its order: as lines to read when something is wrong, and as a number by which two plays are the same or not.

use std::fmt;
use std::net::SocketAddr;

use super::network::{Left, now};

/// A story as it is being told.
#[derive(Debug)]
pub(super) struct Trace {
    lines: Vec<String>,
    digest: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            lines: Vec::new(),
            digest: 0xcbf2_9ce4_8422_2325,
        }
    }
}

impl Trace {
    /// Something happened. What is different in every play, such as ports of the machine, has no place in it.
    pub(super) fn tell(&mut self, what: &dyn fmt::Display) {
        let line = format!("{:>12.3} ms  {what}", now().0 as f64 / 1e6);
        self.note(line.as_bytes());
        self.lines.push(line);
    }

    /// A packet left a worker.
    pub(super) fn note_packet(&mut self, left: &Left) {
        self.note(&left.at.0.to_be_bytes());
        if let SocketAddr::V4(to) = left.to {
            self.note(&to.ip().octets());
            self.note(&to.port().to_be_bytes());
        }
        self.note(&left.bytes);
    }

    /// All of it as a number.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn lines(&self) -> &[String] {
        &self.lines
    }

    /// FNV-1a by Fowler, Noll and Vo, over words.
    fn note(&mut self, bytes: &[u8]) {
        for word in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..word.len()].copy_from_slice(word);
            self.digest = (self.digest ^ u64::from_be_bytes(padded)).wrapping_mul(0x0100_0000_01b3);
            self.digest ^= self.digest >> 29;
        }
    }
}
