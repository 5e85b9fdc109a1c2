//! The epoll instances that a worker waits with. The supervisor makes and holds them too, and waits with neither: so when
//! the worker dies, the kernel need not take thousands of sockets out of them before anybody hears of the death.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use tokio::runtime::Handle;

/// Two: for sockets of those who are known, and for those at which anybody is heard.
#[derive(Debug)]
pub(crate) struct Pollers(Option<[OwnedFd; 2]>);

impl Pollers {
    /// # Errors
    /// What epoll_create1 says.
    pub(crate) fn create() -> Result<Self, Errno> {
        let create = || Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(|epoll| epoll.0);
        Ok(Self(Some([create()?, create()?])))
    }

    /// Others of the same, for the worker.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn descriptors(&self) -> std::io::Result<Vec<OwnedFd>> {
        self.0.iter().flatten().map(OwnedFd::try_clone).collect()
    }
}

impl Drop for Pollers {
    /// Takes milliseconds if the worker is dead, so it is done where nobody waits.
    fn drop(&mut self) {
        let pollers = self.0.take();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn_blocking(move || drop(pollers));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use nix::sys::epoll::EpollEvent;

    use super::*;

    #[tokio::test]
    async fn a_worker_gets_the_same_two() {
        let pollers = Pollers::create().unwrap();
        let (socket, _other) = UnixDatagram::pair().unwrap();
        let ours = pollers.0.as_ref().unwrap();
        for (ours, others) in ours.iter().zip(pollers.descriptors().unwrap()) {
            Epoll(others).add(&socket, EpollEvent::empty()).unwrap();
            // What the worker watches is watched by the supervisor's, too.
            let ours = Epoll(ours.try_clone().unwrap());
            assert_eq!(ours.add(&socket, EpollEvent::empty()), Err(Errno::EEXIST));
        }
    }
}
