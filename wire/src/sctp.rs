//! SCTP (RFC 9260): the common header, the chunks behind it, and the addresses that some of them name (RFC 5061).
//!
//! ```text
//! |         source port           |       destination port        |  0
//! |                       verification tag                        |  4
//! |              checksum (CRC32c, lowest octet first)            |  8
//! |     type      |     flags     |            length             |  12, and so on for every chunk,
//! |                    value, then up to 3 octets of padding      |      at the next multiple of 4
//! ```
//!
//! Each end draws a tag and says it in its INIT or INIT ACK: whoever does not send it in the header of every later packet does not belong to the
//! association. The checksum covers no address, so that a translated packet keeps it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Malformed, view::get};

/// Octets of the common header.
pub const HEADER_LEN: usize = 12;
/// Octets of a chunk's type, flags and length.
pub const CHUNK_HEADER_LEN: usize = 4;
/// Octets that INIT and INIT ACK have before their parameters, the chunk's header aside.
pub const INIT_LEN: usize = 16;
/// The least receiver window that an end may open with (RFC 9260, 3.3.2).
pub const MIN_WINDOW: u32 = 1500;

/// Types of chunks.
pub mod kind {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers that.
    pub const INIT_ACK: u8 = 2;
    /// Acknowledges data.
    pub const SACK: u8 = 3;
    /// Asks whether a path works.
    pub const HEARTBEAT: u8 = 4;
    /// Says that it does.
    pub const HEARTBEAT_ACK: u8 = 5;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// The sender has no more data to send.
    pub const SHUTDOWN: u8 = 7;
    /// Nor has the other end.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Reports an error.
    pub const ERROR: u8 = 9;
    /// The cookie of the INIT ACK: the third of four.
    pub const COOKIE_ECHO: u8 = 10;
    /// The fourth.
    pub const COOKIE_ACK: u8 = 11;
    /// Both ends are done.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
    /// Answers an ASCONF (RFC 5061).
    pub const ASCONF_ACK: u8 = 0x80;
    /// Adds and deletes addresses of its sender (RFC 5061).
    pub const ASCONF: u8 = 0xc1;
}

/// The T bit of ABORT and SHUTDOWN COMPLETE: the tag is that of the packet that is answered (RFC 9260, 8.4).
pub const REFLECTED: u8 = 1;

mod parameter {
    pub(super) const IPV4: u16 = 5;
    pub(super) const IPV6: u16 = 6;
    pub(super) const ADD_IP: u16 = 0xc001;
    pub(super) const DELETE_IP: u16 = 0xc002;
}

view! {
    /// An SCTP packet: the common header and the chunks.
    Packet
}

fields! { Packet:
    /// Source port.
    u16, src_port, set_src_port @ 0;
    /// Destination port.
    u16, dst_port, set_dst_port @ 2;
    /// Verification tag: what the receiver has drawn; 0 with INIT.
    u32, tag, set_tag @ 4;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether the common header is there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < HEADER_LEN { Err(Malformed::Truncated) } else { Ok(()) }
    }

    /// Whether the checksum is right.
    pub fn checksum_ok(&self) -> bool {
        self.octets()[8..HEADER_LEN] == checksum(self.octets()).to_le_bytes()
    }
}

impl<'a> Packet<&'a [u8]> {
    /// The chunks.
    pub fn chunks(&self) -> Chunks<'a> {
        Chunks { rest: &self.buffer[HEADER_LEN..] }
    }
}

/// CRC32c over a packet, its checksum field taken as zero (RFC 9260, 6.8). On the wire it stands with its lowest octet first. Octets that do not reach
/// behind the field have the checksum of what is there.
pub fn checksum(packet: &[u8]) -> u32 {
    let (header, chunks) = packet.split_at(packet.len().min(HEADER_LEN));
    let crc = crc32c::crc32c(&header[..header.len().min(8)]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &[0; 4]), chunks)
}

/// A chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// What follows, without padding.
    pub value: &'a [u8],
}

/// The chunks of a packet, as far as they are well formed: the first that is not is the last. A chunk has four octets at least, which bounds the walk.
///
/// The last chunk is padded, too, though its length does not say so (RFC 9260, 3.2: the sender must): a packet that ends without
/// its padding is refused. FreeBSD's pf drops it as well (`pf_scan_sctp`: the lengths, rounded up, must end where the packet does).
#[derive(Debug, Clone)]
pub struct Chunks<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Chunks<'a> {
    type Item = Result<Chunk<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = core::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let Some(&[kind, flags, a, b]) = rest.first_chunk() else { return Some(Err(Malformed::Truncated)) };
        let len = usize::from(u16::from_be_bytes([a, b]));
        let padded = len.next_multiple_of(4);
        if len < CHUNK_HEADER_LEN || padded > rest.len() {
            return Some(Err(Malformed::Length));
        }
        self.rest = &rest[padded..];
        Some(Ok(Chunk { kind, flags, value: &rest[CHUNK_HEADER_LEN..len] }))
    }
}

/// The parameters at the end of a chunk. The padding of the last one does not count as part of the chunk.
#[derive(Debug, Clone)]
struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<(u16, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = core::mem::take(&mut self.rest);
        if rest.is_empty() {
            return None;
        }
        let Some(&[k, l, a, b]) = rest.first_chunk() else { return Some(Err(Malformed::Truncated)) };
        let len = usize::from(u16::from_be_bytes([a, b]));
        if len < CHUNK_HEADER_LEN || len > rest.len() {
            return Some(Err(Malformed::Option));
        }
        self.rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok((u16::from_be_bytes([k, l]), &rest[CHUNK_HEADER_LEN..len])))
    }
}

/// What becomes of an address of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It is one. Unspecified: the source of the packet.
    Added(IpAddr),
    /// It is one no longer. Unspecified: all but the source of the packet.
    Deleted(IpAddr),
}

/// The address in a parameter, if that has one.
fn address(kind: u16, value: &[u8]) -> Result<Option<IpAddr>, Malformed> {
    match kind {
        parameter::IPV4 => match <[u8; 4]>::try_from(value) {
            Ok(octets) => Ok(Some(Ipv4Addr::from_octets(octets).into())),
            Err(_) => Err(Malformed::Option),
        },
        parameter::IPV6 => match <[u8; 16]>::try_from(value) {
            Ok(octets) => Ok(Some(Ipv6Addr::from_octets(octets).into())),
            Err(_) => Err(Malformed::Option),
        },
        _ => Ok(None),
    }
}

impl Chunk<'_> {
    /// Calls `each` for the addresses that INIT, INIT ACK and ASCONF name; other chunks name none. Refuses parameters that are not well formed.
    pub fn addresses(&self, mut each: impl FnMut(Named)) -> Result<(), Malformed> {
        match self.kind {
            kind::INIT | kind::INIT_ACK => {
                let rest = self.value.get(INIT_LEN..).ok_or(Malformed::Truncated)?;
                for parameter in (Parameters { rest }) {
                    let (kind, value) = parameter?;
                    if let Some(address) = address(kind, value)? {
                        each(Named::Added(address));
                    }
                }
            }
            kind::ASCONF => {
                let rest = self.value.get(4..).ok_or(Malformed::Truncated)?;
                for (place, parameter) in (Parameters { rest }).enumerate() {
                    let (kind, value) = parameter?;
                    // The first one tells the receiver which association is meant, and adds nothing.
                    if place == 0 {
                        continue;
                    }
                    let make = match kind {
                        parameter::ADD_IP => Named::Added,
                        parameter::DELETE_IP => Named::Deleted,
                        _ => continue,
                    };
                    // A number to tell requests apart, then one address.
                    let rest = value.get(4..).ok_or(Malformed::Option)?;
                    let (kind, value) = Parameters { rest }.next().ok_or(Malformed::Option)??;
                    each(make(address(kind, value)?.ok_or(Malformed::Option)?));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The tag that the sender of INIT or INIT ACK has drawn, if the fixed part is legal: tag and numbers of streams are not zero, and the window is
    /// large enough (RFC 9260, 3.3.2).
    fn initiate_tag(&self) -> Result<u32, Malformed> {
        let fixed: &[u8; INIT_LEN] = self.value.first_chunk().ok_or(Malformed::Truncated)?;
        let (tag, window): (u32, u32) = (get(fixed, 0), get(fixed, 4));
        let streams: [u16; 2] = [get(fixed, 8), get(fixed, 10)];
        if tag == 0 || window < MIN_WINDOW || streams.contains(&0) { Err(Malformed::Field) } else { Ok(tag) }
    }
}

/// Which types of chunks a packet has; the unknown ones are one type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kinds(u32);

impl Kinds {
    const fn bit(kind: u8) -> u32 {
        match kind {
            0..=14 => 1 << kind,
            kind::ASCONF => 1 << 16,
            kind::ASCONF_ACK => 1 << 17,
            _ => 1 << 18,
        }
    }

    /// Whether there is a chunk of this type.
    #[inline]
    pub const fn has(self, kind: u8) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    /// Whether there is one of another type.
    #[inline]
    pub const fn has_other_than(self, kind: u8) -> bool {
        self.0 & !Self::bit(kind) != 0
    }
}

/// What a look at all chunks of a packet tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Verification tag.
    pub tag: u32,
    /// The tag that an INIT or INIT ACK says; otherwise 0.
    pub initiate_tag: u32,
    /// Which chunks there are.
    pub kinds: Kinds,
    /// The verification tag is that of the packet that is answered ([`REFLECTED`]).
    pub reflected: bool,
    /// Whether addresses of the sender are named.
    pub names: bool,
}

/// Looks at all chunks of the packet that fills `octets`. Refuses what RFC 9260 forbids: port 0; chunks or parameters that do not end where the packet, or
/// the chunk, does; INIT, INIT ACK or SHUTDOWN COMPLETE with another chunk; INIT with a verification tag, and fixed parts of both with
/// forbidden values. The checksum is not looked at.
pub fn scan(octets: &[u8]) -> Result<Scan, Malformed> {
    let packet = Packet::new_checked(octets)?;
    let mut scan = Scan {
        src_port: packet.src_port(),
        dst_port: packet.dst_port(),
        tag: packet.tag(),
        initiate_tag: 0,
        kinds: Kinds::default(),
        reflected: false,
        names: false,
    };
    if scan.src_port == 0 || scan.dst_port == 0 {
        return Err(Malformed::Field);
    }
    for chunk in packet.chunks() {
        let chunk = chunk?;
        let alone = matches!(chunk.kind, kind::INIT | kind::INIT_ACK) && scan.kinds.has(chunk.kind);
        if alone || (chunk.kind == kind::INIT && scan.tag != 0) {
            return Err(Malformed::Field);
        }
        scan.kinds.0 |= Kinds::bit(chunk.kind);
        if matches!(chunk.kind, kind::INIT | kind::INIT_ACK) {
            scan.initiate_tag = chunk.initiate_tag()?;
        }
        if matches!(chunk.kind, kind::ABORT | kind::SHUTDOWN_COMPLETE) {
            scan.reflected |= chunk.flags & REFLECTED != 0;
        }
        chunk.addresses(|_| scan.names = true)?;
    }
    for kind in [kind::INIT, kind::INIT_ACK, kind::SHUTDOWN_COMPLETE] {
        if scan.kinds.has(kind) && scan.kinds.has_other_than(kind) {
            return Err(Malformed::Field);
        }
    }
    Ok(scan)
}

/// A common header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Verification tag.
    pub tag: u32,
}

impl Repr {
    /// Reads a header and verifies the checksum.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, Malformed> {
        packet.check_len()?;
        if !packet.checksum_ok() {
            return Err(Malformed::Checksum);
        }
        Ok(Self { src_port: packet.src_port(), dst_port: packet.dst_port(), tag: packet.tag() })
    }

    /// Writes the header to the front of `octets`, whose chunks are already in place behind it, and the checksum over all of them.
    pub fn emit(&self, octets: &mut [u8]) -> Result<usize, Malformed> {
        let mut packet = Packet::new_checked(&mut *octets)?;
        packet.set_src_port(self.src_port);
        packet.set_dst_port(self.dst_port);
        packet.set_tag(self.tag);
        let checksum = checksum(octets).to_le_bytes();
        octets[8..HEADER_LEN].copy_from_slice(&checksum);
        Ok(HEADER_LEN)
    }
}

#[cfg(test)]
mod tests;
