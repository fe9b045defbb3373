//! From checked files to the snapshot: text → `Conf` → `ValidConf` → [`Files`] → [`NetConfig`] → publish.
//!
//! Everything that can fail, fails before anything changes: [`Files::load`] reads and checks all three languages,
//! [`Commit::prepare`] builds rulesets, trees, SAs and opens devices. What then goes to [`Router::apply`] only has to be published.

mod queues;

use crate::{
    conf::{self, DriverConf, Invalid, ValidConf, derive},
    hooks::{self, ENC0},
    iface::{
        IfAddr, Interface, Kind,
        driver::{Caps, Driver},
    },
    netconfig::NetConfig,
    route::{IfIndex, Rib},
    router::Router,
};
use altq::{IfQueue, Tree};
use kern::lock::Root;
use pf::{Fresh, PfConf, conf::ConfError};
use std::{collections::HashMap, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// Where the fingerprints of operating systems are unless pf.conf says.
const FINGERPRINTS: &str = "/etc/pf.os";

/// All that a configuration says, checked, nothing built yet.
#[derive(Debug)]
pub struct Files {
    /// softnet.toml.
    pub conf: ValidConf,
    /// pf.conf, if there is one.
    pub pf: Option<Arc<PfConf>>,
    /// ipsec.conf, if there is one, and what setkey has made of it since.
    pub ipsec: Option<ipsec::conf::ValidConf>,
}

/// Everything that is wrong with a configuration, in all its files.
#[derive(Debug, Default, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Faults(pub Vec<String>);

impl From<Invalid> for Faults {
    fn from(invalid: Invalid) -> Faults {
        Faults(vec![invalid.to_string()])
    }
}

/// The longest that a packet waits in a queue.
#[derive(Clone, Debug, serde::Serialize)]
pub struct WorstDelay {
    /// Its interface.
    pub interface: String,
    /// The queue.
    pub queue: String,
    /// Bytes of the packet's frame.
    pub bytes: u32,
    /// Microseconds.
    pub us: f64,
}

impl Files {
    /// Reads and checks all files of a configuration; finds all faults, not only the first. `loaded` are the rules that
    /// are in force, whose counters `set ruleset-optimization profile` goes by.
    pub fn load(path: &Path, loaded: Option<&pf::Ruleset>) -> Result<Files, Faults> {
        let conf = conf::load(path)?;
        let mut faults = Faults::default();
        let (pf, ipsec) = (conf.pf.clone(), conf.ipsec.clone());
        let checked = pf.as_deref().map(|path| pf::conf::load_file(path, &environment(&conf), &[]));
        let pf = accept_pf(checked, pf.as_deref().unwrap_or(Path::new("")), &conf, loaded, &mut faults);
        let ipsec = accept_ipsec(ipsec.as_deref().map(read_ipsec), &mut faults);
        if faults.0.is_empty() { Ok(Files { conf, pf, ipsec }) } else { Err(faults) }
    }

    /// Checks texts that belong to a checked softnet.toml, for tests and demonstrations.
    pub fn from_texts(conf: ValidConf, pf: Option<&str>, ipsec: Option<&str>) -> Result<Files, Faults> {
        let mut faults = Faults::default();
        let checked = pf.map(|text| pf::conf::load_text("pf.conf", text, &environment(&conf), &[]));
        let pf = accept_pf(checked, Path::new("pf.conf"), &conf, None, &mut faults);
        let ipsec = accept_ipsec(ipsec.map(|text| check_ipsec("ipsec.conf", text)), &mut faults);
        if faults.0.is_empty() { Ok(Files { conf, pf, ipsec }) } else { Err(faults) }
    }

    /// What is strange and yet no fault.
    pub fn warnings(&self) -> Vec<String> {
        let own = self.conf.warnings.iter().map(ToString::to_string);
        let pf = self.pf.iter().flat_map(|pf| pf.warnings.iter().map(ConfError::with_caret));
        let trees = self.trees().into_iter().flat_map(|tree| tree.warnings);
        own.chain(pf).chain(trees).collect()
    }

    /// How long a full frame, alone in its queue, may have to wait in each HFSC leaf with a real-time curve.
    pub fn worst_delays(&self) -> Vec<WorstDelay> {
        let mut delays = Vec::new();
        for tree in self.trees() {
            let bytes = tree.mtu + 14;
            delays.extend(tree.classes.iter().filter_map(|class| {
                let nanos = altq::worst_delay(&tree, class, bytes)?;
                let (interface, queue) = (tree.interface.clone(), class.name.clone());
                Some(WorstDelay { interface, queue, bytes, us: nanos as f64 / 1e3 })
            }));
        }
        delays
    }

    fn trees(&self) -> Vec<altq::TreeConf> {
        self.pf.iter().flat_map(|pf| queues::confs(&self.conf, pf)).collect()
    }
}

fn accept_pf(
    checked: Option<Result<PfConf, Vec<ConfError>>>,
    path: &Path,
    conf: &ValidConf,
    loaded: Option<&pf::Ruleset>,
    faults: &mut Faults,
) -> Option<Arc<PfConf>> {
    match checked? {
        Ok(mut pf) => {
            ::pf::optimize::optimize(&mut pf, None, loaded);
            faults.0.extend(queues::check(conf, &pf, path));
            Some(Arc::new(pf))
        }
        Err(errors) => {
            faults.0.extend(errors.iter().map(ConfError::with_caret));
            None
        }
    }
}

fn accept_ipsec(
    checked: Option<Result<ipsec::conf::ValidConf, Faults>>,
    faults: &mut Faults,
) -> Option<ipsec::conf::ValidConf> {
    match checked? {
        Ok(ipsec) => Some(ipsec),
        Err(errors) => {
            faults.0.extend(errors.0);
            None
        }
    }
}

/// Reads an ipsec.conf that nobody else may read; the text with its keys is wiped afterwards.
fn read_ipsec(path: &Path) -> Result<ipsec::conf::ValidConf, Faults> {
    ipsec::conf::check_private(path).map_err(|e| Faults(vec![e.to_string()]))?;
    let text = std::fs::read_to_string(path);
    let text = Zeroizing::new(text.map_err(|e| Faults(vec![format!("{}: {e}", path.display())]))?);
    check_ipsec(&path.display().to_string(), &text)
}

fn check_ipsec(name: &str, text: &str) -> Result<ipsec::conf::ValidConf, Faults> {
    let checked =
        ipsec::conf::Conf::parse(name, text).and_then(|c| c.check(&ipsec::conf::ValidConf::default()));
    checked.map_err(|errors| Faults(vec![ipsec::conf::with_carets(&errors, text)]))
}

/// The world as pf.conf sees it: the interfaces, and `enc0` if packets inside tunnels are shown there.
pub fn environment(conf: &ValidConf) -> pf::Environment {
    let one = |i: &conf::InterfaceConf| pf::env::Interface {
        name: i.name.clone(),
        index: pf::IfIndex(i.index.0),
        addresses: i.addrs.iter().map(|n| pf::env::IfAddress::new(n.addr(), n.prefix_len())).collect(),
        mtu: i.mtu,
        bandwidth: None,
    };
    let mut interfaces: Vec<_> = conf.interfaces.iter().map(one).collect();
    if conf.enc0 {
        interfaces.push(pf::env::Interface {
            name: "enc0".into(),
            index: ENC0,
            addresses: Vec::new(),
            mtu: 1500,
            bandwidth: None,
        });
    }
    pf::Environment { fingerprints: Some(FINGERPRINTS.into()), ..pf::Environment::new(interfaces) }
}

/// Opens the device of an interface.
pub type OpenDriver<'a> = dyn FnMut(&conf::InterfaceConf) -> Result<Arc<dyn Driver>, String> + 'a;

/// What lives between two configurations on the control thread.
#[derive(Default)]
pub struct Commit {
    rib: Rib,
    names: pf::Names,
    drivers: HashMap<String, Arc<dyn Driver>>,
}

/// A configuration with everything built and nothing published.
pub struct Prepared {
    /// The snapshot.
    pub net: NetConfig,
    trees: Vec<(Arc<IfQueue>, Tree)>,
    drivers: HashMap<String, Arc<dyn Driver>>,
}

impl Commit {
    /// Nothing yet.
    pub fn new() -> Commit {
        Commit::default()
    }

    /// Numbers of tags and queues, for printing.
    pub fn names(&self) -> &pf::Names {
        &self.names
    }

    /// The same, for who may name a new one.
    pub fn names_mut(&mut self) -> &mut pf::Names {
        &mut self.names
    }

    /// The routes.
    pub fn rib(&self) -> &Rib {
        &self.rib
    }

    /// The device of an interface, by its name.
    pub fn driver(&self, name: &str) -> Option<&Arc<dyn Driver>> {
        self.drivers.get(name)
    }

    /// All devices.
    pub fn drivers(&self) -> impl Iterator<Item = (&String, &Arc<dyn Driver>)> {
        self.drivers.iter()
    }

    /// Builds everything. `open` is called for devices that are not open yet.
    pub fn prepare(
        &mut self,
        router: &Router,
        root: &mut Root,
        files: &Files,
        open: &mut OpenDriver<'_>,
    ) -> Result<Prepared, Faults> {
        self.prepare_over(router, root, files, None, open)
    }

    /// The same, with what is not fresh of pf's rules taken over from those in force.
    pub fn prepare_over(
        &mut self,
        router: &Router,
        root: &mut Root,
        files: &Files,
        over: Option<(&pf::Ruleset, &Fresh)>,
        open: &mut OpenDriver<'_>,
    ) -> Result<Prepared, Faults> {
        let mut drivers = HashMap::new();
        for interface in &files.conf.interfaces {
            if matches!(interface.driver, DriverConf::Vlan { .. } | DriverConf::Ipsec(_)) {
                continue;
            }
            let driver = match self.drivers.get(&interface.name) {
                Some(open) => open.clone(),
                None => {
                    open(interface).map_err(|e| Faults(vec![format!("interface {}: {e}", interface.name)]))?
                }
            };
            drivers.insert(interface.name.clone(), driver);
        }
        let ruleset = self.ruleset(router, files, over)?;
        let (mut trees, mut ifqs) = (Vec::new(), HashMap::new());
        if let Some(pf) = &files.pf {
            let same_queues = router.net().pf.as_ref().is_some_and(|old| old.conf().same_queues(pf));
            for (name, tree) in queues::trees(&files.conf, pf, &mut self.names)? {
                let old = router.net().named(&name).and_then(|i| i.ifq.clone());
                match old {
                    Some(ifq) => {
                        // What waits in a queue that stays as it is loses nothing.
                        if !same_queues {
                            trees.push((ifq.clone(), tree));
                        }
                        ifqs.insert(name, ifq);
                    }
                    None => drop(ifqs.insert(name, Arc::new(IfQueue::new(tree)))),
                }
            }
        }
        let empty = ipsec::conf::ValidConf::default();
        let (sad, spd) = build_ipsec(router, root, files.ipsec.as_ref().unwrap_or(&empty))?;
        self.rib.replace_all(derive::routes(&files.conf));
        let interfaces = interfaces(&files.conf, &drivers, &ifqs);
        let many = |i: &Arc<dyn Driver>| i.queues() > 1;
        let mut net = NetConfig {
            hash_flows: drivers.values().any(many)
                || router.setup().workers > 1
                || has_paths(&files.conf)
                || !ifqs.is_empty(),
            interfaces,
            fib: self.rib.commit(),
            pf: ruleset.map(Arc::new),
            spd: Arc::new(spd),
            enc0: files.conf.enc0,
            icmp_rate: files.conf.icmp_rate,
            ..NetConfig::default()
        };
        hooks::install_sad(&mut net, sad, &router.sa_setup(), &mut root.top())
            .map_err(|e| Faults(vec![e.to_string()]))?;
        Ok(Prepared { net, trees, drivers })
    }

    /// Compiles the rules of the files; what is not fresh is taken over from those in force.
    pub fn ruleset(
        &mut self,
        router: &Router,
        files: &Files,
        over: Option<(&pf::Ruleset, &Fresh)>,
    ) -> Result<Option<pf::Ruleset>, Faults> {
        let Some(conf) = &files.pf else { return Ok(None) };
        let (pf, env) = (&router.shared().pf, environment(&files.conf));
        let compiled = match over {
            Some((old, fresh)) => pf.compile_over(old, fresh, conf, &env, &mut self.names),
            None => pf.compile(conf, &env, &mut self.names),
        };
        compiled.map(Some).map_err(|e| Faults(vec![e.to_string()]))
    }

    /// Replaces pf's rules by those of the files, and nothing else: no queue is touched, no device opened.
    pub fn replace_rules(
        &mut self,
        router: &mut Router,
        root: &mut Root,
        files: &Files,
        over: Option<(&pf::Ruleset, &Fresh)>,
    ) -> Result<(), Faults> {
        let pf = self.ruleset(router, files, over)?.map(Arc::new);
        let net = NetConfig { pf, ..router.net().clone() };
        router.apply(root, net).map_err(|late| Faults(vec![late.to_string()]))
    }

    /// Publishes what was prepared, and replaces the disciplines of queues that stay.
    pub fn publish(
        &mut self,
        router: &mut Router,
        root: &mut Root,
        prepared: Prepared,
    ) -> Result<(), kern::publish::Late> {
        let gone: Vec<Arc<IfQueue>> = router
            .net()
            .all()
            .filter_map(|i| i.ifq.clone())
            .filter(|old| !prepared.net.all().filter_map(|i| i.ifq.as_ref()).any(|new| Arc::ptr_eq(new, old)))
            .collect();
        let now = router.shared().clock.now();
        let stats = router.own_stats().clone();
        router.apply(root, prepared.net)?;
        self.drivers = prepared.drivers;
        let mut victims = altq::Victims::new();
        let mut top = root.top();
        for (ifq, tree) in prepared.trees {
            ifq.attach(&mut top, tree, now, &mut victims);
            victims.drain().for_each(|(m, why)| m.end(why, &stats.ledger));
        }
        // Nobody sees these queues any more; what waits in them cannot leave.
        for ifq in gone {
            ifq.purge(&mut top, &mut victims);
            victims.drain().for_each(|(m, why)| m.end(why, &stats.ledger));
        }
        Ok(())
    }
}

fn has_paths(conf: &ValidConf) -> bool {
    conf.routes.iter().any(|r| r.paths.len() > 1)
}

/// The databases that a checked ipsec.conf asks for; SAs that are there already go on.
pub(crate) fn build_ipsec(
    router: &Router,
    root: &mut Root,
    conf: &ipsec::conf::ValidConf,
) -> Result<(ipsec::Sad, ipsec::Spd), Faults> {
    let net = router.net();
    ipsec::conf::build(conf, Some(&net.sad), &router.sa_setup(), &mut root.top())
        .map_err(|e| Faults(vec![e.to_string()]))
}

fn interfaces(
    conf: &ValidConf,
    drivers: &HashMap<String, Arc<dyn Driver>>,
    ifqs: &HashMap<String, Arc<IfQueue>>,
) -> Vec<Option<Arc<Interface>>> {
    let caps_of = |index: IfIndex| -> Caps {
        conf.interface(index).and_then(|i| drivers.get(&i.name)).map_or_else(Caps::default, |d| d.caps())
    };
    let queues_of = |index: IfIndex| -> usize {
        conf.interface(index).and_then(|i| drivers.get(&i.name)).map_or(1, |d| d.queues().max(1))
    };
    let one = |i: &conf::InterfaceConf| {
        let kind = match i.driver {
            DriverConf::Vlan { parent, tag } => Kind::Vlan { parent, tag },
            DriverConf::Ipsec(ends) => Kind::Ipsec(ends),
            DriverConf::Tap { .. } | DriverConf::Link { .. } => Kind::Device(drivers.get(&i.name)?.clone()),
        };
        let queues = match i.driver {
            DriverConf::Vlan { parent, .. } => queues_of(parent),
            DriverConf::Ipsec(_) => 1,
            DriverConf::Tap { .. } | DriverConf::Link { .. } => queues_of(i.index),
        };
        let caps = match i.driver {
            DriverConf::Vlan { parent, .. } => caps_of(parent),
            // Super-frames are cut where they go into the SA.
            DriverConf::Ipsec(_) => Caps { checksum: true, tso: true, uso: true },
            DriverConf::Tap { .. } | DriverConf::Link { .. } => caps_of(i.index),
        };
        Some(Arc::new(Interface {
            index: i.index,
            name: i.name.as_str().into(),
            kind,
            mac: i.mac,
            mtu: i.mtu,
            addrs: i.addrs.iter().map(|n| IfAddr { addr: n.addr(), len: n.prefix_len() }).collect(),
            ifq: ifqs.get(&i.name).cloned(),
            caps,
            queues: queues as u16,
            advertises: i.advertise,
        }))
    };
    std::iter::once(None).chain(conf.interfaces.iter().map(one)).collect()
}
