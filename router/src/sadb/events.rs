//! Who listens to events. A client that does not take them in time loses the oldest, and is told how many.

use super::said;
use crate::control::{
    setkey::SaEvent,
    socket::{Outbox, Session},
};
use std::collections::{BTreeMap, VecDeque};

/// Events that wait for one client at most.
const DEPTH: usize = 4096;

/// What one client is still to be told.
#[derive(Debug, Default)]
struct Monitor {
    waiting: VecDeque<SaEvent>,
    lost: u64,
}

/// The clients that listen.
#[derive(Debug, Default)]
pub(super) struct Monitors(BTreeMap<Session, Monitor>);

impl Monitors {
    pub(super) fn add(&mut self, session: Session) {
        self.0.entry(session).or_default();
    }

    pub(super) fn has(&self, session: Session) -> bool {
        self.0.contains_key(&session)
    }

    pub(super) fn remove(&mut self, session: Session) {
        self.0.remove(&session);
    }

    pub(super) fn has_news(&self) -> bool {
        self.0.values().any(|monitor| !monitor.waiting.is_empty())
    }

    pub(super) fn emit(&mut self, event: &SaEvent) {
        for monitor in self.0.values_mut() {
            if monitor.waiting.len() == DEPTH {
                monitor.waiting.pop_front();
                monitor.lost += 1;
            }
            monitor.waiting.push_back(event.clone());
        }
    }

    pub(super) fn tell(&mut self, session: Session, out: &mut Outbox<'_>) {
        let Some(monitor) = self.0.get_mut(&session) else { return };
        if monitor.lost > 0 && out.has_room() {
            out.push(&said(SaEvent::Lost { events: std::mem::take(&mut monitor.lost) }));
        }
        while out.has_room() {
            let Some(event) = monitor.waiting.pop_front() else { return };
            out.push(&said(event));
        }
    }

    pub(super) fn take(&mut self, session: Session) -> Vec<SaEvent> {
        self.0.get_mut(&session).map_or_else(Vec::new, |monitor| monitor.waiting.drain(..).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_listen_loses_the_oldest_events_and_their_number_is_known() {
        let mut monitors = Monitors::default();
        let event = |n| SaEvent::Lost { events: n };
        monitors.emit(&event(0));
        assert!(!monitors.has_news(), "nobody is there");
        let me = Session(7);
        monitors.add(me);
        (0..DEPTH as u64 + 3).for_each(|n| monitors.emit(&event(n)));
        assert!(monitors.has_news() && monitors.has(me));
        assert_eq!(monitors.0[&me].lost, 3);
        assert_eq!(monitors.take(me)[0], event(3));
        monitors.remove(me);
        assert!(!monitors.has(me) && !monitors.has_news());
    }
}
