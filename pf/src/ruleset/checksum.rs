//! What tells rulesets apart: `pfctl -s info -v`.

use md5::{Digest, Md5};

use super::Ruleset;
use crate::{env::Environment, print};

impl Ruleset {
    /// A digest of the rules of the main ruleset that translate and filter, in order, by which those who share states can
    /// see that they have the same; 0 if there are none. The number is not the one that FreeBSD has for the same text.
    pub fn checksum(&self) -> u128 {
        *self.checksum.get_or_init(|| {
            let rules = &self.conf.rules;
            let (env, mut digest, mut some) = (Environment::default(), Md5::new(), false);
            for rule in [&rules.nat, &rules.rdr, &rules.binat, &rules.filter].into_iter().flatten() {
                digest.update(print::rule(rule, &env));
                digest.update(b"\n");
                some = true;
            }
            if some { u128::from_be_bytes(digest.finalize().into()) } else { 0 }
        })
    }
}
