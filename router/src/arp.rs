//! ARP (RFC 826; RFC 1122, 2.3.2; RFC 5227): requests for our addresses are answered, what others say of theirs is learned.
//!
//! Learned is what somebody tells who asks for us, and what renews or changes an entry that is there; nothing else becomes
//! an entry, so strangers cannot fill the table. The sender must be in a subnet of the interface. Somebody who claims an address
//! of ours is counted, named in the log and answered with our own announcement, at most every ten seconds (RFC 5227, 2.4 c:
//! a router keeps its address). Not done: proxy ARP, RARP, probing our own IPv4 addresses before use.

use crate::{
    ether,
    iface::{IfAddr, Interface},
    neighbour::{self, Claim, News},
    worker::{Cx, Pending, Stage},
};
use kern::{
    Mbuf, PktFlags, Why,
    lock::{Held, levels::Softnet},
};
use std::net::{IpAddr, Ipv4Addr};
use wire::{
    Mac,
    arp::{Operation, Packet, Repr},
};

/// What to do about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// Somebody has an address of ours.
    conflict: bool,
    /// Answer it.
    reply: bool,
    /// Learn from it, and whether that may make an entry.
    learn: Option<(Claim, bool)>,
}

/// Takes in an ARP message; data begin at its first octet. A reply is made in the same buffer.
pub(crate) fn arp_input(cx: &mut Cx<'_>, held: &mut Held<'_, Softnet>, m: Mbuf, out: &mut Pending) {
    let net = cx.net;
    let Some(interface) = net.interface(m.hdr().rcvif) else { return cx.end(m, Why::IfDetached) };
    let Ok(message) = Repr::parse(&Packet::new_unchecked(m.data())) else {
        return cx.end(m, Why::ArpMalformed);
    };
    let verdict = match judge(&message, interface.mac, &interface.addrs) {
        Ok(verdict) => verdict,
        Err(why) => return cx.end(m, why),
    };
    if let Some((claim, create)) = verdict.learn {
        let news = News {
            interface: interface.index.0,
            addr: IpAddr::V4(message.sender_ip),
            mac: Some(message.sender_mac),
            claim,
            create,
        };
        neighbour::learn(cx, held, news, out);
    }
    if verdict.conflict {
        conflict(cx, held, interface, &message, out);
    }
    if verdict.reply {
        reply(cx, interface, m, &message, out);
    } else {
        cx.end(m, Why::ArpDone);
    }
}

fn judge(message: &Repr, own: Mac, addrs: &[IfAddr]) -> Result<Verdict, Why> {
    let ours = |addr: Ipv4Addr| addrs.iter().any(|a| a.addr == IpAddr::V4(addr));
    let asks = message.operation == Operation::Request;
    let (sender, target) = (message.sender_ip, message.target_ip);
    let for_us = ours(target);
    let nothing = Verdict { conflict: false, reply: false, learn: None };
    if message.sender_mac == own {
        return Ok(nothing);
    }
    if sender.is_unspecified() {
        return Ok(Verdict { reply: asks && for_us, ..nothing });
    }
    if ours(sender) {
        return Ok(Verdict { conflict: true, reply: asks && for_us && sender != target, ..nothing });
    }
    if !addrs.iter().any(|a| is_host_of(a, sender)) {
        return Err(Why::ArpSource);
    }
    let claim =
        if asks { Claim::Source } else { Claim::Advert { solicited: for_us, overrides: true, router: None } };
    Ok(Verdict { conflict: false, reply: asks && for_us, learn: Some((claim, asks && for_us)) })
}

/// Whether an address is one that a host of this subnet may have: not the subnet's own, not its broadcast.
fn is_host_of(subnet: &IfAddr, host: Ipv4Addr) -> bool {
    let IpAddr::V4(_) = subnet.addr else { return false };
    let bits = host.to_bits() & u32::MAX.checked_shr(subnet.len.into()).unwrap_or(0);
    let reserved = bits == 0 || bits == u32::MAX.checked_shr(subnet.len.into()).unwrap_or(0);
    subnet.contains(IpAddr::V4(host)) && (subnet.len >= 31 || !reserved)
}

/// Turns a request into its reply, in its own buffer.
fn reply(cx: &mut Cx<'_>, interface: &Interface, mut m: Mbuf, request: &Repr, out: &mut Pending) {
    let Ok(len) = request.reply(interface.mac).emit(m.data_mut()) else {
        return cx.end(m, Why::ArpMalformed);
    };
    m.truncate(len);
    let h = m.hdr_mut();
    h.family = 0;
    h.egress = interface.index.0;
    h.flags = PktFlags::ORIGIN;
    if let Some(m) = ether::frame(cx, interface, m, request.sender_mac) {
        cx.stats.count.arp_replies_sent.inc();
        out.push(Stage::EtherOutput, m, &cx.stats.ledger);
    }
}

/// Somebody uses an address of ours.
fn conflict(
    cx: &mut Cx<'_>,
    held: &mut Held<'_, Softnet>,
    interface: &Interface,
    message: &Repr,
    out: &mut Pending,
) {
    cx.stats.count.dad_conflicts.inc();
    let may_speak = {
        let (mut links, _held) = held.lock(&cx.shared.neighbours.links);
        links.may_defend(interface.index.0, cx.now)
    };
    if may_speak {
        let (addr, mac) = (message.sender_ip, message.sender_mac);
        tracing::warn!(interface = &*interface.name, %addr, %mac, "another station uses our address");
        announce(cx, interface, addr, out);
    }
}

/// Tells everyone on the link that an address is ours (RFC 5227, 2.3).
pub(crate) fn announce(cx: &mut Cx<'_>, interface: &Interface, addr: Ipv4Addr, out: &mut Pending) {
    let Some(m) = cx.new_packet() else { return };
    let message = Repr::request(interface.mac, addr, addr);
    if let Some(m) = neighbour::own_frame(cx, interface, m, 0, Mac::BROADCAST, |to| message.emit(to)) {
        cx.stats.count.arp_requests_sent.inc();
        out.push(Stage::EtherOutput, m, &cx.stats.ledger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OUR_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
    const PEER_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
    const THIRD_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

    fn subnet(len: u8) -> [IfAddr; 1] {
        [IfAddr { addr: OUR_IP.into(), len }]
    }

    fn hear(message: &Repr) -> Result<Verdict, Why> {
        judge(message, OWN, &subnet(24))
    }

    const SOLICITED: Claim = Claim::Advert { solicited: true, overrides: true, router: None };
    const GRATUITOUS: Claim = Claim::Advert { solicited: false, overrides: true, router: None };

    #[test]
    fn who_asks_for_us_is_answered_and_learned() {
        let request = Repr::request(PEER, PEER_IP, OUR_IP);
        let wanted = Verdict { conflict: false, reply: true, learn: Some((Claim::Source, true)) };
        assert_eq!(hear(&request), Ok(wanted));
    }

    #[test]
    fn who_asks_for_another_only_renews_what_we_know() {
        let request = Repr::request(PEER, PEER_IP, THIRD_IP);
        let wanted = Verdict { conflict: false, reply: false, learn: Some((Claim::Source, false)) };
        assert_eq!(hear(&request), Ok(wanted));
    }

    #[test]
    fn an_answer_to_us_counts_as_asked_for_and_a_gratuitous_one_does_not() {
        let reply = Repr::request(OWN, OUR_IP, PEER_IP).reply(PEER);
        let wanted = Verdict { conflict: false, reply: false, learn: Some((SOLICITED, false)) };
        assert_eq!(hear(&reply), Ok(wanted));
        let gratuitous = Repr { target_ip: PEER_IP, ..reply };
        assert_eq!(hear(&gratuitous).unwrap().learn, Some((GRATUITOUS, false)));
    }

    #[test]
    fn a_probe_is_answered_and_teaches_nothing() {
        let probe = Repr::request(PEER, Ipv4Addr::UNSPECIFIED, OUR_IP);
        assert_eq!(hear(&probe), Ok(Verdict { conflict: false, reply: true, learn: None }));
        let other = Repr::request(PEER, Ipv4Addr::UNSPECIFIED, THIRD_IP);
        assert_eq!(hear(&other), Ok(Verdict { conflict: false, reply: false, learn: None }));
    }

    #[test]
    fn who_speaks_with_our_address_is_a_conflict_and_teaches_nothing() {
        for message in [
            Repr::request(PEER, OUR_IP, OUR_IP),
            Repr::request(PEER, OUR_IP, THIRD_IP),
            Repr::request(OWN, THIRD_IP, OUR_IP).reply(PEER),
        ] {
            let verdict = hear(&message).unwrap();
            assert!(verdict.conflict && !verdict.reply && verdict.learn.is_none(), "{message:?}");
        }
        assert!(!hear(&Repr::request(OWN, OUR_IP, OUR_IP)).unwrap().conflict, "our own, come back");
    }

    #[test]
    fn a_sender_that_is_no_host_of_the_link_is_refused() {
        for sender in ["198.51.100.1", "192.0.2.0", "192.0.2.255"] {
            let request = Repr::request(PEER, sender.parse().unwrap(), OUR_IP);
            assert_eq!(hear(&request), Err(Why::ArpSource), "{sender}");
        }
        let zero = Repr::request(PEER, Ipv4Addr::new(192, 0, 2, 0), OUR_IP);
        assert!(judge(&zero, OWN, &subnet(31)).is_ok(), "RFC 3021: both addresses of a /31 are hosts");
        assert_eq!(judge(&zero, OWN, &subnet(32)), Err(Why::ArpSource));
        assert_eq!(judge(&zero, OWN, &[]), Err(Why::ArpSource));
    }
}
