//! The receiver's estimate of what it can take (REMB, draft-alvestrand-rmcat-remb-03 §2): an application's feedback
//! message with the letters `REMB`, a bitrate as a mantissa of 18 bits and an exponent of 6, and the streams it is about.

/// The most streams that one packet names: what fits beside a report. (The format has room for 255.)
pub const SSRCS_MAX: usize = 200;

const FORMAT: u8 = 15;
const PREFIX_LEN: usize = 20;
const NAME: [u8; 4] = *b"REMB";

/// How many bytes [`write_remb`] writes for `ssrcs` streams.
pub const fn remb_len(ssrcs: usize) -> usize {
    PREFIX_LEN + 4 * ssrcs
}

/// Writes an estimate for the first [`SSRCS_MAX`] of `ssrcs`, alone, and returns the packet's length; 0 if `out` is
/// shorter than that. A bitrate that the format cannot say exactly is rounded down.
pub fn write_remb(out: &mut [u8], sender_ssrc: u32, bitrate_bps: u64, ssrcs: &[u32]) -> usize {
    let ssrcs = &ssrcs[..ssrcs.len().min(SSRCS_MAX)];
    let len = remb_len(ssrcs.len());
    if out.len() < len {
        return 0;
    }
    let words = (len / 4 - 1) as u8; // 204 at most
    out[..4].copy_from_slice(&[0x80 | FORMAT, 206, 0, words]);
    out[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
    out[8..12].fill(0);
    out[12..16].copy_from_slice(&NAME);
    let exponent = (64 - bitrate_bps.leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate_bps >> exponent) as u32;
    let number = (ssrcs.len() as u32) << 24 | exponent << 18 | mantissa;
    out[16..20].copy_from_slice(&number.to_be_bytes());
    for (ssrc, out) in ssrcs.iter().zip(out[PREFIX_LEN..len].as_chunks_mut::<4>().0) {
        *out = ssrc.to_be_bytes();
    }
    len
}

/// The bitrate of a payload-specific feedback packet of this kind, from its feedback control information (what follows
/// the media SSRC); `None` if it is of another. What is more than 64 bits can say is as much as they can.
pub(super) fn bitrate_of(format: u8, information: &[u8]) -> Option<u64> {
    let &[r, e, m, b, count, first, second, third] = information.first_chunk()?;
    if format != FORMAT || [r, e, m, b] != NAME || information.len() < 8 + 4 * usize::from(count) {
        return None;
    }
    let mantissa = u64::from(u32::from_be_bytes([0, first & 3, second, third]));
    let exponent = u32::from(first >> 2);
    let fits = mantissa == 0 || exponent <= mantissa.leading_zeros();
    Some(if fits { mantissa << exponent.min(63) } else { u64::MAX })
}
