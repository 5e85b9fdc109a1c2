//! The page of a worker: the memory in which a worker keeps what its successor needs when it dies.
//!
//! It is an anonymous file ([memfd_create(2)]). The supervisor makes it and keeps it; the worker writes to it through a mapping,
//! and whoever follows the worker reads it once the kernel has said that the worker is dead. What is written where is the
//! worker's own business; the supervisor reads only whether it [goes on](Page::doing), [whose packets](Page::suspect) it works on and
//! [how much](Page::totals) it has counted, and maps nothing.
//!
//! A worker finds its page as its standard output, beside the channel, which is its standard input.
//!
//! [memfd_create(2)]: https://man7.org/linux/man-pages/man2/memfd_create.2.html

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::pread;
use nix::unistd::{Whence, ftruncate, lseek};

use crate::id::TransportId;
use crate::message::WorkerStats;

/// The size of a page, in bytes. What is never written takes no memory.
pub const BYTES: u64 = 64 << 20;

/// Where the turn clock lies: a `u64` in native byte order, then the same inverted.
pub const TURN_OFFSET: u64 = 64;

/// Where it says when it began to wait: a `u64` in native byte order.
pub const REST_OFFSET: u64 = 112;

/// A worker that has nothing to do waits no longer than this at a time: so that it can be seen that it could.
pub const REST_MAX: Duration = Duration::from_millis(250);

/// Where it says how much it has counted: the words of [`WorkerStats::to_words`], in native byte order.
pub const TOTALS_OFFSET: u64 = 256;

/// Nobody has ever counted more.
const COUNT_MAX: u64 = 1 << 56;

/// Where it says whose packets are being worked on: the transport as a `u64`, 16 bytes of the source's IPv6 address (or an IPv4
/// address in its form, RFC 4291 §2.5.5.2), its zone as a `u32`, its port as a `u16`, 1 if it is of IPv4, and 0. Numbers are in
/// native byte order. Without a port nobody's are.
pub const SUSPECT_OFFSET: u64 = 80;

/// MFD_NOEXEC_SEAL of Linux 6.3 (`include/uapi/linux/memfd.h`): the file cannot be run, and never will be.
const NO_EXEC: MFdFlags = MFdFlags::from_bits_retain(8);

/// A worker's page.
#[derive(Debug)]
pub struct Page(OwnedFd);

/// What a worker does. In one that goes on, it is another every [`REST_MAX`] at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// A turn of its event loop, which began then, in nanoseconds of CLOCK_MONOTONIC.
    Turn(u64),
    /// It waits for something to do, since then.
    Rest(u64),
}

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

    /// What the worker does at this moment; `None` if it has not begun, or if what is there makes no sense: a worker that is alive may
    /// be writing it.
    pub fn doing(&self) -> Option<Doing> {
        let [began, inverted, .., rest] = self.words::<7>(TURN_OFFSET)?;
        match began {
            _ if began != !inverted => None,
            0 => Some(Doing::Rest(rest)),
            began => Some(Doing::Turn(began)),
        }
    }

    /// Whether a turn of the worker's event loop had not ended: to be asked when it is dead.
    pub fn was_in_turn(&self) -> bool {
        matches!(self.doing(), Some(Doing::Turn(_)))
    }

    /// How much the worker has counted, a second ago or when it was last asked: to be asked when it is dead.
    pub fn totals(&self) -> WorkerStats {
        let words = self.words::<{ WorkerStats::WORDS }>(TOTALS_OFFSET);
        WorkerStats::from_words(&words.unwrap_or([0; WorkerStats::WORDS]).map(|word| word.min(COUNT_MAX)))
    }

    fn words<const COUNT: usize>(&self, offset: u64) -> Option<[u64; COUNT]> {
        let mut bytes = [[0; 8]; COUNT];
        let read = pread(&self.0, bytes.as_flattened_mut(), offset as libc::off_t);
        (read == Ok(COUNT * 8)).then(|| bytes.map(u64::from_ne_bytes))
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
    fn totals_are_what_was_counted_and_nothing_impossible() {
        let page = Page::create().unwrap();
        assert_eq!(page.totals(), WorkerStats::default());
        let counted = WorkerStats {
            packets_sent: 7,
            cpu_ns: u64::MAX,
            ..WorkerStats::default()
        };
        let words = counted.to_words().map(u64::to_ne_bytes);
        pwrite(&page, words.as_flattened(), TOTALS_OFFSET as libc::off_t).unwrap();
        assert_eq!(page.totals().packets_sent, 7);
        assert_eq!(page.totals().cpu_ns, COUNT_MAX);
    }

    #[test]
    fn a_turn_clock_that_makes_no_sense_says_nothing() {
        let page = Page::create().unwrap();
        let rest = |since: u64| pwrite(&page, &since.to_ne_bytes(), REST_OFFSET as libc::off_t).unwrap();
        let write = |began: u64, inverted: u64| {
            let bytes = [began.to_ne_bytes(), inverted.to_ne_bytes()].concat();
            pwrite(&page, &bytes, TURN_OFFSET as libc::off_t).unwrap();
        };
        assert_eq!(page.doing(), None, "a worker that has not begun");
        write(1_234_567_890_123, !1_234_567_890_123);
        assert_eq!(page.doing(), Some(Doing::Turn(1_234_567_890_123)));
        assert!(page.was_in_turn());
        rest(1_234_567_890_456);
        write(0, !0);
        assert_eq!(page.doing(), Some(Doing::Rest(1_234_567_890_456)));
        assert!(!page.was_in_turn());
        write(5, !4);
        assert_eq!(page.doing(), None, "it is being written");
    }
}
