//! Rooms that another worker has served, which is dead: between the two messages that begin and end it, what is made of such a
//! room continues what the other's page says.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use weir_channel::id::RoomId;
use weir_channel::message::{Reply, WorkerError};

use super::event_loop::EventLoop;

/// The rooms that are being adopted.
#[derive(Debug, Default)]
pub(super) struct Adoptions {
    rooms: BTreeMap<RoomId, Adoption>,
}

/// A room that is being adopted.
#[derive(Debug)]
struct Adoption {
    /// The pages of the workers that have served it, the latest first.
    _pages: Vec<OwnedFd>,
}

impl EventLoop {
    /// What comes of this room until its adoption ends is continued.
    pub(super) fn adopt(&mut self, room: RoomId, pages: u8, descriptors: Vec<OwnedFd>) -> Result<Reply, WorkerError> {
        if descriptors.len() != usize::from(pages) {
            return Err(WorkerError::descriptors(usize::from(pages), descriptors.len()));
        }
        if self.adoptions.rooms.contains_key(&room) {
            return Err(WorkerError::invalid(format!("{room} is being adopted already")));
        }
        self.adoptions.rooms.insert(room, Adoption { _pages: descriptors });
        Ok(Reply::Done)
    }

    /// Nothing else comes of what the room was.
    pub(super) fn end_adoption(&mut self, room: RoomId) -> Result<Reply, WorkerError> {
        match self.adoptions.rooms.remove(&room) {
            Some(_) => Ok(Reply::Done),
            None => Err(WorkerError::invalid(format!("{room} is not being adopted"))),
        }
    }
}
