//! Reads statements. An error in a value is noted and reading goes on; an error in the shape of a statement skips to
//! its semicolon. So one run finds all errors.

use super::{
    ConfError, Errors,
    lex::{Kind, Place, Token, lex},
    statement::{
        Add, Algorithm, At, Command, DirectionWord, Extension, FlagWord, ModeWord, PolicyAdd, PolicyName,
        Protocol, Request, SaName, Treatment,
    },
};
use crate::{
    sa::Spi,
    selector::{Prefix, Upper},
    spd::Level,
};
use kern::secret::SecretBytes;
use std::{net::IpAddr, sync::Arc};
use wire::IpProto;

const COMMANDS: [&str; 14] = [
    "add",
    "get",
    "delete",
    "deleteall",
    "flush",
    "dump",
    "spdadd",
    "spdupdate",
    "spddelete",
    "spdflush",
    "spddump",
    "exit",
    "quit",
    "bye",
];

/// The end of a statement came too early, or was not found: it has been noted.
struct Broken;

/// Addresses, and a port if only one matches.
type Range = (Option<At<Prefix>>, Option<At<u16>>);

/// The two ends of a tunnel.
type Ends = (At<IpAddr>, At<IpAddr>);

type Read<T> = Result<T, Broken>;

struct Parser<'t> {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token<'t>>>,
    errors: Errors,
    /// Where the last token began, for complaints about what is missing behind it.
    last: Place,
}

pub(super) fn parse(file: &Arc<str>, text: &str) -> Result<Vec<At<Command>>, Vec<ConfError>> {
    let mut parser = Parser {
        tokens: lex(text).into_iter().peekable(),
        errors: Errors::new(file),
        last: Place { line: 1, column: 1 },
    };
    let mut statements = vec![];
    while let Some(first) = parser.begin() {
        let command = parser.statement(&first);
        let ends = matches!(command, Some(At { value: Command::Exit, .. }));
        statements.extend(command);
        if ends {
            break;
        }
    }
    if parser.errors.list.is_empty() { Ok(statements) } else { Err(parser.errors.list) }
}

impl<'t> Parser<'t> {
    fn note(&mut self, place: Place, message: impl Into<String>, help: impl Into<String>) {
        self.errors.add(place, message, help);
    }

    /// The word that begins the next statement; `None` at the end of the text.
    fn begin(&mut self) -> Option<Token<'t>> {
        while self.tokens.next_if(|t| t.kind == Kind::Semicolon).is_some() {}
        self.tokens.next()
    }

    /// A statement, but for its first word; `None` if it has errors.
    fn statement(&mut self, first: &Token<'t>) -> Option<At<Command>> {
        self.last = first.place;
        if first.kind != Kind::Word || !COMMANDS.contains(&first.text) {
            self.note(
                first.place,
                format!("{} is not a command", quote(first)),
                format!("commands are {}", COMMANDS.join(", ")),
            );
            self.skip();
            return None;
        }
        let before = self.errors.list.len();
        let command = self.command(first.text);
        let Ok(command) = command.and_then(|c| self.end().map(|()| c)) else {
            self.skip();
            return None;
        };
        let clean = self.errors.list.len() == before;
        command.filter(|_| clean).map(|c| At::new(c, first.place))
    }

    fn command(&mut self, word: &str) -> Read<Option<Command>> {
        Ok(match word {
            "add" => self.add()?.map(|a| Command::Add(Box::new(a))),
            "get" => self.sa_name()?.map(Command::Get),
            "delete" => self.sa_name()?.map(Command::Delete),
            "deleteall" => self.delete_all()?,
            "flush" => Some(Command::Flush(self.optional_protocol()?)),
            "dump" => Some(Command::Dump(self.optional_protocol()?)),
            "spdadd" => self.policy_add()?.map(|p| Command::SpdAdd(Box::new(p))),
            "spdupdate" => self.policy_add()?.map(|p| Command::SpdUpdate(Box::new(p))),
            "spddelete" => self.policy_name()?.map(Command::SpdDelete),
            "spdflush" => Some(Command::SpdFlush),
            "spddump" => Some(Command::SpdDump),
            _ => Some(Command::Exit),
        })
    }

    /// Goes to behind the next semicolon, or to a command that leads its line: the semicolon was forgotten.
    fn skip(&mut self) {
        while let Some(token) = self.tokens.next_if(|t| !begins_statement(t)) {
            if token.kind == Kind::Semicolon {
                return;
            }
        }
    }

    fn end(&mut self) -> Read<()> {
        match self.tokens.peek().copied() {
            Some(token) if token.kind == Kind::Semicolon => {
                self.tokens.next();
                Ok(())
            }
            Some(token) if !begins_statement(&token) => {
                self.note(
                    token.place,
                    format!("{} is not expected here", quote(&token)),
                    "the statement ends with ';'",
                );
                Err(Broken)
            }
            _ => {
                self.note(self.last, "the statement has no end", "it ends with ';'");
                Err(Broken)
            }
        }
    }

    fn at_end(&mut self) -> bool {
        self.tokens.peek().is_none_or(|t| t.kind == Kind::Semicolon || begins_statement(t))
    }

    /// The next word, which should be `what`.
    fn word(&mut self, what: &str) -> Read<Token<'t>> {
        if self.at_end() {
            self.note(self.last, format!("{what} is missing"), "see setkey(8)");
            return Err(Broken);
        }
        let token = self.tokens.next().ok_or(Broken)?;
        self.last = token.place;
        Ok(token)
    }

    fn next_is(&mut self, word: &str) -> bool {
        let found = self.tokens.next_if(|t| t.kind == Kind::Word && t.text == word);
        if let Some(token) = found {
            self.last = token.place;
        }
        found.is_some()
    }

    /// `-4`, `-6` and `-n`, which restrict how names are resolved; nothing is resolved here.
    fn options(&mut self) {
        let is_option = |t: &Token<'_>| {
            t.text.strip_prefix('-').is_some_and(|o| !o.is_empty() && o.bytes().all(|b| b"46n".contains(&b)))
        };
        while self.tokens.next_if(is_option).is_some() {}
    }

    fn address(&mut self, text: &str, place: Place) -> Option<At<IpAddr>> {
        let addr = text.parse().ok();
        if addr.is_none() {
            self.note(
                place,
                format!("{text:?} is not an address"),
                "a numeric IPv4 or IPv6 address; names are not resolved",
            );
        }
        Some(At::new(addr?, place))
    }

    /// An end of an SA: an address, for `esp-udp` with a port.
    fn end_address(&mut self) -> Read<Option<At<IpAddr>>> {
        let token = self.word("an address")?;
        let (text, port) = split_port(token.text);
        if port.is_some_and(|(p, _)| p != "any" && p != "0") {
            self.note(
                token.place,
                "ports at an SA are for UDP encapsulation, which is not there yet",
                "the address alone",
            );
        }
        Ok(self.address(text, token.place))
    }

    fn one_of<T: Copy>(&mut self, token: &Token<'_>, what: &str, words: &[(&str, T)]) -> Option<At<T>> {
        let found = words.iter().find(|(word, _)| *word == token.text && token.kind == Kind::Word);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.note(
                token.place,
                format!("{} is not {what}", quote(token)),
                format!("one of {}", known.join(", ")),
            );
        }
        found.map(|(_, value)| At::new(*value, token.place))
    }

    fn protocol(&mut self) -> Read<Option<At<Protocol>>> {
        let token = self.word("a protocol")?;
        Ok(self.one_of(&token, "a security protocol", &Protocol::ALL))
    }

    fn optional_protocol(&mut self) -> Read<Option<Protocol>> {
        if self.at_end() { Ok(None) } else { Ok(self.protocol()?.map(|p| p.value)) }
    }

    fn sa_name(&mut self) -> Read<Option<SaName>> {
        self.options();
        let (src, dst) = (self.end_address()?, self.end_address()?);
        let protocol = self.protocol()?;
        let spi = self.spi()?;
        Ok(match (src, dst, protocol, spi) {
            (Some(src), Some(dst), Some(protocol), Some(spi)) => Some(SaName { src, dst, protocol, spi }),
            _ => None,
        })
    }

    fn delete_all(&mut self) -> Read<Option<Command>> {
        self.options();
        let (src, dst) = (self.end_address()?, self.end_address()?);
        let protocol = self.protocol()?;
        Ok(match (src, dst, protocol) {
            (Some(src), Some(dst), Some(protocol)) => Some(Command::DeleteAll { src, dst, protocol }),
            _ => None,
        })
    }

    fn spi(&mut self) -> Read<Option<At<Spi>>> {
        let token = self.word("an SPI")?;
        let spi = number(token.text);
        if spi.is_none_or(|n| !(256..=u64::from(u32::MAX)).contains(&n)) {
            let help = "a number from 256 to 4294967295, or hexadecimal behind 0x";
            self.note(token.place, format!("{} is not an SPI", quote(&token)), help);
            return Ok(None);
        }
        Ok(spi.map(|n| At::new(Spi(n as u32), token.place)))
    }

    fn number_up_to(&mut self, what: &str, most: u64) -> Read<Option<u64>> {
        let token = self.word(what)?;
        let n = token.text.parse().ok().filter(|n| *n <= most);
        if n.is_none() {
            let help = if most == u64::MAX {
                "a decimal number".to_owned()
            } else {
                format!("a decimal number up to {most}")
            };
            self.note(token.place, format!("{} is not {what}", quote(&token)), help);
        }
        Ok(n)
    }

    fn add(&mut self) -> Read<Option<Add>> {
        let name = self.sa_name()?;
        let mut extensions = vec![];
        let (mut encryption, mut authentication, mut compression) = (None, None, None);
        while !self.at_end() {
            let option = self.word("an option")?;
            match option.text {
                "-E" => encryption = Some(self.algorithm(&["null", "simple"])?),
                "-A" => authentication = Some(self.algorithm(&["null"])?),
                "-C" => {
                    let name = self.word("an algorithm")?;
                    compression =
                        Some(Algorithm { name: At::new(name.text.to_owned(), name.place), key: None });
                    self.next_is("-R");
                }
                _ => extensions.extend(self.extension(&option)?.map(|e| At::new(e, option.place))),
            }
        }
        Ok(name.map(|name| Add { name, extensions, encryption, authentication, compression }))
    }

    fn extension(&mut self, option: &Token<'_>) -> Read<Option<Extension>> {
        let modes =
            [("transport", ModeWord::Transport), ("tunnel", ModeWord::Tunnel), ("any", ModeWord::Any)];
        let flags = [
            ("zero-pad", FlagWord::ZeroPad),
            ("random-pad", FlagWord::RandomPad),
            ("seq-pad", FlagWord::SeqPad),
            ("nocyclic-seq", FlagWord::NocyclicSeq),
        ];
        let max = u64::MAX;
        Ok(match option.text {
            "-m" => {
                let token = self.word("a mode")?;
                self.one_of(&token, "a mode", &modes).map(|m| Extension::Mode(m.value))
            }
            "-f" => {
                let token = self.word("a flag")?;
                self.one_of(&token, "a flag", &flags).map(|f| Extension::Flag(f.value))
            }
            "-u" => self
                .number_up_to("a policy's identifier", u32::MAX.into())?
                .map(|n| Extension::Reqid(n as u32)),
            "-r" => {
                self.number_up_to("a window in bytes", u32::MAX.into())?.map(|n| Extension::Replay(n as u32))
            }
            "-lh" => self.number_up_to("a time in seconds", max)?.map(Extension::HardSeconds),
            "-ls" => self.number_up_to("a time in seconds", max)?.map(Extension::SoftSeconds),
            "-bh" => self.number_up_to("a number of bytes", max)?.map(Extension::HardBytes),
            "-bs" => self.number_up_to("a number of bytes", max)?.map(Extension::SoftBytes),
            "-ph" => self.number_up_to("a number of packets", max)?.map(Extension::HardPackets),
            "-ps" => self.number_up_to("a number of packets", max)?.map(Extension::SoftPackets),
            "-esn" => Some(Extension::Esn),
            "-peer-window" => self
                .number_up_to("a window in packets", u32::MAX.into())?
                .map(|n| Extension::PeerWindow(n as u32)),
            "-ctx" => {
                for what in ["a domain of interpretation", "an algorithm", "a context"] {
                    self.word(what)?;
                }
                Some(Extension::Context)
            }
            _ => {
                let help = "-m -u -r -f -lh -ls -bh -bs -ph -ps -esn -peer-window, then -E, -A or -C";
                self.note(option.place, format!("{} is not an option of add", quote(option)), help);
                return Err(Broken);
            }
        })
    }

    fn algorithm(&mut self, keyless: &[&str]) -> Read<Algorithm> {
        let name = self.word("an algorithm")?;
        let key = if keyless.contains(&name.text) { None } else { self.key()? };
        Ok(Algorithm { name: At::new(name.text.to_owned(), name.place), key })
    }

    /// A key. What is wrong with one is said without showing it.
    fn key(&mut self) -> Read<Option<At<Arc<SecretBytes>>>> {
        let token = self.word("a key")?;
        let help = "hexadecimal digits behind 0x, or a string in double quotes";
        let mut bytes = match token.kind {
            Kind::Quoted => token.text.as_bytes().to_vec(),
            Kind::Unclosed => {
                self.note(
                    token.place,
                    "the key's string has no end",
                    "a second double quote in the same line",
                );
                return Ok(None);
            }
            _ => match hex(token.text) {
                Ok(bytes) => bytes,
                Err(what) => {
                    self.note(token.place, what, help);
                    return Ok(None);
                }
            },
        };
        match SecretBytes::take(&mut bytes) {
            Ok(key) => Ok(Some(At::new(Arc::new(key), token.place))),
            Err(error) => {
                self.note(token.place, error.to_string(), "");
                Ok(None)
            }
        }
    }

    /// A word, and what is written behind it with a blank in between although it belongs to it: `[port]`, `/len`.
    fn range(&mut self) -> Read<Range> {
        let token = self.word("a range of addresses")?;
        let mut text = token.text.to_owned();
        while let Some(more) = self.tokens.next_if(|t| t.kind == Kind::Word && t.text.starts_with(['[', '/']))
        {
            text.push_str(more.text);
        }
        let (range, port) = split_port(&text);
        let (addr, len) = range.split_once('/').map_or((range, None), |(addr, len)| (addr, Some(len)));
        let addr = self.address(addr, token.place);
        let place = token.place.after(addr.as_ref().map_or(0, |_| range.find('/').map_or(0, |i| i + 1)));
        let prefix = match (addr, len) {
            (None, _) => None,
            (Some(addr), None) => Some(Prefix::host(addr.value)),
            (Some(addr), Some(len)) => {
                let prefix = len.parse().ok().and_then(|len| Prefix::new(addr.value, len));
                if prefix.is_none() {
                    let most = if addr.value.is_ipv4() { 32 } else { 128 };
                    self.note(place, format!("{len:?} is not a prefix length"), format!("0 to {most}"));
                }
                prefix
            }
        };
        let port = match port {
            Some((port, at)) => self.port(port, token.place.after(text[..at].chars().count())),
            None => None,
        };
        Ok((prefix.map(|p| At::new(p, token.place)), port))
    }

    fn port(&mut self, text: &str, place: Place) -> Option<At<u16>> {
        if text == "any" || text == "0" {
            return None;
        }
        let port = text.parse().ok();
        if port.is_none() {
            self.note(place, format!("{text:?} is not a port"), "1 to 65535, or any");
        }
        Some(At::new(port?, place))
    }

    fn policy_name(&mut self) -> Read<Option<PolicyName>> {
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

    fn upper(&mut self, src_port: Option<At<u16>>, dst_port: Option<At<u16>>) -> Read<Option<Upper>> {
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
        let pair = token.text.split_once(',').and_then(|(k, c)| Some((k.parse().ok()?, c.parse().ok()?)));
        match pair {
            Some((kind, code)) if icmp => Some(Upper::Icmp { proto, kind, code }),
            _ => {
                let help = "type,code behind icmp or icmp6; other protocols take nothing";
                self.note(token.place, format!("{} does not go with this protocol", quote(token)), help);
                None
            }
        }
    }

    fn policy_add(&mut self) -> Read<Option<PolicyAdd>> {
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
        let modes = [("transport", ModeWord::Transport), ("tunnel", ModeWord::Tunnel)];
        let mode = self.one_of(&mode, "a mode", &modes);
        // Nothing between the slashes: no ends.
        let ends = if ends.text.is_empty() { Some(None) } else { self.tunnel_ends(&ends).map(Some) };
        let level = self.level(&level);
        Some(Request { protocol: protocol?, mode: mode?, ends: ends?, level: level? })
    }

    /// `src-dst`.
    fn tunnel_ends(&mut self, token: &Token<'_>) -> Option<Ends> {
        let Some((src, dst)) = token.text.split_once('-') else {
            self.note(
                token.place,
                format!("{} is not src-dst", quote(token)),
                "two addresses with a hyphen in between",
            );
            return None;
        };
        let second = token.place.after(src.chars().count() + 1);
        let (src, dst) = (self.address(src, token.place), self.address(dst, second));
        Some((src?, dst?))
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

fn begins_statement(token: &Token<'_>) -> bool {
    token.leads && token.kind == Kind::Word && COMMANDS.contains(&token.text)
}

/// How a message shows a token. Keys are never shown: their complaints do not come here.
fn quote(token: &Token<'_>) -> String {
    let text: String = token.text.chars().take(40).collect();
    if token.kind == Kind::Word && !text.starts_with("0x") {
        format!("\"{text}\"")
    } else {
        "this".to_owned()
    }
}

/// Text before `[port]`, the port, and where it begins.
fn split_port(text: &str) -> (&str, Option<(&str, usize)>) {
    match text.strip_suffix(']').and_then(|t| t.split_once('[')) {
        Some((addr, port)) => (addr, Some((port, addr.len() + 1))),
        None => (text, None),
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).ok_or("this is not a key")?;
    if digits.is_empty() || !digits.len().is_multiple_of(2) {
        return Err("the key has an odd number of hexadecimal digits");
    }
    let value = |digit: &u8| (*digit as char).to_digit(16).map(|v| v as u8);
    let pairs = digits.as_bytes().chunks(2);
    let bytes = pairs.map(|p| Some(value(&p[0])? << 4 | value(&p[1])?)).collect::<Option<Vec<u8>>>();
    bytes.ok_or("the key has characters that are no hexadecimal digits")
}
