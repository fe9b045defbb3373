//! IPv6 extension headers (RFC 8200, 4): a bounded walk to the upper layer, the fragment header, and the options of hop-by-hop and destination
//! headers. AH, ESP and IPComp end the walk: IPsec owns them. Nothing here acts on an option.
//!
//! Order and number are those a router can afford to accept: hop-by-hop only at once after the fixed header, at most one fragment header, at most
//! [`MAX_HEADERS`] in all (RFC 8504, 5.3 allows such limits). The walk ends at the fragment header of a fragment that is not the first, since what
//! follows there is data.

use crate::{IpProto, Malformed, ipv6, view::get};

/// Extension headers the walk passes over before it refuses.
pub const MAX_HEADERS: usize = 8;
/// Octets of a fragment header.
pub const FRAGMENT_LEN: usize = 8;

/// The fields of a fragment header, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// Where the header stands, from the start of the packet: the length of the unfragmentable part.
    pub at: u16,
    /// Where the next-header octet stands that announced it.
    pub announced_at: u16,
    /// What the reassembled fragmentable part begins with.
    pub next_header: IpProto,
    /// Where the payload belongs, in octets.
    pub offset: u16,
    /// Whether later fragments follow.
    pub more: bool,
    /// Identification of the datagram.
    pub ident: u32,
}

impl Fragment {
    /// Reads the header at `at`, which is announced by the octet at `announced_at`.
    fn read(h: [u8; FRAGMENT_LEN], at: usize, announced_at: usize) -> Self {
        let word: u16 = get(&h, 2);
        Self {
            at: at as u16,
            announced_at: announced_at as u16,
            next_header: IpProto(h[0]),
            offset: word & 0xfff8,
            more: word & 1 != 0,
            ident: get(&h, 4),
        }
    }

    /// Whether the header is there but the datagram is whole (RFC 6946).
    pub const fn is_atomic(&self) -> bool {
        self.offset == 0 && !self.more
    }

    /// The octets of the header. `offset` must be a multiple of eight.
    pub const fn octets(&self) -> [u8; FRAGMENT_LEN] {
        let [a, b] = (self.offset & 0xfff8 | self.more as u16).to_be_bytes();
        let [c, d, e, f] = self.ident.to_be_bytes();
        [self.next_header.0, 0, a, b, c, d, e, f]
    }
}

/// Where the walk ended and what it passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// The protocol at `l4`; in a fragment that is not the first, what the whole datagram's fragmentable part begins with.
    pub proto: IpProto,
    /// Where the upper layer (or the fragment's data) stands, from the start of the packet.
    pub l4: u16,
    /// Where the next-header octet stands that announced `proto`.
    pub announced_at: u16,
    /// A hop-by-hop header was there: its octets are at 40.
    pub hop_by_hop: bool,
    /// A destination options header was there.
    pub dst_options: bool,
    /// The routing header: its type and segments left.
    pub routing: Option<(u8, u8)>,
    /// The fragment header.
    pub fragment: Option<Fragment>,
}

/// Walks from the fixed header of `packet`, whose payload ends at `end`, to the upper layer.
pub fn walk(packet: &[u8], end: usize) -> Result<Chain, Malformed> {
    let packet = packet.get(..end).ok_or(Malformed::Length)?;
    let first = *packet.get(6).ok_or(Malformed::Truncated)?;
    let mut chain = Chain {
        proto: IpProto(first),
        l4: ipv6::HEADER_LEN as u16,
        announced_at: 6,
        hop_by_hop: false,
        dst_options: false,
        routing: None,
        fragment: None,
    };
    for _ in 0..MAX_HEADERS {
        if !chain.proto.is_extension() || !pass(packet, &mut chain)? {
            return Ok(chain);
        }
    }
    if chain.proto.is_extension() { Err(Malformed::ExtChain) } else { Ok(chain) }
}

/// Passes over one extension header; false when the walk must end behind it.
fn pass(packet: &[u8], chain: &mut Chain) -> Result<bool, Malformed> {
    let at = usize::from(chain.l4);
    let header: [u8; 8] = *packet.get(at..).and_then(<[u8]>::first_chunk).ok_or(Malformed::ExtChain)?;
    let announced_at = usize::from(chain.announced_at);
    let mut len = 8 + usize::from(header[1]) * 8;
    match chain.proto {
        IpProto::HOPOPTS if at != ipv6::HEADER_LEN => return Err(Malformed::ExtChain),
        IpProto::HOPOPTS => chain.hop_by_hop = true,
        IpProto::DSTOPTS => chain.dst_options = true,
        IpProto::ROUTING => chain.routing = Some((header[2], header[3])),
        _ if chain.fragment.is_some() => return Err(Malformed::ExtChain),
        _ => {
            len = FRAGMENT_LEN;
            chain.fragment = Some(Fragment::read(header, at, announced_at));
        }
    }
    if packet.len() < at + len {
        return Err(Malformed::ExtChain);
    }
    chain.proto = IpProto(header[0]);
    chain.announced_at = chain.l4;
    chain.l4 += len as u16;
    Ok(chain.fragment.is_none_or(|f| f.offset == 0))
}

/// One option of a hop-by-hop or destination options header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExtOption<'a> {
    /// Type octet.
    pub kind: u8,
    /// Where the type octet stands, from the start of the area.
    pub at: usize,
    /// What follows type and length.
    pub data: &'a [u8],
}

/// What a node that does not know an option does with the packet: the two high bits of the type (RFC 8200, 4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfUnknown {
    /// Pass over the option.
    Skip,
    /// Discard the packet in silence.
    Discard,
    /// Discard it and send parameter problem, code 2.
    DiscardAndTell,
    /// Discard it and send parameter problem, code 2, unless it went to a group.
    DiscardAndTellUnlessMulticast,
}

impl ExtOption<'_> {
    /// Router alert (RFC 2711).
    pub const ROUTER_ALERT: u8 = 5;
    /// Jumbo payload (RFC 2675).
    pub const JUMBO: u8 = 0xc2;

    /// What to do when the option is not known.
    pub const fn if_unknown(&self) -> IfUnknown {
        match self.kind >> 6 {
            0 => IfUnknown::Skip,
            1 => IfUnknown::Discard,
            2 => IfUnknown::DiscardAndTell,
            _ => IfUnknown::DiscardAndTellUnlessMulticast,
        }
    }
}

/// The walk over the options of one header: padding is passed over, a bad length ends the walk with an error.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    area: &'a [u8],
    at: usize,
}

impl<'a> Options<'a> {
    /// Walks the options of the header at `at` of `packet`.
    pub fn of(packet: &'a [u8], at: usize) -> Result<Self, Malformed> {
        let header = packet.get(at..).ok_or(Malformed::Truncated)?;
        let len = 8 + usize::from(*header.get(1).ok_or(Malformed::Truncated)?) * 8;
        Ok(Self { area: header.get(2..len).ok_or(Malformed::ExtChain)?, at: 0 })
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<ExtOption<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (at, rest) = (self.at, &self.area[self.at..]);
            match *rest {
                [] => return None,
                [0, ..] => self.at += 1,
                [kind, len, ..] if usize::from(len) + 2 <= rest.len() => {
                    self.at += usize::from(len) + 2;
                    if kind != 1 {
                        return Some(Ok(ExtOption { kind, at, data: &rest[2..usize::from(len) + 2] }));
                    }
                }
                _ => {
                    self.at = self.area.len();
                    return Some(Err(Malformed::Option));
                }
            }
        }
    }
}

/// The value of a router alert in the hop-by-hop header of `packet`, when there is one (0 is MLD, RFC 2711).
pub fn router_alert(packet: &[u8]) -> Option<u16> {
    if *packet.get(6)? != IpProto::HOPOPTS.0 {
        return None;
    }
    let mut options = Options::of(packet, ipv6::HEADER_LEN).ok()?;
    options.find_map(|o| match o {
        Ok(ExtOption { kind: ExtOption::ROUTER_ALERT, data: &[a, b], .. }) => {
            Some(u16::from_be_bytes([a, b]))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(chain: &[(u8, &[u8])], last: u8, rest: &[u8]) -> Vec<u8> {
        let mut out = vec![0; 40];
        out[0] = 0x60;
        let mut announced = 6;
        for (kind, body) in chain {
            out[announced] = *kind;
            announced = out.len();
            out.push(0);
            out.extend_from_slice(body);
        }
        out[announced] = last;
        out.extend_from_slice(rest);
        let len = out.len() as u16 - 40;
        out[4..6].copy_from_slice(&len.to_be_bytes());
        out
    }

    const EMPTY: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
    const ALERT: &[u8] = &[0, 5, 2, 0, 0, 1, 0];

    #[test]
    fn the_walk_passes_over_every_header_it_knows() {
        let p = packet(
            &[(0, ALERT), (43, &[0, 0, 1, 0, 0, 0, 0]), (44, &[0, 0, 1, 0, 0, 0, 9]), (60, EMPTY)],
            6,
            &[0; 20],
        );
        let chain = walk(&p, p.len()).unwrap();
        assert_eq!((chain.proto, chain.l4, chain.announced_at), (IpProto::TCP, 72, 64));
        assert!(chain.hop_by_hop && chain.dst_options);
        assert_eq!(chain.routing, Some((0, 1)));
        let fragment = chain.fragment.unwrap();
        assert_eq!(
            (fragment.at, fragment.announced_at, fragment.offset, fragment.more, fragment.ident),
            (56, 48, 0, true, 9)
        );
        assert_eq!(fragment.octets()[..], p[56..64]);
        assert_eq!(router_alert(&p), Some(0));
    }

    #[test]
    fn the_walk_ends_at_data() {
        let p = packet(&[(44, &[0, 0, 8, 0, 0, 0, 9])], 60, &[0xff; 8]);
        let chain = walk(&p, p.len()).unwrap();
        assert_eq!((chain.proto, chain.l4), (IpProto::DSTOPTS, 48));
        assert!(!chain.dst_options);
    }

    #[test]
    fn the_walk_refuses_what_is_misplaced_repeated_endless_or_cut_off() {
        let whole: &[u8] = &[0, 0, 0, 0, 0, 0, 0];
        let cases: [&[(u8, &[u8])]; 4] = [
            &[(60, EMPTY), (0, EMPTY)],
            &[(44, whole), (44, whole)],
            &[(60, EMPTY); 9],
            &[(60, &[1, 0, 0, 0, 0, 0, 0])],
        ];
        for case in cases {
            let p = packet(case, 59, &[]);
            assert_eq!(walk(&p, p.len()), Err(Malformed::ExtChain), "{case:?}");
        }
        let p = packet(&[(60, EMPTY); 8], 59, &[]);
        assert_eq!(walk(&p, p.len()).unwrap().proto, IpProto::NO_NEXT);
        assert_eq!(walk(&p, 47), Err(Malformed::ExtChain));
    }

    #[test]
    fn an_option_that_runs_over_its_header_ends_the_walk() {
        let p = packet(&[(0, &[0, 1, 5, 0, 0, 0, 0])], 59, &[]);
        assert_eq!(Options::of(&p, 40).unwrap().collect::<Vec<_>>(), [Err(Malformed::Option)]);
    }
}
