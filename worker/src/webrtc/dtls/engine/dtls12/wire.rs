//! Bytes as TLS lays them out (RFC 5246 §4): numbers in network order, and vectors with their length in front.

use crate::webrtc::dtls::failure::Failure;

/// DTLS 1.2 on the wire.
pub(super) const DTLS_1_2: [u8; 2] = [0xfe, 0xfd];

/// Reads from the front of a slice. What is not there is [`Failure::Protocol`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rest must be nothing.
    pub(super) fn end(&self) -> Result<(), Failure> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Failure::Protocol)
        }
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Failure::Protocol)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, len: usize) -> Result<usize, Failure> {
        Ok(self
            .take(len)?
            .iter()
            .fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    pub(super) fn u8(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, Failure> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A vector whose length is a number of `width` bytes.
    pub(super) fn vector(&mut self, width: usize) -> Result<&'a [u8], Failure> {
        let len = self.number(width)?;
        self.take(len)
    }

    /// A vector of numbers of 16 bits, with a length of 16 bits.
    pub(super) fn numbers(&mut self) -> Result<Vec<u16>, Failure> {
        let bytes = self.vector(2)?;
        if bytes.len() % 2 != 0 {
            return Err(Failure::Protocol);
        }
        Ok(bytes
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect())
    }
}

/// Appends what is written by `write`, with its length in `width` bytes in front. What we write is short enough.
pub(super) fn put_vector(out: &mut Vec<u8>, width: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.resize(at + width, 0);
    write(out);
    let len = (out.len() - at - width).to_be_bytes();
    out[at..at + width].copy_from_slice(&len[len.len() - width..]);
}

/// Appends numbers of 16 bits.
pub(super) fn put_numbers(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u16>) {
    for number in numbers {
        out.extend_from_slice(&number.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Vec::new();
        put_vector(&mut out, 3, |out| {
            put_vector(out, 1, |out| out.extend_from_slice(b"abc"))
        });
        put_vector(&mut out, 2, |out| put_numbers(out, [1, 0xfefd]));
        assert_eq!(out, [0, 0, 4, 3, b'a', b'b', b'c', 0, 4, 0, 1, 0xfe, 0xfd]);
        let mut reader = Reader::new(&out);
        let mut inner = Reader::new(reader.vector(3).unwrap());
        assert_eq!(inner.vector(1), Ok(&b"abc"[..]));
        assert_eq!(inner.end(), Ok(()));
        assert_eq!(reader.numbers(), Ok(vec![1, 0xfefd]));
        assert!(reader.is_empty());
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        assert_eq!(Reader::new(&[0, 0, 4, 1]).vector(3), Err(Failure::Protocol));
        assert_eq!(Reader::new(&[0, 3, 1, 2, 3]).numbers(), Err(Failure::Protocol));
        assert_eq!(Reader::new(&[1]).u16(), Err(Failure::Protocol));
        assert_eq!(Reader::new(&[]).u8(), Err(Failure::Protocol));
        assert_eq!(Reader::new(&[1]).end(), Err(Failure::Protocol));
    }
}
