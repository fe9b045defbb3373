//! Filter rules, anchors, antispoof, scrub, translation and Ethernet rules.

use std::fmt::Write;

use super::{author::Author, words::Of};

/// Protocols a rule may have, with the family that they need and whether they have ports.
const PROTOCOLS: [(&str, Of, bool); 8] = [
    ("", Of::Any, false),
    ("proto tcp ", Of::Any, true),
    ("proto udp ", Of::Any, true),
    ("proto { tcp udp } ", Of::Any, true),
    ("proto icmp ", Of::Inet, false),
    ("proto ipv6-icmp ", Of::Inet6, false),
    ("proto { esp, 47 } ", Of::Any, false),
    ("proto sctp ", Of::Any, true),
];

/// Where a rule applies: what stands between its action and its options.
struct Place {
    text: String,
    of: Of,
    proto: &'static str,
}

impl Place {
    fn is_tcp(&self) -> bool {
        self.proto == "proto tcp "
    }
}

impl Author {
    fn of(&mut self) -> Of {
        self.chance.one_of(&[Of::Any, Of::Inet, Of::Inet6])
    }

    /// Interface, next hop, family, protocol and addresses; the next hop is written only where one may be.
    fn place(&mut self, route: bool) -> Place {
        let (proto, needs, ports) = self.chance.one_of(&PROTOCOLS);
        let of = if needs == Of::Any { self.of() } else { needs };
        let route = if route && self.chance.is(6) { self.route(of) } else { String::new() };
        let (on, addresses) = (self.on(), self.addresses(of, ports));
        Place { text: format!("{on}{route}{}{proto}{addresses}", of.word()), of, proto }
    }

    fn route(&mut self, of: Of) -> String {
        let kind = self.chance.one_of(&["route-to", "reply-to", "dup-to"]);
        let hop = |author: &mut Author| match of {
            Of::Any => "wan0".to_owned(),
            of => format!("(wan0 {})", author.prefix(of)),
        };
        match self.chance.below(4) {
            0 if of != Of::Any => format!("{kind} {{ {}, {} }} round-robin ", hop(self), hop(self)),
            1 => format!("{kind} {} sticky-address ", hop(self)),
            _ => format!("{kind} {} ", hop(self)),
        }
    }

    fn log(&mut self) -> &'static str {
        self.some(&["log ", "log (all) ", "log (to pflog2) ", "log (all, user) ", "log (matches) "])
    }

    pub fn filter(&mut self, out: &mut String, margin: &str) {
        let line = match self.chance.below(5) {
            0 | 1 => self.block(),
            2 if self.chance.is(5) => {
                "match on wan0 inet from 192.0.2.30 to any binat-to 203.0.113.30".to_owned()
            }
            2 => self.matching(),
            _ => self.pass(),
        };
        let _ = writeln!(out, "{margin}{}", line.trim_end());
    }

    fn block(&mut self) -> String {
        let (direction, log) = (self.some(&["in ", "out "]), self.log());
        let quick = self.some(&["quick "]);
        let place = self.place(false);
        let reply = match self.chance.below(8) {
            0 => "drop ",
            1 => "return ",
            2 if place.is_tcp() => "return-rst ",
            3 if place.is_tcp() => "return-rst(ttl 9) ",
            4 => "return-icmp ",
            5 if place.of == Of::Inet => "return-icmp(host-unr) ",
            6 if place.of == Of::Inet6 => "return-icmp6(noroute-unr) ",
            _ => "",
        };
        let common = self.common(&place);
        format!("block {reply}{direction}{log}{quick}{}{common}", place.text)
    }

    fn matching(&mut self) -> String {
        let (direction, log) = (self.chance.one_of(&["in ", "out "]), self.log());
        let place = self.place(false);
        let common = self.common(&place);
        let redirect = self.redirect(&place);
        let scrub = self.some(&[
            "scrub (no-df) ",
            "scrub (max-mss 1400, min-ttl 3) ",
            "scrub (random-id reassemble tcp) ",
        ]);
        let scrub = if place.of == Of::Inet6 && !scrub.contains("max-mss") { "" } else { scrub };
        format!("match {direction}{log}{}{common}{redirect}{scrub}", place.text)
    }

    fn pass(&mut self) -> String {
        let (direction, log) = (self.chance.one_of(&["in ", "out "]), self.log());
        let quick = self.some(&["quick "]);
        let place = self.place(true);
        let common = self.common(&place);
        let redirect =
            if self.chance.is(2) { self.redirect(&place) } else { self.change_family(&place, direction) };
        let state = if redirect.is_empty() { self.state(&place) } else { "" };
        let more = self.some(&[
            "allow-opts ",
            "once ",
            "probability 20% ",
            "set prio (2, 5) ",
            "set tos lowdelay ",
            "received-on lan0 ",
        ]);
        format!("pass {direction}{log}{quick}{}{common}{state}{redirect}{more}", place.text)
    }

    fn state(&mut self, place: &Place) -> &'static str {
        let any = [
            "no state ",
            "keep state ",
            "keep state (max 10) ",
            "keep state (if-bound) ",
            "keep state (floating, no-sync) ",
            "keep state (sloppy, udp.first 9) ",
            "keep state (source-track rule, max-src-nodes 3) ",
            "keep state (max-src-states 3, source-track global) ",
        ];
        let tcp = [
            "modulate state ",
            "synproxy state ",
            "flags any ",
            "flags S/SAFR keep state ",
            "keep state (max-src-conn 9, overload <bad> flush global) ",
            "keep state (max-src-conn-rate 9/3, overload <bad> flush, tcp.closed 4) ",
        ];
        let mut words = any.to_vec();
        if place.is_tcp() {
            words.extend(tcp);
        }
        if self.bound {
            words.retain(|word| !word.contains("floating"));
        }
        self.some(&words)
    }

    /// Options that pass, block and match rules have.
    fn common(&mut self, place: &Place) -> String {
        let mut options = Vec::new();
        if place.proto == "proto icmp " && self.chance.is(2) {
            options.push(
                self.chance.one_of(&["icmp-type echoreq ", "icmp-type { echoreq, unreach code needfrag } "]),
            );
        }
        if place.proto == "proto ipv6-icmp " && self.chance.is(2) {
            options.push(self.chance.one_of(&["icmp6-type echoreq ", "icmp6-type { neighbrsol, 200 } "]));
        }
        if self.chance.is(4) {
            options.push(self.label());
        }
        if self.chance.is(6) {
            options.push(self.chance.one_of(&["tag T ", "tag \"two words\" "]));
        }
        if self.chance.is(6) {
            options.push(self.chance.one_of(&["tagged X ", "! tagged X "]));
        }
        if self.queues && self.chance.is(4) {
            options.push(self.chance.one_of(&["queue qa ", "queue (qa, qb) "]));
        }
        if self.chance.is(8) {
            options.push(self.chance.one_of(&["tos lowdelay ", "tos 0x20 ", "tos af41 "]));
        }
        if self.chance.is(9) {
            options.push(self.chance.one_of(&[
                "ridentifier 7 ",
                "max-pkt-rate 9/2 ",
                "max-pkt-size 900 ",
                "rtable 3 ",
                "prio 4 ",
            ]));
        }
        if self.limiters && self.chance.is(6) {
            options.push(self.chance.one_of(&[
                "state limiter few ",
                "source limiter \"per\" (block) ",
                "state limiter id 1 (block) ",
            ]));
        }
        // Options come in any order.
        let by = self.chance.below(options.len().max(1));
        options.rotate_left(by);
        options.concat()
    }

    /// `nat-to` or `rdr-to`, where there is a family; or nothing.
    fn redirect(&mut self, place: &Place) -> String {
        if place.of == Of::Any || self.chance.is(2) {
            return String::new();
        }
        if self.chance.is(2) {
            format!("nat-to {}", self.pool(place.of, true))
        } else {
            format!("rdr-to {}", self.pool(place.of, false))
        }
    }

    fn change_family(&mut self, place: &Place, direction: &str) -> String {
        if place.of == Of::Any || direction != "in " || place.text.contains("-to ") || self.chance.is(3) {
            return String::new();
        }
        let other = place.of.other();
        let to = if self.chance.is(2) { format!("to {} ", self.prefix(other)) } else { String::new() };
        format!("af-to {}from {} {to}", other.word(), self.prefix(other))
    }

    /// Addresses of a translation and their options.
    fn pool(&mut self, of: Of, nat: bool) -> String {
        let port = match self.chance.below(4) {
            0 => " port 2000:3000",
            1 if !nat => " port 80",
            _ => "",
        };
        let nat_only = if nat && port.is_empty() {
            self.some(&["static-port ", "endpoint-independent ", "map-e-portset 6/8/0x34 "])
        } else {
            ""
        };
        let sticky = self.some(&["sticky-address "]);
        let (hosts, method) = match self.chance.below(5) {
            0 => (format!("{{ {}, {} }}", self.prefix(of), self.prefix(of)), self.some(&["round-robin "])),
            1 => ("(wan0)".to_owned(), self.some(&["round-robin ", "random "])),
            2 => ("<t0>".to_owned(), self.some(&["random ", "source-hash \"key\" ", "round-robin "])),
            3 => ("(wan0:0)".to_owned(), ""),
            _ => (
                self.prefix(of),
                self.some(&["bitmask ", "random ", "source-hash 0x0123456789abcdef0123456789abcdef "]),
            ),
        };
        format!("{hosts}{port} {method}{sticky}{nat_only}")
    }

    pub fn anchor(&mut self, out: &mut String, margin: &str, depth: usize) {
        let inline = depth < 2 && self.chance.is(2);
        let name = match self.chance.below(5) {
            0 if inline => String::new(),
            1 if !inline => "\"ftp-proxy/*\" ".to_owned(),
            2 if !inline => "\"/top/level\" ".to_owned(),
            3 if !inline => "\"x/y\" ".to_owned(),
            _ => format!("{} ", self.name()),
        };
        let (direction, quick) = (self.some(&["in ", "out "]), self.some(&["quick "]));
        // One without a name is one for each rule that its call expands to: that is printed, but not the same when read.
        let text = if name.is_empty() { String::new() } else { self.place(false).text };
        let option = self.some(&["tagged X ", "label l ", "ridentifier 5 ", "probability 0.25 "]);
        let line = format!("{margin}anchor {name}{direction}{quick}{text}{option}");
        out.push_str(line.trim_end());
        if inline {
            out.push_str(" {\n");
            self.contents(out, margin, depth);
            let _ = write!(out, "{margin}}}");
        }
        out.push('\n');
    }

    pub fn antispoof(&mut self, out: &mut String, margin: &str) {
        let (log, quick) = (self.some(&["log ", "log (all) "]), self.some(&["quick "]));
        let on = self.chance.one_of(&["lan0", "{ lan0 wan0 }", "(wan0)", "{ lan0, (tun9) }"]);
        let (of, label) = (self.of(), self.some(&[" label spoof", " ridentifier 8"]));
        out.push_str(format!("{margin}antispoof {log}{quick}for {on} {}", of.word()).trim_end());
        let _ = writeln!(out, "{label}");
    }

    pub fn scrub(&mut self, out: &mut String, margin: &str) {
        let no = self.some(&["no "]);
        let direction = self.some(&["in ", "out "]);
        let log = self.some(&["log ", "log (to pflog1) "]);
        let place = self.place(false);
        let inet = place.of != Of::Inet6;
        let mut options = self
            .some(&[
                "min-ttl 9 ",
                "max-mss 1400 ",
                "set-tos 0x10 ",
                "fragment reassemble ",
                "fragment no reassemble ",
                "tagged T ",
            ])
            .to_owned();
        if inet && self.chance.is(3) {
            options.push_str(self.chance.one_of(&["no-df ", "random-id ", "no-df random-id "]));
        }
        if direction.is_empty() && self.chance.is(4) {
            options.push_str("reassemble tcp ");
        }
        if !no.is_empty() {
            options.clear();
        }
        out.push_str(format!("{margin}{no}scrub {direction}{log}{}{options}", place.text).trim_end());
        out.push('\n');
    }

    pub fn translation(&mut self, out: &mut String, margin: &str) {
        let line = match self.chance.below(7) {
            0 => {
                let word = self.chance.one_of(&["nat-anchor", "rdr-anchor", "binat-anchor"]);
                format!("{word} \"{}\"", self.chance.one_of(&["ftp-proxy/*", "n", "n/m"]))
            }
            1 => {
                let on = self.chance.one_of(&["on wan0 ", ""]);
                let to = self.chance.one_of(&["any", "10.0.0.0/8", "<t0>"]);
                format!("binat {on}inet from 192.0.2.0/28 to {to} -> 203.0.113.0/28")
            }
            n => self.nat_or_rdr(n % 2 == 0),
        };
        let _ = writeln!(out, "{margin}{}", line.trim_end());
    }

    fn nat_or_rdr(&mut self, nat: bool) -> String {
        let (word, no) = (if nat { "nat" } else { "rdr" }, self.chance.is(6));
        let on = self.on();
        let of = self.chance.one_of(&[Of::Inet, Of::Inet6]);
        let (proto, ports) =
            self.chance.one_of(&[("", false), ("proto tcp ", true), ("proto { tcp udp } ", true)]);
        let addresses = match self.addresses(of, ports) {
            text if text.is_empty() => "all ".to_owned(),
            text => text,
        };
        let tags = self.some(&["tag T ", "tagged X ", "! tagged X ", "tag T tagged X "]);
        let place = format!("{on}{}{proto}{addresses}{tags}", of.word());
        if no {
            return format!("no {word} {place}");
        }
        let how = self.some(&["pass ", "pass log ", "log ", "pass log (all) "]);
        format!("{word} {how}{place}-> {}", self.pool(of, nat))
    }

    pub fn ether(&mut self, out: &mut String, margin: &str, depth: usize) {
        let (direction, quick, on) = (self.some(&["in ", "out "]), self.some(&["quick "]), self.on());
        let mac = |author: &mut Author| {
            author.chance.one_of(&[
                "00:11:22:33:44:55",
                "! 00:11:22:00:00:00/24",
                "{ 00:11:22:33:44:55, 66:77:88:99:aa:bb }",
                "01:00:00:00:00:00&01:00:00:00:00:00",
            ])
        };
        let from = if self.chance.is(3) { format!("from {} ", mac(self)) } else { String::new() };
        let to = if self.chance.is(3) { format!("to {} ", mac(self)) } else { String::new() };
        let (proto, l3) = (
            self.some(&["proto 0x0806 ", "proto { 0x0800, 0x86dd } "]),
            self.some(&["l3 from 10.0.0.0/8 to any ", "l3 all ", "l3 from any to <t0> "]),
        );
        let place = format!("{direction}{quick}{on}{proto}{from}{to}{l3}");
        if depth < 2 && self.chance.is(4) {
            let name = self.name();
            out.push_str(format!("{margin}ether anchor {name} {}", place.trim_end()).trim_end());
            if self.chance.is(2) {
                out.push_str(" {\n");
                let inner = &format!("{margin}\t");
                self.repeat(out, 3, |author, out| author.ether(out, inner, depth + 1));
                let _ = write!(out, "{margin}}}");
            }
            out.push('\n');
            return;
        }
        let option =
            self.some(&["tag T ", "tagged X ", "! tagged X ", "label l ", "ridentifier 9 ", "dnpipe 3 "]);
        let action = self.chance.one_of(&["pass", "block"]);
        out.push_str(format!("{margin}ether {action} {place}{option}").trim_end());
        out.push('\n');
    }
}
