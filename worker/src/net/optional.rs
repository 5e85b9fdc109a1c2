//! Features of the kernel that Weir can do without, if they are refused: by an old kernel, by one that emulates Linux, by a
//! sandbox. A refused feature is logged once, and has no other effect.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use nix::errno::Errno;
use tracing::{debug, warn};

/// A feature that improves Weir and that it does not need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
#[expect(
    missing_docs,
    reason = "`Optional::name` says what each is, `Optional::without` what it is for"
)]
pub enum Optional {
    UdpGro,
    UdpSegment,
    DropCounts,
    DropCountNow,
    ArrivalTimes,
    NoDelay,
    SendBuffer,
    ReceiveBuffer,
    ReuseAddress,
    Ipv6Only,
    ReuseportFilter,
    EpollNanoseconds,
    ShortSlices,
    Affinity,
    TimerSlack,
    DeathSignal,
    NoNewPrivileges,
    OpenFiles,
    OomScore,
}

/// The features that were refused, one bit each.
static MISSED: AtomicU32 = AtomicU32::new(0);

/// This process is a worker, whose supervisor has warned of the same refusals.
static IS_WORKER: AtomicBool = AtomicBool::new(false);

impl Optional {
    /// The kernel's name of the feature.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UdpGro => "UDP_GRO",
            Self::UdpSegment => "UDP_SEGMENT",
            Self::DropCounts => "SO_RXQ_OVFL",
            Self::DropCountNow => "SO_MEMINFO",
            Self::ArrivalTimes => "SO_TIMESTAMPNS",
            Self::NoDelay => "TCP_NODELAY",
            Self::SendBuffer => "SO_SNDBUF",
            Self::ReceiveBuffer => "SO_RCVBUF",
            Self::ReuseAddress => "SO_REUSEADDR",
            Self::Ipv6Only => "IPV6_V6ONLY",
            Self::ReuseportFilter => "SO_ATTACH_REUSEPORT_CBPF",
            Self::EpollNanoseconds => "epoll_pwait2",
            Self::ShortSlices => "sched_setattr",
            Self::Affinity => "sched_setaffinity",
            Self::TimerSlack => "PR_SET_TIMERSLACK",
            Self::DeathSignal => "PR_SET_PDEATHSIG",
            Self::NoNewPrivileges => "PR_SET_NO_NEW_PRIVS",
            Self::OpenFiles => "setrlimit",
            Self::OomScore => "oom_score_adj",
        }
    }

    /// What is different without it.
    pub const fn without(self) -> &'static str {
        match self {
            Self::UdpGro => "packets are received one at a time, at a higher cost",
            Self::UdpSegment => "packets are sent one at a time, at several times the cost",
            Self::DropCounts => "packets that the kernel drops are counted only when statistics are asked for",
            Self::DropCountNow => "packets that the kernel drops are counted only when the next one comes",
            Self::ArrivalTimes => "how long packets stay with a worker cannot be measured",
            Self::NoDelay => "small packets over TCP may wait for each other",
            Self::SendBuffer => "what is sent has a buffer of the system's size",
            Self::ReceiveBuffer => "what is received has a buffer of the system's size, so bursts may be lost",
            Self::ReuseAddress => "a TCP port that was closed cannot be used again for a minute",
            Self::Ipv6Only => "nothing, as long as no IPv6 address of the settings is one of IPv4",
            Self::ReuseportFilter => "clients on a shared port have no sockets of their own",
            Self::EpollNanoseconds => "timers are exact to the millisecond",
            Self::ShortSlices => "packets wait longer for a worker where other programs want its CPU",
            Self::Affinity => "workers are not kept on one CPU each",
            Self::TimerSlack => "timers are up to 50 µs late",
            Self::DeathSignal => "a worker that hangs lives on when its server is killed",
            Self::NoNewPrivileges => "workers keep the right to gain privileges",
            Self::OpenFiles => "the limit of open files stays as it is, so there may be fewer transports",
            Self::OomScore => "where memory runs out, the kernel may end the server rather than a worker",
        }
    }

    /// Returns what the kernel granted, or `None`. Logs the first refusal in this process.
    pub fn or_without<T>(self, asked: Result<T, Errno>) -> Option<T> {
        match asked {
            Ok(granted) => Some(granted),
            Err(errno) => {
                self.log_refusal(errno);
                None
            }
        }
    }

    fn log_refusal(self, errno: Errno) {
        let bit = 1 << self as u32;
        if MISSED.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
            return;
        }
        let (name, without) = (self.name(), self.without());
        if IS_WORKER.load(Ordering::Relaxed) {
            debug!(%errno, "{name} is refused: {without}");
        } else {
            warn!(%errno, "the kernel, or what confines this process, refuses {name}, so: {without}");
        }
    }
}

/// Marks this process as a worker: its supervisor misses the same features, and has warned of them.
pub fn leave_warnings_to_supervisor() {
    IS_WORKER.store(true, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_done_without() {
        assert_eq!(Optional::UdpGro.or_without(Ok(7)), Some(7));
        for _ in 0..2 {
            assert_eq!(Optional::UdpGro.or_without::<()>(Err(Errno::ENOPROTOOPT)), None);
        }
        assert_ne!(MISSED.load(Ordering::Relaxed) & 1 << Optional::UdpGro as u32, 0);
    }
}
