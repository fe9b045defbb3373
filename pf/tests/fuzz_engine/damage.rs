//! Octets that are wrong, checksums that are right all the same, and offload fields that lie.

use kern::{Gso, Mbuf, testing::Chance};
use wire::{IpProto, checksum, ipv4, parse};

/// Damages a packet: some octets, its length, or neither; mends the checksums of most so that they get further.
pub(crate) fn damage(octets: &mut Vec<u8>, chance: &mut Chance) {
    for _ in 0..chance.below(4) {
        // Headers are hit more than payloads.
        let within = if chance.is(3) { octets.len() } else { octets.len().min(72) };
        let at = chance.below(within);
        octets[at] = match chance.below(3) {
            0 => chance.next() as u8,
            1 => octets[at] ^ 1 << chance.below(8),
            _ => chance.one_of(&[0, 0xff, 1, 0x80]),
        };
    }
    if chance.is(10) {
        octets.truncate(chance.below(octets.len()).max(1));
    }
    if !chance.is(3) {
        mend(octets);
    }
}

/// Makes length and checksums right.
pub(crate) fn mend(octets: &mut [u8]) {
    let len = octets.len();
    match octets[0] >> 4 {
        4 if (20..=len).contains(&(usize::from(octets[0] & 15) * 4)) => {
            let mut packet = ipv4::Packet::new_unchecked(&mut *octets);
            packet.set_total_len(len as u16);
            packet.fill_checksum();
        }
        6 if len >= 40 => octets[4..6].copy_from_slice(&(len as u16 - 40).to_be_bytes()),
        _ => return,
    }
    if let Ok(p) = parse::parse_ip(octets)
        && !p.is_fragment()
    {
        let _ = checksum::transport_fill(octets, p.l4.into(), p.end as usize, p.proto);
    }
}

/// Says of some packets that they are super-frames, or that their checksum is partial, whatever they are.
pub(crate) fn offload(m: &mut Mbuf, chance: &mut Chance) {
    let l4 = m.l4();
    if chance.is(8) {
        let gso = chance.one_of(&[Gso::Tcp4, Gso::Tcp6, Gso::Udp4, Gso::Udp6]);
        let size = chance.one_of(&[0, 1, 8, 536, 1000, 1400, u16::MAX]);
        m.set_gso(gso, size);
    }
    if chance.is(8) {
        let field = if m.hdr().proto == IpProto::TCP.0 { 16 } else { 6 };
        if chance.is(4) {
            m.set_partial(chance.below(m.len()), chance.one_of(&[0, 6, 16, 200]));
        } else {
            m.set_partial(l4, field);
        }
    }
}
