//! What a packet costs its queue: wire packets and frame bytes.
//!
//! A super-frame is one buffer and many frames. Each frame repeats the headers, so a super-frame costs more bytes
//! than it has. Not here: preamble, check sequence and padding, which ALTQ never counted.

use kern::{Gso, Mbuf};

/// Wire packets and frame bytes of one [`Mbuf`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Charge {
    /// Frames on the wire.
    pub packets: u32,
    /// Bytes of all those frames, Ethernet headers included.
    pub bytes: u32,
}

impl Charge {
    /// What this frame costs. The data begin with the Ethernet header.
    #[inline]
    pub fn of(m: &Mbuf) -> Charge {
        match m.hdr().gso {
            Gso::None => Charge { packets: 1, bytes: m.len() as u32 },
            Gso::Tcp4 | Gso::Tcp6 => Charge::of_segments(m, tcp_header(m)),
            Gso::Udp4 | Gso::Udp6 => Charge::of_segments(m, 8),
        }
    }

    /// A super-frame whose transport header has `transport` bytes.
    fn of_segments(m: &Mbuf, transport: usize) -> Charge {
        let len = m.len();
        let headers = (m.l4() + transport).min(len);
        let size = usize::from(m.hdr().gso_size).max(1);
        let packets = (len - headers).div_ceil(size).max(1);
        Charge { packets: packets as u32, bytes: (len + (packets - 1) * headers) as u32 }
    }
}

/// Bytes of the TCP header: its data offset, in words, is the high half of byte 12.
fn tcp_header(m: &Mbuf) -> usize {
    m.data().get(m.l4() + 12).map_or(20, |offset| usize::from(offset >> 4) * 4)
}

/// What the link adds to a frame: `overhead`, `mpu` and `atm` on the `altq` line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framing {
    /// Bytes that every frame has on the link and not here.
    pub overhead: u32,
    /// No frame is shorter on the link.
    pub mpu: u32,
    /// Frames travel in cells of 48 bytes, each of which takes the time of 53.
    pub atm: bool,
}

impl Framing {
    /// Bytes of link time that a packet takes: its own, unless the link was described.
    #[inline]
    pub fn cost(&self, m: &Mbuf, charge: Charge) -> u32 {
        if *self == Framing::default() {
            return charge.bytes;
        }
        let others = charge.packets - 1;
        if others == 0 {
            return self.frame(charge.bytes);
        }
        // All segments but the last are alike: the headers, which are what a super-frame repeats, and its size.
        let headers = (charge.bytes - m.len() as u32) / others;
        let full = headers + u32::from(m.hdr().gso_size);
        others * self.frame(full) + self.frame(charge.bytes.saturating_sub(others * full))
    }

    fn frame(&self, bytes: u32) -> u32 {
        let bytes = (bytes + self.overhead).max(self.mpu);
        if self.atm { bytes.div_ceil(48) * 53 } else { bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kern::testing::Fixture;

    #[test]
    fn a_frame_costs_its_own_bytes() {
        let f = Fixture::new(4);
        let m = f.packet(&[0; 98]);
        assert_eq!(Charge::of(&m), Charge { packets: 1, bytes: 98 });
        f.done(m);
    }

    #[test]
    fn a_super_frame_costs_its_headers_once_a_segment() {
        let f = Fixture::new(4);
        // Ethernet 14, IPv4 20, TCP 32 (options), 10,001 bytes of payload: seven segments of 1,448 at most.
        let mut bytes = vec![0; 14 + 20 + 32 + 10_001];
        bytes[14 + 20 + 12] = 8 << 4;
        let mut m = f.packet(&bytes);
        m.set_l4(34);
        m.set_gso(Gso::Tcp4, 1448);
        assert_eq!(Charge::of(&m), Charge { packets: 7, bytes: 10_001 + 7 * 66 });
        m.set_gso(Gso::Udp4, 1400);
        let payload = 10_001 + 32 - 8;
        assert_eq!(Charge::of(&m), Charge { packets: 8, bytes: payload + 8 * 42 });
        f.done(m);
    }

    #[test]
    fn a_link_s_framing_is_paid_for_each_frame_of_a_super_frame() {
        let f = Fixture::new(4);
        let mut bytes = vec![0; 14 + 20 + 32 + 2900];
        bytes[14 + 20 + 12] = 8 << 4;
        let mut m = f.packet(&bytes);
        m.set_l4(34);
        m.set_gso(Gso::Tcp4, 1448);
        let charge = Charge::of(&m);
        assert_eq!(charge, Charge { packets: 3, bytes: 2 * 1514 + 70 });
        let cost = |overhead, mpu, atm| Framing { overhead, mpu, atm }.cost(&m, charge);
        assert_eq!(cost(0, 0, false), charge.bytes);
        assert_eq!(cost(24, 0, false), charge.bytes + 3 * 24);
        assert_eq!(cost(24, 88, false), 2 * 1538 + 94);
        assert_eq!(cost(24, 99, false), 2 * 1538 + 99);
        // 1,554 bytes are 33 cells, 110 bytes are 3.
        assert_eq!(cost(40, 0, true), 2 * 33 * 53 + 3 * 53);
        f.done(m);
        let m = f.packet(&[0; 60]);
        assert_eq!(Framing { overhead: 4, mpu: 84, atm: false }.cost(&m, Charge::of(&m)), 84);
        f.done(m);
    }

    #[test]
    fn a_header_that_lies_about_its_segments_still_costs_at_least_its_bytes() {
        let f = Fixture::new(4);
        let mut m = f.packet(&[0xff; 40]);
        m.set_l4(34);
        m.set_gso(Gso::Tcp6, 0);
        assert_eq!(Charge::of(&m), Charge { packets: 1, bytes: 40 });
        f.done(m);
    }
}
