//! The page of a worker: the memory in which a worker keeps what its successor needs when it dies.
//!
//! It is an anonymous file ([memfd_create(2)]). The supervisor makes it and keeps it; the worker writes to it through a mapping,
//! and whoever follows the worker reads it once the kernel has said that the worker is dead. What is written where is the
//! worker's own business; the supervisor reads only when its [current turn](Page::turn_began) began and [whose packets](Page::suspect) it
//! works on, and maps nothing.
//!
//! A worker finds its page as its standard output, beside the channel, which is its standard input.
//!
//! [memfd_create(2)]: https://man7.org/linux/man-pages/man2/memfd_create.2.html

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pread;
use nix::unistd::{Whence, ftruncate, lseek};

use crate::id::TransportId;

/// The size of a page, in bytes. What is never written takes no memory.
pub const BYTES: u64 = 64 << 20;

/// Where the turn clock lies: a `u64` in native byte order, then the same inverted.
pub const TURN_OFFSET: u64 = 64;

/// Where it says whose packets are being worked on: the transport as a `u64`, 16 bytes of the source's IPv6 address (or an IPv4
/// address in its form, RFC 4291 §2.5.5.2), its zone as a `u32`, its port as a `u16`, 1 if it is of IPv4, and 0. Numbers are in
/// native byte order. Without a port nobody's are.
pub const SUSPECT_OFFSET: u64 = 80;

/// MFD_NOEXEC_SEAL of Linux 6.3 (`include/uapi/linux/memfd.h`): the file cannot be run, and never will be.
const NO_EXEC: MFdFlags = MFdFlags::from_bits_retain(8);

/// A worker's page.
#[derive(Debug)]
pub struct Page(OwnedFd);

/// Whose packets a worker was working on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suspect {
    /// The transport whose socket they came to; `None` if they came to one that is shared.
    pub transport: Option<TransportId>,
    /// Where the first of them came from.
    pub source: SocketAddr,
}

/// Why a descriptor is not a page.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotAPage {
    /// It is no anonymous file.
    #[error("it is not a file that was made by memfd_create: {0}")]
    OtherFile(Errno),
    /// Its size could change while it is mapped.
    #[error("its size is not sealed")]
    Unsealed,
    /// It has another size than [`BYTES`].
    #[error("it has {0} bytes instead of {BYTES}")]
    Size(i64),
}

impl Page {
    /// A new one, all zeroes. Its size never changes, and it is closed on exec.
    ///
    /// # Errors
    /// What memfd_create(2), ftruncate(2) and fcntl(2) say.
    pub fn create() -> Result<Self, Errno> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = match memfd_create(c"weir-page", flags | NO_EXEC) {
            // An older kernel knows no such flag.
            Err(Errno::EINVAL) => memfd_create(c"weir-page", flags)?,
            other => other?,
        };
        ftruncate(&file, BYTES as libc::off_t)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self(file))
    }

    /// A descriptor that may be a page.
    ///
    /// # Errors
    /// [`NotAPage`]; the descriptor is closed then.
    pub fn recognize(file: OwnedFd) -> Result<Self, NotAPage> {
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS).map_err(NotAPage::OtherFile)?;
        if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW) {
            return Err(NotAPage::Unsealed);
        }
        // Not fstat(2), which C libraries make with a call that also takes paths.
        match lseek(&file, 0, Whence::SeekEnd).map_err(NotAPage::OtherFile)? {
            size if u64::try_from(size) == Ok(BYTES) => Ok(Self(file)),
            size => Err(NotAPage::Size(size)),
        }
    }

    /// Another descriptor of the same page.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn try_clone(&self) -> std::io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// When the worker's current turn of its event loop began, in nanoseconds of CLOCK_MONOTONIC; `None` while it waits for
    /// something to do, or if what is there makes no sense: a worker that is alive may be writing it at this moment.
    pub fn turn_began(&self) -> Option<u64> {
        let mut words = [0; 16];
        match pread(&self.0, &mut words, TURN_OFFSET as libc::off_t) {
            Ok(16) => {
                let (began, inverted) = words.split_first_chunk()?;
                let began = u64::from_ne_bytes(*began);
                let inverted = u64::from_ne_bytes(inverted.try_into().ok()?);
                (began != 0 && began == !inverted).then_some(began)
            }
            _ => None,
        }
    }
}

impl Page {
    /// Whose packets the worker was working on, if it was: to be asked when it is dead. It may have been anybody: a worker that
    /// has gone astray may have written anything.
    pub fn suspect(&self) -> Option<Suspect> {
        let mut bytes = [0; 32];
        let read = pread(&self.0, &mut bytes, SUSPECT_OFFSET as libc::off_t);
        let (transport, rest) = bytes.split_first_chunk()?;
        let (ip, rest) = rest.split_first_chunk::<16>()?;
        let (zone, rest) = rest.split_first_chunk()?;
        let (port, rest) = rest.split_first_chunk()?;
        let port = u16::from_ne_bytes(*port);
        if read != Ok(bytes.len()) || port == 0 {
            return None;
        }
        let ip = Ipv6Addr::from(*ip);
        let source = match (rest.first(), ip.to_ipv4_mapped()) {
            (Some(1), Some(ip)) => SocketAddr::from((ip, port)),
            _ => SocketAddrV6::new(ip, port, 0, u32::from_ne_bytes(*zone)).into(),
        };
        let transport = Some(u64::from_ne_bytes(*transport));
        Some(Suspect {
            transport: transport.filter(|id| *id != 0).map(TransportId),
            source,
        })
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Page> for OwnedFd {
    fn from(page: Page) -> Self {
        page.0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::sys::stat::fstat;

    use nix::sys::uio::pwrite;

    use super::*;

    #[test]
    fn a_page_keeps_its_size_and_takes_memory_only_where_it_is_written() {
        let page = Page::create().unwrap();
        for size in [0, BYTES as libc::off_t * 2] {
            assert_eq!(ftruncate(&page, size), Err(Errno::EPERM));
        }
        assert_eq!(fstat(&page).unwrap().st_blocks, 0);
        assert!(Page::recognize(page.into()).is_ok());
    }

    #[test]
    fn what_is_no_page_is_recognized() {
        let null = File::open("/dev/null").unwrap();
        assert!(matches!(Page::recognize(null.into()), Err(NotAPage::OtherFile(_))));
        let unsealed = memfd_create(c"other", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        assert_eq!(
            Page::recognize(unsealed.try_clone().unwrap()).unwrap_err(),
            NotAPage::Unsealed
        );
        fcntl(
            &unsealed,
            FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW),
        )
        .unwrap();
        assert_eq!(Page::recognize(unsealed).unwrap_err(), NotAPage::Size(0));
    }

    #[test]
    fn a_turn_clock_that_makes_no_sense_says_nothing() {
        let page = Page::create().unwrap();
        let write = |began: u64, inverted: u64| {
            let bytes = [began.to_ne_bytes(), inverted.to_ne_bytes()].concat();
            pwrite(&page, &bytes, TURN_OFFSET as libc::off_t).unwrap();
        };
        assert_eq!(page.turn_began(), None, "a worker that has not begun");
        write(1_234_567_890_123, !1_234_567_890_123);
        assert_eq!(page.turn_began(), Some(1_234_567_890_123));
        write(0, !0);
        assert_eq!(page.turn_began(), None, "it waits");
        write(5, !4);
        assert_eq!(page.turn_began(), None, "it is being written");
    }
}
