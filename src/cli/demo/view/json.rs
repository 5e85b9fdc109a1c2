//! JSON: one object a line, each with a `type` and, while it plays, the time `atMs`.
//!
//! `cast` comes first, `sample` every second, `step`, `started`, `switched`, `fault` and `server` (an event of the
//! server, as `weir ctl events` gives it) as they happen, `verdict` last.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use weir::{Profile, WorkerInfo};

use super::board::{Board, PlayerRow, SeatRow};
use crate::cli::demo::cast::Cast;
use crate::cli::demo::story::Moment;
use crate::cli::demo::verdict::{Finding, Verdict};

/// Writes JSON to standard output.
#[derive(Debug)]
pub(in crate::cli::demo) struct Json {
    board: Board,
    length: Duration,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line<'a> {
    Cast {
        seconds: u64,
        workers: Vec<WorkerInfo>,
        producers: Vec<CastProducer>,
        consumers: Vec<CastConsumer>,
    },
    Sample {
        at_ms: u64,
        producers: &'a [PlayerRow],
        consumers: &'a [SeatRow],
    },
    Verdict {
        at_ms: u64,
        passed: bool,
        interrupted: bool,
        checks: &'a [Finding],
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CastProducer {
    name: &'static str,
    id: u64,
    room: u64,
    worker: u32,
    codec: &'static str,
    streams: Vec<CastStream>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CastStream {
    ssrc: u32,
    profile: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CastConsumer {
    name: &'static str,
    id: u64,
    producer: u64,
    preferred_profile: Profile,
}

impl Json {
    pub(in crate::cli::demo) fn new(cast: &Cast, length: Duration) -> Self {
        Self {
            board: Board::new(cast),
            length,
        }
    }

    pub(super) fn open(&self, cast: &Cast) -> io::Result<()> {
        let producers = cast.players.iter().map(|player| CastProducer {
            name: player.name,
            id: player.producer.id().0,
            room: player.producer.room().id().0,
            worker: player.producer.room().worker().0,
            codec: player.tracks[0].codec().subtype(),
            streams: std::iter::zip(&player.tracks, &player.profiles)
                .map(|(track, &profile)| CastStream {
                    ssrc: track.ssrc(),
                    profile,
                    resolution: track.resolution().map(|resolution| resolution.to_string()),
                })
                .collect(),
        });
        let consumers = cast.seats.iter().map(|seat| CastConsumer {
            name: seat.name,
            id: seat.consumer.id().0,
            producer: seat.consumer.producer().id().0,
            preferred_profile: seat.consumer.preferred_profile(),
        });
        write(&Line::Cast {
            seconds: self.length.as_secs(),
            workers: cast.server().workers(),
            producers: producers.collect(),
            consumers: consumers.collect(),
        })
    }

    pub(super) fn tell(&mut self, moment: &Moment) -> io::Result<()> {
        write(moment)
    }

    pub(super) fn refresh(&mut self, cast: &Cast) -> io::Result<()> {
        self.board.refresh(cast);
        write(&Line::Sample {
            at_ms: cast.elapsed().as_millis() as u64,
            producers: &self.board.players,
            consumers: &self.board.seats,
        })
    }

    pub(super) fn finish(self, elapsed: Duration, verdict: &Verdict) -> io::Result<()> {
        write(&Line::Verdict {
            at_ms: elapsed.as_millis() as u64,
            passed: verdict.passed(),
            interrupted: verdict.interrupted,
            checks: &verdict.checks,
        })
    }
}

fn write(line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    out.flush()
}
