//! What a hostile frame can cost in memory is bounded, and is measured here.
//!
//! Alone in its program, because it counts what the whole process allocates.

#[path = "../../tests/allocator/mod.rs"]
mod allocator;

use std::sync::atomic::Ordering;

use weir_channel::codec::{self, CLAIM_MAX, CodecError};
use weir_channel::frame::{Decoder, FrameError, MAX_FRAME};

use allocator::{BYTES, PEAK_BYTES};

/// The most that was allocated at once during `f`, beyond what there was before.
fn peak<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = BYTES.load(Ordering::Relaxed);
    PEAK_BYTES.store(before, Ordering::Relaxed);
    let result = f();
    (result, (PEAK_BYTES.load(Ordering::Relaxed) - before) as usize)
}

/// bincode's encoding of lengths above 65,535 and above 4,294,967,295.
fn length(len: u64) -> Vec<u8> {
    match u32::try_from(len) {
        Ok(len) => [&[252][..], &len.to_le_bytes()].concat(),
        Err(_) => [&[253][..], &len.to_le_bytes()].concat(),
    }
}

/// A body that begins with `prefix`, goes on with `element` again and again, and has the full length of a frame.
fn filled(prefix: &[u8], element: &[u8]) -> Vec<u8> {
    let mut body = prefix.to_vec();
    while body.len() + element.len() <= MAX_FRAME {
        body.extend_from_slice(element);
    }
    body
}

const MIB: usize = 1 << 20;

/// One test, because tests of one program run at the same time and would count each other's memory.
#[test]
fn memory_is_bounded() {
    // Where collections and strings are: the bytes before their length.
    let (stats, dump) = ([2, 1, 0, 5], [2, 1, 0, 6]);
    let places: Vec<(&str, Vec<u8>)> = vec![
        ("Hello::build", vec![0, 1]),
        ("LogFilter::directives", vec![1, 1, 1, 1]),
        ("CreateProducer::codecs", vec![1, 1, 1, 17, 1, 1, 1, 0, 0]),
        ("CreateConsumer::payload_types", vec![1, 1, 1, 21, 1, 1, 1, 1, 1]),
        ("Histogram::counts", [&[2, 1, 0, 4][..], &[0; 20], &[1]].concat()),
        ("StatsPage::transports", stats.to_vec()),
        ("StatsPage::consumers", [&stats[..], &[0, 0]].concat()),
        (
            "TransportStats::unrouted",
            [&stats[..], &[1, 1, 0, 0, 0, 0, 0, 0, 0]].concat(),
        ),
        ("DumpPage::transports", dump.to_vec()),
        (
            "ProducerDump::consumers",
            [&dump[..], &[0, 1, 1, 1, 0, 0, 0, 0]].concat(),
        ),
        ("WorkerError::InvalidParameters", vec![2, 1, 1, 15]),
        ("LogLine::text", vec![3, 3, 0, 0]),
    ];
    for (place, prefix) in &places {
        for len in [1 << 20, 1 << 24, 1 << 32, 1 << 46, u64::MAX] {
            let body = [&prefix[..], &length(len)].concat();
            let (result, bytes) = peak(|| codec::decode(&body));
            assert!(
                matches!(
                    result,
                    Err(CodecError::Truncated { .. } | CodecError::ClaimsTooMuch | CodecError::Garbage(_))
                ),
                "{place} of {len}: {result:?}"
            );
            assert!(bytes <= CLAIM_MAX + 2 * MIB, "{place} of {len} took {bytes} bytes");
        }
    }
    // Elements that are small in the frame and large in memory, a whole frame of them, the length true enough to get far.
    let mut worst = 0;
    for (place, prefix, element) in [
        (
            "Histogram::counts",
            [&[2, 1, 0, 4][..], &[0; 20], &[1]].concat(),
            vec![0],
        ),
        ("StatsPage::transports", stats.to_vec(), vec![0; 11]),
        ("StatsPage::producers", [&stats[..], &[0]].concat(), vec![0; 3]),
        ("StatsPage::consumers", [&stats[..], &[0, 0]].concat(), vec![0; 13]),
        (
            "TransportStats::unrouted",
            [&stats[..], &[1, 1, 0, 0, 0, 0, 0, 0, 0]].concat(),
            vec![0; 2],
        ),
        ("DumpPage::transports", dump.to_vec(), vec![0; 7]),
        ("DumpPage::producers", [&dump[..], &[0]].concat(), vec![0; 7]),
        ("DumpPage::consumers", [&dump[..], &[0, 0]].concat(), vec![0; 10]),
        (
            "TransportDump::mids",
            [&dump[..], &[1, 0, 0, 0, 0, 0]].concat(),
            vec![0; 2],
        ),
        (
            "CreateProducer::encodings",
            vec![1, 1, 1, 8, 1, 1, 1, 0, 0, 0],
            vec![0; 3],
        ),
    ] {
        let body = filled(&[&prefix[..], &length(1 << 20)].concat(), &element);
        let (result, bytes) = peak(|| codec::decode(&body).map(drop));
        assert!(result.is_err(), "{place}: the length lies");
        println!("{place}: {} KiB", bytes >> 10);
        worst = worst.max(bytes);
    }
    assert!(worst <= 80 * MIB, "a frame took {worst} bytes");

    // A length prefix alone allocates no more than it may announce, one that announces too much nothing.
    let mut decoder = Decoder::new();
    let (_, bytes) = peak(|| {
        decoder
            .next_frame(&mut &(MAX_FRAME as u32).to_le_bytes()[..])
            .map(|frame| frame.is_none())
    });
    assert!(bytes <= MAX_FRAME, "{bytes} bytes");
    let mut decoder = Decoder::new();
    let too_long = [(MAX_FRAME as u32 + 1).to_le_bytes(); 2].concat();
    let (result, bytes) = peak(|| decoder.next_frame(&mut &too_long[..]).map(|frame| frame.is_none()));
    assert_eq!((result, bytes), (Err(FrameError::TooLong { len: MAX_FRAME + 1 }), 0));
}
