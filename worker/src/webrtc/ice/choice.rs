//! Which of the checked paths is used, and what another one must show to take its place.
//!
//! A check proves the way from the peer to us and says nothing of the way back. What proves both, as far as a lite agent can
//! know, is what the peer sends by a path of its own accord: it does so only where its own checks were answered. So paths
//! compete by *signs* of use (`Sign`), and these are the rules
//! ([decision 0022](../../../../docs/decisions/0022-which-pair-is-used.md)):
//!
//! 1. Until the first traffic every new nomination decides, and then that traffic does.
//! 2. After that, a path that is nominated for the first time, or with a higher number than any before, is used at once:
//!    that is what a peer does that has moved.
//! 3. Any other path must show signs in a row, with none of the used path between them: a nominating check and traffic, or
//!    two of one kind that lie [`HOLD`] apart. So neither late checks nor packets that overtook each other move anything.
//! 4. A path that has shown no sign for [`SILENCE`] is left at the first sign of another one. Plain checks are no signs, but keep
//!    the used path from being silent. One that is not nominated takes over from one that is, by rule 3, when that has been silent for
//!    [`REBOUND`].

use std::time::Duration;

use crate::time::Time;

use super::Tuple;

/// For so long one kind of sign must come by another path, and nothing by the used one, before it moves. Paths differ in delay
/// by less.
pub const HOLD: Duration = Duration::from_millis(100);

/// A path that is used shows itself in this time: consent is asked for every 6 s at most (RFC 7675 §5.1), and one request may
/// be lost.
pub const SILENCE: Duration = Duration::from_secs(12);

/// A NAT that gives a peer another address leaves the old one silent at once, and the peer does not nominate anew.
pub const REBOUND: Duration = Duration::from_secs(1);

/// What shows that the peer uses a path. Everything here is authenticated: a check by the password, traffic by the keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sign {
    /// A check that nominates the path for the first time, or with a higher number than all before.
    Nomination,
    /// One more check that nominates it, in a transaction of its own: a retransmission says nothing new.
    Renewal,
    /// The newest packet of a stream, or what ended the handshake.
    Traffic,
}

/// A path that may take over.
#[derive(Clone, Copy, Debug)]
struct Rival {
    tuple: Tuple,
    /// Its first sign.
    sign: Sign,
    since: Time,
}

/// The path that is used.
#[derive(Debug, Default)]
pub(super) struct Choice {
    selected: Option<Tuple>,
    /// When it last showed a sign, or became selected.
    shown_at: Time,
    /// There has been traffic since the peer began, or began anew.
    is_proven: bool,
    /// There has been traffic by the selected one.
    has_carried: bool,
    /// The one before, of those that have carried traffic.
    left: Option<Tuple>,
    /// The one that has shown signs since the selected one last did.
    rival: Option<Rival>,
}

impl Choice {
    /// One that goes on: what is used since when it showed itself last, what was used before, and whether there was traffic since the
    /// peer began, and by the one that is used.
    pub(super) fn resumed(
        selected: Option<Tuple>,
        shown_at: Time,
        left: Option<Tuple>,
        (is_proven, has_carried): (bool, bool),
    ) -> Self {
        Self {
            selected,
            shown_at,
            is_proven,
            has_carried,
            left,
            rival: None,
        }
    }

    /// The one that was used before.
    pub(super) fn left(&self) -> Option<&Tuple> {
        self.left.as_ref()
    }

    /// Whether there was traffic since the peer began, and by the one that is used.
    pub(super) fn traffic(&self) -> (bool, bool) {
        (self.is_proven, self.has_carried)
    }

    #[inline]
    pub(super) fn selected(&self) -> Option<&Tuple> {
        self.selected.as_ref()
    }

    /// Traffic came by `tuple`; whether that is the selected path, and so all that there is to it.
    #[inline]
    pub(super) fn confirm(&mut self, now: Time, tuple: &Tuple) -> bool {
        let is_selected = self.selected.as_ref() == Some(tuple);
        if is_selected {
            self.shown_at = self.shown_at.max(now);
            self.is_proven = true;
            self.has_carried = true;
            self.rival = None;
        }
        is_selected
    }

    /// A check came by `tuple` that says nothing new, but that the peer is there.
    pub(super) fn keep(&mut self, now: Time, tuple: &Tuple) {
        if self.selected.as_ref() == Some(tuple) {
            self.shown_at = self.shown_at.max(now);
        }
    }

    /// When the selected one last showed that it is used.
    pub(super) fn shown_at(&self) -> Time {
        self.shown_at
    }

    /// Whether the peer's traffic comes by `tuple`, or did before it was led elsewhere: that way back must not be lost.
    pub(super) fn needs(&self, tuple: &Tuple) -> bool {
        [&self.selected, &self.left]
            .into_iter()
            .any(|needed| needed.as_ref() == Some(tuple))
    }

    /// Whether a sign makes `tuple` the path that should be used. `ranks_lower`: it is not nominated, and the selected one is.
    pub(super) fn is_won_by(&mut self, now: Time, tuple: Tuple, sign: Sign, ranks_lower: bool) -> bool {
        if self.selected == Some(tuple) {
            self.shown_at = self.shown_at.max(now);
            self.rival = None;
            return false;
        }
        if sign == Sign::Nomination || !self.is_proven || now >= self.shown_at + SILENCE {
            return true;
        }
        if ranks_lower && now < self.shown_at + REBOUND {
            return false;
        }
        match self.rival {
            Some(rival) if rival.tuple == tuple => rival.sign != sign || now >= rival.since + HOLD,
            _ => {
                self.rival = Some(Rival {
                    tuple,
                    sign,
                    since: now,
                });
                false
            }
        }
    }

    /// Uses another path, or none, that last showed a sign at `shown_at`. The one place by which media moves: whatever more is
    /// asked of a path before it may carry any, is asked by whoever calls this.
    pub(super) fn select(&mut self, tuple: Option<Tuple>, shown_at: Time) {
        if std::mem::take(&mut self.has_carried) {
            self.left = self.selected;
        }
        self.selected = tuple;
        self.shown_at = shown_at;
        self.rival = None;
    }

    /// The peer begins, or begins anew: what it does first decides.
    pub(super) fn begin(&mut self) {
        self.is_proven = false;
        self.rival = None;
    }
}
