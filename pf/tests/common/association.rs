//! Packets of an SCTP client and server, and of the routers on their way.

use std::net::IpAddr;

use wire::{
    build,
    sctp::{self, kind},
};

/// The tag that the client draws, and the one of the server.
pub const CLIENT_TAG: u32 = 0xc11e_0001;
pub const SERVER_TAG: u32 = 0x5e4e_0002;

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub struct Association {
    pub client: (IpAddr, u16),
    pub server: (IpAddr, u16),
}

impl Association {
    pub fn new(client: impl Into<IpAddr>, server: impl Into<IpAddr>) -> Association {
        Association { client: (client.into(), 4000), server: (server.into(), 5000) }
    }

    /// A packet of the client with these chunks.
    pub fn up(self, tag: u32, chunks: &[u8]) -> Vec<u8> {
        packet(self.client, self.server, tag, chunks)
    }

    /// A packet of the server.
    pub fn down(self, tag: u32, chunks: &[u8]) -> Vec<u8> {
        packet(self.server, self.client, tag, chunks)
    }

    pub fn init(self, addresses: &[IpAddr]) -> Vec<u8> {
        self.up(0, &init(kind::INIT, CLIENT_TAG, addresses))
    }

    pub fn init_ack(self, addresses: &[IpAddr]) -> Vec<u8> {
        self.down(CLIENT_TAG, &init(kind::INIT_ACK, SERVER_TAG, addresses))
    }

    /// A chunk of the client, after the handshake has begun.
    pub fn says(self, kind: u8) -> Vec<u8> {
        self.up(SERVER_TAG, &chunk(kind))
    }

    /// A chunk of the server.
    pub fn answers(self, kind: u8) -> Vec<u8> {
        self.down(CLIENT_TAG, &chunk(kind))
    }
}

/// A packet from one to another, of their family.
pub fn packet(from: (IpAddr, u16), to: (IpAddr, u16), tag: u32, chunks: &[u8]) -> Vec<u8> {
    let header = sctp::Repr { src_port: from.1, dst_port: to.1, tag };
    match (from.0, to.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => build::sctp4(src, dst, &header, chunks),
        (IpAddr::V6(src), IpAddr::V6(dst)) => build::sctp6(src, dst, &header, chunks),
        families => panic!("{families:?}"),
    }
}

/// A chunk with a little in it.
pub fn chunk(kind: u8) -> Vec<u8> {
    build::sctp_chunk(kind, if kind == kind::DATA { 3 } else { 0 }, b"something")
}

/// INIT or INIT ACK that names these addresses.
pub fn init(kind: u8, tag: u32, addresses: &[IpAddr]) -> Vec<u8> {
    let parameters: Vec<u8> = addresses.iter().flat_map(|a| address(*a)).collect();
    build::sctp_init(kind, tag, 65_536, 10, &parameters)
}

fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(a) => build::sctp_parameter(5, &a.octets()),
        IpAddr::V6(a) => build::sctp_parameter(6, &a.octets()),
    }
}

/// ASCONF that adds (`true`) or deletes these addresses; the sender is known by the first.
pub fn asconf(known: IpAddr, changes: &[(bool, IpAddr)]) -> Vec<u8> {
    let mut value = [&[0, 0, 0, 1], &address(known)[..]].concat();
    for (adds, changed) in changes {
        let kind = if *adds { 0xc001 } else { 0xc002 };
        value.extend(build::sctp_parameter(kind, &[&[0, 0, 0, 2], &address(*changed)[..]].concat()));
    }
    build::sctp_chunk(kind::ASCONF, 0, &value)
}
