//! Frames: a `u32` little-endian length, then that many bytes of one encoded message. No socket in here.
//!
//! ```text
//!  0        4                      4 + length
//!  +--------+----------------------+--------
//!  | length | body                 | next frame
//!  +--------+----------------------+--------
//! ```
//!
//! [`Decoder`] serves both ends: fed slices cut anywhere, it yields whole bodies, and says at which offsets of the stream
//! they began and ended, so that file descriptors find the frame they came with ([`crate::descriptors::Arrivals`]).

use crate::codec::{self, CodecError};
use crate::message::Message;

/// The longest body, in bytes.
pub const MAX_FRAME: usize = codec::MESSAGE_BYTES_MAX;

/// The length prefix, in bytes.
pub const PREFIX: usize = 4;

/// A decoder that has reassembled a body longer than this gives the memory back before the next one.
const KEPT_CAPACITY: usize = 64 << 10;

/// Why a frame was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The body is, or claims to be, longer than [`MAX_FRAME`].
    #[error("a frame of {len} bytes; at most {MAX_FRAME} are allowed")]
    TooLong {
        /// Length of the body.
        len: usize,
    },
    /// The body could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Encodes a message as a whole frame, prefix included.
///
/// # Errors
/// [`FrameError::TooLong`] when the body would be longer than [`MAX_FRAME`].
pub fn encode(message: &Message) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::with_capacity(64); // most commands and answers fit
    frame.extend_from_slice(&[0; PREFIX]);
    codec::encode(message, &mut frame)?;
    let len = frame.len() - PREFIX;
    match u32::try_from(len) {
        Ok(prefix) if len <= MAX_FRAME => {
            frame[..PREFIX].copy_from_slice(&prefix.to_le_bytes());
            Ok(frame)
        }
        _ => Err(FrameError::TooLong { len }),
    }
}

/// One frame, as it was found in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame<'a> {
    /// Offset in the stream of the first byte of the length prefix.
    pub start: u64,
    /// Offset in the stream of the byte after the body.
    pub end: u64,
    /// The encoded message.
    pub body: &'a [u8],
}

/// Finds the frames in a stream of bytes.
///
/// Holds at most one incomplete frame: [`MAX_FRAME`] bytes. A body that lies whole in the slice it came in is not copied.
/// After an error the stream has no meaning any more; every later call returns the same error.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The prefix, as far as it has come.
    prefix: [u8; PREFIX],
    prefix_len: usize,
    /// The body as far as it has come, when it came in pieces.
    partial: Vec<u8>,
    /// Bytes of the stream consumed.
    offset: u64,
}

impl Decoder {
    /// A decoder at offset 0 of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes of the stream have been consumed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Consumes `input` up to the end of the next frame and returns that frame; `None` when all of `input` is consumed and
    /// the frame is not complete.
    ///
    /// # Errors
    /// [`FrameError::TooLong`], before anything is allocated for the body.
    pub fn next_frame<'a, 'input: 'a>(&'a mut self, input: &mut &'input [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        if self.prefix_len < PREFIX {
            if self.prefix_len == 0 {
                self.partial.clear();
                if self.partial.capacity() > KEPT_CAPACITY {
                    self.partial = Vec::new();
                }
            }
            let taken = take(input, PREFIX - self.prefix_len);
            self.prefix[self.prefix_len..self.prefix_len + taken.len()].copy_from_slice(taken);
            self.prefix_len += taken.len();
            self.offset += taken.len() as u64;
            if self.prefix_len < PREFIX {
                return Ok(None);
            }
        }
        let len = u32::from_le_bytes(self.prefix) as usize;
        if len > MAX_FRAME {
            // The prefix stays, so every later call comes to the same end.
            return Err(FrameError::TooLong { len });
        }
        let taken = take(input, len - self.partial.len());
        self.offset += taken.len() as u64;
        let body = if taken.len() == len {
            taken
        } else {
            // At most MAX_FRAME, as checked above; memory that the bytes never reach is never touched.
            self.partial.reserve_exact(len - self.partial.len());
            self.partial.extend_from_slice(taken);
            if self.partial.len() < len {
                return Ok(None);
            }
            &self.partial
        };
        self.prefix_len = 0;
        Ok(Some(Frame {
            start: self.offset - (PREFIX + len) as u64,
            end: self.offset,
            body,
        }))
    }

    /// What is missing, when the stream stands inside a frame: (bytes of the frame that have come, bytes that it has, as
    /// far as its prefix tells).
    pub fn incomplete(&self) -> Option<(usize, usize)> {
        match self.prefix_len {
            0 => None,
            PREFIX => {
                let len = u32::from_le_bytes(self.prefix) as usize;
                Some((PREFIX + self.partial.len(), PREFIX + len))
            }
            have => Some((have, PREFIX)),
        }
    }
}

/// Splits up to `count` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(count.min(input.len()));
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame with any body.
    fn frame_of(body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32).to_le_bytes(), body].concat()
    }

    /// The frames that a decoder finds when the stream comes in these pieces: (start, end, body).
    fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<(u64, u64, Vec<u8>)>, FrameError> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = decoder.next_frame(&mut piece)? {
                found.push((frame.start, frame.end, frame.body.to_vec()));
            }
            assert!(piece.is_empty(), "a decoder that wants more has consumed all");
        }
        assert_eq!(decoder.incomplete(), None, "the stream ends between two frames");
        Ok(found)
    }

    #[test]
    fn every_split_of_a_short_stream() {
        // 17 bytes have 2^16 splits: bit i of `split` cuts behind byte i.
        let stream = [frame_of(b"abc"), frame_of(b""), frame_of(b"de")].concat();
        assert_eq!(stream.len(), 17);
        let expected = vec![(0, 7, b"abc".to_vec()), (7, 11, b"".to_vec()), (11, 17, b"de".to_vec())];
        for split in 0..1_u32 << 16 {
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in (0..16).filter(|bit| split >> bit & 1 == 1) {
                let (piece, after) = rest.split_at(cut + 1 - (stream.len() - rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            assert_eq!(decode(pieces).as_ref(), Ok(&expected), "split {split:016b}");
        }
    }

    #[test]
    fn a_stream_cut_at_every_byte_says_what_is_missing() {
        let stream = [frame_of(b"hello"), frame_of(&[7; 300])].concat();
        for cut in 0..=stream.len() {
            let mut decoder = Decoder::new();
            let mut input = &stream[..cut];
            let mut frames = 0;
            while decoder.next_frame(&mut input).expect("valid").is_some() {
                frames += 1;
            }
            let (ended, expected) = match cut {
                0 => (0, None),
                1..4 => (0, Some((cut, PREFIX))),
                4..9 => (0, Some((cut, 9))),
                9 => (1, None),
                10..13 => (1, Some((cut - 9, PREFIX))),
                13..313 => (1, Some((cut - 9, 304))),
                _ => (2, None),
            };
            assert_eq!((frames, decoder.incomplete()), (ended, expected), "cut at {cut}");
        }
    }

    #[test]
    fn oversize_is_refused_before_memory_is_taken() {
        for len in [MAX_FRAME as u32 + 1, u32::MAX] {
            let mut decoder = Decoder::new();
            let stream = [&len.to_le_bytes()[..], &[0; 100]].concat();
            let mut input = &stream[..];
            let refused = Err(FrameError::TooLong { len: len as usize });
            assert_eq!(decoder.next_frame(&mut input), refused);
            assert_eq!(decoder.partial.capacity(), 0);
            // The stream has lost its meaning for good.
            assert_eq!(decoder.next_frame(&mut &frame_of(b"fine")[..]), refused);
        }
        let longest = frame_of(&vec![1; MAX_FRAME]);
        assert_eq!(decode([&longest[..]]).map(|frames| frames.len()), Ok(1));
    }

    #[test]
    fn memory_of_a_long_frame_is_given_back() {
        let mut decoder = Decoder::new();
        let long = frame_of(&vec![1; MAX_FRAME]);
        for piece in long.chunks(1000) {
            let _ = decoder.next_frame(&mut &piece[..]).expect("valid");
            assert!(decoder.partial.capacity() <= MAX_FRAME, "no more than the frame needs");
        }
        let _ = decoder.next_frame(&mut &frame_of(b"short")[..]).expect("valid");
        assert!(decoder.partial.capacity() <= KEPT_CAPACITY);
    }

    #[test]
    fn a_message_too_long_is_not_encoded() {
        use crate::message::{LogFilter, Method, Request};
        let message = |len| {
            Message::Request(Request {
                id: crate::id::RequestId(1),
                deadline: crate::message::Deadline(0),
                method: Method::SetLogFilter(LogFilter {
                    directives: "x".repeat(len),
                }),
            })
        };
        let overhead = 4 + 5; // variant, id, deadline, variant; a length above 65,535
        let longest = encode(&message(MAX_FRAME - overhead)).expect("fits");
        assert_eq!(longest.len(), PREFIX + MAX_FRAME);
        assert_eq!(
            encode(&message(MAX_FRAME - overhead + 1)),
            Err(FrameError::TooLong { len: MAX_FRAME + 1 })
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_split_of_any_stream(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..12),
            cuts in prop::collection::vec(1_usize..200, 1..40),
        ) {
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame_of(body)).collect();
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                pieces.push(take(&mut rest, *cut));
            }
            let found = decode(pieces).expect("valid");
            let mut offset = 0;
            for (body, (start, end, found)) in bodies.iter().zip(&found) {
                prop_assert_eq!((*start, *end), (offset, offset + (PREFIX + body.len()) as u64));
                prop_assert_eq!(body, found);
                offset = *end;
            }
            prop_assert_eq!(bodies.len(), found.len());
        }
    }
}
