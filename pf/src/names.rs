//! Names that pf.conf uses for numbers: services, protocols, users, groups, ICMP types and codes, TOS values.
//!
//! As in BSD's /etc/services and /etc/protocols and in pfctl's own tables. The first name of a number is the one printed.

use crate::addr::Family;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Name, port, protocols: `t`cp, `u`dp or `b`oth.
const SERVICES: &[(&str, u16, char)] = &[
    ("tcpmux", 1, 'b'),
    ("compressnet", 2, 'b'),
    ("echo", 7, 'b'),
    ("discard", 9, 'b'),
    ("systat", 11, 'b'),
    ("daytime", 13, 'b'),
    ("chargen", 19, 'b'),
    ("ftp-data", 20, 'b'),
    ("ftp", 21, 'b'),
    ("ssh", 22, 'b'),
    ("telnet", 23, 'b'),
    ("smtp", 25, 'b'),
    ("msg-icp", 29, 'b'),
    ("time", 37, 'b'),
    ("nicname", 43, 'b'),
    ("whois", 43, 'b'),
    ("mpm-flags", 44, 'b'),
    ("tacacs", 49, 'b'),
    ("domain", 53, 'b'),
    ("bootps", 67, 'b'),
    ("bootpc", 68, 'b'),
    ("tftp", 69, 'b'),
    ("gopher", 70, 'b'),
    ("finger", 79, 'b'),
    ("http", 80, 'b'),
    ("www", 80, 'b'),
    ("www-http", 80, 'b'),
    ("kerberos-sec", 88, 'b'),
    ("kerberos", 88, 'b'),
    ("pop3", 110, 'b'),
    ("sunrpc", 111, 'b'),
    ("auth", 113, 'b'),
    ("ident", 113, 'b'),
    ("nntp", 119, 'b'),
    ("ntp", 123, 'b'),
    ("epmap", 135, 'b'),
    ("netbios-ns", 137, 'b'),
    ("netbios-dgm", 138, 'b'),
    ("netbios-ssn", 139, 'b'),
    ("imap", 143, 'b'),
    ("snmp", 161, 'b'),
    ("snmptrap", 162, 'b'),
    ("bgp", 179, 'b'),
    ("irc", 194, 'b'),
    ("ldap", 389, 'b'),
    ("https", 443, 'b'),
    ("microsoft-ds", 445, 'b'),
    ("pip", 321, 'b'),
    ("isakmp", 500, 'b'),
    ("syslog", 514, 'u'),
    ("shell", 514, 't'),
    ("printer", 515, 'b'),
    ("router", 520, 'u'),
    ("ripng", 521, 'b'),
    ("dhcpv6-client", 546, 'b'),
    ("dhcpv6-server", 547, 'b'),
    ("submission", 587, 'b'),
    ("ldaps", 636, 'b'),
    ("domain-s", 853, 'b'),
    ("rsync", 873, 'b'),
    ("imaps", 993, 'b'),
    ("pop3s", 995, 'b'),
    ("socks", 1080, 'b'),
    ("openvpn", 1194, 'b'),
    ("l2tp", 1701, 'b'),
    ("pptp", 1723, 'b'),
    ("radius", 1812, 'b'),
    ("radius-acct", 1813, 'b'),
    ("nfsd", 2049, 'b'),
    ("nfs", 2049, 'b'),
    ("mysql", 3306, 'b'),
    ("rdp", 3389, 'b'),
    ("ipsec-nat-t", 4500, 'b'),
    ("sip", 5060, 'b'),
    ("postgresql", 5432, 'b'),
    ("mdns", 5353, 'b'),
    ("personal-agent", 5555, 'b'),
    ("x11", 6000, 'b'),
    ("ircd", 6667, 't'),
    ("http-alt", 8080, 'b'),
    ("ftp-proxy", 8021, 't'),
];

/// The port of a service.
pub fn service(name: &str) -> Option<u16> {
    SERVICES.iter().find(|(n, ..)| *n == name).map(|&(_, port, _)| port)
}

/// The name of a service; only TCP and UDP have any.
pub fn service_name(port: u16, proto: Option<u8>) -> Option<&'static str> {
    let fits = |which: char| match proto {
        Some(TCP) => which != 'u',
        Some(UDP) => which != 't',
        Some(_) => false,
        None => true,
    };
    SERVICES.iter().find(|&&(_, p, which)| p == port && fits(which)).map(|&(name, ..)| name)
}

const USERS: &[(&str, u32)] = &[
    ("root", 0),
    ("toor", 0),
    ("daemon", 1),
    ("operator", 2),
    ("bin", 3),
    ("tty", 4),
    ("kmem", 5),
    ("games", 7),
    ("news", 8),
    ("man", 9),
    ("sshd", 22),
    ("smmsp", 25),
    ("mailnull", 26),
    ("bind", 53),
    ("unbound", 59),
    ("proxy", 62),
    ("_pflogd", 64),
    ("_dhcp", 65),
    ("uucp", 66),
    ("pop", 68),
    ("auditdistd", 78),
    ("www", 80),
    ("ntpd", 123),
    ("_ypldap", 160),
    ("hast", 845),
    ("nobody", 65534),
];

const GROUPS: &[(&str, u32)] = &[
    ("wheel", 0),
    ("daemon", 1),
    ("kmem", 2),
    ("sys", 3),
    ("tty", 4),
    ("operator", 5),
    ("mail", 6),
    ("bin", 7),
    ("news", 8),
    ("man", 9),
    ("games", 13),
    ("ftp", 14),
    ("staff", 20),
    ("sshd", 22),
    ("smmsp", 25),
    ("mailnull", 26),
    ("guest", 31),
    ("video", 44),
    ("realtime", 47),
    ("bind", 53),
    ("unbound", 59),
    ("proxy", 62),
    ("authpf", 63),
    ("_pflogd", 64),
    ("_dhcp", 65),
    ("uucp", 66),
    ("dialer", 68),
    ("network", 69),
    ("audit", 77),
    ("www", 80),
    ("ntpd", 123),
    ("_ypldap", 160),
    ("hast", 845),
    ("nogroup", 65533),
    ("nobody", 65534),
];

/// The number of a user.
pub fn user(name: &str) -> Option<u32> {
    USERS.iter().find(|(n, _)| *n == name).map(|&(_, id)| id)
}

/// The number of a group.
pub fn group(name: &str) -> Option<u32> {
    GROUPS.iter().find(|(n, _)| *n == name).map(|&(_, id)| id)
}

const PROTOCOLS: &[(&str, u8)] = &[
    ("icmp", 1),
    ("igmp", 2),
    ("ggp", 3),
    ("ipencap", 4),
    ("st2", 5),
    ("tcp", 6),
    ("cbt", 7),
    ("egp", 8),
    ("igp", 9),
    ("udp", 17),
    ("rdp", 27),
    ("dccp", 33),
    ("ipv6", 41),
    ("ipv6-route", 43),
    ("ipv6-frag", 44),
    ("rsvp", 46),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("mobile", 55),
    ("ipv6-icmp", 58),
    ("icmp6", 58),
    ("ipv6-nonxt", 59),
    ("ipv6-opts", 60),
    ("eigrp", 88),
    ("ospf", 89),
    ("ipip", 94),
    ("etherip", 97),
    ("encap", 98),
    ("pim", 103),
    ("ipcomp", 108),
    ("carp", 112),
    ("vrrp", 112),
    ("l2tp", 115),
    ("sctp", 132),
    ("udplite", 136),
    ("mpls-in-ip", 137),
    ("pfsync", 240),
];

/// The number of a protocol.
pub fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(n, _)| *n == name).map(|&(_, number)| number)
}

/// The name of a protocol.
pub fn protocol_name(number: u8) -> Option<&'static str> {
    PROTOCOLS.iter().find(|&&(_, n)| n == number).map(|&(name, _)| name)
}

const ICMP_TYPES: &[(&str, u8)] = &[
    ("echoreq", 8),
    ("echorep", 0),
    ("unreach", 3),
    ("squench", 4),
    ("redir", 5),
    ("althost", 6),
    ("routeradv", 9),
    ("routersol", 10),
    ("timex", 11),
    ("paramprob", 12),
    ("timereq", 13),
    ("timerep", 14),
    ("inforeq", 15),
    ("inforep", 16),
    ("maskreq", 17),
    ("maskrep", 18),
    ("trace", 30),
    ("dataconv", 31),
    ("mobredir", 32),
    ("ipv6-where", 33),
    ("ipv6-here", 34),
    ("mobregreq", 35),
    ("mobregrep", 36),
    ("skip", 39),
    ("photuris", 40),
];

const ICMP6_TYPES: &[(&str, u8)] = &[
    ("unreach", 1),
    ("toobig", 2),
    ("timex", 3),
    ("paramprob", 4),
    ("echoreq", 128),
    ("echorep", 129),
    ("groupqry", 130),
    ("listqry", 130),
    ("grouprep", 131),
    ("listenrep", 131),
    ("groupterm", 132),
    ("listendone", 132),
    ("routersol", 133),
    ("routeradv", 134),
    ("neighbrsol", 135),
    ("neighbradv", 136),
    ("redir", 137),
    ("routrrenum", 138),
    ("wrureq", 139),
    ("wrurep", 140),
    ("fqdnreq", 139),
    ("fqdnrep", 140),
    ("niqry", 139),
    ("nirep", 140),
    ("mtraceresp", 200),
    ("mtrace", 201),
    ("listenrepv2", 143),
];

/// Type, name, code.
const ICMP_CODES: &[(u8, &str, u8)] = &[
    (3, "net-unr", 0),
    (3, "host-unr", 1),
    (3, "proto-unr", 2),
    (3, "port-unr", 3),
    (3, "needfrag", 4),
    (3, "srcfail", 5),
    (3, "net-unk", 6),
    (3, "host-unk", 7),
    (3, "isolate", 8),
    (3, "net-prohib", 9),
    (3, "host-prohib", 10),
    (3, "net-tos", 11),
    (3, "host-tos", 12),
    (3, "filter-prohib", 13),
    (3, "host-preced", 14),
    (3, "cutoff-preced", 15),
    (5, "redir-net", 0),
    (5, "redir-host", 1),
    (5, "redir-tos-net", 2),
    (5, "redir-tos-host", 3),
    (9, "normal-adv", 0),
    (9, "common-adv", 16),
    (11, "transit", 0),
    (11, "reassemb", 1),
    (12, "badhead", 0),
    (12, "optmiss", 1),
    (12, "badlen", 2),
    (40, "unknown-ind", 1),
    (40, "auth-fail", 2),
    (40, "decrypt-fail", 3),
];

const ICMP6_CODES: &[(u8, &str, u8)] = &[
    (1, "admin-unr", 1),
    (1, "noroute-unr", 0),
    (1, "notnbr-unr", 2),
    (1, "beyond-unr", 2),
    (1, "addr-unr", 3),
    (1, "port-unr", 4),
    (3, "transit", 0),
    (3, "reassemb", 1),
    (4, "badhead", 0),
    (4, "nxthdr", 1),
    (137, "redironlink", 0),
    (137, "redirrouter", 1),
];

const fn types(family: Family) -> &'static [(&'static str, u8)] {
    match family {
        Family::Inet => ICMP_TYPES,
        Family::Inet6 => ICMP6_TYPES,
    }
}

const fn codes(family: Family) -> &'static [(u8, &'static str, u8)] {
    match family {
        Family::Inet => ICMP_CODES,
        Family::Inet6 => ICMP6_CODES,
    }
}

/// The number of an ICMP type.
pub fn icmp_type(family: Family, name: &str) -> Option<u8> {
    types(family).iter().find(|(n, _)| *n == name).map(|&(_, number)| number)
}

/// The name of an ICMP type.
pub fn icmp_type_name(family: Family, number: u8) -> Option<&'static str> {
    types(family).iter().find(|&&(_, n)| n == number).map(|&(name, _)| name)
}

/// The number of a code of an ICMP type.
pub fn icmp_code(family: Family, kind: u8, name: &str) -> Option<u8> {
    codes(family).iter().find(|(t, n, _)| *t == kind && *n == name).map(|&(.., code)| code)
}

/// The name of a code of an ICMP type.
pub fn icmp_code_name(family: Family, kind: u8, code: u8) -> Option<&'static str> {
    codes(family).iter().find(|&&(t, _, c)| t == kind && c == code).map(|&(_, name, _)| name)
}

const TOS: &[(&str, u8)] = &[
    ("lowdelay", 0x10),
    ("throughput", 0x08),
    ("reliability", 0x04),
    ("critical", 0xa0),
    ("inetcontrol", 0xc0),
    ("netcontrol", 0xe0),
    ("ef", 0xb8),
    ("va", 0xb0),
    ("cs0", 0x00),
    ("cs1", 0x20),
    ("cs2", 0x40),
    ("cs3", 0x60),
    ("cs4", 0x80),
    ("cs5", 0xa0),
    ("cs6", 0xc0),
    ("cs7", 0xe0),
    ("af11", 0x28),
    ("af12", 0x30),
    ("af13", 0x38),
    ("af21", 0x48),
    ("af22", 0x50),
    ("af23", 0x58),
    ("af31", 0x68),
    ("af32", 0x70),
    ("af33", 0x78),
    ("af41", 0x88),
    ("af42", 0x90),
    ("af43", 0x98),
];

/// The TOS octet of a name, DSCP names included.
pub fn tos(name: &str) -> Option<u8> {
    TOS.iter().find(|(n, _)| *n == name).map(|&(_, value)| value)
}
