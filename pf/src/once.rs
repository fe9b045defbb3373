//! `once`: a rule for one packet (pf.conf(5)). The first packet that it decides on spends it; from then on it matches
//! nothing, and `pfctl -s rules` hides it unless `-v` is said.
//!
//! A rule that is printed, compiled anew for other interfaces or kept by a load of something else is the same rule: all
//! its copies share whether it is spent. A worker that finds that another one was faster evaluates the rules again.

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Whether a rule has had its packet. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Once(Arc<AtomicBool>);

impl Once {
    /// Whether it has had its packet.
    #[inline]
    pub fn is_spent(&self) -> bool {
        #[cfg(test)]
        tests::step();
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the one packet; `false` if another one was first.
    pub(crate) fn spend(&self) -> bool {
        #[cfg(test)]
        tests::step();
        // Nothing else is published by it, so no order is needed: of several swaps one sees `false`.
        !self.0.swap(true, Ordering::Relaxed)
    }

    /// Gives back what [`Self::spend`] has taken: there was no packet, and what was asked for did not come to be.
    pub(crate) fn unspend(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Rules are equal by what they say, not by what has become of them.
impl PartialEq for Once {
    fn eq(&self, _: &Once) -> bool {
        true
    }
}

impl Eq for Once {}
