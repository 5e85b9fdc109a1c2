//! What comes from the peer: every packet is authenticated, decrypted in place, and taken once.

use super::cipher::Cipher;
use super::derivation::{Protocol, SessionKeys};
use super::header::{RtpClear, rtcp_sender};
use super::index::nearest;
use super::window::{Verdict, WINDOW, Window};
use super::{MasterKey, Profile, UnprotectError};

const RTP_WORDS: usize = WINDOW as usize / 64;

/// 128 indices. Control packets are few, and a late one tells nothing new.
const RTCP_WORDS: usize = 2;

/// The receiving direction of one DTLS association, with the state of each of its SSRCs.
///
/// A state is made when the first authentic packet of an SSRC comes, so only who has the key can make any, and no more
/// than the limit. It takes 264 bytes for SRTP and 32 for SRTCP.
pub struct Inbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_streams: Streams<RTP_WORDS>,
    rtcp_streams: Streams<RTCP_WORDS>,
}

/// A packet that is authentic, fresh and decrypted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
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
    /// Starts with no SSRC known. At most `streams_max` will be, for SRTP and for SRTCP each.
    pub fn new(key: &MasterKey, streams_max: usize) -> Self {
        let cipher = |protocol| Cipher::new(key.profile(), &SessionKeys::derive(key, protocol));
        Self {
            profile: key.profile(),
            rtp: cipher(Protocol::Rtp),
            rtcp: cipher(Protocol::Rtcp),
            rtp_streams: Streams::new(streams_max),
            rtcp_streams: Streams::new(streams_max),
        }
    }

    /// What the keys are for.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// Opens an SRTP packet in place. `packet` is one datagram, or one segment of a train.
    ///
    /// # Errors
    ///
    /// See [`UnprotectError`]. `packet` is then worthless, and nothing else has changed.
    #[inline]
    pub fn unprotect_rtp(&mut self, packet: &mut [u8]) -> Result<Opened, UnprotectError> {
        let len = packet.len();
        let clear = RtpClear::parse(packet).ok_or(UnprotectError::Malformed)?;
        let (clear_len, ssrc) = (clear.len, clear.ssrc);
        if len < clear_len + self.profile.rtp_overhead() {
            return Err(UnprotectError::TooShort { len });
        }
        let place = self.rtp_streams.place(ssrc)?;
        let index = nearest(self.rtp_streams.next(place), clear.seq).ok_or(UnprotectError::Exhausted { ssrc })?;
        self.rtp_streams.check(place, ssrc, index)?;
        let opened = self.rtp.open_rtp(ssrc, index, clear_len, packet);
        let len = opened.map_err(|_| UnprotectError::NotAuthentic { ssrc })?;
        let is_newest = index >= self.rtp_streams.next(place);
        self.rtp_streams.mark(place, ssrc, index);
        Ok(Opened {
            len,
            ssrc,
            index,
            is_newest,
        })
    }

    /// Opens an SRTCP packet in place. One that its sender did not encrypt is taken too, if it is authentic.
    ///
    /// # Errors
    ///
    /// See [`UnprotectError`]. `packet` is then worthless, and nothing else has changed.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<Opened, UnprotectError> {
        let len = packet.len();
        let ssrc = rtcp_sender(packet).ok_or(UnprotectError::Malformed)?;
        let index = self.rtcp.rtcp_index(packet).ok_or(UnprotectError::TooShort { len })?;
        if len < super::header::RTCP_CLEAR_LEN + self.profile.rtcp_overhead() {
            return Err(UnprotectError::TooShort { len });
        }
        let index = u64::from(index);
        let place = self.rtcp_streams.place(ssrc)?;
        self.rtcp_streams.check(place, ssrc, index)?;
        let opened = self.rtcp.open_rtcp(ssrc, packet);
        let len = opened.map_err(|_| UnprotectError::NotAuthentic { ssrc })?;
        let is_newest = index >= self.rtcp_streams.next(place);
        self.rtcp_streams.mark(place, ssrc, index);
        Ok(Opened {
            len,
            ssrc,
            index,
            is_newest,
        })
    }

    /// Forgets an SSRC, so that another one has room.
    ///
    /// Who recorded its packets can then play them again, once, from the first cycle of its sequence numbers; so forget
    /// only what the relay would not take anyway. A sender that goes on after it is forgotten is not understood once its
    /// numbers have wrapped.
    pub fn forget(&mut self, ssrc: u32) {
        self.rtp_streams.forget(ssrc);
        self.rtcp_streams.forget(ssrc);
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
    last: usize,
    max: usize,
}

/// Where the window of an SSRC is, or will be if the packet is authentic.
#[derive(Clone, Copy)]
enum Place {
    At(usize),
    New,
}

impl<const WORDS: usize> Streams<WORDS> {
    fn new(max: usize) -> Self {
        Self {
            ssrcs: Vec::new(),
            windows: Vec::new(),
            last: 0,
            max,
        }
    }

    #[inline]
    fn place(&mut self, ssrc: u32) -> Result<Place, UnprotectError> {
        if self.ssrcs.get(self.last) == Some(&ssrc) {
            return Ok(Place::At(self.last));
        }
        match self.ssrcs.iter().position(|known| *known == ssrc) {
            Some(at) => {
                self.last = at;
                Ok(Place::At(at))
            }
            None if self.ssrcs.len() < self.max => Ok(Place::New),
            None => Err(UnprotectError::TooManyStreams {
                ssrc,
                streams_max: self.max,
            }),
        }
    }

    #[inline]
    fn next(&self, place: Place) -> u64 {
        match place {
            Place::At(at) => self.windows[at].next(),
            Place::New => 0,
        }
    }

    #[inline]
    fn check(&self, place: Place, ssrc: u32, index: u64) -> Result<(), UnprotectError> {
        let Place::At(at) = place else {
            return Ok(());
        };
        match self.windows[at].verdict(index) {
            Verdict::Fresh => Ok(()),
            Verdict::Used => Err(UnprotectError::Replayed { ssrc, index }),
            Verdict::TooOld => Err(UnprotectError::TooOld { ssrc, index }),
        }
    }

    #[inline]
    fn mark(&mut self, place: Place, ssrc: u32, index: u64) {
        match place {
            Place::At(at) => self.windows[at].mark(index),
            Place::New => {
                let mut window = Window::new();
                window.mark(index);
                self.insert(ssrc, window);
            }
        }
    }

    #[cold]
    fn insert(&mut self, ssrc: u32, window: Window<WORDS>) {
        self.last = self.ssrcs.len();
        self.ssrcs.push(ssrc);
        self.windows.push(window);
    }

    fn forget(&mut self, ssrc: u32) {
        if let Some(at) = self.ssrcs.iter().position(|known| *known == ssrc) {
            self.ssrcs.swap_remove(at);
            self.windows.swap_remove(at);
        }
    }

    fn positions(&self) -> impl Iterator<Item = (u32, u64)> {
        self.ssrcs.iter().copied().zip(self.windows.iter().map(Window::next))
    }

    fn resume(&mut self, ssrc: u32, next: u64) -> Result<(), UnprotectError> {
        match self.place(ssrc)? {
            Place::At(at) => self.windows[at] = Window::all_below(next.max(self.windows[at].next())),
            Place::New => self.insert(ssrc, Window::all_below(next)),
        }
        Ok(())
    }
}
