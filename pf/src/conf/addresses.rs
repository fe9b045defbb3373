//! Addresses outside of rules: lists and files of tables (pf.conf(5), TABLES), and what `pfctl -T` is given (pfctl(8)).
//!
//! A file has addresses with blanks or ends of lines between them; `#` and `;` begin a comment. An address is what a
//! table's list in pf.conf can have, in one word: an address, a network (`10/8` too), an interface with its modifiers
//! (`lan0:network`), `self`, a host; `!` before it takes it out. Tables hold no ranges, as in pf.

use std::net::IpAddr;

use super::{
    Environment,
    ast::{HostDef, HostWord},
    error::{ConfError, Fault, Parsed, Pos},
    host, resolve,
};
use crate::{
    addr::{Entry, Family, Prefix},
    rule::Host,
};

/// Faults of one file that are told; a file of something else altogether would have one a word.
const TOLD: usize = 20;

/// Reads what an item of a list stands for.
pub(super) fn entries(env: &Environment, def: &HostDef) -> Parsed<Vec<Entry>> {
    if let HostWord::Literal(address, _) = def.what {
        return Ok(vec![Entry { not: def.not, prefix: Prefix::new(address, def.len.unwrap_or(128)) }]);
    }
    let resolved = resolve::one(env, def, None)?;
    let prefix = |host, family| match (host, family) {
        (Host::Prefix(prefix), _) => Ok(prefix),
        (Host::Any, Some(family)) => Ok(resolve::everything(family)),
        _ => Err(Fault::new(def.at, "a table holds addresses and networks only")),
    };
    resolved.into_iter().map(|r| Ok(Entry { not: r.not, prefix: prefix(r.host, r.family)? })).collect()
}

/// Reads the text of a file whose number is `file`: its entries, or all that is wrong with it.
pub(super) fn file(env: &Environment, file: u16, text: &str) -> Result<Vec<Entry>, Vec<Fault>> {
    let (mut all, mut faults) = (Vec::new(), Vec::new());
    let mut dangling = None;
    for (line, text) in (1..).zip(text.lines()) {
        for (column, text) in words(text) {
            let at = Pos { file, line, column };
            // `! 10.0.0.1` is one entry, as `!10.0.0.1` is.
            if text == "!" {
                dangling = Some(dangling.map_or((at, true), |(at, not): (Pos, bool)| (at, !not)));
                continue;
            }
            let not = dangling.take().is_some_and(|(_, not)| not);
            match word(env, at, text) {
                Ok(entries) => all.extend(entries.into_iter().map(|e| Entry { not: e.not != not, ..e })),
                Err(fault) => faults.push(fault),
            }
        }
        if faults.len() >= TOLD {
            faults.truncate(TOLD);
            faults.push(Fault::new(Pos { file, line, column: 1 }, "the rest of the file is not read"));
            return Err(faults);
        }
    }
    if let Some((at, _)) = dangling {
        faults.push(Fault::new(at, "`!` stands before no address"));
    }
    if faults.is_empty() { Ok(all) } else { Err(faults) }
}

/// Reads a file of addresses for `pfctl -T ... -f FILE`; `name` stands for it in messages.
///
/// # Errors
/// All that is wrong with it, by place.
pub fn table_file(env: &Environment, name: &str, text: &str) -> Result<Vec<Entry>, Vec<ConfError>> {
    file(env, 0, text).map_err(|faults| {
        let named = |fault: Fault| {
            let excerpt = text.lines().nth((fault.at.line as usize).saturating_sub(1)).unwrap_or_default();
            fault.named(name.to_owned(), excerpt.to_owned())
        };
        faults.into_iter().map(named).collect()
    })
}

/// What a word of the command line stands for, for `pfctl -T`; an interface or a host is all its addresses.
///
/// # Errors
/// What is wrong with it.
pub fn table_address(env: &Environment, text: &str) -> Result<Vec<Entry>, String> {
    word(env, Pos::default(), text).map_err(|fault| match fault.help {
        Some(help) => format!("{}; {help}", fault.message),
        None => fault.message,
    })
}

/// The words of a line and their columns, without the comment.
fn words(line: &str) -> impl Iterator<Item = (u32, &str)> {
    let (mut rest, mut column) = (line.split(['#', ';']).next().unwrap_or_default(), 1);
    std::iter::from_fn(move || {
        let word = rest.trim_start();
        column += rest.chars().count() - word.chars().count();
        let (word, after) = word.split_at(word.find(char::is_whitespace).unwrap_or(word.len()));
        let at = column;
        (rest, column) = (after, column + word.chars().count());
        (!word.is_empty()).then_some((at as u32, word))
    })
}

fn word(env: &Environment, at: Pos, text: &str) -> Parsed<Vec<Entry>> {
    let name = text.trim_start_matches('!');
    let not = (text.len() - name.len()) % 2 == 1;
    if name.is_empty() {
        return Err(Fault::new(at, "`!` stands before no address"));
    }
    let (name, len) = match name.split_once('/') {
        Some((name, len)) => (name, Some(len)),
        None => (name, None),
    };
    let what = host::literal(name, len.is_some()).unwrap_or_else(|| HostWord::Name(name.to_owned()));
    if let Some(fault) = range(at, name) {
        return Err(fault);
    }
    let len = len.map(|len| prefix_length(at, len, &what)).transpose()?;
    entries(env, &HostDef { at, not, what, len })
}

fn prefix_length(at: Pos, text: &str, of: &HostWord) -> Parsed<u8> {
    let width = match of {
        HostWord::Literal(address, _) => Family::of(*address).width(),
        _ => 128,
    };
    let len = text.parse().ok().filter(|&len| len <= width);
    len.ok_or_else(|| Fault::new(at, format!("`{text}` is no prefix length from 0 to {width}")))
}

/// `10.0.0.1-10.0.0.9` is for rules.
fn range(at: Pos, word: &str) -> Option<Fault> {
    let (first, last) = word.split_once('-')?;
    let (first, last) = (first.parse::<IpAddr>().ok()?, last.parse::<IpAddr>().ok()?);
    let all: Vec<String> = Prefix::covering(first, last).iter().map(ToString::to_string).collect();
    let fault = Fault::new(at, "a table holds addresses and networks, no ranges");
    Some(if all.is_empty() { fault } else { fault.help(format!("write {}", all.join(" "))) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{IfAddress, Interface};

    fn env() -> Environment {
        let address = |text: &str, len| IfAddress::new(text.parse().expect("an address"), len);
        let lan = Interface {
            name: "lan0".into(),
            index: crate::IfIndex(1),
            addresses: vec![address("192.0.2.1", 24), address("2001:db8::1", 64)],
            mtu: 1500,
            bandwidth: None,
        };
        let hosts = vec![("www.example".to_owned(), vec!["198.51.100.80".parse().expect("an address")])];
        Environment { hosts, ..Environment::new(vec![lan]) }
    }

    fn texts(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|e| format!("{}{}", if e.not { "!" } else { "" }, e.prefix)).collect()
    }

    #[test]
    fn a_file_has_addresses_networks_interfaces_hosts_and_comments() {
        let text = "# none\n10/8 !10.1.2.3 # a comment\n\n ; another\n172.16.5/12\t2001:db8::/32;and one\n! 10.2/16 \
                    !!10.3.0.0/16\nlan0:network !lan0 www.example www.example/24\n::1 !::/0 10.0.0.1/0";
        let wanted = [
            "10.0.0.0/8",
            "!10.1.2.3",
            "172.16.0.0/12",
            "2001:db8::/32",
            "!10.2.0.0/16",
            "10.3.0.0/16",
            "192.0.2.0/24",
            "2001:db8::/64",
            "!192.0.2.1",
            "!2001:db8::1",
            "198.51.100.80",
            "198.51.100.0/24",
            "::1",
            "!::/0",
            "0.0.0.0/0",
        ];
        assert_eq!(texts(&file(&env(), 3, text).expect("a right file")), wanted);
    }

    #[test]
    fn all_that_is_wrong_with_a_file_is_said_with_its_place() {
        let text = "10.0.0.1\n  10.0.0.300 10.0.0.1/33\n\n10 fe80::/129 10.0.0.1-10.0.0.4\n!";
        let errors = table_file(&env(), "bad", text).expect_err("a wrong file");
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let wanted = [
            "bad:2:3: `10.0.0.300` is no address, no interface and no known host",
            "bad:2:14: `33` is no prefix length from 0 to 32",
            "bad:4:1: `10` is no address, no interface and no known host",
            "bad:4:4: `129` is no prefix length from 0 to 128",
            "bad:4:15: a table holds addresses and networks, no ranges; write 10.0.0.1 10.0.0.2/31 10.0.0.4",
            "bad:5:1: `!` stands before no address",
        ];
        assert_eq!(said.len(), wanted.len(), "{said:#?}");
        for (said, wanted) in said.iter().zip(wanted) {
            assert!(said.starts_with(wanted), "{said}\n{wanted}");
        }
        assert_eq!(errors[0].excerpt, "  10.0.0.300 10.0.0.1/33");
    }

    #[test]
    fn of_a_file_of_something_else_only_the_beginning_is_told() {
        let errors = table_file(&env(), "bad", &"no.such.host\n".repeat(1000)).expect_err("a wrong file");
        assert_eq!(errors.len(), TOLD + 1);
        assert_eq!(errors[TOLD].to_string(), "bad:20:1: the rest of the file is not read");
    }

    #[test]
    fn a_word_of_the_command_line_is_what_a_word_of_a_file_is() {
        let read = |word| table_address(&env(), word).map(|entries| texts(&entries));
        assert_eq!(read("!10.9/16"), Ok(vec!["!10.9.0.0/16".to_owned()]));
        assert_eq!(read("self").map(|all| all.len()), Ok(2));
        assert_eq!(read("!"), Err("`!` stands before no address".to_owned()));
    }
}
