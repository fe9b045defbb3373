//! Translation: which addresses and ports a new flow gets (`nat`, `rdr`, `binat`; `nat-to`, `rdr-to`, `binat-to`, `af-to`).
//!
//! A packet without a state is translated before the filter rules look at it, as far as the packet as they see it goes;
//! its octets change only when it passes, so that what is blocked is answered as it came. The choice is kept in the
//! state's two keys (see [`crate::state`]): every later packet of the flow, and every ICMP error about one, is
//! rewritten from the state and no rule is asked.
//!
//! A source port is free if no state has the key that the flow would get on the wire: the same port serves many
//! destinations. With `endpoint-independent` a sender keeps the port that it has got (see [`mapping`]).

pub(crate) mod family;
pub(crate) mod mapping;
mod pool;
mod ports;
pub(crate) mod rewrite;

use kern::{
    Why,
    lock::{Held, levels::PfRules},
};
use wire::IpProto;

use crate::{
    addr::Prefix,
    packet::Packet,
    pool::{Pool, PoolPorts},
    random::Random,
    rule::Direction,
    state::{States, key::Key},
};
pub(crate) use family::FamilyChange;
use mapping::{Choices, Claim, Endpoint, Mapping};
pub(crate) use pool::{Addresses, Item};
use ports::Choice;
pub(crate) use ports::SourcePorts;

/// Ports that are tried before a source is given up: all of a small range, a sample of a large one.
const PORT_TRIES: u32 = 1024;
/// Source ports that are tried for a redirected flow whose own is taken.
const REDIRECT_TRIES: u32 = 16;

/// What a rule does to addresses.
#[derive(Debug)]
pub(crate) enum Translate {
    /// The source.
    Source(Source),
    /// The destination, and which port it gets.
    Destination(Addresses, Option<Offset>),
    /// Both, of the other family.
    Family(Box<FamilyChange>),
}

/// A destination port: `to`, or as far beyond it as the packet's is beyond `from`, going round after `span`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offset {
    from: u16,
    to: u16,
    span: u16,
}

impl Offset {
    fn of(self, port: u16) -> u16 {
        self.to.wrapping_add(port.wrapping_sub(self.from) % self.span.max(1))
    }
}

/// What sources become.
#[derive(Debug)]
pub(crate) struct Source {
    addresses: Addresses,
    /// Which ports they may get.
    ports: SourcePorts,
    /// Those of UDP keep what they got (`endpoint-independent`).
    keeps: bool,
}

impl Source {
    /// Whether a sender may have got this from here.
    fn has(&self, inside: &Endpoint, outside: &Endpoint) -> bool {
        self.addresses.has(outside.family, outside.address) && self.ports.have(inside.port, outside.port)
    }

    fn makes_mapping(&self, p: &Packet) -> bool {
        self.keeps && IpProto(p.proto) == IpProto::UDP
    }
}

impl Translate {
    /// A source translation, of the pool's addresses as this router has them.
    pub(crate) fn source(pool: &Pool, items: &[Item], random: &mut Random) -> Translate {
        let addresses = Addresses::new(items, pool.method, pool.sticky, random);
        Translate::Source(Source {
            addresses,
            ports: SourcePorts::of(pool),
            keeps: pool.endpoint_independent,
        })
    }

    /// A destination translation; `from` is the first port of the rule's destination.
    pub(crate) fn destination(pool: &Pool, items: &[Item], from: u16, random: &mut Random) -> Translate {
        let offset = match pool.ports {
            PoolPorts::Range(to, 0) => Some(Offset { from, to, span: 1 }),
            PoolPorts::Range(to, last) => {
                Some(Offset { from, to, span: last.saturating_sub(to).saturating_add(1) })
            }
            _ => None,
        };
        Translate::Destination(Addresses::new(items, pool.method, pool.sticky, random), offset)
    }

    /// Whether a source keeps the address it got.
    pub(crate) fn is_sticky(&self) -> bool {
        match self {
            Translate::Source(Source { addresses, .. }) | Translate::Destination(addresses, _) => {
                addresses.sticky
            }
            Translate::Family(_) => false,
        }
    }

    /// Whether packets become those of the other family.
    pub(crate) fn changes_family(&self) -> bool {
        matches!(self, Translate::Family(_))
    }

    /// The direction of the key that a packet gets: one of another family goes on by itself, and its answers come in.
    pub(crate) fn key_direction(&self, direction: Direction) -> Direction {
        if self.changes_family() { Direction::Out } else { direction }
    }

    /// One side of `binat`, which keeps ports and the bits of the host.
    pub(crate) fn binat(prefix: Prefix, source: bool, random: &mut Random) -> Translate {
        let addresses = Addresses::new(&[prefix.into()], None, false, random);
        if source {
            Translate::Source(Source { addresses, ports: SourcePorts::Static, keeps: false })
        } else {
            Translate::Destination(addresses, None)
        }
    }
}

/// What choosing needs besides the rule.
pub(crate) struct Chooser<'a, 'h> {
    pub(crate) states: &'a States,
    pub(crate) held: &'a mut Held<'h, PfRules>,
    pub(crate) choices: &'a mut Choices,
    pub(crate) direction: Direction,
    /// Who sent the packet, as it came.
    pub(crate) sender: Endpoint,
}

impl Chooser<'_, '_> {
    /// Gives `p` what a rule says; `sticky` is the address that its source got before.
    /// Returns the address that was chosen.
    pub(crate) fn apply(
        &mut self,
        to: &Translate,
        p: &mut Packet,
        sticky: Option<u128>,
    ) -> Result<u128, Why> {
        match to {
            Translate::Source(source) => {
                self.source(source, p, sticky)?;
                Ok(p.src)
            }
            Translate::Destination(addresses, offset) => {
                self.destination(addresses, *offset, p, sticky)?;
                Ok(p.dst)
            }
            Translate::Family(change) => {
                self.change_family(change, p)?;
                Ok(p.src)
            }
        }
    }

    fn source(&mut self, source: &Source, p: &mut Packet, sticky: Option<u128>) -> Result<(), Why> {
        // An earlier rule may have chosen what this one replaces.
        self.states.let_go(self.held, self.choices);
        if source.makes_mapping(p) && self.follow(source, p) {
            return Ok(());
        }
        let addresses = &source.addresses;
        let sticky = sticky.filter(|&a| addresses.has(p.family, a));
        let tries = if sticky.is_some() { 1 } else { addresses.tries(p.family) };
        for _ in 0..tries.max(1) {
            let chosen = sticky.or_else(|| addresses.pick(p.family, p.src, p.src, &mut self.choices.random));
            let mut as_it_would_be = *p;
            as_it_would_be.src = chosen.ok_or(Why::PfTranslate)?;
            let fits = |chooser: &mut Self, p: &mut Packet| {
                if source.makes_mapping(p) { chooser.claims(source, p) } else { chooser.is_nobodys(p) }
            };
            if self.choose_port(source.ports, &mut as_it_would_be, fits) {
                *p = as_it_would_be;
                return Ok(());
            }
        }
        Err(Why::PfTranslate)
    }

    /// Gives a packet the source that its sender has already, if it could have got that here. There is no other for it, so
    /// nobody asks whether it is free for the packet's destination: whether a state may have it is seen where it is put in,
    /// which knows of states that are bound to interfaces, and of other workers.
    #[cold]
    fn follow(&mut self, source: &Source, p: &mut Packet) -> bool {
        let inside = self.sender;
        let taken = self.states.mappings.take(self.held, &inside, |outside| source.has(&inside, outside));
        if let Some(outside) = taken {
            self.choices.mapped = Some((Mapping { inside, outside }, false));
            outside.send(p);
        }
        taken.is_some()
    }

    /// Whether a source is free, and now the sender's; or another that its sender has got meanwhile.
    #[cold]
    fn claims(&mut self, source: &Source, p: &mut Packet) -> bool {
        if !self.is_free(p) {
            return false;
        }
        let (inside, outside) = (self.sender, Endpoint::of(p));
        let serves = |outside: &Endpoint| source.has(&inside, outside);
        match self.states.mappings.claim(self.held, &Mapping { inside, outside }, serves) {
            Claim::Taken => false,
            Claim::Made => {
                self.choices.mapped = Some((Mapping { inside, outside }, true));
                true
            }
            Claim::Follows(outside) => {
                self.choices.mapped = Some((Mapping { inside, outside }, false));
                outside.send(p);
                true
            }
        }
    }

    fn choose_port(
        &mut self,
        ports: SourcePorts,
        p: &mut Packet,
        mut fits: impl FnMut(&mut Self, &mut Packet) -> bool,
    ) -> bool {
        match ports.choice(IpProto(p.proto)) {
            Some(choice) => self.search(choice, PORT_TRIES, p, fits),
            None => fits(self, p),
        }
    }

    /// Tries ports from a random one on, round all there are, until one fits.
    fn search(
        &mut self,
        ports: Choice,
        tries: u32,
        p: &mut Packet,
        mut fits: impl FnMut(&mut Self, &mut Packet) -> bool,
    ) -> bool {
        let n = ports.count();
        let begin = self.choices.random.below(n);
        // A step that has no divisor in common with most ranges spreads the sample; a small range is walked through.
        let step = if n > tries { 2 * self.choices.random.below(n / 2) + 1 } else { 1 };
        let mut at = begin;
        for _ in 0..n.min(tries) {
            p.set_source_port(ports.at(at));
            if fits(self, p) {
                return true;
            }
            at = (at + step) % n;
        }
        false
    }

    fn destination(
        &mut self,
        addresses: &Addresses,
        offset: Option<Offset>,
        p: &mut Packet,
        sticky: Option<u128>,
    ) -> Result<(), Why> {
        let sticky = sticky.filter(|&a| addresses.has(p.family, a));
        let chosen = sticky.or_else(|| addresses.pick(p.family, p.src, p.dst, &mut self.choices.random));
        p.dst = chosen.ok_or(Why::PfTranslate)?;
        let has_ports = matches!(IpProto(p.proto), IpProto::TCP | IpProto::UDP);
        if let Some(offset) = offset.filter(|_| has_ports) {
            p.dport = offset.of(p.dport);
        }
        // Two destinations of one source may be redirected to the same place: the source's port tells them apart.
        let is_free = self.is_free(p)
            || (has_ports && self.search(Choice::USUAL, REDIRECT_TRIES, p, |chooser, p| chooser.is_free(p)));
        if is_free { Ok(()) } else { Err(Why::PfTranslate) }
    }

    fn is_free(&mut self, p: &Packet) -> bool {
        let key = p.key(self.direction);
        !self.states.has_key(self.held, &key)
    }

    /// The same, and that no sender of UDP keeps the source for itself.
    fn is_nobodys(&mut self, p: &Packet) -> bool {
        let is_kept =
            IpProto(p.proto) == IpProto::UDP && self.states.mappings.have(self.held, &Endpoint::of(p));
        !is_kept && self.is_free(p)
    }
}

impl Packet {
    /// Its key.
    pub(crate) fn key(&self, direction: Direction) -> Key {
        let mut key = Key::EMPTY;
        key.fill(direction, self);
        key
    }

    /// Gives it another source port, or ICMP identifier.
    fn set_source_port(&mut self, port: u16) {
        self.sport = port;
        if matches!(IpProto(self.proto), IpProto::ICMP | IpProto::ICMPV6) {
            self.dport = port;
        }
    }
}
