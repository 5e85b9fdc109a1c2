//! Who speaks for which peer (pure): the sessions that have joined, by their tokens and by the names of their peers.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::evidence::Evidence;
use super::letter::Letter;
use crate::RoomId;

/// A session that has joined.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) room: RoomId,
    pub(super) name: String,
    /// Where clients are sent that are, or want to be, this session's.
    pub(super) address: mpsc::Sender<Letter>,
    /// What its client would show; without a token there is no coming back.
    pub(super) evidence: Evidence,
    /// Its peer is being let go: it takes nobody up any more.
    pub(super) is_leaving: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Seats {
    by_token: HashMap<String, Seat>,
    /// The newest session of a room's peer of this name, by its token. One that is leaving may still be there beside it.
    tokens: HashMap<(RoomId, String), String>,
}

impl Seats {
    /// Takes a session up under its token.
    pub(super) fn insert(&mut self, token: String, seat: Seat) {
        self.tokens.insert((seat.room, seat.name.clone()), token.clone());
        self.by_token.insert(token, seat);
    }

    /// The session with this token, unless it is leaving.
    pub(super) fn of_token(&self, token: &str) -> Option<&Seat> {
        self.by_token.get(token).filter(|seat| !seat.is_leaving)
    }

    /// The session that speaks, or spoke a moment ago, for a room's peer.
    pub(super) fn of_peer(&self, room: RoomId, name: &str) -> Option<&Seat> {
        self.by_token.get(self.tokens.get(&(room, name.to_owned()))?)
    }

    /// Changes a session.
    pub(super) fn edit(&mut self, token: &str, edit: impl FnOnce(&mut Seat)) {
        if let Some(seat) = self.by_token.get_mut(token) {
            edit(seat);
        }
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, token: &str) {
        let Some(seat) = self.by_token.remove(token) else {
            return;
        };
        let peer = (seat.room, seat.name);
        if self.tokens.get(&peer).is_some_and(|newest| newest == token) {
            self.tokens.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(name: &str) -> Seat {
        Seat {
            room: RoomId(1),
            name: name.to_owned(),
            address: mpsc::channel(1).0,
            evidence: Evidence::default(),
            is_leaving: false,
        }
    }

    #[test]
    fn the_newest_session_of_a_name_counts() {
        let mut seats = Seats::default();
        seats.insert("first".to_owned(), seat("alice"));
        seats.edit("first", |seat| seat.is_leaving = true);
        assert!(seats.of_token("first").is_none());
        assert!(seats.of_peer(RoomId(1), "alice").is_some_and(|seat| seat.is_leaving));
        seats.insert("second".to_owned(), seat("alice"));
        seats.remove("first");
        assert!(seats.of_token("second").is_some());
        assert!(seats.of_peer(RoomId(1), "alice").is_some_and(|seat| !seat.is_leaving));
        assert!(seats.of_peer(RoomId(2), "alice").is_none());
        assert!(seats.of_peer(RoomId(1), "bob").is_none());
        seats.remove("second");
        seats.remove("second");
        assert!(seats.of_peer(RoomId(1), "alice").is_none());
        assert!(seats.by_token.is_empty() && seats.tokens.is_empty());
    }
}
