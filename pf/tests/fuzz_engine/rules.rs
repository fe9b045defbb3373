//! Rules that together use all that the engine does. The good flow passes under each.

/// Ports of the good flow.
pub(crate) const GOOD: (u16, u16) = (7777, 7778);

pub(crate) const RULES: [(&str, &str); 10] = [
    (
        "nat",
        "nat on wan0 inet proto udp from 192.0.2.0/24 to any -> 203.0.113.1 endpoint-independent\n\
         nat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1\n\
         nat on wan0 inet6 proto udp from 2001:db8:a::/64 to any -> 2001:db8:b::1 endpoint-independent\n\
         nat on wan0 inet6 from 2001:db8:a::/64 to any -> 2001:db8:b::1\n\
         pass all keep state allow-opts\n",
    ),
    (
        "rdr and binat",
        "binat on wan0 inet from 192.0.2.8/29 to any -> 203.0.113.16/29\n\
         binat on wan0 inet6 from 2001:db8:a::/64 to any -> 2001:db8:b:16::/64\n\
         rdr on lan0 inet proto { tcp udp } to port 50:90 -> { 198.51.100.1 198.51.100.9 } port 1000:* round-robin sticky-address\n\
         rdr on lan0 inet6 proto { tcp udp } to port 50:90 -> 2001:db8:c::1 port 1000:*\n\
         pass all keep state (if-bound)\n",
    ),
    (
        "af-to",
        "pass all keep state\n\
         pass in on lan0 inet6 from any to 64:ff9b::/96 af-to inet from 203.0.113.1\n\
         pass in on lan0 inet from any to 198.51.100.1 af-to inet6 from 2001:db8:b::1 to 2001:db8:c::1\n",
    ),
    (
        "modulate",
        "nat on wan0 from 192.0.2.0/24 to any -> { 203.0.113.1 203.0.113.2 } round-robin sticky-address\n\
         pass all keep state\n\
         pass proto tcp flags any modulate state (source-track rule)\n",
    ),
    ("synproxy", "pass all keep state\npass in on lan0 proto tcp synproxy state (source-track global)\n"),
    (
        "syncookies",
        "set syncookies always\nnat on wan0 inet from 192.0.2.0/24 to any -> 203.0.113.1\npass all keep state\n",
    ),
    (
        "scrub",
        "scrub in all no-df random-id min-ttl 32 max-mss 900 set-tos 0x10 reassemble tcp\n\
         pass all flags any keep state allow-opts\n",
    ),
    (
        "scrub by rules",
        "match all scrub (no-df random-id min-ttl 32 max-mss 900 reassemble tcp)\n\
         pass all flags any keep state (sloppy)\npass in on lan0 proto tcp to port 80 keep state\n",
    ),
    (
        "sctp",
        "nat on wan0 inet proto sctp from 192.0.2.0/24 to any -> 203.0.113.1\n\
         pass all keep state\npass proto sctp keep state (allow-related)\n",
    ),
    (
        "overload",
        "table <bad> persist\nblock in quick proto tcp from <bad>\npass all keep state\n\
         pass in proto tcp flags any keep state (max-src-conn-rate 5/10, max-src-states 20, overload <bad> flush global)\n",
    ),
];
