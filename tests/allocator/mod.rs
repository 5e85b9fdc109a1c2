//! An allocator that counts, for tests of what code takes from it. A program has one allocator, so each of them is a program of
//! its own that has this module.

#![expect(unsafe_code, reason = "a global allocator that counts; it only passes on")]
#![allow(dead_code, reason = "each test program uses its part")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, Ordering};

thread_local! {
    /// Allocations of this thread; the test runner's own threads do not count.
    pub(crate) static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    /// What this thread has taken and not given back.
    pub(crate) static OWN_BYTES: Cell<i64> = const { Cell::new(0) };
    /// The bytes of this thread are in neither [`BYTES`] nor [`PEAK_BYTES`].
    pub(crate) static IS_OUTSIDE: Cell<bool> = const { Cell::new(false) };
}

/// What all threads that are counted have taken and not given back.
pub(crate) static BYTES: AtomicI64 = AtomicI64::new(0);

/// The most that [`BYTES`] has been.
pub(crate) static PEAK_BYTES: AtomicI64 = AtomicI64::new(0);

struct Counting;

fn count(bytes: i64) {
    OWN_BYTES.set(OWN_BYTES.get() + bytes);
    if !IS_OUTSIDE.get() {
        let now = BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
        PEAK_BYTES.fetch_max(now, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on unchanged to the system's allocator; the counters are numbers without a destructor, so
// touching them allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    // The default `realloc` allocates anew and copies, so that a growing collection counts with both its sizes: the worst case.
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
