//! Rooms: peers that send sound and pictures, and receive all the others' over one transport each.

use std::net::UdpSocket;
use std::sync::Arc;

use anyhow::Context as _;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use weir::{ConsumerOptions, Producer, Transport};

use crate::cli::measuring::progress::Progress;
use crate::cli::measuring::random::Random;

use super::plan::Plan;
use super::testbed::{SETUP_CONCURRENCY, Testbed, produce};
use super::traffic::{Source, packets_per_frame};

/// A peer, while its room is set up.
struct Peer {
    room: usize,
    socket: Arc<UdpSocket>,
    transport: Transport,
}

impl Testbed {
    /// What `--rooms` and `--peers` ask for.
    pub(super) async fn populate_rooms(&mut self, rooms: usize, peers: usize) -> anyhow::Result<Plan> {
        let mut plan = Plan::new(self.args.gro_receivers)?;
        let packets_per_frame = packets_per_frame(self.args.encoder(), self.args.seed);
        let everybody = self.peers(rooms, peers, &plan).await?;
        let clients: Vec<(&UdpSocket, &Transport)> =
            everybody.iter().map(|peer| (&*peer.socket, &peer.transport)).collect();
        let sessions = self.connect(&clients).await?;
        // Those who look at what they get are spread over the rooms.
        let apart = (everybody.len() / self.args.verify.max(1) as usize).max(1);
        let mut looking = 0;
        let mut owners = Vec::new();
        for (number, (peer, session)) in everybody.iter().zip(sessions).enumerate() {
            let sources = self.sources_of(number, peers - 1, packets_per_frame);
            if let Some(session) = session {
                let ssrcs: Vec<u32> = sources.iter().map(|source| source.ssrc).collect();
                plan.encryption.sends(&ssrcs, &session)?;
                let is_looked_at = number.is_multiple_of(apart) && looking < self.args.verify;
                looking += u32::from(is_looked_at);
                plan.encryption.receives(&session, is_looked_at);
                plan.encryption.checks.push((Arc::clone(&peer.socket), session.checks));
            }
            let room = peer.room * peers..(peer.room + 1) * peers;
            for source in sources {
                owners.push(number);
                plan.senders.push(Arc::clone(&peer.socket));
                plan.targets
                    .push(room.clone().filter(|other| *other != number).collect());
                plan.sources.push(source);
            }
            plan.add_path(&peer.transport, &peer.socket, self.args.one_port.is_some())?;
            plan.receivers.push(Arc::clone(&peer.socket));
        }
        let producers: Vec<Producer> = stream::iter(owners.iter().zip(&plan.sources))
            .map(|(owner, source)| produce(&everybody[*owner].transport, source, self.args.nack))
            .buffered(SETUP_CONCURRENCY)
            .try_collect()
            .await?;
        let progress = Progress::new("consumers", (producers.len() * (peers - 1)) as u64);
        let pairs = producers.iter().zip(&plan.targets).flat_map(|(producer, targets)| {
            let targets = targets.iter().map(|target| &everybody[*target].transport);
            targets.map(move |transport| (producer, transport))
        });
        stream::iter(pairs)
            .map(|(producer, transport)| async {
                transport.consume(producer.id(), ConsumerOptions::default()).await?;
                progress.advance();
                anyhow::Ok(())
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect::<()>()
            .await
            .context("making the consumers")?;
        Ok(plan)
    }

    /// The peers of all rooms with their transports, room by room.
    async fn peers(&mut self, rooms: usize, peers: usize, plan: &Plan) -> anyhow::Result<Vec<Peer>> {
        for _ in 0..rooms {
            self.add_room().await?;
        }
        let progress = Progress::new("peers", (rooms * peers) as u64);
        stream::iter(0..rooms * peers)
            .map(|number| {
                let (this, progress) = (&*self, &progress);
                let room = number / peers;
                async move {
                    let socket = Arc::new(plan.receiver()?);
                    let transport = this.transport(room, &socket).await?;
                    this.address(&socket, &transport)?;
                    progress.advance();
                    anyhow::Ok(Peer {
                        room,
                        socket,
                        transport,
                    })
                }
            })
            .buffered(SETUP_CONCURRENCY)
            .try_collect()
            .await
    }

    /// What a peer sends. Peers have joined at any time, so their frames are due at any time.
    fn sources_of(&self, number: usize, others: usize, packets_per_frame: f64) -> Vec<Source> {
        let frames = self.args.encoder();
        let mut random = Random::new(self.args.seed_of(number as u32));
        let ssrc = 1_000 + 2 * number as u32;
        let mut sources = Vec::new();
        if !self.args.no_sound {
            sources.push(Source::opus(ssrc));
        }
        sources.push(Source::video(ssrc + 1, frames, self.args.cut(), packets_per_frame));
        for source in &mut sources {
            source.seed = random.next();
            source.phase = random.share();
            source.fan_out = others;
            source.overhead = self.args.overhead();
        }
        sources
    }
}
