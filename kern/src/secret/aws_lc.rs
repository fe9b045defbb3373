//! The key schedules of AWS-LC in key memory.
//!
//! AWS-LC sets a key up in memory that it takes itself. It wipes what it gives back, but its heap is neither locked nor left
//! out of core dumps. `CRYPTO_set_mem_functions` lets a program bring a heap of its own, once, before anything has been taken:
//! here it is the arena of secrets.
//!
//! ```text
//!   slot   │ whose slot it is, padded to a cache line │ what AWS-LC asked for │ ...
//! ```
//!
//! AWS-LC takes memory when a key is set up, and none for a packet; so the arena's lock is on no packet's path.

use super::{ARENA, SMALLEST, Slot};
use aws_lc_sys::CRYPTO_set_mem_functions;
use std::{
    ffi::{c_char, c_int, c_void},
    ptr::{self, NonNull},
    sync::OnceLock,
};

/// Octets in front of what is given out: a cache line, so that this is aligned as every secret is.
const HEAD: usize = SMALLEST;
const _: () = assert!(size_of::<Slot>() <= HEAD);

/// Has AWS-LC keep its keys here from now on. To be called before the first of its keys is made; false if another part of
/// the program has taken its heap over already.
pub fn keep_aws_lc() -> bool {
    static KEPT: OnceLock<bool> = OnceLock::new();
    *KEPT.get_or_init(|| {
        // SAFETY: the three functions keep the contract of C's, and nobody has taken memory from AWS-LC before: all its users
        // in this program call this first, and its library takes none when it is loaded.
        unsafe { CRYPTO_set_mem_functions(Some(take), Some(take_again), Some(give_back)) == 1 }
    })
}

/// C's `malloc`.
unsafe extern "C" fn take(len: usize, _file: *const c_char, _line: c_int) -> *mut c_void {
    let whole = len.checked_add(HEAD);
    let Some(Ok(slot)) = whole.map(|whole| ARENA.with(|arena| arena.take(whole))) else {
        return ptr::null_mut();
    };
    // SAFETY: the slot is ours, aligned to a cache line, and longer than `HEAD`, which a `Slot` fits into.
    unsafe {
        slot.start.cast::<Slot>().write(slot);
        slot.start.add(HEAD).as_ptr().cast()
    }
}

/// C's `realloc`.
unsafe extern "C" fn take_again(
    old: *mut c_void,
    len: usize,
    file: *const c_char,
    line: c_int,
) -> *mut c_void {
    // SAFETY: as the caller of this vouches for `old`, which is null or was given out here.
    unsafe {
        let new = take(len, file, line);
        if let (Some(slot), false) = (slot_of(old), new.is_null()) {
            ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), len.min(slot.len - HEAD));
            slot.retire();
        }
        new
    }
}

/// C's `free`, and wipes.
unsafe extern "C" fn give_back(old: *mut c_void, _file: *const c_char, _line: c_int) {
    // SAFETY: as the caller of this vouches for `old`, which nobody uses any more.
    if let Some(slot) = unsafe { slot_of(old) } {
        slot.retire();
    }
}

/// The slot that a piece of memory is in.
///
/// # Safety
/// It is null or was given out by `take`, and not given back since.
unsafe fn slot_of(memory: *mut c_void) -> Option<Slot> {
    // SAFETY: `take` has written a slot `HEAD` octets before what it gave out.
    NonNull::new(memory).map(|memory| unsafe { memory.cast::<u8>().sub(HEAD).cast::<Slot>().read() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heap_of_secrets_keeps_what_is_in_it_and_wipes_what_is_given_back() {
        let none = ptr::null();
        // SAFETY: memory is used between taking it and giving it back, and as far as it goes.
        unsafe {
            let small = take(600, none, 0).cast::<u8>();
            assert_eq!(small as usize % 64, 0);
            small.write_bytes(0xa7, 600);
            let (start, len) = (small as usize, 600);
            let large = take_again(small.cast(), 100_000, none, 0).cast::<u8>();
            assert!(std::slice::from_raw_parts(large, 600).iter().all(|byte| *byte == 0xa7));
            large.add(99_999).write(1);
            let cut = take_again(large.cast(), 10, none, 0).cast::<u8>();
            assert_eq!(std::slice::from_raw_parts(cut, 10), [0xa7; 10]);
            give_back(cut.cast(), none, 0);
            give_back(ptr::null_mut(), none, 0);
            let fresh = take_again(ptr::null_mut(), 1, none, 0);
            assert!(!fresh.is_null());
            give_back(fresh, none, 0);
            // The pages of an arena stay mapped.
            assert!(!std::slice::from_raw_parts(start as *const u8, len).contains(&0xa7));
            assert!(take(usize::MAX, none, 0).is_null());
        }
    }

    #[test]
    fn aws_lc_takes_its_memory_here_from_the_first_call_on() {
        assert!(keep_aws_lc() && keep_aws_lc());
        // SAFETY: given out, written as far as it goes, and given back.
        unsafe {
            let memory = aws_lc_sys::OPENSSL_malloc(5000).cast::<u8>();
            let slot = slot_of(memory.cast()).unwrap();
            assert_eq!((slot.start.as_ptr() as usize + HEAD, slot.len), (memory as usize, 8192));
            memory.write_bytes(0x5c, 5000);
            aws_lc_sys::OPENSSL_free(memory.cast());
            assert!(!std::slice::from_raw_parts(memory, 5000).contains(&0x5c));
        }
    }
}
