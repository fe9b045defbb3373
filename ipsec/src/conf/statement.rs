//! What an ipsec.conf can say: the statements of setkey(8), as written, whether this router can do it or not.

use super::lex::Place;
use crate::{
    sa::{self, Df, Fragment, Spi},
    selector::{Addresses, Upper},
    spd::Level,
};
use kern::secret::SecretBytes;
use std::{net::IpAddr, sync::Arc};

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub place: Place,
}

impl<T> At<T> {
    pub(super) fn new(value: T, place: Place) -> At<T> {
        At { value, place }
    }
}

/// A security protocol by its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum Protocol {
    Esp,
    EspOld,
    EspUdp,
    Ah,
    AhOld,
    Ipcomp,
    TcpMd5,
}

impl Protocol {
    pub(super) const ALL: [(&'static str, Protocol); 7] = [
        ("esp", Protocol::Esp),
        ("esp-old", Protocol::EspOld),
        ("esp-udp", Protocol::EspUdp),
        ("ah", Protocol::Ah),
        ("ah-old", Protocol::AhOld),
        ("ipcomp", Protocol::Ipcomp),
        ("tcp", Protocol::TcpMd5),
    ];

    /// The protocol whose SAs it names; `None` for what is none of IPsec's, or no longer.
    pub const fn ipsec(self) -> Option<sa::Protocol> {
        match self {
            Protocol::Esp | Protocol::EspUdp => Some(sa::Protocol::Esp),
            Protocol::Ah => Some(sa::Protocol::Ah),
            Protocol::Ipcomp => Some(sa::Protocol::Ipcomp),
            Protocol::EspOld | Protocol::AhOld | Protocol::TcpMd5 => None,
        }
    }

    /// The word.
    pub fn name(self) -> &'static str {
        Protocol::ALL.iter().find(|(_, p)| *p == self).map_or("?", |(name, _)| name)
    }
}

/// Which SA: `src dst protocol spi`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaName {
    /// Source.
    pub src: At<IpAddr>,
    /// Destination.
    pub dst: At<IpAddr>,
    /// UDP ports of source and destination, where they are said.
    pub ports: [Option<At<u16>>; 2],
    /// Protocol.
    pub protocol: At<Protocol>,
    /// SPI.
    pub spi: At<Spi>,
}

/// `-m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum ModeWord {
    Transport,
    Tunnel,
    Beet,
    Any,
}

/// `-f`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum FlagWord {
    ZeroPad,
    RandomPad,
    SeqPad,
    NocyclicSeq,
    Align8,
}

/// What stands between the SPI and the algorithms of an `add`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extension {
    /// `-m mode`.
    Mode(ModeWord),
    /// `-inner src dst`: ours, for BEET mode.
    Inner(IpAddr, IpAddr),
    /// `-u id`.
    Reqid(u32),
    /// `-pcpu-num worker`: ours, after iproute2's.
    Worker(u16),
    /// `-r bytes` of bitmap, eight packets each.
    Replay(u32),
    /// `-f flag`.
    Flag(FlagWord),
    /// `-lh seconds`.
    HardSeconds(u64),
    /// `-ls seconds`.
    SoftSeconds(u64),
    /// `-bh bytes`.
    HardBytes(u64),
    /// `-bs bytes`.
    SoftBytes(u64),
    /// `-ph packets`: ours.
    HardPackets(u64),
    /// `-ps packets`: ours.
    SoftPackets(u64),
    /// `-esn`, FreeBSD's.
    Esn,
    /// `-df copy|set|clear`: ours, as those that follow.
    Df(Df),
    /// `-frag before|after`: ours.
    Fragment(Fragment),
    /// `-dscp number`.
    Dscp(u8),
    /// `-noecn`.
    NoEcn,
    /// `-ttl hops`.
    Ttl(u8),
    /// `-flow-label`.
    FlowLabel,
    /// `-tfc octets`.
    Tfc(u16),
    /// `-threshold octets`.
    Threshold(u16),
    /// `-seq number`.
    Sequence(u64),
    /// `-natt oai[sport] oar[dport]`, FreeBSD's: original addresses and UDP ports of source and destination.
    Natt([(IpAddr, u16); 2]),
    /// `-natt_mtu octets`, FreeBSD's.
    NattMtu,
    /// `-keepalive seconds`: ours.
    Keepalive(u16),
    /// `-ctx doi algorithm "name"`.
    Context,
}

/// An algorithm by name, with its key if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Algorithm {
    /// The name as written.
    pub name: At<String>,
    /// The key.
    pub key: Option<At<Arc<SecretBytes>>>,
}

/// `add` and `update`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Add {
    /// Which SA.
    pub name: SaName,
    /// Extensions in order.
    pub extensions: Vec<At<Extension>>,
    /// `-E`.
    pub encryption: Option<Algorithm>,
    /// `-A`.
    pub authentication: Option<Algorithm>,
    /// `-C`.
    pub compression: Option<Algorithm>,
}

/// `-P`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are what they are called")]
pub enum DirectionWord {
    In,
    Out,
    Fwd,
}

/// Which policy: `src_range dst_range upperspec -P direction`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyName {
    /// Source.
    pub src: At<Addresses>,
    /// Destination.
    pub dst: At<Addresses>,
    /// Upper layer.
    pub upper: Upper,
    /// Direction.
    pub direction: At<DirectionWord>,
}

/// One `protocol/mode/src-dst/level`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Protocol.
    pub protocol: At<Protocol>,
    /// Mode.
    pub mode: At<ModeWord>,
    /// Ends of the tunnel.
    pub ends: Option<(At<IpAddr>, At<IpAddr>)>,
    /// UDP ports of the ends, where they are said.
    pub ports: [Option<At<u16>>; 2],
    /// Level.
    pub level: At<Level>,
}

/// What a policy does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// `none`.
    None,
    /// `discard`.
    Discard,
    /// `ipsec request ...`.
    Ipsec(Vec<Request>),
}

/// `spdadd` and `spdupdate`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyAdd {
    /// Which policy.
    pub name: PolicyName,
    /// `priority`: higher comes first.
    pub priority: i64,
    /// What it does.
    pub treatment: Treatment,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `add`.
    Add(Box<Add>),
    /// `update`: SADB_UPDATE of RFC 2367.
    Update(Box<Add>),
    /// `get`.
    Get(SaName),
    /// `delete`.
    Delete(SaName),
    /// `deleteall`.
    DeleteAll {
        /// Source.
        src: At<IpAddr>,
        /// Destination.
        dst: At<IpAddr>,
        /// Protocol.
        protocol: At<Protocol>,
    },
    /// `flush`.
    Flush(Option<Protocol>),
    /// `dump`.
    Dump(Option<Protocol>),
    /// `spdadd`.
    SpdAdd(Box<PolicyAdd>),
    /// `spdupdate`.
    SpdUpdate(Box<PolicyAdd>),
    /// `spddelete`.
    SpdDelete(PolicyName),
    /// `spdflush`.
    SpdFlush,
    /// `spddump`.
    SpdDump,
    /// `exit`, `quit`, `bye`: what follows is not read.
    Exit,
}
