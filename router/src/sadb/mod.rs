//! The control thread's hand on the databases of IPsec (PF_KEY's SADB, RFC 2367): what setkey(8) says and a key manager asks,
//! carried out on a running router, and the events that both may listen to.
//!
//! | file | what |
//! |---|---|
//! | `statements.rs` | setkey's language, all of an input or nothing |
//! | `expiry.rs` | lives that end, soft and hard |
//! | `acquire.rs` | packets that wait for an SA, from the workers' side too |
//! | `events.rs` | who is told |
//!
//! SAs and policies are published together, so no packet sees the one without the other. What is changed here is not written to
//! ipsec.conf. It stays over a reload unless that file was changed: then the file is the truth again. `docs/keying.md` shows
//! what is said over the control socket.

pub(crate) mod acquire;
mod events;
mod expiry;
mod statements;

pub use acquire::Acquires;

use crate::{
    commit,
    control::{
        proto::{Response, SaReport},
        setkey::{GetSpi, SaEvent, SaName},
        socket::{Outbox, Session},
    },
    entropy::random,
    hooks,
    netconfig::NetConfig,
    router::Router,
};
use acquire::Unanswered;
use events::Monitors;
use ipsec::{
    conf::{SaId, ValidConf},
    sa::Protocol,
};
use kern::{
    lock::Root,
    time::{Duration, Instant},
};

/// How often lives are looked at, and how long an event may take to be told.
pub const EVERY: Duration = Duration::from_millis(250);
/// How long an SPI that is given away waits for its SA: `net.key.larval_lifetime` of the BSDs.
const LARVAL: Duration = Duration::from_secs(30);

/// The control thread's part of the databases.
#[derive(Debug, Default)]
pub struct Sadb {
    monitors: Monitors,
    unanswered: Unanswered,
    due: Instant,
}

impl Sadb {
    /// Looks after lives and what workers want, if it is time to. `conf` is what is configured.
    pub fn turn(&mut self, router: &mut Router, root: &mut Root, conf: &mut Option<ValidConf>) {
        let now = router.shared().clock.now();
        self.acquire(router, now);
        if now < self.due {
            return;
        }
        self.due = now.after(EVERY.as_nanos() as u64);
        if let Some(conf) = conf {
            conf.expire_larval(now);
            self.expire(router, root, conf, now);
        }
    }

    /// Whether somebody is to be told something.
    pub fn has_news(&self) -> bool {
        self.monitors.has_news()
    }

    /// A client listens to events from now on.
    pub fn subscribe(&mut self, session: Session) {
        self.monitors.add(session);
    }

    /// Whether a client listens.
    pub fn is_told(&self, session: Session) -> bool {
        self.monitors.has(session)
    }

    /// Tells a client what there is.
    pub fn poll(&mut self, session: Session, out: &mut Outbox<'_>) {
        self.monitors.tell(session, out);
    }

    /// A client is gone, or wants to hear no more.
    pub fn closed(&mut self, session: Session) {
        self.monitors.remove(session);
    }

    /// Events so far that nobody has taken: for a testbed, which listens as session 0.
    pub fn take(&mut self) -> Vec<SaEvent> {
        self.monitors.take(Session(0))
    }

    fn emit(&mut self, event: &SaEvent) {
        self.monitors.emit(event);
    }

    /// Gives an SPI away that nobody has.
    pub fn get_spi(
        &mut self,
        router: &Router,
        conf: &mut Option<ValidConf>,
        asked: &GetSpi,
    ) -> Result<SaName, String> {
        let GetSpi { src, dst, ref proto, min, max } = *asked;
        let protocol = protocol(proto).ok_or_else(|| format!("{proto:?} is none of esp, ah, ipcomp"))?;
        // 255 and below are reserved (RFC 4303, 2.1); CPIs from 61440 on are private (RFC 3173, 3.3).
        let last = if protocol == Protocol::Ipcomp { 61_439 } else { u32::MAX };
        let range = min.unwrap_or(256)..=max.unwrap_or(last);
        if *range.start() < 256 || *range.end() > last || range.is_empty() {
            return Err(format!("{} to {} is no range within 256 to {last}", range.start(), range.end()));
        }
        if src.is_ipv4() != dst.is_ipv4() {
            return Err("the ends of an SA are of two families".into());
        }
        let until = router.shared().clock.now().after(LARVAL.as_nanos() as u64);
        let conf = conf.get_or_insert_default();
        let spi = conf
            .reserve((protocol, src, dst), range.clone(), random, until)
            .ok_or_else(|| format!("{dst} has all SPIs from {} to {}", range.start(), range.end()))?;
        let name = SaName::from(&SaId { protocol, src, dst, spi });
        self.emit(&SaEvent::Larval(name.clone()));
        Ok(name)
    }
}

/// Every SA and every SPI that is given away.
pub fn report(router: &Router, root: &mut Root, conf: Option<&ValidConf>) -> Vec<SaReport> {
    let now = router.shared().clock.now();
    let mut all = SaReport::all(&router.net().sad, &mut root.top(), now);
    all.extend(conf.iter().flat_map(|conf| conf.larval()).map(|larval| SaReport::larval(&larval.id)));
    all
}

/// Gives workers these SAs and policies, and nothing else new.
fn publish(router: &mut Router, root: &mut Root, conf: &ValidConf) -> Result<(), String> {
    let (sad, spd) = commit::build_ipsec(router, root, conf).map_err(|e| e.to_string())?;
    let mut net = NetConfig { spd: spd.into(), ..router.net().clone() };
    hooks::install_sad(&mut net, sad, &router.sa_setup(), &mut root.top()).map_err(|e| e.to_string())?;
    router.apply(root, net).map_err(|late| late.to_string())
}

fn protocol(word: &str) -> Option<Protocol> {
    [Protocol::Esp, Protocol::Ah, Protocol::Ipcomp].into_iter().find(|p| p.name() == word)
}

/// An event for a client.
fn said(event: SaEvent) -> Response {
    Response::SaEvent(event)
}
