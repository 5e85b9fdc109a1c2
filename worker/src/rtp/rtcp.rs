//! RTCP: what the relay reads out of compound packets, and the key frame requests it writes.

pub mod compound;
pub mod remb;
pub mod twcc;
pub mod xr;

use rtcp_types::prelude::*;
use rtcp_types::{Bye, Fir, PayloadFeedback, ReceiverReport, SenderReport, TransportFeedback};

use super::packet::Malformed;

/// One item of an RTCP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtcpItem {
    /// A picture loss indication (RFC 4585 §6.3.1): the receiver asks for a key frame.
    Pli {
        /// The stream that is asked for.
        media_ssrc: u32,
    },
    /// A full intra request (RFC 5104 §4.3.1): the receiver asks for a key frame.
    Fir {
        /// The stream that is asked for. It stands in the entry; the media SSRC of the common header means nothing here.
        ssrc: u32,
        /// Counts commands; a repeated one has the same number.
        seq: u8,
    },
    /// Packets that a receiver misses (RFC 4585 §6.2.1).
    Nack {
        /// The stream that packets are missing of.
        media_ssrc: u32,
        /// The first missing sequence number.
        pid: u16,
        /// Bit `i`: `pid + i + 1` is missing too.
        blp: u16,
        /// Whether this is the first pair of its packet.
        first: bool,
    },
    /// The sender's part of a sender report (RFC 3550 §6.4.1).
    SenderReport {
        /// The reporting sender.
        ssrc: u32,
        /// Wall clock in 32.32 fixed point seconds since 1900.
        ntp: u64,
        /// The same instant on the media clock.
        rtp: u32,
        /// Packets sent.
        packets: u32,
        /// Payload bytes sent.
        octets: u32,
    },
    /// One report block, of a receiver report or a sender report.
    ReceiverReport {
        /// The reporting receiver.
        ssrc: u32,
        /// The report block.
        block: ReportBlock,
    },
    /// The bitrate that a receiver can take in all (REMB).
    Remb {
        /// The bitrate in bits per second.
        bps: u64,
    },
    /// A receiver's reference time, with which it measures the round trip (RFC 3611 §4.4).
    ReferenceTime {
        /// The SSRC of the receiver.
        ssrc: u32,
        /// Its wall clock in 32.32 fixed point seconds since 1900.
        ntp: u64,
    },
    /// The answer to a reference time (RFC 3611 §4.5).
    DelaySinceReference {
        /// The SSRC that answers.
        sender: u32,
        /// The reference time that is answered, and how long ago it came.
        delay: xr::Delay,
    },
    /// A source leaves (RFC 3550 §6.6).
    Bye {
        /// The source.
        ssrc: u32,
    },
    /// A source's canonical name (RFC 3550 §6.5.1), by its place in the compound packet.
    Cname {
        /// The source.
        ssrc: u32,
        /// The first byte of the name.
        at: u16,
        /// How many bytes it has.
        len: u8,
    },
    /// A packet of another type or format.
    Other,
}

/// A report block: how a receiver gets one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlock {
    /// The source.
    pub ssrc: u32,
    /// Packets lost since the previous report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning; negative when duplicates outnumber losses. 24 bits travel.
    pub packets_lost: i32,
    /// The highest sequence number received, with the count of its cycles in the upper 16 bits.
    pub highest_seq: u32,
    /// Interarrival jitter, in timestamp units.
    pub jitter: u32,
    /// The middle 32 bits of the NTP time of the last sender report; 0: none yet.
    pub last_sender_report: u32,
    /// The time since that report arrived, in 1/65536 seconds.
    pub delay_since_last_sender_report: u32,
}

impl ReportBlock {
    fn of(block: rtcp_types::ReportBlock<'_>) -> Self {
        Self {
            ssrc: block.ssrc(),
            fraction_lost: block.fraction_lost(),
            // A signed number of 24 bits, two's complement.
            packets_lost: (block.cumulative_lost() << 8).cast_signed() >> 8,
            highest_seq: block.extended_sequence_number(),
            jitter: block.interarrival_jitter(),
            last_sender_report: block.last_sender_report_timestamp(),
            delay_since_last_sender_report: block.delay_since_last_sender_report_timestamp(),
        }
    }

    /// As it is written. RFC 3550 appendix A.3: a loss that 24 bits cannot say is the most, or the least, that they can.
    pub fn to_bytes(self) -> [u8; 24] {
        let lost = self.packets_lost.clamp(-0x80_0000, 0x7f_ffff).cast_unsigned() & 0xff_ffff;
        let words = [
            self.ssrc,
            u32::from(self.fraction_lost) << 24 | lost,
            self.highest_seq,
            self.jitter,
            self.last_sender_report,
            self.delay_since_last_sender_report,
        ];
        let mut bytes = [0; 24];
        for (word, out) in words.into_iter().zip(bytes.as_chunks_mut::<4>().0) {
            *out = word.to_be_bytes();
        }
        bytes
    }
}

/// Calls `each` with the items of a compound packet, in their order. Reduced-size packets (RFC 5506) are compound packets too.
///
/// # Errors
///
/// The lengths, versions and paddings of all packets are checked before `each` is called. A packet whose body does not
/// fit its own length ends the reading.
pub fn parse(compound: &[u8], mut each: impl FnMut(RtcpItem)) -> Result<(), Malformed> {
    if compound.is_empty() {
        return Err(Malformed::TooShort);
    }
    let mut rest = compound;
    while !rest.is_empty() {
        (_, rest) = Frame::split(rest)?;
    }
    let mut rest = compound;
    while !rest.is_empty() {
        let frame;
        let at = compound.len() - rest.len();
        (frame, rest) = Frame::split(rest)?;
        frame.parse(at, &mut each)?;
    }
    Ok(())
}

/// One packet of a compound.
struct Frame<'a> {
    /// The packet with its padding, which `rtcp_types` expects and does not take off.
    bytes: &'a [u8],
    /// How long it is without.
    len: usize,
}

impl<'a> Frame<'a> {
    /// Takes the first packet off. RFC 3550 §6.4.1 and appendix A.2.
    fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Malformed> {
        let Some(&[first, _, words_high, words_low]) = bytes.first_chunk() else {
            return Err(Malformed::TooShort);
        };
        if first >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let len = 4 * (usize::from(u16::from_be_bytes([words_high, words_low])) + 1);
        let (bytes, rest) = bytes.split_at_checked(len).ok_or(Malformed::TooShort)?;
        let mut frame = Self { bytes, len };
        if first & 0x20 != 0 {
            // Padding may stand on the last packet only, and keeps the length a multiple of four.
            let padding = usize::from(bytes[len - 1]);
            if !rest.is_empty() || padding == 0 || padding % 4 != 0 || padding > len - 4 {
                return Err(Malformed::Padding);
            }
            frame.len -= padding;
        }
        Ok((frame, rest))
    }

    /// `at`: where it stands in the compound packet.
    fn parse(&self, at: usize, each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
        match self.bytes[1] {
            SenderReport::PACKET_TYPE => self.parse_sender_report(each),
            ReceiverReport::PACKET_TYPE => self.parse_receiver_report(each),
            Bye::PACKET_TYPE => self.parse_bye(each),
            rtcp_types::Sdes::PACKET_TYPE => {
                self.parse_names(at, each);
                Ok(())
            }
            TransportFeedback::PACKET_TYPE => self.parse_transport_feedback(each),
            PayloadFeedback::PACKET_TYPE => self.parse_payload_feedback(each),
            xr::PACKET_TYPE => xr::parse(&self.bytes[..self.len], each),
            _ => {
                each(RtcpItem::Other);
                Ok(())
            }
        }
    }

    /// `rtcp_types` counts padding as content, so whether the content fits without it is checked here.
    fn body<P: RtcpPacketParser<'a>>(&self, item_len: usize) -> Result<P, Malformed> {
        let items = usize::from(self.bytes[0] & 0x1f);
        if self.len < P::MIN_PACKET_LEN + items * item_len {
            return Err(Malformed::TooShort);
        }
        P::parse(self.bytes).map_err(|_| Malformed::TooShort)
    }

    fn parse_sender_report(&self, each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
        let report: SenderReport = self.body(rtcp_types::ReportBlock::EXPECTED_SIZE)?;
        let ssrc = report.ssrc();
        each(RtcpItem::SenderReport {
            ssrc,
            ntp: report.ntp_timestamp(),
            rtp: report.rtp_timestamp(),
            packets: report.packet_count(),
            octets: report.octet_count(),
        });
        for block in report.report_blocks() {
            let block = ReportBlock::of(block);
            each(RtcpItem::ReceiverReport { ssrc, block });
        }
        Ok(())
    }

    fn parse_receiver_report(&self, each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
        let report: ReceiverReport = self.body(rtcp_types::ReportBlock::EXPECTED_SIZE)?;
        for block in report.report_blocks() {
            each(RtcpItem::ReceiverReport {
                ssrc: report.ssrc(),
                block: ReportBlock::of(block),
            });
        }
        Ok(())
    }

    fn parse_bye(&self, each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
        let bye: Bye = self.body(4)?;
        for ssrc in bye.ssrcs() {
            each(RtcpItem::Bye { ssrc });
        }
        Ok(())
    }

    /// Chunks, each an SSRC and items up to a zero, filled up to a word (RFC 3550 §6.5). Where they make no sense they end:
    /// what else the compound packet says does not depend on them.
    fn parse_names(&self, at: usize, each: &mut impl FnMut(RtcpItem)) {
        let bytes = &self.bytes[..self.len];
        let mut next = 4;
        for _ in 0..bytes[0] & 0x1f {
            let Some(ssrc) = be32(bytes, next) else { return };
            let mut name = None;
            next += 4;
            while let Some(kind) = bytes.get(next).copied().filter(|kind| *kind != 0) {
                let Some(len) = bytes.get(next + 1).copied() else {
                    return;
                };
                let text = next + 2;
                next = text + usize::from(len);
                if next > bytes.len() {
                    return;
                }
                if kind == rtcp_types::SdesItem::CNAME {
                    name.get_or_insert((at + text, len));
                }
            }
            next = (next + 1).next_multiple_of(4);
            if let Some((at, len)) = name
                && let Ok(at) = u16::try_from(at)
            {
                each(RtcpItem::Cname { ssrc, at, len });
            }
        }
    }

    fn parse_transport_feedback(&self, each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
        let feedback: TransportFeedback = self.body(0)?;
        if feedback.count() != rtcp_types::Nack::FCI_FORMAT {
            each(RtcpItem::Other);
            return Ok(());
        }
        // `rtcp_types::Nack` unfolds the bit masks, which retransmission wants whole.
        let (pairs, []) = self.bytes[TransportFeedback::MIN_PACKET_LEN..self.len].as_chunks::<4>() else {
            return Err(Malformed::TooShort);
        };
        for (index, &[pid_high, pid_low, blp_high, blp_low]) in pairs.iter().enumerate() {
            each(RtcpItem::Nack {
                media_ssrc: feedback.media_ssrc(),
                pid: u16::from_be_bytes([pid_high, pid_low]),
                blp: u16::from_be_bytes([blp_high, blp_low]),
                first: index == 0,
            });
        }
        Ok(())
    }

    fn parse_payload_feedback(&self, each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
        let feedback: PayloadFeedback = self.body(0)?;
        match feedback.count() {
            rtcp_types::Pli::FCI_FORMAT => each(RtcpItem::Pli {
                media_ssrc: feedback.media_ssrc(),
            }),
            Fir::FCI_FORMAT => {
                let entries = &self.bytes[PayloadFeedback::MIN_PACKET_LEN..self.len];
                let fir = Fir::parse(entries).map_err(|_| Malformed::TooShort)?;
                for entry in fir.entries() {
                    each(RtcpItem::Fir {
                        ssrc: entry.ssrc(),
                        seq: entry.sequence(),
                    });
                }
            }
            format => {
                let information = &self.bytes[PayloadFeedback::MIN_PACKET_LEN..self.len];
                each(remb::bitrate_of(format, information).map_or(RtcpItem::Other, |bps| RtcpItem::Remb { bps }));
            }
        }
        Ok(())
    }
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_be_bytes)
}

/// How many bytes [`write_pli`] writes.
pub const PLI_LEN: usize = PREFIX_LEN + 12;

/// How many bytes [`write_fir`] writes.
pub const FIR_LEN: usize = PREFIX_LEN + 20;

/// An empty receiver report and a source description with a CNAME: a compound packet with feedback begins so (RFC 3550
/// §6.1, RFC 4585 §3.1), and only a session that has negotiated reduced-size RTCP may leave it out (RFC 5506).
pub(super) const PREFIX_LEN: usize = 8 + 24;

/// Writes a picture loss indication for `media_ssrc` (RFC 4585 §6.3.1) as a compound packet, and returns its length,
/// [`PLI_LEN`]; 0 if `out` is shorter than that.
pub fn write_pli(out: &mut [u8], sender_ssrc: u32, media_ssrc: u32) -> usize {
    let Some(out) = out.first_chunk_mut::<PLI_LEN>() else {
        return 0;
    };
    let (prefix, pli) = out.split_at_mut(PREFIX_LEN);
    write_prefix(prefix, sender_ssrc);
    pli[..4].copy_from_slice(&[0x81, PayloadFeedback::PACKET_TYPE, 0, 2]);
    pli[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
    pli[8..12].copy_from_slice(&media_ssrc.to_be_bytes());
    PLI_LEN
}

/// Writes a full intra request for `media_ssrc` (RFC 5104 §4.3.1) as a compound packet, and returns its length,
/// [`FIR_LEN`]; 0 if `out` is shorter than that. `seq` grows by one with each new request, and stays for a repetition.
pub fn write_fir(out: &mut [u8], sender_ssrc: u32, media_ssrc: u32, seq: u8) -> usize {
    let Some(out) = out.first_chunk_mut::<FIR_LEN>() else {
        return 0;
    };
    let (prefix, fir) = out.split_at_mut(PREFIX_LEN);
    write_prefix(prefix, sender_ssrc);
    fir[..4].copy_from_slice(&[0x84, PayloadFeedback::PACKET_TYPE, 0, 4]);
    fir[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
    // RFC 5104 §4.3.1.2: the media SSRC of the common header is not used and shall be 0.
    fir[8..12].fill(0);
    fir[12..16].copy_from_slice(&media_ssrc.to_be_bytes());
    fir[16..20].copy_from_slice(&[seq, 0, 0, 0]);
    FIR_LEN
}

/// What of a compound packet that this module has written is left for somebody who takes reduced-size RTCP (RFC 5506):
/// the feedback, without the report and the source description in front of it.
pub fn reduced_size(compound: &[u8]) -> &[u8] {
    compound.get(PREFIX_LEN..).unwrap_or_default()
}

/// The canonical name of an SSRC that has no media: one that only reports has no streams that a name could tie together,
/// so the SSRC itself is enough.
pub fn reporter_cname(ssrc: u32) -> [u8; 13] {
    let mut cname = *b"weir-00000000";
    for (nibble, digit) in cname[5..].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(ssrc >> (28 - 4 * nibble) & 0x0f) as usize];
    }
    cname
}

pub(super) fn write_prefix(out: &mut [u8], sender_ssrc: u32) {
    let ssrc = sender_ssrc.to_be_bytes();
    out[..4].copy_from_slice(&[0x80, ReceiverReport::PACKET_TYPE, 0, 1]);
    out[4..8].copy_from_slice(&ssrc);
    out[8..12].copy_from_slice(&[0x81, rtcp_types::Sdes::PACKET_TYPE, 0, 5]);
    out[12..16].copy_from_slice(&ssrc);
    out[16..18].copy_from_slice(&[rtcp_types::SdesItem::CNAME, 13]);
    out[18..31].copy_from_slice(&reporter_cname(sender_ssrc));
    // The null item that ends the chunk.
    out[31] = 0;
}
