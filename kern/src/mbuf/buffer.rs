//! The memory layout of a buffer; all pointer arithmetic of packets is here.
//!
//! An `Mbuf` points at the header; the data follow it. The pool maps buffers once and never unmaps one that is out,
//! so the pointer is valid as long as the `Mbuf` lives.

use super::{
    Ledger, Why,
    header::{Class, Gso, Owner, PktFlags, PktHdr},
    magazine, pool,
};
use std::{
    fmt,
    mem::ManuallyDrop,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU8, Ordering},
};

/// Bytes in front of a fresh buffer's data.
///
/// Outer Ethernet and VLAN 18, virtio header 12, IPv6 40, UDP 8, ESP 8 and IV 16 make 102 for one tunnel; two nested
/// tunnels fit.
pub const HEADROOM: usize = 256;

/// No room for another header in front.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHeadroom;

/// No room for more bytes behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoTailroom;

/// Fewer bytes there than were to be taken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort;

impl From<NoHeadroom> for Why {
    fn from(_: NoHeadroom) -> Why {
        Why::Headroom
    }
}

impl From<NoTailroom> for Why {
    fn from(_: NoTailroom) -> Why {
        Why::Headroom
    }
}

/// One buffer and the packet in it. See the [module](super) for the layout and the rules.
#[must_use = "a packet ends through a ledger, not by being forgotten"]
#[repr(transparent)]
pub struct Mbuf(NonNull<PktHdr>);

const _: () = assert!(size_of::<Mbuf>() == 8 && size_of::<Option<Mbuf>>() == 8);

// SAFETY: an Mbuf is the only way to its buffer (no Clone, and the pool hands a buffer out once), so moving it to
// another thread moves all access with it. The one field that the auditor reads from elsewhere is atomic.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes a buffer from the pool's hands.
    ///
    /// # Safety
    /// `raw` points at a buffer of a live pool and nobody else has it.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: NonNull<PktHdr>, owner: Owner) -> Mbuf {
        let mut m = Mbuf(raw);
        m.hdr_mut().reset(HEADROOM as u32);
        m.set_owner(owner);
        m
    }

    /// The header.
    #[inline(always)]
    pub fn hdr(&self) -> &PktHdr {
        // SAFETY: see the head of the file: the pointer is valid and we own the buffer.
        unsafe { self.0.as_ref() }
    }

    /// The header, to change.
    #[inline(always)]
    pub fn hdr_mut(&mut self) -> &mut PktHdr {
        // SAFETY: as in `hdr`, and `&mut self` makes it exclusive.
        unsafe { self.0.as_mut() }
    }

    #[inline(always)]
    fn base(&self) -> *mut u8 {
        // SAFETY: the data follow the header in the same mapping (`Class::stride`).
        unsafe { self.0.as_ptr().add(1).cast::<u8>() }
    }

    /// Size class.
    #[inline(always)]
    pub fn class(&self) -> Class {
        self.hdr().class
    }

    /// Bytes of data.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.hdr().len as usize
    }

    /// Whether there are no data.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.hdr().len == 0
    }

    /// The data.
    #[inline(always)]
    pub fn data(&self) -> &[u8] {
        let h = self.hdr();
        // SAFETY: off + len <= capacity is kept by every method that changes them; bytes were zeroed when mapped.
        unsafe { slice::from_raw_parts(self.base().add(h.off as usize), h.len as usize) }
    }

    /// The data, to change.
    #[inline(always)]
    pub fn data_mut(&mut self) -> &mut [u8] {
        let (off, len) = (self.hdr().off as usize, self.hdr().len as usize);
        // SAFETY: as in `data`, and `&mut self` makes it exclusive.
        unsafe { slice::from_raw_parts_mut(self.base().add(off), len) }
    }

    /// Bytes that can still be put in front.
    #[inline(always)]
    pub fn headroom(&self) -> usize {
        self.hdr().off as usize
    }

    /// Bytes that can still be put behind.
    #[inline(always)]
    pub fn tailroom(&self) -> usize {
        let h = self.hdr();
        h.class.capacity() - (h.off + h.len) as usize
    }

    /// Makes room for `n` bytes in front and returns them, to be filled completely.
    #[inline(always)]
    pub fn prepend(&mut self, n: usize) -> Result<&mut [u8], NoHeadroom> {
        let h = self.hdr_mut();
        if n > h.off as usize {
            return Err(NoHeadroom);
        }
        h.off -= n as u32;
        h.len += n as u32;
        Ok(&mut self.data_mut()[..n])
    }

    /// Makes room for `n` bytes behind and returns them, to be filled completely.
    #[inline(always)]
    pub fn append(&mut self, n: usize) -> Result<&mut [u8], NoTailroom> {
        if n > self.tailroom() {
            return Err(NoTailroom);
        }
        let old = self.len();
        self.hdr_mut().len += n as u32;
        Ok(&mut self.data_mut()[old..])
    }

    /// Makes room for `front` bytes before the data and for `behind` bytes after them, to be filled completely; returns all the
    /// data then. Without room for both nothing changes.
    #[inline(always)]
    pub fn surround(&mut self, front: usize, behind: usize) -> Result<&mut [u8], NoHeadroom> {
        if front > self.headroom() || behind > self.tailroom() {
            return Err(NoHeadroom);
        }
        let h = self.hdr_mut();
        h.off -= front as u32;
        h.len += (front + behind) as u32;
        Ok(self.data_mut())
    }

    /// Keeps `len` bytes of the data from `start` on.
    #[inline(always)]
    pub fn narrow(&mut self, start: usize, len: usize) -> Result<(), TooShort> {
        let h = self.hdr_mut();
        if start.checked_add(len).is_none_or(|end| end > h.len as usize) {
            return Err(TooShort);
        }
        h.off += start as u32;
        h.len = len as u32;
        Ok(())
    }

    /// Takes `n` bytes off the front; they become headroom.
    #[inline(always)]
    pub fn trim_front(&mut self, n: usize) -> Result<(), TooShort> {
        let h = self.hdr_mut();
        if n > h.len as usize {
            return Err(TooShort);
        }
        h.off += n as u32;
        h.len -= n as u32;
        Ok(())
    }

    /// Takes `n` bytes off the end; they become tailroom.
    #[inline(always)]
    pub fn trim_back(&mut self, n: usize) -> Result<(), TooShort> {
        let h = self.hdr_mut();
        if n > h.len as usize {
            return Err(TooShort);
        }
        h.len -= n as u32;
        Ok(())
    }

    /// Shortens the data to `len` bytes if they are longer.
    #[inline(always)]
    pub fn truncate(&mut self, len: usize) {
        let h = self.hdr_mut();
        h.len = h.len.min(len as u32);
    }

    /// Empties the buffer and puts the start of the data `headroom` bytes in, so that [`append`](Self::append) fills
    /// it anew. More than the capacity is taken as the capacity.
    #[inline]
    pub fn rewind(&mut self, headroom: usize) {
        let off = headroom.min(self.class().capacity());
        let h = self.hdr_mut();
        h.off = off as u32;
        h.len = 0;
    }

    /// The whole room behind the headroom, for a device to read into; [`truncate`](Self::truncate) follows.
    #[inline]
    pub fn fill(&mut self) -> &mut [u8] {
        let room = self.class().capacity() - self.headroom();
        self.hdr_mut().len = room as u32;
        self.data_mut()
    }

    /// Where the transport header is, counted from the start of the data.
    #[inline(always)]
    pub fn l4(&self) -> usize {
        let h = self.hdr();
        (h.l4 as usize).saturating_sub(h.off as usize)
    }

    /// Says where the transport header is, counted from the start of the data.
    #[inline(always)]
    pub fn set_l4(&mut self, at: usize) {
        let h = self.hdr_mut();
        h.l4 = (h.off as usize + at) as u16;
    }

    /// Where the network header is, counted from the start of the data; 0 in all stages between Ethernet ones.
    #[inline(always)]
    pub fn l3(&self) -> usize {
        let h = self.hdr();
        (h.l3 as usize).saturating_sub(h.off as usize)
    }

    /// Says where the network header is, counted from the start of the data.
    #[inline(always)]
    pub fn set_l3(&mut self, at: usize) {
        let h = self.hdr_mut();
        h.l3 = (h.off as usize + at) as u16;
    }

    /// Where summing starts for a partial checksum, counted from the start of the data. Valid with
    /// [`PktFlags::PARTIAL`].
    #[inline(always)]
    pub fn csum_start(&self) -> usize {
        let h = self.hdr();
        (h.csum_start as usize).saturating_sub(h.off as usize)
    }

    /// Marks the transport checksum as partial: summing starts `start` bytes into the data, the result goes
    /// `offset` bytes behind that.
    #[inline(always)]
    pub fn set_partial(&mut self, start: usize, offset: u16) {
        let h = self.hdr_mut();
        h.csum_start = (h.off as usize + start) as u16;
        h.csum_offset = offset;
        h.flags.set(PktFlags::PARTIAL);
    }

    /// Marks the packet as a super-frame of `size` payload bytes a segment.
    #[inline(always)]
    pub fn set_gso(&mut self, gso: Gso, size: u16) {
        let h = self.hdr_mut();
        h.gso = gso;
        h.gso_size = size;
    }

    /// Who has it now.
    #[inline(always)]
    pub fn set_owner(&self, owner: Owner) {
        self.hdr().owner.store(owner as u8, Ordering::Relaxed);
    }

    /// Whether it is a packet (and must end through a ledger) or a blank buffer.
    pub fn is_packet(&self) -> bool {
        self.hdr().live
    }

    /// The packet ends here, for this reason.
    #[inline(always)]
    pub fn end(self, why: Why, ledger: &Ledger) {
        ledger.end(self, why);
    }

    /// Brings the header and the first line of data near.
    #[inline(always)]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch of any address is harmless, and these lie inside the buffer.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.0.as_ptr().cast());
            _mm_prefetch::<_MM_HINT_T0>(self.base().add(HEADROOM).cast());
        }
    }
}

impl Mbuf {
    /// A free buffer's address, for the magazine that takes it back; what `Drop` does is the caller's.
    #[inline(always)]
    pub(super) fn into_raw(self) -> NonNull<PktHdr> {
        ManuallyDrop::new(self).0
    }

    /// What makes a buffer free but for its place among the free ones.
    #[inline(always)]
    pub(super) fn release(&mut self) {
        self.hdr_mut().live = false;
        self.set_owner(Owner::Free);
        poison(self);
    }
}

impl Drop for Mbuf {
    #[inline(always)]
    fn drop(&mut self) {
        if self.hdr().live {
            unexplained(self);
        }
        self.release();
        magazine::give_back(self.0);
    }
}

#[cold]
#[inline(never)]
fn unexplained(m: &mut Mbuf) {
    let (pool, index, owner) = (m.hdr().pool, m.hdr().index, m.hdr().owner.load(Ordering::Relaxed));
    m.hdr_mut().live = false;
    pool::count_unexplained(pool);
    // The buffer itself must come home even if the panic below is caught by a test.
    if cfg!(debug_assertions) && !std::thread::panicking() {
        let owner = Owner::ALL.get(owner as usize).map_or("?", |o| o.name());
        panic!("packet in buffer {index} dropped without a reason; last owner: {owner}");
    }
}

#[inline(always)]
fn poison(m: &mut Mbuf) {
    if cfg!(debug_assertions) {
        m.data_mut().fill(0xDB);
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("hdr", self.hdr()).field("data", &self.data()).finish()
    }
}

/// Writes the identity of a fresh buffer.
///
/// # Safety
/// `at` is aligned to a cache line, points at `class.stride()` writable bytes, and nobody else uses them.
pub(super) unsafe fn stamp(at: NonNull<PktHdr>, pool: u16, class: Class, index: u32) {
    // SAFETY: by the contract above.
    unsafe {
        at.write(PktHdr {
            index,
            pool,
            class,
            owner: AtomicU8::new(Owner::Free as u8),
            off: HEADROOM as u32,
            len: 0,
            live: false,
            hops: 0,
            family: 0,
            proto: 0,
            flags: PktFlags::empty(),
            l3: 0,
            l4: 0,
            csum_start: 0,
            csum_offset: 0,
            gso_size: 0,
            gso: Gso::None,
            prio: 0,
            rcvif: 0,
            egress: 0,
            tag: 0,
            queue: 0,
            cursor: 0,
            hash: 0,
            sa: 0,
            nexthop: 0,
            state: 0,
            state_gen: 0,
        });
    }
}

/// The pool and class of a buffer that nobody owns at the moment.
///
/// # Safety
/// `raw` points at a buffer of a live pool.
pub(super) unsafe fn identity(raw: NonNull<PktHdr>) -> (u16, Class) {
    // SAFETY: by the contract above; these fields never change.
    unsafe { (raw.as_ref().pool, raw.as_ref().class) }
}

/// The owner of a buffer, whoever has it.
///
/// # Safety
/// `raw` points at a buffer of a live pool.
pub(super) unsafe fn owner_of(raw: NonNull<PktHdr>) -> Owner {
    // SAFETY: only the atomic field is referenced, never the header as a whole.
    let byte = unsafe { (*raw.as_ptr()).owner.load(Ordering::Relaxed) };
    Owner::ALL[byte as usize]
}
