//! The bench's frames: templates by flow, and what must be true of them at the sink.

use super::source::Generator;
use ipsec::transform::{Suite, Transform};
use kern::Mbuf;
use std::{net::Ipv4Addr, sync::Arc};
use wire::{EtherType, IpProto, Mac, build, ether, ipv4, udp};

/// The host whose frames the source makes.
pub(super) const HOST: Mac = Mac([2, 0, 0, 0, 0, 0x10]);
/// The next hop behind the sink.
pub(super) const NEXT: Mac = Mac([2, 0, 0, 0, 0, 0x20]);
/// TTL as sent.
pub(super) const TTL: u8 = 64;

/// Bytes of the Ethernet header.
pub(super) const ETHER: usize = ether::HEADER_LEN;

/// Writes one frame of this IP size: Ethernet, IPv4, UDP.
pub(super) fn plain(to: Mac, src: Ipv4Addr, dst: Ipv4Addr, port: u16, size: usize) -> Vec<u8> {
    let mut frame = vec![0; ETHER + size];
    let (header, packet) = frame.split_at_mut(ETHER);
    if let Some(header) = header.first_chunk_mut() {
        ether::write_header(header, to, HOST, EtherType::IPV4);
    }
    let ip = ipv4::Repr {
        src,
        dst,
        proto: IpProto::UDP,
        ttl: TTL,
        payload_len: (size - ipv4::HEADER_LEN) as u16,
        ..ipv4::Repr::default()
    };
    let udp = udp::Repr { src_port: port, dst_port: 9 };
    build::ipv4_packet(packet, &ip, |area, pseudo| udp.emit(area, pseudo)).expect("the sizes fit");
    frame
}

/// Plain frames: 64 bytes of a template (or all of it, if it is short) over whatever is in the buffer.
///
/// The headers are fresh and the payload is stale, as it would be behind a device that writes by DMA.
pub(super) struct Plain {
    templates: Vec<Vec<u8>>,
    next: usize,
}

impl Plain {
    pub(super) fn new(templates: Vec<Vec<u8>>) -> Plain {
        Plain { templates, next: 0 }
    }
}

impl Generator for Plain {
    #[inline]
    fn next(&mut self, m: &mut Mbuf) {
        const HEADERS: usize = 64;
        let template = &self.templates[self.next];
        self.next = if self.next + 1 == self.templates.len() { 0 } else { self.next + 1 };
        if let Ok(room) = m.append(template.len()) {
            let n = HEADERS.min(template.len());
            room[..n].copy_from_slice(&template[..n]);
        }
    }
}

/// ESP frames, sealed one by one for the tunnels they belong to, each with the next sequence number.
pub(super) struct Sealed {
    flows: Vec<Inner>,
    tunnels: Vec<Tunnel>,
    next: usize,
}

/// A flow's inner packet and its tunnel.
pub(super) struct Inner {
    pub(super) packet: Vec<u8>,
    pub(super) tunnel: usize,
}

/// The sending end of a tunnel.
pub(super) struct Tunnel {
    pub(super) outer: Vec<u8>,
    pub(super) spi: u32,
    pub(super) seq: u32,
    pub(super) step: u32,
    pub(super) transform: Arc<Transform>,
}

impl Sealed {
    pub(super) fn new(flows: Vec<Inner>, tunnels: Vec<Tunnel>) -> Sealed {
        Sealed { flows, tunnels, next: 0 }
    }
}

/// Octets of what a suite puts around an inner packet of this size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Around {
    /// ESP header and IV.
    pub(super) head: usize,
    /// Padding.
    pub(super) pad: usize,
    /// Padding, pad length, next header, ICV.
    pub(super) tail: usize,
}

impl Around {
    pub(super) fn new(suite: Suite, inner: usize) -> Around {
        const TRAILER: usize = 2;
        let pad = (inner + TRAILER).next_multiple_of(suite.align()) - (inner + TRAILER);
        Around { head: 8 + suite.iv_len(), pad, tail: pad + TRAILER + suite.icv_len() }
    }
}

impl Generator for Sealed {
    fn next(&mut self, m: &mut Mbuf) {
        let flow = &self.flows[self.next];
        self.next = (self.next + 1) % self.flows.len();
        let tunnel = &mut self.tunnels[flow.tunnel];
        let inner = flow.packet.len();
        let Around { head, pad, tail } = Around::new(tunnel.transform.suite(), inner);
        let outer = tunnel.outer.len();
        let Ok(room) = m.append(outer + head + inner + tail) else { return };
        let seq = tunnel.seq;
        tunnel.seq = tunnel.seq.wrapping_add(tunnel.step);
        room[..outer].copy_from_slice(&tunnel.outer);
        let esp = &mut room[outer..];
        esp[..4].copy_from_slice(&tunnel.spi.to_be_bytes());
        esp[4..8].copy_from_slice(&seq.to_be_bytes());
        esp[head..head + inner].copy_from_slice(&flow.packet);
        let trailer = &mut esp[head + inner..];
        for (i, byte) in trailer[..pad].iter_mut().enumerate() {
            *byte = i as u8 + 1;
        }
        trailer[pad] = pad as u8;
        trailer[pad + 1] = 4;
        let _ = tunnel.transform.seal_run(std::iter::once((esp, u64::from(seq), u64::from(seq))));
    }
}

/// Whether a forwarded frame is right: addressed to the next hop, one hop less, header checksum good.
pub(super) fn is_forwarded(frame: &[u8]) -> bool {
    frame.get(..6) == Some(&NEXT.0)
        && frame.get(ETHER + 8) == Some(&(TTL - 1))
        && frame.get(ETHER..).is_some_and(|ip| wire::ipv4_check(ip).is_ok())
}
