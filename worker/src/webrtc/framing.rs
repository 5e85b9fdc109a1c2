//! Packets in a TCP stream: a 16-bit length before each (RFC 4571 §2), as ICE-TCP has it (RFC 6544 §3).

pub mod outgoing;

use thiserror::Error;

/// The longest packet that a connection may carry, in bytes. Nothing that belongs on a WebRTC transport is longer than an
/// Ethernet frame; the margin above that is for senders with larger ones.
pub const FRAME_BYTES_MAX: usize = 4_096;

/// The length before each packet, in bytes.
pub const PREFIX_BYTES: usize = 2;

/// A frame announces more than [`FRAME_BYTES_MAX`]. The stream cannot be followed any further: close the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("a frame of {len} bytes; at most {FRAME_BYTES_MAX} are allowed")]
pub struct Oversize {
    /// The announced length, in bytes.
    pub len: u16,
}

/// What stands before a packet of `len` bytes in the stream; `None` if it is too long for a frame.
pub fn prefix(len: usize) -> Option<[u8; PREFIX_BYTES]> {
    u16::try_from(len).ok().map(u16::to_be_bytes)
}

/// Where the whole frames at the beginning of a stream end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// How many bytes they have.
    pub whole: usize,
    /// How many bytes there must be behind that for another one, as far as its beginning tells.
    pub wanted: usize,
}

/// Calls `take` with each packet at the beginning of a stream whose frame is whole. Empty packets mean nothing and are left out.
///
/// # Errors
/// [`Oversize`], after the packets before it.
pub fn each_whole(bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<Cut, Oversize> {
    let mut rest = bytes;
    while let Some((prefix, after)) = rest.split_first_chunk::<PREFIX_BYTES>() {
        let len = u16::from_be_bytes(*prefix);
        if usize::from(len) > FRAME_BYTES_MAX {
            return Err(Oversize { len });
        }
        let Some((packet, after)) = after.split_at_checked(usize::from(len)) else {
            return Ok(Cut {
                whole: bytes.len() - rest.len(),
                wanted: PREFIX_BYTES + usize::from(len),
            });
        };
        if !packet.is_empty() {
            take(packet);
        }
        rest = after;
    }
    Ok(Cut {
        whole: bytes.len() - rest.len(),
        wanted: PREFIX_BYTES,
    })
}

/// Cuts the bytes of one connection into packets, for those who do not leave what is not whole where it comes from.
///
/// Invariant: at most one incomplete frame is held, that is [`PREFIX_BYTES`] + [`FRAME_BYTES_MAX`] bytes. A packet that
/// lies whole in the bytes it came in is not copied.
#[derive(Default, Debug)]
pub struct Deframer {
    partial: Vec<u8>,
    oversize: Option<Oversize>,
}

impl Deframer {
    /// A deframer at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next `bytes` of the stream, cut anywhere, and calls `take` with every packet that is complete, in order.
    /// Empty packets mean nothing and are left out.
    ///
    /// # Errors
    ///
    /// [`Oversize`], after the packets before it; and again for everything that follows.
    pub fn feed(&mut self, mut bytes: &[u8], mut take: impl FnMut(&[u8])) -> Result<(), Oversize> {
        if let Some(oversize) = self.oversize {
            return Err(oversize);
        }
        while !bytes.is_empty() {
            if self.partial.is_empty()
                && let Some((packet, rest)) = self.whole(bytes)?
            {
                if !packet.is_empty() {
                    take(packet);
                }
                bytes = rest;
                continue;
            }
            // First the prefix, so that no more is kept than one frame.
            let held = self.partial.first_chunk::<PREFIX_BYTES>().copied();
            let wanted = match held {
                Some(prefix) => PREFIX_BYTES + self.checked(prefix)?,
                None => PREFIX_BYTES,
            };
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(taken);
            bytes = rest;
            match (held, self.partial.first_chunk::<PREFIX_BYTES>().copied()) {
                (None, Some(prefix)) if self.checked(prefix)? == 0 => self.partial.clear(),
                (Some(_), _) if self.partial.len() == wanted => {
                    take(&self.partial[PREFIX_BYTES..]);
                    self.partial.clear();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The first packet in `bytes` and what follows it, if all of it is there.
    fn whole<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<Split<'a>>, Oversize> {
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let len = self.checked(*prefix)?;
        Ok(rest.split_at_checked(len))
    }

    /// The length in a prefix.
    fn checked(&mut self, prefix: [u8; PREFIX_BYTES]) -> Result<usize, Oversize> {
        let len = u16::from_be_bytes(prefix);
        if usize::from(len) > FRAME_BYTES_MAX {
            let oversize = Oversize { len };
            self.oversize = Some(oversize);
            self.partial = Vec::new();
            return Err(oversize);
        }
        Ok(usize::from(len))
    }
}

/// A packet, and what follows it.
type Split<'a> = (&'a [u8], &'a [u8]);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn framed(packets: &[Vec<u8>]) -> Vec<u8> {
        packets
            .iter()
            .flat_map(|packet| {
                let mut frame = prefix(packet.len()).unwrap().to_vec();
                frame.extend_from_slice(packet);
                frame
            })
            .collect()
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let packets = [vec![1], vec![2; 300], vec![], vec![3; FRAME_BYTES_MAX], vec![4, 5]];
        let stream = framed(&packets);
        let expected: Vec<_> = packets.iter().filter(|packet| !packet.is_empty()).cloned().collect();
        for first in 0..=stream.len() {
            for second in [first, (first + 1).min(stream.len()), (first + 301).min(stream.len())] {
                let mut deframer = Deframer::new();
                let mut found = Vec::new();
                for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                    deframer.feed(part, |packet| found.push(packet.to_vec())).unwrap();
                }
                assert_eq!(found, expected, "cut at {first} and {second}");
                assert!(deframer.partial.is_empty());
            }
        }
    }

    /// Read as a worker does, which leaves what is not whole where it is.
    #[test]
    fn what_is_not_whole_is_left() {
        let packets = [vec![1], vec![2; 300], vec![], vec![3; FRAME_BYTES_MAX], vec![4, 5]];
        let stream = framed(&packets);
        let expected: Vec<_> = packets.iter().filter(|packet| !packet.is_empty()).cloned().collect();
        for part in 1..=stream.len() {
            let (mut found, mut consumed, mut arrived, mut wanted) = (Vec::new(), 0, 0, 1);
            while consumed < stream.len() {
                arrived = (arrived + part).min(stream.len());
                if arrived - consumed < wanted {
                    continue;
                }
                let cut = each_whole(&stream[consumed..arrived], |packet| found.push(packet.to_vec())).unwrap();
                assert!(
                    cut.whole > 0 || wanted == 1 || cut.wanted > wanted,
                    "it was worth the while"
                );
                consumed += cut.whole;
                wanted = cut.wanted;
            }
            assert_eq!(found, expected, "in parts of {part}");
        }
        let mut found = 0;
        let oversize = (FRAME_BYTES_MAX as u16 + 1).to_be_bytes();
        let bytes = [framed(&[vec![7; 9]]), oversize.to_vec()].concat();
        assert!(each_whole(&bytes, |_| found += 1).is_err());
        assert_eq!(found, 1);
    }

    #[test]
    fn oversize_ends_the_stream() {
        let mut stream = framed(&[vec![7; 9]]);
        stream.extend_from_slice(&(FRAME_BYTES_MAX as u16 + 1).to_be_bytes());
        let oversize = Oversize {
            len: FRAME_BYTES_MAX as u16 + 1,
        };
        for cut in 0..stream.len() {
            let mut deframer = Deframer::new();
            let mut found = 0;
            let first = deframer.feed(&stream[..cut], |_| found += 1);
            let second = deframer.feed(&stream[cut..], |_| found += 1);
            assert_eq!((first, second), (Ok(()), Err(oversize)), "cut at {cut}");
            assert_eq!(found, 1);
            assert_eq!(deframer.feed(&[0, 1, 2], |_| found += 1), Err(oversize));
            assert_eq!(found, 1);
        }
    }

    #[test]
    fn a_prefix_holds_sixteen_bits() {
        assert_eq!(prefix(0x1234), Some([0x12, 0x34]));
        assert_eq!(prefix(65_535), Some([255, 255]));
        assert_eq!(prefix(65_536), None);
    }

    proptest! {
        #[test]
        fn any_cuts_give_the_same_packets(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..12),
            cuts in prop::collection::vec(1_usize..50, 1..40),
        ) {
            let stream = framed(&packets);
            let mut deframer = Deframer::new();
            let mut found = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (part, after) = rest.split_at(rest.len().min(*cut));
                deframer.feed(part, |packet| found.push(packet.to_vec())).unwrap();
                prop_assert!(deframer.partial.len() <= PREFIX_BYTES + FRAME_BYTES_MAX);
                rest = after;
            }
            let expected: Vec<_> = packets.into_iter().filter(|packet| !packet.is_empty()).collect();
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn any_bytes_are_bounded(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..8)) {
            let mut deframer = Deframer::new();
            let fed: usize = parts.iter().map(Vec::len).sum();
            let mut told = 0;
            for part in &parts {
                // Whether it is a stream of frames does not matter.
                let _ = deframer.feed(part, |packet| told += packet.len());
                prop_assert!(deframer.partial.len() <= PREFIX_BYTES + FRAME_BYTES_MAX);
            }
            prop_assert!(told <= fed);
        }
    }
}
