//! The sending side of one RTP stream: frames of a codec, as packets that know where they come from.
//!
//! Every payload ends in a [`Mark`], so that whoever receives a packet knows which one it was, whatever its header says.

use weir_channel::message::CodecName;

use super::random::Random;
use super::wire::{Elements, Form, Rtp};

/// What a payload says of itself in its last bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mark {
    /// Which [`Stream`].
    pub stream: u32,
    /// Its sequence number, without wrap-around.
    pub seq: u64,
    /// Its timestamp, without wrap-around.
    pub timestamp: u64,
    /// Which frame of its stream.
    pub frame: u32,
    /// A flow may start on it.
    pub key: bool,
    /// The first packet of its frame.
    pub first: bool,
    /// VP8's TL0PICIDX, without wrap-around.
    pub tl0: u64,
}

impl Mark {
    /// Bytes of a mark.
    pub const LEN: usize = 40;
    const MAGIC: [u8; 4] = *b"mark";

    fn write(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&Self::MAGIC);
        out[4..8].copy_from_slice(&self.stream.to_be_bytes());
        out[8..16].copy_from_slice(&self.seq.to_be_bytes());
        out[16..24].copy_from_slice(&self.timestamp.to_be_bytes());
        out[24..32].copy_from_slice(&self.tl0.to_be_bytes());
        out[32..36].copy_from_slice(&self.frame.to_be_bytes());
        out[36] = u8::from(self.key);
        out[37] = u8::from(self.first);
        out[39] = out[..39].iter().fold(0x5a, |sum, byte| sum.rotate_left(1) ^ byte);
        out
    }

    /// The mark of a payload; `None` if it has none or it was damaged.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let mark: &[u8; Self::LEN] = payload.last_chunk()?;
        let word = |at: usize| u32::from_be_bytes([mark[at], mark[at + 1], mark[at + 2], mark[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let read = Self {
            stream: word(4),
            seq: long(8),
            timestamp: long(16),
            tl0: long(24),
            frame: word(32),
            key: mark[36] != 0,
            first: mark[37] != 0,
        };
        (read.write() == *mark).then_some(read)
    }
}

/// A packet on its way to the relay.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub mark: Mark,
}

/// Where a stream's header fields stand. Public, because tests move them: close to a wrap, or somewhere else altogether.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Its number in [`Mark::stream`].
    pub number: u32,
    pub codec: CodecName,
    pub payload_type: u8,
    pub ssrc: u32,
    /// Of the next packet.
    pub seq: u64,
    /// Of the next frame.
    pub timestamp: u64,
    /// What a frame adds to the timestamp.
    pub step: u64,
    /// Of the next frame (VP8, VP9); VP8 writes it with 15 bits, with 7, or not at all, or as `WIDENING` says.
    pub picture_id: u64,
    pub picture_id_bits: u32,
    /// Of the newest frame of the lowest temporal layer (VP8).
    pub tl0: u64,
    /// Frames so far.
    pub frame: u32,
    pub form: Form,
    /// Header extensions of every packet.
    pub extensions: Elements,
    /// Payload bytes of a full packet.
    pub payload_len: usize,
}

/// Picture ids below 128 have 7 bits, all others 15.
pub const WIDENING: u32 = 22;
/// The same, but 0 is left out.
pub const WIDENING_FROM_NONE: u32 = 23;

impl Stream {
    pub fn new(number: u32, codec: CodecName, payload_type: u8, ssrc: u32, random: &mut Random) -> Self {
        Self {
            number,
            codec,
            payload_type,
            ssrc,
            // Anywhere, but far enough from zero that what a test takes away never wraps.
            seq: (1 << 32) + random.below(1 << 16) as u64,
            timestamp: (1 << 40) + random.below(1 << 32) as u64,
            step: match codec {
                CodecName::Opus => 960,
                CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => 160,
                CodecName::OtherAudio => 1_024,
                CodecName::AudioCompanion => 960,
                _ => 3_000,
            },
            picture_id: random.below(1 << 15) as u64,
            picture_id_bits: 15,
            tl0: random.below(1 << 8) as u64,
            frame: 0,
            form: Form::OneByte,
            extensions: Vec::new(),
            payload_len: 100,
        }
    }

    /// An audio frame.
    pub fn sound(&mut self) -> Packet {
        self.frame_of(1, false).remove(0)
    }

    /// A key frame in `packets` packets.
    pub fn key_frame(&mut self, packets: usize) -> Vec<Packet> {
        self.frame_of(packets, true)
    }

    /// Another frame in `packets` packets.
    pub fn delta_frame(&mut self, packets: usize) -> Vec<Packet> {
        self.frame_of(packets, false)
    }

    /// `frames` frames of one packet each, the first of them a key frame.
    pub fn frames(&mut self, frames: usize) -> Vec<Packet> {
        (0..frames).flat_map(|index| self.frame_of(1, index == 0)).collect()
    }

    /// A frame; all packets but the last are full, the last is as long or shorter.
    pub fn frame_of(&mut self, packets: usize, key: bool) -> Vec<Packet> {
        // Every second frame is of the upper temporal layer.
        let temporal = u8::from(!key && self.frame % 2 == 1);
        if temporal == 0 {
            self.tl0 += 1;
        }
        let frame: Vec<_> = (0..packets)
            .map(|index| {
                let last = index + 1 == packets;
                let shorter = if last && packets > 1 {
                    self.frame as usize % 7
                } else {
                    0
                };
                let mark = Mark {
                    stream: self.number,
                    seq: self.seq,
                    timestamp: self.timestamp,
                    frame: self.frame,
                    key: self.can_start_on(index, key),
                    first: index == 0,
                    tl0: self.tl0,
                };
                let payload = self.payload(&mark, index, last, (key, temporal), self.payload_len - shorter);
                let packet = Rtp {
                    marker: last,
                    payload_type: self.payload_type,
                    seq: self.seq as u16,
                    timestamp: self.timestamp as u32,
                    ssrc: self.ssrc,
                    csrcs: Vec::new(),
                    extensions: (!self.extensions.is_empty()).then(|| (self.form, self.extensions.clone())),
                    payload,
                    padding: 0,
                };
                self.seq += 1;
                Packet {
                    bytes: packet.write(),
                    mark,
                }
            })
            .collect();
        self.timestamp += self.step;
        self.picture_id += 1;
        self.frame += 1;
        frame
    }

    fn can_start_on(&self, index: usize, key: bool) -> bool {
        match self.codec {
            CodecName::Opus | CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => true,
            CodecName::OtherAudio | CodecName::OtherVideo | CodecName::AudioCompanion => true,
            CodecName::VideoCompanion => false,
            // H.264 and H.265: parameter sets in the first packet, the picture's first slice in the second.
            CodecName::H264 | CodecName::H265 | CodecName::Vp8 | CodecName::Vp9 | CodecName::Av1 => key && index == 0,
        }
    }

    /// A payload of `len` bytes (or as many as it needs): a descriptor, filler that is all its own, and the mark.
    fn payload(&self, mark: &Mark, index: usize, last: bool, kind: (bool, u8), len: usize) -> Vec<u8> {
        let mut out = self.descriptor(index, last, kind);
        let mut filler = Random::new(u64::from(mark.stream) << 32 ^ mark.seq);
        while out.len() + Mark::LEN < len {
            out.push(filler.next() as u8);
        }
        out.extend(mark.write());
        out
    }

    fn descriptor(&self, index: usize, last: bool, (key, temporal): (bool, u8)) -> Vec<u8> {
        let first = index == 0;
        match self.codec {
            CodecName::Opus => vec![0x78],
            CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => vec![0xd5],
            // What reads as the start of a key frame elsewhere, or as none.
            CodecName::OtherAudio | CodecName::OtherVideo | CodecName::AudioCompanion | CodecName::VideoCompanion => {
                vec![if key { 0x65 } else { 0x41 }]
            }
            CodecName::Vp8 => {
                // X, and S in the frame's first packet; then I, L and T.
                let mut out = vec![0x80 | u8::from(first) << 4, 0xe0];
                let bits = match (self.picture_id_bits, self.picture_id & 0x7fff) {
                    (WIDENING_FROM_NONE, 0) => 0,
                    (WIDENING | WIDENING_FROM_NONE, 0..128) => 7,
                    (WIDENING | WIDENING_FROM_NONE, _) => 15,
                    (bits, _) => bits,
                };
                match bits {
                    15 => out.extend((0x8000 | self.picture_id as u16).to_be_bytes()),
                    7 => out.push(self.picture_id as u8 & 0x7f),
                    _ => out[1] &= !0x80,
                }
                out.push(self.tl0 as u8);
                out.push(temporal << 6);
                if first {
                    out.extend(if key {
                        // The uncompressed data chunk of RFC 6386 §9.1: frame tag, start code, 160x90.
                        vec![0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 160, 0, 90, 0]
                    } else {
                        vec![0x31, 0x02, 0x00]
                    });
                }
                out
            }
            CodecName::Vp9 => {
                // |I|P|L|F|B|E|V|Z|, not flexible, with layer indices (none above the lowest), so TL0PICIDX follows.
                let flags = 0x80 | u8::from(!key) << 6 | 0x20 | u8::from(first) << 3 | u8::from(last) << 2;
                let mut out = vec![flags];
                out.extend((0x8000 | self.picture_id as u16 & 0x7fff).to_be_bytes());
                out.extend([0, self.tl0 as u8]);
                // Frame marker 2, profile 0, show_existing_frame 0, frame_type (0: key), show_frame 1.
                out.push(if key { 0x82 } else { 0x86 });
                out
            }
            CodecName::H264 => match (key, index) {
                // STAP-A of an SPS, a PPS and an IDR slice, macroblock 0 first; the mark is in the slice.
                (true, 0) if last => {
                    let mut out = vec![0x78, 0, 4, 0x67, 0x42, 0xc0, 0x1f, 0, 2, 0x68, 0xce];
                    out.extend((self.payload_len as u16 - 13).to_be_bytes());
                    out.extend([0x65, 0x88]);
                    out
                }
                // STAP-A of an SPS and a PPS; the mark is in the PPS.
                (true, 0) => {
                    let mut out = vec![0x78, 0, 4, 0x67, 0x42, 0xc0, 0x1f];
                    out.extend((self.payload_len as u16 - 9).to_be_bytes());
                    out.push(0x68);
                    out
                }
                // FU-A of an IDR slice, macroblock 0 first.
                (true, _) => vec![0x7c, u8::from(index == 1) << 7 | u8::from(last) << 6 | 5, 0x88],
                (false, _) => vec![0x41, 0x9a],
            },
            CodecName::H265 => match (key, index) {
                // An aggregation packet of an SPS and an IDR_W_RADL slice, first in its picture.
                (true, 0) if last => {
                    let mut out = vec![0x60, 0x01, 0, 3, 0x42, 0x01, 0x01];
                    out.extend((self.payload_len as u16 - 9).to_be_bytes());
                    out.extend([0x26, 0x01, 0x80]);
                    out
                }
                (true, 0) => vec![0x42, 0x01, 0x01],
                // Fragments of an IDR_W_RADL slice, first in its picture.
                (true, _) => vec![0x62, 0x01, u8::from(index == 1) << 7 | u8::from(last) << 6 | 19, 0x80],
                (false, _) => vec![0x02, 0x01, 0xd0],
            },
            CodecName::Av1 => match (key, first) {
                // N, one element: a sequence header.
                (true, true) => vec![0x18, 0x08],
                // Z: goes on.
                (true, false) => vec![0x90],
                (false, _) => vec![0x10, 0x30],
            },
        }
    }
}
