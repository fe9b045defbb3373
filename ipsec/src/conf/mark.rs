//! Whether two readings of a file say the same, without keeping either: there are keys in them, and those of an SA that has been
//! deleted must be nowhere.

use super::ValidConf;
use std::hash::{BuildHasher, Hasher, RandomState};

/// What a process makes [`Mark`]s with: those of another are others.
#[derive(Clone, Debug, Default)]
pub struct Marker([RandomState; 2]);

/// Stands for all that a configuration says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark([u64; 2]);

impl Marker {
    /// The mark of a configuration, keys included.
    pub fn mark(&self, conf: &ValidConf) -> Mark {
        // All but the keys.
        let text = format!("{conf:?}");
        Mark(self.0.each_ref().map(|state| {
            let mut hasher = state.build_hasher();
            hasher.write(text.as_bytes());
            for sa in conf.sas() {
                hasher.write_usize(sa.key.len());
                hasher.write(sa.key.expose());
            }
            hasher.finish()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Conf;

    #[test]
    fn a_mark_is_of_all_that_is_said_and_of_the_keys() {
        let marker = Marker::default();
        let mark = |spi: u32, key: u8| {
            let text = format!(
                "add 192.0.2.1 192.0.2.2 esp {spi} -m tunnel -E aes-gcm-16 0x{};\n",
                format!("{key:02x}").repeat(20)
            );
            marker.mark(&Conf::parse("ipsec.conf", &text).unwrap().check(&ValidConf::default()).unwrap())
        };
        assert_eq!(mark(1000, 7), mark(1000, 7));
        assert_ne!(mark(1000, 7), mark(1000, 8));
        assert_ne!(mark(1000, 7), mark(1001, 7));
        assert_ne!(mark(1000, 7), marker.mark(&ValidConf::default()));
    }
}
