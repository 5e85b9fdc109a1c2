//! How much of everything the relay holds at most. A command past a limit is refused; a packet past one is counted.

use std::time::Duration;

/// The bounds of one relay. The defaults are far above what one core can serve; they exist so that nothing grows
/// without end.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rooms.
    pub rooms: u32,
    /// Transports of all rooms.
    pub transports: u32,
    /// Producers of all rooms.
    pub producers: u32,
    /// Producers of one transport; a packet with an unknown SSRC is compared with all of them.
    pub producers_per_transport: u32,
    /// Consumers of all rooms.
    pub consumers: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rooms: 100_000,
            transports: 200_000,
            producers: 200_000,
            producers_per_transport: 256,
            consumers: 1_000_000,
        }
    }
}

/// Packets of one train: what the kernel segments in one call (UDP_MAX_SEGMENTS was 64 until Linux 6.9).
pub const TRAIN_PACKETS_MAX: usize = 64;

/// Bytes of one train: the largest UDP payload over IPv4 (65,535 − 20 − 8).
pub const TRAIN_BYTES_MAX: usize = 65_507;

/// How much padding a packet gets at most, so that it is as long as the others of its train, in bytes. Encoders split a frame
/// into packets that differ by a byte, or by a header extension that only some of them have (a dependency descriptor, an
/// orientation); what differs by more is another frame.
pub const TRAIN_PADDING_MAX: u32 = 16;

/// Packets of one receive batch that are looked at before any of them is sent. A batch is at most this big, so that one
/// socket's burst does not hold up the others; a bigger one is worked off in parts.
pub const BATCH_PACKETS_MAX: usize = 1_024;

/// Entries of one page of statistics or of a dump. An entry encodes to less than 500 bytes (a consumer with all drop
/// reasons), so a page stays below half of the frame limit of 1 MiB.
pub const PAGE_ENTRIES_MAX: usize = 1_000;

/// The largest id of a transport, producer or consumer. A page's cursor is such an id with its kind in the two highest
/// bits.
pub const ID_MAX: u64 = (1 << 62) - 1;

/// Streams of one producer.
pub const ENCODINGS_MAX: usize = 3;

/// Packets of one stream that are kept to be sent again.
pub const RING_PACKETS: usize = 1_024;

/// Their bytes. Reserved at once, resident as far as needed.
pub const RING_BYTES: usize = 1 << 20;

/// The pieces in which those bytes are used; no longer packet is kept.
pub const RING_CHUNK_BYTES: usize = 16 << 10;

/// How long they are kept. What a receiver still lacks then, it does not play any more.
pub const RING_AGE: Duration = Duration::from_secs(2);
