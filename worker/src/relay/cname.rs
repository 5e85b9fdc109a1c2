//! The names that senders give themselves (RFC 3550 §6.5.1).
//!
//! A receiver ties sound and picture together by the canonical name in their source descriptions (RFC 3550 §7.2 has a mixer
//! or translator pass it on). Who makes a producer may give that name; nobody has to, and then the sender's own counts.

use std::borrow::Cow;

/// The longest name (RFC 3550 §6.5).
const BYTES_MAX: usize = 255;

/// Names that one compound packet is believed to say; one source description has at most so many. More are passed over, as
/// each new one costs something.
pub(super) const NAMES_MAX: usize = 31;

/// A name as it can be passed on: UTF-8 (RFC 3550 §6.5), without what would end a line or a string elsewhere, and no longer
/// than an item.
pub(super) fn presentable(name: &[u8]) -> Cow<'_, str> {
    let name = String::from_utf8_lossy(name);
    let is_fit = |text: &str| text.len() <= BYTES_MAX && !text.contains(char::is_control);
    if is_fit(&name) {
        return name;
    }
    let mut fit: String = name
        .chars()
        .map(|char| {
            if char.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                char
            }
        })
        .collect();
    let fits = (0..=BYTES_MAX.min(fit.len()))
        .rev()
        .find(|len| fit.is_char_boundary(*len));
    fit.truncate(fits.unwrap_or(0));
    Cow::Owned(fit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3550_6_5_a_name_is_utf8_of_255_bytes_at_most() {
        for name in ["x", "anna@192.0.2.1", "Zoë", &"y".repeat(255)] {
            assert!(matches!(presentable(name.as_bytes()), Cow::Borrowed(same) if same == name));
        }
        assert_eq!(presentable(b""), "");
        assert_eq!(presentable(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(presentable(b"a\r\nb\0\x7f"), "a\u{fffd}\u{fffd}b\u{fffd}\u{fffd}");
        for hostile in [[0xff; 255], [0; 255], [b'\n'; 255]] {
            let name = presentable(&hostile);
            assert_eq!(name.len(), 255);
            assert!(name.chars().all(|char| char == char::REPLACEMENT_CHARACTER));
        }
        let mut cut = [b'x'; 255];
        cut[254] = 0xc3; // the first half of a letter
        assert_eq!(presentable(&cut).len(), 254);
    }
}
