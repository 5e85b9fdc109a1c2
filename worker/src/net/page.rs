//! Pages in memory: a worker's own, for as long as it lives, and those that others have left.

use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap};
use weir_channel::page::{BYTES, Page};

/// The words of a page.
const WORDS: usize = BYTES as usize / size_of::<u64>();

/// A page that is mapped.
#[derive(Debug)]
pub struct MappedPage(NonNull<AtomicU64>);

// SAFETY: it is the only owner of its mapping, which any thread may read and unmap; others who write to the file are
// met by atomic loads.
unsafe impl Send for MappedPage {}
// SAFETY: what can be shared of it is a slice of atomics.
unsafe impl Sync for MappedPage {}

impl MappedPage {
    /// Maps a page. It is left out of core dumps.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn map(page: &Page) -> Result<Self, Errno> {
        let length = std::num::NonZeroUsize::new(BYTES as usize).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses, of a file whose size is BYTES and sealed (`Page` is nothing
        // else), so that no access can miss it.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, page.as_fd(), 0) }?;
        let mapped = Self(start.cast());
        // SAFETY: it changes what of the mapping is dumped, and nothing that anybody reads.
        unsafe { madvise(start, length.get(), MmapAdvise::MADV_DONTDUMP) }?;
        Ok(mapped)
    }

    /// Its words, for as long as the process lives.
    pub fn leak(self) -> &'static [AtomicU64] {
        let start = self.0;
        std::mem::forget(self);
        // SAFETY: as in `as_ref`, and it is never unmapped.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), WORDS) }
    }
}

impl AsRef<[AtomicU64]> for MappedPage {
    fn as_ref(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has so many words, begins at the beginning of a page of memory, and lives as long as `self`. Whatever
        // bytes are in it are words, and all accesses to them, also those of other processes, are atomic or before this.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), WORDS) }
    }
}

impl Drop for MappedPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's, and nobody has a reference into it any more.
        let _ = unsafe { munmap(self.0.cast::<libc::c_void>(), BYTES as usize) };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use weir_channel::page::Doing;

    use super::*;

    #[test]
    fn the_supervisor_reads_whose_packets_a_worker_works_on() {
        use weir_channel::id::TransportId;
        use weir_channel::page::Suspect;

        let page = Page::create().unwrap();
        let memory = crate::page::memory::Memory::mapped(MappedPage::map(&page).unwrap().leak());
        let own = crate::page::Page::new(memory, crate::page::layout::Capacity::WORKER, 1);
        assert_eq!(page.suspect(), None);
        for (transport, source) in [(7, "192.0.2.1:5004"), (0, "[2001:db8::1]:9"), (1, "[fe80::1%3]:65535")] {
            let source = source.parse().unwrap();
            own.set_suspect(transport, source);
            let transport = (transport != 0).then_some(TransportId(transport));
            assert_eq!(page.suspect(), Some(Suspect { transport, source }));
            own.clear_suspect();
            assert_eq!(page.suspect(), None);
        }
    }

    #[test]
    fn what_one_writes_the_other_finds() {
        let page = Page::create().unwrap();
        let other = Page::recognize(page.try_clone().unwrap()).unwrap();
        let own = MappedPage::map(&page).unwrap().leak();
        own[8].store(1_234, Ordering::Release);
        own[9].store(!1_234, Ordering::Release);
        own[WORDS - 1].store(7, Ordering::Release);
        assert_eq!(page.doing(), Some(Doing::Turn(1_234)));
        let left = MappedPage::map(&other).unwrap();
        assert_eq!(left.as_ref()[WORDS - 1].load(Ordering::Acquire), 7);
    }
}
