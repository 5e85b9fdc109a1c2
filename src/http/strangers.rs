//! Places for connections: those of callers who have shown that they may command the server, and those of strangers.
//!
//! A stranger's place is taken away when others need one: whoever opens hundreds of connections and says nothing on them
//! displaces itself. Callers who have sent the right token, and processes on the control socket, keep theirs.

use std::sync::{Arc, Mutex};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::crowd::{Crowd, Network, Standing};
use super::listen::{Caller, Limits};
use crate::server::lock;

/// The places of one listener.
pub(super) struct Places {
    known: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    crowd: Arc<Crowd>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            known: Arc::new(Semaphore::new(limits.connections)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
            crowd: Crowd::new(limits.strangers, limits.strangers_per_network),
        }
    }

    /// A place for a new connection. Processes of this machine wait for one; for a stranger another one gives way.
    pub(super) async fn take(&self, caller: Caller) -> Option<Arc<Place>> {
        let (stranger, permits) = match caller {
            Caller::Process(_) => (None, &self.known),
            Caller::Remote(address) => (Some(self.crowd.enter(Network::of(address.ip()))), &self.strangers),
        };
        // The semaphore is never closed, so there always is a permit in the end.
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        Some(Arc::new(Place {
            known: Arc::clone(&self.known),
            stranger,
            permit: Mutex::new(permit),
        }))
    }
}

/// A connection's place; free again when it is dropped.
pub(super) struct Place {
    known: Arc<Semaphore>,
    /// For one that came as a stranger.
    stranger: Option<Standing>,
    permit: Mutex<OwnedSemaphorePermit>,
}

impl Place {
    /// The caller has shown that it may command the server: the connection is a stranger's no more, if there is a place for
    /// it among the others. Otherwise it goes on as it is.
    pub(super) fn prove(&self) {
        let Some(stranger) = self.stranger.as_ref().filter(|stranger| stranger.stands()) else {
            return;
        };
        if let Ok(permit) = Arc::clone(&self.known).try_acquire_owned()
            && stranger.leave()
        {
            *lock(&self.permit) = permit;
        }
    }

    /// Ends when another connection needs the place.
    pub(super) async fn evicted(&self) {
        match &self.stranger {
            Some(stranger) => stranger.evicted().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn limits(connections: usize, strangers: usize) -> Limits {
        Limits {
            connections,
            strangers,
            strangers_per_network: strangers,
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn whoever_has_proved_it_is_displaced_by_nobody() {
        let places = Places::new(&limits(1, 2));
        let remote = Caller::Remote("192.0.2.1:5".parse().unwrap());
        let operator = places.take(remote).await.unwrap();
        operator.prove();
        operator.prove();
        let second = places.take(remote).await.unwrap();
        // There is no place for another one, so it stays a stranger.
        second.prove();
        let mut strangers = vec![second];
        for _ in 0..10 {
            let taken = places.take(remote);
            let mut taken = std::pin::pin!(taken);
            let Some(place) = taken.as_mut().now_or_never() else {
                // As a connection does that has to go.
                strangers[0].evicted().await;
                strangers.remove(0);
                strangers.push(taken.await.unwrap());
                continue;
            };
            strangers.push(place.unwrap());
        }
        assert_eq!(strangers.len(), 2);
        assert!(operator.evicted().now_or_never().is_none());
        drop(operator);
        strangers[1].prove();
        assert_eq!(places.known.available_permits(), 0);
        assert_eq!(places.crowd.count(), 1);
    }
}
