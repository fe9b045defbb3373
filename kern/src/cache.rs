//! The processor's cache: asking for a line before it is needed.

/// Asks for the first cache line of an object that will be read soon. Changes nothing but time.
#[inline(always)]
pub fn prefetch<T: ?Sized>(object: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could observe and faults on no address; this one is valid.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(object).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

/// Asks for the first `LINES` cache lines of an object, or for all if it has fewer.
#[inline(always)]
pub fn prefetch_lines<const LINES: usize, T>(object: &T) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..LINES.min(size_of::<T>().div_ceil(64)) {
        // SAFETY: a prefetch reads nothing that the program could observe and faults on no address; this one is inside
        // the object.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(object).cast::<i8>().add(line * 64));
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}

/// Asks for the first line of an object to write to: it is taken from whichever processor has it.
#[inline(always)]
pub fn prefetch_write<T: ?Sized>(object: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch`.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_ET0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_ET0>(std::ptr::from_ref(object).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = object;
}
