//! Telling a service manager how the server is: the datagram protocol of sd_notify(3).

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use tracing::warn;

/// Sends `state`, such as `READY=1`, if a service manager wants to know.
pub(super) fn notify(state: &str) {
    if let Some(manager) = Manager::from_environment() {
        warn_if_failed(manager.tell(state));
    }
}

fn warn_if_failed(sent: io::Result<()>) {
    if let Err(error) = sent {
        warn!(%error, "cannot tell the service manager");
    }
}

/// A service manager that wants to know.
#[derive(Debug)]
pub(super) struct Manager {
    socket: UnixDatagram,
    address: SocketAddr,
    /// The last message did not get there.
    is_failing: bool,
}

impl Manager {
    /// The one that the environment names.
    pub(super) fn from_environment() -> Option<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET")?;
        let manager = Self::at(&socket);
        manager.map_err(|error| warn_if_failed(Err(error))).ok()
    }

    pub(super) fn at(socket: &OsStr) -> io::Result<Self> {
        let address = match socket.as_bytes() {
            // A name that begins with @ is not in the file system (unix(7), abstract sockets).
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(socket)?,
        };
        Ok(Self {
            socket: UnixDatagram::unbound()?,
            address,
            is_failing: false,
        })
    }

    /// Says something that the manager must not miss; waits while it has not read the message before.
    fn tell(&self, state: &str) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        self.socket.send_to_addr(state.as_bytes(), &self.address).map(drop)
    }

    /// Says something that will be said again. Does not wait for the manager, and logs only the first of several failures.
    pub(super) fn tell_soon(&mut self, state: &str) {
        let sent = self
            .socket
            .set_nonblocking(true)
            .and_then(|()| self.socket.send_to_addr(state.as_bytes(), &self.address));
        let was_failing = std::mem::replace(&mut self.is_failing, sent.is_err());
        if !was_failing {
            warn_if_failed(sent.map(drop));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(socket: &OsStr, state: &str) -> io::Result<()> {
        Manager::at(socket)?.tell(state)
    }

    fn received(manager: &UnixDatagram) -> Vec<u8> {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn a_manager_in_the_file_system_hears() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        tell(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(received(&manager), b"READY=1");
    }

    #[test]
    fn an_abstract_manager_hears() {
        let name = format!("weir-test-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        tell(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(received(&manager), b"STOPPING=1");
    }

    #[test]
    fn a_manager_that_is_gone_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tell(dir.path().join("gone").as_os_str(), "READY=1").is_err());
    }

    #[test]
    fn a_manager_that_does_not_read_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut manager = Manager::at(path.as_os_str()).unwrap();
        while !manager.is_failing {
            manager.tell_soon("WATCHDOG=1");
        }
        assert_eq!(received(&socket), b"WATCHDOG=1");
        manager.tell_soon("WATCHDOG=1");
        assert!(!manager.is_failing);
    }
}
