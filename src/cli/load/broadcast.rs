//! The fan-out: producers and consumers, each on a transport of its own.

use std::sync::Arc;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use weir::{ConsumerOptions, Transport};

use crate::cli::measuring::progress::Progress;
use crate::cli::measuring::socket::local_socket;

use super::frames::Frames;
use super::plan::Plan;
use super::testbed::{SETUP_CONCURRENCY, Testbed, produce};
use super::traffic::Source;

/// Receivers' sockets. More consumers than this share them, so that 5,000 consumers (with two sockets each in the server and
/// one in the baseline) stay below a limit of 20,000 descriptors. The worker's side of a consumer is its own in any case.
const RECEIVERS_MAX: usize = 2_000;

/// Consumers that the first reading of the worker's memory is taken with.
const MEMORY_BASE: usize = 100;

impl Testbed {
    /// What `--producers` and `--consumers` ask for.
    pub(super) async fn broadcast(&mut self) -> anyhow::Result<Plan> {
        let mut plan = Plan::new(self.args.gro_receivers)?;
        let room = self.add_room().await?;
        let mut producers = Vec::new();
        let frames = Frames::Alike {
            packets: self.args.burst as usize,
            packet_bytes: self.args.payload as usize,
        };
        for index in 0..self.args.producers {
            let socket = Arc::new(local_socket()?);
            let transport = self.transport(room, &socket).await?;
            self.address(&socket, &transport)?;
            let mut source = Source::video(1_000 + index, frames, self.args.cut(), f64::from(self.args.burst));
            source.seed = self.args.seed_of(index);
            source.overhead = self.args.overhead();
            // Spread over their interval, so that they do not all send at once.
            source.phase = f64::from(index) / f64::from(self.args.producers);
            producers.push(produce(&transport, &source, self.args.nack).await?);
            if let Some(session) = self.connect(&[(&socket, &transport)]).await?.pop().flatten() {
                plan.encryption.sends(&[source.ssrc], &session)?;
                plan.encryption.checks.push((Arc::clone(&socket), session.checks));
            }
            plan.sources.push(source);
            plan.targets.push(Vec::new());
            plan.senders.push(socket);
        }
        let consumers = self.args.consumers as usize;
        let paused = (consumers as f64 * self.args.paused).round() as usize;
        let progress = Progress::new("consumers", consumers as u64);
        // A client has a socket of its own, as its transport is bound to one address of it.
        let sockets = if self.is_encrypted() {
            consumers
        } else {
            consumers.min(RECEIVERS_MAX)
        };
        for _ in 0..sockets {
            plan.receivers.push(Arc::new(plan.receiver()?));
        }
        let mut resident_at_base = None;
        let mut made = 0;
        while made < consumers {
            // The first hundred, then the rest, with a reading of the memory in between.
            let until = if made == 0 {
                consumers.min(MEMORY_BASE)
            } else {
                consumers
            };
            let receivers: Vec<_> = (made..until)
                .map(|index| Arc::clone(&plan.receivers[index % sockets]))
                .collect();
            let batch: Vec<Transport> = stream::iter((made..until).zip(&receivers))
                .map(|(index, receiver)| {
                    let producer = producers[index % producers.len()].id();
                    let (this, room, progress) = (&*self, room, &progress);
                    async move {
                        let transport = this.transport(room, receiver).await?;
                        let options = ConsumerOptions {
                            paused: index < paused,
                            ..ConsumerOptions::default()
                        };
                        transport
                            .consume(producer, options)
                            .await
                            .context("making a consumer")?;
                        progress.advance();
                        anyhow::Ok(transport)
                    }
                })
                .buffered(SETUP_CONCURRENCY)
                .try_collect()
                .await?;
            let clients: Vec<_> = receivers.iter().map(|receiver| &**receiver).zip(&batch).collect();
            let sessions = self.connect(&clients).await?;
            for (((index, receiver), transport), session) in (made..until).zip(&receivers).zip(&batch).zip(sessions) {
                if let Some(session) = session {
                    let is_looked_at = index >= paused && index - paused < self.args.verify as usize;
                    plan.encryption.receives(&session, is_looked_at);
                    plan.encryption.checks.push((Arc::clone(receiver), session.checks));
                }
                let source = index % plan.sources.len();
                if index >= paused {
                    plan.sources[source].fan_out += 1;
                    plan.targets[source].push(plan.paths.len());
                    plan.add_path(transport, receiver, self.args.one_port.is_some())?;
                }
            }
            made = until;
            let resident = self.worker_stats().await?.resident_bytes;
            match resident_at_base {
                None => resident_at_base = Some(resident),
                Some(base) => {
                    let more = (consumers - MEMORY_BASE) as f64;
                    self.resident_bytes_per_consumer = Some((resident as f64 - base as f64) / more);
                }
            }
        }
        Ok(plan)
    }
}
