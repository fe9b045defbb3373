//! The packet log (pflog(4)): packets that rules with `log` decide on, each behind a header that says which rule it was.
//!
//! A packet is shown as it is when pf is done with it: translated if it passes. Of a connection that is its first packet,
//! with `log (all)` every one. pf neither stores nor waits: whoever wants to see packets gives a [`Logger`] to
//! [`PfCx::show`](crate::PfCx::show) for a batch, and without one a rule that logs costs what one without does.
//!
//! ```text
//!   0      1        2        3        4            20          36       40          44 ... 60    61    64            68       72
//!   ├──────┼────────┼────────┼────────┼────────────┼───────────┼────────┼───────────┼─────────┼─────┼─────────────┼────────┤
//!   │ 69   │ family │ action │ reason │ interface  │ ruleset   │ rule   │ rule in   │ users,  │ dir │ ridentifier │ nought │
//!   │      │        │        │        │            │ of anchor │        │ anchor    │ process │     │             │        │
//! ```
//!
//! That is `struct pfloghdr` of FreeBSD's net/if_pflog.h, link type PFLOG (117). Numbers and identifiers of rules are in network order. Users
//! and processes are those of the packet's socket, if the rule says `log (user)` and this host has the socket, and those of
//! who has loaded the rules.

use std::net::IpAddr;

use kern::Why;

use crate::{
    IfIndex,
    rule::{Action, Direction, Log},
    verdict::Verdict,
};

/// Octets of the header.
pub const HEADER: usize = 72;
/// The number of the link type.
pub const LINK_TYPE: u16 = 117;
/// How many logs there are: `pflog0` to `pflog15` (BSD: `PFLOGIFS_MAX`).
pub const LOGS: u8 = 16;

/// What its first octet says: what is behind is padding (BSD: `PFLOG_REAL_HDRLEN`).
const REAL: u8 = 69;
/// `AF_INET` of the BSDs, and `AF_INET6` of FreeBSD.
const FAMILIES: [u8; 2] = [2, 28];
/// Octets of a name, the nought at its end included.
const NAME: usize = 16;
/// No rule, no user.
const NONE: u32 = u32::MAX;
/// No process (BSD: `NO_PID`).
const NO_PROCESS: u32 = 100_000;

/// Where a packet is logged, and with what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Where {
    /// Which log.
    pub(crate) to: u8,
    /// With the user of its socket.
    pub(crate) user: bool,
}

impl From<Log> for Where {
    fn from(log: Log) -> Where {
        Where { to: log.to, user: log.user }
    }
}

/// A user, and a process of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The process's.
    pub pid: u32,
}

impl Owner {
    /// Nobody.
    pub const NOBODY: Owner = Owner { uid: NONE, pid: NO_PROCESS };
}

/// Who is shown logged packets.
pub trait Logger {
    /// A packet of which a rule says `log`, or `log (to pflogN)`; it begins at its IP header.
    fn log(&mut self, record: &Record<'_>, packet: &[u8]);
}

/// Why a packet is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Which log: 0 for `pflog0`.
    pub to: u8,
    /// Which way it goes.
    pub direction: Direction,
    /// The interface that it is at.
    pub interface: IfIndex,
    /// What becomes of it.
    pub action: Logged,
    /// Why.
    pub reason: Reason,
    /// The number of the rule in the main ruleset: it decides, or it calls the anchor with the rule that does.
    pub rule: u32,
    /// The number of the rule in its anchor.
    pub in_anchor: Option<u32>,
    /// What the rule that decides says `ridentifier`; 0 is nothing.
    pub identifier: u32,
    /// The path of that anchor.
    pub anchor: &'a str,
    /// The user of its socket is to be told, if this host has one (`log (user)`).
    pub user: bool,
    /// The router itself has sent it.
    pub own: bool,
    /// Source address and port with which it came to pf: those of its socket if it is own, whatever translation makes
    /// of them.
    pub source: (IpAddr, u16),
}

/// What becomes of a logged packet (BSD: `PF_PASS` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Logged {
    /// It passes.
    Pass = 0,
    /// It ends.
    Block = 1,
    /// A nat rule has translated it.
    Nat = 4,
    /// A binat rule has.
    Binat = 6,
    /// A rdr rule has.
    Rdr = 8,
    /// The router answers in the server's place.
    Synproxy = 10,
    /// A match rule has matched; nothing is decided.
    Match = 12,
}

impl Logged {
    /// What a rule does to a packet that passes.
    pub(crate) const fn of(action: Action) -> Logged {
        match action {
            Action::Block(_) => Logged::Block,
            Action::Match => Logged::Match,
            Action::Nat => Logged::Nat,
            Action::Binat => Logged::Binat,
            Action::Rdr => Logged::Rdr,
            _ => Logged::Pass,
        }
    }
}

/// Why (BSD: `PFRES_MATCH` and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// A rule says so.
    Match = 0,
    /// It is a fragment.
    Fragment = 2,
    /// It is too short for its protocol.
    Short = 3,
    /// It is longer than a rule allows.
    Normalize = 4,
    /// Its timestamp is not of its connection.
    Timestamp = 6,
    /// It has options that no rule allows.
    Options = 8,
    /// It does not fit its state.
    StateMismatch = 10,
    /// Its state collides with another.
    StateInsert = 11,
    /// There are too many states.
    StateLimit = 12,
    /// Its source has too many states or connections.
    SourceLimit = 13,
    /// It is of a handshake that the router completes.
    Synproxy = 14,
    /// Translation has no address or port for it, or no next hop is known.
    Translate = 15,
}

impl Reason {
    /// Why a packet ends.
    pub(crate) const fn of(why: Why) -> Reason {
        match why {
            Why::PfFragment => Reason::Fragment,
            Why::PfShort => Reason::Short,
            Why::PfNormalize => Reason::Normalize,
            Why::PfTimestamp => Reason::Timestamp,
            Why::PfOptions => Reason::Options,
            Why::PfStateMismatch => Reason::StateMismatch,
            Why::PfStateInsert => Reason::StateInsert,
            Why::PfStateLimit => Reason::StateLimit,
            Why::PfSrcLimit => Reason::SourceLimit,
            Why::PfSynproxy => Reason::Synproxy,
            Why::PfTranslate | Why::PfRoute => Reason::Translate,
            _ => Reason::Match,
        }
    }
}

/// What became of a packet that a rule of this kind has decided on, and why.
pub(crate) const fn outcome(verdict: &Verdict, action: Action) -> (Logged, Reason) {
    match *verdict {
        Verdict::Pass(_) | Verdict::Route(..) | Verdict::Copy(..) => (Logged::of(action), Reason::Match),
        Verdict::Block(Why::PfSynproxy) => (Logged::Synproxy, Reason::Synproxy),
        Verdict::Block(why) | Verdict::Return(_, why) => (Logged::Block, Reason::of(why)),
    }
}

impl Record<'_> {
    /// What stands before the packet; `interface` is the name of the interface, `packet` what is logged, `owner` who has
    /// its socket and `loader` who has loaded the rules.
    pub fn header(&self, interface: &str, packet: &[u8], owner: Owner, loader: Owner) -> [u8; HEADER] {
        let is_inet6 = packet.first().is_some_and(|octet| octet >> 4 == 6);
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&[
            REAL,
            FAMILIES[usize::from(is_inet6)],
            self.action as u8,
            self.reason as u8,
        ]);
        name(&mut header[4..20], interface);
        name(&mut header[20..36], self.anchor);
        let numbers = [self.rule, self.in_anchor.unwrap_or(NONE)].map(u32::to_be_bytes);
        header[36..44].copy_from_slice(numbers.as_flattened());
        // In the order of the machine, as on BSD.
        let owners = [owner.uid, owner.pid, loader.uid, loader.pid].map(u32::to_ne_bytes);
        header[44..60].copy_from_slice(owners.as_flattened());
        header[60] = self.direction as u8;
        header[64..68].copy_from_slice(&self.identifier.to_be_bytes());
        header
    }
}

/// Writes a name, as much of it as fits before the nought at its end.
fn name(place: &mut [u8], name: &str) {
    let end = name.floor_char_boundary(NAME - 1);
    place[..end].copy_from_slice(&name.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn the_header_is_that_of_freebsd() {
        let record = Record {
            to: 0,
            direction: Direction::Out,
            interface: IfIndex(2),
            action: Logged::Block,
            reason: Reason::StateLimit,
            rule: 7,
            in_anchor: Some(258),
            identifier: 1234,
            anchor: "a name/of more than sixteen",
            user: false,
            own: false,
            source: (Ipv4Addr::LOCALHOST.into(), 9),
        };
        let loader = Owner { uid: 7, pid: 300 };
        let header = record.header("wan0", &[0x45, 0], Owner::NOBODY, loader);
        assert_eq!(header[..4], [69, 2, 1, 12]);
        assert_eq!(&header[4..20], b"wan0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(&header[20..36], b"a name/of more \0");
        assert_eq!(header[36..44], [0, 0, 0, 7, 0, 0, 1, 2]);
        let owners = header[44..60].chunks(4).map(|o| u32::from_ne_bytes(o.try_into().unwrap()));
        assert_eq!(owners.collect::<Vec<_>>(), [u32::MAX, 100_000, 7, 300]);
        assert_eq!(header[60..], [2, 0, 0, 0, 0, 0, 4, 210, 0, 0, 0, 0]);
        let main = Record { in_anchor: None, anchor: "", ..record };
        let header = main.header("lan0", &[0x60, 0], loader, loader);
        assert_eq!((header[1], &header[20..36], &header[40..44]), (28, &[0; 16][..], &[0xff; 4][..]));
        assert_eq!(header[44..52], header[52..60]);
    }
}
