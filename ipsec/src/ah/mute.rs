//! The fields of IP headers that change on the way, set to zero for AH's ICV (RFC 4302, 3.3.3.1 and Appendix A).
//!
//! | header | muted |
//! |---|---|
//! | IPv4 | class, flags, fragment offset, TTL, checksum |
//! | IPv4 options | all but end, no-operation, the security options and router alert; a source route's last stop counts as the destination |
//! | IPv6 | class, flow label, hop limit |
//! | IPv6 hop-by-hop and destination options | the data of those whose type says that it may change |

use wire::{IpProto, ipv4, ipv6};

/// End of options, no operation, security, extended security, commercial security, router alert, multi-destination delivery.
const KEPT: [u8; 7] = [0, 1, 130, 133, 134, 148, 149];
/// Loose and strict source route.
const SOURCE_ROUTE: [u8; 2] = [131, 137];
/// The bit in an IPv6 option's type: may change.
const MAY_CHANGE: u8 = 0x20;

/// Mutes everything in front of AH. `None`: it cannot be.
pub(super) fn mute(front: &mut [u8]) -> Option<()> {
    match front.first()? >> 4 {
        4 => mute4(front),
        _ => mute6(front),
    }
}

fn mute4(front: &mut [u8]) -> Option<()> {
    let (header, mut options) = front.split_at_mut_checked(ipv4::HEADER_LEN)?;
    header[1] = 0;
    header[6..9].fill(0);
    header[10..12].fill(0);
    loop {
        let len = match options {
            [] | [0, ..] => return Some(()),
            [1, ..] => 1,
            [_, len, ..] => usize::from(*len).max(2),
            [_] => return None,
        };
        let (option, rest) = options.split_at_mut_checked(len)?;
        if SOURCE_ROUTE.contains(&option[0])
            && option.get(2).is_some_and(|next| usize::from(*next) + 3 <= len)
        {
            header[16..20].copy_from_slice(option.last_chunk::<4>()?);
        }
        if !KEPT.contains(&option[0]) {
            option.fill(0);
        }
        options = rest;
    }
}

fn mute6(front: &mut [u8]) -> Option<()> {
    let (header, mut extensions) = front.split_at_mut_checked(ipv6::HEADER_LEN)?;
    header[0] &= 0xf0;
    header[1..4].fill(0);
    header[7] = 0;
    let mut next = IpProto(header[6]);
    while !extensions.is_empty() {
        let len = 8 + usize::from(*extensions.get(1)?) * 8;
        let (extension, rest) = extensions.split_at_mut_checked(len)?;
        match next {
            IpProto::HOPOPTS | IpProto::DSTOPTS => mute_options(extension.get_mut(2..)?)?,
            IpProto::ROUTING if extension[3] == 0 => {}
            _ => return None,
        }
        next = IpProto(extension[0]);
        extensions = rest;
    }
    Some(())
}

fn mute_options(mut options: &mut [u8]) -> Option<()> {
    loop {
        let len = match options {
            [] => return Some(()),
            [0, ..] => 1,
            [_, len, ..] => 2 + usize::from(*len),
            [_] => return None,
        };
        let (option, rest) = options.split_at_mut_checked(len)?;
        if option[0] & MAY_CHANGE != 0 {
            option.get_mut(2..)?.fill(0);
        }
        options = rest;
    }
}
