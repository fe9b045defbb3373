//! `pfctl -k` and `-K`: states and source nodes that end because somebody says so.

use super::{Daemon, pf::done};
use crate::control::pf::{DoneReport, Kill};
use pf::{
    StateInfo,
    addr::{Family, Prefix, bits},
    table::parse_entry,
};
use std::net::{IpAddr, SocketAddr};

impl Daemon {
    pub(super) fn kill(&mut self, which: &Kill, interface: Option<&str>) -> Result<DoneReport, String> {
        let count = match which {
            Kill::Id(id) => {
                let (id, creator) = state_id(id)?;
                self.kill_states(interface, |s| s.id == id && creator.is_none_or(|by| by == s.creator))?
            }
            Kill::Label(label) => {
                let shared = self.router.shared().clone();
                self.kill_states(interface, |s| shared.pf.slab().is_labelled(s.slot, label))?
            }
            Kill::Nat(host) => {
                let host = self::host(host)?;
                self.kill_states(interface, |s| is_translated_to(s, &host))?
            }
            Kill::Gateway(host) => {
                let host = self::host(host)?;
                self.kill_states(interface, |s| s.gateway.is_some_and(|gateway| within(&host, gateway)))?
            }
            Kill::Key(key) => {
                let key = Key::parse(key, &crate::commit::environment(&self.files.conf))?;
                self.kill_states(interface, |s| key.is_of(s))?
            }
            Kill::Hosts(from, to) => {
                let from = host(from)?;
                let to = to.as_deref().map(host).transpose()?;
                let count = self.kill_states(interface, |s| {
                    let [(a, _), (b, _)] = s.wire;
                    within(&from, a) && to.as_ref().is_none_or(|to| within(to, b))
                })?;
                let text = format!(
                    "killed {count} states from 1 sources and {} destinations",
                    u8::from(to.is_some())
                );
                return Ok(done(&text, count));
            }
        };
        Ok(done(&format!("killed {count} states"), count))
    }

    /// Ends states, of one interface if that is named.
    pub(super) fn kill_states(
        &mut self,
        interface: Option<&str>,
        mut doomed: impl FnMut(&StateInfo) -> bool,
    ) -> Result<u64, String> {
        let unknown = |name: &str| format!("there is no interface {name}");
        let index = |name: &str| self.files.conf.named(name).map(|i| i.index.0).ok_or_else(|| unknown(name));
        let index = interface.map(index).transpose()?;
        let shared = self.router.shared().clone();
        let here = |s: &StateInfo| index.is_none_or(|index| s.ifindex == index);
        let killed = shared.pf.kill_states(&mut self.root.top().at(), |s| here(s) && doomed(s));
        Ok(killed.into())
    }

    /// `-k source`: a source limiter begins with a source as if it had never been.
    pub(super) fn forget_source(&mut self, id: u8, source: &str) -> Result<DoneReport, String> {
        let source: IpAddr = source.parse().map_err(|_| format!("invalid host: {source}"))?;
        let shared = self.router.shared().clone();
        let forgotten = shared.pf.forget_source(&mut self.root.top().at(), id, source);
        let states = forgotten.ok_or_else(|| format!("source limiter {id} has no source {source}"))?;
        Ok(done(&format!("source {source} of limiter {id} forgotten, {states} states detached"), 1))
    }

    /// `-K`: the nodes of sources, or of those that have got an address.
    pub(super) fn kill_sources(&mut self, from: &str, to: Option<&str>) -> Result<DoneReport, String> {
        let from = host(from)?;
        let to = to.map(host).transpose()?;
        let shared = self.router.shared().clone();
        let doomed = |source: IpAddr, address: Option<IpAddr>| {
            within(&from, source) && to.as_ref().is_none_or(|to| address.is_some_and(|a| within(to, a)))
        };
        let count = shared.pf.kill_sources(&mut self.root.top().at(), doomed);
        let destinations = u8::from(to.is_some());
        let text = format!("killed {count} src nodes from 1 sources and {destinations} destinations");
        Ok(done(&text, count.into()))
    }
}

/// `tcp 10.0.0.1:22 <- 10.0.0.101:32123`
struct Key {
    proto: u8,
    from: SocketAddr,
    to: SocketAddr,
}

impl Key {
    fn parse(text: &str, env: &pf::Environment) -> Result<Key, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let &[proto, a, way, b] = &words[..] else {
            return Err("a key is `protocol host1:port1 direction host2:port2`".into());
        };
        let proto = env.protocol(proto).ok_or_else(|| format!("invalid protocol: {proto}"))?;
        let (from, to) = match way {
            "->" => (a, b),
            "<-" => (b, a),
            _ => return Err(format!("invalid direction: {way}")),
        };
        Ok(Key { proto, from: place(from)?, to: place(to)? })
    }

    fn is_of(&self, state: &StateInfo) -> bool {
        let [from, to] = state.wire.map(|(address, port)| SocketAddr::new(address, port));
        state.proto == self.proto && (from, to) == (self.from, self.to)
    }
}

/// `10.0.0.1:22`, `2001:db8::1[22]` as pf prints it, `[2001:db8::1]:22`; a port of 0 may be left out.
fn place(text: &str) -> Result<SocketAddr, String> {
    let bracketed = text.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
    let pf = bracketed.and_then(|(a, port)| Some(SocketAddr::new(a.parse().ok()?, port.parse().ok()?)));
    let plain = || text.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0));
    text.parse().ok().or(pf).or_else(plain).ok_or_else(|| format!("invalid host: {text}"))
}

/// `0000000000000abc`, `0000000000000abc/0badcafe`: a state's number, and that of who has made it.
fn state_id(text: &str) -> Result<(u64, Option<u32>), String> {
    let (id, creator) = text.split_once('/').map_or((text, None), |(id, by)| (id, Some(by)));
    let wrong = |_| format!("cannot parse state id `{text}`");
    let creator = creator.map(|by| u32::from_str_radix(by, 16)).transpose().map_err(wrong)?;
    Ok((u64::from_str_radix(id, 16).map_err(wrong)?, creator))
}

/// A host or network of `-k`.
fn host(text: &str) -> Result<Prefix, String> {
    parse_entry(text).map(|e| e.prefix)
}

fn within(prefix: &Prefix, address: IpAddr) -> bool {
    let (first, last) = prefix.range();
    prefix.family() == Family::of(address) && (first..=last).contains(&bits(address))
}

/// Whether an address that translation has put in is of this host or network.
fn is_translated_to(state: &StateInfo, host: &Prefix) -> bool {
    state
        .wire
        .iter()
        .zip(&state.stack)
        .any(|(wire, stack)| wire != stack && (within(host, wire.0) || within(host, stack.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_named_by_its_number_and_its_creators() {
        assert_eq!(state_id("0000000000000abc"), Ok((0xabc, None)));
        assert_eq!(state_id("abc/0000000f"), Ok((0xabc, Some(15))));
        assert!(state_id("abc/").is_err() && state_id("xyz").is_err() && state_id("/1").is_err());
    }

    #[test]
    fn a_key_is_read_as_pf_prints_it() {
        let env = pf::Environment::default();
        let key = Key::parse("tcp 10.0.0.1:22 <- 10.0.0.101:32123", &env).unwrap();
        assert_eq!((key.proto, key.from.to_string().as_str()), (6, "10.0.0.101:32123"));
        let key = Key::parse("udp 2001:db8::1[53] -> 2001:db8::2[4000]", &env).unwrap();
        assert_eq!((key.from.port(), key.to.to_string().as_str()), (53, "[2001:db8::2]:4000"));
        for wrong in
            ["tcp 10.0.0.1:22", "tcp 10.0.0.1:22 = 10.0.0.2:1", "carp a -> b", "nothing 1.2.3.4 -> 1.2.3.5"]
        {
            assert!(Key::parse(wrong, &env).is_err(), "{wrong}");
        }
    }
}
