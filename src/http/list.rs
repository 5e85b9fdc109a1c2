//! Lists in parts: at most so many things after a given id.

use serde::Deserialize;
use weir_channel::id::{ProducerId, RoomId, TransportId};

use super::error::ApiError;
use super::extract::{Id, PeerPath};
use super::named::Named;
use super::state::App;
use super::view::Listing;
use crate::{Peer, Producer, Room, Transport};

/// The largest part of a list.
pub const LIST_MAX: usize = 1_000;

/// The size of a part when none is asked for.
const LIST_DEFAULT: usize = 100;

/// `?room=1&after=7&limit=100`
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    pub(super) room: Option<RoomId>,
    pub(super) transport: Option<TransportId>,
    pub(super) producer: Option<ProducerId>,
    /// Only those of this peer.
    peer: Option<String>,
    after: Option<u64>,
    limit: Option<usize>,
}

impl ListQuery {
    /// The rooms whose things are asked for.
    pub(super) fn rooms(&self, app: &App) -> Result<Vec<Room>, ApiError> {
        let mut rooms = match self.room {
            Some(id) => vec![Room::find(app, Id(id))?],
            None => app.server.rooms(),
        };
        if let Some(id) = self.transport {
            let room = Transport::find(app, Id(id))?.room().id();
            rooms.retain(|candidate| candidate.id() == room);
        }
        if let Some(id) = self.producer {
            let room = Producer::find(app, Id(id))?.room().id();
            rooms.retain(|candidate| candidate.id() == room);
        }
        Ok(rooms)
    }

    /// The peer whose things are asked for.
    pub(super) fn peer(&self, app: &App) -> Result<Option<Peer>, ApiError> {
        match (&self.peer, self.room) {
            (None, _) => Ok(None),
            (Some(_), None) => Err(ApiError::query(
                "peer: names are unique in a room only; give the room too",
            )),
            (Some(name), Some(room)) => {
                let name = name.clone();
                Peer::find(app, PeerPath { room, name }).map(Some)
            }
        }
    }

    /// Refuses filters that mean nothing for what is listed.
    pub(super) fn only(self, allowed: &[&str]) -> Result<Self, ApiError> {
        let given = [
            ("room", self.room.is_some()),
            ("transport", self.transport.is_some()),
            ("producer", self.producer.is_some()),
            ("peer", self.peer.is_some()),
        ];
        match given.iter().find(|(name, given)| *given && !allowed.contains(name)) {
            None => Ok(self),
            Some((name, _)) => Err(ApiError::query(format_args!(
                "{name}: this list cannot be filtered by that"
            ))),
        }
    }

    /// The part of `all` that is asked for. `id` tells a thing's id.
    pub(super) fn part<T, V: for<'a> From<&'a T>>(&self, all: Vec<T>, id: impl Fn(&T) -> u64) -> Listing<V> {
        let (part, next) = part(all, id, self.after, self.limit);
        Listing {
            items: part.iter().map(V::from).collect(),
            next,
        }
    }
}

/// Of `all`, ordered by `key`, at most `limit` after the key `after`; and the last key, if there are more after that.
pub(super) fn part<T, K: Ord>(
    mut all: Vec<T>,
    key: impl Fn(&T) -> K,
    after: Option<K>,
    limit: Option<usize>,
) -> (Vec<T>, Option<K>) {
    let limit = limit.unwrap_or(LIST_DEFAULT).clamp(1, LIST_MAX);
    if let Some(after) = after {
        all.retain(|thing| key(thing) > after);
    }
    all.sort_by_cached_key(&key);
    let next = (all.len() > limit).then(|| key(&all[limit - 1]));
    all.truncate(limit);
    (all, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(PartialEq, Eq, Debug)]
    struct Shown(u64);

    impl From<&u64> for Shown {
        fn from(id: &u64) -> Self {
            Self(*id)
        }
    }

    fn shown(query: &ListQuery, all: Vec<u64>) -> Listing<Shown> {
        query.part(all, |id| *id)
    }

    fn query(after: Option<u64>, limit: Option<usize>) -> ListQuery {
        ListQuery {
            after,
            limit,
            ..ListQuery::default()
        }
    }

    #[test]
    fn parts_cover_the_list_once() {
        for limit in [1, 3, 10, 11] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let part = shown(&query(after, Some(limit)), (1..=10).rev().collect());
                assert!(part.items.len() <= limit);
                seen.extend(part.items);
                after = part.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, (1..=10).map(Shown).collect::<Vec<_>>(), "in parts of {limit}");
        }
    }

    #[test]
    fn no_part_is_larger_than_the_largest_nor_empty_without_end() {
        let all = || (1..=5_000_u64).collect::<Vec<_>>();
        assert_eq!(shown(&query(None, Some(usize::MAX)), all()).items.len(), LIST_MAX);
        assert_eq!(shown(&query(None, None), all()).items.len(), LIST_DEFAULT);
        assert_eq!(shown(&query(None, Some(0)), all()).items.len(), 1);
        assert_eq!(shown(&query(Some(u64::MAX), None), all()).next, None);
    }
}
