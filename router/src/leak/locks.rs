//! Which path takes which lock: one table a profile, to be read beside the lock map of the sources of February 2013.
//!
//! A row says what the path takes *itself*; it holds besides what its caller holds. [`NETBSD2013`] is the map as read, [`GIANT`]
//! the same two locks put round every enqueue, [`FINE`] one lock a queue. A single mechanism is [`GIANT`] with a row or two
//! of another table.

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
    /// A crypto callback, in or out.
    Callback,
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
pub type Table = [Row; 17];

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
    (
        Path::Callback,
        &[S],
        "rows 12, 14: kthread cryptoret, netipsec/xform_esp.c:esp_input_cb, esp_output_cb",
    ),
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
    (Path::Callback, &[S], "as it was"),
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
    (Path::Callback, &[], "ours"),
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

/// The callbacks of NetBSD 5.2, which took no lock, and its `ipintr`, which kept both.
pub const NETBSD52: [Row; 5] = [
    (Path::IpInput, &[S, K], "row 2': ipintr of 5.2 keeps both locks"),
    (Path::Callback, &[], "5.2: xform_esp.c 1.18, no lock in any callback"),
    (Path::Handoff, &[], "5.2: IF_HANDOFF"),
    (Path::Reinject, &[], "5.2: ipsec_output.c 1.28"),
    (Path::IfOutput, &[], "5.2: ip_output, under what the caller holds"),
];

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
pub fn giant_with(rows: &[Row]) -> Table {
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
    fn no_path_takes_locks_out_of_order() {
        let rank = |lock: &Lock| *lock as usize;
        for (path, takes, _) in NETBSD2013.iter().chain(&GIANT).chain(&FINE).chain(&NETBSD52) {
            assert!(takes.is_sorted_by_key(rank), "{path:?}");
        }
    }
}
