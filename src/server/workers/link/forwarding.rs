//! Requests on their way from the queues into the channel.

use std::future::pending;
use std::sync::Mutex;

use tokio::sync::mpsc;
use weir_channel::endpoint::RequestSender;
use weir_channel::error::ChannelError;
use weir_channel::message::{Response, WorkerError};

use super::{End, Link, Queued};
use crate::server::model::state::State;

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

/// Hands on all of these.
pub(super) async fn forward_all(
    link: &Link,
    all: Vec<Queued>,
    sender: &RequestSender,
    state: &Mutex<State>,
) -> Result<(), End> {
    for queued in all {
        forward_one(link, queued, sender, state).await?;
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
        Err(error) => WorkerError::Os {
            call: "dup".to_owned(),
            reason: error.to_string(),
        },
    };
    let result = Err(refusal);
    link.apply(state, Response { id, result })
}
