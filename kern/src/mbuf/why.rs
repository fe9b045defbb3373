//! Why a packet ended: every reason there is, in one list.
//!
//! One entry is one counter. The name is what `netstat -s` prints and what a test names; the text is for people.
//! A reason says *where and for what cause*, never just "error": an operator must be able to act on it.

macro_rules! reasons {
    ($( $(#[$doc:meta])* $name:ident = $path:literal, $text:literal; )*) => {
        /// The reason for which a packet ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Why { $( #[doc = $text] $name, )* }

        impl Why {
            /// Every reason, in the order of the list.
            pub const ALL: &'static [Why] = &[ $( Why::$name, )* ];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name, as `netstat -s --json` prints it.
            pub const fn path(self) -> &'static str {
                match self { $( Why::$name => $path, )* }
            }

            /// One line for people.
            pub const fn text(self) -> &'static str {
                match self { $( Why::$name => $text, )* }
            }
        }
    };
}

reasons! {
    // Interfaces and Ethernet.
    EtherShort = "ether.short", "frame shorter than an Ethernet header";
    EtherNotOurs = "ether.not_ours", "frame for another station's address";
    EtherSource = "ether.bad_source", "frame from a group address or from ourselves";
    EtherType = "ether.type", "frame of a protocol we do not speak";
    EtherVlan = "ether.vlan", "frame of a VLAN that has no interface";
    IfDown = "if.down", "interface gone or down";
    IfWrite = "if.write", "device refused the frame";
    IfBusy = "if.busy", "device queue stayed full";
    IfOffload = "if.offload", "super-frame with an offload header that does not fit its frame";
    IfDetached = "if.detached", "interface removed while the packet waited";
    LinkLost = "link.lost", "lost on the wire by the test link";
    // ARP and neighbour discovery.
    ArpMalformed = "arp.malformed", "ARP packet malformed";
    ArpDone = "arp.done", "ARP packet taken in";
    ArpSource = "arp.source", "ARP packet from an address that is not on this link";
    NdDone = "nd.done", "neighbour discovery message taken in";
    NdMalformed = "nd.malformed", "neighbour discovery message malformed or not from this link";
    NeighbourHeld = "neighbour.hold_full", "too many packets wait for this neighbour";
    NeighbourUnresolved = "neighbour.unresolved", "neighbour did not answer";
    NeighbourTable = "neighbour.table_full", "neighbour table full";
    // IP input.
    IpMalformed = "ip.malformed", "IPv4 header malformed";
    IpChecksum = "ip.checksum", "IPv4 header checksum wrong";
    IpTruncated = "ip.truncated", "IPv4 packet shorter than its length field";
    IpMartian = "ip.martian", "IPv4 address that must not appear on a wire";
    IpOptions = "ip.options", "IPv4 options malformed or source-routed";
    IpTtl = "ip.ttl", "time to live exceeded";
    IpBroadcast = "ip.broadcast", "broadcast not forwarded";
    IpMulticast = "ip.multicast", "multicast for a group nobody here joined";
    Ip6Malformed = "ip6.malformed", "IPv6 header malformed";
    Ip6Truncated = "ip6.truncated", "IPv6 packet shorter than its length field";
    Ip6Martian = "ip6.martian", "IPv6 address that must not appear on a wire";
    Ip6Extension = "ip6.extension", "IPv6 extension header chain refused";
    Ip6HopLimit = "ip6.hop_limit", "hop limit exceeded";
    Ip6Scope = "ip6.scope", "IPv6 source beyond its scope";
    Ip6Multicast = "ip6.multicast", "multicast for a group nobody here joined";
    // Routing and output.
    NoRoute = "ip.no_route", "no route";
    RouteReject = "ip.reject", "route says reject or blackhole";
    TooBig = "ip.too_big", "larger than the next link and may not be fragmented";
    TooManyPasses = "ip.passes", "went round the router too often";
    SourceUnusable = "ip.source", "no usable source address";
    Headroom = "mbuf.headroom", "no room to put headers in front";
    NoBuffer = "mbuf.no_buffer", "no buffer left";
    // Fragments.
    FragMalformed = "frag.malformed", "fragment malformed";
    FragOverlap = "frag.overlap", "fragments overlap";
    FragLimit = "frag.limit", "too many fragments wait";
    FragTimeout = "frag.timeout", "datagram not complete in time";
    FragTooBig = "frag.too_big", "reassembled datagram too big";
    FragDuplicate = "frag.duplicate", "fragment seen before";
    // ICMP.
    IcmpMalformed = "icmp.malformed", "ICMP message malformed";
    IcmpDone = "icmp.done", "ICMP message taken in";
    IcmpUnanswered = "icmp.unanswered", "ICMP message that is not answered";
    // Host stack.
    HostFull = "host.full", "host stack's queue full";
    HostClosed = "host.closed", "no socket for it";
    HostProtocol = "host.protocol", "protocol the host does not speak";
    HostChecksum = "host.checksum", "transport checksum wrong";
    // pf.
    PfBlock = "pf.block", "blocked by rule";
    PfEther = "pf.ether", "blocked by Ethernet rule";
    PfReturn = "pf.return", "blocked by rule, answered";
    PfShort = "pf.short", "too short for its protocol";
    PfStateMismatch = "pf.state_mismatch", "does not fit its state";
    PfStateLimit = "pf.state_limit", "state table full";
    PfStateInsert = "pf.state_insert", "state collided with another";
    PfOptions = "pf.ip_option", "IP options without allow-opts";
    PfFragment = "pf.fragment", "fragment blocked";
    PfTranslate = "pf.translate", "no free address or port to translate it to";
    PfTimestamp = "pf.bad_timestamp", "timestamps that are not of its connection";
    PfRoute = "pf.route", "its rule names no next hop that this router has";
    PfSrcLimit = "pf.src_limit", "its source has what the rule allows";
    PfSynproxy = "pf.synproxy", "answered in the server's place";
    PfNormalize = "pf.normalize", "refused by normalisation";
    // ALTQ.
    QueueFull = "altq.full", "queue full";
    QueueEarly = "altq.early", "dropped early by the queue's dropper";
    QueuePurge = "altq.purge", "queue removed with packets in it";
    // IPsec.
    EspMalformed = "esp.malformed", "esp headers too short";
    EspNoSa = "esp.no_sa", "esp packets with no SA";
    EspReplay = "esp.replay", "esp packets dropped for possible replay";
    EspAuth = "esp.auth", "esp packets with bad authentication";
    EspPadding = "esp.padding", "esp packets with bad padding or next header";
    EspPolicy = "esp.policy", "esp packets blocked due to policy";
    EspSequence = "esp.sequence", "esp packets dropped for replay counter wrap";
    EspProtocol = "esp.protocol", "esp packets of an unsupported protocol inside";
    EspDummy = "esp.dummy", "esp dummy packets discarded (RFC 4303 2.6)";
    EspLifetime = "esp.lifetime", "esp packets with an invalid SA (past its hard lifetime)";
    EspTooBig = "esp.too_big", "esp packets too big";
    EspEcn = "esp.ecn", "esp packets with congestion marked on the outer header only (RFC 6040)";
    EspUnfinished = "esp.unfinished", "esp packets not finished before output";
    EspEngine = "esp.engine", "esp failed crypto requests";
    EspTransport = "esp.transport", "esp fragments and headers that transport mode does not carry";
    NattMalformed = "natt.malformed", "at port 4500, and neither ESP, nor IKE, nor a keepalive";
    NattChecksum = "natt.checksum", "UDP checksum around ESP wrong";
    NattKeepalive = "natt.keepalive", "NAT keepalive (RFC 3948 2.3) thrown away as it should be";
    AhNoSa = "ah.no_sa", "ah packets with no SA";
    AhMalformed = "ah.malformed", "ah headers too short";
    AhReplay = "ah.replay", "ah packets dropped for possible replay";
    AhAuth = "ah.auth", "ah packets with bad authentication";
    AhInner = "ah.inner", "ah packets around something that is not what the header says";
    AhPolicy = "ah.policy", "ah packets blocked due to policy";
    AhSequence = "ah.sequence", "ah packets dropped for replay counter wrap";
    AhProtocol = "ah.protocol", "ah packets of an unsupported protocol inside";
    AhLifetime = "ah.lifetime", "ah packets with an invalid SA (past its hard lifetime)";
    AhTooBig = "ah.too_big", "ah packets too big";
    AhEcn = "ah.ecn", "ah packets with congestion marked on the outer header only (RFC 6040)";
    AhUnfinished = "ah.unfinished", "ah packets not finished before output";
    AhEngine = "ah.engine", "ah failed crypto requests";
    AhTransport = "ah.transport", "ah fragments and headers that transport mode does not carry";
    IpcompNoSa = "ipcomp.no_sa", "ipcomp packets with no SA";
    IpcompMalformed = "ipcomp.malformed", "ipcomp packets too short for header length";
    IpcompInflate = "ipcomp.inflate", "ipcomp packets decompressed as too big, or not at all";
    IpcompInner = "ipcomp.inner", "ipcomp packets around something that is not what the header says";
    IpcompPolicy = "ipcomp.policy", "ipcomp packets blocked due to policy";
    IpcompProtocol = "ipcomp.protocol", "ipcomp packets of an unsupported protocol inside";
    IpcompLifetime = "ipcomp.lifetime", "ipcomp packets with an invalid SA (past its hard lifetime)";
    IpcompTooBig = "ipcomp.too_big", "ipcomp packets too big";
    IpcompEcn = "ipcomp.ecn", "ipcomp packets with congestion marked on the outer header only (RFC 6040)";
    IpcompUnfinished = "ipcomp.unfinished", "ipcomp packets not finished before output";
    IpcompTransport = "ipcomp.transport", "ipcomp fragments and headers that transport mode does not carry";
    SpNoSa = "spd.no_sa", "no SA found (output)";
    SpDiscard = "spd.discard", "policy violations (discard)";
    SpClear = "spd.clear", "policy violations (input in clear)";
    // Workers.
    PendingFull = "worker.pending", "no room in front of the next stage";
    HandOverFull = "worker.hand_over", "other worker's ring full";
    Shutdown = "worker.shutdown", "router stopped with the packet inside";
    // Benches and tests.
    Sink = "test.sink", "arrived at the end of a bench or test";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_its_own_counter_name() {
        let names: HashSet<_> = Why::ALL.iter().map(|w| w.path()).collect();
        assert_eq!(names.len(), Why::COUNT);
    }
}
