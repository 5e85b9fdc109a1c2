//! Free memory: taken from the system before it is needed, and given back.

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

/// The pieces in which memory is reserved: so small that the C library cuts all of them from its heap, and none is given back at once.
const PIECE_BYTES: usize = 64 << 10;

/// At most so much is reserved.
const RESERVE_MAX: u64 = 1 << 30;

/// A page of memory, on every processor that we know.
const PAGE_BYTES: usize = 4096;

/// Has so many bytes of heap backed by memory, so that whoever needs them first does not wait for the system to find and clear
/// them: 28 % of the time in which a worker takes over 4,000 objects. They stay in the heap if that is told to keep them, as glibc's is by
/// `glibc.malloc.trim_threshold`. Takes less where there is less.
pub fn reserve(bytes: u64) {
    let count = bytes.min(RESERVE_MAX) as usize / PIECE_BYTES;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    for _ in 0..count {
        let mut piece = Vec::new();
        if pieces.try_reserve(1).is_err() || piece.try_reserve_exact(PIECE_BYTES).is_err() {
            break;
        }
        piece.resize(PIECE_BYTES, 0);
        // Memory that is only said to be zero is not there yet.
        for byte in piece.iter_mut().step_by(PAGE_BYTES) {
            *std::hint::black_box(byte) = 1;
        }
        pieces.push(piece);
    }
}
