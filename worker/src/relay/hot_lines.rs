//! How many cache lines of the relay's objects a packet touches, counted from where their fields lie.
//!
//! In small rooms thousands of other packets come between two of a stream, and with them the kernel's work: then each line is a
//! miss, and misses are most of what relaying costs (docs/decisions/0034-whole-lines.md). Each object says where those of its fields
//! lie that every packet needs (`HOT`). What somebody forgot to say, `cargo bench --bench relay -- rooms --cache` counts.

use std::ops::Range;

use super::consumer::Consumer;
use super::nack::MissingList;
use super::producer::Producer;
use super::stream::Stream;
use super::transport::Transport;
use super::withheld::Withheld;

const LINE: usize = 64;

/// Lines that one packet of sound touches on its way to three consumers, and one of VP8 that may be asked for again.
const MOST: (usize, usize) = (31, 35);

fn lines(ranges: &[Range<usize>]) -> usize {
    let lines = ranges
        .iter()
        .flat_map(|range| range.start / LINE..range.end.div_ceil(LINE));
    lines.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn a_packet_touches_few_lines() {
    // Which of the relay's objects it is about: a table, and the generation of its key; eight of these share a line.
    let keys = 1;
    let transport = keys + 1 + lines(&Transport::HOT);
    let producer = keys + lines(&Producer::HOT);
    // Beside the stream: a word of the numbers that came, their digests, what is withheld, the list of its consumers.
    let stream = lines(&Stream::HOT) + 1 + 1 + lines(&[Withheld::HOT]) + 1;
    let vp8 = lines(&[Stream::HOT.as_slice(), &[Stream::HOT_VP8]].concat()) - lines(&Stream::HOT);
    // It begins anywhere.
    let missing = 1 + lines(&[MissingList::HOT]);
    let consumer = keys + lines(&Consumer::HOT);
    let sound = transport + producer + stream + 3 * consumer;
    let video = sound + vp8 + missing;
    println!(
        "lines of {LINE} bytes: transport {transport}, producer {producer}, stream {stream} (VP8 {vp8} more, NACK {missing}), consumer {consumer}"
    );
    println!(
        "to three consumers: {sound} ({} bytes), VP8 with NACK {video}",
        sound * LINE
    );
    println!(
        "sizes: transport {}, producer {}, stream {}, consumer {}",
        size_of::<Transport>(),
        size_of::<Producer>(),
        size_of::<Stream>(),
        size_of::<Consumer>()
    );
    assert!(sound <= MOST.0 && video <= MOST.1, "{sound} and {video} lines");
    assert_eq!(lines(&Consumer::HOT), 3);
}

/// Else lines counted from an object's beginning are not those of the memory.
#[test]
fn objects_begin_lines() {
    let alignments = [
        align_of::<Option<Transport>>(),
        align_of::<Option<Producer>>(),
        align_of::<Stream>(),
        align_of::<Option<Consumer>>(),
        align_of::<Withheld>(),
    ];
    assert_eq!(alignments, [LINE; 5]);
    // Whether there is one is said inside.
    assert_eq!(size_of::<Option<Transport>>(), size_of::<Transport>());
    assert_eq!(size_of::<Option<Producer>>(), size_of::<Producer>());
    assert_eq!(size_of::<Option<Consumer>>(), size_of::<Consumer>());
}
