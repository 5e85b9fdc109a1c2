//! Memory that will be needed soon, fetched while something else is done.

/// Bytes that one fetch brings.
const LINE_BYTES: usize = 64;

/// Begins to bring a value into the caches; nothing waits for it. Without effect where this processor's instruction for it is not
/// known.
#[inline]
pub(super) fn prefetch<T>(value: &T) {
    prefetch_head(value, size_of::<T>());
}

/// The same for so many of its first bytes.
#[inline]
pub(super) fn prefetch_head<T>(value: &T, bytes: usize) {
    let start = std::ptr::from_ref(value).cast::<i8>();
    for offset in (0..bytes.min(size_of::<T>())).step_by(LINE_BYTES) {
        prefetch_line(start.wrapping_add(offset));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 has the instruction, and it reads no memory that the program could see.
    unsafe { _mm_prefetch(address, _MM_HINT_T0) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch_line(_address: *const i8) {}
