//! SAs that have lived: told when a successor is wanted, taken away when they are dead.

use super::{Sadb, publish};
use crate::{
    control::setkey::{SaEvent, SaName},
    router::Router,
};
use ipsec::{
    conf::{SaId, ValidConf},
    sa::Life,
};
use kern::{lock::Root, time::Instant};

impl Sadb {
    /// Looks at every life once.
    pub(super) fn expire(
        &mut self,
        router: &mut Router,
        root: &mut Root,
        conf: &mut ValidConf,
        now: Instant,
    ) {
        let mut dead = false;
        for sa in router.net().sad.iter() {
            let mut top = root.top();
            let Some((life, cause)) = sa.news(now, &mut top) else { continue };
            let status = sa.status(&mut top);
            let hard = life == Life::Dead;
            let count = &router.own_stats().count;
            if hard { &count.sa_expired } else { &count.sa_dying }.inc();
            self.monitors.emit(&SaEvent::Expire {
                sa: SaName::new(sa.config()),
                hard,
                cause: cause.name().to_owned(),
                packets: status.sent.packets + status.received.packets,
                bytes: status.sent.bytes + status.received.bytes,
            });
            dead |= hard && conf.remove(&SaId::from(sa.config()));
        }
        if dead && let Err(error) = publish(router, root, conf) {
            // They carry nothing any more; the next change takes them away.
            tracing::error!("expired SAs stay for now: {error}");
        }
    }
}
