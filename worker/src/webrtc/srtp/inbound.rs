//! What comes from the peer: every packet is authenticated, decrypted in place, and taken once.

use std::collections::BTreeMap;

use super::cipher::Cipher;
use super::header::{RTCP_CLEAR_LEN, RtpClear, rtcp_sender};
use super::index::nearest;
use super::window::{Verdict, WINDOW, Window};
use super::{MasterKey, Profile, UnprotectError};

const RTP_WORDS: usize = WINDOW as usize / 64;

/// 128 indices. Control packets are few, and a late one tells nothing new.
const RTCP_WORDS: usize = 2;

/// SSRCs of which more than the newest index is kept in mind: more than any peer sends under at a time, which is 1,536 (256
/// producers of three streams, each with its retransmissions).
pub const WINDOWS_MAX: usize = 2_048;

/// The receiving direction of one DTLS association, with the state of each of its SSRCs.
///
/// A state is made when the first authentic packet of an SSRC comes, so only who has the key can make any, and no more
/// than the limit. It takes 276 bytes for SRTP and 36 for SRTCP, of [`WINDOWS_MAX`] SSRCs each at a time.
///
/// # What is forgotten
///
/// An SSRC that is [retired](Inbound::retire), or that was silent for longest when another one takes its place, leaves its
/// newest index behind and nothing else. Everything up to there counts as received: who recorded such a stream cannot play
/// it again (RFC 3711 §3.3.2), and its sender may go on at any time, only that what was late is lost. That index, some 20
/// bytes, is kept for as long as the key, because a recorded packet stays authentic that long: were it forgotten, old media
/// could be played to the room once more, and take the place of what is sent. So the number of SSRCs that a peer can use in a
/// session has a limit all the same.
pub struct Inbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Streams<RTP_WORDS>,
    rtcp_streams: Streams<RTCP_WORDS>,
}

/// A packet that is authentic, fresh and decrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unprotected {
    /// The packet is the first so many of the bytes.
    pub len: usize,
    /// The SSRC in its header.
    pub ssrc: u32,
    /// Its index: of SRTP 48 bits, rollover counter and sequence number; of SRTCP 31 bits.
    pub index: u64,
    /// No higher index of this SSRC has come yet.
    pub is_newest: bool,
}

impl Inbound {
    /// Starts with no SSRC known. At most `streams_max` will be, for SRTP and for SRTCP each, retired ones included.
    pub fn new(key: &MasterKey, streams_max: usize) -> Self {
        let [rtp, rtcp] = Cipher::both(key);
        Self {
            profile: key.profile(),
            rtp,
            rtcp,
            rtp_streams: Streams::new(streams_max),
            rtcp_streams: Streams::new(streams_max),
        }
    }

    /// Unprotects an SRTP packet in place. `packet` is one datagram, or one segment of a train.
    ///
    /// # Errors
    ///
    /// See [`UnprotectError`]. `packet` is then worthless, and nothing else has changed.
    #[inline]
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<Unprotected, UnprotectError> {
        let clear = RtpClear::parse(packet).ok_or(UnprotectError::Malformed)?;
        let ssrc = clear.ssrc;
        if packet.len() < clear.len + self.profile.rtp_overhead() {
            return Err(UnprotectError::TooShort);
        }
        let place = self.rtp_streams.place(ssrc)?;
        let index = nearest(self.rtp_streams.next(place), clear.seq).ok_or(UnprotectError::Exhausted)?;
        self.rtp_streams.check(place, index)?;
        let unprotected = self.rtp.unprotect_rtp(ssrc, index, clear.len, packet);
        let len = unprotected.map_err(|_| UnprotectError::NotAuthentic)?;
        Ok(Unprotected {
            len,
            ssrc,
            index,
            is_newest: self.rtp_streams.mark(place, ssrc, index),
        })
    }

    /// Unprotects an SRTCP packet in place. One that its sender did not encrypt is taken too, if it is authentic.
    ///
    /// # Errors
    ///
    /// See [`UnprotectError`]. `packet` is then worthless, and nothing else has changed.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<Unprotected, UnprotectError> {
        let ssrc = rtcp_sender(packet).ok_or(UnprotectError::Malformed)?;
        if packet.len() < RTCP_CLEAR_LEN + self.profile.rtcp_overhead() {
            return Err(UnprotectError::TooShort);
        }
        let index = u64::from(self.rtcp.rtcp_index(packet).ok_or(UnprotectError::TooShort)?);
        let place = self.rtcp_streams.place(ssrc)?;
        self.rtcp_streams.check(place, index)?;
        let unprotected = self.rtcp.unprotect_rtcp(ssrc, packet);
        let len = unprotected.map_err(|_| UnprotectError::NotAuthentic)?;
        Ok(Unprotected {
            len,
            ssrc,
            index,
            is_newest: self.rtcp_streams.mark(place, ssrc, index),
        })
    }

    /// Keeps no more of an SSRC than its newest indices, which is for those that nobody is expected to send under. What comes
    /// later than they do is taken all the same.
    pub fn retire(&mut self, ssrc: u32) {
        self.rtp_streams.retire(ssrc);
        self.rtcp_streams.retire(ssrc);
    }

    /// For a successor: names each SSRC of which something newer has come since the last time, with one more than its newest SRTP and
    /// SRTCP indices.
    pub fn drain_news(&mut self, mut tell: impl FnMut(u32, u64, u64)) {
        while let Some(ssrc) = self.rtp_streams.pop_news().or_else(|| self.rtcp_streams.pop_news()) {
            tell(ssrc, self.rtp_streams.next_of(ssrc), self.rtcp_streams.next_of(ssrc));
        }
    }

    /// For a successor: each SSRC with one more than its newest SRTP index.
    pub fn rtp_positions(&self) -> impl Iterator<Item = (u32, u64)> {
        self.rtp_streams.positions()
    }

    /// For a successor: each SSRC with one more than its newest SRTCP index.
    pub fn rtcp_positions(&self) -> impl Iterator<Item = (u32, u64)> {
        self.rtcp_streams.positions()
    }

    /// Goes on where a predecessor under the same key was: the indices below `next` are taken to be received.
    ///
    /// # Errors
    ///
    /// [`UnprotectError::TooManyStreams`].
    pub fn resume_rtp(&mut self, ssrc: u32, next: u64) -> Result<(), UnprotectError> {
        self.rtp_streams.resume(ssrc, next)
    }

    /// As [`Inbound::resume_rtp`], for SRTCP.
    ///
    /// # Errors
    ///
    /// [`UnprotectError::TooManyStreams`].
    pub fn resume_rtcp(&mut self, ssrc: u32, next: u64) -> Result<(), UnprotectError> {
        self.rtcp_streams.resume(ssrc, next)
    }
}

/// The windows of the SSRCs that are known. A peer has few, and packets of one come in a row, so a list is searched, and
/// the one of the packet before first.
struct Streams<const WORDS: usize> {
    ssrcs: Vec<u32>,
    windows: Vec<Window<WORDS>>,
    /// When each was marked last, by `clock`.
    used_at: Vec<u64>,
    /// Something newer than what was told has come.
    has_news: Vec<bool>,
    /// Of which that is so.
    news: Vec<u32>,
    /// Counts packets.
    clock: u64,
    last: usize,
    max: usize,
    /// Of those that have no window: one more than the newest index.
    retired: BTreeMap<u32, u64>,
}

/// Where the window of an SSRC is, or will be if the packet is authentic.
#[derive(Clone, Copy)]
enum Place {
    At(usize),
    /// It has none yet; with one more than the newest index that it had when it was retired, or 0.
    New(u64),
}

impl<const WORDS: usize> Streams<WORDS> {
    fn new(max: usize) -> Self {
        Self {
            ssrcs: Vec::new(),
            windows: Vec::new(),
            used_at: Vec::new(),
            has_news: Vec::new(),
            news: Vec::new(),
            clock: 0,
            last: 0,
            max,
            retired: BTreeMap::new(),
        }
    }

    #[inline]
    fn place(&mut self, ssrc: u32) -> Result<Place, UnprotectError> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Ok(Place::At(self.last));
        }
        if let Some(at) = self.ssrcs.iter().position(|known| *known == ssrc) {
            self.last = at;
            return Ok(Place::At(at));
        }
        match self.retired.get(&ssrc) {
            Some(next) => Ok(Place::New(*next)),
            None if self.ssrcs.len() + self.retired.len() < self.max => Ok(Place::New(0)),
            None => Err(UnprotectError::TooManyStreams),
        }
    }

    #[inline]
    fn next(&self, place: Place) -> u64 {
        match place {
            Place::At(at) => self.windows[at].next(),
            Place::New(next) => next,
        }
    }

    #[inline]
    fn check(&self, place: Place, index: u64) -> Result<(), UnprotectError> {
        let verdict = match place {
            Place::At(at) => self.windows[at].verdict(index),
            Place::New(next) if index >= next => Verdict::Fresh,
            Place::New(next) if next - index <= Window::<WORDS>::SIZE => Verdict::Used,
            Place::New(_) => Verdict::TooOld,
        };
        match verdict {
            Verdict::Fresh => Ok(()),
            Verdict::Used => Err(UnprotectError::Replayed),
            Verdict::TooOld => Err(UnprotectError::TooOld),
        }
    }

    /// Notes that a packet was taken. Says whether no higher index of its SSRC has come yet.
    #[inline]
    fn mark(&mut self, place: Place, ssrc: u32, index: u64) -> bool {
        let is_newest = index >= self.next(place);
        self.clock += 1;
        match place {
            Place::At(at) => {
                self.windows[at].mark(index);
                self.used_at[at] = self.clock;
                if is_newest && !self.has_news[at] {
                    self.note_news(at);
                }
            }
            Place::New(next) => {
                let mut window = Window::all_below(next);
                window.mark(index);
                self.insert(ssrc, window);
                self.note_news(self.last);
            }
        }
        is_newest
    }

    /// Something newer has come of an SSRC. Who never asks has a list that does not grow.
    fn note_news(&mut self, at: usize) {
        if self.news.len() < WINDOWS_MAX {
            self.news.push(self.ssrcs[at]);
            self.has_news[at] = true;
        }
    }

    fn pop_news(&mut self) -> Option<u32> {
        let ssrc = self.news.pop()?;
        if let Place::At(at) = self.place(ssrc).unwrap_or(Place::New(0)) {
            self.has_news[at] = false;
        }
        Some(ssrc)
    }

    fn next_of(&self, ssrc: u32) -> u64 {
        let at = self.ssrcs.iter().position(|known| *known == ssrc);
        let window = at.map(|at| self.windows[at].next());
        window.unwrap_or_else(|| self.retired.get(&ssrc).copied().unwrap_or(0))
    }

    #[cold]
    fn insert(&mut self, ssrc: u32, window: Window<WORDS>) {
        if self.ssrcs.len() >= WINDOWS_MAX {
            let silent = self.used_at.iter().zip(0..).min();
            if let Some((_, at)) = silent {
                self.retire_at(at);
            }
        }
        self.retired.remove(&ssrc);
        self.last = self.ssrcs.len();
        self.ssrcs.push(ssrc);
        self.windows.push(window);
        self.used_at.push(self.clock);
        self.has_news.push(false);
    }

    fn retire(&mut self, ssrc: u32) {
        if let Some(at) = self.ssrcs.iter().position(|known| *known == ssrc) {
            self.retire_at(at);
            // What is left of hundreds is no reason to keep their memory.
            if self.ssrcs.len() < self.ssrcs.capacity() / 4 {
                let capacity = 2 * self.ssrcs.len();
                self.ssrcs.shrink_to(capacity);
                self.windows.shrink_to(capacity);
                self.used_at.shrink_to(capacity);
                self.has_news.shrink_to(capacity);
            }
        }
    }

    fn retire_at(&mut self, at: usize) {
        self.used_at.swap_remove(at);
        self.has_news.swap_remove(at);
        let next = self.windows.swap_remove(at).next();
        self.retired.insert(self.ssrcs.swap_remove(at), next);
    }

    fn positions(&self) -> impl Iterator<Item = (u32, u64)> {
        let known = self.ssrcs.iter().copied().zip(self.windows.iter().map(Window::next));
        known.chain(self.retired.iter().map(|(ssrc, next)| (*ssrc, *next)))
    }

    fn resume(&mut self, ssrc: u32, next: u64) -> Result<(), UnprotectError> {
        match self.place(ssrc)? {
            Place::At(at) => self.windows[at] = Window::all_below(next.max(self.windows[at].next())),
            Place::New(before) => {
                self.retired.insert(ssrc, next.max(before));
            }
        }
        Ok(())
    }
}
