//! Which path takes which lock: one table a profile, to be read beside the lock map of the sources of February 2013.
//!
//! A row says what the path takes *itself*; it holds besides what its caller holds. [`NETBSD2013`] is the map as read, [`GIANT`]
//! the same two locks put round every enqueue, [`FINE`] one lock a queue. A single mechanism is [`GIANT`] with a row or two
//! of another table.

use ipsec::sa::Protocol;

/// A lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// `softnet_lock`.
    S,
    /// `KERNEL_LOCK`: recursive on a virtual CPU.
    K,
    /// The queue's own, taken at splnet: NetBSD's `ifq_lock` of 2016.
    Own,
}

/// A path that touches something shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Path {
    /// A frame arrives.
    DriverRx,
    /// The softint takes `ipintrq`.
    Ipintr,
    /// `ip_input` and all it calls, from the softint.
    IpInput,
    /// The softint takes packets off `ip6intrq`, and `ip6_input`.
    Ip6intr,
    /// ESP, out, first half.
    EspOutput,
    /// ... and its callback.
    EspOutputCb,
    /// ESP, in, first half.
    EspInput,
    /// ... and its callback.
    EspInputCb,
    /// AH, out, first half.
    AhOutput,
    /// ... and its callback.
    AhOutputCb,
    /// AH, in, first half.
    AhInput,
    /// ... and its callback.
    AhInputCb,
    /// IPComp, out, first half; of a packet that is too short to try, all of it.
    IpcompOutput,
    /// ... and its callback.
    IpcompOutputCb,
    /// IPComp, in, first half.
    IpcompInput,
    /// ... and its callback.
    IpcompInputCb,
    /// IP in IP that is nobody's IPComp: what the peer left as it was.
    GifInput,
    /// A decrypted tunnel packet goes back to `ipintrq`.
    Handoff,
    /// The same for `ip6intrq`.
    Handoff6,
    /// The second pass of an encrypted packet.
    Reinject,
    /// `ip_output` calls `if_output`.
    IfOutput,
    /// `ip6_forward` calls `if_output`.
    IfOutput6,
    /// The host sends IPv6.
    HostOutput6,
    /// ... and `nd6_output` calls `if_output`.
    IfOutputHost6,
    /// pf's route-to calls `if_output`.
    RouteTo,
    /// The transmit interrupt takes packets off the interface queue.
    DriverTx,
    /// scrub keeps a fragment.
    Fragment,
    /// Old fragments are purged.
    Purge,
    /// Rules change.
    Ioctl,
}

/// A row: path, what it takes, where that is written.
pub type Row = (Path, &'static [Lock], &'static str);
/// A table: every path, in the order of [`Path`].
pub type Table = [Row; 29];

use Lock::{K, Own, S};

/// The map as read in the sources of 2013-02-17.
pub const NETBSD2013: Table = [
    (
        Path::DriverRx,
        &[K],
        "row 1: intr_biglock_wrapper, wm_rxintr, net/if_ethersubr.c:ether_input, IF_ENQUEUE",
    ),
    (Path::Ipintr, &[S, K], "row 2: netinet/ip_input.c:ipintr, while splicing"),
    (Path::IpInput, &[S], "row 2: netinet/ip_input.c:ipintr, ip_input"),
    (Path::Ip6intr, &[S, K], "row 3: netinet6/ip6_input.c:ip6intr, throughout"),
    (Path::EspOutput, &[], "row 11: netipsec/xform_esp.c:esp_output, under what its caller holds"),
    (Path::EspOutputCb, &[S], "row 12: kthread cryptoret, xform_esp.c:esp_output_cb"),
    (Path::EspInput, &[], "row 13: xform_esp.c:esp_input, under what ip_input or ip6intr holds"),
    (Path::EspInputCb, &[S], "row 14: kthread cryptoret, xform_esp.c:esp_input_cb"),
    (Path::AhOutput, &[], "row 11: netipsec/xform_ah.c:ah_output, as ESP"),
    (Path::AhOutputCb, &[S], "row 12: xform_ah.c:ah_output_cb"),
    (Path::AhInput, &[], "row 13: xform_ah.c:ah_input"),
    (Path::AhInputCb, &[S], "row 14: xform_ah.c:ah_input_cb"),
    (Path::IpcompOutput, &[], "rows 11, 12a: netipsec/xform_ipcomp.c:ipcomp_output"),
    (Path::IpcompOutputCb, &[S], "row 12: xform_ipcomp.c:ipcomp_output_cb"),
    (Path::IpcompInput, &[], "row 13: xform_ipcomp.c:ipcomp_input"),
    (Path::IpcompInputCb, &[S], "row 14: xform_ipcomp.c:ipcomp_input_cb"),
    (Path::GifInput, &[], "net/if_gif.c:gif_input, under what ip_input or ip6intr holds"),
    (Path::Handoff, &[], "row 14a: netipsec/xform_ipip.c:_ipip_input, IF_HANDOFF"),
    (Path::Handoff6, &[], "row 14a: the same"),
    (Path::Reinject, &[K], "row 12: netipsec/ipsec_output.c:ipsec_reinject_ipstack"),
    (Path::IfOutput, &[K], "row 6: netinet/ip_output.c:ip_output"),
    (Path::IfOutput6, &[], "row 7: netinet6/nd6.c:nd6_output, under what ip6intr holds"),
    (Path::HostOutput6, &[S], "row 8: kern/uipc_socket2.c:sosetlock"),
    (Path::IfOutputHost6, &[], "row 9: netinet6/nd6.c:nd6_output"),
    (Path::RouteTo, &[], "row 19a: dist/pf/net/pf.c:pf_route"),
    (Path::DriverTx, &[K], "row 21: wm_txintr, wm_start, IFQ_DEQUEUE"),
    (Path::Fragment, &[], "row 5: dist/pf/net/pf_norm.c:pf_reassemble"),
    (Path::Purge, &[K], "row 18: pf_purge_thread, pf_purge_expired_fragments"),
    (Path::Ioctl, &[K], "row 17: cdev_ioctl, dist/pf/net/pf_ioctl.c:pfioctl"),
];

/// Softnet, then Kernel, round every enqueue, whoever does it.
pub const GIANT: Table = [
    (Path::DriverRx, &[K], "as it was"),
    (Path::Ipintr, &[S, K], "as it was"),
    (Path::IpInput, &[S], "as it was"),
    (Path::Ip6intr, &[S, K], "as it was"),
    (Path::EspOutput, &[], "as it was"),
    (Path::EspOutputCb, &[S], "as it was"),
    (Path::EspInput, &[], "as it was"),
    (Path::EspInputCb, &[S], "as it was"),
    (Path::AhOutput, &[], "as it was"),
    (Path::AhOutputCb, &[S], "as it was"),
    (Path::AhInput, &[], "as it was"),
    (Path::AhInputCb, &[S], "as it was"),
    (Path::IpcompOutput, &[], "as it was"),
    (Path::IpcompOutputCb, &[S], "as it was"),
    (Path::IpcompInput, &[], "as it was"),
    (Path::IpcompInputCb, &[S], "as it was"),
    (Path::GifInput, &[], "as it was"),
    (Path::Handoff, &[K], "gone since 2014: pktq_enqueue"),
    (Path::Handoff6, &[K], "gone since 2014: pktq_enqueue"),
    (Path::Reinject, &[K], "as it was"),
    (Path::IfOutput, &[K], "as it was"),
    (Path::IfOutput6, &[K], "nd6.c 1.150"),
    (Path::HostOutput6, &[S], "as it was"),
    (Path::IfOutputHost6, &[K], "nd6.c 1.150"),
    (Path::RouteTo, &[K], "ours"),
    (Path::DriverTx, &[K], "as it was"),
    (Path::Fragment, &[K], "ours"),
    (Path::Purge, &[S, K], "ours"),
    (Path::Ioctl, &[S, K], "ours"),
];

/// One lock a queue and nothing else.
pub const FINE: Table = [
    (Path::DriverRx, &[Own], "ours"),
    (Path::Ipintr, &[Own], "ours"),
    (Path::IpInput, &[], "ours"),
    (Path::Ip6intr, &[], "ours: the queue's lock round each IF_DEQUEUE, see queue.rs"),
    (Path::EspOutput, &[], "ours"),
    (Path::EspOutputCb, &[], "ours"),
    (Path::EspInput, &[], "ours"),
    (Path::EspInputCb, &[], "ours"),
    (Path::AhOutput, &[], "ours"),
    (Path::AhOutputCb, &[], "ours"),
    (Path::AhInput, &[], "ours"),
    (Path::AhInputCb, &[], "ours"),
    (Path::IpcompOutput, &[], "ours"),
    (Path::IpcompOutputCb, &[], "ours"),
    (Path::IpcompInput, &[], "ours"),
    (Path::IpcompInputCb, &[], "ours"),
    (Path::GifInput, &[], "ours"),
    (Path::Handoff, &[Own], "ours"),
    (Path::Handoff6, &[Own], "ours"),
    (Path::Reinject, &[], "ours"),
    (Path::IfOutput, &[Own], "ours"),
    (Path::IfOutput6, &[Own], "ours"),
    (Path::HostOutput6, &[], "ours"),
    (Path::IfOutputHost6, &[Own], "ours"),
    (Path::RouteTo, &[Own], "ours"),
    (Path::DriverTx, &[Own], "ours"),
    (Path::Fragment, &[Own], "ours"),
    (Path::Purge, &[Own], "ours"),
    (Path::Ioctl, &[], "ours: a snapshot is published"),
];

/// NetBSD 5.2, callbacks apart: its `ipintr` kept both locks, and what a callback went on to took none.
pub const NETBSD52: [Row; 4] = [
    (Path::IpInput, &[S, K], "row 2': ipintr of 5.2 keeps both locks"),
    (Path::Handoff, &[], "5.2: IF_HANDOFF"),
    (Path::Reinject, &[], "5.2: ipsec_output.c 1.28"),
    (Path::IfOutput, &[], "5.2: ip_output, under what the caller holds"),
];

/// The callbacks of NetBSD 5.2, which took no lock.
pub const CALLBACKS52: [Row; 6] = [
    (Path::EspOutputCb, &[], "5.2: xform_esp.c 1.18, no lock in any callback"),
    (Path::EspInputCb, &[], "5.2: the same"),
    (Path::AhOutputCb, &[], "5.2: xform_ah.c"),
    (Path::AhInputCb, &[], "5.2: the same"),
    (Path::IpcompOutputCb, &[], "5.2: xform_ipcomp.c"),
    (Path::IpcompInputCb, &[], "5.2: the same"),
];

impl Path {
    /// The first half of this transform.
    pub const fn half(transform: Protocol, out: bool) -> Path {
        match (transform, out) {
            (Protocol::Esp, true) => Path::EspOutput,
            (Protocol::Esp, false) => Path::EspInput,
            (Protocol::Ah, true) => Path::AhOutput,
            (Protocol::Ah, false) => Path::AhInput,
            (Protocol::Ipcomp, true) => Path::IpcompOutput,
            (Protocol::Ipcomp, false) => Path::IpcompInput,
        }
    }

    /// Its callback.
    pub const fn callback(transform: Protocol, out: bool) -> Path {
        match (transform, out) {
            (Protocol::Esp, true) => Path::EspOutputCb,
            (Protocol::Esp, false) => Path::EspInputCb,
            (Protocol::Ah, true) => Path::AhOutputCb,
            (Protocol::Ah, false) => Path::AhInputCb,
            (Protocol::Ipcomp, true) => Path::IpcompOutputCb,
            (Protocol::Ipcomp, false) => Path::IpcompInputCb,
        }
    }
}

/// What `path` takes by `table`.
pub fn takes(table: &Table, path: Path) -> &'static [Lock] {
    table[path as usize].1
}

/// [`GIANT`] with the rows of these paths as 2013 had them.
pub fn giant_but(paths: &[Path]) -> Table {
    let mut table = GIANT;
    for &path in paths {
        table[path as usize] = NETBSD2013[path as usize];
    }
    table
}

/// [`GIANT`] with these rows.
pub fn giant_with<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Table {
    let mut table = GIANT;
    for row in rows {
        table[row.0 as usize] = *row;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_every_path_in_its_place() {
        for table in [NETBSD2013, GIANT, FINE] {
            for (n, row) in table.iter().enumerate() {
                assert_eq!(row.0 as usize, n, "{row:?}");
            }
        }
    }

    #[test]
    fn the_map_names_the_function_of_each_half_and_callback() {
        for transform in [Protocol::Esp, Protocol::Ah, Protocol::Ipcomp] {
            for (out, word) in [(true, "output"), (false, "input")] {
                let text = |path: Path| NETBSD2013[path as usize].2;
                let function = format!("{}_{word}", transform.name());
                assert!(text(Path::half(transform, out)).contains(&function), "{function}");
                assert!(text(Path::callback(transform, out)).ends_with(&format!("{function}_cb")));
            }
        }
    }

    #[test]
    fn no_path_takes_locks_out_of_order() {
        let rank = |lock: &Lock| *lock as usize;
        for (path, takes, _) in NETBSD2013.iter().chain(&GIANT).chain(&FINE).chain(&NETBSD52) {
            assert!(takes.is_sorted_by_key(rank), "{path:?}");
        }
    }
}
