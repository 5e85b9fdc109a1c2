//! Who speaks for which peer (pure): the sessions that have joined, by their tokens and by the names of their peers.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::claim::SessionMessage;
use super::evidence::Evidence;
use crate::RoomId;

/// A session that has joined.
#[derive(Clone)]
pub(super) struct SessionEntry {
    pub(super) room: RoomId,
    pub(super) name: String,
    /// Where clients are sent that are, or want to be, this session's.
    pub(super) address: mpsc::Sender<SessionMessage>,
    /// What its client would show; without a token there is no coming back.
    pub(super) evidence: Evidence,
    /// Its peer is being let go: it takes nobody up any more.
    pub(super) is_leaving: bool,
}

/// All of them.
#[derive(Default)]
pub(super) struct Sessions {
    by_token: HashMap<String, SessionEntry>,
    /// The newest session of a room's peer of this name, by its token. One that is leaving may still be there beside it.
    tokens: HashMap<(RoomId, String), String>,
}

impl Sessions {
    /// Takes a session up under its token.
    pub(super) fn insert(&mut self, token: String, session: SessionEntry) {
        self.tokens.insert((session.room, session.name.clone()), token.clone());
        self.by_token.insert(token, session);
    }

    /// The session with this token, unless it is leaving.
    pub(super) fn of_token(&self, token: &str) -> Option<&SessionEntry> {
        self.by_token.get(token).filter(|session| !session.is_leaving)
    }

    /// The session that speaks, or spoke a moment ago, for a room's peer.
    pub(super) fn of_peer(&self, room: RoomId, name: &str) -> Option<&SessionEntry> {
        self.by_token.get(self.tokens.get(&(room, name.to_owned()))?)
    }

    /// Changes a session.
    pub(super) fn edit(&mut self, token: &str, edit: impl FnOnce(&mut SessionEntry)) {
        if let Some(session) = self.by_token.get_mut(token) {
            edit(session);
        }
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, token: &str) {
        let Some(session) = self.by_token.remove(token) else {
            return;
        };
        let peer = (session.room, session.name);
        if self.tokens.get(&peer).is_some_and(|newest| newest == token) {
            self.tokens.remove(&peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(name: &str) -> SessionEntry {
        SessionEntry {
            room: RoomId(1),
            name: name.to_owned(),
            address: mpsc::channel(1).0,
            evidence: Evidence::default(),
            is_leaving: false,
        }
    }

    #[test]
    fn the_newest_session_of_a_name_counts() {
        let mut sessions = Sessions::default();
        sessions.insert("first".to_owned(), session("alice"));
        sessions.edit("first", |session| session.is_leaving = true);
        assert!(sessions.of_token("first").is_none());
        assert!(
            sessions
                .of_peer(RoomId(1), "alice")
                .is_some_and(|session| session.is_leaving)
        );
        sessions.insert("second".to_owned(), session("alice"));
        sessions.remove("first");
        assert!(sessions.of_token("second").is_some());
        assert!(
            sessions
                .of_peer(RoomId(1), "alice")
                .is_some_and(|session| !session.is_leaving)
        );
        assert!(sessions.of_peer(RoomId(2), "alice").is_none());
        assert!(sessions.of_peer(RoomId(1), "bob").is_none());
        sessions.remove("second");
        sessions.remove("second");
        assert!(sessions.of_peer(RoomId(1), "alice").is_none());
        assert!(sessions.by_token.is_empty() && sessions.tokens.is_empty());
    }
}
