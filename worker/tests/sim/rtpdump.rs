//! The recorded packets of `tests/media`, for tests that want real ones.

use weir_channel::message::CodecName;

/// A recorded stream: its codec and the file (rtpdump, as `tests/media/README.md` says).
pub const RECORDINGS: [(CodecName, &[u8]); 6] = [
    (CodecName::Opus, include_bytes!("../../../tests/media/opus.rtpdump")),
    (CodecName::Vp8, include_bytes!("../../../tests/media/low.rtpdump")),
    (CodecName::Vp8, include_bytes!("../../../tests/media/medium.rtpdump")),
    (CodecName::Vp8, include_bytes!("../../../tests/media/high.rtpdump")),
    (CodecName::Vp9, include_bytes!("../../../tests/media/vp9.rtpdump")),
    (CodecName::H264, include_bytes!("../../../tests/media/h264.rtpdump")),
];

/// The packets of a file. It begins with a line of text and 16 bytes; every record has 8 bytes before its packet: its
/// length with them, the packet's original length, and the time.
pub fn packets(file: &[u8]) -> Vec<Vec<u8>> {
    let line = file.iter().position(|byte| *byte == b'\n').expect("a line of text");
    let mut rest = &file[line + 1 + 16..];
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        packets.push(rest[8..len].to_vec());
        rest = &rest[len..];
    }
    packets
}
