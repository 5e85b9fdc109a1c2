//! How loud a room is, for those who ask.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio_stream::wrappers::BroadcastStream;
use weir_channel::message::Method;

use crate::server::api::producer::Producer;
use crate::server::model::audio_levels::Levels;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::room::RoomNode;
use crate::server::model::state::Command;
use crate::server::workers::shared::Shared;

/// A producer and how loud it was in the last 500 ms.
#[derive(Clone, Debug)]
pub struct ProducerLevel {
    /// The producer.
    pub producer: Producer,
    /// The level in dBov (RFC 6464), from -127 (silence) to 0 (the loudest possible).
    pub level_dbov: i8,
}

/// A room's audio levels: every 500 ms, the producers that were heard, the loudest first, at most 500. It is a
/// [`Stream`] that ends when the room closes. Producers that are paused or send no level are not in it. A reader that
/// is more than four seconds late misses earlier levels.
///
/// The worker stops measuring when the last of a room's streams is dropped.
pub struct AudioLevelsStream {
    levels: BroadcastStream<Levels>,
    listener: Listener,
}

/// Counts as one who listens, until it is dropped.
struct Listener {
    shared: Arc<Shared>,
    room: Arc<RoomNode>,
    counted: bool,
}

impl AudioLevelsStream {
    pub(crate) async fn open(shared: &Arc<Shared>, room: &Arc<RoomNode>) -> Result<Self, Error> {
        let mut listener = Listener {
            shared: Arc::clone(shared),
            room: Arc::clone(room),
            counted: false,
        };
        let mut receiver = None;
        let on = shared.call(room.worker, |state| {
            let entry = state.room_mut(room.id).ok_or_else(|| Error::closed(room.id))?;
            receiver = Some(entry.listeners.sender.subscribe());
            // From here on: one who leaves before the worker has answered does not end it for this one.
            entry.listeners.count += 1;
            listener.counted = true;
            Ok(Some(Command::new(Method::SetAudioLevels {
                room: room.id,
                enabled: true,
            })))
        });
        on.await?;
        let receiver = receiver.ok_or_else(|| Error::closed(room.id))?;
        Ok(Self {
            levels: BroadcastStream::new(receiver),
            listener,
        })
    }

    /// The next half second's levels; `None` when the room is closed.
    pub async fn next(&mut self) -> Option<Vec<ProducerLevel>> {
        futures::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for AudioLevelsStream {
    type Item = Vec<ProducerLevel>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(Pin::new(&mut self.levels).poll_next(context)) {
                Some(Ok(levels)) => {
                    let shared = &self.listener.shared;
                    let levels = levels.iter().map(|(node, level)| ProducerLevel {
                        producer: Producer::new(shared, node),
                        level_dbov: level.level_dbov,
                    });
                    return Poll::Ready(Some(levels.collect()));
                }
                // Out of date anyway.
                Some(Err(_)) => {}
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let mut state = lock(&self.shared.state);
        let Some(entry) = state.room_mut(self.room.id) else {
            return;
        };
        entry.listeners.count -= 1;
        if entry.listeners.any() {
            return;
        }
        state.follow_up(Method::SetAudioLevels {
            room: self.room.id,
            enabled: false,
        });
        self.shared.send_follow_ups(self.room.worker, &mut state);
    }
}

impl fmt::Debug for AudioLevelsStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioLevelsStream")
            .field("room", &self.listener.room.id)
            .finish_non_exhaustive()
    }
}
