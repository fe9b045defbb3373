//! The processor's cache: asking for a line before it is needed.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_ET0 as TO_WRITE, _MM_HINT_T0 as TO_READ, _mm_prefetch};

/// Elsewhere nothing is asked for.
#[cfg(not(target_arch = "x86_64"))]
const TO_READ: i32 = 0;
#[cfg(not(target_arch = "x86_64"))]
const TO_WRITE: i32 = 0;

/// Octets of a line.
const LINE: usize = 64;

/// Asks for a line of an object.
#[inline(always)]
fn ask<const HINT: i32, T: ?Sized>(object: &T, line: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing that the program could observe and faults on no address.
    unsafe {
        _mm_prefetch::<HINT>(std::ptr::from_ref(object).cast::<i8>().wrapping_add(line * LINE));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (object, line);
}

/// Asks for the first cache line of an object that will be read soon. Changes nothing but time.
#[inline(always)]
pub fn prefetch<T: ?Sized>(object: &T) {
    ask::<TO_READ, T>(object, 0);
}

/// Asks for the first `LINES` cache lines of an object, or for all if it has fewer.
#[inline(always)]
pub fn prefetch_lines<const LINES: usize, T>(object: &T) {
    (0..LINES.min(size_of::<T>().div_ceil(LINE))).for_each(|line| ask::<TO_READ, T>(object, line));
}

/// Asks for the first line of an object to write to: it is taken from whichever processor has it.
#[inline(always)]
pub fn prefetch_write<T: ?Sized>(object: &T) {
    ask::<TO_WRITE, T>(object, 0);
}
