//! ARP for IPv4 over Ethernet (RFC 826; probes and announcements of RFC 5227). No other hardware, no other protocol.

use core::net::Ipv4Addr;

use crate::{EtherType, Mac, Malformed, ether};

/// Octets of an ARP message for IPv4 over Ethernet.
pub const LEN: usize = 28;

view! {
    /// An ARP message; what follows (padding of short frames) is not looked at.
    Packet
}

fields! { Packet:
    /// Hardware type: 1 is Ethernet.
    u16, hardware, set_hardware @ 0;
    /// Protocol type, as an ethertype.
    EtherType, protocol, set_protocol @ 2;
    /// Octets of a hardware address.
    u8, hardware_len, set_hardware_len @ 4;
    /// Octets of a protocol address.
    u8, protocol_len, set_protocol_len @ 5;
    /// Operation: 1 request, 2 reply.
    u16, operation, set_operation @ 6;
    /// Sender's hardware address.
    Mac, sender_mac, set_sender_mac @ 8;
    /// Sender's protocol address.
    Ipv4Addr, sender_ip, set_sender_ip @ 14;
    /// Target's hardware address.
    Mac, target_mac, set_target_mac @ 18;
    /// Target's protocol address.
    Ipv4Addr, target_ip, set_target_ip @ 24;
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Whether all the fields are there.
    pub fn check_len(&self) -> Result<(), Malformed> {
        if self.octets().len() < LEN { Err(Malformed::Truncated) } else { Ok(()) }
    }
}

/// What an ARP message asks or says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

/// An ARP message for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Request or reply.
    pub operation: Operation,
    /// Who speaks.
    pub sender_mac: Mac,
    /// Whose address that is; unspecified in a probe.
    pub sender_ip: Ipv4Addr,
    /// Who is meant; zero in a request.
    pub target_mac: Mac,
    /// Which address is asked about.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// Reads a message; refuses other hardware and protocols, a sender that is a group, and a sender's address no host can have.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self, Malformed> {
        packet.check_len()?;
        let formats = (packet.hardware(), packet.protocol(), packet.hardware_len(), packet.protocol_len());
        if formats != (1, EtherType::IPV4, 6, 4) {
            return Err(Malformed::Unknown);
        }
        let operation = match packet.operation() {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Malformed::Unknown),
        };
        let (sender_mac, sender_ip) = (packet.sender_mac(), packet.sender_ip());
        if !sender_mac.is_unicast() || sender_ip.is_multicast() || sender_ip.is_broadcast() {
            return Err(Malformed::Address);
        }
        Ok(Self {
            operation,
            sender_mac,
            sender_ip,
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        })
    }

    /// A request for `target`, for everyone.
    pub const fn request(sender_mac: Mac, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Self {
        Self { operation: Operation::Request, sender_mac, sender_ip, target_mac: Mac::ZERO, target_ip }
    }

    /// The answer to a request: `mac` has the target address.
    #[must_use]
    pub const fn reply(&self, mac: Mac) -> Self {
        Self {
            operation: Operation::Reply,
            sender_mac: mac,
            sender_ip: self.target_ip,
            target_mac: self.sender_mac,
            target_ip: self.sender_ip,
        }
    }

    /// Whether this asks if an address is free (RFC 5227, 1.1).
    pub fn is_probe(&self) -> bool {
        self.operation == Operation::Request && self.sender_ip.is_unspecified()
    }

    /// Octets that [`Self::emit`] writes.
    pub const fn buffer_len(&self) -> usize {
        LEN
    }

    /// Writes the message to the front of `out`.
    pub fn emit(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let mut packet = Packet::new_unchecked(out.get_mut(..LEN).ok_or(Malformed::Truncated)?);
        packet.set_hardware(1);
        packet.set_protocol(EtherType::IPV4);
        packet.set_hardware_len(6);
        packet.set_protocol_len(4);
        packet.set_operation(match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        });
        packet.set_sender_mac(self.sender_mac);
        packet.set_sender_ip(self.sender_ip);
        packet.set_target_mac(self.target_mac);
        packet.set_target_ip(self.target_ip);
        Ok(LEN)
    }

    /// Writes a whole frame: a request goes to everyone, a reply to its target.
    pub fn emit_frame(&self, out: &mut [u8]) -> Result<usize, Malformed> {
        let dst = match self.operation {
            Operation::Request => Mac::BROADCAST,
            Operation::Reply => self.target_mac,
        };
        let at = ether::Repr { dst, src: self.sender_mac, tci: None, ethertype: EtherType::ARP }.emit(out)?;
        Ok(at + self.emit(&mut out[at..])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_and_its_reply_survive_emit_and_parse() {
        let request = Repr::request(Mac([2, 0, 0, 0, 0, 1]), [192, 0, 2, 1].into(), [192, 0, 2, 9].into());
        for repr in [request, request.reply(Mac([2, 0, 0, 0, 0, 2]))] {
            let mut out = [0; 60];
            assert_eq!(repr.emit_frame(&mut out), Ok(42));
            assert_eq!(Repr::parse(&Packet::new_checked(&out[14..]).unwrap()), Ok(repr));
        }
    }

    #[test]
    fn a_group_cannot_speak() {
        let mut out = [0; LEN];
        let repr = Repr::request(Mac::BROADCAST, [192, 0, 2, 1].into(), [192, 0, 2, 9].into());
        repr.emit(&mut out).unwrap();
        assert_eq!(Repr::parse(&Packet::new_unchecked(&out)), Err(Malformed::Address));
    }
}
