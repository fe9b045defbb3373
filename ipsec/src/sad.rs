//! The security association database (RFC 4301, 4.4.2): finds an inbound SA by protocol, SPI
//! and destination, and any by index.
//!
//! A snapshot: built by the control thread, published, read by all workers without a lock. An SA that lives on in the
//! next snapshot is the same `Arc`, at the same index; an index that an SA has just left is not given to another in
//! the very next snapshot, so a packet that notes an index never means a stranger.
//!
//! A packet that was given an SA just before that SA left goes through its *successor*: the newest with the same ends,
//! protocol, mode and `-u`, and of the same worker or everybody's. So a change of keys loses nothing that is already under way.
//!
//! The hash table is open and at most half full.

use crate::{
    ip::{destination, source},
    natt,
    sa::{Life, Protocol, Sa, SaConfig, SaIndex, Spi},
};
use std::{net::IpAddr, sync::Arc};
use wire::IpProto;

/// An SPI and where its SA is; `NONE` in an empty place.
#[derive(Clone, Copy, Debug)]
struct Entry {
    spi: u32,
    index: u32,
    /// The destination, as on the wire, if the SA is of ESP and over IPv4: then nothing of the SA itself need be looked at.
    esp4: Option<[u8; 4]>,
}

impl Entry {
    const EMPTY: Entry = Entry { spi: 0, index: NONE, esp4: None };

    fn of(sa: &Sa) -> Entry {
        let esp4 = match sa.destination() {
            IpAddr::V4(dst) if sa.config().protocol == Protocol::Esp => Some(dst.octets()),
            _ => None,
        };
        Entry { spi: sa.config().spi.0, index: sa.index().0, esp4 }
    }
}

const NONE: u32 = u32::MAX;

/// All SAs.
#[derive(Debug, Default)]
pub struct Sad {
    slots: Vec<Option<Arc<Sa>>>,
    table: Box<[Entry]>,
    len: usize,
    /// IPComp's tunnels: what they leave alone comes as plain IP in IP.
    plain: Vec<Arc<Sa>>,
    in_udp: bool,
    /// Indexes in the order in which their SAs were added.
    order: Vec<SaIndex>,
    /// What the SAs were like that the database before this one had and this one has not. Not their keys.
    left: Vec<(SaIndex, SaConfig)>,
}

impl Sad {
    /// A database of these SAs, oldest first, each with an index of its own.
    pub fn new(sas: impl IntoIterator<Item = Arc<Sa>>) -> Sad {
        let mut slots: Vec<Option<Arc<Sa>>> = vec![];
        let mut order = vec![];
        for sa in sas {
            let at = sa.index().0 as usize;
            if slots.len() <= at {
                slots.resize(at + 1, None);
            }
            order.push(sa.index());
            slots[at] = Some(sa);
        }
        let len = order.len();
        let mut sad =
            Sad { slots, table: Box::default(), len, plain: vec![], in_udp: false, order, left: vec![] };
        sad.fill();
        let in_udp = sad.iter().any(|sa| sa.config().encap.is_some());
        sad.in_udp = in_udp;
        sad.plain = sad.iter().filter(|sa| sa.takes_plain()).cloned().collect();
        sad
    }

    /// Notes who has left since `previous`.
    pub(crate) fn after(mut self, previous: &Sad) -> Sad {
        let gone = previous.iter().filter(|sa| self.get(sa.index()).is_none());
        self.left = gone.map(|sa| (sa.index(), sa.config().clone())).collect();
        self
    }

    /// The same database with its SAs set up anew: whoever left has left this one too.
    pub(crate) fn anew(&self, sas: impl IntoIterator<Item = Arc<Sa>>) -> Sad {
        Sad { left: self.left.clone(), ..Sad::new(sas) }
    }

    fn fill(&mut self) {
        let size = (self.len * 2).next_power_of_two().max(2);
        let mut table = vec![Entry::EMPTY; size].into_boxed_slice();
        for sa in self.slots.iter().flatten() {
            let entry = Entry::of(sa);
            let mut at = place(entry.spi, size);
            while table[at].index != NONE {
                at = (at + 1) % size;
            }
            table[at] = entry;
        }
        self.table = table;
    }

    /// The SA of a protocol to open a packet with this SPI and destination.
    #[inline]
    pub fn inbound(&self, protocol: Protocol, spi: Spi, dst: IpAddr) -> Option<&Arc<Sa>> {
        let mask = self.table.len().checked_sub(1)?;
        let mut at = place(spi.0, self.table.len());
        loop {
            let entry = self.table.get(at & mask)?;
            if entry.index == NONE {
                return None;
            }
            if entry.spi == spi.0
                && let Some(sa) = self.get(SaIndex(entry.index))
                && sa.destination() == dst
                && sa.config().protocol == protocol
            {
                return Some(sa);
            }
            at += 1;
        }
    }

    /// The SA of ESP over IPv4 with this destination and SPI: [`inbound`](Self::inbound) of what most packets are.
    #[inline(always)]
    pub fn inbound_esp4(&self, dst: [u8; 4], spi: Spi) -> Option<SaIndex> {
        let mask = self.table.len().checked_sub(1)?;
        let mut at = place(spi.0, self.table.len());
        loop {
            let entry = self.table.get(at & mask)?;
            if entry.spi == spi.0 && entry.esp4 == Some(dst) {
                return Some(SaIndex(entry.index));
            }
            if entry.index == NONE {
                return None;
            }
            at += 1;
        }
    }

    /// The SA to open an ESP, AH or IPComp packet with, whose IP header begins `packet` and whose header of protocol
    /// `proto` is at `l4`.
    #[inline]
    pub fn for_packet(&self, packet: &[u8], proto: IpProto, l4: usize) -> Option<&Arc<Sa>> {
        let upper = packet.get(l4..)?;
        let (protocol, spi) = match proto {
            IpProto::ESP => (Protocol::Esp, u32::from_be_bytes(*upper.first_chunk()?)),
            IpProto::AH => (Protocol::Ah, u32::from_be_bytes(*upper.get(4..)?.first_chunk()?)),
            IpProto::IPCOMP => (Protocol::Ipcomp, u16::from_be_bytes(*upper.get(2..)?.first_chunk()?).into()),
            IpProto::IPV4 | IpProto::IPV6 => return self.ip_in_ip(packet),
            _ => return None,
        };
        self.inbound(protocol, Spi(spi), destination(packet)?)
    }

    /// The SA that has sent a packet, and the packet's sequence number if it shows, from what an ICMP error quotes of it: at
    /// least eight octets behind the IP header (RFC 792), which has the addresses of the SA.
    pub fn sent<'a>(&self, quoted: &'a [u8]) -> Option<(&Arc<Sa>, Option<&'a [u8; 4]>)> {
        let parsed = wire::parse::parse_quoted(quoted).ok().filter(|p| !p.is_later_fragment())?;
        let l4 = usize::from(parsed.l4);
        let src = source(quoted)?;
        let (proto, l4, ports) = match parsed.proto {
            IpProto::UDP => (IpProto::ESP, l4 + natt::HEADER, quoted.get(l4..l4 + 4)),
            proto => (proto, l4, None),
        };
        let is_it =
            |sa: &&Arc<Sa>| sa.config().src == src && ports.is_none_or(|ports| sa.layout.has_ports(ports));
        let sa = self.for_packet(quoted, proto, l4).filter(is_it)?;
        let seq = match proto {
            IpProto::ESP => quoted.get(l4 + 4..),
            IpProto::AH => quoted.get(l4 + 8..),
            _ => None,
        };
        Some((sa, seq.and_then(<[u8]>::first_chunk)))
    }

    /// The IPComp tunnel between the ends of a packet that has another in it (RFC 3173, 2.2).
    fn ip_in_ip(&self, packet: &[u8]) -> Option<&Arc<Sa>> {
        let ends = (source(packet)?, destination(packet)?);
        self.plain.iter().find(|sa| (sa.config().src, sa.config().dst) == ends)
    }

    /// Whether plain IP in IP may be for an SA.
    #[inline(always)]
    pub const fn takes_ip_in_ip(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Whether ESP may come in UDP.
    #[inline(always)]
    pub const fn takes_udp(&self) -> bool {
        self.in_udp
    }

    /// The SA at an index.
    #[inline(always)]
    pub fn get(&self, index: SaIndex) -> Option<&Arc<Sa>> {
        self.slots.get(index.0 as usize)?.as_ref()
    }

    /// All of them, the newest first: the order in which they are preferred for sending.
    pub fn newest_first(&self) -> impl Iterator<Item = &Arc<Sa>> {
        self.iter().rev()
    }

    /// The SA for packets that were to go through one that has just left.
    #[cold]
    pub fn successor(&self, left: SaIndex) -> Option<&Arc<Sa>> {
        let kind = |c: &SaConfig| (c.protocol, c.src, c.dst, c.mode, c.inner, c.reqid);
        let (_, was) = self.left.iter().find(|(index, _)| *index == left)?;
        let like = |sa: &&Arc<Sa>| kind(sa.config()) == kind(was) && sa.life() != Life::Dead;
        let of = |worker| self.newest_first().filter(like).find(move |sa| sa.config().worker == worker);
        of(was.worker).or_else(|| of(None))
    }

    /// The SA of a protocol with these ends and this SPI.
    pub fn find(&self, protocol: Protocol, src: IpAddr, dst: IpAddr, spi: Spi) -> Option<&Arc<Sa>> {
        let is_it = |sa: &&Arc<Sa>| {
            let config = sa.config();
            (config.protocol, config.src, config.dst, config.spi) == (protocol, src, dst, spi)
        };
        self.iter().find(is_it)
    }

    /// All of them, the oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Arc<Sa>> {
        self.order.iter().filter_map(|index| self.get(*index))
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Indexes that no SA of this database has, lowest first, without end.
    pub(crate) fn free_indexes(&self) -> impl Iterator<Item = SaIndex> {
        let free = self.slots.iter().enumerate().filter(|(_, slot)| slot.is_none()).map(|(at, _)| at);
        free.chain(self.slots.len()..).map(|at| SaIndex(at as u32))
    }
}

/// SPIs are often consecutive or random; both spread well by multiplication with the golden ratio.
#[inline(always)]
const fn place(spi: u32, size: usize) -> usize {
    (spi.wrapping_mul(0x9e37_79b9) >> 7) as usize & (size - 1)
}

#[cfg(test)]
mod tests;
