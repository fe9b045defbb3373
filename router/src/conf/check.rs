//! From [`Conf`] to [`ValidConf`]: what values of the file mean to each other, to the files beside it and to this machine.

use super::{
    check_interface, check_route,
    diag::{At, Complaints, Diagnostic, Invalid, list, reason},
    file::Conf,
    valid::ValidConf,
};
use kern::mbuf::PoolConfig;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// What a configuration must know of the machine it is for.
#[derive(Clone, Debug)]
pub struct Host {
    /// Processors the process may run on.
    pub cpus: Vec<usize>,
}

impl Host {
    /// This machine.
    pub fn this() -> Host {
        let set = rustix::thread::sched_getaffinity(None).unwrap_or_default();
        let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
        Host { cpus: if cpus.is_empty() { vec![0] } else { cpus } }
    }
}

/// ICMP errors a second that a worker may send, unless the file says otherwise.
const ICMP_RATE: u64 = 1000;
/// `sun_path` holds 108 octets, the last of them 0.
const SOCKET_PATH: usize = 107;

/// Checks a configuration as a whole. Complaints of reading it are among those returned.
pub fn check(conf: &Conf, mut bad: Complaints, host: &Host) -> Result<ValidConf, Invalid> {
    let base = conf.source.path.parent().map(Path::to_owned).unwrap_or_default();
    let router = &conf.router;

    let name = router.name.as_ref().map_or("softnet", |n| n.value.as_str()).to_owned();
    check_name(router.name.as_ref(), &mut bad);
    let cpus = check_cpus(router.cpus.as_ref(), host, &mut bad);
    let workers = check_workers(router.workers.as_ref(), cpus.len(), &mut bad);
    let control = check_control(router.control.as_ref(), &base, &name, &mut bad);
    let pf = check_file("pf", router.pf.as_ref(), &base, &mut bad);
    let ipsec = check_file("ipsec", router.ipsec.as_ref(), &base, &mut bad);
    let interfaces = check_interface::check(conf, &name, workers, &mut bad);
    let routes = check_route::check(conf, &interfaces, &mut bad);
    let pool = PoolConfig {
        clusters: router.clusters.as_ref().map_or(PoolConfig::default().clusters, |n| n.value as usize),
        jumbos: router.jumbos.as_ref().map_or(PoolConfig::default().jumbos, |n| n.value as usize),
    };
    check_jumbos(conf, &pool, interfaces.iter().map(|i| i.queues).sum(), &mut bad);

    let failed = bad.any_error();
    let warnings: Vec<Diagnostic> = bad.into_list();
    if failed {
        return Err(Invalid(warnings));
    }
    Ok(ValidConf {
        file: conf.source.path.clone(),
        name,
        workers,
        cpus,
        spin: Duration::from_micros(router.spin_us.as_ref().map_or(30, |n| n.value)),
        locking: router.locking.as_ref().map(|l| l.value).unwrap_or_default(),
        pool,
        control,
        pf,
        ipsec,
        enc0: conf.enc0.as_ref().is_none_or(|e| e.value),
        icmp_rate: conf.icmp_rate.as_ref().map_or(ICMP_RATE, |n| n.value) as u32,
        interfaces,
        routes,
        warnings,
        _checked: (),
    })
}

fn check_name(name: Option<&At<String>>, bad: &mut Complaints) {
    let Some(name) = name else { return };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let ok =
        (1..=32).contains(&name.value.len()) && name.value.chars().all(fits) && !name.value.starts_with('.');
    if !ok {
        let hint = "1 to 32 letters, digits, '-', '_' and '.': it is part of file names";
        bad.error(&name.span, format!("name cannot be \"{}\"", name.value), hint);
    }
}

fn check_cpus(cpus: Option<&At<Vec<At<u64>>>>, host: &Host, bad: &mut Complaints) -> Vec<usize> {
    let Some(cpus) = cpus else { return host.cpus.clone() };
    if cpus.value.is_empty() {
        bad.error(&cpus.span, "cpus names no processor", "leave the key away for all of them");
    }
    let mut seen: Vec<usize> = Vec::new();
    for cpu in &cpus.value {
        let number = cpu.value as usize;
        if seen.contains(&number) {
            bad.error(&cpu.span, format!("processor {number} is named twice"), "one worker a processor");
        } else if !host.cpus.contains(&number) {
            let there: Vec<String> = host.cpus.iter().map(ToString::to_string).collect();
            bad.error(
                &cpu.span,
                format!("there is no processor {number} here"),
                format!("there are {}", list(&there)),
            );
        }
        seen.push(number);
    }
    if seen.is_empty() { host.cpus.clone() } else { seen }
}

fn check_workers(workers: Option<&At<Option<u64>>>, cpus: usize, bad: &mut Complaints) -> usize {
    let Some(At { value: Some(count), span }) = workers else { return cpus.min(64) };
    let count = *count as usize;
    if count > cpus {
        let hint = "workers that share a processor wait for each other's locks";
        let processors = if cpus == 1 { "processor" } else { "processors" };
        bad.warn(span, format!("{count} workers for {cpus} {processors}"), hint);
    }
    count
}

fn check_control(control: Option<&At<String>>, base: &Path, name: &str, bad: &mut Complaints) -> PathBuf {
    let path = control.map_or_else(|| super::default_control(name), |c| base.join(&c.value));
    let span = control.map_or(0..0, |c| c.span.clone());
    if path.as_os_str().len() > SOCKET_PATH {
        let length = path.as_os_str().len();
        bad.error(
            &span,
            format!("control is {length} octets long"),
            format!("at most {SOCKET_PATH} for a socket"),
        );
    }
    path
}

fn check_file(key: &str, file: Option<&At<String>>, base: &Path, bad: &mut Complaints) -> Option<PathBuf> {
    let file = file?;
    let path = base.join(&file.value);
    let hint = "paths are relative to this file";
    match std::fs::File::open(&path).and_then(|f| f.metadata()) {
        Ok(meta) if meta.is_file() => {}
        Ok(_) => bad.error(&file.span, format!("{key}: {} is no file", path.display()), hint),
        Err(e) => bad.error(&file.span, format!("{key}: {}: {}", path.display(), reason(&e)), hint),
    }
    Some(path)
}

/// Every device queue has a jumbo to read into, and at least as many again must be left for packets.
fn check_jumbos(conf: &Conf, pool: &PoolConfig, queues: usize, bad: &mut Complaints) {
    let Some(jumbos) = conf.router.jumbos.as_ref().filter(|_| pool.jumbos < 2 * queues) else { return };
    let message = format!("{} jumbos are too few for {queues} device queues", pool.jumbos);
    bad.error(&jumbos.span, message, format!("each queue holds one: {} or more", 4 * queues));
}
