//! The signals that end a server, and the one that has it read its settings again.

use std::fs;
use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

/// Those that are listened for.
pub(super) struct Signals {
    terminate: Arrivals,
    /// None: whoever started this process had it ignore the signal.
    interrupt: Option<Arrivals>,
    /// As above.
    hangup: Option<Arrivals>,
    /// It was started from a terminal.
    has_terminal: bool,
}

/// What a signal says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Heard {
    /// The server is to end. The name of the signal.
    End(&'static str),
    /// Its settings are to be read again.
    Reload,
}

impl Signals {
    /// Listens from now on. A SIGHUP or SIGINT that this process was started with ignored stays so: that is how nohup, and a
    /// shell that starts something in the background, say that its end is none of the terminal's business. SIGTERM is always
    /// heard; it is how a server is ended.
    pub(super) fn new() -> io::Result<Self> {
        let ignored = Ignored::inherited();
        let unless_ignored = |kind: SignalKind| match ignored.has(kind) {
            true => Ok(None),
            false => signal(kind).map(Some),
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: unless_ignored(SignalKind::interrupt())?,
            hangup: unless_ignored(SignalKind::hangup())?,
            has_terminal: finds_terminal(),
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::End("SIGTERM"),
            () = next_of(&mut self.interrupt) => Heard::End("SIGINT"),
            // A terminal that is closed says the same as somebody who has changed the settings.
            () = next_of(&mut self.hangup) => match self.has_terminal && !finds_terminal() {
                true => Heard::End("SIGHUP"),
                false => Heard::Reload,
            },
        }
    }

    /// The name of the next one that ends the server.
    pub(super) async fn next_end(&mut self) -> &'static str {
        loop {
            if let Heard::End(name) = self.next().await {
                return name;
            }
        }
    }
}

/// Whether this process has a terminal that sends it signals (tty(4)).
fn finds_terminal() -> bool {
    fs::File::open("/dev/tty").is_ok()
}

async fn next_of(arrivals: &mut Option<Arrivals>) {
    match arrivals {
        Some(arrivals) => drop(arrivals.recv().await),
        None => pending().await,
    }
}

/// A set of signals, by number from 1 on: bit 0 is signal 1 (proc_pid_status(5), SigIgn).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Ignored(u64);

impl Ignored {
    /// Those that this process ignores, as long as nothing in it has changed that. None if the kernel does not tell.
    fn inherited() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self::read(&status).unwrap_or_default()
    }

    fn read(status: &str) -> Option<Self> {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok().map(Self)
    }

    fn has(self, kind: SignalKind) -> bool {
        let bit = kind.as_raw_value() - 1;
        (0..64).contains(&bit) && self.0 >> bit & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_read_bit_by_bit() {
        let status = "Name:\tweir\nSigBlk:\t0000000000000003\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        let ignored = Ignored::read(status).unwrap();
        let has = [
            SignalKind::hangup(),
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::pipe(),
        ];
        assert_eq!(has.map(|kind| ignored.has(kind)), [true, false, false, true]);
        for strange in ["", "SigIgn:\tno\n", "SigIgn:\n"] {
            assert_eq!(Ignored::read(strange), None, "{strange:?}");
        }
    }
}
