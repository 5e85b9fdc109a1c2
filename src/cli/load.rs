//! `weir load`: how close to the kernel's limit the relay runs.
//!
//! A real worker runs on one CPU; one thread on another sends to it and receives from it. In alternating slices of the
//! same run the worker relays, and a thread on the worker's own CPU hands the same trains to the same connected sockets by
//! the same calls, with no relay at all. The ratio of the two costs is the relay's price. With `--srtp` all transports are
//! WebRTC's, every client has shaken hands as a browser does, and the baseline protects the same bytes with the bare cipher.
//!
//! Two kinds of traffic: the fan-out (`--producers`, `--consumers`), whose frames are all alike, and rooms (`--rooms`, `--peers`),
//! whose peers send what people's browsers do.

mod broadcast;
mod cipher_baseline;
mod driver;
mod frames;
mod measure;
mod plan;
mod raw;
mod report;
mod rooms;
mod search;
mod testbed;
mod traffic;
mod window;

use std::process::ExitCode;

use anyhow::{bail, ensure};
use clap::Args;
use weir::{Coalescing, SandboxMode};

use crate::cli::measuring::client::Protection;
use crate::cli::measuring::cpu;
use crate::cli::measuring::one_port::OnePort;
use crate::cli::measuring::progress;
use crate::cli::measuring::random::Random;

use self::frames::{Cut, Frames};
use self::report::Report;
use self::testbed::Testbed;
use self::window::Window;

/// Clients have a socket each, and so do their transports, twice on both sides of the channel.
const CLIENTS_MAX: u32 = 2_000;

/// The most consumers in rooms: those of one room of 200 peers.
const ROOM_CONSUMERS_MAX: u32 = 80_000;

/// Peers in a room, if nobody says how many.
const PEERS: u32 = 4;

/// What fits an Ethernet frame.
const DATAGRAM_BYTES_MAX: usize = 1_472;

/// Measures the relay: packets per second, loss, cost per packet beside the bare kernel's, and residence time.
#[derive(Args, Clone, Debug)]
pub(super) struct LoadArgs {
    /// The number of producers, each of which sends trains of packets
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    producers: u32,
    /// The number of consumers, spread evenly over the producers, each on its own transport
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    consumers: u32,
    /// Measure rooms instead, ROOMS of them: every peer sends Opus and video as browsers do, and receives all the others of its room
    /// over one transport; at real rates, unless --load or --rate is given
    #[arg(long, value_name = "ROOMS", conflicts_with_all = ["producers", "consumers", "burst", "paused"],
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rooms: Option<u32>,
    /// The number of peers in each room (4 if only --rooms is given; one room if only --peers is)
    #[arg(long, value_name = "PEERS", conflicts_with_all = ["producers", "consumers", "burst", "paused"],
          value_parser = clap::value_parser!(u32).range(2..=200))]
    peers: Option<u32>,
    /// Let the peers of rooms send video only
    #[arg(long)]
    no_sound: bool,
    /// The bitrate of the video that each peer of a room sends, in kbit/s, 50 to 20000
    #[arg(long, value_name = "KBPS", default_value_t = 800, value_parser = clap::value_parser!(u32).range(50..=20_000))]
    bitrate: u32,
    /// Cut frames into packets as browsers do, nearly equal: some of a frame's packets are one byte longer than the others
    #[arg(long)]
    uneven: bool,
    /// What sizes of frames are drawn from: the same seed gives the same packets
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// The size of each RTP packet in bytes, without the UDP header; of the longest ones, where not all are equal
    #[arg(long, value_name = "BYTES", default_value_t = 1_200, value_parser = clap::value_parser!(u32).range(40..=1_472))]
    payload: u32,
    /// The number of packets in a train
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=54))]
    burst: u32,
    /// The packets per second that all producers together send (the worker sends this times the consumers of each
    /// producer); without it, the maximum is searched, but for rooms
    #[arg(long, value_name = "PPS")]
    rate: Option<f64>,
    /// Search the maximum, and measure at this share of it, 0.01 to 1 (without it: at 0.8)
    #[arg(long, value_name = "SHARE", conflicts_with = "rate")]
    load: Option<f64>,
    /// The share of the consumers that are paused, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    paused: f64,
    /// How many seconds to measure, after the maximum is found
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// How long a packet may wait where that pays, so that it is sent together with others: microseconds, 0 to 1000, or auto, which
    /// is as long as in a server with default settings
    #[arg(long, value_name = "US", default_value = "0")]
    window: Window,
    /// How long the worker looks for packets before it sleeps, in microseconds, 0 to 1000
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=i64::from(Coalescing::SPIN_US_MAX)))]
    spin: u32,
    /// Keep the last packets of each video producer for retransmission (NACK and RTX are negotiated)
    #[arg(long)]
    nack: bool,
    /// Encrypt both sides: all transports use WebRTC (ICE, DTLS, SRTP)
    #[arg(long, value_enum, value_name = "PROFILE")]
    srtp: Option<Protection>,
    /// The number of receivers that decrypt what they get and compare it with what was sent; the others count packets
    #[arg(long, value_name = "RECEIVERS", default_value_t = 4, requires = "srtp")]
    verify: u32,
    /// Let all transports share one port
    #[arg(long, value_enum, value_name = "SOCKETS", requires = "srtp")]
    one_port: Option<OnePort>,
    /// How much of the sandbox around the worker must hold: require, auto or off
    #[arg(long, value_name = "MODE", default_value = "auto")]
    sandbox: SandboxMode,
    /// Also send pause and resume commands as fast as possible, at half of the maximum packet rate
    #[arg(long)]
    control: bool,
    /// Let receivers take whole trains (UDP_GRO), so that the kernel does not split them on the loopback
    #[arg(long)]
    gro_receivers: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl LoadArgs {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (0.0..=1.0).contains(&self.paused),
            "--paused is a share from 0 to 1, not {}",
            self.paused
        );
        ensure!(
            (1.0..=3_600.0).contains(&self.seconds),
            "--seconds is a time from 1 to 3600, not {}",
            self.seconds
        );
        ensure!(
            self.load.is_none_or(|load| (0.01..=1.0).contains(&load)),
            "--load is a share of the maximum from 0.01 to 1, not {}",
            self.load.unwrap_or_default()
        );
        match self.rooms() {
            Some((rooms, peers)) => self.check_rooms(rooms, peers)?,
            None => ensure!(!self.no_sound, "--no-sound is for rooms; add --rooms or --peers"),
        }
        if let Some(protection) = self.srtp {
            ensure!(
                self.consumers <= CLIENTS_MAX,
                "--srtp measures at most {CLIENTS_MAX} consumers, each of which shakes hands; give fewer with --consumers"
            );
            let protected = self.payload as usize + protection.profile().rtp_overhead();
            ensure!(
                protected <= DATAGRAM_BYTES_MAX,
                "with what SRTP adds, a packet has {protected} bytes, of {DATAGRAM_BYTES_MAX} at most; give a smaller --payload",
            );
        }
        if let Some(rate) = self.rate {
            ensure!(
                rate.is_finite() && (1.0..=1e8).contains(&rate),
                "--rate is a number of packets per second, 1 to 100000000, not {rate}"
            );
        }
        Ok(())
    }

    fn check_rooms(&self, rooms: usize, peers: usize) -> anyhow::Result<()> {
        let everybody = rooms * peers;
        ensure!(
            everybody <= CLIENTS_MAX as usize,
            "{rooms} rooms of {peers} peers are {everybody} peers, and {CLIENTS_MAX} are the most; give fewer with --rooms or --peers"
        );
        let tracks = if self.no_sound { 1 } else { 2 };
        let consumers = everybody * (peers - 1) * tracks;
        ensure!(
            consumers <= ROOM_CONSUMERS_MAX as usize,
            "{rooms} rooms of {peers} peers are {consumers} consumers, and {ROOM_CONSUMERS_MAX} are the most; give fewer with --rooms or \
             --peers"
        );
        Ok(())
    }

    /// The number of rooms, and of peers in each; `None` for the fan-out.
    fn rooms(&self) -> Option<(usize, usize)> {
        (self.rooms.is_some() || self.peers.is_some()).then(|| {
            let (rooms, peers) = (self.rooms.unwrap_or(1), self.peers.unwrap_or(PEERS));
            (rooms as usize, peers as usize)
        })
    }

    fn cut(&self) -> Cut {
        match self.uneven {
            true => Cut::NearlyEqual,
            false => Cut::Equal,
        }
    }

    /// What each peer of a room sends.
    fn encoder(&self) -> Frames {
        Frames::Encoder {
            bitrate_bps: f64::from(self.bitrate) * 1_000.0,
            packet_bytes_max: self.payload as usize,
        }
    }

    /// A seed for each producer or peer.
    fn seed_of(&self, number: u32) -> u64 {
        Random::new(self.seed.wrapping_add(u64::from(number) << 32)).next()
    }

    /// What encryption adds to each packet.
    fn overhead(&self) -> usize {
        self.srtp.map_or(0, |protection| protection.profile().rtp_overhead())
    }

    /// Runs the test and prints what came of it.
    pub(super) fn run(self) -> ExitCode {
        progress::conclude("load", self.measure(), |report| {
            report.print(self.json);
            report.is_sound()
        })
    }

    fn measure(&self) -> anyhow::Result<Report> {
        self.check()?;
        let (cpus, runtime) = cpu::begin()?;
        let mut testbed = runtime.block_on(Testbed::start(self, cpus))?;
        cpu::pin(cpus.load);
        let result = runtime.block_on(async {
            testbed.populate().await?;
            measure::run(self, &mut testbed).await
        });
        runtime.block_on(testbed.close());
        let report = result?;
        if report.forwarded_packets() == 0 {
            bail!("no packet came through; `weir doctor` looks for what keeps a server on this machine from working");
        }
        Ok(report)
    }
}
