//! A tournament: who of a fixed number of players has the least key.
//!
//! ```text
//!              1: (3,c)               each inner node repeats the lesser of the two below it,
//!          2: (5,a)   3: (3,c)        so the winner is read at the top and a change walks up
//!        (5,a) (9,b) (3,c) (∞,d)      one path: log n comparisons, no moving of entries
//! ```
//!
//! Schedulers ask it for the least deadline, virtual time or wake-up. Of equal keys the lower player wins, so a run
//! repeats itself exactly. A player with the key [`ABSENT`] does not play.

/// The key of a player who does not play.
pub(crate) const ABSENT: u64 = u64::MAX;

#[cfg(test)]
thread_local! {
    /// Matches that were held, of all tournaments.
    pub(crate) static MATCHES: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// A tournament.
pub(crate) struct Tournament {
    /// Key and player; node 1 is the top, the players begin at half.
    nodes: Box<[(u64, u32)]>,
    half: usize,
}

impl Tournament {
    /// One for `players`, none of whom plays yet.
    pub(crate) fn new(players: usize) -> Tournament {
        let half = players.max(1).next_power_of_two();
        let mut nodes = vec![(ABSENT, 0); 2 * half].into_boxed_slice();
        for (player, node) in nodes[half..].iter_mut().enumerate() {
            node.1 = player as u32;
        }
        for i in (1..half).rev() {
            nodes[i] = nodes[2 * i];
        }
        Tournament { nodes, half }
    }

    /// Gives a player a key.
    #[inline]
    pub(crate) fn set(&mut self, player: usize, key: u64) {
        let mut i = self.half + player;
        if self.nodes[i].0 == key {
            return;
        }
        self.nodes[i].0 = key;
        while i > 1 {
            #[cfg(test)]
            MATCHES.set(MATCHES.get() + 1);
            let pair = i & !1;
            let (left, right) = (self.nodes[pair], self.nodes[pair + 1]);
            let winner = if right.0 < left.0 { right } else { left };
            i >>= 1;
            if self.nodes[i] == winner {
                return;
            }
            self.nodes[i] = winner;
        }
    }

    /// The least key, [`ABSENT`] if nobody plays.
    #[inline(always)]
    pub(crate) fn least(&self) -> u64 {
        self.nodes[1].0
    }

    /// Who has the least key.
    #[inline(always)]
    pub(crate) fn winner(&self) -> Option<usize> {
        let (key, player) = self.nodes[1];
        (key != ABSENT).then_some(player as usize)
    }

    /// A player's key.
    #[inline(always)]
    pub(crate) fn key(&self, player: usize) -> u64 {
        self.nodes[self.half + player].0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_winner_is_the_first_of_the_least(
            players in 1_usize..40,
            moves in prop::collection::vec((0_usize..40, prop_oneof![4 => 0_u64..20, 1 => Just(ABSENT)]), 1..200),
        ) {
            let mut model = vec![ABSENT; players];
            let mut t = Tournament::new(players);
            prop_assert_eq!(t.winner(), None);
            for (player, key) in moves {
                let player = player % players;
                model[player] = key;
                t.set(player, key);
                let least = model.iter().min().copied().unwrap_or(ABSENT);
                let first = model.iter().position(|&k| k == least).filter(|_| least != ABSENT);
                prop_assert_eq!((t.least(), t.winner()), (least, first));
                prop_assert_eq!(t.key(player), key);
            }
        }
    }
}
