//! A spare process for each worker: it has said hello, is confined, has made all rooms that the worker has ([`rehearsal`](super::rehearsal)),
//! and waits to take the place of the process that serves. So a death costs no start, and little making.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::server::model::error::DeathCause;
use crate::server::workers::birth::{Born, bear};
use crate::server::workers::end::end;
use crate::server::workers::rehearsal::Rehearsal;
use crate::server::workers::shared::Shared;
use crate::server::workers::slot::Slot;

/// How long to wait before a spare that did not come up, or did not stay, is made again.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// After a death, what has waited for the next process takes all of the CPU for so long, and should have it.
const SETTLED_AFTER: Duration = Duration::from_millis(100);

/// The spare of a slot. When it is dropped its process is killed.
#[derive(Debug)]
pub(crate) struct Spare {
    wanted: Option<oneshot::Sender<()>>,
    task: JoinHandle<Option<Born>>,
}

impl Spare {
    /// Has one made, and made again when it dies. `is_restored`: the process that serves has just taken another one's place.
    pub(crate) fn keep(shared: &Arc<Shared>, slot: &Arc<Slot>, is_restored: bool) -> Self {
        let (wanted, is_wanted) = oneshot::channel();
        let after = if is_restored { SETTLED_AFTER } else { Duration::ZERO };
        Self {
            wanted: Some(wanted),
            task: tokio::spawn(keep(Arc::clone(shared), Arc::clone(slot), is_wanted, after)),
        }
    }

    /// The process, as soon as it is there; `None` if it did not come up.
    pub(crate) async fn hand_over(mut self) -> Option<Born> {
        self.wanted.take()?.send(()).ok();
        (&mut self.task).await.ok()?
    }

    /// Ends it, and waits until it is gone.
    pub(crate) async fn end(self) {
        if let Some(mut process) = self.hand_over().await {
            end(&mut process.child, Some(DeathCause::ServerClosed)).await;
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(
    shared: Arc<Shared>,
    slot: Arc<Slot>,
    mut wanted: oneshot::Receiver<()>,
    mut after: Duration,
) -> Option<Born> {
    loop {
        tokio::select! {
            biased;
            _ = &mut wanted => return None,
            () = sleep(after) => {}
        }
        after = RETRY_AFTER;
        match bear(&shared, &slot).await {
            Ok(process) => {
                if let Some(process) = rehearse(&shared, &slot, process, &mut wanted).await {
                    return process;
                }
            }
            Err(stillborn) => {
                tracing::warn!(worker = slot.id().0, cause = %stillborn.cause, "the spare process of a worker did not start");
            }
        }
    }
}

/// Has a spare rehearse until it is wanted. Returns it then; `None` within: it cannot be used. `None`: it was not wanted before it
/// went wrong.
async fn rehearse(
    shared: &Shared,
    slot: &Slot,
    mut process: Born,
    wanted: &mut oneshot::Receiver<()>,
) -> Option<Option<Born>> {
    let Some(link) = slot.link() else {
        // Its rooms are given up.
        let _ = wanted.await;
        return Some(Some(process));
    };
    let mut rehearsal = Rehearsal::new(Arc::clone(&link), &shared.state, process.child.cpu_clock());
    tokio::select! {
        biased;
        _ = wanted => {
            process.rehearsed = rehearsal.finish((&process.sender, &mut process.receiver)).await;
            Some(process.rehearsed.is_some().then_some(process))
        }
        status = process.child.wait() => {
            tracing::warn!(worker = slot.id().0, ?status, "the spare process of a worker has died");
            link.end_following();
            None
        }
        broken = rehearsal.go_on((&process.sender, &mut process.receiver), &shared.state) => {
            tracing::warn!(worker = slot.id().0, %broken, "the spare process of a worker is of no use");
            link.end_following();
            None
        }
    }
}
