//! The header of a packet: what stages tell each other about it.
//!
//! Exactly one cache line, in front of the bytes. A field is valid from the stage that writes it to the end of the
//! packet unless the table says otherwise; allocation resets everything but the buffer's identity.
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `index`, `pool`, `class` | pool, once, when it is mapped | pool |
//! | `owner` | whoever takes the buffer into a container | audit (the only field another thread may read) |
//! | `off`, `len` | `Mbuf` methods | all |
//! | `live` | [`Ledger`](super::Ledger) | `Drop` |
//! | `hops` | `ip_input`, each pass | `ip_input` |
//! | `family`, `proto`, `l3`, `l4` | `ip_input`; `esp_output` for the outer header | all later stages |
//! | `flags` | device, `ether_input`, `ip_input`, cutting | all |
//! | `csum_start`, `csum_offset`, `gso`, `gso_size` | device, GRO, whoever rewrites lengths | cutting, device |
//! | `rcvif` | `ether_input` | pf, ICMP, host |
//! | `egress`, `nexthop` | `forward`, `ip_output`; pf, with a number of its own | `forward`, `ip_output`, `ether_output` |
//! | `hash` | `ip_input` (symmetric, of the flow) | pf, device (queue choice) |
//! | `sa` | SPD lookup, `esp_input`: 1 + index of the SA | `esp_output`; SPD check, pf |
//! | `nexthop` too | SPD lookup, between two SAs of a bundle: what is left of it, or what it came out of | ESP stages |
//! | `tag`, `queue` | pf; travel from inner to outer | pf, altq |
//! | `tag` too | pf, when it has translated for the last time: [`set_host`](PktHdr::set_host) | altq |
//! | `state`, `state_gen` | pf | pf |
//! | `cursor` | a stage that makes several packets of one | the same stage, on its next turn |
//! | `cursor` too | `esp_input`, of ESP in UDP: the port it came from | the same, until it is opened |

use std::sync::atomic::AtomicU8;

/// Size class of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// 2 KiB (MCLBYTES): one frame.
    Cluster,
    /// 64 KiB and room: a super-frame or a reassembled datagram.
    Jumbo,
}

impl Class {
    /// Both classes, smaller first.
    pub const ALL: [Class; 2] = [Class::Cluster, Class::Jumbo];

    /// Bytes of data a buffer of this class holds, headroom included.
    #[inline(always)]
    pub const fn capacity(self) -> usize {
        match self {
            Class::Cluster => 2048,
            Class::Jumbo => 66_560,
        }
    }

    /// Distance between two buffers: an odd number of cache lines, so that headers spread over all cache sets.
    pub const fn stride(self) -> usize {
        self.capacity() + size_of::<PktHdr>()
    }

    /// The name in `netstat -m`.
    pub const fn name(self) -> &'static str {
        match self {
            Class::Cluster => "cluster",
            Class::Jumbo => "jumbo",
        }
    }
}

const _: () = assert!(size_of::<PktHdr>() == 64 && align_of::<PktHdr>() == 64);
const _: () = assert!((Class::Cluster.stride() / 64) % 2 == 1 && Class::Cluster.stride().is_multiple_of(64));
const _: () = assert!((Class::Jumbo.stride() / 64) % 2 == 1 && Class::Jumbo.stride().is_multiple_of(64));

/// Who has a buffer. `netstat -m` prints how many each has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Owner {
    /// Nobody: in the depot or in a magazine.
    Free,
    /// A device queue, to read the next frame into. Not a packet yet.
    Rx,
    /// A worker, in a pending batch.
    Worker,
    /// A ring from one worker to another.
    HandOver,
    /// An interface queue.
    Ifq,
    /// Reassembly.
    Reass,
    /// A neighbour being resolved.
    Neighbour,
    /// ESP, between `begin` and `finish` or waiting for its turn.
    Crypto,
    /// The host stack's queues.
    Host,
    /// The control thread, or a test.
    Control,
}

impl Owner {
    /// All owners, `Free` first.
    pub const ALL: [Owner; 10] = [
        Owner::Free,
        Owner::Rx,
        Owner::Worker,
        Owner::HandOver,
        Owner::Ifq,
        Owner::Reass,
        Owner::Neighbour,
        Owner::Crypto,
        Owner::Host,
        Owner::Control,
    ];

    /// The name in `netstat -m`.
    pub const fn name(self) -> &'static str {
        match self {
            Owner::Free => "free",
            Owner::Rx => "rx",
            Owner::Worker => "worker",
            Owner::HandOver => "hand_over",
            Owner::Ifq => "ifq",
            Owner::Reass => "reass",
            Owner::Neighbour => "neighbour",
            Owner::Crypto => "crypto",
            Owner::Host => "host",
            Owner::Control => "control",
        }
    }
}

/// What kind of super-frame a packet is (`VIRTIO_NET_HDR_GSO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Gso {
    /// One segment.
    #[default]
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4, a datagram a segment.
    Udp4,
    /// UDP over IPv6, a datagram a segment.
    Udp6,
}

/// Facts about a packet, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PktFlags(u16);

impl PktFlags {
    /// The transport checksum holds the pseudo-header's sum only; the device (or we) must finish it.
    pub const PARTIAL: PktFlags = PktFlags(1);
    /// The device, or GRO, has verified the transport checksum.
    pub const CSUM_OK: PktFlags = PktFlags(1 << 1);
    /// A fragment: not the whole datagram.
    pub const FRAG: PktFlags = PktFlags(1 << 2);
    /// Arrived as a link broadcast.
    pub const BCAST: PktFlags = PktFlags(1 << 3);
    /// Arrived as a link multicast.
    pub const MCAST: PktFlags = PktFlags(1 << 4);
    /// The router itself sends it.
    pub const ORIGIN: PktFlags = PktFlags(1 << 5);
    /// pf in has been passed on this pass (set for packets pf itself sends, and with `enc0 = false`).
    pub const NO_PF: PktFlags = PktFlags(1 << 6);
    /// The IPv4 header has options, or the IPv6 header a hop-by-hop or routing header.
    pub const OPTIONS: PktFlags = PktFlags(1 << 7);
    /// The packet is protected: SPD lookup is done, this is the outer packet.
    pub const PROTECTED: PktFlags = PktFlags(1 << 8);
    /// Being resolved or looked up for the second time; do not do it a third.
    pub const RETRIED: PktFlags = PktFlags(1 << 9);
    /// `DF` is set in the IPv4 header, or the packet is IPv6.
    pub const DF: PktFlags = PktFlags(1 << 10);
    /// A low-delay packet or an empty ACK: the second queue of `queue (a, b)`.
    pub const LOW_DELAY: PktFlags = PktFlags(1 << 11);
    /// Put together of fragments, for pf: no super-frame, and leaves in fragments of at most `gso_size` octets.
    pub const REFRAG: PktFlags = PktFlags(1 << 12);
    /// `tag` is the host that sent it, as it was before pf translated the source.
    const HOST: PktFlags = PktFlags(1 << 13);
    /// A copy, or a packet of which pf has had a copy made: there will be no other.
    pub const COPIED: PktFlags = PktFlags(1 << 14);

    /// No flag.
    pub const fn empty() -> Self {
        PktFlags(0)
    }

    /// Whether all of `other` are set.
    #[inline(always)]
    pub const fn has(self, other: PktFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is set.
    #[inline(always)]
    pub const fn any(self, other: PktFlags) -> bool {
        self.0 & other.0 != 0
    }

    /// Sets all of `other`.
    #[inline(always)]
    pub const fn set(&mut self, other: PktFlags) {
        self.0 |= other.0;
    }

    /// Clears all of `other`.
    #[inline(always)]
    pub const fn clear(&mut self, other: PktFlags) {
        self.0 &= !other.0;
    }

    /// These flags and `other`.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, other: PktFlags) -> Self {
        PktFlags(self.0 | other.0)
    }
}

/// The header. See the table at the head of this file for who writes and who reads each field.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PktHdr {
    pub(super) index: u32,
    pub(super) pool: u16,
    pub(super) class: Class,
    pub(super) owner: AtomicU8,
    pub(super) off: u32,
    pub(super) len: u32,
    pub(super) live: bool,
    /// Passes through `ip_input` so far.
    pub hops: u8,
    /// 4, 6, or 0 before `ip_input`.
    pub family: u8,
    /// Upper-layer protocol number.
    pub proto: u8,
    /// Facts.
    pub flags: PktFlags,
    pub(super) l3: u16,
    pub(super) l4: u16,
    pub(super) csum_start: u16,
    /// Where the checksum goes, from where summing starts.
    pub csum_offset: u16,
    /// Payload bytes per segment of a super-frame.
    pub gso_size: u16,
    /// Kind of super-frame.
    pub gso: Gso,
    /// 802.1p priority.
    pub prio: u8,
    /// Interface it arrived on.
    pub rcvif: u16,
    /// Interface it leaves by.
    pub egress: u16,
    /// pf tag, 0 for none.
    pub tag: u16,
    /// ALTQ queue chosen by pf, 0 for none.
    pub queue: u16,
    /// How far a stage that makes several packets of this one has come.
    pub cursor: u16,
    /// Symmetric flow hash; 0 when not computed.
    pub hash: u32,
    /// 1 + index of the SA that opened it; 0 for none.
    pub sa: u32,
    /// Next hop found by the route lookup.
    pub nexthop: u32,
    /// Slot of the pf state.
    pub state: u32,
    /// Generation of that slot.
    pub state_gen: u32,
}

impl PktHdr {
    /// A new packet's header, but for the buffer's identity and place.
    #[inline(always)]
    pub(super) fn reset(&mut self, off: u32) {
        self.off = off;
        self.len = 0;
        self.live = false;
        self.l3 = off as u16;
        self.l4 = off as u16;
        self.csum_start = 0;
        self.csum_offset = 0;
        self.hops = 0;
        self.family = 0;
        self.proto = 0;
        self.flags = PktFlags::empty();
        self.gso_size = 0;
        self.gso = Gso::None;
        self.prio = 0;
        self.rcvif = 0;
        self.egress = 0;
        self.tag = 0;
        self.queue = 0;
        self.cursor = 0;
        self.hash = 0;
        self.sa = 0;
        self.nexthop = 0;
        self.state = 0;
        self.state_gen = 0;
    }

    /// Remembers who sent the packet, in place of its tag: pf has tested it for the last time and hides the sender's
    /// address, and the interface queue is to be fair between hosts. Pieces made of the packet have it too.
    #[inline]
    pub fn set_host(&mut self, host: u16) {
        self.tag = host;
        self.flags.set(PktFlags::HOST);
    }

    /// Who sent the packet, if its own source address does not say.
    #[inline(always)]
    pub fn host(&self) -> Option<u16> {
        self.flags.has(PktFlags::HOST).then_some(self.tag)
    }

    /// Copies what belongs to the packet, not to the buffer: for a segment or a fragment made of it.
    #[inline]
    pub fn inherit(&mut self, from: &PktHdr) {
        self.hops = from.hops;
        self.family = from.family;
        self.proto = from.proto;
        self.flags = from.flags;
        self.prio = from.prio;
        self.rcvif = from.rcvif;
        self.egress = from.egress;
        self.tag = from.tag;
        self.queue = from.queue;
        self.hash = from.hash;
        self.sa = from.sa;
        self.nexthop = from.nexthop;
        self.state = from.state;
        self.state_gen = from.state_gen;
    }
}
