//! What is said about the databases of IPsec, in the language of setkey(8).

use super::{
    report::{PolicyReport, SaReport},
    secret::SecretText,
};
use ipsec::{
    conf::SaId,
    sa::SaConfig,
    spd::{Level, Wanted},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Statements to carry out on the running router: all of them, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Statements {
    /// What messages call the text.
    pub file: String,
    /// The text.
    pub text: SecretText,
    /// Check only.
    #[serde(default)]
    pub check: bool,
}

/// What came of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SetkeyReport {
    /// Answers to `get`, `dump` and `spddump`, in order.
    pub answers: Vec<SetkeyAnswer>,
    /// What can be done but is probably not meant, of all that is configured now.
    pub warnings: Vec<String>,
    /// SAs there are now.
    pub sas: usize,
    /// Policies there are now.
    pub policies: usize,
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetkeyAnswer {
    /// `get`, `dump`.
    Sas(Vec<SaReport>),
    /// `spddump`.
    Policies(Vec<PolicyReport>),
}

/// `get-spi`: an SPI for an SA that comes to us (SADB_GETSPI of RFC 2367).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GetSpi {
    /// The peer.
    pub src: IpAddr,
    /// Us.
    pub dst: IpAddr,
    /// `esp`, `ah` or `ipcomp`.
    pub proto: String,
    /// The lowest that will do; 256 if absent.
    #[serde(default)]
    pub min: Option<u32>,
    /// The highest that will do.
    #[serde(default)]
    pub max: Option<u32>,
}

/// What an SA is called by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaName {
    /// Source.
    pub src: IpAddr,
    /// Destination.
    pub dst: IpAddr,
    /// `esp`, `ah` or `ipcomp`.
    pub proto: String,
    /// Security parameters index.
    pub spi: u32,
    /// Its tie to policies.
    #[serde(default)]
    pub reqid: u32,
}

impl SaName {
    /// Of an SA.
    pub fn new(config: &SaConfig) -> SaName {
        SaName { reqid: config.reqid, ..SaName::from(&SaId::from(config)) }
    }
}

impl From<&SaId> for SaName {
    fn from(id: &SaId) -> SaName {
        SaName { src: id.src, dst: id.dst, proto: id.protocol.name().to_owned(), spi: id.spi.0, reqid: 0 }
    }
}

/// A packet of a policy that protects found no SA.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Acquire {
    /// The number of the policy (`setkey -DP`).
    pub policy: u32,
    /// `esp`, `ah` or `ipcomp`.
    pub proto: String,
    /// `tunnel`, `transport` or `beet`.
    pub mode: String,
    /// Source of the SA that is wanted.
    pub src: IpAddr,
    /// Its destination.
    pub dst: IpAddr,
    /// In BEET mode, source and destination of the packets it must be for: its `-inner`.
    #[serde(default)]
    pub inner: Option<(IpAddr, IpAddr)>,
    /// The `-u` it must have; 0 if any will do.
    pub reqid: u32,
    /// The `-pcpu-num` it must have: that worker has none of its own, and others have.
    pub worker: Option<u16>,
    /// Source of the packet.
    pub packet_src: IpAddr,
    /// Destination of the packet.
    pub packet_dst: IpAddr,
    /// Its protocol's number; 255, as NetBSD has for any, if it can not be seen.
    pub packet_proto: u8,
    /// Its ports, or ICMP type and code, if they can be seen.
    pub packet_ports: Option<(u16, u16)>,
}

impl Acquire {
    /// What was wanted, by which packet.
    pub fn new(wanted: &Wanted, packet: (IpAddr, IpAddr), proto: u8, ports: Option<(u16, u16)>) -> Acquire {
        Acquire {
            policy: wanted.policy,
            proto: wanted.request.protocol.name().to_owned(),
            mode: wanted.request.mode.name().to_owned(),
            src: wanted.src,
            dst: wanted.dst,
            inner: wanted.inner,
            reqid: match wanted.request.level {
                Level::Unique(id) => id,
                _ => 0,
            },
            worker: wanted.worker,
            packet_src: packet.0,
            packet_dst: packet.1,
            packet_proto: proto,
            packet_ports: ports,
        }
    }
}

/// Something that happened to the databases: what `setkey -x` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SaEvent {
    /// An SPI was given away.
    Larval(SaName),
    /// An SA was added.
    Add(SaName),
    /// An SA was changed.
    Update(SaName),
    /// An SA was deleted.
    Delete(SaName),
    /// An SA's life goes to its end, or is there.
    Expire {
        /// Which.
        sa: SaName,
        /// Whether it is gone; else a successor is wanted.
        hard: bool,
        /// `bytes`, `packets`, `seconds` or `sequence`.
        cause: String,
        /// Packets it has carried.
        packets: u64,
        /// Their octets.
        bytes: u64,
    },
    /// An SA is wanted.
    Acquire(Acquire),
    /// The client was too slow.
    Lost {
        /// So many events before this were not told.
        events: u64,
    },
}

impl SaEvent {
    /// A line for people.
    pub fn text(&self) -> String {
        let name =
            |sa: &SaName| format!("{} {} {} spi={:#x} reqid={}", sa.src, sa.dst, sa.proto, sa.spi, sa.reqid);
        match self {
            SaEvent::Larval(sa) => format!("larval {}", name(sa)),
            SaEvent::Add(sa) => format!("add {}", name(sa)),
            SaEvent::Update(sa) => format!("update {}", name(sa)),
            SaEvent::Delete(sa) => format!("delete {}", name(sa)),
            SaEvent::Expire { sa, hard, cause, packets, bytes } => {
                let kind = if *hard { "hard" } else { "soft" };
                format!("expire {kind} {} by {cause}, {packets} packets, {bytes} bytes", name(sa))
            }
            SaEvent::Acquire(a) => {
                let ports = a.packet_ports.map_or_else(String::new, |(src, dst)| format!(" {src} {dst}"));
                let inner = a.inner.map_or_else(String::new, |(src, dst)| format!(" inner {src} {dst}"));
                let worker = a.worker.map_or_else(String::new, |n| format!(" pcpu-num {n}"));
                format!(
                    "acquire {} {} {}/{}{inner} reqid={}{worker} policy={} for {} {} proto {}{ports}",
                    a.src,
                    a.dst,
                    a.proto,
                    a.mode,
                    a.reqid,
                    a.policy,
                    a.packet_src,
                    a.packet_dst,
                    a.packet_proto
                )
            }
            SaEvent::Lost { events } => format!("lost {events} events"),
        }
    }
}
