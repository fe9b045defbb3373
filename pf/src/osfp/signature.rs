//! What a SYN looks like, and what it has to look like for a signature.

use wire::tcp::{HeaderOption, Options};

use crate::{addr::Family, packet::Packet, rule::TcpFlags};

/// Hops that a packet may have passed since it was sent (BSD: `PF_OSFP_MAXTTL_OFFSET`).
const MAX_HOPS: u8 = 40;
/// The segment size that devices on the way like to put in place of the sender's.
const ETHERNET_MSS: u16 = 1460;
/// Octets of IPv4 and TCP headers.
const HEADERS: u16 = 40;
/// Octets that an IPv6 header is longer than that of IPv4.
const LONGER: u32 = 20;
/// Options that a layout has room for.
const MAX_OPTIONS: u8 = 21;

/// A number of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    /// `*`
    Any,
    /// `nnn`
    Is(u16),
    /// `%nnn`
    Multiple(u16),
}

impl Number {
    fn matches(self, n: u16) -> bool {
        match self {
            Number::Any => true,
            Number::Is(wanted) => n == wanted,
            Number::Multiple(of) => of != 0 && n.is_multiple_of(of),
        }
    }
}

/// The window of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    Number(Number),
    /// `Snn`: so many segments.
    Segments(u16),
    /// `Tnn`: so many packets of an IPv4 path's MTU.
    Mtus(u16),
}

impl Window {
    fn matches(self, window: u16, mss: u16) -> bool {
        let times = |n: u16, size: u16| u32::from(window) == u32::from(n) * u32::from(size);
        match self {
            Window::Number(number) => number.matches(window),
            Window::Segments(n) => mss != 0 && (times(n, mss) || times(n, ETHERNET_MSS)),
            Window::Mtus(n) => {
                mss != 0 && (times(n, mss.saturating_add(HEADERS)) || times(n, ETHERNET_MSS + HEADERS))
            }
        }
    }
}

/// An option, as far as layouts tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Nop = 1,
    Mss = 2,
    Scale = 3,
    Sack = 4,
    Timestamps = 5,
}

/// Which options, in which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Layout {
    packed: u64,
    count: u8,
}

impl Layout {
    /// Adds an option at the end; none if there is no room.
    pub(super) fn push(&mut self, kind: Kind) -> Option<()> {
        if self.count == MAX_OPTIONS {
            return None;
        }
        *self = Layout { packed: self.packed << 3 | kind as u64, count: self.count + 1 };
        Some(())
    }
}

/// A line of pf.os.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub(super) window: Window,
    /// Time to live with which it is sent.
    pub(super) ttl: u8,
    /// Don't-fragment; every IPv6 packet has it.
    pub(super) df: bool,
    /// Octets of the whole SYN as IPv4.
    pub(super) size: Number,
    pub(super) layout: Layout,
    pub(super) mss: Number,
    pub(super) scale: Number,
    /// The timestamp is 0.
    pub(super) zero_stamp: bool,
}

impl Signature {
    /// Whether a SYN with the same layout fits.
    pub(super) fn fits(&self, syn: &Syn) -> bool {
        self.ttl >= syn.ttl
            && self.ttl - syn.ttl <= MAX_HOPS
            && syn.df.is_none_or(|df| df == self.df)
            && self.zero_stamp == syn.zero_stamp
            && self.size.matches(syn.size)
            && self.mss.matches(syn.mss)
            && self.scale.matches(syn.scale)
            && self.window.matches(syn.window, syn.mss)
    }
}

/// A SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Syn {
    window: u16,
    ttl: u8,
    /// None where there is no such bit.
    df: Option<bool>,
    size: u16,
    pub(super) layout: Layout,
    /// 0 if it does not say.
    mss: u16,
    scale: u16,
    zero_stamp: bool,
}

impl Syn {
    /// Reads what `p` was read from; none if it is no SYN, or has options that no signature speaks of.
    pub(super) fn read(p: &Packet, data: &[u8]) -> Option<Syn> {
        let TcpFlags { set, mask } = TcpFlags::OPENING;
        if p.tcp.header < 20 || p.tcp.flags & mask != set {
            return None;
        }
        let (ttl, df, size) = match p.family {
            Family::Inet => (*data.get(8)?, Some(data.get(6)? & 0x40 != 0), p.bytes),
            Family::Inet6 => (*data.get(7)?, None, p.bytes.saturating_sub(LONGER)),
        };
        let mut syn = Syn {
            window: p.tcp.window,
            ttl,
            df,
            size: u16::try_from(size).ok()?,
            layout: Layout::default(),
            mss: 0,
            scale: 0,
            zero_stamp: false,
        };
        let l4 = usize::from(p.l4);
        syn.options(data.get(l4 + 20..l4 + usize::from(p.tcp.header))?)?;
        Some(syn)
    }

    fn options(&mut self, area: &[u8]) -> Option<()> {
        let mut end = 0;
        for option in Options::new(area) {
            let (at, option) = option.ok()?;
            self.nops(area.get(end..at)?)?;
            end = at + usize::from(*area.get(at + 1)?);
            match option {
                HeaderOption::MaxSegmentSize(mss) => {
                    self.mss = mss;
                    self.layout.push(Kind::Mss)?;
                }
                HeaderOption::WindowScale(shift) => {
                    self.scale = shift.into();
                    self.layout.push(Kind::Scale)?;
                }
                HeaderOption::SackPermitted => self.layout.push(Kind::Sack)?,
                HeaderOption::Timestamps(value, _) => {
                    self.zero_stamp |= value == 0;
                    self.layout.push(Kind::Timestamps)?;
                }
                HeaderOption::Sack(_) | HeaderOption::Other(..) => return None,
            }
        }
        self.nops(area.get(end..)?)
    }

    /// Adds the no-operations at the beginning of an area, up to its end or an end of list.
    fn nops(&mut self, area: &[u8]) -> Option<()> {
        area.iter().take_while(|&&octet| octet == 1).try_for_each(|_| self.layout.push(Kind::Nop))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(kinds: &[Kind]) -> Layout {
        let mut layout = Layout::default();
        for &kind in kinds {
            layout.push(kind).unwrap();
        }
        layout
    }

    fn read(area: &[u8]) -> Option<Syn> {
        let mut syn = Syn {
            window: 0,
            ttl: 0,
            df: None,
            size: 0,
            layout: Layout::default(),
            mss: 0,
            scale: 0,
            zero_stamp: false,
        };
        syn.options(area).map(|()| syn)
    }

    #[test]
    fn options_are_read_in_order_with_the_nops_between_them() {
        use Kind::{Mss, Nop, Sack, Scale, Timestamps};
        let syn =
            read(&[2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 1, 4, 2, 1, 0]).unwrap();
        assert_eq!(syn.layout, layout(&[Mss, Nop, Scale, Nop, Nop, Timestamps, Sack, Nop]));
        assert_eq!((syn.mss, syn.scale, syn.zero_stamp), (1460, 7, true));
        assert_eq!(read(&[]).unwrap().layout, Layout::default());
        assert_eq!(
            read(&[0, 1, 1, 1]).unwrap().layout,
            Layout::default(),
            "nothing counts behind the end of the list"
        );
        assert_ne!(layout(&[Nop, Mss]), layout(&[Mss, Nop]));
        for area in [&[2, 4, 5][..], &[2], &[3, 0, 7], &[34, 2], &[5, 10, 0, 0, 0, 0, 0, 0, 0, 1], &[1; 22]] {
            assert_eq!(read(area), None, "{area:?}");
        }
        assert!(read(&[1; 21]).is_some());
    }

    #[test]
    fn a_window_may_be_counted_in_segments_or_packets_of_the_path() {
        for (window, sent, mss, matches) in [
            (Window::Segments(4), 5840, 1460, true),
            (Window::Segments(4), 5841, 1460, false),
            (Window::Segments(4), 2144, 536, true),
            (Window::Segments(4), 5840, 1400, true),
            (Window::Segments(4), 5840, 0, false),
            (Window::Mtus(4), 6000, 1460, true),
            (Window::Mtus(4), 6000, 1412, true),
            (Window::Mtus(4), 5808, 1412, true),
            (Window::Mtus(4), 5840, 1460, false),
            (Window::Segments(60), 65535, 65535, false),
            (Window::Number(Number::Multiple(8192)), 24576, 536, true),
            (Window::Number(Number::Multiple(8192)), 24577, 536, false),
            (Window::Number(Number::Multiple(0)), 0, 536, false),
            (Window::Number(Number::Any), 77, 0, true),
            (Window::Number(Number::Is(512)), 512, 0, true),
        ] {
            assert_eq!(window.matches(sent, mss), matches, "{window:?} of {sent} with {mss}");
        }
    }

    /// The walk over options as pf has it, octet by octet.
    fn plain(mut area: &[u8]) -> Option<(Layout, u16, u16, bool)> {
        let (mut layout, mut mss, mut scale, mut zero) = (Layout::default(), 0, 0, false);
        loop {
            match *area {
                [] | [0, ..] => return Some((layout, mss, scale, zero)),
                [1, ref rest @ ..] => {
                    layout.push(Kind::Nop)?;
                    area = rest;
                    continue;
                }
                [2, 4, high, low, ..] => {
                    layout.push(Kind::Mss)?;
                    mss = u16::from_be_bytes([high, low]);
                }
                [3, 3, shift, ..] => {
                    layout.push(Kind::Scale)?;
                    scale = shift.into();
                }
                [4, 2, ..] => layout.push(Kind::Sack)?,
                [8, 10, a, b, c, d, ..] if area.len() >= 10 => {
                    layout.push(Kind::Timestamps)?;
                    zero |= [a, b, c, d] == [0; 4];
                }
                _ => return None,
            }
            area = &area[usize::from(area[1])..];
        }
    }

    proptest::proptest! {
        #[test]
        fn any_options_are_read_as_an_octet_by_octet_walk_reads_them(
            parts in proptest::collection::vec(
                proptest::sample::select(vec![
                    &[1_u8][..], &[2, 4, 5, 0xb4], &[3, 3, 7], &[4, 2], &[8, 10, 0, 0, 0, 0, 1, 2, 3, 4],
                    &[8, 10, 9, 0, 0, 0, 1, 2, 3, 4], &[0], &[2, 4], &[5, 10], &[30, 3, 0],
                ]),
                0..14,
            ),
        ) {
            let mut area = parts.concat();
            area.truncate(40);
            let syn = read(&area).map(|syn| (syn.layout, syn.mss, syn.scale, syn.zero_stamp));
            proptest::prop_assert_eq!(syn, plain(&area));
        }
    }
}
