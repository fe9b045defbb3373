//! Reads statements. An error in a value is noted and reading goes on; an error in the shape of a statement skips to
//! its semicolon. So one run finds all errors.

mod policy;
mod sa;

use super::{
    ConfError, Errors,
    lex::{Kind, Place, Token, lex},
    statement::{At, Command, Protocol},
};
use std::{net::IpAddr, sync::Arc};

const COMMANDS: [&str; 15] = [
    "add",
    "update",
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

type Read<T> = Result<T, Broken>;

/// An address and the UDP port behind it, as far as either could be read.
type End = (Option<At<IpAddr>>, Option<At<u16>>);

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
            "update" => self.add()?.map(|a| Command::Update(Box::new(a))),
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

    /// An end of an SA: an address, for `esp-udp` with a port behind it, perhaps after a blank.
    fn end_address(&mut self) -> Read<End> {
        let token = self.word("an address")?;
        let (addr, port) = self.address_with_port(token.text, token.place);
        let apart = self.tokens.next_if(|t| t.kind == Kind::Word && t.text.starts_with('['));
        let port = match (port, apart) {
            (port, None) => port,
            (None, Some(apart)) => {
                self.last = apart.place;
                self.udp_port(split_port(apart.text).1.map_or(apart.text, |(port, _)| port), apart.place)
            }
            (Some(_), Some(apart)) => {
                self.note(apart.place, "a second port of one address", "one port in brackets");
                None
            }
        };
        Ok((addr, port))
    }

    /// An address, and the UDP port in brackets behind it.
    fn address_with_port(&mut self, text: &str, place: Place) -> End {
        let (addr, port) = split_port(text);
        (self.address(addr, place), port.and_then(|(port, at)| self.udp_port(port, place.after(at))))
    }

    fn udp_port(&mut self, text: &str, place: Place) -> Option<At<u16>> {
        if text == "any" {
            return None;
        }
        let port = text.parse::<u16>().ok();
        if port.is_none() {
            self.note(place, format!("{text:?} is not a UDP port"), "a number from 1 to 65535, or any");
        }
        // 0 is any, with however many digits.
        port.filter(|port| *port != 0).map(|port| At::new(port, place))
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
