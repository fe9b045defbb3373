//! What neighbour discovery messages ask of us and tell us, on one interface.

use super::*;
use crate::{
    iface::{IfAddr, Kind, driver::Caps},
    route::IfIndex,
};
use wire::icmpv6;

const OWN: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 2]);

fn interface(advertises: bool) -> Interface {
    Interface {
        index: IfIndex(3),
        name: "lan0".into(),
        kind: Kind::Vlan { parent: IfIndex(1), tag: 7 },
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        addrs: vec![IfAddr { addr: IpAddr::V6(OWN), len: 64 }],
        ifq: None,
        caps: Caps::default(),
        queues: 1,
        advertises: advertises.then(crate::conf::Advertise::default),
    }
}

fn with_message<R>(repr: &Repr<'_>, src: Ipv6Addr, dst: Ipv6Addr, look: impl FnOnce(&Message<'_>) -> R) -> R {
    let mut packet = [0; 500];
    let n = repr.emit_packet(&mut packet, src, dst).unwrap();
    assert_eq!(packet[40], repr.body_kind());
    look(&nd::parse(&packet[40..n], src, dst, 255).unwrap())
}

trait Kinded {
    fn body_kind(&self) -> u8;
}

impl Kinded for Repr<'_> {
    fn body_kind(&self) -> u8 {
        match self.body {
            Body::RouterSolicit => icmpv6::kind::ROUTER_SOLICIT,
            Body::RouterAdvert(_) => icmpv6::kind::ROUTER_ADVERT,
            Body::NeighborSolicit { .. } => icmpv6::kind::NEIGHBOR_SOLICIT,
            Body::NeighborAdvert { .. } => icmpv6::kind::NEIGHBOR_ADVERT,
            Body::Redirect { .. } => icmpv6::kind::REDIRECT,
        }
    }
}

#[test]
fn we_are_in_the_groups_of_a_router_and_of_our_own_addresses() {
    let interface = interface(false);
    for group in ["ff02::1", "ff02::2", "ff05::2", "ff02::1:ff00:1"] {
        assert!(is_joined(&interface, group.parse().unwrap()), "{group}");
    }
    for group in ["ff02::3", "ff05::1", "ff02::1:ff00:2", "ff02::fb"] {
        assert!(!is_joined(&interface, group.parse().unwrap()), "{group}");
    }
    assert!(is_joined4(Ipv4Addr::new(224, 0, 0, 2)) && !is_joined4(Ipv4Addr::new(224, 0, 0, 5)));
}

#[test]
fn a_solicitation_for_us_is_answered_and_its_sender_learned() {
    let interface = interface(false);
    let repr = Repr { body: Body::NeighborSolicit { target: OWN }, options: &[NdOption::SourceMac(MAC)] };
    with_message(&repr, PEER, ipv6::solicited_node(OWN), |message| {
        assert_eq!(wanted(&interface, message, PEER), Request::Advertise { target: OWN, to: PEER });
        let news = news(&interface, message, PEER).unwrap();
        assert_eq!((news.addr, news.mac, news.create), (IpAddr::V6(PEER), Some(MAC), true));
    });
}

#[test]
fn a_solicitation_for_another_asks_nothing_and_makes_no_entry() {
    let interface = interface(false);
    let target = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 1, 0, 1);
    let repr = Repr { body: Body::NeighborSolicit { target }, options: &[NdOption::SourceMac(MAC)] };
    with_message(&repr, PEER, ipv6::solicited_node(target), |message| {
        assert_eq!(wanted(&interface, message, PEER), Request::Nothing);
        assert!(!news(&interface, message, PEER).unwrap().create);
    });
}

#[test]
fn a_group_address_is_nobodys_link_layer_address() {
    let interface = interface(false);
    let group = [NdOption::SourceMac(Mac::BROADCAST)];
    let repr = Repr { body: Body::NeighborSolicit { target: OWN }, options: &group };
    with_message(&repr, PEER, OWN, |message| assert!(news(&interface, message, PEER).is_none()));
    let body = Body::NeighborAdvert { router: false, solicited: true, override_: true, target: PEER };
    let repr = Repr { body, options: &[NdOption::TargetMac(Mac::BROADCAST)] };
    with_message(&repr, PEER, OWN, |message| assert!(news(&interface, message, PEER).is_none()));
}

#[test]
fn an_advertisement_of_our_own_address_is_a_conflict_and_of_anothers_is_news() {
    let interface = interface(false);
    let advert = |target| Body::NeighborAdvert { router: true, solicited: false, override_: true, target };
    let options = [NdOption::TargetMac(MAC)];
    with_message(&Repr { body: advert(OWN), options: &options }, OWN, ipv6::ALL_NODES, |message| {
        assert_eq!(wanted(&interface, message, OWN), Request::Conflict { target: OWN });
        assert!(news(&interface, message, OWN).is_none());
    });
    with_message(&Repr { body: advert(PEER), options: &options }, PEER, ipv6::ALL_NODES, |message| {
        assert_eq!(wanted(&interface, message, PEER), Request::Nothing);
        let news = news(&interface, message, PEER).unwrap();
        let claim = Claim::Advert { solicited: false, overrides: true, router: Some(true) };
        assert_eq!((news.addr, news.claim, news.create), (IpAddr::V6(PEER), claim, false));
    });
}

#[test]
fn routers_are_told_of_only_where_the_configuration_says_so() {
    let repr = Repr { body: Body::RouterSolicit, options: &[NdOption::SourceMac(MAC)] };
    with_message(&repr, PEER, ipv6::ALL_ROUTERS, |message| {
        assert_eq!(wanted(&interface(false), message, PEER), Request::Nothing);
        assert_eq!(wanted(&interface(true), message, PEER), Request::AdvertiseRouter { to: PEER });
        assert!(news(&interface(false), message, PEER).unwrap().create);
    });
}
