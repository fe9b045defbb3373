//! What pf counts besides its rules: `pfctl -s info`.

/// The number of no worker: nothing is counted for it.
pub(crate) const NOBODY: usize = usize::MAX;

kern::counters! {
    /// One worker's counters.
    pub struct PfCounters {
        searches: "pf.searches" "lookups in the state table",
        inserts: "pf.inserts" "states made",
        removals: "pf.removals" "states removed",
        mappings: "pf.mappings" "endpoint-independent mappings made",
        matched: "pf.match" "packets for which the ruleset was evaluated",
        fragment: "pf.fragment" "fragments blocked",
        short: "pf.short" "packets too short for their protocol",
        normalize: "pf.normalize" "packets longer than a rule allows",
        ip_option: "pf.ip_option" "packets with options that no rule allows",
        state_mismatch: "pf.state_mismatch" "packets that did not fit their state",
        state_insert: "pf.state_insert" "states that collided with another",
        synproxy: "pf.synproxy" "segments answered in a server's place",
        syncookies_sent: "pf.syncookies_sent" "SYNs answered with a cookie",
        syncookies_valid: "pf.syncookies_valid" "segments that brought a cookie back",
        syncookies_invalid: "pf.syncookies_invalid" "segments without a state that brought none back, while some were out",
        synfloods: "pf.synfloods" "times that half-open connections turned cookies on",
        src_limit: "pf.src_limit" "packets of sources beyond what a rule allows",
        translate: "pf.translate" "packets for which translation had no address or port",
        bad_timestamp: "pf.bad_timestamp" "segments with timestamps that are not of their connection",
        no_route: "pf.no_route" "packets for which a rule named no next hop that there is",
        state_limit: "pf.state_limit" "states not made because of a limit",
        endpoint_limit: "pf.endpoint_limit" "SCTP hosts whose further addresses were not kept because of a limit",
        src_searches: "pf.src_searches" "lookups of source nodes",
        src_inserts: "pf.src_inserts" "source nodes made",
        src_removals: "pf.src_removals" "source nodes removed",
        max_states: "pf.max_states" "states not made because of a rule's maximum",
        max_src_states: "pf.max_src_states" "states not made because of a source's maximum",
        max_src_nodes: "pf.max_src_nodes" "source nodes not made because of a rule's maximum",
        max_src_conn: "pf.max_src_conn" "times that a source had more connections than a rule allows",
        max_src_conn_rate: "pf.max_src_conn_rate" "times that a source connected faster than a rule allows",
        overload_table: "pf.overload_table" "sources put into an overload table",
        overload_flush: "pf.overload_flush" "sources whose states were flushed for overload",
    }
}
