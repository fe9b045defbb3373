//! `pfctl -r`: names for addresses, as this machine's resolver knows them (getent(1)). What has no name stays as it is.

use std::{collections::HashMap, net::IpAddr, process::Command};

/// Names that have been asked for.
#[derive(Default)]
pub(super) struct Names(HashMap<IpAddr, Option<String>>);

impl Names {
    /// The name of an address.
    pub(super) fn of(&mut self, address: IpAddr) -> Option<&str> {
        self.0.entry(address).or_insert_with(|| ask(address)).as_deref()
    }

    /// A state with names in the place of addresses, if there are any to be asked for.
    pub(super) fn in_state(names: &mut Option<Names>, state: &str) -> String {
        match names {
            None => state.to_owned(),
            Some(names) => with_names(state, |address| names.of(address).map(str::to_owned)),
        }
    }
}

/// Puts the name of each host of a table behind it, as pfctl does; statistics stand below, indented.
pub(super) fn in_table(text: &str, mut name: impl FnMut(IpAddr) -> Option<String>) -> String {
    let one = |line: &str| {
        let entry = if line.starts_with('\t') { None } else { line.split([' ', '!']).next_back() };
        let named = entry.and_then(|entry| name(entry.parse().ok()?));
        named.map_or_else(|| format!("{line}\n"), |name| format!("{line}\t({name})\n"))
    };
    text.lines().map(one).collect()
}

/// What the resolver says: `192.0.2.1  host.example  alias`.
fn ask(address: IpAddr) -> Option<String> {
    let out = Command::new("getent").args(["hosts", &address.to_string()]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let name = text.split_whitespace().nth(1)?;
    (name != address.to_string()).then(|| name.to_owned())
}

/// Replaces the addresses in the first line, each behind a blank or a parenthesis and before its port.
fn with_names(state: &str, mut name: impl FnMut(IpAddr) -> Option<String>) -> String {
    let (line, rest) = state.split_at(state.find('\n').unwrap_or(state.len()));
    let mut out = String::with_capacity(state.len());
    for word in line.split_inclusive([' ', '(', ')']) {
        let bare = word.trim_end_matches([' ', '(', ')']);
        let (address, end) = address(bare);
        match address.and_then(&mut name) {
            Some(name) => out.extend([&name, &bare[end..]]),
            None => out.push_str(bare),
        }
        out.push_str(&word[bare.len()..]);
    }
    out + rest
}

/// The address of `192.0.2.1:80`, `2001:db8::1[80]` and of either without a port, and where it ends.
fn address(word: &str) -> (Option<IpAddr>, usize) {
    let end = if word.ends_with(']') { word.find('[') } else { None };
    let whole = word.parse().ok().map(|address: IpAddr| (address, word.len()));
    let v6 = end.and_then(|end| Some((word[..end].parse().ok()?, end)));
    let v4 = word.rfind(':').and_then(|end| Some((IpAddr::V4(word[..end].parse().ok()?), end)));
    whole.or(v6).or(v4).map_or((None, 0), |(address, end)| (Some(address), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_a_state_become_names_and_ports_stay() {
        let name = |address: IpAddr| match address.to_string().as_str() {
            "192.0.2.9" => Some("client".to_owned()),
            "198.51.100.1" => Some("server.example".to_owned()),
            "2001:db8::1" => Some("six".to_owned()),
            _ => None,
        };
        let said = |state: &str| with_names(state, name);
        assert_eq!(
            said(
                "all tcp 203.0.113.1:4000 (192.0.2.9:4000) -> 198.51.100.1:80       ESTABLISHED:ESTABLISHED\n   age 00:00:01, 192.0.2.9"
            ),
            "all tcp 203.0.113.1:4000 (client:4000) -> server.example:80       ESTABLISHED:ESTABLISHED\n   age 00:00:01, 192.0.2.9"
        );
        assert_eq!(
            said("all udp 2001:db8::1[53] <- 2001:db8::2[9]       1:2"),
            "all udp six[53] <- 2001:db8::2[9]       1:2"
        );
        assert_eq!(said("all 47 2001:db8::1 <- 192.0.2.9       0:0"), "all 47 six <- client       0:0");
    }

    #[test]
    fn hosts_of_a_table_have_their_names_behind_them_and_networks_none() {
        let table = "   192.0.2.9\n\tCleared:     192.0.2.9\n  !192.0.2.9\n   192.0.2.0/24\n   2001:db8::2\n";
        let name = |address: IpAddr| address.is_ipv4().then(|| "client".to_owned());
        assert_eq!(
            in_table(table, name),
            "   192.0.2.9\t(client)\n\tCleared:     192.0.2.9\n  !192.0.2.9\t(client)\n   192.0.2.0/24\n   2001:db8::2\n"
        );
    }

    #[test]
    fn the_resolver_of_this_machine_is_asked_once() {
        let mut names = Names::default();
        let loopback = IpAddr::from([127, 0, 0, 1]);
        // Every machine has a name for that; a documentation address has none.
        assert!(names.of(loopback).is_some_and(|name| name.contains("localhost")));
        assert_eq!(names.of(IpAddr::from([192, 0, 2, 255])), None);
        assert_eq!(names.0.len(), 2);
    }
}
