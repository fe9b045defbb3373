//! The checks of `[[interface]]`: names, what they sit on, addresses.

use super::{
    check_tunnel, derive,
    diag::{At, Complaints, list, nearest},
    file::{AddressWord, Advertise as AdvertiseWords, Conf, DriverWord, Interface},
    valid::{Advertise, DriverConf, InterfaceConf},
};
use crate::route::IfIndex;
use ipnet::IpNet;
use std::{collections::HashMap, net::IpAddr, time::Duration};
use wire::Mac;

/// Longest name the kernel gives a network interface (`IFNAMSIZ` less the 0).
const NAME: usize = 15;
/// Smallest MTU that IPv6 allows (RFC 8200, 5).
const IPV6_MTU: u16 = 1280;
/// Most octets a TAP device carries: 65,535 less an Ethernet header.
const TAP_MTU: u16 = 65_521;
/// Names that mean something else in pf.conf.
const TAKEN: [&str; 8] = ["all", "any", "enc0", "from", "lo0", "on", "self", "to"];

pub(super) fn check(conf: &Conf, router: &str, workers: usize, bad: &mut Complaints) -> Vec<InterfaceConf> {
    check_names(conf, bad);
    check_devices(conf, bad);
    check_addresses(conf, bad);
    let mut interfaces = Vec::new();
    for (place, words) in conf.interfaces.iter().enumerate() {
        let built = interface(conf, words, IfIndex(place as u16 + 1), router, workers, bad);
        interfaces.push(built);
    }
    inherit(conf, &mut interfaces, bad);
    check_macs(conf, &interfaces, bad);
    interfaces
}

fn interface(
    conf: &Conf,
    words: &Interface,
    index: IfIndex,
    router: &str,
    workers: usize,
    bad: &mut Complaints,
) -> InterfaceConf {
    let name = words.name.as_ref().map_or(String::new(), |n| n.value.clone());
    let driver = driver(conf, words, &name, bad);
    let mac = mac(words, router, &name, bad);
    let is_tunnel = matches!(driver, DriverConf::Ipsec(_));
    let mtu = words.mtu.as_ref().map_or(if is_tunnel { IPV6_MTU } else { 1500 }, |m| m.value as u16);
    let mut addrs: Vec<IpNet> = words.address.iter().map(|a| a.value.0).collect();
    check_mtu(words, mtu, &addrs, bad);
    if !addrs.iter().any(|net| matches!(net.addr(), IpAddr::V6(a) if a.is_unicast_link_local()))
        && mtu >= IPV6_MTU
        && !is_tunnel
    {
        addrs.push(derive::link_local(mac));
    }
    let workers = if is_tunnel { 1 } else { workers };
    let queues = words.queues.as_ref().and_then(|q| q.value).map_or(workers, |q| q as usize);
    InterfaceConf {
        index,
        name,
        driver,
        mtu,
        queues,
        offload: words.offload.as_ref().is_none_or(|o| o.value),
        mac,
        advertise: words.advertise.as_ref().map(|a| advertise(a, &addrs, bad)),
        addrs,
    }
}

fn driver(conf: &Conf, words: &Interface, name: &str, bad: &mut Complaints) -> DriverConf {
    if words.driver.as_ref().is_none_or(|d| d.value != DriverWord::Ipsec) {
        check_tunnel::refuse_keys(words, bad);
    }
    let device = || words.device.as_ref().map_or_else(|| name.to_owned(), |d| d.value.clone());
    match words.driver.as_ref().map(|d| d.value) {
        Some(DriverWord::Vlan) => vlan(conf, words, bad),
        Some(DriverWord::Ipsec) => {
            refuse_vlan_keys(words, bad);
            check_tunnel::tunnel(conf, words, bad)
        }
        Some(DriverWord::Tap) | None => {
            refuse_vlan_keys(words, bad);
            if words.driver.is_some() && words.device.is_none() {
                bad.error(
                    &words.span,
                    format!("interface {name} has no device"),
                    "the kernel's name for the other end of the cable: device = \"gwa-lan\"",
                );
            }
            DriverConf::Tap { device: device() }
        }
        Some(DriverWord::Link) => {
            refuse_vlan_keys(words, bad);
            DriverConf::Link { device: device() }
        }
    }
}

fn refuse_vlan_keys(words: &Interface, bad: &mut Complaints) {
    let spans =
        [("parent", words.parent.as_ref().map(|p| &p.span)), ("tag", words.tag.as_ref().map(|t| &t.span))];
    bad.refuse(spans, |key| format!("{key} is for VLANs"), "driver = \"vlan\"");
}

fn vlan(conf: &Conf, words: &Interface, bad: &mut Complaints) -> DriverConf {
    let spans = [
        ("device", words.device.as_ref().map(|d| &d.span)),
        ("queues", words.queues.as_ref().map(|q| &q.span)),
        ("offload", words.offload.as_ref().map(|o| &o.span)),
    ];
    bad.refuse(spans, |key| format!("a VLAN has no {key} of its own"), "its parent has");
    if words.tag.is_none() {
        bad.error(&words.span, "a VLAN needs a tag", "for example tag = 100");
    }
    let parent = parent(conf, words, bad).unwrap_or(IfIndex::NONE);
    DriverConf::Vlan { parent, tag: words.tag.as_ref().map_or(0, |t| t.value as u16) }
}

fn parent(conf: &Conf, words: &Interface, bad: &mut Complaints) -> Option<IfIndex> {
    let Some(parent) = &words.parent else {
        bad.error(&words.span, "a VLAN needs a parent", "for example parent = \"lan0\"");
        return None;
    };
    let Some(place) = find(conf, &parent.value) else {
        unknown_interface(conf, parent, bad);
        return None;
    };
    let kind = match conf.interfaces[place].driver.as_ref().map(|d| d.value) {
        Some(DriverWord::Vlan) => Some("a VLAN itself"),
        Some(DriverWord::Ipsec) => Some("a tunnel"),
        _ => None,
    };
    if let Some(kind) = kind {
        bad.error(&parent.span, format!("{} is {kind}", parent.value), "its parent must be a device");
    }
    Some(IfIndex(place as u16 + 1))
}

fn find(conf: &Conf, name: &str) -> Option<usize> {
    conf.interfaces.iter().position(|i| i.name.as_ref().is_some_and(|n| n.value == name))
}

/// Complains of a name that no interface has.
pub(super) fn unknown_interface(conf: &Conf, name: &At<String>, bad: &mut Complaints) {
    let names: Vec<&str> =
        conf.interfaces.iter().filter_map(|i| Some(i.name.as_ref()?.value.as_str())).collect();
    let hint = match nearest(&name.value, &names) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", list(&names)),
    };
    bad.error(&name.span, format!("no interface is called \"{}\"", name.value), hint);
}

fn mac(words: &Interface, router: &str, name: &str, bad: &mut Complaints) -> Mac {
    let Some(mac) = &words.mac else { return derive::mac(router, name) };
    if !mac.value.is_unicast() {
        bad.error(
            &mac.span,
            format!("{} is no station's address", mac.value),
            "the first octet must be even",
        );
    }
    mac.value
}

fn check_mtu(words: &Interface, mtu: u16, addrs: &[IpNet], bad: &mut Complaints) {
    let span = words.mtu.as_ref().map_or(words.span.clone(), |m| m.span.clone());
    let has_v6 = addrs.iter().any(|net| matches!(net, IpNet::V6(_))) || words.advertise.is_some();
    if has_v6 && mtu < IPV6_MTU {
        bad.error(&span, format!("mtu {mtu} is too small for IPv6"), format!("{IPV6_MTU} or more"));
    }
    if words.driver.as_ref().is_some_and(|d| d.value == DriverWord::Tap) && mtu > TAP_MTU {
        bad.error(
            &span,
            format!("mtu {mtu} is more than a TAP device carries"),
            format!("at most {TAP_MTU}"),
        );
    }
}

fn advertise(words: &AdvertiseWords, addrs: &[IpNet], bad: &mut Complaints) -> Advertise {
    let defaults = Advertise::default();
    let secs =
        |word: &Option<At<u64>>, default| word.as_ref().map_or(default, |s| Duration::from_secs(s.value));
    let interval = secs(&words.interval, defaults.interval);
    let advertise = Advertise {
        interval,
        lifetime: secs(&words.lifetime, 3 * interval),
        managed: words.managed.as_ref().is_some_and(|m| m.value),
        other: words.other.as_ref().is_some_and(|o| o.value),
        valid: secs(&words.valid, defaults.valid),
        preferred: secs(&words.preferred, defaults.preferred),
    };
    if let Some(lifetime) = words.lifetime.as_ref().filter(|l| l.value != 0 && advertise.lifetime < interval)
    {
        let hint = format!("0 (no default router), or {} to 9000", interval.as_secs());
        bad.error(&lifetime.span, "lifetime is shorter than interval", hint);
    }
    if advertise.preferred > advertise.valid {
        let span =
            words.preferred.as_ref().or(words.valid.as_ref()).map_or(words.span.clone(), |p| p.span.clone());
        bad.error(&span, "preferred is longer than valid", format!("at most {}", advertise.valid.as_secs()));
    }
    let has_64 = |net: &IpNet| matches!(net, IpNet::V6(net) if net.prefix_len() == 64 && !net.addr().is_unicast_link_local());
    if !addrs.iter().any(has_64) {
        bad.warn(
            &words.span,
            "no /64 to advertise: hosts will make no addresses",
            "address = \"2001:db8:a::1/64\"",
        );
    }
    advertise
}

/// What a VLAN has of its parent: queues, super-frames, and the link-layer address unless it has its own.
fn inherit(conf: &Conf, interfaces: &mut [InterfaceConf], bad: &mut Complaints) {
    for place in 0..interfaces.len() {
        let DriverConf::Vlan { parent, .. } = interfaces[place].driver else { continue };
        let Some(above) = parent.slot().and_then(|p| interfaces.get(p)).cloned() else { continue };
        let (vlan, words) = (&mut interfaces[place], &conf.interfaces[place]);
        vlan.queues = above.queues;
        vlan.offload = above.offload;
        if words.mac.is_none() {
            vlan.addrs.retain(|net| *net != derive::link_local(vlan.mac));
            vlan.mac = above.mac;
            if vlan.link_local().is_none() && vlan.mtu >= IPV6_MTU {
                vlan.addrs.push(derive::link_local(vlan.mac));
            }
        }
        if vlan.mtu > above.mtu {
            let span = words.mtu.as_ref().map_or(words.span.clone(), |m| m.span.clone());
            let message = format!("mtu {} is more than that of {}, {}", vlan.mtu, above.name, above.mtu);
            bad.error(&span, message, format!("at most {}", above.mtu));
        }
    }
}

fn check_names(conf: &Conf, bad: &mut Complaints) {
    let mut seen: HashMap<&str, &At<String>> = HashMap::new();
    for name in conf.interfaces.iter().filter_map(|i| i.name.as_ref()) {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let first = name.value.chars().next().is_some_and(|c| c.is_ascii_alphabetic());
        if !first || name.value.len() > NAME || !name.value.chars().all(fits) {
            let hint = "a letter, then at most 14 letters, digits, '-', '_' and '.': \"lan0\"";
            bad.error(&name.span, format!("name cannot be \"{}\"", name.value), hint);
        } else if TAKEN.contains(&name.value.as_str()) {
            bad.error(
                &name.span,
                format!("{} means something else in pf.conf", name.value),
                "for example \"lan0\"",
            );
        }
        if seen.insert(&name.value, name).is_some() {
            bad.error(
                &name.span,
                format!("there are two interfaces called {}", name.value),
                "names are unique",
            );
        }
    }
    if conf.interfaces.len() > 255 {
        bad.error(&conf.interfaces[255].span, "more than 255 interfaces", "");
    }
}

/// A device has one interface; a cable two; a tag on a parent one.
fn check_devices(conf: &Conf, bad: &mut Complaints) {
    let (mut devices, mut tags) = (HashMap::new(), HashMap::new());
    for words in &conf.interfaces {
        let name = words.name.as_ref().map_or("", |n| n.value.as_str());
        if let Some(device) = &words.device {
            check_device_name(words, device, bad);
            let ends: &mut Vec<&str> = devices.entry(device.value.as_str()).or_default();
            let limit =
                if words.driver.as_ref().is_some_and(|d| d.value == DriverWord::Link) { 2 } else { 1 };
            if ends.len() >= limit {
                let message = format!("device {} belongs to {} already", device.value, list(ends));
                bad.error(&device.span, message, "each interface has a device of its own");
            }
            ends.push(name);
        }
        if let (Some(parent), Some(tag)) = (&words.parent, &words.tag)
            && let Some(other) = tags.insert((&parent.value, tag.value), name)
        {
            let message = format!("tag {} on {} belongs to {other} already", tag.value, parent.value);
            bad.error(&tag.span, message, "another tag");
        }
    }
}

fn check_device_name(words: &Interface, device: &At<String>, bad: &mut Complaints) {
    let is_tap = words.driver.as_ref().is_some_and(|d| d.value == DriverWord::Tap);
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && !"/:%".contains(c);
    let ok =
        !device.value.is_empty() && device.value.chars().all(fits) && ![".", ".."].contains(&&*device.value);
    if !ok || (is_tap && device.value.len() > NAME) {
        let hint = format!("1 to {NAME} octets without '/', ':', '%' and blanks");
        bad.error(&device.span, format!("device cannot be \"{}\"", device.value), hint);
    }
}

fn check_addresses(conf: &Conf, bad: &mut Complaints) {
    let mut owners: HashMap<IpAddr, String> = HashMap::new();
    let mut subnets: HashMap<IpNet, String> = HashMap::new();
    for words in &conf.interfaces {
        let name = words.name.as_ref().map_or("", |n| n.value.as_str());
        for at in &words.address {
            let (net, AddressWord(with_host)) = (at.value.0.trunc(), at.value);
            check_address(at, bad);
            if matches!(with_host.addr(), IpAddr::V6(a) if a.is_unicast_link_local()) {
                continue;
            }
            if let Some(other) = owners.insert(with_host.addr(), name.to_owned()) {
                let message = format!("{} belongs to {other} already", with_host.addr());
                bad.error(&at.span, message, "an address has one interface");
            }
            match subnets.insert(net, name.to_owned()) {
                Some(other) if other != name => {
                    let message = format!("{net} is the subnet of {other} already");
                    bad.error(&at.span, message, "each link has a subnet of its own");
                }
                _ => {}
            }
        }
    }
}

fn check_address(at: &At<AddressWord>, bad: &mut Complaints) {
    let net = at.value.0;
    let addr = net.addr();
    let kind = match addr {
        _ if addr.is_unspecified() => Some("no address"),
        _ if addr.is_loopback() => Some("a loopback address"),
        _ if addr.is_multicast() => Some("a group's address"),
        IpAddr::V4(a) if a.octets()[0] >= 240 => Some("a reserved address"),
        IpAddr::V4(a) if a.octets()[0] == 0 => Some("a reserved address"),
        IpAddr::V6(a) if a.to_ipv4_mapped().is_some() => Some("an IPv4 address in disguise"),
        _ => None,
    };
    if let Some(kind) = kind {
        bad.error(&at.span, format!("{addr} is {kind}"), "an interface has a unicast address");
        return;
    }
    if net.prefix_len() == 0 {
        bad.error(&at.span, format!("{net} has the whole world on one link"), "for example /24");
    } else if net.prefix_len() + 1 < net.max_prefix_len() && addr == net.network() {
        let hint = format!("for example {}/{}", net.hosts().next().unwrap_or(addr), net.prefix_len());
        bad.error(&at.span, format!("{addr} is the subnet's own address"), hint);
    } else if addr.is_ipv4() && net.prefix_len() < 31 && addr == net.broadcast() {
        let hint = format!("for example {}/{}", net.hosts().next().unwrap_or(addr), net.prefix_len());
        bad.error(&at.span, format!("{addr} is the subnet's broadcast address"), hint);
    }
}

/// Two interfaces on one wire must differ; a VLAN may have its parent's.
fn check_macs(conf: &Conf, interfaces: &[InterfaceConf], bad: &mut Complaints) {
    let mut seen: HashMap<Mac, &str> = HashMap::new();
    for (words, interface) in conf.interfaces.iter().zip(interfaces) {
        let Some(mac) = &words.mac else { continue };
        if let Some(other) = seen.insert(mac.value, &interface.name) {
            bad.error(&mac.span, format!("{} belongs to {other} already", mac.value), "leave the key away");
        }
    }
}
