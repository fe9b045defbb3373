//! The lengths and the fixed octets of an SA's packets, worked out once.
//!
//! ```text
//!  v4: ├ IPv4 20 ┤├ ESP 8 ┤├ IV 0-16 ┤├─── inner packet ───┤├ padding 0-15 ┤├ 2 ┤├ ICV 8-32 ┤
//!  v6: ├ IPv6 40 ┤├ ESP 8 ┤├ IV 0-16 ┤├─── inner packet ───┤├ padding 0-15 ┤├ 2 ┤├ ICV 8-32 ┤
//!      └───── template ───┘                                 └────────── tail ─────────────┘
//! ```
//!
//! The template has everything that is the same in all packets; what differs (length, class, identification, checksum,
//! sequence number) is written over it, and the checksum is the template's sum and the few words that differ.

use crate::sa::{Padding, SaConfig};
use kern::Why;
use std::net::IpAddr;
use wire::{
    HashSeed, IpProto, checksum,
    flow::{FlowKey, FlowKey4, FlowKey6},
    ipv4, ipv6,
};

/// Hop limit of the outer header.
const TTL: u8 = 64;
/// Octets of the ESP header.
const ESP: usize = wire::esp::HEADER_LEN;
/// The longest template.
const TEMPLATE: usize = ipv6::HEADER_LEN + ESP;
/// Pad length and next header.
pub(super) const TRAILER: usize = 2;
/// The most padding there is.
const PADDING: usize = 15;

/// See the head of the file.
#[derive(Clone, Debug)]
pub struct Layout {
    template: [u8; TEMPLATE],
    /// Octets of outer IP header, ESP header and IV.
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
    pub(super) hash: u32,
    /// The octets before the pad length, as many as are needed.
    pub(super) padding: [u8; PADDING],
    pub(super) padding_checked: bool,
}

impl Layout {
    pub(crate) fn new(config: &SaConfig, seed: &HashSeed) -> Layout {
        let mut template = [0; TEMPLATE];
        let esp = match (config.src, config.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                template[0] = 0x45;
                template[8] = TTL;
                template[9] = IpProto::ESP.0;
                template[12..16].copy_from_slice(&src.octets());
                template[16..20].copy_from_slice(&dst.octets());
                ipv4::HEADER_LEN
            }
            (src, dst) => {
                template[0] = 0x60;
                template[6] = IpProto::ESP.0;
                template[7] = TTL;
                template[8..24].copy_from_slice(&mapped(src));
                template[24..40].copy_from_slice(&mapped(dst));
                ipv6::HEADER_LEN
            }
        };
        template[esp..esp + 4].copy_from_slice(&config.spi.0.to_be_bytes());
        let v6 = esp == ipv6::HEADER_LEN;
        Layout {
            sum: checksum::sum(&template[..ipv4::HEADER_LEN]),
            template,
            head: (esp + ESP + config.suite.iv_len()) as u8,
            esp: esp as u8,
            esp_iv: (ESP + config.suite.iv_len()) as u8,
            icv: config.suite.icv_len() as u8,
            align_mask: config.suite.align() as u8 - 1,
            v6,
            max: if v6 { 65_535 + ipv6::HEADER_LEN } else { 65_535 },
            // 0 would mean "not computed".
            hash: outer_hash(config, seed).max(1),
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

    /// Octets of the ICV.
    #[inline(always)]
    pub(super) const fn icv(&self) -> usize {
        self.icv as usize
    }

    /// What payload, padding and trailer together are a multiple of, less one.
    #[inline(always)]
    pub(super) const fn align_mask(&self) -> usize {
        self.align_mask as usize
    }

    /// Whether the outer packet is IPv6.
    #[inline(always)]
    pub(super) const fn is_v6(&self) -> bool {
        self.v6
    }

    /// Octets of padding behind an inner packet of this length.
    #[inline(always)]
    pub(super) const fn pad(&self, inner: usize) -> usize {
        (inner + TRAILER).wrapping_neg() & self.align_mask as usize
    }

    /// Whether an inner packet of this length makes an outer one that exists.
    #[inline(always)]
    pub(super) const fn fits(&self, inner: usize) -> bool {
        self.head() + inner + self.pad(inner) + TRAILER + self.icv() <= self.max
    }

    pub(crate) const fn overhead(&self) -> usize {
        self.head() + self.align_mask as usize + TRAILER + self.icv()
    }

    pub(crate) const fn inner_mtu(&self, mtu: usize) -> usize {
        let room = mtu.saturating_sub(self.head() + self.icv());
        (room & !(self.align_mask as usize)).saturating_sub(TRAILER)
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
        if self.v6 {
            let head: &mut [u8; TEMPLATE] = head.first_chunk_mut().ok_or(Why::Headroom)?;
            *head = self.template;
            head[0] |= class >> 4;
            head[1] = class << 4;
            head[4..6].copy_from_slice(&((total - ipv6::HEADER_LEN) as u16).to_be_bytes());
            head[ipv6::HEADER_LEN + 4..][..4].copy_from_slice(&(seq as u32).to_be_bytes());
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
        head[ipv4::HEADER_LEN + 4..][..4].copy_from_slice(&(seq as u32).to_be_bytes());
        Ok(())
    }
}

fn mapped(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn outer_hash(config: &SaConfig, seed: &HashSeed) -> u32 {
    let proto = IpProto::ESP;
    let (src_port, dst_port) = ((config.spi.0 >> 16) as u16, config.spi.0 as u16);
    match (config.src, config.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => FlowKey::V4(FlowKey4 { src, dst, src_port, dst_port, proto }),
        (IpAddr::V6(src), IpAddr::V6(dst)) => FlowKey::V6(FlowKey6 { src, dst, src_port, dst_port, proto }),
        // The ends of a tunnel are of one family: `ValidConf` sees to it.
        _ => return 0,
    }
    .hash(seed)
}
