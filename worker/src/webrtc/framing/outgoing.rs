//! What waits to be written to a TCP stream, and how a successor goes on in the middle of a frame.
//!
//! The kernel takes any number of bytes. Of a worker that is dead it knows how many it has taken in all
//! (`tcpi_bytes_acked`, and what its queue holds), and the page knows at which byte of the stream which frame began: that is stored
//! before each write. So what is missing of the frame that was begun is known exactly, whenever the worker has died. Its bytes
//! are not: the successor [fills](Outgoing::resume) it up. All that a peer takes from a connection is authenticated, so that costs the one
//! packet, as if it was lost. The whole frames that waited behind it are lost in any case.

use std::collections::VecDeque;

use thiserror::Error;

use super::{PREFIX_BYTES, prefix};
use crate::page::layout::connection::{RUNS, StreamOut};

/// Frames of equal length in a row that are noted at a time. More are written with the next call of the kernel.
pub const RUNS_MAX: usize = RUNS;

/// The longest frame that a prefix can announce, with the prefix.
const FRAME_MAX: u32 = PREFIX_BYTES as u32 + u16::MAX as u32;

/// Frames of equal length in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Run {
    /// The length of each, with its prefix; 0: there are none.
    pub bytes: u32,
    /// How many there are.
    pub count: u32,
}

impl Run {
    fn total(self) -> u64 {
        u64::from(self.bytes) * u64::from(self.count)
    }
}

/// The frames that the kernel is about to be given, as a successor is told of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// The byte of the stream at which the first of them begins. The kernel may have taken a part of it before.
    pub begins_at: u64,
    /// What they are.
    pub runs: [Run; RUNS_MAX],
}

/// A stream stands where it cannot, by what is known of its frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("byte {written} of its connection is in no frame that was left")]
pub struct Astray {
    /// How many bytes the kernel has taken.
    pub written: u64,
}

/// A frame of which the kernel has taken a part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Begun {
    /// How much of it.
    pub taken: u32,
    /// Its length, with its prefix.
    pub bytes: u32,
}

impl Position {
    /// The frame that was begun, if the kernel has taken so many bytes of the stream; `None`: it stands between two.
    ///
    /// # Errors
    /// [`Astray`].
    pub fn begun(&self, written: u64) -> Result<Option<Begun>, Astray> {
        let astray = Astray { written };
        let mut into = written.checked_sub(self.begins_at).ok_or(astray)?;
        for run in self.runs {
            let total = run.total();
            if into < total {
                let bytes = run.bytes;
                let taken = (into % u64::from(bytes)) as u32;
                return match bytes {
                    _ if taken == 0 => Ok(None),
                    0..=FRAME_MAX => Ok(Some(Begun { taken, bytes })),
                    _ => Err(astray),
                };
            }
            into -= total;
        }
        if into == 0 { Ok(None) } else { Err(astray) }
    }
}

impl From<StreamOut> for Position {
    fn from(kept: StreamOut) -> Self {
        Self {
            begins_at: kept.begins_at,
            runs: kept.runs.map(|[bytes, count]| Run { bytes, count }),
        }
    }
}

impl From<Position> for StreamOut {
    fn from(position: Position) -> Self {
        Self {
            begins_at: position.begins_at,
            runs: position.runs.map(|run| [run.bytes, run.count]),
        }
    }
}

/// What waits for a connection.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Framed, from `written` on.
    bytes: Vec<u8>,
    written: usize,
    /// The frames that the kernel has not taken wholly, and of the first of them, how much it has taken.
    runs: VecDeque<Run>,
    begun: u32,
    /// The byte of the stream at which the first of them begins.
    begins_at: u64,
}

impl Outgoing {
    /// Nothing waits, and nothing was written.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a stream of which another worker has written so many bytes: what is missing of the frame that it had begun.
    ///
    /// # Errors
    /// [`Astray`].
    pub fn resume(left: &Position, written: u64) -> Result<Self, Astray> {
        let mut outgoing = Self {
            begins_at: written,
            ..Self::default()
        };
        if let Some(Begun { taken, bytes }) = left.begun(written)? {
            outgoing.begins_at -= u64::from(taken);
            outgoing.begun = taken;
            outgoing.runs.push_back(Run { bytes, count: 1 });
            // What the frame announces stays true.
            let announced = prefix(bytes as usize - PREFIX_BYTES).unwrap_or_default();
            outgoing.bytes.extend_from_slice(&announced);
            outgoing.bytes.resize(bytes as usize, 0);
            outgoing.bytes.drain(..taken as usize);
        }
        Ok(outgoing)
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends a packet, if no more than `bytes_max` wait then; whether it was.
    pub fn push(&mut self, packet: &[u8], bytes_max: usize) -> bool {
        let Some(prefix) = prefix(packet.len()) else {
            return false;
        };
        let frame = prefix.len() + packet.len();
        if self.len() + frame > bytes_max {
            return false;
        }
        self.bytes.extend_from_slice(&prefix);
        self.bytes.extend_from_slice(packet);
        let bytes = frame as u32; // a prefix says no more than 65,535
        match self.runs.back_mut() {
            Some(last) if last.bytes == bytes => last.count += 1,
            _ => self.runs.push_back(Run { bytes, count: 1 }),
        }
        true
    }

    /// Where the stream stands: what a successor must know before the kernel is given [`Outgoing::next`].
    pub fn position(&self) -> Position {
        let mut runs = [Run::default(); RUNS_MAX];
        for (noted, run) in runs.iter_mut().zip(&self.runs) {
            *noted = *run;
        }
        Position {
            begins_at: self.begins_at,
            runs,
        }
    }

    /// What to write next.
    pub fn next(&self) -> &[u8] {
        let frames: u64 = self.runs.iter().take(RUNS_MAX).map(|run| run.total()).sum();
        let len = (frames - u64::from(self.begun.min(frames as u32))) as usize;
        let waiting = &self.bytes[self.written..];
        &waiting[..len.min(waiting.len())]
    }

    /// The kernel has taken so much of [`Outgoing::next`].
    pub fn wrote(&mut self, bytes: usize) {
        self.written += bytes;
        let mut into = u64::from(self.begun) + bytes as u64;
        while let Some(run) = self.runs.front_mut() {
            let whole = (into / u64::from(run.bytes.max(1))).min(u64::from(run.count));
            let past = whole * u64::from(run.bytes);
            self.begins_at += past;
            into -= past;
            run.count -= whole as u32;
            if run.count > 0 {
                break;
            }
            self.runs.pop_front();
        }
        self.begun = into as u32;
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= self.bytes.len() / 2 {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
    }

    /// Forgets what waits: nobody will take it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use proptest::prelude::*;

    use super::*;
    use crate::webrtc::framing::each_whole;

    /// A stream, as its peer has it, and what was noted of it last.
    #[derive(Default)]
    struct Stream {
        taken: Vec<u8>,
        noted: Position,
    }

    impl Stream {
        /// The kernel takes `room` bytes at most, in one call; whether it took all that it was given.
        fn write(&mut self, outgoing: &mut Outgoing, room: usize) -> bool {
            self.noted = outgoing.position();
            let next = outgoing.next();
            let taken = next.len().min(room);
            self.taken.extend_from_slice(&next[..taken]);
            let all = taken == next.len();
            outgoing.wrote(taken);
            all
        }

        fn written(&self) -> u64 {
            self.taken.len() as u64
        }

        /// The packets that the peer finds. The stream must end with one.
        fn packets(&self) -> Vec<Vec<u8>> {
            let mut packets = Vec::new();
            let cut = each_whole(&self.taken, |packet| packets.push(packet.to_vec())).unwrap();
            assert_eq!(cut.whole, self.taken.len(), "the stream ends in a frame");
            packets
        }
    }

    fn missing(noted: &Position, written: u64) -> usize {
        let begun = noted.begun(written).unwrap();
        begun.map_or(0, |begun| (begun.bytes - begun.taken) as usize)
    }

    const BYTES_MAX: usize = 1 << 20;

    fn packets(lens: &[usize]) -> Vec<Vec<u8>> {
        (1..).zip(lens).map(|(number, len)| vec![number; *len]).collect()
    }

    /// A worker dies when the kernel has taken so many bytes, before or after it has noted that, and its successor goes on.
    #[test]
    fn a_worker_may_die_after_each_byte() {
        let packets = packets(&[1, 1, 5, 300, 300, 300, 7, 300, 2, 3, 4, 5, 6, 7, 8, 9, 1]);
        let whole: usize = packets.iter().map(|packet| 2 + packet.len()).sum();
        for dies_at in 0..=whole {
            for calls in [1, 2, 3] {
                let (mut outgoing, mut stream) = (Outgoing::new(), Stream::default());
                for packet in &packets {
                    assert!(outgoing.push(packet, BYTES_MAX));
                }
                stream.noted = outgoing.position();
                let part = dies_at.div_ceil(calls).max(1);
                while stream.taken.len() < dies_at {
                    let room = part.min(dies_at - stream.taken.len());
                    stream.write(&mut outgoing, room);
                }
                // The successor, which dies in turn in the middle of what it fills up.
                let mut successor = Outgoing::resume(&stream.noted, stream.written()).unwrap();
                let missing = successor.len();
                stream.write(&mut successor, missing / 2);
                let mut third = Outgoing::resume(&stream.noted, stream.written()).unwrap();
                assert_eq!(third.len(), missing - missing / 2);
                assert!(third.push(b"on", BYTES_MAX));
                while !third.is_empty() {
                    stream.write(&mut third, usize::MAX);
                }
                let arrived = stream.packets();
                let (last, before) = arrived.split_last().unwrap();
                assert_eq!(last, b"on", "{dies_at}");
                let intact = before.len() - usize::from(missing > 0);
                assert_eq!(before[..intact], packets[..intact], "{dies_at}");
                if missing > 0 {
                    assert_eq!(before[intact].len(), packets[intact].len(), "one packet is another one");
                }
            }
        }
    }

    #[test]
    fn what_is_noted_before_a_write_also_holds_when_the_kernel_takes_nothing() {
        let mut outgoing = Outgoing::new();
        let mut stream = Stream::default();
        for packet in packets(&[10; 30]) {
            assert!(outgoing.push(&packet, BYTES_MAX));
            stream.write(&mut outgoing, 7);
            stream.write(&mut outgoing, 0);
            let missing = missing(&stream.noted, stream.written());
            assert_eq!((stream.taken.len() + missing) % 12, 0);
        }
    }

    #[test]
    fn a_stream_that_is_somewhere_else_is_found_out() {
        let mut outgoing = Outgoing::new();
        assert!(outgoing.push(&[0; 98], BYTES_MAX));
        let position = outgoing.position();
        let begun = |taken| Ok(Some(Begun { taken, bytes: 100 }));
        assert_eq!(position.begun(0), Ok(None));
        assert_eq!(position.begun(1), begun(1));
        assert_eq!(position.begun(99), begun(99));
        assert_eq!(position.begun(100), Ok(None));
        assert_eq!(position.begun(101), Err(Astray { written: 101 }));
        outgoing.wrote(100);
        assert_eq!(outgoing.position().begun(99), Err(Astray { written: 99 }));
        // Whatever a worker has written there that has gone astray.
        let scribbled = Position {
            begins_at: 3,
            runs: [Run {
                bytes: u32::MAX,
                count: u32::MAX,
            }; RUNS_MAX],
        };
        assert!(scribbled.begun(u64::MAX).is_err());
        let none = Position {
            begins_at: 0,
            runs: [Run { bytes: 0, count: 9 }; RUNS_MAX],
        };
        assert_eq!(none.begun(1), Err(Astray { written: 1 }));
    }

    #[test]
    fn no_more_waits_than_may() {
        let mut outgoing = Outgoing::new();
        assert!(outgoing.push(&[0; 98], 100));
        assert!(!outgoing.push(&[0; 1], 100));
        assert!(!outgoing.push(&[0; 1 << 16], BYTES_MAX), "longer than a frame can be");
        outgoing.wrote(50);
        assert!(outgoing.push(&[0; 48], 100));
        assert_eq!((outgoing.len(), outgoing.next().len()), (100, 100));
    }

    proptest! {
        /// Whatever is written when, in whatever parts: the peer gets what was pushed, and at each moment a successor would know what
        /// is missing.
        #[test]
        fn streams_come_whole(steps in proptest::collection::vec((0_usize..1_500, prop_oneof![1 => Just(0), 8 => 1_usize..4_000]), 1..60)) {
            let (mut outgoing, mut stream, mut pushed) = (Outgoing::new(), Stream::default(), Vec::new());
            for (number, (len, room)) in (0_u8..).zip(steps) {
                let packet = vec![number; len + 1];
                if outgoing.push(&packet, 20_000) {
                    pushed.push(packet);
                }
                stream.write(&mut outgoing, room);
                // Where no frame is begun: at the beginning, and where each ends.
                let mut ends = iter::once(0).chain(pushed.iter().scan(0, |end, packet| {
                    *end += 2 + packet.len();
                    Some(*end)
                }));
                let end = ends.find(|end| *end >= stream.taken.len()).unwrap();
                let missing = missing(&stream.noted, stream.written());
                prop_assert_eq!(missing, end - stream.taken.len());
            }
            while !outgoing.is_empty() {
                stream.write(&mut outgoing, usize::MAX);
            }
            prop_assert_eq!(stream.packets(), pushed);
        }
    }
}
