//! The parts of pf.conf for which Softnet has no engine yet. They are recognised, so that the message can say so instead
//! of calling them a syntax error; a file that uses one is refused.

use super::{
    cursor::Cursor,
    error::{Fault, Parsed, Pos},
};

const TRANSLATION: &str = "there is no address translation yet";
const ANCHORS: &str = "there are no anchors yet";
const NORMALISATION: &str = "there is no normalisation yet";
const TRACKING: &str = "sources are not tracked yet";
const ROUTING: &str = "pf does not choose routes yet";
const LIMITERS: &str = "there are no limiters yet";

/// Statements, by their first word.
pub(crate) fn statement(at: Pos, word: &str) -> Fault {
    let why = match word {
        "nat" | "rdr" | "binat" | "no" => TRANSLATION,
        "scrub" => NORMALISATION,
        "anchor" | "nat-anchor" | "rdr-anchor" | "binat-anchor" | "load" => ANCHORS,
        "match" => "only `pass` and `block` rules are evaluated yet",
        "ether" => "Ethernet frames are not filtered",
        "state" | "source" => LIMITERS,
        _ => return unknown(at, word),
    };
    Fault::unsupported(at, word, why)
}

fn unknown(at: Pos, word: &str) -> Fault {
    Fault::new(at, format!("syntax error: unknown statement `{word}`")).help(
        "a statement begins with a macro name, set, table, altq, queue, antispoof, include, pass or block",
    )
}

/// Options of a rule.
pub(crate) fn option(at: Pos, word: &str) -> Fault {
    let why = match word {
        "nat-to" | "rdr-to" | "binat-to" | "af-to" | "static-port" => TRANSLATION,
        "route-to" | "reply-to" | "dup-to" | "fastroute" => ROUTING,
        "scrub" | "max-mss" | "min-ttl" | "no-df" | "random-id" | "set-tos" => NORMALISATION,
        "modulate" | "synproxy" => "sequence numbers are not rewritten yet",
        "user" | "group" => "forwarded packets belong to no local user",
        "os" => "there are no operating system fingerprints yet",
        "divert-to" | "divert-reply" | "divert-packet" => "packets cannot be diverted",
        "dnpipe" | "dnqueue" => "there is no dummynet",
        "rtable" => "there is one routing table",
        "probability" => "rules are not honoured at random yet",
        "once" => "rules are not removed by packets yet",
        "set" | "prio" => "priorities are not set by rules yet",
        "received-on" => "only the present interface is matched yet",
        "max-pkt-rate" | "max-pkt-size" => "packets are not metered by rules yet",
        "ridentifier" => "rules have no identifiers yet",
        "state" | "source" => LIMITERS,
        "bridge-to" => "there are no bridges",
        _ => {
            return Fault::new(at, format!("syntax error: unknown option `{word}`"))
                .help("options are flags, icmp-type, tos, keep state, no state, fragment, allow-opts, label, queue, tag, tagged");
        }
    };
    Fault::unsupported(at, word, why)
}

/// `route-to` and its like may also stand before the address family.
pub(crate) fn route(c: &mut Cursor) -> Parsed<()> {
    for word in ["route-to", "reply-to", "dup-to", "fastroute", "received-on"] {
        if c.is_word(word) {
            return Err(option(c.at(), word));
        }
    }
    Ok(())
}

/// `os "name"` between `from` and `to`.
pub(crate) fn os(c: &mut Cursor) -> Parsed<()> {
    if c.is_word("os") { Err(option(c.at(), "os")) } else { Ok(()) }
}

/// Options of `keep state`.
pub(crate) fn state_option(at: Pos, word: &str) -> Fault {
    let why = match word {
        "source-track" | "max-src-nodes" | "max-src-states" | "max-src-conn" | "max-src-conn-rate"
        | "overload" => TRACKING,
        "pflow" => "flows are not exported",
        "allow-related" | "nopfsync" => "there is no SCTP engine",
        "tcp.tsdiff" | "frag" | "src.track" => "nothing uses this timeout yet",
        _ if word.starts_with("sctp.") => "there is no SCTP engine",
        _ => return Fault::new(at, format!("syntax error: unknown state option `{word}`")),
    };
    Fault::unsupported(at, word, why)
}

/// `set` options.
pub(crate) fn setting(at: Pos, word: &str) -> Fault {
    let why = match word {
        "loginterface" => "statistics are counted for every interface",
        "ruleset-optimization" => "rulesets are not rewritten yet",
        "fingerprints" => "there are no operating system fingerprints yet",
        "hostid" => "states are not synchronised",
        "reassemble" => NORMALISATION,
        "syncookies" => "there are no SYN cookies yet",
        "keepcounters" => "counters begin anew on a reload",
        "debug" => "pf writes no debug log",
        "fail-policy" => "a packet whose state cannot be made is dropped",
        _ => {
            return Fault::new(at, format!("syntax error: unknown option `set {word}`")).help(
                "there are skip, block-policy, state-policy, optimization, limit, timeout, state-defaults",
            );
        }
    };
    Fault::unsupported(at, &format!("set {word}"), why)
}

/// `set limit` names.
pub(crate) fn limit(at: Pos, word: &str) -> Fault {
    let why = match word {
        "src-nodes" => TRACKING,
        "frags" => NORMALISATION,
        "tables" | "table-entries" => "tables are limited by memory only",
        "anchors" => ANCHORS,
        _ => return Fault::new(at, format!("syntax error: unknown limit `{word}`")).help("there is states"),
    };
    Fault::unsupported(at, &format!("limit {word}"), why)
}
