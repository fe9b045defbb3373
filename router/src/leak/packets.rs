//! What the packets of the laboratory say: UDP that pf passes, a number in the last four octets.
//!
//! IPComp looks at what it carries. A packet of zeros shrinks; one of noise does not; a short one is below the threshold.

use super::world::Kind;
use ipsec::sa::Protocol;
use kern::Mbuf;
use wire::IpProto;

/// Octets of an inner packet.
const USUAL: usize = 200;
/// Octets of one of noise: what DEFLATE wins of the headers it must lose of the rest.
const NOISE: usize = 800;
/// Octets of one that IPComp does not try: less than the 90 of RFC 2394, 2.2.
const SHORT: usize = 80;

/// Packets of one family, for SAs of one transform.
pub(super) struct Packets {
    usual: Vec<u8>,
    noise: Vec<u8>,
    short: Vec<u8>,
    v6: bool,
    transform: Protocol,
}

impl Packets {
    pub(super) fn new(v6: bool, transform: Protocol) -> Packets {
        let of = |len| udp(v6, len);
        Packets { usual: of(USUAL), noise: of(NOISE), short: of(SHORT), v6, transform }
    }

    /// Writes a packet of this number and kind; `None`: there is no room.
    pub(super) fn write(&self, m: &mut Mbuf, number: u32, kind: Kind) -> Option<()> {
        let is_noise = self.is_noise(number, kind);
        let template = match kind {
            Kind::Short => &self.short,
            _ if is_noise => &self.noise,
            _ => &self.usual,
        };
        let room = m.append(template.len()).ok()?;
        room.copy_from_slice(template);
        let (front, last) = room.split_last_chunk_mut()?;
        *last = number.to_be_bytes();
        if is_noise {
            let from = if self.v6 { 48 } else { 28 };
            fill(front.get_mut(from..)?, number);
        }
        let h = m.hdr_mut();
        h.family = if self.v6 { 6 } else { 4 };
        h.proto = IpProto::UDP.0;
        Some(())
    }

    /// What the peer did not compress, and half of what we try to.
    fn is_noise(&self, number: u32, kind: Kind) -> bool {
        let tried = kind == Kind::Policy && self.transform == Protocol::Ipcomp;
        kind == Kind::Plain || tried && number.wrapping_mul(0x9e37_79b9) >> 31 == 1
    }
}

/// A packet's number.
pub(super) fn number_of(m: &Mbuf) -> u32 {
    m.data().last_chunk().copied().map_or(0, u32::from_be_bytes)
}

/// Octets that DEFLATE makes nothing of (splitmix64).
fn fill(place: &mut [u8], seed: u32) {
    let mut state = u64::from(seed);
    for chunk in place.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(z ^ (z >> 31)).to_be_bytes()[..chunk.len()]);
    }
}

/// A packet of `len` octets, zeros behind its headers.
fn udp(v6: bool, len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    let l4 = if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        packet[6..8].copy_from_slice(&[IpProto::UDP.0, 64]);
        packet[8..10].copy_from_slice(&[0x20, 0x01]);
        packet[23] = 1;
        packet[24..26].copy_from_slice(&[0x20, 0x01]);
        packet[39] = 2;
        40
    } else {
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[8..10].copy_from_slice(&[64, IpProto::UDP.0]);
        packet[12..16].copy_from_slice(&[192, 0, 2, 10]);
        packet[16..20].copy_from_slice(&[198, 51, 100, 10]);
        let sum = !wire::checksum::fold(wire::checksum::sum(&packet[..20]));
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        20
    };
    packet[l4..l4 + 4].copy_from_slice(&[0x12, 0x34, 0x15, 0xb3]);
    packet[l4 + 4..l4 + 6].copy_from_slice(&((len - l4) as u16).to_be_bytes());
    packet
}
