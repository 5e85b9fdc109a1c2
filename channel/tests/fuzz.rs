//! The bodies of the channel's fuzz targets. They are here so that they keep compiling, and so that ordinary tests run them too;
//! `fuzz/fuzz_targets` takes this file by its path.

#[cfg(test)]
#[allow(dead_code, reason = "each test program uses a part of it")]
#[path = "common/messages.rs"]
mod messages;

use weir_channel::codec;
use weir_channel::frame::{self, Decoder, MAX_FRAME};

/// Any bytes, cut anywhere: the decoder finds the same frames as when it gets them in one piece.
///
/// The first byte decides how the rest is cut.
pub(crate) fn decoder(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let (mut whole, mut split) = (Decoder::new(), Decoder::new());
    let mut frames = Vec::new();
    let mut input = stream;
    let outcome = loop {
        match whole.next_frame(&mut input) {
            Ok(Some(frame)) => {
                assert!(frame.body.len() <= MAX_FRAME);
                assert_eq!(frame.end - frame.start, (frame::PREFIX + frame.body.len()) as u64);
                assert_eq!(
                    &stream[frame.start as usize + frame::PREFIX..frame.end as usize],
                    frame.body
                );
                frames.push((frame.start, frame.end));
            }
            other => break other.map(|frame| frame.is_some()),
        }
    };
    let mut found = frames.iter();
    let step = usize::from(cut).max(1);
    let mut end = None;
    'pieces: for mut piece in stream.chunks(step) {
        loop {
            match split.next_frame(&mut piece) {
                Ok(Some(frame)) => assert_eq!(Some(&(frame.start, frame.end)), found.next()),
                Ok(None) => break,
                Err(error) => {
                    end = Some(error);
                    break 'pieces;
                }
            }
        }
    }
    assert_eq!(found.next(), None);
    assert_eq!(outcome.err(), end);
    assert_eq!(whole.incomplete(), split.incomplete());
}

/// Any bytes: they are a message, or an error. What is a message stays the same message when it is encoded and decoded.
pub(crate) fn message(data: &[u8]) {
    let _ = codec::decode_first(data);
    let Ok(message) = codec::decode(data) else { return };
    let mut encoded = Vec::new();
    codec::encode(&message, &mut encoded).expect("what was decoded can be encoded");
    assert!(encoded.len() <= data.len(), "the encoding is the shortest one");
    assert_eq!(codec::decode(&encoded).as_ref(), Ok(&message));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decoder_inputs() {
        for data in [
            &b""[..],
            b"\x01",
            b"\x01\x00\x00\x00\x00",
            b"\x03\x02\x00\x00\x00ab\x01\x00\x00\x00c\x05\x00\x00\x00",
            b"\x02\x01\x00\x10\x00rest",
            b"\x04\xff\xff\xff\xff\xff\xff",
        ] {
            decoder(data);
        }
    }

    #[test]
    fn message_inputs() {
        for data in [
            &b""[..],
            b"\x00\x01\x050.1.0\x03\x04", // a Hello
            b"\x00\x09\x050.1.0\x03\x04and more",
            b"\x01\x01\x02\x00",         // a Ping
            b"\x01\xfb\x01\x00\x02\x00", // with an id longer than need be
            b"\x01\x01\x02\xfa",
            b"\x03\x02\x00\xfd\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            message(data);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn garbage_never_panics(data in prop::collection::vec(any::<u8>(), 0..300)) {
            decoder(&data);
        }

        #[test]
        fn flipped_bytes_never_panic(
            original in messages::any_message(),
            at in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut bytes = Vec::new();
            codec::encode(&original, &mut bytes).expect("every message can be encoded");
            let at = at.index(bytes.len());
            bytes[at] = byte;
            message(&bytes);
        }
    }
}
