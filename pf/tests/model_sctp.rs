//! SCTP in the state engine against a simple model: a random sequence of packets of many associations, of time that passes,
//! of reloads and of flushes.
//!
//! The model knows how far each association has come and which tags its ends may send. The ends behave as RFC 9260 has it:
//! they lose packets and send them again, draw new tags as long as nothing is up, shut down or abort, and begin anew. So what
//! they send must pass; what a stranger sends with another tag must not, and must change nothing. `SOFTNET_SEED` repeats a
//! run, `SOFTNET_SOAK=1` makes it long.

#![allow(clippy::unwrap_used, reason = "a test")]

mod common;

use std::collections::BTreeSet;

use common::{
    CLIENT, IN, LAN, OUT, SERVER, World,
    association::{Association, chunk, init},
};
use kern::{
    Why,
    testing::{Chance, soak},
};
use pf::Verdict;
use wire::{
    build,
    sctp::{self, kind},
};

const RULES: &str = "block all\npass in on lan0 proto sctp to port 5000 keep state\n";
/// After this no new states are made.
const NOTHING: &str = "block all\n";
const ASSOCIATIONS: u16 = 16;

/// How far an association has come, by what has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// There is no state.
    Nothing,
    /// The client has sent its INIT.
    Asked,
    /// The server has answered that, at least once.
    Answered,
    /// The client has sent the cookie back.
    Echoed,
    Up,
    /// One end has said SHUTDOWN.
    Ending,
    /// Both have: the second acknowledges the first.
    Ended,
    Closed,
}

/// An association; `last` is when its state has been touched.
#[derive(Clone, Debug)]
struct Member {
    ends: Association,
    stage: Stage,
    last: u64,
    /// The tag that the client has drawn: what the server sends.
    client: u32,
    /// The one that the server has drawn, and the one before: what the client sends. 0 is none.
    server: [u32; 2],
    /// Who has said SHUTDOWN, the client or not.
    shut_by: bool,
}

/// What the model says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    Blocked,
    Mismatch,
}

struct Play {
    world: World,
    chance: Chance,
    members: Vec<Member>,
    makes: bool,
    steps: u64,
    fates: [u64; 3],
    /// How often each stage was reached.
    reached: [u64; 8],
}

impl Stage {
    /// Seconds that a state lives without packets.
    fn lives(self) -> u64 {
        match self {
            Stage::Nothing => 0,
            Stage::Asked => 120,
            Stage::Answered | Stage::Echoed => 30,
            Stage::Up => 86_400,
            Stage::Ending | Stage::Ended => 900,
            Stage::Closed => 90,
        }
    }
}

impl Play {
    fn new(chance: Chance) -> Play {
        let member = |n: u16| Member {
            ends: Association { client: (CLIENT.into(), 1000 + n), server: (SERVER.into(), 5000) },
            stage: Stage::Nothing,
            last: 0,
            client: 0,
            server: [0; 2],
            shut_by: false,
        };
        let members = (0..ASSOCIATIONS).map(member).collect();
        Play {
            world: World::new(RULES),
            chance,
            members,
            makes: true,
            steps: 0,
            fates: [0; 3],
            reached: [0; 8],
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.chance.below(400) {
            0 => self.wait(),
            1 => self.reload(),
            2 => self.flush(),
            _ => {
                let n = self.chance.below(self.members.len());
                let mut member = self.members[n].clone();
                if self.chance.is(5) {
                    self.blind(&mut member);
                } else {
                    self.behaves(&mut member);
                }
                self.members[n] = member;
            }
        }
        if self.steps.is_multiple_of(256) {
            self.compare();
        }
    }

    fn now(&self) -> u64 {
        self.world.now.secs()
    }

    /// A tag that is not 0, nor one of these.
    fn draw(&mut self, but: &[u32]) -> u32 {
        loop {
            let tag = self.chance.next() as u32;
            if tag != 0 && !but.contains(&tag) {
                return tag;
            }
        }
    }

    /// Sends a packet at the LAN, upwards or downwards.
    fn send(&mut self, member: &Member, upwards: bool, (tag, chunks): (u32, &[u8]), fate: Fate, what: &str) {
        let ends = member.ends;
        let (direction, octets) =
            if upwards { (IN, ends.up(tag, chunks)) } else { (OUT, ends.down(tag, chunks)) };
        let seen = match self.world.verdict(direction, LAN, &octets) {
            Verdict::Pass(_) | Verdict::Route(..) | Verdict::Copy(..) => Fate::Passes,
            Verdict::Block(Why::PfStateMismatch) => Fate::Mismatch,
            Verdict::Block(_) | Verdict::Return(..) => Fate::Blocked,
        };
        assert_eq!(seen, fate, "step {}: {what}, upwards {upwards}, of {member:?}", self.steps);
        self.fates[fate as usize] += 1;
    }

    /// An end sends what it may: it passes, and the association is `then` this far.
    fn says(&mut self, member: &mut Member, upwards: bool, chunks: &[u8], then: Stage) {
        let tag = if upwards { member.server[0] } else { member.client };
        self.send(member, upwards, (tag, chunks), Fate::Passes, "what an end says");
        self.moves(member, then);
    }

    fn moves(&mut self, member: &mut Member, then: Stage) {
        (member.stage, member.last) = (then, self.now());
        self.reached[then as usize] += 1;
    }

    fn behaves(&mut self, member: &mut Member) {
        let upwards = self.chance.is(2);
        let whim = self.chance.below(20);
        match member.stage {
            Stage::Nothing => self.stray_or_ask(member),
            Stage::Closed | Stage::Ended if whim < 4 => self.ask(member),
            Stage::Asked | Stage::Answered if whim < 2 => self.ask(member),
            Stage::Asked | Stage::Answered if whim < 9 => self.answer(member),
            Stage::Answered if whim < 16 => self.echo(member),
            Stage::Asked | Stage::Answered => {}
            _ if whim == 19 => self.abort(member, upwards),
            Stage::Echoed if whim < 10 => self.says(member, false, &chunk(kind::COOKIE_ACK), Stage::Up),
            Stage::Up if whim < 2 => {
                member.shut_by = upwards;
                self.says(member, upwards, &chunk(kind::SHUTDOWN), Stage::Ending);
            }
            Stage::Ending if whim < 10 => {
                let by = !member.shut_by;
                self.says(member, by, &chunk(kind::SHUTDOWN_ACK), Stage::Ended);
            }
            Stage::Ended if whim < 12 => {
                let by = member.shut_by;
                self.says(member, by, &chunk(kind::SHUTDOWN_COMPLETE), Stage::Closed);
            }
            stage => self.goes_on(member, upwards, stage),
        }
    }

    /// What changes nothing: data and what belongs to them, and what has been on its way for long.
    fn goes_on(&mut self, member: &mut Member, upwards: bool, stage: Stage) {
        let late = self.chance.is(4) && stage != Stage::Closed && stage != Stage::Ended;
        if late && upwards {
            self.send(member, true, (0, &init(kind::INIT, member.client, &[])), Fate::Passes, "a late INIT");
            return self.moves(member, stage);
        }
        if late {
            let tag = self.draw(&[]);
            return self.says(member, false, &init(kind::INIT_ACK, tag, &[]), stage);
        }
        let kinds = [kind::DATA, kind::SACK, kind::HEARTBEAT, kind::ERROR, kind::ASCONF_ACK];
        let kinds = [self.chance.one_of(&kinds), self.chance.one_of(&kinds)];
        self.says(member, upwards, &kinds.map(chunk).concat(), stage);
    }

    /// Without a state nothing passes but an INIT.
    fn stray_or_ask(&mut self, member: &mut Member) {
        if self.chance.is(2) {
            return self.ask(member);
        }
        let upwards = self.chance.is(2);
        let kind = self.chance.one_of(&[kind::DATA, kind::COOKIE_ECHO, kind::ABORT, kind::SHUTDOWN_ACK]);
        let fate = if upwards && self.makes { Fate::Mismatch } else { Fate::Blocked };
        let tag = self.draw(&[]);
        self.send(member, upwards, (tag, &chunk(kind)), fate, "a stray packet");
    }

    /// The client asks, for the first time, again with the same or another tag, or anew.
    fn ask(&mut self, member: &mut Member) {
        let anew = matches!(member.stage, Stage::Nothing | Stage::Ended | Stage::Closed);
        if anew || self.chance.is(3) {
            member.client = self.draw(&[]);
        }
        let fate = if anew && !self.makes { Fate::Blocked } else { Fate::Passes };
        self.send(member, true, (0, &init(kind::INIT, member.client, &[])), fate, "an INIT");
        if fate == Fate::Blocked {
            // What was over has ended all the same.
            return member.forget();
        }
        if anew {
            member.server = [0; 2];
        }
        let then = if anew { Stage::Asked } else { member.stage };
        self.moves(member, then);
    }

    /// The server answers; it remembers nothing, and mostly draws another tag.
    fn answer(&mut self, member: &mut Member) {
        let before = member.server[0];
        let tag = if before != 0 && self.chance.is(3) { before } else { self.draw(&member.server) };
        self.says(member, false, &init(kind::INIT_ACK, tag, &[]), Stage::Answered);
        if tag != before {
            member.server = [tag, before];
        }
    }

    /// The client gives back the cookie of one of the last two answers, with or without data.
    fn echo(&mut self, member: &mut Member) {
        let former = member.server[1];
        if former != 0 && self.chance.is(2) {
            self.send(member, true, (former, &chunk(kind::DATA)), Fate::Mismatch, "data with the former tag");
            member.server[0] = former;
        }
        member.server[1] = 0;
        let with_data = [chunk(kind::COOKIE_ECHO), chunk(kind::DATA)].concat();
        let chunks = if self.chance.is(2) { with_data } else { chunk(kind::COOKIE_ECHO) };
        self.says(member, true, &chunks, Stage::Echoed);
    }

    /// An end gives up, or knows nothing of the association and gives back the tag that it was sent.
    fn abort(&mut self, member: &mut Member, upwards: bool) {
        let reflects = self.chance.is(2);
        let flags = if reflects { sctp::REFLECTED } else { 0 };
        let tag = if upwards == reflects { member.client } else { member.server[0] };
        let chunk = build::sctp_chunk(kind::ABORT, flags, &[]);
        self.send(member, upwards, (tag, &chunk), Fate::Passes, "an ABORT");
        self.moves(member, Stage::Closed);
    }

    /// Somebody who does not see the association.
    fn blind(&mut self, member: &mut Member) {
        let upwards = self.chance.is(2);
        // As long as the server has not answered, nobody knows what the client will send.
        if member.stage == Stage::Nothing || (upwards && member.stage == Stage::Asked) {
            return;
        }
        let tag = self.draw(&[member.client, member.server[0], member.server[1]]);
        let opening = member.stage < Stage::Up;
        let over = matches!(member.stage, Stage::Ended | Stage::Closed);
        let kinds = [kind::DATA, kind::COOKIE_ECHO, kind::COOKIE_ACK, kind::SHUTDOWN, kind::SHUTDOWN_ACK];
        let (tag, chunks) = match self.chance.below(5) {
            0 if !opening && !over => (0, init(kind::INIT, tag, &[])),
            1 => (tag, init(kind::INIT_ACK, tag, &[])),
            2 => (tag, build::sctp_chunk(kind::ABORT, sctp::REFLECTED, &[])),
            3 => (0, chunk(self.chance.one_of(&kinds))),
            _ => (tag, chunk(self.chance.one_of(&kinds))),
        };
        self.send(member, upwards, (tag, &chunks), Fate::Mismatch, "a blind packet");
    }

    /// Time passes: a round of the purge or more, so that everything which is over by then has been looked at.
    fn wait(&mut self) {
        let seconds = self.chance.one_of(&[11, 21, 31, 61, 100, 1000, 100_000]);
        self.world.advance(seconds);
        self.world.purge();
        let now = self.now();
        let is_over = |m: &&mut Member| m.stage != Stage::Nothing && m.last + m.stage.lives() <= now;
        self.members.iter_mut().filter(is_over).for_each(Member::forget);
        self.compare();
    }

    /// States outlive the rules that made them.
    fn reload(&mut self) {
        self.makes = !self.makes;
        self.world.load(if self.makes { RULES } else { NOTHING });
    }

    fn flush(&mut self) {
        let odd = self.chance.below(2_u16);
        let is_doomed = |m: &&mut Member| m.stage != Stage::Nothing && m.ends.client.1 % 2 == odd;
        let killed = self.world.kill(|state| state.wire[0].1.min(state.wire[1].1) % 2 == odd);
        let mut doomed = 0;
        for member in self.members.iter_mut().filter(is_doomed) {
            member.forget();
            doomed += 1;
        }
        assert_eq!(killed, doomed);
        self.compare();
    }

    /// The table holds the model's states, with the model's lives, and no others.
    fn compare(&mut self) {
        let now = self.now();
        let states = self.world.states();
        let port = |ends: [(std::net::IpAddr, u16); 2]| ends[0].1.min(ends[1].1);
        let there: BTreeSet<_> = states.iter().map(|s| (port(s.wire), u64::from(s.expires))).collect();
        let wanted: BTreeSet<_> = self
            .members
            .iter()
            .filter(|m| m.stage != Stage::Nothing)
            .map(|m| (m.ends.client.1, (m.last + m.stage.lives()).saturating_sub(now)))
            .collect();
        assert_eq!(there, wanted, "step {}", self.steps);
        assert_eq!(self.world.pf.states().count() as usize, states.len());
    }
}

impl Member {
    fn forget(&mut self) {
        self.stage = Stage::Nothing;
    }
}

#[test]
fn the_engine_says_of_every_packet_what_the_model_says() {
    let steps = if soak() { 20_000_000 } else { 100_000 };
    let mut play = Play::new(Chance::seeded(0x5eed_0009));
    for _ in 0..steps {
        play.step();
    }
    println!("passed, blocked, mismatched: {:?}; stages: {:?}", play.fates, play.reached);
    assert!(play.fates.iter().all(|n| *n > steps / 1000), "{:?}", play.fates);
    assert!(play.reached[1..].iter().all(|n| *n > steps / 1000), "{:?}", play.reached);
    play.world.kill(|_| true);
    play.members.iter_mut().for_each(Member::forget);
    play.compare();
    let counters = play.world.pf.counters();
    assert_eq!(counters.inserts.get(), counters.removals.get());
    play.world.load(NOTHING);
    assert_eq!(play.world.pf.slab().in_use(), 1, "rules of old states are given back");
}
