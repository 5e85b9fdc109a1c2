//! What happens in a server, as a stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use crate::server::model::event::{Event, EventKind};

/// A subscription to a server's events, from the moment it was made.
///
/// It is a [`Stream`]; it ends after [`EventKind::ServerClosed`]. A subscriber that falls more than 16,384 events behind
/// gets an [`EventKind::Lagged`] that says how many it lost, and disturbs nobody else.
pub struct EventStream {
    // None once the server was closed before the subscription was made.
    events: Option<BroadcastStream<Arc<Event>>>,
    seq_next: u64,
}

impl EventStream {
    pub(crate) fn new((events, seq_next): (Option<broadcast::Receiver<Arc<Event>>>, u64)) -> Self {
        Self {
            events: events.map(BroadcastStream::new),
            seq_next,
        }
    }

    /// The number of the event before the next one: of the last one that was returned, or else of the last one that
    /// happened before the subscription; 0 if none has.
    pub fn position(&self) -> u64 {
        self.seq_next - 1
    }

    /// The next event; `None` when the server is closed and every event has been seen.
    pub async fn next(&mut self) -> Option<Arc<Event>> {
        futures::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }
}

impl Stream for EventStream {
    type Item = Arc<Event>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = &mut self.events else {
            return Poll::Ready(None);
        };
        match Pin::new(events).poll_next(context) {
            Poll::Ready(Some(Ok(event))) => {
                self.seq_next = event.seq + 1;
                Poll::Ready(Some(event))
            }
            Poll::Ready(Some(Err(BroadcastStreamRecvError::Lagged(count)))) => {
                let seq = self.seq_next + count - 1;
                self.seq_next = seq + 1;
                Poll::Ready(Some(Arc::new(Event::now(seq, EventKind::Lagged { count }))))
            }
            Poll::Ready(None) => {
                self.events = None;
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
