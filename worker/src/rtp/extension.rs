//! RTP header extensions (RFC 8285): several small elements in one extension block, each under a local id.

use std::iter::FusedIterator;

/// Where the elements of a header extension lie in the packet: the bytes after the block's 4-byte header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtensionBlock {
    /// Offset of the first element, in bytes from the start of the packet.
    pub start: u16,
    /// How many bytes the elements and their padding take; a multiple of 4.
    pub len: u16,
    /// How elements are written.
    pub form: Form,
}

/// How the elements of a block are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RFC 8285 §4.2: ids 1 to 14, values of 1 to 16 bytes.
    OneByte,
    /// RFC 8285 §4.3: ids 1 to 255, values of 0 to 255 bytes.
    TwoByte,
    /// Not RFC 8285; one opaque value of RFC 3550 §5.3.1.
    Unknown,
}

impl Form {
    /// The form that the 16 bits "defined by profile" announce. RFC 8285 §4.3: the low four bits of the two-byte form
    /// belong to the application.
    #[inline]
    pub const fn of_profile(profile: u16) -> Self {
        match profile {
            0xbede => Self::OneByte,
            0x1000..=0x100f => Self::TwoByte,
            _ => Self::Unknown,
        }
    }
}

/// Where one element lies in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// The local id, as negotiated by this sender.
    pub id: u8,
    /// Offset of the element's header, in bytes from the start of the packet.
    pub header: u16,
    /// Offset of its value.
    pub value: u16,
    /// Length of its value, in bytes.
    pub len: u8,
}

impl Element {
    /// The value, out of the packet that was walked; empty if `bytes` is shorter than that.
    #[inline]
    pub fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.value);
        bytes.get(start..start + usize::from(self.len)).unwrap_or(&[])
    }
}

/// The elements of a block, in their order. Padding is skipped. An element that runs past the block ends the walk, and so
/// do, in the one-byte form, id 15 (RFC 8285 §4.2) and id 0 with a length (§4.1.2).
#[inline]
pub fn elements(bytes: &[u8], block: ExtensionBlock) -> Elements<'_> {
    Elements {
        bytes,
        walk: Walk::through(block),
    }
}

/// The iterator of [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    walk: Walk,
}

impl Iterator for Elements<'_> {
    type Item = Element;

    #[inline]
    fn next(&mut self) -> Option<Element> {
        self.walk.next(self.bytes)
    }
}

impl FusedIterator for Elements<'_> {}

/// A walk through the elements of a block that borrows the packet for one step at a time, so that [`rename`] and [`erase`]
/// may change each element it comes by. It ends where [`elements`] ends.
#[derive(Clone, Debug)]
pub struct Walk {
    at: usize,
    end: usize,
    form: Form,
}

impl Walk {
    /// Stands before the first element.
    #[inline]
    pub fn through(block: ExtensionBlock) -> Self {
        let start = usize::from(block.start);
        let len = match block.form {
            Form::OneByte | Form::TwoByte => usize::from(block.len),
            Form::Unknown => 0,
        };
        Self {
            at: start,
            end: start + len,
            form: block.form,
        }
    }

    /// The next element of the packet that the block belongs to; `None` at the end, and if `bytes` is shorter than that.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Option<Element> {
        // With what follows the block cut off, no element can lie outside it.
        let bytes = bytes.get(..self.end)?;
        loop {
            let header = self.at;
            let first = *bytes.get(header)?;
            // RFC 8285 §4.1.2: a padding byte has neither id nor length; skip it.
            if first == 0 {
                self.at += 1;
                continue;
            }
            let (id, value, len) = match self.form {
                Form::OneByte => (first >> 4, header + 1, (first & 0x0f) + 1),
                Form::TwoByte | Form::Unknown => (first, header + 2, bytes.get(header + 1).copied().unwrap_or(u8::MAX)),
            };
            self.at = value + usize::from(len);
            let reserved = self.form == Form::OneByte && matches!(id, 0 | 15);
            if reserved || self.at > bytes.len() {
                self.at = bytes.len();
                return None;
            }
            // Offsets are within a packet, whose length fits.
            return Some(Element {
                id,
                header: header as u16,
                value: value as u16,
                len,
            });
        }
    }
}

/// The values of a block by their ids. Of an id that stands there several times, the first counts.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    bytes: &'a [u8],
    /// Offset, never 0, and length.
    places: [(u16, u8); 256],
}

impl<'a> Values<'a> {
    /// Walks the block once.
    pub fn read(bytes: &'a [u8], block: ExtensionBlock) -> Self {
        let mut places = [(0, 0); 256];
        for element in elements(bytes, block) {
            let place = &mut places[usize::from(element.id)];
            if place.0 == 0 {
                *place = (element.value, element.len);
            }
        }
        Self { bytes, places }
    }

    /// The value under an id.
    pub fn get(&self, id: u8) -> Option<&'a [u8]> {
        let (start, len) = self.places[usize::from(id)];
        let start = usize::from(start);
        (start > 0).then(|| self.bytes.get(start..start + usize::from(len)))?
    }
}

/// Gives an element another id, in place. An id that the form cannot carry (0, and above 14 in the one-byte form) makes
/// it padding instead, as [`erase`] does.
#[inline]
pub fn rename(bytes: &mut [u8], form: Form, element: Element, id: u8) {
    let header = match (form, id) {
        (Form::OneByte, 1..=14) => id << 4 | (element.len.wrapping_sub(1) & 0x0f),
        (Form::TwoByte, 1..) => id,
        _ => return erase(bytes, element),
    };
    if let Some(byte) = bytes.get_mut(usize::from(element.header)) {
        *byte = header;
    }
}

/// Turns an element into padding, in place. The packet keeps its length.
#[inline]
pub fn erase(bytes: &mut [u8], element: Element) {
    let end = usize::from(element.value) + usize::from(element.len);
    if let Some(element) = bytes.get_mut(usize::from(element.header)..end) {
        element.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the block starts in the tests' packets.
    const START: usize = 16;

    fn walk(form: Form, block: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut packet = vec![0xee; START];
        packet.extend(block);
        let block = ExtensionBlock {
            start: START as u16,
            len: block.len() as u16,
            form,
        };
        // What follows the block is not an element.
        packet.extend([0x10, 0xee, 0xee, 0xee]);
        elements(&packet, block)
            .map(|element| (element.id, element.value(&packet).to_vec()))
            .collect()
    }

    #[test]
    fn what_ends_a_walk() {
        use Form::{OneByte, TwoByte, Unknown};
        type Row<'a> = (Form, &'a [u8], &'a [(u8, &'a [u8])]);
        let rows: &[Row] = &[
            (OneByte, &[], &[]),
            (OneByte, &[0, 0, 0, 0], &[]),
            (OneByte, &[0x10, 1, 0xe0, 2], &[(1, &[1]), (14, &[2])]),
            (OneByte, &[0, 0x11, 1, 2], &[(1, &[1, 2])]),
            // Id 15, with whatever length, and id 0 with a length.
            (OneByte, &[0x10, 1, 0xf0, 9, 0x20, 2, 0, 0], &[(1, &[1])]),
            (OneByte, &[0x10, 1, 0x01, 9, 0x20, 2, 0, 0], &[(1, &[1])]),
            // A value that would run past the block.
            (OneByte, &[0x10, 1, 0x21, 2], &[(1, &[1])]),
            (OneByte, &[0x10, 1, 0, 0x20], &[(1, &[1])]),
            (TwoByte, &[1, 0, 2, 1, 9, 0, 0, 0], &[(1, &[]), (2, &[9])]),
            // Id 15 is an id like others.
            (TwoByte, &[15, 1, 9, 0], &[(15, &[9])]),
            (TwoByte, &[1, 1, 9, 255], &[(1, &[9])]),
            (TwoByte, &[1, 1, 9, 0, 2, 3, 0, 0], &[(1, &[9])]),
            (Unknown, &[0x10, 1, 0x20, 2], &[]),
        ];
        for (form, block, expected) in rows {
            let expected: Vec<_> = expected.iter().map(|(id, value)| (*id, value.to_vec())).collect();
            assert_eq!(walk(*form, block), expected, "{form:?} {block:?}");
        }
    }

    #[test]
    fn a_block_of_other_bytes_has_no_elements() {
        let block = ExtensionBlock {
            start: 16,
            len: 4,
            form: Form::OneByte,
        };
        assert_eq!(elements(&[0x10; 19], block).count(), 0);
        assert_eq!(elements(&[], block).count(), 0);
    }

    #[test]
    fn a_new_id_keeps_the_length() {
        let rows: &[(Form, [u8; 4], u8, [u8; 4])] = &[
            (Form::OneByte, [0x12, 7, 8, 9], 14, [0xe2, 7, 8, 9]),
            (Form::OneByte, [0x12, 7, 8, 9], 15, [0; 4]),
            (Form::OneByte, [0x12, 7, 8, 9], 0, [0; 4]),
            (Form::TwoByte, [1, 2, 8, 9], 200, [200, 2, 8, 9]),
            (Form::TwoByte, [1, 2, 8, 9], 0, [0; 4]),
        ];
        for &(form, before, id, after) in rows {
            let mut bytes = before;
            let block = ExtensionBlock { start: 0, len: 4, form };
            let element = elements(&bytes, block).next().unwrap();
            rename(&mut bytes, form, element, id);
            assert_eq!(bytes, after, "{form:?} {before:?} to {id}");
        }
    }
}
