//! A packet in words: `in on lan0 proto tcp from 192.0.2.9 port 4000 to 198.51.100.1 port 443 flags S`. The words are
//! those of a rule, and each has one value; the order is free behind the direction.

use std::{fmt, net::IpAddr};

use wire::{IpProto, build, ipv4, ipv6, sctp};

use super::frame::Ends;
use crate::{
    IfIndex,
    addr::Family,
    conf::ether::octets as mac,
    env::Environment,
    names, print,
    rule::{Direction, FLAG_LETTERS},
};

const SYN: u8 = 0x02;
const ECHO: [u8; 2] = [8, 128];

/// A packet that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Which way it goes.
    pub direction: Direction,
    /// Where.
    pub on: IfIndex,
    /// The interface it came in on, if it leaves.
    pub received: IfIndex,
    /// Protocol.
    pub proto: u8,
    /// Source address and port.
    pub from: (IpAddr, u16),
    /// Destination address and port.
    pub to: (IpAddr, u16),
    /// TCP flags.
    pub flags: u8,
    /// ICMP type and code.
    pub icmp: (u8, u8),
    /// TOS octet.
    pub tos: u8,
    /// Octets of IP, if they are said.
    pub length: Option<u16>,
    /// The tag it carries.
    pub tag: Option<String>,
    /// A fragment but the first.
    pub fragment: bool,
    /// It has IP options.
    pub options: bool,
    /// The addresses of the frame it is in, if Ethernet rules are to be asked.
    pub ether: Option<Ends>,
}

/// A description of a packet that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct NotUnderstood {
    text: String,
    /// Characters before the wrong word.
    column: usize,
    message: String,
}

impl fmt::Display for NotUnderstood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotUnderstood { text, column, message } = self;
        write!(f, "packet:1:{}: {message}\n  {text}\n  {:column$}^", column + 1, "")
    }
}

/// What is wrong with a word, and how many characters stand before it.
type Wrong = (usize, String);

struct Words<'a> {
    text: &'a str,
    all: Vec<(usize, &'a str)>,
    at: usize,
    env: &'a Environment,
}

impl<'a> Words<'a> {
    fn new(text: &'a str, env: &'a Environment) -> Words<'a> {
        let start = |word: &str| text[..word.as_ptr() as usize - text.as_ptr() as usize].chars().count();
        let all = text.split_whitespace().map(|word| (start(word), word)).collect();
        Words { text, all, at: 0, env }
    }

    fn peek(&self) -> Option<&'a str> {
        self.all.get(self.at).map(|&(_, word)| word)
    }

    fn accept(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.at += usize::from(is);
        is
    }

    /// The next word, which is `what`, as `read` takes it.
    fn next<T>(
        &mut self,
        what: &str,
        read: impl FnOnce(&Environment, &str) -> Option<T>,
    ) -> Result<T, Wrong> {
        let end = self.text.trim_end().chars().count();
        let &(column, word) = self.all.get(self.at).ok_or_else(|| (end, format!("{what} is missing")))?;
        self.at += 1;
        read(self.env, word).ok_or_else(|| (column, format!("`{word}` is not {what}")))
    }

    /// Where the word before stands.
    fn column(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.all.get(i)).map_or(0, |&(column, _)| column)
    }
}

/// What has been read so far.
#[derive(Default)]
struct Draft {
    on: Option<IfIndex>,
    received: Option<IfIndex>,
    family: Option<Family>,
    proto: Option<u8>,
    from: Option<(IpAddr, Option<u16>)>,
    to: Option<(IpAddr, Option<u16>)>,
    flags: Option<u8>,
    icmp: Option<(u8, u8)>,
    tos: u8,
    length: Option<u16>,
    tag: Option<String>,
    fragment: bool,
    options: bool,
    ether: Option<Ends>,
}

impl Question {
    /// Reads a description for the interfaces and names of `env`.
    pub fn parse(text: &str, env: &Environment) -> Result<Question, NotUnderstood> {
        let mut words = Words::new(text, env);
        read(&mut words).map_err(|(column, message)| NotUnderstood { text: text.to_owned(), column, message })
    }

    fn family(&self) -> Family {
        Family::of(self.from.0)
    }

    /// The packet's octets; its transport checksums are nobody's business.
    pub(crate) fn octets(&self) -> Vec<u8> {
        // More fragments, and not the first.
        let frag = if self.fragment { 0x20b9 } else { 0 };
        let mut payload = self.payload();
        if let Some(length) = self.length {
            payload.resize(payload.len().max(usize::from(length).saturating_sub(self.ip_header())), 0);
        }
        match (self.from.0, self.to.0) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let proto = IpProto(self.proto);
                build::raw4(
                    ipv4::Repr { src, dst, proto, tos: self.tos, frag, ..ipv4::Repr::default() },
                    &payload,
                )
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let next_header = IpProto(self.proto);
                let traffic_class = self.tos;
                build::raw6(
                    ipv6::Repr { src, dst, next_header, traffic_class, ..ipv6::Repr::default() },
                    &payload,
                )
            }
            _ => Vec::new(),
        }
    }

    /// Octets of its IP header.
    fn ip_header(&self) -> usize {
        if self.family() == Family::Inet { 20 } else { 40 }
    }

    fn payload(&self) -> Vec<u8> {
        let [from, to] = [self.from.1, self.to.1].map(u16::to_be_bytes);
        let mut payload = [from, to].concat();
        match IpProto(self.proto) {
            // Sequence 1, acknowledgement 1 if it has one, five words of header.
            IpProto::TCP => {
                let ack = u8::from(self.flags & 0x10 != 0);
                payload.extend([0, 0, 0, 1, 0, 0, 0, ack, 5 << 4, self.flags, 0xff, 0xff, 0, 0, 0, 0]);
            }
            IpProto::UDP => payload.extend([0, 8, 0, 0]),
            // An INIT, whose checksum nobody looks at.
            IpProto::SCTP => {
                payload.extend([0; 8]);
                payload.extend(build::sctp_init(sctp::kind::INIT, 1, sctp::MIN_WINDOW, 1, &[]));
            }
            IpProto::ICMP | IpProto::ICMPV6 => {
                payload = vec![self.icmp.0, self.icmp.1, 0, 0, from[0], from[1], 0, 0];
                payload.extend(self.quote());
            }
            _ => payload.extend([0; 4]),
        }
        payload
    }

    /// What an ICMP error is about: a datagram from whom it goes to.
    fn quote(&self) -> Vec<u8> {
        let datagram = [0, 53, 0, 53, 0, 8, 0, 0];
        match (self.from.0, self.to.0) {
            (IpAddr::V4(dst), IpAddr::V4(src)) => {
                build::raw4(ipv4::Repr { src, dst, proto: IpProto::UDP, ..ipv4::Repr::default() }, &datagram)
            }
            (IpAddr::V6(dst), IpAddr::V6(src)) => build::raw6(
                ipv6::Repr { src, dst, next_header: IpProto::UDP, ..ipv6::Repr::default() },
                &datagram,
            ),
            _ => Vec::new(),
        }
    }
}

fn read(words: &mut Words<'_>) -> Result<Question, Wrong> {
    let direction = words.next("`in` or `out`", |_, word| match word {
        "in" => Some(Direction::In),
        "out" => Some(Direction::Out),
        _ => None,
    })?;
    let mut draft = Draft::default();
    while words.peek().is_some() {
        one(words, &mut draft)?;
    }
    let end = words.text.trim_end().chars().count();
    let missing = |what: &str| (end, format!("{what} is missing"));
    let (from, sport) = draft.from.ok_or_else(|| missing("`from` and an address"))?;
    let (to, dport) = draft.to.ok_or_else(|| missing("`to` and an address"))?;
    let family = Family::of(from);
    if family != Family::of(to) || draft.family.is_some_and(|f| f != family) {
        return Err((words.column(), "the addresses are of different families".into()));
    }
    let proto = draft.proto.ok_or_else(|| missing("`proto` and a protocol"))?;
    let has_ports = matches!(IpProto(proto), IpProto::TCP | IpProto::UDP | IpProto::SCTP);
    let is_icmp = matches!(IpProto(proto), IpProto::ICMP | IpProto::ICMPV6);
    if (sport.is_some() || dport.is_some()) && !has_ports {
        return Err((words.column(), "only tcp, udp and sctp have ports".into()));
    }
    if proto == IpProto::SCTP.0 && [sport, dport].iter().any(|port| port.is_none_or(|port| port == 0)) {
        return Err((words.column(), "sctp has two ports, which are not 0".into()));
    }
    if proto == IpProto::SCTP.0 && draft.length.is_some() {
        return Err((words.column(), "an INIT of sctp has the length that it has".into()));
    }
    if draft.flags.is_some() && proto != IpProto::TCP.0 {
        return Err((words.column(), "only tcp has flags".into()));
    }
    if draft.icmp.is_some() && !is_icmp {
        return Err((words.column(), "only icmp and icmp6 have types".into()));
    }
    if draft.options && family == Family::Inet6 {
        return Err((words.column(), "options are those of IPv4".into()));
    }
    let question = Question {
        direction,
        on: draft.on.ok_or_else(|| missing("`on` and an interface"))?,
        received: draft.received.unwrap_or_default(),
        proto,
        from: (from, sport.unwrap_or(0)),
        to: (to, dport.unwrap_or(0)),
        flags: draft.flags.unwrap_or(SYN),
        icmp: draft.icmp.unwrap_or((ECHO[usize::from(family == Family::Inet6)], 0)),
        tos: draft.tos,
        length: draft.length,
        tag: draft.tag,
        fragment: draft.fragment,
        options: draft.options,
        ether: draft.ether,
    };
    let least = question.ip_header() + question.payload().len();
    if question.length.is_some_and(|length| usize::from(length) < least) {
        return Err((words.column(), format!("its headers alone are {least} octets")));
    }
    Ok(question)
}

fn one(words: &mut Words<'_>, draft: &mut Draft) -> Result<(), Wrong> {
    let interface = |env: &Environment, word: &str| env.interface(word).map(|i| i.index);
    let word = words.next("a word", |_, word| Some(word.to_owned()))?;
    match word.as_str() {
        "on" => draft.on = Some(words.next("an interface", interface)?),
        "received-on" => draft.received = Some(words.next("an interface", interface)?),
        "inet" => draft.family = Some(Family::Inet),
        "inet6" => draft.family = Some(Family::Inet6),
        "proto" => {
            let proto = words.next("a protocol", |env, w| w.parse().ok().or_else(|| env.protocol(w)))?;
            draft.proto = Some(proto);
        }
        "from" => draft.from = Some(place(words)?),
        "to" => draft.to = Some(place(words)?),
        "flags" => draft.flags = Some(words.next("TCP flags, of F S R P A U E W", |_, w| flags(w))?),
        "icmp-type" | "icmp6-type" => {
            let family = if word == "icmp-type" { Family::Inet } else { Family::Inet6 };
            let number = |_: &Environment, w: &str| w.parse().ok().or_else(|| names::icmp_type(family, w));
            let kind = words.next("an ICMP type", number)?;
            let number =
                |_: &Environment, w: &str| w.parse().ok().or_else(|| names::icmp_code(family, kind, w));
            let code = if words.accept("code") { words.next("an ICMP code", number)? } else { 0 };
            draft.icmp = Some((kind, code));
        }
        "tos" => draft.tos = words.next("a TOS value", |_, w| w.parse().ok().or_else(|| names::tos(w)))?,
        "length" => draft.length = Some(words.next("a number of octets", |_, w| w.parse().ok())?),
        "tagged" => draft.tag = Some(words.next("a tag", |_, w| Some(w.trim_matches('"').to_owned()))?),
        "fragment" => draft.fragment = true,
        "options" => draft.options = true,
        "ether" => draft.ether = Some(ends(words)?),
        _ => {
            let known = "on, received-on, inet, inet6, proto, from, to, port, flags, icmp-type, icmp6-type, code, tos, \
                         length, tagged, fragment, options, ether";
            return Err((words.column(), format!("`{word}` says nothing of a packet; there are {known}")));
        }
    }
    Ok(())
}

/// `192.0.2.9`, `192.0.2.9 port 4000`
fn place(words: &mut Words<'_>) -> Result<(IpAddr, Option<u16>), Wrong> {
    let address = words.next("an address", |_, w| w.parse().ok())?;
    let port = |env: &Environment, w: &str| w.parse().ok().or_else(|| env.service(w));
    let port = if words.accept("port") { Some(words.next("a port", port)?) } else { None };
    Ok((address, port))
}

/// `from 02:00:00:00:00:01 to 02:00:00:00:00:02`
fn ends(words: &mut Words<'_>) -> Result<Ends, Wrong> {
    let mut end = |keyword: &str| {
        words.next(&format!("`{keyword}`"), |_, word| (word == keyword).then_some(()))?;
        words.next("a MAC address", |_, word| mac(word))
    };
    Ok(Ends { from: end("from")?, to: end("to")? })
}

/// `S`, `SA`; of `S/SA`, what is set.
fn flags(word: &str) -> Option<u8> {
    let letters = word.split('/').next().unwrap_or("");
    letters
        .bytes()
        .try_fold(0, |set, letter| Some(set | 1 << FLAG_LETTERS.iter().position(|&l| l == letter)?))
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_ports = matches!(IpProto(self.proto), IpProto::TCP | IpProto::UDP | IpProto::SCTP);
        let proto = names::protocol_name(self.proto).map_or_else(|| self.proto.to_string(), str::to_owned);
        write!(f, "{} {} proto {proto}", self.direction.keyword(), self.family().keyword())?;
        for (word, (address, port)) in [("from", self.from), ("to", self.to)] {
            write!(f, " {word} {address}")?;
            if has_ports {
                write!(f, " port {port}")?;
            }
        }
        if let Some(length) = self.length {
            write!(f, " length {length}")?;
        }
        let Some(Ends { from, to }) = self.ether else { return Ok(()) };
        for (word, octets) in [("ether from", from), ("to", to)] {
            write!(f, " {word} ")?;
            print::ether::write_octets(f, octets)?;
        }
        Ok(())
    }
}
