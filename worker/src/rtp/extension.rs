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

/// The elements of a block, in their order. Padding is skipped. An element that runs past the block ends the walk, as
/// does id 15 in the one-byte form and id 0 with a length (RFC 8285 §4.2).
#[inline]
pub fn elements(bytes: &[u8], block: ExtensionBlock) -> Elements<'_> {
    let end = usize::from(block.start) + usize::from(block.len);
    Elements {
        // With the block cut off its end, no element can lie outside it.
        bytes: match block.form {
            Form::Unknown => &[],
            Form::OneByte | Form::TwoByte => bytes.get(..end).unwrap_or(&[]),
        },
        at: usize::from(block.start),
        form: block.form,
    }
}

/// The iterator of [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    bytes: &'a [u8],
    at: usize,
    form: Form,
}

impl Iterator for Elements<'_> {
    type Item = Element;

    #[inline]
    fn next(&mut self) -> Option<Element> {
        loop {
            let header = self.at;
            let first = *self.bytes.get(header)?;
            // RFC 8285 §4.1: a padding byte has neither id nor length; skip it.
            if first == 0 {
                self.at += 1;
                continue;
            }
            let (id, value, len) = match self.form {
                Form::OneByte => (first >> 4, header + 1, (first & 0x0f) + 1),
                Form::TwoByte | Form::Unknown => (first, header + 2, *self.bytes.get(header + 1)?),
            };
            self.at = value + usize::from(len);
            let reserved = self.form == Form::OneByte && matches!(id, 0 | 15);
            if reserved || self.at > self.bytes.len() {
                self.at = self.bytes.len();
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

impl FusedIterator for Elements<'_> {}

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
