//! What goes to the peer: packets are protected on their way into its buffer, each index once.
//!
//! # Trains
//!
//! A consumer's packets leave as one GSO message: packets of equal size laid end to end, of which only the last may be
//! shorter. SRTP adds the same number of bytes to each, so a protected train is a train again:
//!
//! ```text
//!  train  | packet 0 ········· | packet 1 ········· | packet 2 ··· |            segment
//!          ▼ header copied, payload protected on its way
//!  out    | packet 0 ········· tag | packet 1 ········· tag | packet 2 ··· tag |  segment + overhead
//! ```
//!
//! [`Outbound::protect_train`] reads the train where the relay has patched it, and writes the consumer's bytes once, so
//! copying costs nothing beside the cipher. A single packet is a train of one.
//!
//! # Indices
//!
//! The caller names the 48-bit index: rollover counter and sequence number, the extended sequence number of a stream that
//! starts in its first cycle. To protect with an index twice is to give away the key (GCM) or the plaintext (counter mode), so
//! each stream keeps the last [`WINDOW`](super::WINDOW) of its indices in mind and refuses what it cannot know to be
//! fresh. [`Repeats`] says whether a packet may go out again under its own index.

use std::collections::BTreeMap;

use slotmap::{SlotMap, new_key_type};

use super::cipher::{Cipher, Fingerprint};
use super::header::{RTCP_CLEAR_LEN, RtpClear, rtcp_sender};
use super::index::nearest;
use super::window::{Verdict, WINDOW, Window};
use super::{INDEX_MAX, MasterKey, Profile, ProtectError};
use crate::page::Counter;

/// How far back a stream with [`Repeats::Identical`] can repeat, in indices. It takes 8 bytes for each.
pub const IDENTICAL_WINDOW: u64 = 1024;

/// RFC 3711 §9.2: 2³¹ SRTCP packets at most under one key.
const RTCP_INDEX_MAX: u64 = (1 << 31) - 1;

/// How many SSRCs are kept in mind under one key, those of removed streams included.
const SSRCS_MAX: usize = 1 << 16;

const RTP_WORDS: usize = WINDOW as usize / 64;

new_key_type! {
    /// A stream of an [`Outbound`]. The key of a removed stream finds nothing.
    pub struct StreamKey;
}

/// Whether an index may be protected again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Repeats {
    /// Never. For whatever is retransmitted with RTX (RFC 4588), where a packet that goes out again has a new number.
    Refused,
    /// If exactly the bytes come out that came out before, so that an observer learns nothing but that it was sent again:
    /// for a peer without RTX, to which a lost packet goes out again as it was. What differs in a single bit, be it in a
    /// header extension like abs-send-time, is wiped and refused. Takes 8 KiB per stream for the last
    /// [`IDENTICAL_WINDOW`] indices; older ones are refused.
    Identical,
}

/// How far an SSRC's indices are used under a key: what a successor must know.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Spent {
    /// The SSRC.
    pub ssrc: u32,
    /// One more than the highest index used.
    pub next: u64,
}

/// The result of protecting a train.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtectedTrain {
    /// The number of packets, counted from the first, that are protected.
    pub packets: usize,
    /// The bytes at the start of the buffer that they take.
    pub bytes: usize,
    /// Why the packet after them was not; `None` if it was the last.
    pub refused: Option<ProtectError>,
}

/// The sending direction of one DTLS association, with its streams.
pub struct Outbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    /// RFC 3711 §3.4: counts each SRTCP packet from zero. One count for all SSRCs, so that none can be counted twice.
    rtcp_next: u64,
    /// Where that is kept for a successor.
    rtcp_count: Counter,
    streams: SlotMap<StreamKey, Stream>,
    /// Of removed streams: one more than the highest index used.
    retired: BTreeMap<u32, u64>,
}

struct Stream {
    ssrc: u32,
    used: Window<RTP_WORDS>,
    /// Of [`Repeats::Identical`]: what came out under each of the last indices. A ring.
    fingerprints: Option<Box<[Fingerprint]>>,
}

/// Permission to protect a packet with an index.
enum Claim {
    First,
    /// If the same comes out.
    Again(Fingerprint),
}

impl Outbound {
    /// Starts with no stream, for a key that nothing was ever protected with.
    pub fn new(key: &MasterKey) -> Self {
        let [rtp, rtcp] = Cipher::both(key);
        Self {
            profile: key.profile(),
            rtp,
            rtcp,
            rtcp_next: 0,
            rtcp_count: Counter::default(),
            streams: SlotMap::with_key(),
            retired: BTreeMap::new(),
        }
    }

    /// Goes on for a predecessor under the same key. Everything that it may have protected must be below what is said here:
    /// if it was asked some time ago, add more than it can have sent since.
    pub fn resume(key: &MasterKey, rtcp_next: u64, spent: impl IntoIterator<Item = Spent>) -> Self {
        Self {
            rtcp_next,
            retired: spent.into_iter().map(|spent| (spent.ssrc, spent.next)).collect(),
            ..Self::new(key)
        }
    }

    /// The protection profile.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// From now on the number of SRTCP packets is kept there, each before it is used.
    pub fn keep_rtcp_count(&mut self, counter: Counter) {
        self.rtcp_count = counter;
        if self.rtcp_next > 0 {
            self.rtcp_count.store(self.rtcp_next);
        }
    }

    /// A predecessor under the same key has used an SSRC's indices so far, at the least.
    pub fn spend(&mut self, spent: Spent) {
        let Spent { ssrc, next } = spent;
        match self.streams.values_mut().find(|stream| stream.ssrc == ssrc) {
            Some(stream) if stream.used.next() < next => stream.used = Window::all_below(next),
            Some(_) => {}
            None => {
                let known = self.retired.entry(ssrc).or_insert(0);
                *known = (*known).max(next);
            }
        }
    }

    /// For a successor: how far each SSRC's indices are used, those of removed streams included.
    pub fn spent(&self) -> impl Iterator<Item = Spent> {
        let live = self.streams.values().map(|stream| (stream.ssrc, stream.used.next()));
        let retired = self.retired.iter().map(|(ssrc, next)| (*ssrc, *next));
        live.chain(retired)
            .filter(|(_, next)| *next > 0)
            .map(|(ssrc, next)| Spent { ssrc, next })
    }

    /// For a successor: the index of the next SRTCP packet.
    pub fn rtcp_next(&self) -> u64 {
        self.rtcp_next
    }

    /// Makes a stream. If its SSRC was used before under this key, only indices above the highest of then are protected.
    ///
    /// # Errors
    ///
    /// [`ProtectError::DuplicateStream`] while the SSRC has a stream; [`ProtectError::TooManyStreams`] when 65,536 SSRCs
    /// were used.
    pub fn add_stream(&mut self, ssrc: u32, repeats: Repeats) -> Result<StreamKey, ProtectError> {
        if self.streams.values().any(|stream| stream.ssrc == ssrc) {
            return Err(ProtectError::DuplicateStream);
        }
        let retired = self.retired.remove(&ssrc);
        if retired.is_none() && self.streams.len() + self.retired.len() >= SSRCS_MAX {
            return Err(ProtectError::TooManyStreams);
        }
        Ok(self.streams.insert(Stream {
            ssrc,
            used: Window::all_below(retired.unwrap_or(0)),
            fingerprints: match repeats {
                Repeats::Refused => None,
                Repeats::Identical => Some(vec![Fingerprint::default(); IDENTICAL_WINDOW as usize].into()),
            },
        }))
    }

    /// One more than the highest index that a stream's SSRC has used; 0 if it has used none, or there is no such stream.
    pub fn next_index(&self, key: StreamKey) -> u64 {
        self.streams.get(key).map_or(0, |stream| stream.used.next())
    }

    /// From now on a stream protects no index again: [`Repeats::Refused`]. The memory that this saves is given back.
    pub fn refuse_repeats(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.fingerprints = None;
        }
    }

    /// Removes a stream. How far its indices are used stays in mind.
    pub fn remove_stream(&mut self, key: StreamKey) {
        if let Some(stream) = self.streams.remove(key)
            && stream.used.next() > 0
        {
            self.retired.insert(stream.ssrc, stream.used.next());
        }
    }

    /// Protects a train into the start of `buffer`: packets of `segment` bytes laid end to end, of which only the last may be
    /// shorter, become such packets of `segment` + [`Profile::rtp_overhead`] bytes. `first` is the index of the first;
    /// each other one has the index that is closest to that of the one before it. `train` stays as it is.
    ///
    /// It ends before the first packet that is refused. Who goes on behind that one has a train in two runs.
    pub fn protect_train(
        &mut self,
        stream: StreamKey,
        first: u64,
        train: &[u8],
        segment: usize,
        buffer: &mut [u8],
    ) -> ProtectedTrain {
        let mut protected = ProtectedTrain {
            packets: 0,
            bytes: 0,
            refused: None,
        };
        let Some(stream) = self.streams.get_mut(stream) else {
            protected.refused = Some(ProtectError::UnknownStream);
            return protected;
        };
        let mut index = first;
        for packet in train.chunks(segment.max(1)) {
            if protected.packets > 0 {
                match index_after(index, packet) {
                    Ok(next) => index = next,
                    Err(error) => {
                        protected.refused = Some(error);
                        break;
                    }
                }
            }
            let buffer = buffer.get_mut(protected.bytes..).unwrap_or_default();
            match stream.protect(&self.rtp, self.profile, index, packet, buffer) {
                Ok(len) => {
                    protected.packets += 1;
                    protected.bytes += len;
                }
                Err(error) => {
                    protected.refused = Some(error);
                    break;
                }
            }
        }
        protected
    }

    /// Protects the RTCP packet (a compound, or reduced in size) in the first `len` bytes of `buffer` in place, encrypted, and
    /// says how long it is then. [`Profile::rtcp_overhead`] bytes behind it are needed.
    ///
    /// # Errors
    ///
    /// See [`ProtectError`]. `buffer` is as it was, unless the cipher failed.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], len: usize) -> Result<usize, ProtectError> {
        let needed = len.saturating_add(self.profile.rtcp_overhead());
        let buffer = buffer.get_mut(..needed).ok_or(ProtectError::BufferTooSmall)?;
        let ssrc = rtcp_sender(&buffer[..len]).ok_or(ProtectError::Malformed)?;
        debug_assert!(len >= RTCP_CLEAR_LEN, "it has a sender");
        let index = self.rtcp_next;
        if index > RTCP_INDEX_MAX {
            return Err(ProtectError::Exhausted);
        }
        // Used from here on, also if the cipher fails half-way.
        self.rtcp_next += 1;
        self.rtcp_count.store(self.rtcp_next);
        let protected = self.rtcp.protect_rtcp(ssrc, index as u32, len, buffer);
        protected.map(|()| needed).map_err(|_| ProtectError::Cipher)
    }
}

impl Stream {
    fn protect(
        &mut self,
        cipher: &Cipher,
        profile: Profile,
        index: u64,
        packet: &[u8],
        buffer: &mut [u8],
    ) -> Result<usize, ProtectError> {
        let len = packet.len() + profile.rtp_overhead();
        let buffer = buffer.get_mut(..len).ok_or(ProtectError::BufferTooSmall)?;
        let clear = RtpClear::parse(packet).ok_or(ProtectError::Malformed)?;
        if index > INDEX_MAX {
            return Err(ProtectError::Exhausted);
        }
        if clear.ssrc != self.ssrc || clear.seq != index as u16 {
            return Err(ProtectError::Mismatch);
        }
        let claim = self.claim(index)?;
        let (header, payload) = packet.split_at(clear.len);
        buffer[..clear.len].copy_from_slice(header);
        let protected = cipher.protect_rtp(self.ssrc, index, clear.len, payload, buffer);
        let fingerprint = protected.map_err(|_| ProtectError::Cipher)?;
        match claim {
            Claim::First => {
                // A late one that is too old to be repeated must not take the place of one that is not.
                if let Some(fingerprints) = &mut self.fingerprints
                    && self.used.next() - index <= IDENTICAL_WINDOW
                {
                    fingerprints[ring(index)] = fingerprint;
                }
            }
            Claim::Again(before) if before == fingerprint => {}
            Claim::Again(_) => {
                // Together with what went out before it would give the key away.
                buffer.fill(0);
                return Err(ProtectError::IndexReused);
            }
        }
        Ok(len)
    }

    /// Whether `index` may be protected. From here on it is used.
    #[inline]
    fn claim(&mut self, index: u64) -> Result<Claim, ProtectError> {
        match self.used.verdict(index) {
            Verdict::Fresh => {
                self.used.mark(index);
                Ok(Claim::First)
            }
            Verdict::TooOld => Err(ProtectError::IndexTooOld),
            Verdict::Used => match &self.fingerprints {
                None => Err(ProtectError::IndexReused),
                Some(_) if self.used.next() - index > IDENTICAL_WINDOW => Err(ProtectError::IndexTooOld),
                Some(fingerprints) => Ok(Claim::Again(fingerprints[ring(index)])),
            },
        }
    }
}

/// The index of a packet, behind one with `index` in a train.
#[inline]
fn index_after(index: u64, packet: &[u8]) -> Result<u64, ProtectError> {
    let clear = RtpClear::parse(packet).ok_or(ProtectError::Malformed)?;
    nearest(index + 1, clear.seq).ok_or(ProtectError::Exhausted)
}

/// Where the fingerprint of an index is.
#[inline]
fn ring(index: u64) -> usize {
    (index % IDENTICAL_WINDOW) as usize
}
