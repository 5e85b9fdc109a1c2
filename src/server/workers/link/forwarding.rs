//! Requests on their way from the queues into the channel.

use std::future::pending;
use std::io;
use std::sync::Mutex;

use tokio::sync::mpsc;
use weir_channel::endpoint::{RequestSender, Together};
use weir_channel::error::ChannelError;
use weir_channel::id::RequestId;
use weir_channel::message::{Response, WorkerError};

use super::{End, Link, Queued};
use crate::server::model::state::State;

/// The most requests in a frame: some 10 kB of them, so that a worker begins with the first while others are still being made ready.
const TOGETHER_MAX: usize = 128;

/// Hands on what is queued, for ever.
pub(super) async fn forward(
    link: &Link,
    queue: &mut mpsc::UnboundedReceiver<Queued>,
    sender: &RequestSender,
    state: &Mutex<State>,
) -> End {
    while let Some(queued) = queue.recv().await {
        if let Err(end) = forward_one(link, queued, sender, state).await {
            return end;
        }
    }
    // The link holds the sender, and outlives the conversation.
    pending().await
}

/// Hands on all of these, in few frames.
pub(super) async fn forward_all(
    link: &Link,
    all: Vec<Queued>,
    sender: &RequestSender,
    state: &Mutex<State>,
) -> Result<(), End> {
    let mut together = Together::default();
    for mut queued in all {
        let id = queued.request.id;
        let descriptors = match queued.attached.descriptors(&mut queued.request.method) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                refuse(link, id, not_duplicated(&error), state)?;
                continue;
            }
        };
        if together.len() == TOGETHER_MAX || !together.has_room_for(descriptors.len()) {
            forward_together(link, std::mem::take(&mut together), sender, state).await?;
        }
        if let Err(error) = together.push(queued.request, descriptors) {
            refuse(link, id, WorkerError::InvalidParameters(error.to_string()), state)?;
        }
    }
    forward_together(link, together, sender, state).await
}

/// Hands on requests as one frame; as several if they are too long for one.
async fn forward_together(
    link: &Link,
    together: Together,
    sender: &RequestSender,
    state: &Mutex<State>,
) -> Result<(), End> {
    let mut parts = vec![together];
    while let Some(mut part) = parts.pop() {
        match sender.send_together(&mut part).await {
            Ok(()) => {}
            // The channel is fine.
            Err(ChannelError::Unsendable(error)) => {
                let second = part.split();
                if part.is_empty() {
                    for request in second.requests() {
                        refuse(
                            link,
                            request.id,
                            WorkerError::InvalidParameters(error.to_string()),
                            state,
                        )?;
                    }
                } else {
                    parts.extend([second, part]);
                }
            }
            Err(error) => return Err(End::Channel(error)),
        }
    }
    Ok(())
}

/// Hands a request to the channel; one that it cannot take is refused in the worker's place.
async fn forward_one(link: &Link, mut queued: Queued, sender: &RequestSender, state: &Mutex<State>) -> Result<(), End> {
    let id = queued.request.id;
    let refusal = match queued.attached.descriptors(&mut queued.request.method) {
        Ok(descriptors) => match sender.send(queued.request, descriptors).await {
            Ok(()) => return Ok(()),
            // Too large for a frame. The channel is fine; the caller's parameters are not.
            Err(error @ (ChannelError::Unsendable(_) | ChannelError::Descriptors(_))) => {
                WorkerError::InvalidParameters(error.to_string())
            }
            Err(error) => return Err(End::Channel(error)),
        },
        Err(error) => not_duplicated(&error),
    };
    refuse(link, id, refusal, state)
}

fn not_duplicated(error: &io::Error) -> WorkerError {
    WorkerError::Os {
        call: "dup".to_owned(),
        reason: error.to_string(),
    }
}

/// Answers a request in the worker's place.
fn refuse(link: &Link, id: RequestId, refusal: WorkerError, state: &Mutex<State>) -> Result<(), End> {
    let result = Err(refusal);
    link.apply(state, Response { id, result })
}
