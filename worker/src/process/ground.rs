//! The event loop on the kernel, as every worker has it that is a process.

use nix::errno::Errno;
use weir_channel::error::ChannelError;

use crate::net::page::MappedPage;
use crate::net::poll::Poller;
use crate::net::receive::{DATAGRAM_BYTES_MAX, ReceiveBatch, SLOTS};
use crate::net::send::KernelSend;
use crate::net::shell::Backends;
use crate::page::memory::Memory;

use super::event_loop::{EVENTS_MAX, EventLoop, Start};

impl EventLoop {
    /// A worker without rooms on its end of a channel. It says hello in its first turn.
    ///
    /// # Errors
    /// What epoll or the channel says.
    pub fn new(start: Start) -> Result<Self, ChannelError> {
        let os = |call| move |errno| ChannelError::Os { call, errno };
        let backends = Backends {
            send: KernelSend::new(),
            receive: ReceiveBatch::new(SLOTS, DATAGRAM_BYTES_MAX),
            poll: Poller::new(EVENTS_MAX).map_err(os("epoll_create1"))?,
        };
        Self::on(backends, start)
    }

    /// Where to keep what a successor needs. To be called before the first turn.
    ///
    /// # Errors
    /// It cannot be mapped.
    pub fn set_page(&mut self, page: &weir_channel::page::Page) -> Result<(), Errno> {
        self.keep_in(Memory::mapped(MappedPage::map(page)?.leak()));
        Ok(())
    }
}
