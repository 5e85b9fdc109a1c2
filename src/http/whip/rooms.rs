//! Rooms as publishers and players name them. A number is the id of a room that there is. Any other name is of a room that the first
//! of them makes, and that ends with its last session if nobody else is in it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;

use axum::http::StatusCode;
use serde_json::{Value, json};
use tracing::debug;

use super::problem::Problem;
use crate::server::lock;
use crate::{Room, RoomId, RoomOptions, Server};

/// The most bytes in a room's name.
const NAME_BYTES_MAX: usize = 64;

/// The rooms that have names.
#[derive(Default)]
pub(super) struct Rooms {
    named: Mutex<HashMap<String, NamedRoom>>,
}

#[derive(Default)]
struct NamedRoom {
    /// Held while it is made or closed.
    room: Arc<tokio::sync::Mutex<Option<Room>>>,
    /// Those who are in it, or about to.
    stays: usize,
}

/// Somebody's stay in a room.
pub(super) struct Stay {
    room: Room,
    /// Keeps a room open that has a name.
    _name: Option<NameInUse>,
}

impl Stay {
    pub(super) fn room(&self) -> &Room {
        &self.room
    }
}

impl Rooms {
    /// The room, made if it has a name and there is none.
    pub(super) async fn enter(self: &Arc<Self>, server: &Server, name: &str) -> Result<Stay, Problem> {
        if let Some(id) = id_of(name)? {
            return room_with(server, id);
        }
        let name_in_use = self.use_name(name);
        let place = self.place_of(name);
        let mut held = place.lock().await;
        let room = match held.as_ref().filter(|room| !room.closed()) {
            Some(room) => room.clone(),
            None => {
                let made = server.create_room(RoomOptions {
                    app_data: json!({ "name": name }),
                    ..RoomOptions::default()
                });
                held.insert(made.await?).clone()
            }
        };
        Ok(Stay {
            room,
            _name: Some(name_in_use),
        })
    }

    fn use_name(self: &Arc<Self>, name: &str) -> NameInUse {
        lock(&self.named).entry(name.to_owned()).or_default().stays += 1;
        NameInUse {
            rooms: Arc::clone(self),
            name: name.to_owned(),
        }
    }

    fn place_of(&self, name: &str) -> Arc<tokio::sync::Mutex<Option<Room>>> {
        Arc::clone(&lock(&self.named).entry(name.to_owned()).or_default().room)
    }

    /// Closes a room in which nobody is any more, and forgets its name and those of rooms that others have closed. A room in which others are
    /// is theirs now, and keeps its name.
    async fn tidy(&self, name: String) {
        let place = self.place_of(&name);
        let mut held = place.lock().await;
        let is_left = lock(&self.named).get(&name).is_none_or(|own| own.stays == 0);
        let room = held
            .clone()
            .filter(|room| is_left && !room.closed() && room.peer_count() == 0);
        if let Some(room) = room
            && let Err(error) = room.close(Value::Null).await
        {
            debug!(%error, name, "a room without anybody is still there");
        }
        held.take_if(|room| room.closed());
        drop(held);
        drop(place);
        lock(&self.named).retain(|_, own| {
            let is_open = || {
                own.room
                    .try_lock()
                    .is_ok_and(|room| room.as_ref().is_some_and(|room| !room.closed()))
            };
            // Who holds its place is about to make or find it.
            own.stays > 0 || Arc::strong_count(&own.room) > 1 || is_open()
        });
    }
}

/// A name that keeps its room open.
struct NameInUse {
    rooms: Arc<Rooms>,
    name: String,
}

impl Drop for NameInUse {
    fn drop(&mut self) {
        let is_last = {
            let mut named = lock(&self.rooms.named);
            let own = named.get_mut(&self.name);
            own.is_none_or(|own| {
                own.stays = own.stays.saturating_sub(1);
                own.stays == 0
            })
        };
        // Without a runtime the server is gone, too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current()
            && is_last
        {
            let (rooms, name) = (Arc::clone(&self.rooms), std::mem::take(&mut self.name));
            runtime.spawn(async move { rooms.tidy(name).await });
        }
    }
}

/// The id that a name is; `None`: it is a name.
fn id_of(name: &str) -> Result<Option<RoomId>, Problem> {
    if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit()) {
        let id = name.parse().map(RoomId);
        return id.map(Some).map_err(|_| no_room(name));
    }
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_allowed) {
        let message = format!(
            "a room's name has 1 to {NAME_BYTES_MAX} letters, digits, and - . _ ~; or give the id of a room that there is"
        );
        return Err(Problem::new(StatusCode::BAD_REQUEST, "invalidId", message));
    }
    Ok(None)
}

fn room_with(server: &Server, id: RoomId) -> Result<Stay, Problem> {
    let room = server.room(id).ok_or_else(|| no_room(&id.0.to_string()))?;
    Ok(Stay { room, _name: None })
}

fn no_room(id: &str) -> Problem {
    let message =
        format!("there is no room {id:.20}; a room that is not there yet is made for a name, not for a number");
    Problem::new(StatusCode::NOT_FOUND, "notFound", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_ids_and_everything_else_is_a_name_or_refused() {
        assert_eq!(id_of("7").unwrap(), Some(RoomId(7)));
        assert_eq!(id_of("stage-7.a_b~").unwrap(), None);
        assert_eq!(id_of(&"x".repeat(64)).unwrap(), None);
        for wrong in ["", "a/b", "späth", "a b", &"x".repeat(65), &"9".repeat(30)] {
            assert!(id_of(wrong).is_err(), "{wrong}");
        }
    }
}
