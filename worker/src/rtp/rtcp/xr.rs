//! Extended reports (RFC 3611), as much of them as measures the round trip to a sender that receives nothing: a receiver's
//! reference time, and how long ago it came.

use super::super::packet::Malformed;
use super::{RtcpItem, be32, be64};

/// The packet type (RFC 3611 §2).
pub(super) const PACKET_TYPE: u8 = 207;

/// RFC 3611 §4.4.
const REFERENCE_TIME: u8 = 4;

/// RFC 3611 §4.5.
const DELAYS: u8 = 5;

const HEADER_LEN: usize = 8;
const BLOCK_HEADER_LEN: usize = 4;

/// How many bytes [`write_reference_time`] writes.
pub const REFERENCE_TIME_LEN: usize = HEADER_LEN + BLOCK_HEADER_LEN + 8;

/// The most that one [`write_delays`] can say.
pub const DELAYS_MAX: usize = 8;

/// How many bytes [`write_delays`] writes for `count` delays.
pub const fn delays_len(count: usize) -> usize {
    HEADER_LEN + BLOCK_HEADER_LEN + 12 * count
}

/// How long ago somebody's reference time came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delay {
    /// The SSRC that it is about.
    pub ssrc: u32,
    /// The middle 32 bits of its NTP time.
    pub reference: u32,
    /// The time since, in 1/65536 seconds.
    pub since: u32,
}

/// Writes a receiver's reference time, and returns the packet's length; 0 if `out` is shorter than that.
pub fn write_reference_time(out: &mut [u8], sender_ssrc: u32, ntp: u64) -> usize {
    let Some(out) = out.first_chunk_mut::<REFERENCE_TIME_LEN>() else {
        return 0;
    };
    out[..4].copy_from_slice(&[0x80, PACKET_TYPE, 0, 4]);
    out[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
    out[8..12].copy_from_slice(&[REFERENCE_TIME, 0, 0, 2]);
    out[12..20].copy_from_slice(&ntp.to_be_bytes());
    REFERENCE_TIME_LEN
}

/// Writes how long ago reference times came, at most [`DELAYS_MAX`] of them, and returns the packet's length; 0 if `out`
/// is shorter than that, or there is nothing to say.
pub fn write_delays(out: &mut [u8], sender_ssrc: u32, delays: &[Delay]) -> usize {
    let delays = &delays[..delays.len().min(DELAYS_MAX)];
    let len = delays_len(delays.len());
    if delays.is_empty() || out.len() < len {
        return 0;
    }
    let words = 3 * delays.len() as u8;
    out[..4].copy_from_slice(&[0x80, PACKET_TYPE, 0, words + 2]);
    out[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
    out[8..12].copy_from_slice(&[DELAYS, 0, 0, words]);
    for (delay, out) in delays.iter().zip(out[12..len].as_chunks_mut::<12>().0) {
        out[..4].copy_from_slice(&delay.ssrc.to_be_bytes());
        out[4..8].copy_from_slice(&delay.reference.to_be_bytes());
        out[8..12].copy_from_slice(&delay.since.to_be_bytes());
    }
    len
}

/// Reads the blocks of an extended report. Blocks of other types are skipped (RFC 3611 §3).
pub(super) fn parse(packet: &[u8], each: &mut impl FnMut(RtcpItem)) -> Result<(), Malformed> {
    let Some(sender) = be32(packet, 4) else {
        return Err(Malformed::TooShort);
    };
    let mut rest = &packet[HEADER_LEN..];
    while !rest.is_empty() {
        let Some(&[kind, _, words_high, words_low]) = rest.first_chunk() else {
            return Err(Malformed::TooShort);
        };
        let len = 4 * usize::from(u16::from_be_bytes([words_high, words_low]));
        let (block, after) = rest[BLOCK_HEADER_LEN..]
            .split_at_checked(len)
            .ok_or(Malformed::TooShort)?;
        rest = after;
        match kind {
            REFERENCE_TIME => {
                // A longer block is of a later version of the format.
                let ntp = be64(block, 0).ok_or(Malformed::TooShort)?;
                each(RtcpItem::ReferenceTime { ssrc: sender, ntp });
            }
            DELAYS => {
                for delay in block.as_chunks::<12>().0 {
                    let word = |at| be32(delay, at).unwrap_or_default();
                    each(RtcpItem::DelaySinceReference {
                        sender,
                        delay: Delay {
                            ssrc: word(0),
                            reference: word(4),
                            since: word(8),
                        },
                    });
                }
            }
            _ => {}
        }
    }
    Ok(())
}
