//! The checks of an `[[interface]]` with `driver = "ipsec"`, as ipsecif(4) of NetBSD: two ends, and the number that its SAs in
//! ipsec.conf have behind `-u`.

use super::{
    diag::Complaints,
    file::{Conf, DriverWord, Interface},
    valid::{DriverConf, Ends},
};
use std::net::{IpAddr, Ipv4Addr};

/// Complains of keys that only a tunnel has.
pub(super) fn refuse_keys(words: &Interface, bad: &mut Complaints) {
    let spans = [
        ("local", words.local.as_ref().map(|l| &l.span)),
        ("remote", words.remote.as_ref().map(|r| &r.span)),
        ("unique", words.unique.as_ref().map(|u| &u.span)),
    ];
    bad.refuse(spans, |key| format!("{key} is for tunnels"), "driver = \"ipsec\"");
}

/// The ends of a tunnel.
pub(super) fn tunnel(conf: &Conf, words: &Interface, bad: &mut Complaints) -> DriverConf {
    refuse_device_keys(words, bad);
    let missing = [
        ("local", words.local.is_none(), "local = \"203.0.113.1\""),
        ("remote", words.remote.is_none(), "remote = \"203.0.113.2\""),
        ("unique", words.unique.is_none(), "unique = 100, and -u 100 of its SAs in ipsec.conf"),
    ];
    for (key, _, example) in missing.into_iter().filter(|(_, missing, _)| *missing) {
        bad.error(&words.span, format!("a tunnel needs {key}"), format!("for example {example}"));
    }
    let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let ends = Ends {
        local: words.local.as_ref().map_or(nobody, |l| l.value),
        remote: words.remote.as_ref().map_or(nobody, |r| r.value),
        unique: words.unique.as_ref().map_or(0, |u| u.value as u32),
    };
    if let (Some(local), Some(remote), Some(unique)) = (&words.local, &words.remote, &words.unique) {
        if local.value.is_ipv4() != remote.value.is_ipv4() {
            bad.error(
                &remote.span,
                "the ends of a tunnel are of one family",
                "two addresses of IPv4, or of IPv6",
            );
        }
        if remote.value.is_multicast() || remote.value.is_unspecified() || is_ours(conf, remote.value) {
            bad.error(&remote.span, format!("{} is no peer", remote.value), "the address of another gateway");
        }
        if !is_ours(conf, local.value) {
            let hint = "the address of one of the interfaces that have a device";
            bad.error(&local.span, format!("{} is no address of ours", local.value), hint);
        }
        let ends_of = |i: &Interface| {
            Some((i.local.as_ref()?.value, i.remote.as_ref()?.value, i.unique.as_ref()?.value))
        };
        let mut twins = conf
            .interfaces
            .iter()
            .take_while(|i| i.span != words.span)
            .filter(|i| ends_of(i) == ends_of(words));
        if let Some(name) = twins.find_map(|i| i.name.as_ref()) {
            bad.error(
                &unique.span,
                format!("{} is between these ends already, with this number", name.value),
                "another number",
            );
        }
    }
    DriverConf::Ipsec(ends)
}

fn refuse_device_keys(words: &Interface, bad: &mut Complaints) {
    let spans = [
        ("device", words.device.as_ref().map(|d| &d.span)),
        ("queues", words.queues.as_ref().map(|q| &q.span)),
        ("offload", words.offload.as_ref().map(|o| &o.span)),
        ("mac", words.mac.as_ref().map(|m| &m.span)),
        ("router_advertisements", words.advertise.as_ref().map(|a| &a.span)),
    ];
    bad.refuse(spans, |key| format!("a tunnel has no {key}"), "it has local, remote and unique");
}

/// Whether an interface with a link has this address.
fn is_ours(conf: &Conf, addr: IpAddr) -> bool {
    let on_a_link = |i: &&Interface| i.driver.as_ref().is_none_or(|d| d.value != DriverWord::Ipsec);
    conf.interfaces.iter().filter(on_a_link).flat_map(|i| &i.address).any(|a| a.value.0.addr() == addr)
}
