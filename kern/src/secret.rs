//! Keys: in pages of their own, locked in memory, left out of core dumps, wiped in place.
//!
//! A [`Secret`] holds a value (a key schedule) and [`SecretBytes`] a string of bytes (a key as configured). Both live
//! in an arena of pages that are mapped for nothing else:
//! - `mlock`: never written to swap. `RLIMIT_MEMLOCK` may forbid it; then the secret works all the same and
//!   [`usage`] says how much is not locked, so that the operator can be told.
//! - `MADV_DONTDUMP`: not in a core dump. `MADV_WIPEONFORK`: a child process finds zeros.
//! - When a secret is dropped, its value's own `drop` runs, then its whole slot is overwritten with zeros by writes the
//!   compiler may not leave out, and only then may the slot be used again.
//!
//! Many secrets share a page, for the limit may be 8 MiB and there may be thousands of SAs: slots are powers of two
//! from 64 bytes, each class with its own free list; what is larger than a chunk gets a mapping to itself.
//! The arena never shrinks: what was once a key page stays one.
//!
//! What this can not do: a value moved in was on the stack before, and compilers copy. [`Secret::new`] wipes the place
//! it took the value from; the caller wipes what the caller had ([`SecretBytes::take`] does it for a buffer). A value
//! that owns heap memory is locked without it. And whoever can read this process's memory can read its keys.

#[cfg(feature = "aws-lc")]
mod aws_lc;
#[cfg(feature = "aws-lc")]
pub use aws_lc::keep_aws_lc;

use std::{
    fmt,
    mem::MaybeUninit,
    ops::AddAssign,
    ptr::{self, NonNull},
};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};
use zeroize::Zeroize;

use crate::lock::{Leaf, levels::Secrets};

/// Mapped and locked at a time.
const CHUNK: usize = 64 * 1024;
/// The smallest slot, a cache line: two keys never share one.
const SMALLEST: usize = 64;
/// Powers of two from `SMALLEST` to `CHUNK`.
const CLASSES: usize = (CHUNK / SMALLEST).ilog2() as usize + 1;

/// The system has no memory for secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot map {len} bytes for keys: {errno}")]
pub struct OutOfSecretMemory {
    len: usize,
    errno: rustix::io::Errno,
}

/// How much memory is set aside for secrets, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Locked in memory.
    pub locked: usize,
    /// Mapped, but the system refused to lock it (`RLIMIT_MEMLOCK`).
    pub not_locked: usize,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, more: Usage) {
        self.locked += more.locked;
        self.not_locked += more.not_locked;
    }
}

/// A piece of the arena.
#[derive(Clone, Copy)]
struct Slot {
    start: NonNull<u8>,
    /// Its whole length, a class or a mapping.
    len: usize,
    locked: bool,
}

// SAFETY: a slot is an address range with no ties to a thread; who owns the `Slot` owns the range.
unsafe impl Send for Slot {}

/// All key memory of the process.
struct Arena {
    free: [Vec<Slot>; CLASSES],
    usage: Usage,
}

static ARENA: Leaf<Arena, Secrets> =
    Leaf::new(Arena { free: [const { Vec::new() }; CLASSES], usage: Usage { locked: 0, not_locked: 0 } });

/// How much memory is set aside for secrets.
pub fn usage() -> Usage {
    ARENA.with(|arena| arena.usage)
}

impl Arena {
    /// A slot of zeros for `len` bytes.
    fn take(&mut self, len: usize) -> Result<Slot, OutOfSecretMemory> {
        if len > CHUNK {
            return self.map(len.next_multiple_of(CHUNK));
        }
        let len = len.max(SMALLEST).next_power_of_two();
        let class = (len / SMALLEST).ilog2() as usize;
        if let Some(slot) = self.free[class].pop() {
            return Ok(slot);
        }
        let chunk = self.map(CHUNK)?;
        // SAFETY: `i * len` is within the chunk.
        let nth = |i| Slot { start: unsafe { chunk.start.add(i * len) }, len, locked: chunk.locked };
        self.free[class].extend((1..CHUNK / len).map(nth));
        Ok(nth(0))
    }

    /// Takes back a slot that has been wiped.
    fn give_back(&mut self, slot: Slot) {
        if slot.len <= CHUNK {
            self.free[(slot.len / SMALLEST).ilog2() as usize].push(slot);
            return;
        }
        let usage = if slot.locked { &mut self.usage.locked } else { &mut self.usage.not_locked };
        *usage -= slot.len;
        // SAFETY: the mapping is `len` bytes at `start`, made by `map` for this slot alone, and nobody refers to it.
        // A failure leaves wiped memory mapped, no more.
        let _ = unsafe { rustix::mm::munmap(slot.start.as_ptr().cast(), slot.len) };
    }

    /// Maps, locks and excludes from dumps.
    fn map(&mut self, len: usize) -> Result<Slot, OutOfSecretMemory> {
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: an anonymous mapping where the kernel likes disturbs no memory in use.
        let map = unsafe { mmap_anonymous(ptr::null_mut(), len, prot, flags) };
        let out_of_memory = |errno| OutOfSecretMemory { len, errno };
        let start = map.map_err(out_of_memory)?;
        for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
            // SAFETY: the range is the mapping just made; neither advice changes its content here. An old kernel may
            // not know one: the secret is kept all the same.
            let _ = unsafe { madvise(start, len, advice) };
        }
        // SAFETY: the range is the mapping just made.
        let locked = unsafe { mlock(start, len) }.is_ok();
        let (locked_len, not_locked) = if locked { (len, 0) } else { (0, len) };
        self.usage += Usage { locked: locked_len, not_locked };
        let start = NonNull::new(start.cast::<u8>()).ok_or(out_of_memory(rustix::io::Errno::NOMEM))?;
        Ok(Slot { start, len, locked })
    }
}

impl Slot {
    /// Wipes the whole slot, then lets it be used again.
    fn retire(self) {
        // SAFETY: the slot is `len` bytes of mapped memory and ours alone; what was in it has been dropped.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) };
        bytes.zeroize();
        ARENA.with(|arena| arena.give_back(self));
    }
}

/// A value in key memory. `Debug` prints nothing of it.
pub struct Secret<T> {
    slot: Slot,
    value: NonNull<T>,
}

// SAFETY: a `Secret` owns its value as a `Box` does.
unsafe impl<T: Send> Send for Secret<T> {}
// SAFETY: `&Secret` gives `&T` and nothing else.
unsafe impl<T: Sync> Sync for Secret<T> {}

impl<T> Secret<T> {
    /// Moves a value into key memory and wipes the place it was passed in.
    ///
    /// # Errors
    /// [`OutOfSecretMemory`]; the value has been wiped then, without its `drop`.
    pub fn new(value: T) -> Result<Secret<T>, OutOfSecretMemory> {
        const { assert!(align_of::<T>() <= SMALLEST, "slots are aligned to cache lines") };
        let mut passed = MaybeUninit::new(value);
        let slot = ARENA.with(|arena| arena.take(size_of::<T>()));
        let secret = slot.map(|slot| {
            let place = slot.start.cast::<T>();
            // SAFETY: the slot is ours, at least as long as a `T` and aligned to 64 bytes; the value is moved, for
            // `passed` does not drop it.
            unsafe { ptr::copy_nonoverlapping(passed.as_ptr(), place.as_ptr(), 1) };
            Secret { slot, value: place }
        });
        passed.zeroize();
        secret
    }

    /// The value, to use and not to copy.
    #[inline(always)]
    pub fn expose(&self) -> &T {
        // SAFETY: `value` was filled by `new`, lives as long as `self`, and is borrowed with it.
        unsafe { self.value.as_ref() }
    }

    /// The value, to change in place.
    #[inline(always)]
    pub fn expose_mut(&mut self) -> &mut T {
        // SAFETY: as in `expose`, and `self` is borrowed exclusively.
        unsafe { self.value.as_mut() }
    }

    /// Whether the system has locked it in memory.
    pub fn is_locked(&self) -> bool {
        self.slot.locked
    }
}

impl<T> Drop for Secret<T> {
    fn drop(&mut self) {
        // SAFETY: `value` was filled by `new` and is dropped here only; nobody refers to it any more.
        unsafe { ptr::drop_in_place(self.value.as_ptr()) };
        self.slot.retire();
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// A string of bytes in key memory. `Debug` prints nothing of it; comparing takes the same time wherever they differ.
pub struct SecretBytes {
    slot: Slot,
    len: usize,
}

// SAFETY: the bytes are owned as by a `Box<[u8]>`, and `&SecretBytes` gives `&[u8]` only.
unsafe impl Sync for SecretBytes {}

impl SecretBytes {
    /// Copies `bytes` into key memory; the caller wipes its own.
    ///
    /// # Errors
    /// [`OutOfSecretMemory`].
    pub fn copy_of(bytes: &[u8]) -> Result<SecretBytes, OutOfSecretMemory> {
        let slot = ARENA.with(|arena| arena.take(bytes.len()))?;
        // SAFETY: the slot is ours and at least as long as `bytes`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), slot.start.as_ptr(), bytes.len()) };
        Ok(SecretBytes { slot, len: bytes.len() })
    }

    /// Copies `bytes` into key memory and wipes them where they were.
    ///
    /// # Errors
    /// [`OutOfSecretMemory`]; they are wiped then too.
    pub fn take(bytes: &mut [u8]) -> Result<SecretBytes, OutOfSecretMemory> {
        let secret = SecretBytes::copy_of(bytes);
        bytes.zeroize();
        secret
    }

    /// The bytes, to use and not to copy.
    #[inline(always)]
    pub fn expose(&self) -> &[u8] {
        // SAFETY: `copy_of` has filled `len` bytes, which live as long as `self` and are borrowed with it.
        unsafe { std::slice::from_raw_parts(self.slot.start.as_ptr(), self.len) }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the system has locked them in memory.
    pub fn is_locked(&self) -> bool {
        self.slot.locked
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.slot.retire();
    }
}

impl PartialEq for SecretBytes {
    fn eq(&self, other: &SecretBytes) -> bool {
        let differ = self.expose().iter().zip(other.expose()).fold(0, |differ, (a, b)| differ | (a ^ b));
        self.len == other.len && std::hint::black_box(differ) == 0
    }
}

impl Eq for SecretBytes {}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// What lies in `len` bytes at `start`, read by the kernel, as a debugger would.
    fn peek(start: usize, len: usize) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; len];
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        memory.read_exact_at(&mut bytes, start as u64).unwrap();
        bytes
    }

    /// The VmFlags of the mapping that holds `address`.
    fn vm_flags(address: usize) -> String {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            if let Some((from, to)) = range {
                let number = |text| usize::from_str_radix(text, 16);
                if let (Ok(from), Ok(to)) = (number(from), number(to)) {
                    inside = (from..to).contains(&address);
                }
            } else if inside && line.starts_with("VmFlags:") {
                return line.to_owned();
            }
        }
        panic!("no mapping holds {address:x}");
    }

    #[test]
    fn a_dropped_secret_is_found_nowhere_in_its_slot_nor_where_it_came_from() {
        // Of a size that no other test uses, so that the slot stays free.
        let mut key = [0xa5; 3000];
        let copy = key;
        let secret = SecretBytes::take(&mut key).unwrap();
        assert_eq!((key, secret.expose(), secret.len()), ([0; 3000], &copy[..], 3000));
        let (start, len) = (secret.slot.start.as_ptr() as usize, secret.slot.len);
        assert_eq!(&peek(start, len)[..3000], copy);
        drop(secret);
        assert_eq!(peek(start, len), vec![0; len]);
    }

    #[test]
    fn a_value_is_dropped_once_and_then_wiped() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        struct Schedule([u64; 100]);
        impl Drop for Schedule {
            fn drop(&mut self) {
                assert_eq!(self.0[99], 77, "still whole when dropped");
                DROPS.fetch_add(1, Ordering::Relaxed);
            }
        }
        let mut secret = Secret::new(Schedule([77; 100])).unwrap();
        secret.expose_mut().0[0] = 78;
        assert_eq!((secret.expose().0[0], secret.expose().0[1], secret.slot.len), (78, 77, 1024));
        let start = secret.value.as_ptr() as usize;
        drop(secret);
        assert_eq!((DROPS.load(Ordering::Relaxed), peek(start, 1024)), (1, vec![0; 1024]));
    }

    #[test]
    fn key_pages_are_not_dumped_and_locked_where_the_system_allows() {
        let secret = Secret::new([1_u8; 16]).unwrap();
        let flags = vm_flags(secret.value.as_ptr() as usize);
        assert!(flags.contains(" dd"), "{flags}");
        assert_eq!(flags.contains(" lo"), secret.is_locked(), "{flags}");
        let usage = usage();
        assert!(if secret.is_locked() { usage.locked } else { usage.not_locked } >= CHUNK, "{usage:?}");
    }

    #[test]
    fn thousands_of_secrets_share_pages_and_slots_are_used_again() {
        let secrets: Vec<_> = (0..5000_u64).map(|i| Secret::new([i; 32]).unwrap()).collect();
        assert!(secrets.iter().zip(0..).all(|(secret, i)| secret.expose() == &[i; 32]));
        let before = usage();
        assert!(
            before.locked + before.not_locked <= 3 << 20,
            "{before:?} for 5,000 key schedules of 256 bytes"
        );
        drop(secrets);
        let again: Vec<_> = (0..5000_u64).map(|i| Secret::new([i; 32]).unwrap()).collect();
        assert_eq!(again.len(), 5000);
    }

    #[test]
    fn a_secret_larger_than_a_chunk_has_a_mapping_to_itself_and_gives_it_back() {
        let secret = SecretBytes::copy_of(&vec![9; CHUNK + 1]).unwrap();
        let start = secret.slot.start.as_ptr() as usize;
        assert_eq!((secret.slot.len, secret.expose()[CHUNK]), (2 * CHUNK, 9));
        assert!(vm_flags(start).contains(" dd"));
        drop(secret);
    }

    #[test]
    fn nothing_of_a_secret_is_printed_and_comparing_looks_at_all_of_it() {
        let secret = |bytes: &[u8]| SecretBytes::copy_of(bytes).unwrap();
        assert_eq!(
            format!("{:?} {:?}", secret(b"key"), Secret::new(1).unwrap()),
            "SecretBytes(..) Secret(..)"
        );
        assert!(secret(b"key") == secret(b"key"));
        assert!(secret(b"key") != secret(b"kez") && secret(b"key") != secret(b"key2"));
        assert!(secret(b"").is_empty());
    }
}
