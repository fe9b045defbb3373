//! Profiles: which locks, which faults, which extra paths run, and what is expected of each.

use super::locks::{self, CALLBACKS52, FINE, GIANT, NETBSD52, NETBSD2013, Path, Table};

/// A profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The whole map of February 2013.
    Netbsd2013,
    /// The same two locks, round every enqueue.
    Giant,
    /// One lock a queue.
    Fine,
    /// `ipintrq` has two producers under two locks: links and tail.
    A,
    /// The same, links right, `ifq_len` not, and a loop that believes it.
    ALen,
    /// The same for `ip6intrq`, which is not spliced.
    A6,
    /// IPv6 `if_output` without `KERNEL_LOCK`, on `if_snd`.
    B,
    /// The callbacks of NetBSD 5.2, without any lock.
    C,
    /// B on the circular list of an ALTQ class.
    D,
    /// pf's fragments purged under another lock than they are kept.
    E,
    /// pf's route-to calls `if_output` without `KERNEL_LOCK`.
    F,
    /// `crypto_unblock` lost while a request is put back.
    G,
    /// SA reference counts without a lock: a negative control.
    H,
    /// The completion queue without a limit: a control of the verdict.
    I,
    /// A packet sees half of a new configuration: a negative control.
    J,
    /// Plain cluster reference counts. Never true of NetBSD.
    X1,
    /// An error path that forgets to free. Never found in NetBSD.
    X2,
    /// The map of 2013 with `splnet` doing nothing: the positive control of one CPU.
    SplOff,
}

/// What `if_snd` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snd {
    /// The router's own discipline and queue.
    Discipline,
    /// A list with head and tail.
    Fifo,
    /// A circular list with a tail.
    Circular,
}

/// An extra path that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// None.
    None,
    /// The host sends IPv6 by itself.
    Host6,
    /// Fragments, and their purge.
    Fragments,
    /// Packets that pf routes.
    RouteTo,
    /// A crypto driver that may be busy.
    Hardware,
    /// References to the SA.
    Refs,
    /// A completion thread slower than the softint.
    Slow,
    /// Rules change all the time.
    Ioctl,
    /// Packets are captured.
    Capture,
    /// Some packets do not verify.
    Errors,
}

/// What a profile is made of.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Who takes what.
    pub table: Table,
    /// `ipintr` takes the whole queue onto its stack (2013) or packet by packet (5.2).
    pub splice: bool,
    /// ... and believes its length.
    pub by_len: bool,
    /// `ifq_len++` as load and store, or locked.
    pub plain_len: bool,
    /// Links are made under the queue's own lock, the count is not.
    pub links_locked: bool,
    /// What `if_snd` is.
    pub snd: Snd,
    /// Whether splnet masks interrupts.
    pub spl: bool,
    /// `la_hold` is in use.
    pub la_hold: bool,
    /// What runs besides.
    pub extra: Extra,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Profile; 18] = [
        Profile::Netbsd2013,
        Profile::Giant,
        Profile::Fine,
        Profile::A,
        Profile::ALen,
        Profile::A6,
        Profile::B,
        Profile::C,
        Profile::D,
        Profile::E,
        Profile::F,
        Profile::G,
        Profile::H,
        Profile::I,
        Profile::J,
        Profile::X1,
        Profile::X2,
        Profile::SplOff,
    ];

    /// As the command line and reports have it.
    pub const fn name(self) -> &'static str {
        match self {
            Profile::Netbsd2013 => "netbsd2013",
            Profile::Giant => "giant",
            Profile::Fine => "fine",
            Profile::A => "A",
            Profile::ALen => "A-len",
            Profile::A6 => "A6",
            Profile::B => "B",
            Profile::C => "C",
            Profile::D => "D",
            Profile::E => "E",
            Profile::F => "F",
            Profile::G => "G",
            Profile::H => "H",
            Profile::I => "I",
            Profile::J => "J",
            Profile::X1 => "X1",
            Profile::X2 => "X2",
            Profile::SplOff => "spl-off",
        }
    }

    /// The profile of that name.
    pub fn named(name: &str) -> Option<Profile> {
        Profile::ALL.into_iter().find(|p| p.name().eq_ignore_ascii_case(name))
    }

    /// One line on it.
    pub const fn text(self) -> &'static str {
        match self {
            Profile::Netbsd2013 => "the lock map of February 2013",
            Profile::Giant => "the same two locks, round every enqueue",
            Profile::Fine => "one lock a queue",
            Profile::A => "ipintrq: K here, S there",
            Profile::ALen => "ipintrq: ifq_len alone unprotected",
            Profile::A6 => "ip6intrq: K here, S there",
            Profile::B => "IPv6 if_output without K, if_snd",
            Profile::C => "callbacks of 5.2, no lock",
            Profile::D => "B on an ALTQ class list",
            Profile::E => "pf fragments: S here, K there",
            Profile::F => "pf route-to without K",
            Profile::G => "crypto_unblock lost",
            Profile::H => "control: SA reference counts",
            Profile::I => "control: crp_ret_q without limit",
            Profile::J => "control: half a new ruleset",
            Profile::X1 => "never NetBSD: plain cluster counts",
            Profile::X2 => "never NetBSD: an error path forgets",
            Profile::SplOff => "2013 with splnet off",
        }
    }

    /// What it is made of.
    pub fn rules(self) -> Rules {
        let sound = Rules {
            table: GIANT,
            splice: true,
            by_len: false,
            plain_len: true,
            links_locked: false,
            snd: Snd::Discipline,
            spl: true,
            la_hold: false,
            extra: Extra::None,
        };
        let but = |paths: &[Path]| Rules { table: locks::giant_but(paths), ..sound.clone() };
        match self {
            Profile::Netbsd2013 => Rules { table: NETBSD2013, by_len: true, snd: Snd::Circular, ..sound },
            Profile::SplOff => Rules { spl: false, ..Profile::Netbsd2013.rules() },
            Profile::Giant => sound,
            Profile::Fine => Rules { table: FINE, ..sound },
            Profile::A => Rules { plain_len: false, ..but(&[Path::Handoff]) },
            Profile::ALen => Rules { links_locked: true, by_len: true, ..but(&[Path::Handoff]) },
            Profile::A6 => but(&[Path::Handoff6]),
            Profile::B => Rules { snd: Snd::Fifo, extra: Extra::Host6, ..but(&[Path::IfOutputHost6]) },
            Profile::D => Rules { snd: Snd::Circular, extra: Extra::Host6, ..but(&[Path::IfOutputHost6]) },
            Profile::C => Rules {
                table: locks::giant_with(NETBSD52.iter().chain(&CALLBACKS52)),
                splice: false,
                snd: Snd::Circular,
                la_hold: true,
                ..sound
            },
            Profile::E => Rules { extra: Extra::Fragments, ..but(&[Path::Fragment, Path::Purge]) },
            Profile::F => Rules { snd: Snd::Fifo, extra: Extra::RouteTo, ..but(&[Path::RouteTo]) },
            Profile::G => Rules { extra: Extra::Hardware, ..sound },
            Profile::H => Rules {
                extra: Extra::Refs,
                // Callers without S.
                table: locks::giant_with(&CALLBACKS52),
                ..sound
            },
            Profile::I => Rules { extra: Extra::Slow, ..sound },
            Profile::J => Rules { extra: Extra::Ioctl, ..but(&[Path::Ioctl]) },
            Profile::X1 => Rules { extra: Extra::Capture, ..sound },
            Profile::X2 => Rules { extra: Extra::Errors, ..sound },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_is_found_by_its_name() {
        for profile in Profile::ALL {
            assert_eq!(Profile::named(profile.name()), Some(profile));
        }
        assert_eq!(Profile::named("netbsd2014"), None);
    }
}
