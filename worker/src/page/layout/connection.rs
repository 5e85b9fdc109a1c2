//! The records of a TCP connection.

use super::{Record, Twin};
use crate::page::record::records;

/// Frames of equal length in a row that are noted at a time.
pub const RUNS: usize = 8;

/// How far it was written: stored before the kernel is given more.
pub const WRITTEN: Twin<StreamOut> = Twin::new(2, 32);

records! {
    /// The frames of a TCP stream that the kernel was about to be given.
    pub struct StreamOut {
        /// The byte of the stream at which the first of them begins.
        pub begins_at: u64,
        /// The lengths of those in a row that are of equal length, and how many these are.
        pub runs: [[u32; 2]; RUNS],
    }
}
