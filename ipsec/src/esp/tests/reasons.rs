//! Every drop counts under the protocol of the SA that dropped it.

use super::{
    modes::{aead, ah, arrived, ipcomp, sa_of},
    *,
};
use crate::transform::Auth;

/// A reason is the SA's own, or of the buffer.
pub(super) fn check(protocol: Protocol, why: Why) {
    let group = why.path().split('.').next().unwrap();
    assert!([protocol.name(), "mbuf"].contains(&group), "{} for an SA of {}", why.path(), protocol.name());
}

/// An SA of each protocol in tunnel mode.
fn tunnels() -> [SaConfig; 3] {
    [
        sa_of(Protocol::Esp, Mode::Tunnel, aead(), false),
        ah(Mode::Tunnel, Auth::HmacSha256, false),
        ipcomp(Mode::Tunnel, false),
    ]
}

fn peers(sa: &SaConfig) -> Peers {
    Peers::new(sa, [Engine::Auto; 2])
}

#[test]
fn a_fragment_in_transport_mode_counts_under_the_protocol() {
    let whys = [Why::EspTransport, Why::AhTransport, Why::IpcompTransport];
    for (sa, why) in tunnels().into_iter().zip(whys) {
        let mut peers = peers(&SaConfig { mode: Mode::Transport, ..sa });
        assert!(peers.wire(&[v4_with(100, ipv4::Repr { frag: 0x2000, ..Default::default() })]).is_empty());
        assert_eq!(peers.ended(), [(why, 1)]);
    }
}

#[test]
fn what_is_no_packet_or_too_long_or_unfinished_counts_under_the_protocol() {
    let whys = [
        [Why::EspProtocol, Why::EspTooBig],
        [Why::AhProtocol, Why::AhTooBig],
        [Why::IpcompProtocol, Why::IpcompTooBig],
    ];
    for (sa, [protocol, too_big]) in tunnels().into_iter().zip(whys) {
        let mut peers = peers(&sa);
        assert!(peers.wire(&[vec![0x20; 100]]).is_empty());
        assert_eq!(peers.ended(), [(protocol, 1)]);
        // What does not shrink, for IPComp.
        let noise = kern::testing::Chance::seeded(0x2013).octets(65_530 - 20);
        let wire = peers.wire(&[build::raw4(ipv4::Repr::default(), &noise)]);
        assert_eq!((wire.len(), peers.ended()), (0, vec![(too_big, 1)]));
    }
}

#[test]
fn an_sa_past_its_hard_lifetime_refuses_both_ways_under_its_protocol() {
    for (sa, why) in tunnels().into_iter().zip([Why::EspLifetime, Why::AhLifetime, Why::IpcompLifetime]) {
        let mut peers = peers(&SaConfig { hard: Lifetime { seconds: Some(10), ..sa.hard }, ..sa });
        let wire = peers.wire(&[v4(100)]);
        peers.now = Instant::from_secs(12);
        assert!(peers.open_bytes(&wire).is_empty() && peers.wire(&[v4(100)]).is_empty());
        assert_eq!(peers.ended(), [(why, 2)]);
        let status = peers.sender.status(&mut peers.root.top());
        assert_eq!((status.sent_refused.expired, status.sent_refused.other), (1, 0));
    }
}

#[test]
fn the_end_of_the_numbers_counts_under_the_protocol() {
    for (sa, why) in tunnels().into_iter().zip([Why::EspSequence, Why::AhSequence]) {
        let mut peers = peers(&sa);
        peers.sender.set_next_sequence(&mut peers.root.top(), u64::from(u32::MAX));
        assert_eq!(peers.wire(&[v4(100), v4(100)]).len(), 1);
        assert!(peers.wire(&[v4(100)]).is_empty());
        assert_eq!(peers.ended(), [(why, 2)]);
        assert_eq!(peers.sender.status(&mut peers.root.top()).sent_refused.expired, 2);
    }
}

#[test]
fn congestion_marked_outside_only_counts_under_the_protocol() {
    for (sa, why) in tunnels().into_iter().zip([Why::EspEcn, Why::AhEcn, Why::IpcompEcn]) {
        let mut peers = peers(&sa);
        let mut wire = peers.wire(&[v4(400)]);
        // The outer class is mutable: AH does not cover it.
        wire[0][1] |= 0b11;
        wire[0][10..12].fill(0);
        let sum = wire::checksum::finish(wire::checksum::sum(&wire[0][..20]));
        wire[0][10..12].copy_from_slice(&sum.to_be_bytes());
        assert!(peers.open_bytes(&wire).is_empty());
        assert_eq!(peers.ended(), [(why, 1)]);
    }
}

#[test]
fn upper_layers_that_a_tunnel_does_not_carry_count_under_the_protocol() {
    // What a transport SA of the same key sealed.
    for (sa, why) in tunnels().into_iter().zip([Why::EspProtocol, Why::AhProtocol, Why::IpcompProtocol]) {
        let wire = peers(&SaConfig { mode: Mode::Transport, ..sa.clone() }).wire(&[v4(400)]);
        let mut peers = peers(&sa);
        assert!(peers.open_bytes(&wire).is_empty());
        assert_eq!(peers.ended(), [(why, 1)]);
    }
}

#[test]
fn a_version_that_is_not_what_the_header_says_counts_under_the_protocol() {
    // Of a tunnel that says IPv4 and has IPv6 in it; AH is over the packet, so only the sender's key can say so.
    let sa = ah(Mode::Transport, Auth::HmacSha256, false);
    let inner = v6(100);
    let lying = build::raw4(ipv4::Repr { proto: IpProto::IPV4, ..Default::default() }, &inner);
    let wire = peers(&sa).wire(std::slice::from_ref(&lying));
    let mut tunnel = peers(&SaConfig { mode: Mode::Tunnel, ..sa });
    assert!(tunnel.open_bytes(&wire).is_empty());
    assert_eq!(tunnel.ended(), [(Why::AhInner, 1)]);
    drop(tunnel);
    let mut tunnel = peers(&ipcomp(Mode::Tunnel, false));
    let m = arrived(&tunnel, &lying);
    let mut run = Batch::new();
    run.push(m).unwrap();
    assert!(tunnel.receive_run(&mut run).is_empty());
    assert_eq!(tunnel.ended(), [(Why::IpcompInner, 1)]);
}

#[test]
fn only_esp_takes_a_packet_without_an_upper_layer_for_a_dummy() {
    let bare = build::raw6(ipv6::Repr { next_header: IpProto::NO_NEXT, ..Default::default() }, &[0; 200]);
    for sa in [ah(Mode::Transport, Auth::HmacSha256, true), ipcomp(Mode::Transport, true)] {
        let mut peers = peers(&sa);
        let wire = peers.wire(std::slice::from_ref(&bare));
        assert!(wire[0] != bare, "it was protected");
        assert_eq!(peers.open_bytes(&wire), std::slice::from_ref(&bare));
        assert_eq!(peers.ended(), []);
    }
}
