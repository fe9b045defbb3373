//! Packets of either family, so that one test can be about both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::{IpProto, build, icmpv4, icmpv6, ipv4, ipv6, tcp};

use super::{CLIENT, SERVER, header};

/// Who there is, in one family.
#[derive(Clone, Copy, Debug)]
pub struct Party {
    /// `inet` or `inet6`.
    pub word: &'static str,
    /// A host on the LAN, and one beside it.
    pub client: IpAddr,
    pub neighbour: IpAddr,
    /// A host behind the WAN.
    pub server: IpAddr,
    /// A router on the way to it.
    pub router: IpAddr,
    /// The address of the router at hand, at the WAN.
    pub outside: IpAddr,
    /// What the LAN has of addresses.
    pub lan: &'static str,
}

const fn v6(net: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host))
}

const fn v4(net: [u8; 3], host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(net[0], net[1], net[2], host))
}

pub const INET: Party = Party {
    word: "inet",
    client: IpAddr::V4(CLIENT),
    neighbour: v4([192, 0, 2], 10),
    server: IpAddr::V4(SERVER),
    router: v4([198, 51, 100], 254),
    outside: v4([203, 0, 113], 1),
    lan: "192.0.2.0/24",
};

pub const INET6: Party = Party {
    word: "inet6",
    client: v6(0xa, 9),
    neighbour: v6(0xa, 10),
    server: v6(0xc, 1),
    router: v6(0xc, 254),
    outside: v6(0xb, 1),
    lan: "2001:db8:a::/64",
};

pub const BOTH: [Party; 2] = [INET, INET6];

impl Party {
    pub fn is6(self) -> bool {
        self.client.is_ipv6()
    }

    /// Where the transport header stands in a packet without extensions.
    pub fn l4(self) -> usize {
        if self.is6() { 40 } else { 20 }
    }

    /// A datagram of the client's.
    pub fn ask(self, port: u16) -> Vec<u8> {
        udp(self.client, self.server, port, 53, b"question")
    }

    /// What the server says to it.
    pub fn answer(self, port: u16) -> Vec<u8> {
        udp(self.server, self.client, 53, port, b"answer")
    }

    /// A segment of the client's to the server's port 80.
    pub fn up(self, port: u16, flags: &str, (seq, ack): (u32, u32), window: u16, len: usize) -> Vec<u8> {
        tcp(self.client, self.server, &header(port, 80, flags, seq, ack, window), &vec![0; len])
    }

    /// A segment of the server's.
    pub fn down(self, port: u16, flags: &str, (seq, ack): (u32, u32), window: u16, len: usize) -> Vec<u8> {
        tcp(self.server, self.client, &header(80, port, flags, seq, ack, window), &vec![0; len])
    }

    /// Rules for IPv4, in the words and addresses of the family.
    pub fn rules(self, inet: &str) -> String {
        let words = [
            (" inet ", " inet6 "),
            ("192.0.2.0/24", "2001:db8:a::/64"),
            ("192.0.2.0/28", "2001:db8:a::/124"),
            ("203.0.113.16/28", "2001:db8:b::10/124"),
            ("203.0.113.1", "2001:db8:b::1"),
            ("192.0.2.80", "2001:db8:a::80"),
            ("192.0.2.9", "2001:db8:a::9"),
        ];
        let other = |text: String, (from, to): (&str, &str)| text.replace(from, to);
        if self.is6() { words.into_iter().fold(inet.to_owned(), other) } else { inet.to_owned() }
    }

    /// An address of the LAN. Of IPv6 the number is written as hexadecimal digits.
    pub fn in_lan(self, host: u8) -> IpAddr {
        if self.is6() { v6(0xa, host.into()) } else { v4([192, 0, 2], host) }
    }

    /// An address and a port as the line of a state shows them.
    pub fn shown(self, address: IpAddr, port: u16) -> String {
        if self.is6() { format!("{address}[{port}]") } else { format!("{address}:{port}") }
    }
}

fn mixed(src: IpAddr, dst: IpAddr) -> ! {
    panic!("{src} and {dst}")
}

pub fn udp(src: IpAddr, dst: IpAddr, from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => build::udp4(src, dst, from, to, data),
        (IpAddr::V6(src), IpAddr::V6(dst)) => build::udp6(src, dst, from, to, data),
        _ => mixed(src, dst),
    }
}

pub fn tcp(src: IpAddr, dst: IpAddr, header: &tcp::Repr, data: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => build::tcp4(src, dst, header, data),
        (IpAddr::V6(src), IpAddr::V6(dst)) => build::tcp6(src, dst, header, data),
        _ => mixed(src, dst),
    }
}

pub fn echo(src: IpAddr, dst: IpAddr, ident: u16) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => build::echo4(src, dst, ident, 1, b"ping"),
        (IpAddr::V6(src), IpAddr::V6(dst)) => build::echo6(src, dst, ident, 1, b"ping"),
        _ => mixed(src, dst),
    }
}

pub fn echo_reply(src: IpAddr, dst: IpAddr, ident: u16) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            build::icmp4(src, dst, &icmpv4::Repr::EchoReply { ident, seq: 1, data: b"ping" })
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            build::icmp6(src, dst, &icmpv6::Repr::EchoReply { ident, seq: 1, data: b"ping" })
        }
        _ => mixed(src, dst),
    }
}

/// Host unreachable: of IPv4 it quotes eight octets behind the header, of IPv6 all that there is room for.
pub fn unreachable(from: IpAddr, to: IpAddr, about: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => super::unreachable(from, to, about),
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let quote = &about[..about.len().min(1232)];
            build::icmp6(from, to, &icmpv6::Repr::Error(icmpv6::Error::Unreachable(3), quote))
        }
        _ => mixed(from, to),
    }
}

/// A packet of any protocol.
pub fn raw(src: IpAddr, dst: IpAddr, proto: IpProto, payload: &[u8]) -> Vec<u8> {
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            build::raw4(ipv4::Repr { src, dst, proto, ..ipv4::Repr::default() }, payload)
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            build::raw6(ipv6::Repr { src, dst, next_header: proto, ..ipv6::Repr::default() }, payload)
        }
        _ => mixed(src, dst),
    }
}

/// Tests that are about both families: each a function of a [`Party`].
#[allow(unused_macros, reason = "each test program uses a part")]
macro_rules! both {
    ($($name:ident)*) => {
        $(
            mod $name {
                #[test]
                fn inet() {
                    super::$name(crate::common::either::INET);
                }

                #[test]
                fn inet6() {
                    super::$name(crate::common::either::INET6);
                }
            }
        )*
    };
}

#[allow(unused_imports, reason = "each test program uses a part")]
pub(crate) use both;
