//! What each worker counts.

use ipsec::sa::Protocol;
use kern::{Ledger, counter::Counter};

kern::counters! {
    /// What a worker's protocols count, beyond the reasons of ended packets.
    pub struct Counters {
        loops: "worker.loops" "turns of the loop that found work",
        sleeps: "worker.sleeps" "times the worker went to sleep",
        bursts: "worker.bursts" "reads that brought frames",
        ip_received: "ip.received" "IPv4 packets taken in, decrypted ones again",
        ip6_received: "ip6.received" "IPv6 packets taken in, decrypted ones again",
        ip_forwarded: "ip.forwarded" "packets forwarded",
        ip_delivered: "ip.delivered" "packets that were for us",
        ip_output: "ip.output" "packets sent on their way, own and forwarded",
        fragments_made: "frag.made" "fragments made",
        fragmented: "frag.fragmented" "packets fragmented",
        fragments_received: "frag.received" "fragments for us",
        reassembled: "frag.reassembled" "datagrams put together",
        pf_fragments: "pf.fragments" "fragments put together for pf",
        pf_reassembled: "pf.reassembled" "datagrams put together for pf",
        cut: "gso.cut" "super-frames cut into segments",
        segments: "gso.segments" "segments made of super-frames",
        icmp_sent: "icmp.sent" "ICMP messages sent",
        icmp_limited: "icmp.limited" "ICMP errors not sent because of the rate limit",
        icmp_unable: "icmp.unable" "ICMP errors not sent for want of a buffer or a source address",
        icmp_received: "icmp.received" "ICMP messages received",
        echo_replies: "icmp.echo_replies" "echo requests answered",
        arp_requests_sent: "arp.requests_sent" "ARP requests sent",
        arp_replies_sent: "arp.replies_sent" "ARP replies sent",
        nd_solicits_sent: "nd.solicits_sent" "neighbour solicitations sent",
        nd_adverts_sent: "nd.adverts_sent" "neighbour advertisements sent",
        ra_sent: "nd.router_adverts_sent" "router advertisements sent",
        dad_conflicts: "nd.dad_conflicts" "own addresses found in use by others",
        pf_tests: "pf.tests" "packets pf judged",
        esp_in: "esp.in" "esp input packets processed",
        esp_out: "esp.out" "esp output packets processed",
        esp_bytes_in: "esp.bytes_in" "esp bytes in",
        esp_bytes_out: "esp.bytes_out" "esp bytes out",
        ah_in: "ah.in" "ah input packets processed",
        ah_out: "ah.out" "ah output packets processed",
        ah_bytes_in: "ah.bytes_in" "ah bytes in",
        ah_bytes_out: "ah.bytes_out" "ah bytes out",
        ipcomp_in: "ipcomp.in" "input IPcomp packets",
        ipcomp_out: "ipcomp.out" "output IPcomp packets",
        ipcomp_bytes_in: "ipcomp.bytes_in" "input bytes",
        ipcomp_bytes_out: "ipcomp.bytes_out" "output bytes",
        natt_ike: "natt.ike" "datagrams for an IKE daemon, beside ESP in UDP",
        natt_keepalives: "natt.keepalives" "NAT keepalives sent",
        natt_moved: "natt.moved" "outbound SAs that send elsewhere now, because the peer has moved",
        path_mtu_learned: "ipsec.path_mtu_learned" "messages that told how much an SA's way carries",
        path_mtu_ignored: "ipsec.path_mtu_ignored" "such messages that were not believed, or told nothing new",
        sa_dying: "ipsec.expired_soft" "SAs past their soft lifetime",
        sa_expired: "ipsec.expired_hard" "SAs past their hard lifetime, and removed",
        sa_acquires: "ipsec.acquires" "SAs asked for by packets that had none",
        host_out: "host.out" "packets sent by the host stack",
    }
}

impl Counters {
    /// Packets came out of SAs of a protocol, of so many octets then.
    #[inline(always)]
    pub fn opened(&self, protocol: Protocol, packets: u64, bytes: u64) {
        let (count, octets) = match protocol {
            Protocol::Esp => (&self.esp_in, &self.esp_bytes_in),
            Protocol::Ah => (&self.ah_in, &self.ah_bytes_in),
            Protocol::Ipcomp => (&self.ipcomp_in, &self.ipcomp_bytes_in),
        };
        count.add(packets);
        octets.add(bytes);
    }

    /// Packets went into SAs of a protocol, of so many octets until then.
    #[inline(always)]
    pub fn sealed(&self, protocol: Protocol, packets: u64, bytes: u64) {
        let (count, octets) = match protocol {
            Protocol::Esp => (&self.esp_out, &self.esp_bytes_out),
            Protocol::Ah => (&self.ah_out, &self.ah_bytes_out),
            Protocol::Ipcomp => (&self.ipcomp_out, &self.ipcomp_bytes_out),
        };
        count.add(packets);
        octets.add(bytes);
    }
}

/// Interfaces a router may have.
pub const INTERFACES: usize = 256;

/// What a worker counts of one interface, in wire packets and octets.
#[derive(Default)]
#[repr(align(64))]
pub struct IfCounters {
    /// Frames in.
    pub in_packets: Counter,
    /// Octets in.
    pub in_bytes: Counter,
    /// Frames out.
    pub out_packets: Counter,
    /// Octets out.
    pub out_bytes: Counter,
    /// Packets the device did not take.
    pub out_errors: Counter,
}

impl IfCounters {
    /// Frames came in.
    #[inline(always)]
    pub fn received(&self, packets: u64, bytes: u64) {
        self.in_packets.add(packets);
        self.in_bytes.add(bytes);
    }

    /// Frames went out, or were refused.
    #[inline(always)]
    pub fn sent(&self, packets: u64, bytes: u64, refused: u64) {
        self.out_packets.add(packets);
        self.out_bytes.add(bytes);
        self.out_errors.add(refused);
    }
}

/// One worker's books: it writes, the control thread reads.
pub struct WorkerStats {
    /// Packets begun and ended.
    pub ledger: Ledger,
    /// Protocol counters.
    pub count: Counters,
    interfaces: Box<[IfCounters]>,
}

impl Default for WorkerStats {
    fn default() -> Self {
        WorkerStats {
            ledger: Ledger::new(),
            count: Counters::default(),
            interfaces: (0..INTERFACES).map(|_| IfCounters::default()).collect(),
        }
    }
}

impl WorkerStats {
    /// The counters of an interface. Numbers beyond the table share its place 0.
    #[inline(always)]
    pub fn interface(&self, index: u16) -> &IfCounters {
        self.interfaces.get(usize::from(index)).unwrap_or(&self.interfaces[0])
    }
}
