//! Statements about policies: `spdadd`, `spdupdate`, `spddelete`.

use super::{Broken, Parser, Read, quote, split_port};
use crate::{
    conf::{
        lex::{Kind, Place, Token},
        statement::{At, DirectionWord, ModeWord, PolicyAdd, PolicyName, Protocol, Request, Treatment},
    },
    selector::{Addresses, Ports, Prefix, Upper},
    spd::Level,
};
use std::net::IpAddr;
use wire::IpProto;

/// Addresses, and ports if not all match.
type Range = (Option<At<Addresses>>, Option<At<Ports>>);

/// The two ends of a tunnel, and their UDP ports.
type Ends = (At<IpAddr>, At<IpAddr>);
type UdpPorts = [Option<At<u16>>; 2];

impl<'t> Parser<'t> {
    /// A word, and what is written behind it with a blank in between although it belongs to it: `[port]`, `/len`.
    fn range(&mut self) -> Read<Range> {
        let token = self.word("a range of addresses")?;
        let mut text = token.text.to_owned();
        while let Some(more) = self.tokens.next_if(|t| t.kind == Kind::Word && t.text.starts_with(['[', '/']))
        {
            text.push_str(more.text);
        }
        let (range, port) = split_port(&text);
        let addresses = match range.split_once('-') {
            Some((first, last)) => self.span(first, last, token.place),
            None => self.prefix(range, token.place),
        };
        let port = match port {
            Some((port, at)) => self.ports(port, token.place.after(text[..at].chars().count())),
            None => None,
        };
        Ok((addresses.map(|a| At::new(a, token.place)), port))
    }

    /// `first-last`: ours.
    fn span(&mut self, first: &str, last: &str, place: Place) -> Option<Addresses> {
        let second = place.after(first.chars().count() + 1);
        let (first, last) = (self.address(first, place)?, self.address(last, second)?);
        let span = Addresses::span(first.value, last.value);
        if span.is_none() {
            self.note(
                second,
                "there is no address from the first to the last",
                "the lower one first, of one family",
            );
        }
        span
    }

    /// `address[/len]`.
    fn prefix(&mut self, range: &str, place: Place) -> Option<Addresses> {
        let (addr, len) = range.split_once('/').map_or((range, None), |(addr, len)| (addr, Some(len)));
        let behind = place.after(addr.chars().count() + 1);
        let addr = self.address(addr, place)?;
        let Some(len) = len else { return Some(Prefix::host(addr.value).into()) };
        let prefix = len.parse().ok().and_then(|len| Prefix::new(addr.value, len));
        if prefix.is_none() {
            let most = if addr.value.is_ipv4() { 32 } else { 128 };
            self.note(behind, format!("{len:?} is not a prefix length"), format!("0 to {most}"));
        }
        prefix.map(Addresses::from)
    }

    /// `any`, `port`, or (ours) `first-last`.
    fn ports(&mut self, text: &str, place: Place) -> Option<At<Ports>> {
        if text == "any" {
            return None;
        }
        // 0 is any, with however many digits; so there is no way to say 0 and no other.
        let zero = Ports::one(0);
        let ports = match text.split_once('-') {
            None => text.parse().ok().map(Ports::one),
            Some((first, last)) => {
                let span = first.parse().ok().zip(last.parse().ok()).and_then(|(a, b)| Ports::span(a, b));
                span.filter(|span| *span != zero)
            }
        };
        if ports.is_none() {
            self.note(place, format!("{text:?} is not a port"), "1 to 65535, first-last, or any");
        }
        ports.filter(|ports| *ports != zero).map(|ports| At::new(ports, place))
    }

    pub(super) fn policy_name(&mut self) -> Read<Option<PolicyName>> {
        self.options();
        if self.tokens.peek().is_some_and(|t| t.text == "tagged") {
            let token = self.word("a range of addresses")?;
            self.note(token.place, "policies by pf tag are not there", "ranges of addresses");
            return Err(Broken);
        }
        let (src, src_port) = self.range()?;
        let (dst, dst_port) = self.range()?;
        let upper = self.upper(src_port, dst_port)?;
        if self.next_is("-ctx") {
            self.note(self.last, "security contexts are not there", "leave -ctx out");
            return Err(Broken);
        }
        if !self.next_is("-P") {
            self.note(self.last, "-P is missing behind this", "-P in, -P out or -P fwd");
            return Err(Broken);
        }
        let token = self.word("a direction")?;
        let words = [("in", DirectionWord::In), ("out", DirectionWord::Out), ("fwd", DirectionWord::Fwd)];
        let direction = self.one_of(&token, "a direction", &words);
        Ok(match (src, dst, upper, direction) {
            (Some(src), Some(dst), Some(upper), Some(direction)) => {
                Some(PolicyName { src, dst, upper, direction })
            }
            _ => None,
        })
    }

    fn upper(&mut self, src_port: Option<At<Ports>>, dst_port: Option<At<Ports>>) -> Read<Option<Upper>> {
        let token = self.word("an upper-layer protocol")?;
        let is_port = src_port.is_some() || dst_port.is_some();
        let ports = (src_port.as_ref().map(|p| p.value), dst_port.as_ref().map(|p| p.value));
        let named = match token.text {
            "any" if is_port => return Ok(Some(Upper::Ports { src_port: ports.0, dst_port: ports.1 })),
            "any" => return Ok(Some(Upper::Any)),
            "icmp6" => Some(IpProto::ICMPV6),
            "ip4" => Some(IpProto::IPV4),
            text => IpProto::from_name(text).or_else(|| text.parse().ok().map(IpProto)),
        };
        let Some(proto) = named else {
            let help = "any, a name such as tcp, or a number up to 255";
            self.note(token.place, format!("{} is not a protocol", quote(&token)), help);
            return Ok(None);
        };
        let icmp = matches!(proto, IpProto::ICMP | IpProto::ICMPV6);
        if is_port && !proto.has_ports() {
            let place = src_port.or(dst_port).map_or(token.place, |p| p.place);
            let help =
                if icmp { "type and code go behind the protocol: icmp 8,0" } else { "[any], or no port" };
            self.note(place, format!("{} has no ports", token.text), help);
            return Ok(None);
        }
        let more =
            self.tokens.next_if(|t| t.kind == Kind::Word && t.text.starts_with(|c: char| c.is_ascii_digit()));
        match more {
            None => Ok(Some(Upper::Proto { proto, src_port: ports.0, dst_port: ports.1 })),
            Some(more) => Ok(self.icmp(&more, proto, icmp)),
        }
    }

    fn icmp(&mut self, token: &Token<'_>, proto: IpProto, icmp: bool) -> Option<Upper> {
        self.last = token.place;
        let pair = match token.text.split_once(',') {
            Some((kind, code)) => kind.parse().ok().zip(code.parse().ok().map(Some)),
            None => token.text.parse().ok().map(|kind| (kind, None)),
        };
        match pair {
            Some((kind, code)) if icmp => Some(Upper::Icmp { proto, kind, code }),
            _ => {
                let help = "type or type,code behind icmp or icmp6; other protocols take nothing";
                self.note(token.place, format!("{} does not go with this protocol", quote(token)), help);
                None
            }
        }
    }

    pub(super) fn policy_add(&mut self) -> Read<Option<PolicyAdd>> {
        let name = self.policy_name()?;
        let priority =
            if self.next_is("priority") || self.next_is("prio") { self.priority()? } else { Some(0) };
        let token = self.word("none, discard or ipsec")?;
        let treatment = match token.text {
            "none" => Some(Treatment::None),
            "discard" => Some(Treatment::Discard),
            "ipsec" => self.requests()?.map(Treatment::Ipsec),
            _ => {
                self.note(
                    token.place,
                    format!("{} is not what a policy can do", quote(&token)),
                    "none, discard, or ipsec esp/tunnel/src-dst/require",
                );
                return Err(Broken);
            }
        };
        Ok(match (name, priority, treatment) {
            (Some(name), Some(priority), Some(treatment)) => Some(PolicyAdd { name, priority, treatment }),
            _ => None,
        })
    }

    /// `priority 100`, `priority high - 5`.
    fn priority(&mut self) -> Read<Option<i64>> {
        const STEP: i64 = 1 << 30;
        let token = self.word("a priority")?;
        let base = match token.text {
            "low" => -STEP,
            "def" => 0,
            "high" => STEP,
            text => {
                let n = text.parse::<i32>().ok();
                if n.is_none() {
                    self.note(
                        token.place,
                        format!("{} is not a priority", quote(&token)),
                        "a number, or low, def or high with + or - and a number",
                    );
                }
                return Ok(n.map(i64::from));
            }
        };
        let sign = if self.next_is("+") {
            1
        } else if self.next_is("-") {
            -1
        } else {
            return Ok(Some(base));
        };
        Ok(self.number_up_to("an offset", STEP as u64)?.map(|n| base + sign * n as i64))
    }

    fn requests(&mut self) -> Read<Option<Vec<Request>>> {
        let mut requests = vec![];
        let mut all = true;
        loop {
            let token = self.word("protocol/mode/src-dst/level")?;
            let request = self.request(&token);
            all &= request.is_some();
            requests.extend(request);
            if self.at_end() {
                return Ok(all.then_some(requests));
            }
        }
    }

    fn request(&mut self, token: &Token<'t>) -> Option<Request> {
        let parts: Vec<&str> = token.text.split('/').collect();
        let [protocol, mode, ends, level] = parts[..] else {
            self.note(
                token.place,
                format!("{} is not protocol/mode/src-dst/level", quote(token)),
                "as in esp/tunnel/192.0.2.1-198.51.100.1/require",
            );
            return None;
        };
        let mut column = 0;
        let mut part = |text: &'t str| {
            let place = token.place.after(column);
            column += text.chars().count() + 1;
            Token { kind: Kind::Word, text, place, leads: false }
        };
        let (protocol, mode, ends, level) = (part(protocol), part(mode), part(ends), part(level));
        let protocol = self.one_of(&protocol, "a security protocol", &Protocol::ALL);
        let modes =
            [("transport", ModeWord::Transport), ("tunnel", ModeWord::Tunnel), ("beet", ModeWord::Beet)];
        let mode = self.one_of(&mode, "a mode", &modes);
        // Nothing between the slashes: no ends.
        let ends = if ends.text.is_empty() {
            Some((None, [None, None]))
        } else {
            self.tunnel_ends(&ends).map(|(ends, ports)| (Some(ends), ports))
        };
        let level = self.level(&level);
        let (ends, ports) = ends?;
        Some(Request { protocol: protocol?, mode: mode?, ends, ports, level: level? })
    }

    /// `src-dst`, each perhaps with a UDP port.
    fn tunnel_ends(&mut self, token: &Token<'_>) -> Option<(Ends, UdpPorts)> {
        let Some((src, dst)) = token.text.split_once('-') else {
            self.note(
                token.place,
                format!("{} is not src-dst", quote(token)),
                "two addresses with a hyphen in between",
            );
            return None;
        };
        let second = token.place.after(src.chars().count() + 1);
        let (src, src_port) = self.address_with_port(src, token.place);
        let (dst, dst_port) = self.address_with_port(dst, second);
        Some(((src?, dst?), [src_port, dst_port]))
    }

    fn level(&mut self, token: &Token<'_>) -> Option<At<Level>> {
        let unique = |id: &str| id.parse().ok().filter(|n| *n > 0).map(Level::Unique);
        let level = match (token.text, token.text.strip_prefix("unique:")) {
            (_, Some(id)) => unique(id),
            ("default", _) => Some(Level::Default),
            ("use", _) => Some(Level::Use),
            ("require" | "unique", _) => Some(Level::Require),
            _ => None,
        };
        if level.is_none() {
            self.note(
                token.place,
                format!("{} is not a level", quote(token)),
                "default, use, require, unique or unique:number",
            );
        }
        Some(At::new(level?, token.place))
    }
}
