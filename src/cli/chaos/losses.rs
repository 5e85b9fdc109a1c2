//! What is known of packets that did not come: of what, by which ways, when they were sent, and what the server says that it dropped.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Serialize;
use weir::{ConsumerId, WorkerId};
use weir_channel::message::{Counts, DropReason, IceProtocol, MediaKind, NotRepaired, UnroutedReason};

use super::driver::Client;
use super::scene::Scene;

/// What was sent for so long before a worker died may have been in its hands: more than a turn, and than the way there.
const IN_HAND_NS: u64 = 20_000_000;

/// What is sent for so long after it waits for the next process.
const GAP_NS: u64 = 500_000_000;

/// Packets of which it is known how many receivers have lost them.
const KNOWN_MAX: usize = 4_096;

/// What a client comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Plain,
    Udp,
    Tcp,
}

impl Way {
    pub(super) fn of(client: &Client) -> Self {
        match (&client.crypto, client.wire.protocol()) {
            (None, _) => Self::Plain,
            (Some(_), IceProtocol::Udp) => Self::Udp,
            (Some(_), IceProtocol::Tcp) => Self::Tcp,
        }
    }
}

/// Packets by what their clients come by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct ByWay {
    plain: u64,
    udp: u64,
    tcp: u64,
}

impl ByWay {
    fn of(&mut self, way: Way) -> &mut u64 {
        match way {
            Way::Plain => &mut self.plain,
            Way::Udp => &mut self.udp,
            Way::Tcp => &mut self.tcp,
        }
    }

    fn since(self, before: Self) -> Self {
        Self {
            plain: self.plain - before.plain,
            udp: self.udp - before.udp,
            tcp: self.tcp - before.tcp,
        }
    }
}

/// Packets that did not come, each counted once for each receiver that it did not come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Lost {
    sound: u64,
    video: u64,
    /// Those that no receiver of their source got: they were lost on their way to the server, or in it before it sent them to anybody.
    to_nobody: u64,
    /// When they were sent: so shortly before a worker died that it may have had them in hand,
    before_death: u64,
    /// from then on, while there may have been no process to read them,
    in_gap: u64,
    /// or at another time.
    otherwise: u64,
    /// What their senders come by.
    from: ByWay,
    /// What their receivers come by.
    to: ByWay,
}

impl Lost {
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            sound: self.sound - before.sound,
            video: self.video - before.video,
            to_nobody: self.to_nobody - before.to_nobody,
            before_death: self.before_death - before.before_death,
            in_gap: self.in_gap - before.in_gap,
            otherwise: self.otherwise - before.otherwise,
            from: self.from.since(before.from),
            to: self.to.since(before.to),
        }
    }

    /// In words.
    pub(super) fn what(&self) -> String {
        let Self { from, to, .. } = self;
        format!(
            "{} sound, {} video; {} came to nobody; sent before a death {}, in a gap {}, otherwise {}; from plain {}, UDP {}, TCP {}; to plain {}, UDP {}, TCP {}",
            self.sound,
            self.video,
            self.to_nobody,
            self.before_death,
            self.in_gap,
            self.otherwise,
            from.plain,
            from.udp,
            from.tcp,
            to.plain,
            to.udp,
            to.tcp
        )
    }
}

/// A source, to those who count what was lost of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub source: usize,
    pub kind: MediaKind,
    pub way: Way,
    /// How many receive it.
    pub receivers: u32,
}

/// Counts them.
#[derive(Debug, Default)]
pub(super) struct Losses {
    pub lost: Lost,
    /// By source and number: how many have lost it.
    receivers: BTreeMap<(u64, usize), u32>,
    /// When workers were struck.
    struck_ns: Vec<u64>,
}

impl Losses {
    /// A worker is being struck.
    pub(super) fn on_struck(&mut self, now_ns: u64) {
        self.struck_ns.push(now_ns);
    }

    /// A receiver has given up a packet.
    pub(super) fn add(&mut self, origin: Origin, number: u64, sent_ns: u64, to: Way) {
        let lost = &mut self.lost;
        match origin.kind {
            MediaKind::Audio => lost.sound += 1,
            MediaKind::Video => lost.video += 1,
        }
        *lost.from.of(origin.way) += 1;
        *lost.to.of(to) += 1;
        let died = |from_ns: u64, to_ns: u64| {
            let mut struck = self.struck_ns.iter().rev();
            struck.any(|struck_ns| (from_ns..to_ns).contains(struck_ns))
        };
        match () {
            () if died(sent_ns.saturating_sub(GAP_NS), sent_ns) => lost.in_gap += 1,
            () if died(sent_ns, sent_ns + IN_HAND_NS) => lost.before_death += 1,
            () => lost.otherwise += 1,
        }
        let key = (number, origin.source);
        let receivers = self.receivers.entry(key).or_default();
        *receivers += 1;
        if *receivers >= origin.receivers {
            lost.to_nobody += u64::from(*receivers);
            self.receivers.remove(&key);
        }
        if self.receivers.len() > KNOWN_MAX {
            self.receivers.pop_first();
        }
    }
}

/// What the server says that it dropped, or never got.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Dropped {
    /// What came and was for nobody: of packets once, however many would have got them.
    unrouted: Counts<UnroutedReason>,
    /// Packets that sockets had no room for, likewise.
    kernel: u64,
    /// Packets that were not sent to a consumer.
    to_consumers: Counts<DropReason>,
    /// Packets that consumers asked for again in vain.
    not_repaired: Counts<NotRepaired>,
}

impl Dropped {
    /// As it is now.
    pub(super) async fn read(scene: &Scene) -> anyhow::Result<Self> {
        let mut dropped = Self::default();
        for number in 1..=scene.server.num_workers() {
            let stats = scene.server.worker_stats(WorkerId(number as u32)).await;
            let stats = stats.context("asking a worker for its counters")?;
            dropped.kernel += stats.kernel_drops;
            add(&mut dropped.unrouted, &stats.unrouted_reasons);
        }
        let toggled: Vec<ConsumerId> = scene.toggled.iter().map(weir::Consumer::id).collect();
        for room in scene.rooms.iter().filter(|room| !room.closed()) {
            let page = room.stats().await.context("asking for the counters of a room")?;
            for transport in &page.transports {
                add(&mut dropped.unrouted, &transport.unrouted);
            }
            let consumers = page.consumers.iter();
            for consumer in consumers.filter(|consumer| !toggled.contains(&consumer.consumer)) {
                add(&mut dropped.to_consumers, &consumer.dropped);
                add(&mut dropped.not_repaired, &consumer.not_repaired);
            }
        }
        Ok(dropped)
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        Self {
            unrouted: less(&self.unrouted, &before.unrouted),
            kernel: self.kernel.saturating_sub(before.kernel),
            to_consumers: less(&self.to_consumers, &before.to_consumers),
            not_repaired: less(&self.not_repaired, &before.not_repaired),
        }
    }

    /// In words.
    pub(super) fn what(&self) -> String {
        format!(
            "{} were for nobody ({}), {} had no room in sockets, {} not sent on ({}), {} not sent again ({})",
            self.unrouted.total(),
            words(&self.unrouted),
            self.kernel,
            self.to_consumers.total(),
            words(&self.to_consumers),
            self.not_repaired.total(),
            words(&self.not_repaired)
        )
    }
}

fn add<R: Copy + Ord>(counts: &mut Counts<R>, more: &Counts<R>) {
    for (reason, count) in more {
        counts.add(*reason, *count);
    }
}

fn less<R: Copy + Ord>(counts: &Counts<R>, before: &Counts<R>) -> Counts<R> {
    let counts = counts.iter();
    counts
        .map(|(reason, count)| (*reason, count.saturating_sub(before.of(*reason))))
        .collect()
}

fn words<R: std::fmt::Debug>(counts: &Counts<R>) -> String {
    let words: Vec<String> = counts
        .iter()
        .map(|(reason, count)| format!("{reason:?} {count}"))
        .collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_counted_by_what_it_is_and_when_it_was_sent() {
        let mut losses = Losses::default();
        let origin = Origin {
            source: 3,
            kind: MediaKind::Audio,
            way: Way::Udp,
            receivers: 2,
        };
        let second = 1_000_000_000;
        losses.on_struck(second);
        losses.on_struck(9 * second);
        // Of this one both receivers.
        losses.add(origin, 7, second - 1_000_000, Way::Tcp);
        losses.add(origin, 7, second - 1_000_000, Way::Udp);
        losses.add(origin, 8, second + 1_000_000, Way::Udp);
        losses.add(origin, 9, 5 * second, Way::Udp);
        let video = Origin {
            kind: MediaKind::Video,
            way: Way::Tcp,
            ..origin
        };
        losses.add(video, 10, 9 * second + 1, Way::Plain);
        let expected = Lost {
            sound: 4,
            video: 1,
            to_nobody: 2,
            before_death: 2,
            in_gap: 2,
            otherwise: 1,
            from: ByWay {
                plain: 0,
                udp: 4,
                tcp: 1,
            },
            to: ByWay {
                plain: 1,
                udp: 3,
                tcp: 1,
            },
        };
        assert_eq!(losses.lost, expected);
        assert_eq!(expected.since(Lost::default()), expected);
        assert_eq!(expected.since(expected), Lost::default());
    }
}
