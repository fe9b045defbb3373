//! Statements about SAs: `add`, `get`, `delete`, `deleteall`.

use super::{Broken, Parser, Read, quote};
use crate::{
    conf::{
        lex::{Kind, Token},
        statement::{Add, Algorithm, At, Command, Extension, FlagWord, ModeWord, SaName},
    },
    sa::{Df, Fragment, Spi},
};
use kern::secret::SecretBytes;
use std::sync::Arc;

impl Parser<'_> {
    pub(super) fn sa_name(&mut self) -> Read<Option<SaName>> {
        self.options();
        let ((src, src_port), (dst, dst_port)) = (self.end_address()?, self.end_address()?);
        let ports = [src_port, dst_port];
        let protocol = self.protocol()?;
        let spi = self.spi()?;
        Ok(match (src, dst, protocol, spi) {
            (Some(src), Some(dst), Some(protocol), Some(spi)) => {
                Some(SaName { src, dst, ports, protocol, spi })
            }
            _ => None,
        })
    }

    pub(super) fn delete_all(&mut self) -> Read<Option<Command>> {
        self.options();
        let ((src, _), (dst, _)) = (self.end_address()?, self.end_address()?);
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

    pub(super) fn add(&mut self) -> Read<Option<Add>> {
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
        let modes = [
            ("transport", ModeWord::Transport),
            ("tunnel", ModeWord::Tunnel),
            ("beet", ModeWord::Beet),
            ("any", ModeWord::Any),
        ];
        let flags = [
            ("zero-pad", FlagWord::ZeroPad),
            ("random-pad", FlagWord::RandomPad),
            ("seq-pad", FlagWord::SeqPad),
            ("nocyclic-seq", FlagWord::NocyclicSeq),
            ("align8", FlagWord::Align8),
        ];
        let max = u64::MAX;
        Ok(match option.text {
            "-m" => {
                let token = self.word("a mode")?;
                self.one_of(&token, "a mode", &modes).map(|m| Extension::Mode(m.value))
            }
            "-inner" => {
                let (src, dst) = (self.word("an address")?, self.word("an address")?);
                let ends = self.address(src.text, src.place).zip(self.address(dst.text, dst.place));
                ends.map(|(src, dst)| Extension::Inner(src.value, dst.value))
            }
            "-f" => {
                let token = self.word("a flag")?;
                self.one_of(&token, "a flag", &flags).map(|f| Extension::Flag(f.value))
            }
            "-u" => self
                .number_up_to("a policy's identifier", u32::MAX.into())?
                .map(|n| Extension::Reqid(n as u32)),
            "-pcpu-num" => {
                self.number_up_to("a worker's number", u16::MAX.into())?.map(|n| Extension::Worker(n as u16))
            }
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
            "-df" => {
                let words = [("copy", Df::Copy), ("set", Df::Set), ("clear", Df::Clear)];
                let token = self.word("what becomes of DF")?;
                self.one_of(&token, "what becomes of DF", &words).map(|df| Extension::Df(df.value))
            }
            "-frag" => {
                let words = [("before", Fragment::Before), ("after", Fragment::After)];
                let token = self.word("when to fragment")?;
                self.one_of(&token, "when to fragment", &words).map(|f| Extension::Fragment(f.value))
            }
            "-dscp" => self.number_up_to("a DSCP", 63)?.map(|n| Extension::Dscp(n as u8)),
            "-noecn" => Some(Extension::NoEcn),
            "-ttl" => self.number_up_to("a number of hops", 255)?.map(|n| Extension::Ttl(n.max(1) as u8)),
            "-flow-label" => Some(Extension::FlowLabel),
            "-tfc" => self.number_up_to("a number of octets", 65_535)?.map(|n| Extension::Tfc(n as u16)),
            "-threshold" => {
                self.number_up_to("a number of octets", 65_535)?.map(|n| Extension::Threshold(n as u16))
            }
            "-seq" => self.number_up_to("a sequence number", max - 1)?.map(Extension::Sequence),
            "-natt" => self.natt()?,
            "-natt_mtu" => self.number_up_to("a number of octets", 65_535)?.map(|_| Extension::NattMtu),
            "-keepalive" => {
                self.number_up_to("a time in seconds", 65_535)?.map(|n| Extension::Keepalive(n as u16))
            }
            "-ctx" => {
                for what in ["a domain of interpretation", "an algorithm", "a context"] {
                    self.word(what)?;
                }
                Some(Extension::Context)
            }
            _ => {
                let help = "-m -inner -u -pcpu-num -r -f -lh -ls -bh -bs -ph -ps -esn -seq -df -frag -dscp -noecn -ttl -flow-label -tfc -threshold -natt -keepalive, then -E, -A or -C";
                self.note(option.place, format!("{} is not an option of add", quote(option)), help);
                return Err(Broken);
            }
        })
    }

    /// `oai[sport] oar[dport]`.
    fn natt(&mut self) -> Read<Option<Extension>> {
        let mut ends = [None; 2];
        for end in &mut ends {
            let (addr, port) = self.end_address()?;
            if let (Some(addr), None) = (&addr, &port) {
                self.note(addr.place, "the UDP port is missing", "[4500] behind the address");
            }
            *end = addr.zip(port).map(|(addr, port)| (addr.value, port.value));
        }
        Ok(match ends {
            [Some(src), Some(dst)] => Some(Extension::Natt([src, dst])),
            _ => None,
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
