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

    /// Read as a worker does, which leaves what is not whole where it is.
    #[test]
    fn what_is_not_whole_is_left_wherever_a_stream_is_cut() {
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
    }

    #[test]
    fn a_frame_that_is_too_long_ends_the_stream() {
        let mut found = 0;
        let oversize = (FRAME_BYTES_MAX as u16 + 1).to_be_bytes();
        let bytes = [framed(&[vec![7; 9]]), oversize.to_vec()].concat();
        assert!(each_whole(&bytes, |_| found += 1).is_err());
        assert_eq!(found, 1);
    }

    #[test]
    fn a_prefix_holds_sixteen_bits() {
        assert_eq!(prefix(0x1234), Some([0x12, 0x34]));
        assert_eq!(prefix(65_535), Some([255, 255]));
        assert_eq!(prefix(65_536), None);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_within_bounds(stream in prop::collection::vec(any::<u8>(), 0..5_000)) {
            let mut told = 0;
            let cut = each_whole(&stream, |packet| told += PREFIX_BYTES + packet.len());
            if let Ok(Cut { whole, wanted }) = cut {
                prop_assert!(told <= whole && whole <= stream.len());
                prop_assert!(wanted <= PREFIX_BYTES + FRAME_BYTES_MAX);
                // What is left is no whole frame.
                prop_assert!(stream.len() - whole < wanted);
            }
        }
    }
}
