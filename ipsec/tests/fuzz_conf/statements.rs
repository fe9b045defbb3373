//! Any statement that setkey's language can say, whether anybody can do it or not.

use ipsec::{
    conf::{
        Place, algorithm_words,
        statement::{
            Add, Algorithm, At, Command, DirectionWord, Extension, FlagWord, ModeWord, PolicyAdd, PolicyName,
            Protocol, Request, SaName, Treatment,
        },
    },
    sa::{Df, Fragment, Spi},
    selector::{Addresses, Ports, Prefix, Upper},
    spd::Level,
};
use kern::{secret::SecretBytes, testing::Chance};
use std::{net::IpAddr, sync::Arc};
use wire::IpProto;

const PROTOCOLS: &[Protocol] = &[
    Protocol::Esp,
    Protocol::Esp,
    Protocol::Esp,
    Protocol::EspUdp,
    Protocol::Ah,
    Protocol::Ipcomp,
    Protocol::EspOld,
    Protocol::AhOld,
    Protocol::TcpMd5,
];

fn at<T>(value: T) -> At<T> {
    At { value, place: Place::default() }
}

pub(crate) fn command(random: &mut Chance, key: &[u8]) -> Command {
    match random.below(16) {
        0..=4 => Command::Add(Box::new(add(random, key))),
        5 | 6 => Command::Update(Box::new(add(random, key))),
        7 => Command::Get(sa_name(random)),
        8 => Command::Delete(sa_name(random)),
        9 => Command::DeleteAll { src: address(random), dst: address(random), protocol: protocol(random) },
        10 => Command::Flush(random.is(2).then(|| protocol(random).value)),
        11 => Command::Dump(random.is(2).then(|| protocol(random).value)),
        12 | 13 => Command::SpdAdd(Box::new(policy_add(random))),
        14 => Command::SpdUpdate(Box::new(policy_add(random))),
        _ if random.is(2) => Command::SpdDelete(policy_name(random)),
        _ => random_of(random, &[Command::SpdFlush, Command::SpdDump]),
    }
}

fn random_of<T: Clone>(random: &mut Chance, all: &[T]) -> T {
    all[random.below(all.len())].clone()
}

/// Of few addresses, that statements may be about the same SA.
fn address(random: &mut Chance) -> At<IpAddr> {
    let text = random.one_of(&["10.0.0.1", "10.0.0.2", "192.0.2.1", "::1", "::2", "2001:db8::ffff"]);
    at(text.parse().unwrap())
}

fn port(random: &mut Chance) -> Option<At<u16>> {
    random.is(4).then(|| at(random.one_of(&[4500, 1, u16::MAX, 30_000])))
}

fn protocol(random: &mut Chance) -> At<Protocol> {
    at(random.one_of(PROTOCOLS))
}

fn sa_name(random: &mut Chance) -> SaName {
    SaName {
        src: address(random),
        dst: address(random),
        ports: [port(random), port(random)],
        protocol: protocol(random),
        spi: at(Spi(random.one_of(&[256, 300, 0x1000, 0x1001, u32::MAX]))),
    }
}

fn algorithm(random: &mut Chance, key: &[u8]) -> Algorithm {
    if random.is(6) {
        return Algorithm { name: at("null".to_owned()), key: None };
    }
    let len = random.one_of(&[0, 16, 19, 20, 20, 20, 24, 28, 32, 36, 48, 64]);
    let octets =
        if random.is(4) { random.octets(len) } else { key.iter().cycle().take(len).copied().collect() };
    let key = Some(at(Arc::new(SecretBytes::copy_of(&octets).unwrap())));
    Algorithm { name: at(algorithm_name(random)), key }
}

/// Of an algorithm with a key, whether there is such a one or not.
fn algorithm_name(random: &mut Chance) -> String {
    if random.is(12) {
        return (0..3 + random.below(10)).map(|_| char::from(b'a' + random.below(26) as u8)).collect();
    }
    let words: Vec<_> = algorithm_words().filter(|word| !["null", "simple"].contains(word)).collect();
    random.one_of(&words).to_owned()
}

fn add(random: &mut Chance, key: &[u8]) -> Add {
    Add {
        name: sa_name(random),
        extensions: (0..random.below(6)).map(|_| at(extension(random))).collect(),
        encryption: (!random.is(3)).then(|| algorithm(random, key)),
        authentication: random.is(3).then(|| algorithm(random, key)),
        compression: random.is(6).then(|| Algorithm { name: at("deflate".to_owned()), key: None }),
    }
}

fn number(random: &mut Chance) -> u64 {
    let any = random.next();
    random.one_of(&[0, 1, 7, 1000, u64::from(u32::MAX), u64::MAX - 1, any])
}

fn mode(random: &mut Chance) -> ModeWord {
    random.one_of(&[ModeWord::Tunnel, ModeWord::Tunnel, ModeWord::Transport, ModeWord::Beet])
}

fn extension(random: &mut Chance) -> Extension {
    let n = number(random);
    let (short, small) = (n as u16, n as u8);
    match random.below(30) {
        0 | 1 => Extension::Mode(mode(random)),
        2 => Extension::Mode(ModeWord::Any),
        3 | 4 => Extension::Inner(address(random).value, address(random).value),
        5 => Extension::Reqid(n as u32),
        6 => Extension::Worker(short),
        7 => Extension::Replay(n as u32),
        8 => Extension::Flag(random.one_of(&[
            FlagWord::ZeroPad,
            FlagWord::RandomPad,
            FlagWord::SeqPad,
            FlagWord::NocyclicSeq,
            FlagWord::Align8,
        ])),
        9 => Extension::HardSeconds(n),
        10 => Extension::SoftSeconds(n),
        11 => Extension::HardBytes(n),
        12 => Extension::SoftBytes(n),
        13 => Extension::HardPackets(n),
        14 => Extension::SoftPackets(n),
        15 | 16 => Extension::Esn,
        17 => Extension::Df(random.one_of(&[Df::Copy, Df::Set, Df::Clear])),
        18 => Extension::Fragment(random.one_of(&[Fragment::Before, Fragment::After])),
        19 => Extension::Dscp(small % 64),
        20 => Extension::NoEcn,
        21 => Extension::Ttl(small.max(1)),
        22 => Extension::FlowLabel,
        23 => Extension::Tfc(short),
        24 => Extension::Threshold(short),
        25 => Extension::Sequence(n),
        26 => Extension::Natt(
            [(); 2].map(|()| (address(random).value, random.one_of(&[4500, 1, short.max(1)]))),
        ),
        27 => Extension::NattMtu,
        28 => Extension::Keepalive(short),
        _ => Extension::Context,
    }
}

fn addresses(random: &mut Chance) -> At<Addresses> {
    let host = address(random).value;
    let len = random.below(if host.is_ipv4() { 33 } else { 129 }) as u8;
    let last = address(random).value;
    let span = Addresses::span(host, last).filter(|_| random.is(3));
    at(span.unwrap_or_else(|| Prefix::new(host, len).unwrap().into()))
}

fn ports(random: &mut Chance) -> Option<Ports> {
    let (a, b) = (1 + random.below(u16::MAX), 1 + random.below(u16::MAX));
    random.is(2).then(|| Ports::span(a.min(b), a.max(b)).unwrap())
}

fn upper(random: &mut Chance) -> Upper {
    let any = IpProto(random.next() as u8);
    let (src_port, dst_port) = (ports(random), ports(random));
    match random.below(5) {
        0 if src_port.is_some() || dst_port.is_some() => Upper::Ports { src_port, dst_port },
        0 | 1 => Upper::Any,
        2 => Upper::Proto {
            proto: random.one_of(&[IpProto::TCP, IpProto::UDP, IpProto::SCTP]),
            src_port,
            dst_port,
        },
        3 => Upper::Icmp {
            proto: random.one_of(&[IpProto::ICMP, IpProto::ICMPV6]),
            kind: random.next() as u8,
            code: random.is(2).then(|| random.next() as u8),
        },
        _ => Upper::Proto { proto: any, src_port: None, dst_port: None },
    }
}

fn policy_name(random: &mut Chance) -> PolicyName {
    PolicyName {
        src: addresses(random),
        dst: addresses(random),
        upper: upper(random),
        direction: at(random.one_of(&[DirectionWord::In, DirectionWord::Out, DirectionWord::Fwd])),
    }
}

fn policy_add(random: &mut Chance) -> PolicyAdd {
    let requests = (0..=random.below(4)).map(|_| request(random)).collect();
    PolicyAdd {
        name: policy_name(random),
        priority: random.one_of(&[0, 1, -1, 1 << 30, -(1 << 30), 1 << 31, -(1 << 31), 77]),
        treatment: random_of(random, &[Treatment::None, Treatment::Discard, Treatment::Ipsec(requests)]),
    }
}

fn request(random: &mut Chance) -> Request {
    let ends = (!random.is(4)).then(|| (address(random), address(random)));
    Request {
        protocol: protocol(random),
        mode: at(mode(random)),
        ports: if ends.is_some() { [port(random), port(random)] } else { [None, None] },
        ends,
        level: at(random.one_of(&[
            Level::Default,
            Level::Use,
            Level::Require,
            Level::Unique(1),
            Level::Unique(u32::MAX),
        ])),
    }
}
