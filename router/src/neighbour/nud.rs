//! Neighbour unreachability detection (RFC 4861, 7.3): decisions about one neighbour. No table, no packets, no clock.
//!
//! ```text
//!               answered                       30 s (ARP: 20 min)
//!  INCOMPLETE ───────────► REACHABLE ─────────────────────────────► STALE ──► forgotten after an hour
//!      │ not answered          ▲                                     │ used
//!      ▼                       │ answered                            ▼
//!   unreachable ◄─────────── PROBE ◄───────────────────────────── DELAY
//!               not answered            5 s without a sign of life
//! ```
//!
//! ARP has no such machine of its own; we use this one for it, with BSD's times: an answer is believed for twenty minutes
//! (`arptimer`), a request is repeated each second and five times in all. Not done: hints of reachability from upper layers
//! (a router has none for what it forwards).

use kern::time::Instant;
use wire::Mac;

const SECOND: u64 = 1_000_000_000;

/// How sure we are of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Asked for and not known yet.
    Incomplete,
    /// Heard of lately, both ways.
    Reachable,
    /// Known, and not heard of for a while.
    Stale,
    /// Stale and in use: asked soon unless it shows a sign of life.
    Delay,
    /// In use and being asked.
    Probe,
}

impl State {
    /// The name that `netstat -n` prints.
    pub fn name(self) -> &'static str {
        match self {
            State::Incomplete => "incomplete",
            State::Reachable => "reachable",
            State::Stale => "stale",
            State::Delay => "delay",
            State::Probe => "probe",
        }
    }
}

/// The times of a protocol.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    /// An answer is believed for between half and one and a half of this.
    reachable: u64,
    /// Questions for an unknown neighbour.
    max_broadcast: u8,
}

/// Neighbour discovery (RFC 4861, 10).
pub(super) const ND: Timing = Timing { reachable: 30 * SECOND, max_broadcast: 3 };
/// ARP, with the times of BSD's `arptimer`, `arp_maxtries`.
pub(super) const ARP: Timing = Timing { reachable: 20 * 60 * SECOND, max_broadcast: 5 };

/// Questions to a neighbour that was known.
const MAX_UNICAST: u8 = 3;
/// Between two questions.
const RETRANS: u64 = SECOND;
/// A stale neighbour in use is asked after this.
const DELAY_FIRST_PROBE: u64 = 5 * SECOND;
/// A neighbour that nobody uses is forgotten after this.
const FORGET: u64 = 3600 * SECOND;

/// What somebody said about a neighbour's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It spoke itself: the source of a solicitation or of an ARP request. Its way to us works; ours to it may not.
    Source,
    /// An advertisement or an ARP reply.
    Advert {
        /// It answers our question.
        solicited: bool,
        /// It replaces what we know.
        overrides: bool,
        /// Whether the neighbour calls itself a router, if the message says.
        router: Option<bool>,
    },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// The address was not known before and is now.
    pub resolved: bool,
    /// The address is another than before.
    pub changed: bool,
}

/// What to do when a neighbour's time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fired {
    /// Nothing.
    Nothing,
    /// Ask everyone.
    AskAll,
    /// Ask the neighbour.
    AskOne(Mac),
    /// It did not answer: forget it, and tell those who waited.
    Unreachable,
    /// Nobody needs it: forget it.
    Unused,
}

/// What is known about one neighbour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nud {
    pub state: State,
    /// Valid unless incomplete.
    pub mac: Mac,
    /// It called itself a router.
    pub router: bool,
    /// When the state ends by itself.
    pub at: Instant,
    /// Questions asked in this state.
    tries: u8,
}

impl Nud {
    /// A neighbour that is asked for the first time, now.
    pub(super) fn asked(now: Instant) -> Nud {
        Nud { state: State::Incomplete, mac: Mac::ZERO, router: false, at: now.after(RETRANS), tries: 1 }
    }

    /// A neighbour that made itself known.
    pub(super) fn introduced(mac: Mac, now: Instant) -> Nud {
        Nud { state: State::Stale, mac, router: false, at: now.after(FORGET), tries: 0 }
    }

    /// A neighbour that configuration made known: no timer changes it.
    pub(super) fn permanent(mac: Mac) -> Nud {
        Nud { state: State::Reachable, mac, router: false, at: Instant::NEVER, tries: 0 }
    }

    /// The address if it may be used.
    pub(super) fn known(&self) -> Option<Mac> {
        (self.state != State::Incomplete).then_some(self.mac)
    }

    /// A packet is about to be sent there.
    pub(super) fn used(&mut self, now: Instant) {
        if self.state == State::Stale {
            self.enter(State::Delay, now.after(DELAY_FIRST_PROBE));
        }
    }

    /// Takes in what was said about it (RFC 4861, 7.2.3 and 7.2.5). `mac` is the link-layer address the message gave, if
    /// any; `jitter` is a random number.
    pub(super) fn heard(
        &mut self,
        mac: Option<Mac>,
        claim: Claim,
        now: Instant,
        timing: Timing,
        jitter: u64,
    ) -> Heard {
        let nothing = Heard::default();
        let incomplete = self.state == State::Incomplete;
        let (solicited, overrides) = match claim {
            Claim::Source => (false, true),
            Claim::Advert { solicited, overrides, .. } => (solicited, overrides),
        };
        let differs = mac.is_some_and(|mac| mac != self.mac);
        if incomplete && mac.is_none() {
            return nothing;
        }
        if !incomplete && !overrides && differs {
            if self.state == State::Reachable {
                self.enter(State::Stale, now.after(FORGET));
            }
            return nothing;
        }
        if let Claim::Advert { router: Some(router), .. } = claim {
            self.router = router;
        }
        self.mac = mac.unwrap_or(self.mac);
        if solicited {
            self.enter(State::Reachable, now.after(timing.reachable / 2 + jitter % timing.reachable));
        } else if incomplete || differs {
            self.enter(State::Stale, now.after(FORGET));
        }
        Heard { resolved: incomplete, changed: differs && !incomplete }
    }

    /// The state's time is over.
    pub(super) fn fire(&mut self, now: Instant, timing: Timing) -> Fired {
        match self.state {
            State::Incomplete if self.tries < timing.max_broadcast => {
                self.tries += 1;
                self.at = now.after(RETRANS);
                Fired::AskAll
            }
            State::Probe if self.tries < MAX_UNICAST => {
                self.tries += 1;
                self.at = now.after(RETRANS);
                Fired::AskOne(self.mac)
            }
            State::Incomplete | State::Probe => Fired::Unreachable,
            State::Reachable => {
                self.enter(State::Stale, now.after(FORGET));
                Fired::Nothing
            }
            State::Stale => Fired::Unused,
            State::Delay => {
                self.enter(State::Probe, now.after(RETRANS));
                self.tries = 1;
                Fired::AskOne(self.mac)
            }
        }
    }

    fn enter(&mut self, state: State, until: Instant) {
        self.state = state;
        self.at = until;
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const T0: Instant = Instant::from_secs(100);

    fn advert(solicited: bool, overrides: bool) -> Claim {
        Claim::Advert { solicited, overrides, router: None }
    }

    fn hear(nud: &mut Nud, mac: Option<Mac>, claim: Claim) -> Heard {
        nud.heard(mac, claim, T0, ND, 0)
    }

    fn in_state(state: State) -> Nud {
        Nud { state, mac: A, router: false, at: T0, tries: 0 }
    }

    #[test]
    fn a_neighbour_that_never_answers_is_unreachable_after_the_last_question() {
        for (timing, questions) in [(ND, 3), (ARP, 5)] {
            let mut nud = Nud::asked(T0);
            for _ in 1..questions {
                assert_eq!(nud.fire(nud.at, timing), Fired::AskAll);
            }
            assert_eq!(nud.fire(nud.at, timing), Fired::Unreachable);
            assert_eq!(nud.at, T0.after(questions * SECOND));
        }
    }

    #[test]
    fn a_used_neighbour_is_probed_when_it_is_stale_and_an_unused_one_is_not() {
        let mut nud = in_state(State::Reachable);
        assert_eq!(nud.fire(T0, ND), Fired::Nothing);
        assert_eq!(nud.state, State::Stale);
        let mut unused = nud;
        assert_eq!(unused.fire(unused.at, ND), Fired::Unused);
        nud.used(T0);
        assert_eq!((nud.state, nud.at), (State::Delay, T0.after(5 * SECOND)));
        for _ in 0..MAX_UNICAST {
            assert_eq!(nud.fire(nud.at, ND), Fired::AskOne(A));
            assert_eq!(nud.known(), Some(A), "it is used while it is asked");
        }
        assert_eq!(nud.fire(nud.at, ND), Fired::Unreachable);
    }

    #[test]
    fn an_answer_in_time_makes_a_probed_neighbour_reachable_again() {
        let mut nud = in_state(State::Delay);
        nud.fire(T0, ND);
        assert_eq!(hear(&mut nud, None, advert(true, false)), Heard::default());
        assert_eq!((nud.state, nud.mac), (State::Reachable, A));
        assert_eq!(nud.at, T0.after(15 * SECOND));
    }

    /// The table of RFC 4861, appendix C, row by row.
    #[test]
    fn advertisements_do_what_appendix_c_says() {
        use State::{Incomplete, Reachable, Stale};
        let rows = [
            // state, mac, solicited, override -> state, mac, resolved, changed
            (Incomplete, None, true, true, Incomplete, A, false, false),
            (Incomplete, Some(B), true, false, Reachable, B, true, false),
            (Incomplete, Some(B), false, false, Stale, B, true, false),
            (Reachable, Some(B), true, false, Stale, A, false, false),
            (Stale, Some(B), true, false, Stale, A, false, false),
            (State::Probe, Some(B), true, false, State::Probe, A, false, false),
            (Stale, Some(A), true, false, Reachable, A, false, false),
            (Stale, None, true, true, Reachable, A, false, false),
            (Stale, Some(B), true, true, Reachable, B, false, true),
            (Reachable, Some(B), false, true, Stale, B, false, true),
            (Reachable, Some(A), false, true, Reachable, A, false, false),
            (Stale, Some(A), false, false, Stale, A, false, false),
        ];
        for (state, mac, solicited, overrides, then, known, resolved, changed) in rows {
            let mut nud = in_state(state);
            let heard = hear(&mut nud, mac, advert(solicited, overrides));
            assert_eq!((nud.state, nud.mac), (then, known), "{state:?} {mac:?} {solicited} {overrides}");
            assert_eq!(heard, Heard { resolved, changed }, "{state:?} {mac:?} {solicited} {overrides}");
        }
    }

    #[test]
    fn a_speaker_is_known_but_not_proved_reachable() {
        let mut nud = Nud::asked(T0);
        assert_eq!(hear(&mut nud, Some(A), Claim::Source), Heard { resolved: true, changed: false });
        assert_eq!(nud.state, State::Stale);
        let mut nud = in_state(State::Reachable);
        assert_eq!(hear(&mut nud, Some(A), Claim::Source), Heard::default());
        assert_eq!(nud.state, State::Reachable);
        assert_eq!(hear(&mut nud, Some(B), Claim::Source), Heard { resolved: false, changed: true });
        assert_eq!((nud.state, nud.mac), (State::Stale, B));
    }
}
