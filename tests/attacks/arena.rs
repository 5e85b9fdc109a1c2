//! Where an attack takes place: a server as it is run, those who have nothing to do with the attack, and what all of them felt.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::Scale;
use crate::call::{self, Browsers, THEIRS};
use crate::control::{Client, soon};
use crate::hostile;
use crate::innocents::{Felt, Innocent, udp};
use crate::meters::{Memory, Meter, Work, children};

/// What the supervisor may have in memory under any attack.
const SUPERVISOR_MAX: u64 = 200 << 20;

/// A delay of the innocent call below this is as good as any other: it is the noise of an ordinary machine.
const NOISE: Duration = Duration::from_millis(2);

/// The SSRC of the innocent plain call; that of the browsers is the one after the next.
pub(crate) const INNOCENT: u32 = 0x1000;

/// What operators must know over TCP.
pub(crate) const TOKEN: &str = "the-operators-own-token-0123456789";

/// So many servers have been started.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// The family of the addresses of everybody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Family {
    /// 127.0.0.0/8.
    V4,
    /// [`NETWORKS`], which must be there.
    V6,
}

/// Networks of IPv6 that are all of this machine, where it has any: fd00:77::/32 (RFC 4193), see `main`.
pub(crate) const NETWORKS: [u16; 2] = [0xfd00, 0x77];

impl Family {
    /// Somebody's address; each has a network of their own (127.0.0.0/8 is as many networks as addresses).
    fn of(self, who: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(127, 0, 0, who).into(),
            Self::V6 => Ipv6Addr::new(NETWORKS[0], NETWORKS[1], who.into(), 0, 0, 0, 0, 1).into(),
        }
    }

    /// The address of those who have nothing to do with an attack.
    pub(crate) fn home(self) -> IpAddr {
        self.of(1)
    }

    /// The address of a stranger.
    pub(crate) fn stranger(self) -> IpAddr {
        self.of(2)
    }

    /// The address of a stranger's victim.
    pub(crate) fn victim(self) -> IpAddr {
        self.of(3)
    }

    /// One of a stranger's addresses. With IPv6 anybody has as many as they like (RFC 7421).
    pub(crate) fn one_of_strangers(self, number: u64) -> IpAddr {
        match self.stranger() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() + u128::from(number)).into(),
            v4 => v4,
        }
    }

    /// An address of this machine that no other server has, so that an attack on all of its ports meets nobody else.
    fn of_server(self) -> IpAddr {
        let number = std::process::id() << 8 | STARTED.fetch_add(1, Ordering::Relaxed) & 0xff;
        let [_, high, middle, low] = number.to_be_bytes();
        match self {
            Self::V4 => Ipv4Addr::new(127, 1 + high % 254, middle, 1 + low % 254).into(),
            Self::V6 => Ipv6Addr::from_bits(
                Ipv6Addr::from([NETWORKS[0], NETWORKS[1], 0, 0, 0, 0, 0, 0]).to_bits() + u128::from(number),
            )
            .into(),
        }
    }
}

/// What kind of server it is to be.
#[derive(Clone, Copy)]
pub(crate) struct Site {
    pub(crate) family: Family,
    /// Two browsers call each other beside the plain call.
    pub(crate) browsers: bool,
    /// It also serves TCP.
    pub(crate) tcp: bool,
    /// The first of two workers has been taken over, and does this.
    pub(crate) hostile: Option<hostile::Deed>,
    /// Further options.
    pub(crate) options: &'static [&'static str],
    /// WebRTC transports share this port.
    pub(crate) shared_port: Option<u16>,
    /// It logs everything.
    pub(crate) debug: bool,
}

impl Site {
    /// A server with one worker and nothing special.
    pub(crate) const PLAIN: Self = Self {
        family: Family::V4,
        browsers: false,
        tcp: false,
        hostile: None,
        options: &[],
        shared_port: None,
        debug: false,
    };
}

/// A server under attack.
pub(crate) struct Arena {
    pub(crate) scale: Scale,
    pub(crate) family: Family,
    pub(crate) socket: PathBuf,
    /// Where TCP is served.
    pub(crate) tcp: Option<SocketAddr>,
    /// The worker that serves the innocent, and under attacks from outside everybody.
    pub(crate) worker: u32,
    /// The innocent's room, and who speaks there.
    pub(crate) room: u64,
    pub(crate) producer: u64,
    /// Of the plain call: where its sender and its receiver are served.
    pub(crate) sends: SocketAddr,
    pub(crate) receives: SocketAddr,
    /// The transport of its sender.
    pub(crate) sender: u64,
    plain: Innocent,
    browsers: Option<Innocent>,
    operator: Innocent,
    meter: Meter,
    child: Child,
    log: PathBuf,
    /// Its workers as they were when the attack began.
    workers: Vec<u32>,
    begun: Begun,
    _dir: TempDir,
}

/// What was so when the attack began.
#[derive(Default)]
struct Begun {
    memory: Memory,
    work: Work,
    baseline: [u64; 3],
    attack: [u64; 3],
}

/// What an attack cost, and what the innocent felt.
pub(crate) struct Figures {
    pub(crate) before: Memory,
    pub(crate) peak: Memory,
    pub(crate) after: Memory,
    /// Percent of one CPU.
    pub(crate) supervisor_cpu: f64,
    pub(crate) workers_cpu: f64,
    pub(crate) plain: [Felt; 2],
    pub(crate) browsers: Option<[Felt; 2]>,
    pub(crate) operator: [Felt; 2],
    /// What only this attack has, e.g. how many packets it sent.
    pub(crate) notes: Vec<(&'static str, u64)>,
    /// What did not hold of what must hold under every attack.
    pub(crate) complaints: Vec<String>,
}

impl Arena {
    /// Starts a server with one worker, and lets the innocent be undisturbed for a while.
    pub(crate) async fn open(scale: Scale) -> Self {
        Self::open_at(scale, Site::PLAIN).await
    }

    pub(crate) async fn open_at(scale: Scale, site: Site) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (socket, log) = (dir.path().join("weir.sock"), dir.path().join("log"));
        let mut child = command(dir.path(), site)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = soon("the server", lines.next_line()).await.unwrap() else {
            panic!("the server did not start: {}", std::fs::read_to_string(&log).unwrap());
        };
        let tcp = site.tcp.then(|| line.rsplit(" and ").next().unwrap().parse().unwrap());
        let worker = if site.hostile.is_some() { 2 } else { 1 };
        let mut client = Client::connect(&socket).await;
        let room = call::room(&mut client, worker).await;
        let home = site.family.home();
        let (microphone, speaker) = (udp(home), udp(home));
        let remote = |socket: &UdpSocket| json!({"remote": {"rtp": socket.local_addr().unwrap()}});
        let (sender, sends) = call::plain(&mut client, room, remote(&microphone)).await;
        let (receiver, receives) = call::plain(&mut client, room, remote(&speaker)).await;
        let producer = call::produce(&mut client, sender, call::microphone(INNOCENT)).await;
        call::consume(&mut client, receiver, producer, INNOCENT + 1).await;
        let browsers = match site.browsers {
            false => None,
            true => {
                let Browsers { sending, receiving, .. } =
                    Browsers::connect(&mut client, room, INNOCENT + 2, home).await;
                Some(Innocent::browsers(sending, receiving, INNOCENT + 2, THEIRS))
            }
        };
        let supervisor = child.id().unwrap();
        let mut arena = Self {
            scale,
            family: site.family,
            tcp,
            worker,
            room,
            producer,
            sends,
            receives,
            sender,
            plain: Innocent::plain(scale, microphone, sends, INNOCENT, speaker),
            browsers,
            operator: Innocent::operator(socket.clone()),
            meter: Meter::start(supervisor),
            workers: children(supervisor),
            child,
            socket,
            log,
            begun: Begun::default(),
            _dir: dir,
        };
        // The first packets and answers find everything cold.
        arena.pass(Duration::from_millis(100)).await;
        arena.begun.baseline = arena.numbers();
        arena.pass(Duration::from_millis(scale.of(300, 5_000) as u64)).await;
        arena.meter.reset();
        arena.begun.memory = Memory::of(supervisor);
        arena.begun.work = Work::of(supervisor);
        arena.begun.attack = arena.numbers();
        arena
    }

    /// A connection of the operator's, who sets up what the attack needs and looks at what came of it.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.socket).await
    }

    /// What the server answers to a question of the operator's, on a connection of its own: others may be closed by now.
    pub(crate) async fn get(&self, target: &str) -> Value {
        self.client().await.get(target).await.expect(200)
    }

    /// A socket of those who have nothing to do with the attack.
    pub(crate) fn home(&self) -> UdpSocket {
        udp(self.family.home())
    }

    /// A socket of a stranger.
    pub(crate) fn stranger(&self) -> UdpSocket {
        udp(self.family.stranger())
    }

    /// A socket of a stranger's victim.
    pub(crate) fn victim(&self) -> UdpSocket {
        udp(self.family.victim())
    }

    /// Lets time pass: what is measured is what happens in it.
    pub(crate) async fn pass(&self, time: Duration) {
        let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
    }

    /// Waits for something that must happen.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        soon(what, async {
            while !is_so() {
                self.pass(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// How much the server has logged, in bytes.
    pub(crate) fn logged(&self) -> u64 {
        std::fs::metadata(&self.log).unwrap().len()
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// The supervisor's process id.
    pub(crate) fn supervisor(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// The innocent's next numbers: plain, browsers, operator.
    fn numbers(&self) -> [u64; 3] {
        let browsers = self.browsers.as_ref().map_or(0, |browsers| browsers.log.next());
        [self.plain.log.next(), browsers, self.operator.log.next()]
    }

    /// The attack is over: looks at what came of it. No worker may have died of it, nor a parser have panicked.
    pub(crate) async fn close(self) -> Figures {
        let workers = children(self.child.id().unwrap());
        assert_eq!(workers, self.workers, "no worker has died");
        let stats = self.get("/stats").await;
        assert_eq!(number(&stats["total"]["containedPanics"]), 0);
        self.close_with_replaced_workers().await
    }

    /// The same where a worker has been replaced.
    pub(crate) async fn close_with_replaced_workers(mut self) -> Figures {
        let supervisor = self.child.id().unwrap();
        // An attack may be over before the innocent have said a word beside it.
        for _ in 0..100 {
            if self.numbers()[0] > self.begun.attack[0] + 1 {
                break;
            }
            self.pass(Duration::from_millis(50)).await;
        }
        let work = Work::of(supervisor);
        let end = self.numbers();
        // What is under way arrives, and memory that is not needed any more goes back.
        self.pass(Duration::from_millis(self.scale.of(300, 3_000) as u64)).await;
        assert!(
            self.child.try_wait().unwrap().is_none(),
            "the server is alive: {}",
            self.log()
        );
        let (supervisor_cpu, workers_cpu) = work.since(&self.begun.work);
        let felt = |innocent: &Innocent, index: usize| {
            let (baseline, attack) = (self.begun.baseline[index], self.begun.attack[index]);
            [
                innocent.log.felt(baseline, attack),
                innocent.log.felt(attack, end[index]),
            ]
        };
        let mut figures = Figures {
            before: self.begun.memory,
            peak: self.meter.peak(),
            after: Memory::of(supervisor),
            supervisor_cpu,
            workers_cpu,
            plain: felt(&self.plain, 0),
            browsers: self.browsers.as_ref().map(|browsers| felt(browsers, 1)),
            operator: felt(&self.operator, 2),
            notes: Vec::new(),
            complaints: Vec::new(),
        };
        assert!(figures.plain[1].sent > 0, "the innocent have called");
        figures.complaints = figures.judge(self.scale);
        figures
    }
}

impl Figures {
    pub(crate) fn with(mut self, note: &'static str, value: impl TryInto<u64>) -> Self {
        self.notes.push((note, value.try_into().unwrap_or(u64::MAX)));
        self
    }

    /// In a few words.
    pub(crate) fn brief(&self) -> String {
        let notes: Vec<String> = self
            .notes
            .iter()
            .map(|(note, value)| format!("{note} {value}"))
            .collect();
        format!(
            "supervisor {} MB, p99 {:.2} -> {:.2} ms, {}",
            self.peak.supervisor >> 20,
            self.plain[0].p99.as_secs_f64() * 1e3,
            self.plain[1].p99.as_secs_f64() * 1e3,
            notes.join(", ")
        )
    }

    /// What must hold under every attack, and did not.
    fn judge(&self, scale: Scale) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut must = |holds: bool, complaint: String| {
            if !holds {
                complaints.push(complaint);
            }
        };
        let lost: Vec<u64> = [Some(&self.plain), self.browsers.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|[before, during]| [before.lost, during.lost])
            .collect();
        must(
            lost.iter().all(|lost| *lost == 0),
            format!("innocent calls lost {lost:?} packets"),
        );
        let unanswered = self.operator[1].lost;
        must(
            unanswered == 0,
            format!("{unanswered} questions of the operator's were not answered"),
        );
        let peak = self.peak.supervisor;
        must(peak <= SUPERVISOR_MAX, format!("the supervisor had {} MB", peak >> 20));
        if scale == Scale::Long {
            let [before, during] = &self.plain;
            let most = 2 * before.p99.max(NOISE);
            must(
                during.p99 <= most,
                format!("the call's p99 was {:?}, before {:?}", during.p99, before.p99),
            );
        }
        complaints
    }
}

/// `weir serve` at a site.
fn command(dir: &Path, site: Site) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    let workers = if site.hostile.is_some() { "2" } else { "1" };
    let address = site.family.of_server();
    let (on, off) = match site.family {
        Family::V4 => ("--rtc-ipv4", "--rtc-ipv6"),
        Family::V6 => ("--rtc-ipv6", "--rtc-ipv4"),
    };
    command.args(["serve", "--workers", workers, on, &address.to_string(), off, "off"]);
    // A busy machine is no fault of a worker's.
    command.args(["--start-timeout", "60s", "--ping-timeout", "60s"]);
    command.arg("--control").arg(dir.join("weir.sock"));
    if site.tcp {
        let listen = SocketAddr::new(site.family.home(), 0).to_string();
        command.args(["--http-listen", &listen, "--http-token", TOKEN]);
    }
    if let Some(port) = site.shared_port {
        command.args(["--webrtc-port", &port.to_string()]);
    }
    match site.hostile {
        Some(deed) => command.arg("--worker-binary").arg(worker_program(dir, deed)),
        None => command.args(["--worker-binary", env!("CARGO_BIN_EXE_weir-worker")]),
    };
    command
        .args(site.options)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if site.debug {
        command.env("WEIR_LOG", "debug");
    }
    command
}

/// A program that is this one for the first process of the first worker, and the real worker for its successors and all others.
fn worker_program(dir: &Path, deed: hostile::Deed) -> PathBuf {
    let path = dir.join("worker");
    let hostile = std::env::current_exe().unwrap();
    let text = format!(
        "#!/bin/sh\ncase \"$* \" in *'--id 1 '*) mkdir '{}' 2>/dev/null && exec '{}' {} {} \"$@\";; esac\nexec '{}' \"$@\"\n",
        dir.join("taken-over").display(),
        hostile.display(),
        hostile::PROGRAM,
        deed.name(),
        env!("CARGO_BIN_EXE_weir-worker"),
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// A member of an answer that must be a number.
#[track_caller]
pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}
