//! Memory in huge pages, for tables that packets look into at random places.
//!
//! A table of many megabytes in pages of 4 KiB has more pages than a processor remembers the place of: nearly every look
//! costs a page walk besides the cache miss, and under a hypervisor each step of that walk is a walk of its own. In pages
//! of 2 MiB the places of all of them are known.

use std::{
    alloc::{Layout, handle_alloc_error},
    fmt, io,
    marker::PhantomData,
    ops::Deref,
    ptr::{self, NonNull},
};

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// A private mapping of the process, in huge pages where the system has any. Unmapped when dropped.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the mapping is owned; whoever makes references into it answers for what is in it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least so many bytes, all zero, beginning at a huge page's boundary.
    pub(crate) fn new(bytes: usize) -> io::Result<Mapping> {
        let bytes = bytes.max(1).next_multiple_of(HUGE);
        // Reserved huge pages first; they are often not there. Then ordinary ones, which the kernel may join.
        if let Ok(mapping) = Mapping::map(bytes, libc::MAP_HUGETLB) {
            return Ok(mapping);
        }
        let mapping = match Mapping::map(bytes, 0)? {
            aligned if aligned.base.addr().get().is_multiple_of(HUGE) => aligned,
            _ => Mapping::map(bytes + HUGE, 0)?.trimmed(bytes),
        };
        // SAFETY: advice on our own mapping; failure only means small pages.
        unsafe { libc::madvise(mapping.base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        Ok(mapping)
    }

    fn map(bytes: usize, flags: i32) -> io::Result<Mapping> {
        let (rw, anonymous) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new private mapping; nothing existing is touched.
        let at = unsafe { libc::mmap(ptr::null_mut(), bytes, rw, anonymous | flags, -1, 0) };
        let base = NonNull::new(at.cast::<u8>()).filter(|_| at != libc::MAP_FAILED);
        Ok(Mapping { base: base.ok_or_else(io::Error::last_os_error)?, bytes })
    }

    /// Without what stands before the first boundary and behind `bytes` from there; there is a huge page to spare.
    fn trimmed(mut self, bytes: usize) -> Mapping {
        let before = self.base.addr().get().next_multiple_of(HUGE) - self.base.addr().get();
        let behind = self.bytes - before - bytes;
        // SAFETY: both parts are page-aligned, inside the mapping, and nobody has a reference into it yet.
        unsafe {
            if before > 0 {
                libc::munmap(self.base.as_ptr().cast(), before);
            }
            self.base = self.base.add(before);
            if behind > 0 {
                libc::munmap(self.base.add(bytes).as_ptr().cast(), behind);
            }
        }
        self.bytes = bytes;
        self
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and unmapped once.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A boxed slice in huge pages.
pub struct HugeSlice<T> {
    mapping: Mapping,
    len: usize,
    of: PhantomData<T>,
}

impl<T> HugeSlice<T> {
    /// So many, each made by its number. Like a `Box`, it gives up the process when there is no memory.
    pub fn new(len: usize, mut make: impl FnMut(usize) -> T) -> HugeSlice<T> {
        const { assert!(align_of::<T>() <= 4096, "a mapping begins at a page's boundary") };
        let Ok(layout) = Layout::array::<T>(len) else { handle_alloc_error(Layout::new::<T>()) };
        let Ok(mapping) = Mapping::new(layout.size()) else { handle_alloc_error(layout) };
        let base = mapping.base().cast::<T>();
        for i in 0..len {
            // SAFETY: the mapping is long enough for `len` of them, aligned, and ours alone.
            unsafe { base.add(i).write(make(i)) };
        }
        HugeSlice { mapping, len, of: PhantomData }
    }
}

impl<T> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `new` has written `len` of them, and they live as long as `self`.
        unsafe { NonNull::slice_from_raw_parts(self.mapping.base().cast::<T>(), self.len).as_ref() }
    }
}

impl<T> Drop for HugeSlice<T> {
    fn drop(&mut self) {
        let all = NonNull::slice_from_raw_parts(self.mapping.base().cast::<T>(), self.len);
        // SAFETY: written by `new`, borrowed by nobody, and dropped once; the mapping goes after this.
        unsafe { all.drop_in_place() };
    }
}

impl<T> fmt::Debug for HugeSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeSlice[{}]", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_was_made_is_there_and_is_dropped_once() {
        let token = Arc::new(());
        for len in [0, 1, 1000, 300_000] {
            let slice = HugeSlice::new(len, |i| (i, Arc::clone(&token)));
            assert_eq!((slice.len(), Arc::strong_count(&token)), (len, len + 1));
            assert!(slice.iter().enumerate().all(|(i, (n, _))| i == *n));
            assert!(slice.as_ptr().addr().is_multiple_of(HUGE));
            drop(slice);
            assert_eq!(Arc::strong_count(&token), 1);
        }
    }

    #[test]
    fn a_mapping_that_has_been_trimmed_can_be_written_to_its_end() {
        let mapping = Mapping::map(3 * HUGE, 0).unwrap().trimmed(2 * HUGE);
        assert_eq!((mapping.bytes, mapping.base.addr().get() % HUGE), (2 * HUGE, 0));
        // SAFETY: inside the mapping, which this test owns.
        unsafe {
            mapping.base.write(1);
            mapping.base.add(2 * HUGE - 1).write(2);
        }
    }
}
