//! `af-to`: a packet that comes in becomes one of the other family (NAT64 and NAT46; BSD: `pf_get_transaddr_af`).
//!
//! Which addresses it gets is decided here, for the first packet of a flow; its state remembers both keys, of different
//! families, and every other packet is rewritten from there. The octets are [`wire::siit`]'s.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use kern::{Gso, Mbuf, PktFlags, Why};
use wire::{IpProto, checksum, icmpv4, icmpv6, ipv4, parse, siit};

use super::{
    Chooser, SourcePorts,
    pool::{Addresses, Item},
    rewrite::{self, Side, sides},
};
use crate::{
    addr::{Family, Prefix, bits},
    packet::Packet,
    pool::{Method, Pool},
    random::Random,
    rule::Direction,
    state::key::Key,
};

/// What a rule makes of a packet's family and addresses.
#[derive(Debug)]
pub(crate) struct FamilyChange {
    family: Family,
    from: NewSide,
    ports: SourcePorts,
    to: Destination,
}

/// One side's new addresses.
#[derive(Debug)]
struct NewSide {
    addresses: Addresses,
    /// The pool is one prefix in which IPv4 addresses stand (RFC 6052).
    prefix: Option<Prefix>,
}

#[derive(Debug)]
enum Destination {
    /// The address within the packet's own, behind a prefix of this length.
    Within(u8),
    /// An address of a pool, or within its prefix.
    Pool(NewSide),
}

impl NewSide {
    fn new(pool: &Pool, items: &[Item], family: Family, random: &mut Random) -> NewSide {
        let prefix = match (items, pool.method) {
            (&[Item::Prefix(prefix)], None | Some(Method::Bitmask))
                if family == Family::Inet6 && siit::PREFIX_LENGTHS.contains(&prefix.length()) =>
            {
                Some(prefix)
            }
            _ => None,
        };
        NewSide { addresses: Addresses::new(items, pool.method_by_source(), false, random), prefix }
    }

    /// The address that takes the place of `old`, which is of the other family.
    fn pick(&self, family: Family, source: u128, old: u128, random: &mut Random) -> Option<u128> {
        match self.prefix {
            Some(prefix) => {
                let (first, _) = prefix.range();
                let address = Ipv4Addr::from_bits(old as u32);
                siit::embed(Ipv6Addr::from_bits(first), prefix.length(), address).map(Ipv6Addr::to_bits)
            }
            None => self.addresses.pick(family, source, old & u128::from(u32::MAX), random),
        }
    }
}

impl FamilyChange {
    /// What a rule says; `to` is the length of the prefix that its destination must have.
    pub(crate) fn new(
        family: Family,
        from: (&Pool, &[Item]),
        to: Option<(&Pool, &[Item])>,
        within: u8,
        random: &mut Random,
    ) -> FamilyChange {
        let source = NewSide::new(from.0, from.1, family, random);
        let to = match to {
            Some((pool, items)) => Destination::Pool(NewSide::new(pool, items, family, random)),
            // What has no address of its own for the destination says it by the prefix of the source.
            None if family == Family::Inet6 => {
                Destination::Pool(NewSide::new(from.0, from.1, family, random))
            }
            None if siit::PREFIX_LENGTHS.contains(&within) => Destination::Within(within),
            None => Destination::Within(96),
        };
        FamilyChange { family, from: source, ports: SourcePorts::of(from.0), to }
    }
}

impl Chooser<'_, '_> {
    /// Makes of `p` what it becomes; ports are chosen as for any source translation.
    pub(super) fn change_family(&mut self, change: &FamilyChange, p: &mut Packet) -> Result<(), Why> {
        let mut q = *p;
        q.family = change.family;
        q.proto = siit::other_proto(IpProto(p.proto)).0;
        q.icmp = match (IpProto(p.proto), p.icmp) {
            (IpProto::ICMP, icmpv4::kind::ECHO_REQUEST) => icmpv6::kind::ECHO_REQUEST,
            (IpProto::ICMPV6, icmpv6::kind::ECHO_REQUEST) => icmpv4::kind::ECHO_REQUEST,
            (IpProto::ICMP | IpProto::ICMPV6, _) => return Err(Why::PfTranslate),
            (_, icmp) => icmp,
        };
        q.dst = match &change.to {
            Destination::Within(len) => {
                siit::extract(Ipv6Addr::from_bits(p.dst), *len).map(|a| bits(IpAddr::V4(a)))
            }
            Destination::Pool(side) => side.pick(change.family, p.src, p.dst, &mut self.choices.random),
        }
        .ok_or(Why::PfTranslate)?;
        for _ in 0..change.from.addresses.tries(change.family).max(1) {
            let chosen = change.from.pick(change.family, p.src, p.src, &mut self.choices.random);
            q.src = chosen.ok_or(Why::PfTranslate)?;
            if self.choose_port(change.ports, &mut q, |chooser, q| chooser.is_nobodys(q)) {
                *p = q;
                return Ok(());
            }
        }
        Err(Why::PfTranslate)
    }
}

/// The way in which the keys of a state with two families say where a packet goes on.
const ONWARDS: Direction = Direction::Out;

/// Makes of a packet one of the key's family, which it is not. `ident` is for IPv4 packets without identification.
#[cold]
fn translate(m: &mut Mbuf, key: &Key, way: Direction, ident: u16) -> Result<(), Why> {
    let (src, dst) = sides(key, way);
    let address = |side: Side| key.family().address(side.0);
    let (from, to) = (address(src), address(dst));
    let partial = m.hdr().flags.has(PktFlags::PARTIAL);
    let data = m.data_mut();
    let p = parse::parse_ip(data).map_err(|_| Why::PfShort)?;
    rewrite::set_ports(data, &p, partial, src.1, dst.1)?;
    siit::upper_layer(data, &p, from, to, partial).map_err(|_| Why::PfTranslate)?;
    let head = siit::head(data, &p, from, to, ident).map_err(|_| Why::PfTranslate)?;
    let may_fragment = !p.is_v6() && !p.flags.contains(parse::Flags::DF);
    put_head(m, &head)?;
    m.hdr_mut().proto = head.proto.0;
    settle(m, key.family(), may_fragment, ident);
    Ok(())
}

/// Puts a header in the place of a packet's own; the upper layer stays where it is.
fn put_head(m: &mut Mbuf, head: &siit::Head) -> Result<(), Why> {
    let (new, old) = (head.octets().len(), usize::from(head.replaces));
    if new <= old {
        m.trim_front(old - new).map_err(|_| Why::PfShort)?;
    } else {
        m.prepend(new - old)?;
    }
    m.data_mut().get_mut(..new).ok_or(Why::PfShort)?.copy_from_slice(head.octets());
    Ok(())
}

/// What the packet's header says of its family, its size and its offloads.
fn settle(m: &mut Mbuf, family: Family, may_fragment: bool, ident: u16) {
    let is_refragmented = m.hdr().flags.has(PktFlags::REFRAG);
    let len = m.len();
    let mut dont_fragment = true;
    if family == Family::Inet
        && let Some(header) = m.data_mut().first_chunk_mut::<20>()
    {
        if is_refragmented {
            // It came in fragments and leaves in fragments.
            ipv4::set_word(header, 4, ident);
            ipv4::set_word(header, 6, 0);
        }
        dont_fragment = u16::from_be_bytes([header[6], header[7]]) & ipv4::DF != 0;
    }
    let h = m.hdr_mut();
    (h.family, h.hash) = (family as u8, 0);
    h.flags.clear(PktFlags::OPTIONS.with(PktFlags::DF));
    // It has been judged, as what it was (BSD: PF_TAG_GENERATED).
    h.flags.set(PktFlags::NO_PF);
    if dont_fragment {
        h.flags.set(PktFlags::DF);
    }
    let (gso, shrinks) = match h.gso {
        Gso::Tcp4 => (Gso::Tcp6, true),
        Gso::Udp4 => (Gso::Udp6, true),
        Gso::Tcp6 => (Gso::Tcp4, false),
        Gso::Udp6 => (Gso::Udp4, false),
        Gso::None => {
            let too_long = family == Family::Inet6 && may_fragment && len > usize::from(siit::MIN_MTU6);
            if is_refragmented || too_long {
                // A sender that lets routers fragment does not hear what is too big (RFC 7915, 4).
                let inet = h.gso_size.saturating_sub(siit::DIFFERENCE + 8).max(576);
                h.gso_size = if family == Family::Inet6 { siit::MIN_MTU6 } else { inet };
                h.flags.set(PktFlags::REFRAG);
            }
            return;
        }
    };
    h.gso = gso;
    if shrinks {
        h.gso_size = h.gso_size.saturating_sub(siit::DIFFERENCE).max(1);
    }
}

/// Makes of an ICMP error one of the key's family, and of the packet that it quotes what its sender sent. `shown` is what has
/// been added to the sequence number that it quotes.
#[cold]
pub(crate) fn translate_error(m: &mut Mbuf, l4: u16, key: &Key, shown: u32) -> Result<(), Why> {
    let family = key.family();
    // The quoted packet went the other way.
    let (remote, own) = sides(key, ONWARDS);
    let p = parse::parse_ip(m.data()).map_err(|_| Why::PfShort)?;
    if !m.hdr().flags.has(PktFlags::CSUM_OK)
        && !checksum::transport_ok(m.data(), l4.into(), p.end as usize, p.proto)
    {
        return Err(Why::PfTranslate);
    }
    let flow = p.flow(m.data());
    let quoted = m.data_mut().get_mut(usize::from(l4) + 8..).ok_or(Why::PfShort)?;
    let inner = parse::parse_quoted(quoted).map_err(|_| Why::PfShort)?;
    let old_remote = bits(inner.flow(quoted).dst());
    if shown != 0 && inner.proto == IpProto::TCP {
        rewrite::unshow(quoted, usize::from(inner.l4), shown);
    }
    let from = speaker(bits(flow.src()), old_remote, remote.0, family);
    let about =
        siit::Quoted { src: (family.address(own.0), own.1), dst: (family.address(remote.0), remote.1) };
    let mut out = [0; icmpv6::MAX_ERROR_LEN];
    let n = siit::error(m.data(), family.address(from), family.address(own.0), &about, &mut out)
        .map_err(|_| Why::PfTranslate)?;
    if n > m.len() {
        m.append(n - m.len())?;
    } else {
        m.truncate(n);
    }
    m.data_mut().copy_from_slice(&out[..n]);
    let (header, proto) = match family {
        Family::Inet => (20, IpProto::ICMP),
        Family::Inet6 => (40, IpProto::ICMPV6),
    };
    m.set_l4(header);
    m.hdr_mut().proto = proto.0;
    settle(m, family, false, 0);
    Ok(())
}

/// Who an error comes from: a router on the way is shown behind the prefix that the far end is shown behind.
fn speaker(router: u128, old_remote: u128, remote: u128, family: Family) -> u128 {
    let low = u128::from(u32::MAX);
    if family == Family::Inet6 && remote & low == old_remote { remote & !low | router } else { remote }
}

/// What a packet was before its family changed; `key` is the key it had.
#[cold]
pub(crate) fn undo(m: &mut Mbuf, key: &Key, ident: u16) -> Result<(), Why> {
    translate(m, key, Direction::In, ident)
}

/// Makes of a packet what its state's other key says.
#[cold]
pub(crate) fn onwards(m: &mut Mbuf, key: &Key, ident: u16) -> Result<(), Why> {
    translate(m, key, ONWARDS, ident)
}
