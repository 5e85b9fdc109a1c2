//! Signs of life for a service manager that wants them, and restarts a server that gives none: sd_watchdog_enabled(3).

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;
use tracing::warn;

use super::ready::Manager;

/// A manager that wants signs of life more often than this does not get them.
const SHORTEST: Duration = Duration::from_millis(1);

/// Gives the signs.
#[derive(Debug)]
pub(super) struct Watchdog {
    /// Half of what the manager waits.
    interval: Duration,
}

impl Watchdog {
    /// As the environment wants it; `None`: nobody waits for signs of this process.
    pub(super) fn from_environment() -> Option<Self> {
        let variable = |name| std::env::var(name).ok();
        let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        let wanted = Self::wanted(usec.as_deref(), pid.as_deref(), std::process::id());
        wanted.unwrap_or_else(|usec| {
            warn!(
                WATCHDOG_USEC = usec,
                "not a time, so the service manager gets no signs of life"
            );
            None
        })
    }

    fn wanted<'a>(usec: Option<&'a str>, pid: Option<&str>, own_pid: u32) -> Result<Option<Self>, &'a str> {
        // Another process of the service is meant, whose environment this is by chance.
        let is_meant = pid.is_none_or(|pid| pid.parse() == Ok(own_pid));
        let Some(usec) = usec.filter(|_| is_meant) else {
            return Ok(None);
        };
        let waits = Duration::from_micros(usec.parse().map_err(|_| usec)?);
        let interval = (waits / 2).max(SHORTEST);
        Ok((!waits.is_zero()).then_some(Self { interval }))
    }

    /// Gives a sign whenever half of the time is over and `prove_alive` has ended. It ends only if the server is alive, which is
    /// the point: a timer alone would go on beside a server that does not.
    pub(super) async fn watch(&self, mut manager: Manager, mut prove_alive: impl AsyncFnMut()) -> Infallible {
        loop {
            prove_alive().await;
            manager.tell_soon("WATCHDOG=1");
            sleep(self.interval).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use tokio::sync::watch;

    use super::*;

    #[test]
    fn who_is_meant_and_how_often() {
        let interval =
            |usec, pid| Watchdog::wanted(usec, pid, 7).map(|wanted| wanted.map(|watchdog| watchdog.interval));
        let half = Ok(Some(Duration::from_secs(15)));
        assert_eq!(interval(Some("30000000"), Some("7")), half);
        assert_eq!(interval(Some("30000000"), None), half);
        for pid in ["8", "", "x"] {
            assert_eq!(interval(Some("30000000"), Some(pid)), Ok(None), "{pid:?}");
        }
        assert_eq!(interval(None, Some("7")), Ok(None));
        assert_eq!(interval(Some("0"), None), Ok(None));
        assert_eq!(interval(Some("1"), None), Ok(Some(SHORTEST)));
        for strange in ["", "-1", "30s", "99999999999999999999999"] {
            assert_eq!(interval(Some(strange), None), Err(strange));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn signs_come_at_half_the_interval_and_only_while_life_is_proven() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let signs = || std::iter::from_fn(|| socket.recv(&mut [0; 64]).ok()).count();

        let (alive, is_alive) = watch::channel(true);
        let watchdog = Watchdog {
            interval: Duration::from_secs(5),
        };
        let manager = Manager::at(path.as_os_str()).unwrap();
        let prove = async || drop(is_alive.clone().wait_for(|alive| *alive).await);
        let story = async {
            // Few at a time, because a socket holds few.
            sleep(Duration::from_secs(24)).await;
            assert_eq!(signs(), 5); // at 0, 5, …, 20 s
            sleep(Duration::from_secs(25)).await;
            assert_eq!(signs(), 5);
            alive.send_replace(false);
            sleep(Duration::from_secs(1_000)).await;
            assert_eq!(signs(), 0);
            alive.send_replace(true);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(signs(), 1, "not one for each that was missed");
        };
        tokio::select! {
            () = story => {}
            never = watchdog.watch(manager, prove) => match never {},
        }
    }
}
