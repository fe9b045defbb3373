//! What a reload cannot change: keys whose change needs a restart.

use super::valid::{DriverConf, InterfaceConf, ValidConf};

/// The keys that differ and need a restart, as people call them. Empty: a reload may go on.
pub fn restart_needed(old: &ValidConf, new: &ValidConf) -> Vec<String> {
    let keys = [
        ("router.name", old.name != new.name),
        ("router.workers", old.workers != new.workers),
        ("router.cpus", old.cpus != new.cpus),
        ("router.spin_us", old.spin != new.spin),
        ("router.locking", old.locking != new.locking),
        ("router.clusters", old.pool.clusters != new.pool.clusters),
        ("router.jumbos", old.pool.jumbos != new.pool.jumbos),
        ("router.control", old.control != new.control),
    ];
    let mut changed: Vec<String> =
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key.into()).collect();
    changed.extend(interfaces(&old.interfaces, &new.interfaces));
    changed
}

/// The sentence with which a reload refuses.
pub fn sentence(keys: &[String]) -> String {
    format!("a change of {} needs a restart; nothing was changed", super::diag::list(keys))
}

fn interfaces(old: &[InterfaceConf], new: &[InterfaceConf]) -> Vec<String> {
    // Tunnels come and go; what has a device stays, at its place.
    fn devices(all: &[InterfaceConf]) -> impl Iterator<Item = &InterfaceConf> {
        all.iter().filter(|i| !matches!(i.driver, DriverConf::Ipsec(_)))
    }
    let names = |all: &[InterfaceConf]| devices(all).map(|i| (i.index, i.name.clone())).collect::<Vec<_>>();
    if names(old) != names(new) {
        return vec!["the list of interfaces (but for tunnels behind all others)".to_owned()];
    }
    devices(old).zip(devices(new)).flat_map(|(o, n)| interface(o, n)).collect()
}

fn interface(old: &InterfaceConf, new: &InterfaceConf) -> Vec<String> {
    let word = |driver: &DriverConf| match driver {
        DriverConf::Tap { .. } => "tap",
        DriverConf::Vlan { .. } => "vlan",
        DriverConf::Link { .. } => "link",
        DriverConf::Ipsec(_) => "ipsec",
    };
    let same_kind = word(&old.driver) == word(&new.driver);
    let device = if matches!(new.driver, DriverConf::Vlan { .. }) { "parent or tag" } else { "device" };
    let keys = [
        ("driver", !same_kind),
        (device, same_kind && old.driver != new.driver),
        ("queues", old.queues != new.queues),
        ("offload", old.offload != new.offload),
        ("mac", old.mac != new.mac),
    ];
    let differs = keys.into_iter().filter(|(_, differs)| *differs);
    differs.map(|(key, _)| format!("{key} of {}", new.name)).collect()
}
