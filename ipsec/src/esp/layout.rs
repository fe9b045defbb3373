//! The lengths and the fixed octets of an SA's packets, worked out once.
//!
//! ```text
//!  v4: ├ IPv4 20 ┤├ ESP 8 ┤├ IV 0-16 ┤├─── inner packet ───┤├ padding 0-15 ┤├ 2 ┤├ ICV 8-32 ┤
//!  v6: ├ IPv6 40 ┤├ ESP 8 ┤├ IV 0-16 ┤├─── inner packet ───┤├ padding 0-15 ┤├ 2 ┤├ ICV 8-32 ┤
//!      └───── template ───┘                                 └────────── tail ─────────────┘
//! ```
//!
//! Of an SA in UDP (RFC 3948) the template has eight octets more, the UDP header in front of that of ESP.
//!
//! The template has everything that is the same in all packets; what differs (length, class, identification, checksum,
//! sequence number) is written over it, and the checksum is the template's sum and the few words that differ.

mod udp;

use super::beet::Inner;
use crate::{
    ah, natt,
    sa::{Df, Mode, Padding, Protocol, SaConfig},
};
use kern::{Mbuf, PktFlags, Why};
use std::net::{IpAddr, SocketAddr};
use wire::{
    HashSeed, IpProto, checksum,
    flow::{FlowKey, FlowKey4, FlowKey6},
    ipv4, ipv6,
};

/// Octets of the ESP header.
const ESP: usize = wire::esp::HEADER_LEN;
/// The longest template.
const TEMPLATE: usize = ipv6::HEADER_LEN + natt::HEADER + ESP;
/// Pad length and next header.
pub(super) const TRAILER: usize = 2;
/// The most padding there is.
pub(super) const PADDING: usize = 16;
/// Both bits of the ECN field.
const ECN: u8 = 0b11;

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Layout {
    /// ESP in a tunnel: what the packet path is made for.
    plain: bool,
    /// And over IPv4, with nothing that is out of the ordinary.
    simple: bool,
    /// In BEET mode, whose packets it is for.
    inner: Option<Inner>,
    protocol: Protocol,
    mode: Mode,
    /// The class of an outer header is that of the inner one in these bits,
    class_kept: u8,
    /// and this.
    class_set: u8,
    df: Df,
    ecn: bool,
    flow_label: bool,
    /// Octets to which shorter packets are filled up.
    tfc: u16,
    threshold: u16,
    align8: bool,
    pub(crate) spi: [u8; 4],
    template: [u8; TEMPLATE],
    /// Octets of a UDP header, if there is one.
    udp: u8,
    ports: [u8; 4],
    /// Octets of outer IP header, UDP header, ESP header and IV.
    head: u8,
    /// Where the ESP header is in the outgoing packet.
    esp: u8,
    /// Octets of ESP header and IV.
    esp_iv: u8,
    icv: u8,
    /// What payload, padding and trailer together are a multiple of, a power of two, less one.
    align_mask: u8,
    v6: bool,
    /// The longest packet that the outer length field can say.
    max: usize,
    /// Sum of the IPv4 template.
    sum: u32,
    /// The router's flow hash of the outer packet.
    pub(crate) hash: u32,
    /// The octets before the pad length, as many as are needed.
    pub(super) padding: [u8; PADDING],
    pub(super) padding_checked: bool,
}

impl Layout {
    /// Of an SA whose packets go to `peer`.
    pub(crate) fn new(config: &SaConfig, peer: SocketAddr, seed: &HashSeed) -> Layout {
        let mut template = [0; TEMPLATE];
        let (handling, proto) = (&config.handling, outer_proto(config));
        let ip = match (config.src, peer.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                template[0] = 0x45;
                template[8] = handling.ttl;
                template[9] = proto.0;
                template[12..16].copy_from_slice(&src.octets());
                template[16..20].copy_from_slice(&dst.octets());
                ipv4::HEADER_LEN
            }
            (src, dst) => {
                template[0] = 0x60;
                template[6] = proto.0;
                template[7] = handling.ttl;
                template[8..24].copy_from_slice(&mapped(src));
                template[24..40].copy_from_slice(&mapped(dst));
                ipv6::HEADER_LEN
            }
        };
        let v6 = ip == ipv6::HEADER_LEN;
        let (udp, ports) = match config.encap {
            Some(udp) => (natt::HEADER, [udp.src_port, peer.port()].map(u16::to_be_bytes)),
            None => (0, [[0; 2]; 2]),
        };
        let esp = ip + udp;
        let plain = config.protocol == Protocol::Esp && matches!(config.mode, Mode::Tunnel | Mode::Any);
        if udp > 0 {
            template[ip..ip + 4].copy_from_slice(ports.as_flattened());
        }
        template[esp..esp + 4].copy_from_slice(&config.spi.0.to_be_bytes());
        Layout {
            plain,
            // The trailer of a packet and what little padding it needs are then written as one word.
            simple: plain
                && !v6
                && udp == 0
                && handling.tfc == 0
                && config.suite.align() <= 4
                && config.suite.icv_len() >= 8,
            inner: Inner::of(config),
            protocol: config.protocol,
            mode: config.mode,
            class_kept: if handling.dscp.is_some() { 0 } else { !ECN } | if handling.ecn { ECN } else { 0 },
            class_set: handling.dscp.map_or(0, |dscp| dscp << 2),
            df: handling.df,
            ecn: handling.ecn,
            flow_label: handling.flow_label,
            tfc: handling.tfc,
            threshold: handling.threshold,
            align8: handling.align8,
            spi: config.spi.0.to_be_bytes(),
            sum: checksum::sum(&template[..ipv4::HEADER_LEN]),
            template,
            udp: udp as u8,
            ports: [ports[0][0], ports[0][1], ports[1][0], ports[1][1]],
            head: (esp + ESP + config.suite.iv_len()) as u8,
            esp: esp as u8,
            esp_iv: (ESP + config.suite.iv_len()) as u8,
            icv: config.suite.icv_len() as u8,
            align_mask: config.suite.align() as u8 - 1,
            v6,
            max: if v6 { 65_535 + ipv6::HEADER_LEN } else { 65_535 },
            // 0 would mean "not computed".
            hash: outer_hash(config, peer, seed).max(1),
            padding: match config.padding {
                Padding::Zero => [0; PADDING],
                Padding::Lenient | Padding::Seq => std::array::from_fn(|i| i as u8 + 1),
            },
            padding_checked: config.padding == Padding::Seq,
        }
    }

    /// Where the ESP header is in the outgoing packet.
    #[inline(always)]
    pub(super) const fn esp(&self) -> usize {
        self.esp as usize
    }

    /// Octets of ESP header and IV.
    #[inline(always)]
    pub(super) const fn esp_iv(&self) -> usize {
        self.esp_iv as usize
    }

    /// Octets in front of the inner packet.
    #[inline(always)]
    pub(super) const fn head(&self) -> usize {
        self.head as usize
    }

    /// Whether it is ESP in a tunnel.
    #[inline(always)]
    pub(super) const fn is_plain(&self) -> bool {
        self.plain
    }

    /// Whether [`write_simply`](Self::write_simply) can write its headers.
    #[inline(always)]
    pub(super) const fn is_simple(&self) -> bool {
        self.simple
    }

    /// Whose packets it is for, in BEET mode.
    #[inline(always)]
    pub(super) const fn inner(&self) -> Option<&Inner> {
        self.inner.as_ref()
    }

    /// Whether packets go into packets.
    pub(crate) fn is_tunnel(&self) -> bool {
        matches!(self.mode, Mode::Tunnel | Mode::Any)
    }

    /// Whether a packet in which `next` follows loses its outer header too. An SA that leaves the mode open takes both.
    pub(crate) fn takes_off(&self, next: IpProto) -> Result<bool, Why> {
        let packet = matches!(next, IpProto::IPV4 | IpProto::IPV6);
        match (self.mode, next) {
            // Only ESP has dummies; elsewhere it is a packet without an upper layer (RFC 8200, 4.7).
            (_, IpProto::NO_NEXT) if self.protocol == Protocol::Esp => Err(Why::EspDummy),
            (Mode::Tunnel, _) if !packet => Err(Why::EspProtocol),
            (Mode::Transport, _) => Ok(false),
            _ => Ok(packet),
        }
    }

    /// Octets of the outer IP header.
    pub(crate) const fn ip(&self) -> usize {
        self.esp() - self.udp()
    }

    /// Octets of AH over an IP header of this family.
    pub(crate) const fn ah(&self, v6: bool) -> usize {
        ah::header_len(self.icv(), v6, self.align8)
    }

    /// Octets below which IPComp leaves a payload alone.
    pub(crate) fn threshold(&self) -> usize {
        self.threshold.into()
    }

    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The class of the outer header over that of the inner.
    #[inline(always)]
    pub(crate) const fn outer_class(&self, inner: u8) -> u8 {
        inner & self.class_kept | self.class_set
    }

    /// DF of the outer header over that of the inner.
    #[inline(always)]
    pub(crate) const fn outer_df(&self, inner: bool) -> bool {
        match self.df {
            Df::Copy => inner,
            Df::Set => true,
            Df::Clear => false,
        }
    }

    /// The outer class as far as the inner packet's is to follow it.
    #[inline(always)]
    pub(crate) const fn arrived_class(&self, outer: u8) -> u8 {
        if self.ecn { outer } else { 0 }
    }

    /// Octets of traffic flow confidentiality padding behind an inner packet of this length: up to what is asked for, as far as
    /// packets of `room` octets fit the way; the buffer may allow less. A gateway that made them longer would end those that nobody may fragment.
    #[inline(always)]
    pub(super) fn tfc(&self, inner: usize, room: usize) -> usize {
        room.min(self.tfc.into()).saturating_sub(inner)
    }

    /// Writes a flow label into the outer header, of the inner packet's flow, where one is wanted.
    #[inline(always)]
    pub(crate) fn label(&self, m: &mut Mbuf) {
        if self.flow_label && self.v6 {
            let [_, high, middle, low] = m.hdr().hash.to_be_bytes();
            if let Some([_, first, second, third, ..]) =
                m.data_mut().first_chunk_mut::<{ ipv6::HEADER_LEN }>()
            {
                *first = *first & 0xf0 | high & 0x0f;
                (*second, *third) = (middle, low);
            }
        }
    }

    /// Octets of the ICV.
    #[inline(always)]
    pub(crate) const fn icv(&self) -> usize {
        self.icv as usize
    }

    /// What payload, padding and trailer together are a multiple of, less one.
    #[inline(always)]
    pub(super) const fn align_mask(&self) -> usize {
        self.align_mask as usize
    }

    /// Whether the outer packet is IPv6.
    #[inline(always)]
    pub(crate) const fn is_v6(&self) -> bool {
        self.v6
    }

    /// Octets of padding behind an inner packet of this length.
    #[inline(always)]
    pub(super) const fn pad(&self, inner: usize) -> usize {
        (inner + TRAILER).wrapping_neg() & self.align_mask as usize
    }

    /// The longest outer packet.
    #[inline(always)]
    pub(super) const fn max(&self) -> usize {
        self.max
    }

    /// Whether an inner packet of this length makes an outer one that exists.
    #[inline(always)]
    pub(super) const fn fits(&self, inner: usize) -> bool {
        self.head() + inner + self.pad(inner) + TRAILER + self.icv() <= self.max
    }

    /// Octets by which a packet grows at most.
    pub(crate) fn overhead(&self) -> usize {
        let ip = if self.is_tunnel() { self.ip() } else { 0 };
        let esp = self.udp() + self.esp_iv() + self.align_mask() + TRAILER + self.icv();
        if let Some(inner) = &self.inner {
            return (self.ip() + inner.pseudo_max() + esp).saturating_sub(inner.header());
        }
        match self.protocol {
            Protocol::Esp => ip + esp,
            Protocol::Ah => ip + self.ah(true),
            // Plain IP in IP at worst.
            Protocol::Ipcomp => ip,
        }
    }

    pub(crate) fn inner_mtu(&self, mtu: usize) -> usize {
        if !self.plain {
            return mtu.saturating_sub(self.overhead());
        }
        let room = mtu.saturating_sub(self.head() + self.icv());
        (room & !(self.align_mask as usize)).saturating_sub(TRAILER)
    }

    /// Writes an outer IP header alone, of a packet of `total` octets.
    pub(crate) fn write_ip(
        &self,
        head: &mut [u8],
        total: usize,
        class: u8,
        df: bool,
        id: u16,
        proto: IpProto,
    ) -> Result<(), Why> {
        let (class, df) = (self.outer_class(class), self.outer_df(df));
        if total > self.max {
            return Err(Why::EspTooBig);
        }
        if self.v6 {
            let head: &mut [u8; ipv6::HEADER_LEN] = head.first_chunk_mut().ok_or(Why::Headroom)?;
            head.copy_from_slice(&self.template[..ipv6::HEADER_LEN]);
            head[0] |= class >> 4;
            head[1] = class << 4;
            head[4..6].copy_from_slice(&((total - ipv6::HEADER_LEN) as u16).to_be_bytes());
            head[6] = proto.0;
            return Ok(());
        }
        let head: &mut [u8; ipv4::HEADER_LEN] = head.first_chunk_mut().ok_or(Why::Headroom)?;
        head.copy_from_slice(&self.template[..ipv4::HEADER_LEN]);
        let (id, flags) = if df { (0, ipv4::DF) } else { (id, 0) };
        head[1] = class;
        head[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        head[4..6].copy_from_slice(&id.to_be_bytes());
        head[6..8].copy_from_slice(&flags.to_be_bytes());
        head[9] = proto.0;
        let sum = checksum::finish(checksum::sum(head));
        head[10..12].copy_from_slice(&sum.to_be_bytes());
        Ok(())
    }

    /// Makes the packet's header speak of the outer packet.
    #[inline(always)]
    pub(crate) fn describe_outer(&self, m: &mut Mbuf, df: bool, proto: IpProto) {
        m.set_l3(0);
        m.set_l4(self.ip());
        let h = m.hdr_mut();
        h.family = if self.v6 { 6 } else { 4 };
        h.proto = proto.0;
        let mut flags = PktFlags::PROTECTED;
        if self.outer_df(df) || self.v6 {
            flags.set(PktFlags::DF);
        }
        if h.flags.has(PktFlags::LOW_DELAY) {
            flags.set(PktFlags::LOW_DELAY);
        }
        h.flags = flags;
        h.hash = self.hash;
        h.sa = 0;
        h.state = 0;
        h.state_gen = 0;
    }

    /// Writes the outer header and the ESP header into `head`, of a packet of `total` octets.
    #[inline(always)]
    pub(super) fn write_head(
        &self,
        head: &mut [u8],
        total: usize,
        class: u8,
        df: bool,
        seq: u64,
    ) -> Result<(), Why> {
        if self.udp > 0 {
            return self.write_head_in_udp(head, total, class, df, seq);
        }
        let (class, df) = (self.outer_class(class), self.outer_df(df));
        if self.v6 {
            const HEAD: usize = ipv6::HEADER_LEN + ESP;
            let head: &mut [u8; HEAD] = head.first_chunk_mut().ok_or(Why::Headroom)?;
            head.copy_from_slice(&self.template[..HEAD]);
            head[0] |= class >> 4;
            head[1] = class << 4;
            head[4..6].copy_from_slice(&((total - ipv6::HEADER_LEN) as u16).to_be_bytes());
            self.number(&mut head[ipv6::HEADER_LEN..], seq);
            return Ok(());
        }
        const HEAD: usize = ipv4::HEADER_LEN + ESP;
        let head: &mut [u8; HEAD] = head.first_chunk_mut().ok_or(Why::Headroom)?;
        head.copy_from_slice(&self.template[..HEAD]);
        // RFC 6864: only what may be fragmented needs an identification, and the sequence number is one.
        let (id, flags) = if df { (0, ipv4::DF) } else { (seq as u16, 0) };
        head[1] = class;
        head[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        head[4..6].copy_from_slice(&id.to_be_bytes());
        head[6..8].copy_from_slice(&flags.to_be_bytes());
        let sum = self.sum + u32::from(class) + total as u32 + u32::from(id) + u32::from(flags);
        head[10..12].copy_from_slice(&checksum::finish(sum).to_be_bytes());
        self.number(&mut head[ipv4::HEADER_LEN..], seq);
        Ok(())
    }

    /// Writes what stands around an IPv4 packet of `inner` octets in `data`, word by word: the outer header, that of ESP, `pad`
    /// octets of padding and the trailer. What the first word of the trailer has too much the ICV will overwrite.
    #[inline(always)]
    pub(super) fn write_simply(
        &self,
        data: &mut [u8],
        inner: usize,
        pad: usize,
        (class, df): (u8, bool),
        seq: u64,
    ) -> Option<()> {
        let total = data.len() as u64;
        let (class, df) = (u64::from(self.outer_class(class)), self.outer_df(df));
        // RFC 6864: only what may be fragmented needs an identification, and the sequence number is one.
        let (id, flags) = if df { (0, u64::from(ipv4::DF)) } else { (seq & 0xffff, 0) };
        let sum = checksum::finish(self.sum + (class + total + id + flags) as u32);
        let [_, _, _, _, _, _, _, _, middle @ ..] = &self.template;
        let middle = u64::from_le_bytes(*middle.first_chunk()?) | u64::from(sum.swap_bytes()) << 16;
        let head = data.first_chunk_mut::<{ ipv4::HEADER_LEN + ESP }>()?;
        let first = 0x45 << 56 | class << 48 | total << 32 | id << 16 | flags;
        head[..8].copy_from_slice(&first.to_be_bytes());
        head[8..16].copy_from_slice(&middle.to_le_bytes());
        head[16..20].copy_from_slice(&self.template[16..20]);
        self.number(&mut head[ipv4::HEADER_LEN..], seq);
        let padding = u64::from_le_bytes(*self.padding.first_chunk()?) & ((1 << (8 * pad)) - 1);
        let trailer = (pad as u64 | u64::from(IpProto::IPV4.0) << 8) << (8 * pad);
        *data.get_mut(self.head() + inner..)?.first_chunk_mut()? = (padding | trailer).to_le_bytes();
        Some(())
    }

    /// Writes SPI and number in one: the cipher is about to authenticate both, and would wait for two.
    #[inline(always)]
    fn number(&self, esp: &mut [u8], seq: u64) {
        let both = u64::from(u32::from_le_bytes(self.spi)) | u64::from((seq as u32).swap_bytes()) << 32;
        if let Some(place) = esp.first_chunk_mut() {
            *place = both.to_le_bytes();
        }
    }
}

/// The number of a protocol.
const fn proto_of(protocol: Protocol) -> IpProto {
    match protocol {
        Protocol::Esp => IpProto::ESP,
        Protocol::Ah => IpProto::AH,
        Protocol::Ipcomp => IpProto::IPCOMP,
    }
}

/// What the outer IP header announces.
const fn outer_proto(config: &SaConfig) -> IpProto {
    if config.encap.is_some() { IpProto::UDP } else { proto_of(config.protocol) }
}

fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn outer_hash(config: &SaConfig, peer: SocketAddr, seed: &HashSeed) -> u32 {
    let proto = outer_proto(config);
    let (src_port, dst_port) = match config.encap {
        Some(udp) => (udp.src_port, peer.port()),
        None => ((config.spi.0 >> 16) as u16, config.spi.0 as u16),
    };
    match (config.src, peer.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => FlowKey::V4(FlowKey4 { src, dst, src_port, dst_port, proto }),
        (IpAddr::V6(src), IpAddr::V6(dst)) => FlowKey::V6(FlowKey6 { src, dst, src_port, dst_port, proto }),
        // The ends of a tunnel are of one family: `ValidConf` sees to it.
        _ => return 0,
    }
    .hash(seed)
}
