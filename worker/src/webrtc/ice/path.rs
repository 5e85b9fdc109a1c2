//! What is known of a tuple from which a check came.

use crate::time::Time;
use crate::webrtc::entropy::Entropy;
use crate::webrtc::stun::TransactionId;

use super::return_check::ReturnCheck;
use super::{Protocol, Tuple};

/// A tuple from which a check came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) tuple: Tuple,
    /// Counts paths, also those that have been forgotten.
    pub(super) serial: u32,
    /// Where it is kept: no two paths of an agent are kept at the same place.
    pub(super) place: u8,
    /// Of which credentials the last check was.
    pub(super) generation: u32,
    pub(super) nominated: bool,
    /// The number of the nomination, if the peer numbers them.
    pub(super) nomination: Option<u32>,
    pub(super) checked_at: Time,
    /// Of the last check.
    pub(super) transaction: TransactionId,
    /// When it last showed that the peer uses it.
    pub(super) shown_at: Option<Time>,
    way_back: WayBack,
}

/// Whether what is sent by a path reaches the peer. The source of a check is whatever its sender has written there, so a check alone
/// proves nothing of it (RFC 7675 §1).
#[derive(Clone, Copy, Debug)]
enum WayBack {
    /// Nobody knows.
    Unknown,
    /// The peer has been sent a check, and has not answered it yet; it may still do so when no more requests are sent.
    Asked(ReturnCheck),
    /// It does.
    Proven,
}

impl Path {
    /// A path that has just been checked for the first time.
    pub(super) fn new(now: Time, tuple: Tuple, serial: u32, place: u8, generation: u32) -> Self {
        Self {
            tuple,
            serial,
            place,
            generation,
            nominated: false,
            nomination: None,
            checked_at: now,
            transaction: TransactionId::default(),
            shown_at: None,
            way_back: match tuple.protocol {
                Protocol::Udp => WayBack::Unknown,
                // Who has opened a connection has received what the kernel answered (RFC 9293 §3.5).
                Protocol::Tcp => WayBack::Proven,
            },
        }
    }

    /// The peer checks it with other credentials: what it nominated before means nothing.
    pub(super) fn begin_generation(&mut self, generation: u32) {
        if self.generation != generation {
            self.generation = generation;
            self.nominated = false;
            self.nomination = None;
            self.shown_at = None;
        }
    }

    /// Sends the peer a check by it, unless that is under way or needed no more.
    pub(super) fn ask(&mut self, now: Time, entropy: &mut impl Entropy) {
        match &mut self.way_back {
            WayBack::Unknown => self.way_back = WayBack::Asked(ReturnCheck::new(now, entropy)),
            WayBack::Asked(check) => check.ask_again(now),
            WayBack::Proven => {}
        }
    }

    /// What is sent by it reaches the peer.
    pub(super) fn prove(&mut self) {
        self.way_back = WayBack::Proven;
    }

    /// An answer to the check that was sent counts no more.
    pub(super) fn forget_question(&mut self) {
        if matches!(self.way_back, WayBack::Asked(_)) {
            self.way_back = WayBack::Unknown;
        }
    }

    /// Whether what is sent by it reaches the peer.
    pub(super) fn is_proven(&self) -> bool {
        matches!(self.way_back, WayBack::Proven)
    }

    /// The check of ours that has not been answered yet.
    pub(super) fn return_check(&self) -> Option<&ReturnCheck> {
        match &self.way_back {
            WayBack::Asked(check) => Some(check),
            WayBack::Unknown | WayBack::Proven => None,
        }
    }

    /// As [`Path::return_check`].
    pub(super) fn return_check_mut(&mut self) -> Option<&mut ReturnCheck> {
        match &mut self.way_back {
            WayBack::Asked(check) => Some(check),
            WayBack::Unknown | WayBack::Proven => None,
        }
    }
}
