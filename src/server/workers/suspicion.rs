//! Packets of death: whom to suspect when a worker dies again and again (pure).
//!
//! A worker's page says whose packets it was working on when it died. That alone proves nothing: whatever ends a busy worker
//! names its busiest sender. So three things must come together. The death must be of a kind that packets can cause ([`Crash`]):
//! not a signal that others send, and not the end of memory. The packets must have been under way at that moment. And it must
//! happen again, in the same way and for the same source, within a minute. Then the source is in quarantine for a while:
//! its packets are dropped before anything is read of them but where they come from.
//!
//! If deaths go on all the same, in one and the same room, the sources are not to be told apart from outside (one that changes its
//! port, several of one kind), and the room is given up, so that the others live.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use nix::libc;
use tokio::time::Instant;
use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{QUARANTINED_MAX, QuarantinedSource};
use weir_worker::exit::Exit;

use crate::server::model::error::DeathCause;

/// Deaths that are further apart have nothing to do with each other.
const WINDOW: Duration = Duration::from_secs(60);

/// The first quarantine: as long as that, because a source that comes back sooner could not be told from one that never left.
const FIRST: Duration = Duration::from_secs(60);

/// The longest quarantine.
const LONGEST: Duration = Duration::from_secs(3_600);

/// A source that was in quarantine is known for so long after it. If a worker dies of its packets again, that is enough.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// After so many deaths in one room it is given up.
const ROOM_DEATHS: usize = 3;

/// The deaths that are remembered. More do not happen in a minute: after some there are delays.
const DEATHS_MAX: usize = 64;

/// The way of a death that packets may have caused. Two of one cause end in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Crash {
    Signal(i32),
    Panic,
    Hang,
}

impl Crash {
    /// Whether packets may have caused a death. `is_spinning`: a process that hangs, and uses its CPU for that. `last_words`: what
    /// the process has written to its standard error.
    ///
    /// Not: SIGKILL and what else others send, also the kernel where memory runs out; a process that was stopped from outside. And
    /// SIGABRT only with last words. Who ends itself by it says why (the C library's checks, a stack that overflows), whoever
    /// sends it from outside does not (systemd's watchdog, a tester); and where an allocation has failed, Rust says just that:
    /// whose packets that met is chance.
    pub(crate) fn of(cause: &DeathCause, is_spinning: bool, last_words: &[String]) -> Option<Self> {
        match cause {
            DeathCause::Signalled { signal, .. } => match *signal {
                libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE | libc::SIGTRAP | libc::SIGSYS => {
                    Some(Self::Signal(*signal))
                }
                libc::SIGABRT if has_said_why(last_words) => Some(Self::Signal(*signal)),
                _ => None,
            },
            DeathCause::Exited { code, .. } => (*code == i32::from(Exit::Panic.code())).then_some(Self::Panic),
            DeathCause::Stuck { .. } => is_spinning.then_some(Self::Hang),
            _ => None,
        }
    }
}

fn has_said_why(last_words: &[String]) -> bool {
    let of_memory = |line: &String| line.starts_with("memory allocation of ");
    // What the worker itself writes begins with its name: panics that were contained, long before this.
    let is_reason = last_words.last().is_some_and(|line| !line.starts_with("weir-worker: "));
    is_reason && !last_words.iter().any(of_memory)
}

/// What a process was doing when it died, in a way that packets may have caused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Evidence {
    pub(crate) crash: Crash,
    pub(crate) source: SocketAddr,
    /// Whose socket the packets had come to, if it was one's.
    pub(crate) transport: Option<(TransportId, RoomId)>,
}

impl Evidence {
    /// What would be in quarantine. Who came to a socket that is shared may use any port.
    fn suspect(&self) -> QuarantinedSource {
        QuarantinedSource {
            ip: self.source.ip(),
            port: self.transport.map(|_| self.source.port()),
        }
    }

    fn room(&self) -> Option<RoomId> {
        self.transport.map(|(_, room)| room)
    }
}

/// What follows from a death.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verdict {
    /// This source goes into quarantine, for so long.
    pub(crate) quarantine: Option<(QuarantinedSource, Duration)>,
    /// This room is given up, after so many deaths.
    pub(crate) room: Option<(RoomId, usize)>,
}

/// Whom a worker's deaths speak against.
#[derive(Debug, Default)]
pub(crate) struct Suspicions {
    deaths: VecDeque<(Instant, Evidence)>,
    /// Sources that are in quarantine, or were not long ago.
    known: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    source: QuarantinedSource,
    until: Instant,
    /// The length of its last quarantine.
    length: Duration,
    is_released: bool,
}

impl Suspicions {
    /// The worker has died.
    pub(crate) fn on_death(&mut self, now: Instant, evidence: Evidence) -> Verdict {
        let is_recent = |at: Instant| now.saturating_duration_since(at) <= WINDOW;
        self.known
            .retain(|known| !known.is_released || now.saturating_duration_since(known.until) <= KNOWN_FOR);
        let suspect = evidence.suspect();
        let again = |death: &&(Instant, Evidence)| {
            is_recent(death.0) && death.1.suspect() == suspect && death.1.crash == evidence.crash
        };
        let former = self.known.iter().find(|known| known.source == suspect);
        let length = match former {
            Some(former) => Some((former.length * 2).min(LONGEST)),
            None => self.deaths.iter().find(again).map(|_| FIRST),
        };
        let quarantine = length.map(|length| (suspect, length));
        if let Some((source, length)) = quarantine {
            self.known.retain(|known| known.source != source);
            self.make_room();
            self.known.push(Known {
                source,
                until: now + length,
                length,
                is_released: false,
            });
        }
        if self.deaths.len() == DEATHS_MAX {
            self.deaths.pop_front();
        }
        self.deaths.push_back((now, evidence));
        let room = evidence.room().and_then(|room| {
            let deaths = self.deaths_in_a_row(room);
            (deaths >= ROOM_DEATHS).then_some((room, deaths))
        });
        if let Some((room, _)) = room {
            self.deaths.retain(|(_, death)| death.room() != Some(room));
        }
        Verdict { quarantine, room }
    }

    /// How many deaths there were in a room, the last one just now, each soon after the one before.
    fn deaths_in_a_row(&self, room: RoomId) -> usize {
        let mut after = None;
        let its = self.deaths.iter().rev().filter(|(_, death)| death.room() == Some(room));
        its.take_while(|(at, _)| {
            let is_soon = after.is_none_or(|after: Instant| after.saturating_duration_since(*at) <= WINDOW);
            after = Some(*at);
            is_soon
        })
        .count()
    }

    /// If there are as many as there may be, the one goes that would go first.
    fn make_room(&mut self) {
        if self.known.len() < QUARANTINED_MAX {
            return;
        }
        let first = self.known.iter().enumerate().min_by_key(|(_, known)| known.until);
        if let Some((index, _)) = first {
            self.known.swap_remove(index);
        }
    }

    /// Those that are in quarantine.
    pub(crate) fn quarantined(&self) -> Vec<QuarantinedSource> {
        let quarantined = self.known.iter().filter(|known| !known.is_released);
        quarantined.map(|known| known.source).collect()
    }

    /// When the next one is to be released.
    pub(crate) fn next_release(&self) -> Option<Instant> {
        let quarantined = self.known.iter().filter(|known| !known.is_released);
        quarantined.map(|known| known.until).min()
    }

    /// Releases those whose time is over.
    pub(crate) fn release(&mut self, now: Instant) -> Vec<QuarantinedSource> {
        let over = self
            .known
            .iter_mut()
            .filter(|known| !known.is_released && known.until <= now);
        over.map(|known| {
            known.is_released = true;
            known.source
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGV: Crash = Crash::Signal(libc::SIGSEGV);

    fn evidence(port: u16, room: u64) -> Evidence {
        Evidence {
            crash: SEGV,
            source: ([192, 0, 2, 1], port).into(),
            transport: Some((TransportId(port.into()), RoomId(room))),
        }
    }

    fn source(port: u16) -> QuarantinedSource {
        evidence(port, 1).suspect()
    }

    /// A clock that stands at a second, and what has happened so far.
    struct Scene(Instant, Suspicions);

    impl Scene {
        fn new() -> Self {
            Self(Instant::now(), Suspicions::default())
        }

        fn die(&mut self, second: f64, evidence: Evidence) -> Verdict {
            self.1.on_death(self.0 + Duration::from_secs_f64(second), evidence)
        }

        fn released(&mut self, second: f64) -> usize {
            self.1.release(self.0 + Duration::from_secs_f64(second)).len()
        }
    }

    fn for_seconds(port: u16, seconds: u64) -> Verdict {
        Verdict {
            quarantine: Some((source(port), Duration::from_secs(seconds))),
            room: None,
        }
    }

    #[test]
    fn the_second_death_within_a_minute_puts_a_source_into_quarantine() {
        let mut scene = Scene::new();
        assert_eq!(scene.die(0.0, evidence(7, 1)), Verdict::default());
        assert_eq!(scene.die(30.0, evidence(8, 1)), Verdict::default(), "another source");
        assert_eq!(scene.1.quarantined(), []);
        let verdict = scene.die(60.0, evidence(7, 2));
        assert_eq!(verdict, for_seconds(7, 60));
        assert_eq!(scene.1.quarantined(), [source(7)]);
        assert_eq!(scene.1.next_release(), Some(scene.0 + Duration::from_secs(120)));
        assert_eq!((scene.released(119.9), scene.released(120.0)), (0, 1));
        assert_eq!((scene.1.quarantined().len(), scene.1.next_release()), (0, None));
    }

    #[test]
    fn deaths_that_are_more_than_a_minute_apart_or_of_another_kind_prove_nothing() {
        let mut scene = Scene::new();
        for round in 0..10 {
            let verdict = scene.die(61.0 * f64::from(round), evidence(7, 1));
            assert_eq!(verdict, Verdict::default(), "round {round}");
        }
        let hang = Evidence {
            crash: Crash::Hang,
            ..evidence(7, 1)
        };
        assert_eq!(scene.die(550.0, hang), Verdict::default());
    }

    #[test]
    fn a_source_that_comes_back_stays_for_twice_as_long() {
        let mut scene = Scene::new();
        let mut at = 0.0;
        scene.die(at, evidence(7, 1));
        scene.die(at, evidence(7, 1));
        for length in [60.0, 120.0, 240.0, 480.0, 960.0, 1_920.0, 3_600.0, 3_600.0] {
            at += length;
            assert_eq!(scene.released(at), 1, "after {length} s");
            // Long after its last death, and as soon as it may.
            let verdict = scene.die(at, evidence(7, 1));
            let expected = (length * 2.0).min(3_600.0) as u64;
            assert_eq!(verdict.quarantine, Some((source(7), Duration::from_secs(expected))));
        }
        assert_eq!(scene.released(at + 3_600.0), 1);
        assert_eq!(
            scene.die(at + 3_600.0 + 601.0, evidence(7, 1)),
            Verdict::default(),
            "it was forgotten"
        );
    }

    #[test]
    fn after_three_deaths_its_room_is_given_up() {
        let mut scene = Scene::new();
        scene.die(0.0, evidence(7, 1));
        scene.die(20.0, evidence(8, 2));
        assert_eq!(scene.die(50.0, evidence(9, 1)), Verdict::default());
        let verdict = scene.die(100.0, evidence(10, 1));
        assert_eq!((verdict.quarantine, verdict.room), (None, Some((RoomId(1), 3))));
        assert_eq!(scene.die(101.0, evidence(11, 1)).room, None, "it begins anew");
        // A minute between two of them is too much.
        assert_eq!(scene.die(10_000.0, evidence(1, 3)).room, None);
        assert_eq!(scene.die(10_061.0, evidence(2, 3)).room, None);
        assert_eq!(scene.die(10_062.0, evidence(3, 3)).room, None);
        assert_eq!(scene.die(10_063.0, evidence(4, 3)).room, Some((RoomId(3), 3)));
    }

    #[test]
    fn strangers_at_a_shared_port_are_known_by_their_address() {
        let stranger = |port| Evidence {
            transport: None,
            ..evidence(port, 1)
        };
        let mut scene = Scene::new();
        scene.die(0.0, stranger(1));
        let verdict = scene.die(1.0, stranger(2));
        let any_port = QuarantinedSource {
            port: None,
            ..source(2)
        };
        assert_eq!(verdict.quarantine, Some((any_port, Duration::from_secs(60))));
        assert_eq!(scene.die(2.0, stranger(3)).room, None, "nobody knows of which room");
    }

    #[test]
    fn no_attacker_makes_it_grow() {
        let mut scene = Scene::new();
        for port in 1..10_000 {
            scene.die(0.0, evidence(port, port.into()));
            scene.die(0.0, evidence(port, port.into()));
            assert!(scene.1.known.len() <= QUARANTINED_MAX && scene.1.deaths.len() <= DEATHS_MAX);
        }
        assert_eq!(scene.1.quarantined().len(), QUARANTINED_MAX);
    }

    #[test]
    fn only_what_packets_can_cause_is_a_crash() {
        let signalled = |signal| DeathCause::Signalled {
            signal,
            name: String::new(),
            core_dumped: false,
        };
        let exited = |code| DeathCause::Exited {
            code,
            meaning: String::new(),
        };
        let stuck = DeathCause::Stuck { turn_ms: 1_000 };
        let words = |line: &str| vec![line.to_owned()];
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSYS] {
            let crash = Crash::of(&signalled(signal), false, &[]);
            assert_eq!(crash, Some(Crash::Signal(signal)));
        }
        for signal in [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT, libc::SIGXCPU] {
            assert_eq!(
                Crash::of(&signalled(signal), true, &words("anything")),
                None,
                "{signal}"
            );
        }
        let aborted = signalled(libc::SIGABRT);
        for (line, is_crash) in [
            ("free(): invalid pointer", true),
            ("thread 'main' has overflowed its stack", true),
            ("memory allocation of 4096 bytes failed", false),
            (
                "weir-worker: a parser has panicked, and nobody but its peer is harmed: …",
                false,
            ),
        ] {
            assert_eq!(Crash::of(&aborted, false, &words(line)).is_some(), is_crash, "{line}");
        }
        assert_eq!(Crash::of(&aborted, false, &[]), None, "somebody has sent it");
        assert_eq!(Crash::of(&exited(101), false, &[]), Some(Crash::Panic));
        assert_eq!(Crash::of(&exited(71), false, &[]), None);
        assert_eq!(Crash::of(&stuck, true, &[]), Some(Crash::Hang));
        assert_eq!(Crash::of(&stuck, false, &[]), None, "it was stopped");
        assert_eq!(Crash::of(&DeathCause::Hung { timeout_ms: 5_000 }, true, &[]), None);
    }
}
