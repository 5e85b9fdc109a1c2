//! `weir chaos`: what receivers notice when workers die.
//!
//! A server of its own, in this process, with real workers; in its rooms people send and receive over plain and WebRTC transports
//! while its workers are killed, one after the other. Each receiver knows what its source has sent and when, so it knows how long it
//! had to wait, what it never got, and whether a number was used twice.

mod driver;
mod experiment;
mod fault;
mod judge;
mod losses;
mod report;
mod scene;
mod source;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use serde::Serialize;
use weir_channel::message::IceProtocol;

use crate::cli::measuring::cpu;
use crate::cli::measuring::one_port::OnePort;
use crate::cli::measuring::progress;

use self::driver::Driver;
use self::experiment::{Experiment, workers_for};
use self::fault::Fault;
use self::report::Report;
use self::scene::Scene;

/// Clients have a socket each, and so do their transports, twice on both sides of the channel.
const CLIENTS_MAX: u32 = 3_000;

/// What a WebRTC client comes by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Over {
    /// A socket of UDP
    Udp,
    /// A connection of TCP (RFC 6544)
    Tcp,
}

impl Over {
    fn protocol(self) -> IceProtocol {
        match self {
            Self::Udp => IceProtocol::Udp,
            Self::Tcp => IceProtocol::Tcp,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        }
    }
}

/// The options of `weir chaos`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ChaosArgs {
    /// How many times a worker is struck
    #[arg(long, value_name = "FAULTS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    kills: u32,
    /// How busy the workers are, 0.05 to 0.95 of a CPU
    #[arg(long, value_name = "SHARE", default_value_t = 0.8)]
    load: f64,
    /// What is done to a worker; of several, each time one
    #[arg(long, value_enum, value_name = "FAULT", value_delimiter = ',', default_values_t = [Fault::Kill])]
    faults: Vec<Fault>,
    /// The number of producers, half of which send sound
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// The number of consumers, each on a transport of its own, which share the producers evenly
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=2_900))]
    consumers: u32,
    /// The number of rooms that these are in; at most as many as producers
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rooms: u32,
    /// The share of the rooms in which everybody uses WebRTC, with DTLS and SRTP; in the others all transports are plain
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    webrtc: f64,
    /// What WebRTC clients come by; of several, one after the other
    #[arg(long, value_enum, value_name = "PROTOCOL", value_delimiter = ',', default_values_t = [Over::Udp, Over::Tcp])]
    webrtc_over: Vec<Over>,
    /// Let all WebRTC transports of a worker share one port
    #[arg(long, value_enum, value_name = "SOCKETS")]
    one_port: Option<OnePort>,
    /// The size of each RTP packet in bytes, without the UDP header
    #[arg(long, value_name = "BYTES", default_value_t = 300, value_parser = clap::value_parser!(u32).range(60..=1_200))]
    payload: u32,
    /// How many seconds to wait after everybody gets something again and the worker has all that it had, before the next fault
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    interval: f64,
    /// What workers and faults are drawn from: the same seed strikes the same ones
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Draw how many receivers waited for how long, into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl ChaosArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (0.05..=0.95).contains(&self.load),
            "--load is a share of a CPU from 0.05 to 0.95, not {}",
            self.load
        );
        ensure!(
            (0.0..=1.0).contains(&self.webrtc),
            "--webrtc is a share from 0 to 1, not {}",
            self.webrtc
        );
        ensure!(
            (0.0..=3_600.0).contains(&self.interval),
            "--interval is a time from 0 to 3600 seconds, not {}",
            self.interval
        );
        ensure!(
            self.rooms <= self.producers,
            "{} rooms cannot each have one of {} producers; give fewer with --rooms",
            self.rooms,
            self.producers
        );
        let clients = self.producers + self.consumers;
        ensure!(
            clients <= CLIENTS_MAX,
            "{clients} producers and consumers are more than {CLIENTS_MAX}; give fewer with --producers or --consumers"
        );
        Ok(())
    }

    /// Runs the experiment and prints what came of it.
    pub(super) fn run(self) -> ExitCode {
        progress::conclude("chaos", self.experiment(), |report| {
            report.print(self.json);
            report.is_sound()
        })
    }

    fn experiment(&self) -> anyhow::Result<Report> {
        self.check()?;
        let (cpus, runtime) = cpu::begin()?;
        let count = std::thread::available_parallelism().map_or(1, usize::from);
        let report = runtime.block_on(async {
            let (scene, cast) = Scene::set(self, workers_for(count)).await?;
            cpu::pin(cpus.load);
            let server = scene.server.clone();
            let driver = Driver::start(cpus.load, cast.sources, cast.clients)?;
            let mut experiment = Experiment {
                args: self,
                scene,
                driver,
            };
            let report = experiment.run().await;
            server.close().await;
            report
        })?;
        if let Some(path) = &self.svg {
            let picture = report.picture().context("drawing")?;
            std::fs::write(path, picture).with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(report)
    }
}
