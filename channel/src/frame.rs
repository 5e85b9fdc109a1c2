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

/// The longest body, in bytes. Answers that could be longer are paged.
pub const MAX_FRAME: usize = 1 << 20;

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
    /// The length of the body that the prefix gave, once refused.
    refused: Option<usize>,
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
        if let Some(len) = self.refused {
            return Err(FrameError::TooLong { len });
        }
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
            self.refused = Some(len);
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
