//! What is said over the control socket: one JSON object a line, each in an envelope that names the version of this
//! language. Answers are values; what the BSD tools would print of them is for the client to format (`cli`), except where
//! the crates `pf` and `altq` already print a line as pfctl does: such answers carry `text`.
//!
//! ```text
//!   client ── {"v":1,"body":"mbuf"} ──────────────────────────►  router
//!          ◄─ {"v":1,"body":{"mbuf":{...}}} ──────────────────
//!   client ── {"v":1,"body":{"ping":{...}}} ──────────────────►
//!          ◄─ {"v":1,"body":{"echo":{...}}} ──────────────────   as often as it takes
//!          ◄─ {"v":1,"body":"end"} ───────────────────────────
//! ```

pub use super::report::{
    ClassReport, EchoReport, InterfaceReport, MbufReport, NeighbourReport, PacketReport, PathReport,
    PfInfoReport, PolicyReport, QueueReport, RouteReport, RuleCounters, RuleReport, SaReport, SaUse, Stat,
    StateReport, StatsReport, StatusReport,
};

use super::{
    capture::{CaptureReport, CaptureRequest, FrameReport, TapReport},
    pf::{PfAnswer, PfRequest},
    setkey::{GetSpi, SaEvent, SaName, SetkeyReport, Statements},
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The version of this language.
pub const VERSION: u32 = 1;

/// A line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope<T> {
    /// [`VERSION`].
    pub v: u32,
    /// What is said.
    pub body: T,
}

impl<T> Envelope<T> {
    /// In this version.
    pub fn new(body: T) -> Self {
        Envelope { v: VERSION, body }
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Who are you?
    Status,
    /// Read the configuration again.
    Reload,
    /// Drain, audit and exit.
    Stop,
    /// Buffers: `netstat -m`.
    Mbuf,
    /// Interfaces: `netstat -i`.
    Interfaces,
    /// Routes: `netstat -r`.
    Routes,
    /// Counters: `netstat -s`.
    Stats,
    /// Neighbours: `netstat -n`.
    Neighbours,
    /// Security associations: `setkey -D`.
    Sas,
    /// Security policies: `setkey -DP`.
    Policies,
    /// Statements in the language of setkey(8).
    Setkey(Statements),
    /// An SPI that nobody has. Answered by [`Response::Spi`].
    GetSpi(GetSpi),
    /// Events of the databases of IPsec: `setkey -x`. Answered by a stream of [`Response::SaEvent`], until
    /// [`Request::Shut`].
    Monitor,
    /// Packets of a tap: `softnet capture`. Answered by [`Response::Capturing`] and a stream of [`Response::Frame`], until
    /// [`Request::Shut`]; then by [`Response::Captured`].
    Capture(CaptureRequest),
    /// `pfctl -s states`.
    PfStates,
    /// `pfctl -s queue`.
    PfQueues,
    /// `pfctl -s info`.
    PfInfo,
    /// Whatever else pfctl asks.
    Pf(Box<PfRequest>),
    /// Echo requests from the router's own stack. Answered by a stream of [`Response::Echo`].
    Ping(Ping),
    /// A connection of the router's own stack. Answered by a stream of [`Response::Data`]; meanwhile the client says
    /// [`Request::Data`] and [`Request::Shut`].
    Nc(Nc),
    /// Octets for the stream that is open.
    Data(Octets),
    /// No more octets will come.
    Shut,
}

/// `ping`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    /// Whom.
    pub to: IpAddr,
    /// How often; none for until the client hangs up.
    pub count: Option<u32>,
    /// Milliseconds between two.
    pub interval_ms: u32,
    /// Octets of data.
    pub size: u16,
    /// Milliseconds to wait for an answer.
    pub timeout_ms: u32,
}

/// `nc`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Nc {
    /// The other end; none to listen.
    pub to: Option<IpAddr>,
    /// Its port, or ours.
    pub port: u16,
    /// UDP instead of TCP.
    pub udp: bool,
}

/// Octets as a JSON string, one character an octet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Octets(pub Vec<u8>);

impl Serialize for Octets {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.iter().map(|&b| char::from(b)).collect::<String>())
    }
}

impl<'de> Deserialize<'de> for Octets {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let octets: Result<Vec<u8>, _> = text.chars().map(u8::try_from).collect();
        octets.map(Octets).map_err(serde::de::Error::custom)
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    /// It was done, with a sentence about it.
    Done(String),
    /// It was not done.
    Refused(Refusal),
    /// Answer to [`Request::Status`].
    Status(StatusReport),
    /// Answer to [`Request::Mbuf`].
    Mbuf(MbufReport),
    /// Answer to [`Request::Interfaces`].
    Interfaces(Vec<InterfaceReport>),
    /// Answer to [`Request::Routes`].
    Routes(Vec<RouteReport>),
    /// Answer to [`Request::Stats`].
    Stats(StatsReport),
    /// Answer to [`Request::Neighbours`].
    Neighbours(Vec<NeighbourReport>),
    /// Answer to [`Request::Sas`].
    Sas(Vec<SaReport>),
    /// Answer to [`Request::Policies`].
    Policies(Vec<PolicyReport>),
    /// Answer to [`Request::Setkey`].
    Setkey(SetkeyReport),
    /// Answer to [`Request::GetSpi`].
    Spi(SaName),
    /// Something happened.
    SaEvent(SaEvent),
    /// What the frames of a capture will be.
    Capturing(TapReport),
    /// A packet of a capture.
    Frame(FrameReport),
    /// What became of a capture.
    Captured(CaptureReport),
    /// Answer to [`Request::PfStates`].
    States(Vec<StateReport>),
    /// Answer to [`Request::PfQueues`].
    Queues(Vec<QueueReport>),
    /// Answer to [`Request::PfInfo`].
    PfInfo(PfInfoReport),
    /// Answer to [`Request::Pf`].
    Pf(PfAnswer),
    /// One turn of a ping.
    Echo(EchoReport),
    /// A connection is open, or a datagram came from here.
    Connected(String),
    /// Octets that came.
    Data(Octets),
    /// The stream is over.
    End,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Whose fault it is.
    pub kind: RefusalKind,
    /// What is wrong, for people.
    pub message: String,
}

/// Whose fault it is; says which exit status a client ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The answer is no: a bad configuration, no answer to a ping.
    No,
    /// The request makes no sense.
    Usage,
    /// The system, or the moment, does not allow it.
    System,
}

impl Response {
    /// A refusal.
    pub fn refused(kind: RefusalKind, message: impl Into<String>) -> Response {
        Response::Refused(Refusal { kind, message: message.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_survive_the_wire() {
        let ping = Ping {
            to: "2001:db8::1".parse().unwrap(),
            count: Some(3),
            interval_ms: 1000,
            size: 56,
            timeout_ms: 1000,
        };
        for request in [Request::Mbuf, Request::Ping(ping), Request::Data(Octets((0..=255).collect()))] {
            let line = serde_json::to_string(&Envelope::new(request.clone())).unwrap();
            assert!(!line.contains('\n'), "{line}");
            let back: Envelope<Request> = serde_json::from_str(&line).unwrap();
            assert_eq!((back.v, back.body), (VERSION, request));
        }
        let line = serde_json::to_string(&Response::refused(RefusalKind::No, "a\nb")).unwrap();
        assert_eq!(line, r#"{"refused":{"kind":"no","message":"a\nb"}}"#);
    }
}
