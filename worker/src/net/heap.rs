//! Free memory: given back to the system.

/// Gives the memory that is free in the C library's heaps back to the system. It may take some milliseconds, in which other threads
/// that allocate have to wait: nothing for a thread that relays.
///
/// By itself glibc gives back only what is free at a heap's end, and one small thing in use there keeps all that is below. (An
/// allocator without such heaps needs no call; this one then does nothing.)
pub fn give_back_free_memory() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes a number and touches no memory that is in use; it may be called at any time, by any thread (malloc_trim(3)).
        unsafe { nix::libc::malloc_trim(0) };
    }
}
