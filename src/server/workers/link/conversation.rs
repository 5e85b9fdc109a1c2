//! The conversation with one process: what is said to it, and what is heard from it, until it ends.

use std::future::pending;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};
use weir_channel::endpoint::{FromWorker, RequestSender, WorkerReceiver};

use super::forwarding::{forward, forward_all};
use super::in_turn::{Branch, first_of};
use super::pulse::ping;
use super::timeouts::probe;
use super::{End, First, Link, Queues};
use crate::server::model::lock;
use crate::server::model::state::State;

/// So many messages are read at most before a verdict. As much as a socket of the largest usual size (4 MiB) holds of answers;
/// a worker that floods its channel and answers no ping is taken for hung after them.
const READ_BEFORE_VERDICT_MAX: usize = 1 << 16;

/// Holds the conversation with a process until it ends: says what comes `first`, then what is in the queues. `on_pulse` hears how
/// long each ping took.
pub(crate) async fn converse(
    link: &Link,
    queues: &mut Queues,
    first: First,
    channel: (RequestSender, WorkerReceiver),
    state: &Mutex<State>,
    on_pulse: impl Fn(Duration) + Send,
) -> End {
    let (sender, mut receiver) = channel;
    for heard in first.heard {
        if let Err(end) = hear(link, heard, state) {
            return end;
        }
    }
    let (may_ask, may_be_asked) = oneshot::channel();
    let mut commands = pin!(async {
        if let Err(end) = forward_all(link, first.control, &sender, state).await {
            return Some(end);
        }
        // The questions are about what is made by these.
        let _ = may_ask.send(());
        Some(forward(link, &mut queues.control, &sender, state).await)
    });
    let mut questions = pin!(async {
        let _ = may_be_asked.await;
        if let Err(end) = forward_all(link, first.bulk, &sender, state).await {
            return Some(end);
        }
        Some(forward(link, &mut queues.bulk, &sender, state).await)
    });
    let mut pings = pin!(async { Some(ping(link, on_pulse).await) });
    let mut probes = pin!(async { Some(probe(link).await) });
    let mut condemned = pin!(async { Some(condemned(link).await) });
    let mut turn = 0;
    // One task for all of it: they share the link's table and the state, and spend their time waiting.
    loop {
        let end = {
            let mut read = pin!(async { Some(read(link, &mut receiver, state).await) });
            let mut overdue = pin!(async {
                overdue(link).await;
                None
            });
            let branches: [Branch<'_, Option<End>>; 7] = [
                read.as_mut(),
                commands.as_mut(),
                questions.as_mut(),
                pings.as_mut(),
                probes.as_mut(),
                condemned.as_mut(),
                overdue.as_mut(),
            ];
            first_of(&mut turn, branches).await
        };
        if let Some(end) = end {
            return end;
        }
        if let Err(end) = read_arrived(link, &mut receiver, state).await {
            return end;
        }
        if let Err(end) = link.expire() {
            return end;
        }
    }
}

/// Reads on and on. Cancel safe.
async fn read(link: &Link, receiver: &mut WorkerReceiver, state: &Mutex<State>) -> End {
    loop {
        let heard = match receiver.next().await {
            Ok(heard) => hear(link, heard, state),
            Err(error) => Err(End::Channel(error)),
        };
        if let Err(end) = heard {
            return end;
        }
    }
}

/// Reads what has arrived, until nothing is overdue any more.
async fn read_arrived(link: &Link, receiver: &mut WorkerReceiver, state: &Mutex<State>) -> Result<(), End> {
    for _ in 0..READ_BEFORE_VERDICT_MAX {
        tokio::task::coop::consume_budget().await;
        match receiver.next_arrived() {
            Ok(Some(heard)) => hear(link, heard, state)?,
            Ok(None) => break,
            Err(error) => return Err(End::Channel(error)),
        }
        if !link.is_overdue() {
            break;
        }
    }
    Ok(())
}

fn hear(link: &Link, heard: FromWorker, state: &Mutex<State>) -> Result<(), End> {
    match heard {
        FromWorker::Response(response) => link.apply(state, response),
        FromWorker::Notification(notification) => link.hear(state, notification, None),
        FromWorker::WithDescriptor(notification, descriptor) => link.hear(state, notification, descriptor),
    }
}

/// Ends when who asked the worker has found it out.
async fn condemned(link: &Link) -> End {
    loop {
        if let Some(reason) = lock(&link.table).condemned.clone() {
            return End::Misbehaved(reason);
        }
        link.condemned.notified().await;
    }
}

/// Goes on as long as there is no process: those who wait for longer than they would are told.
pub(crate) async fn expire_meanwhile<T>(link: Option<&Link>, meanwhile: impl Future<Output = T>) -> T {
    let expiring = async {
        let Some(link) = link else {
            return pending().await;
        };
        loop {
            overdue(link).await;
            // The next process starts with a clean sheet.
            let _ = link.expire();
        }
    };
    tokio::select! {
        biased;
        outcome = meanwhile => outcome,
        never = expiring => never,
    }
}

/// Looks at the clock as long as somebody waits, and ends when somebody has waited for as long as they would.
async fn overdue(link: &Link) {
    loop {
        let next_look = {
            let mut table = lock(&link.table);
            let now = table.own.look(Instant::now());
            match table.pending.next_deadline() {
                Some(deadline) if deadline <= now => return,
                Some(deadline) => Some(table.own.step().min(deadline - now)),
                None => None,
            }
        };
        match next_look {
            Some(wait) => sleep(wait).await,
            None => link.asked.notified().await,
        }
    }
}
