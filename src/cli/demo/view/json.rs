//! JSON: one object a line, each with a `type` and, while it plays, the time `atMs`.
//!
//! `setup` comes first, `sample` every second, `step`, `started`, `switched`, `fault` and `server` (an event of the
//! server, as `weir ctl events` gives it) as they happen, `verdict` last.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use weir::{Profile, WorkerInfo};

use super::board::{Board, ConsumerRow, ProducerRow};
use crate::cli::demo::finding::Finding;
use crate::cli::demo::reporter::DemoEvent;
use crate::cli::demo::setup::Setup;
use crate::cli::demo::verdict::Verdict;

/// Writes JSON to standard output.
#[derive(Debug)]
pub(in crate::cli::demo) struct Json {
    board: Board,
    length: Duration,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line<'a> {
    Setup {
        seconds: u64,
        workers: Vec<WorkerInfo>,
        producers: Vec<SetupProducer>,
        consumers: Vec<SetupConsumer>,
    },
    Sample {
        at_ms: u64,
        producers: &'a [ProducerRow],
        consumers: &'a [ConsumerRow],
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
struct SetupProducer {
    name: &'static str,
    id: u64,
    room: u64,
    worker: u32,
    codec: &'static str,
    streams: Vec<SetupStream>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SetupStream {
    ssrc: u32,
    profile: Profile,
    #[serde(skip_serializing_if = "Option::is_none")]
    resolution: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SetupConsumer {
    name: &'static str,
    id: u64,
    producer: u64,
    preferred_profile: Profile,
}

impl Json {
    pub(in crate::cli::demo) fn new(setup: &Setup, length: Duration) -> Self {
        Self {
            board: Board::new(setup),
            length,
        }
    }

    pub(super) fn open(&self, setup: &Setup) -> io::Result<()> {
        let producers = setup.sources.iter().map(|source| SetupProducer {
            name: source.name,
            id: source.producer.id().0,
            room: source.producer.room().id().0,
            worker: source.producer.room().worker().0,
            codec: source.tracks[0].codec().subtype(),
            streams: std::iter::zip(&source.tracks, &source.profiles)
                .map(|(track, &profile)| SetupStream {
                    ssrc: track.ssrc(),
                    profile,
                    resolution: track.resolution().map(|resolution| resolution.to_string()),
                })
                .collect(),
        });
        let consumers = setup.receivers.iter().map(|receiver| SetupConsumer {
            name: receiver.name,
            id: receiver.consumer.id().0,
            producer: receiver.consumer.producer().id().0,
            preferred_profile: receiver.consumer.preferred_profile(),
        });
        write(&Line::Setup {
            seconds: self.length.as_secs(),
            workers: setup.server().workers(),
            producers: producers.collect(),
            consumers: consumers.collect(),
        })
    }

    pub(super) fn show(&mut self, event: &DemoEvent) -> io::Result<()> {
        write(event)
    }

    pub(super) fn refresh(&mut self, setup: &Setup) -> io::Result<()> {
        self.board.refresh(setup);
        write(&Line::Sample {
            at_ms: setup.elapsed().as_millis() as u64,
            producers: &self.board.producers,
            consumers: &self.board.consumers,
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
