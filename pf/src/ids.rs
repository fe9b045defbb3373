//! Numbers for the names of tags and queues, and for what rules call.
//!
//! Packets and states carry numbers, and live longer than a ruleset. So a name keeps its number as long as the process
//! runs: the control thread has one [`Names`] and gives it to every load, and the router asks the same one for the
//! queues of an interface.

use std::collections::HashMap;

/// More names than there are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than 65535 names of {0} have been used")]
pub struct TooManyNames(&'static str);

/// The numbers of all names used so far, from 1.
#[derive(Debug, Default)]
pub struct Names {
    tags: Numbers,
    queues: Numbers,
    calls: Numbers,
    systems: Numbers,
}

#[derive(Debug, Default)]
struct Numbers {
    by_name: HashMap<String, u16>,
    by_number: Vec<String>,
}

impl Numbers {
    fn of(&mut self, name: &str, what: &'static str) -> Result<u16, TooManyNames> {
        if let Some(&number) = self.by_name.get(name) {
            return Ok(number);
        }
        let number = u16::try_from(self.by_number.len() + 1).map_err(|_| TooManyNames(what))?;
        self.by_name.insert(name.to_owned(), number);
        self.by_number.push(name.to_owned());
        Ok(number)
    }

    fn name(&self, number: u16) -> Option<&str> {
        self.by_number.get(usize::from(number).checked_sub(1)?).map(String::as_str)
    }
}

impl Names {
    /// No name used yet.
    pub fn new() -> Names {
        Names::default()
    }

    /// The number of a tag (`PktHdr::tag`).
    pub fn tag(&mut self, name: &str) -> Result<u16, TooManyNames> {
        self.tags.of(name, "tags")
    }

    /// The number of a queue (`PktHdr::queue`), the same on every interface.
    pub fn queue(&mut self, name: &str) -> Result<u16, TooManyNames> {
        self.queues.of(name, "queues")
    }

    /// The number of an anchor, or of all below one, that rules call.
    pub(crate) fn call(&mut self, target: &str) -> Result<u16, TooManyNames> {
        self.calls.of(target, "called anchors")
    }

    /// The number of a class, version or subtype of operating systems, however it is capitalised.
    pub(crate) fn os(&mut self, name: &str) -> Result<u16, TooManyNames> {
        self.systems.of(&name.to_ascii_lowercase(), "operating systems")
    }

    /// The tag with this number.
    pub fn tag_name(&self, number: u16) -> Option<&str> {
        self.tags.name(number)
    }

    /// The queue with this number.
    pub fn queue_name(&self, number: u16) -> Option<&str> {
        self.queues.name(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number_and_zero_is_none() {
        let mut names = Names::new();
        assert_eq!((names.queue("a"), names.queue("b"), names.queue("a")), (Ok(1), Ok(2), Ok(1)));
        assert_eq!(names.tag("b"), Ok(1), "tags and queues do not share numbers");
        assert_eq!((names.queue_name(2), names.queue_name(0), names.tag_name(2)), (Some("b"), None, None));
    }
}
