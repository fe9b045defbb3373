#!/bin/sh
# Two gateways, a host behind each, an ESP tunnel between them, real traffic through TAP devices.
#
#   demo-ha 192.0.2.10 ── gwa-lan [gw-a] gwa-wan ══ demo-wan ══ gwb-wan [gw-b] gwb-lan ── 198.51.100.10 demo-hb
#           2001:db8:a::10        203.0.113.1                  203.0.113.2        2001:db8:b::10
#
# Everything it makes (namespaces, devices, processes, files in a directory of its own) is gone when it ends, however
# it ends. SECONDS_EACH=5 makes each iperf3 run longer. Without root or /dev/net/tun the same scenario runs in one
# process over links in memory.
set -u
BIN=${1:-target/release/softnet}
EACH=${SECONDS_EACH:-3}
HERE=$(cd "$(dirname "$0")" && pwd)
case $BIN in /*) ;; *) BIN=$PWD/$BIN ;; esac

if [ "$(id -u)" != 0 ] || [ ! -w /dev/net/tun ] || ! ip netns list >/dev/null 2>&1; then
    echo "no root or no /dev/net/tun: the same scenario in one process, over links in memory"
    exec "$BIN" demo
fi

DIR=$(mktemp -d)
PIDS=
STATUS=1
cleanup() {
    trap - EXIT INT TERM HUP
    for p in $PIDS; do kill "$p" 2>/dev/null; done
    for p in $PIDS; do wait "$p" 2>/dev/null; done
    for n in demo-ha demo-hb demo-wan; do ip netns del $n 2>/dev/null; done
    for d in gwa-lan gwa-wan gwb-lan gwb-wan; do ip link del $d 2>/dev/null; done
    rm -rf "$DIR"
    exit $STATUS
}
trap cleanup EXIT INT TERM HUP
fail() { echo "demo: $*" >&2; for g in a b; do sed "s/^/gw-$g: /" "$DIR/gw-$g.log" 2>/dev/null | tail -5 >&2; done; exit 1; }
say() { printf '\n== %s\n' "$*"; }

for n in demo-ha demo-hb demo-wan; do ip netns del $n 2>/dev/null; ip netns add $n || fail "cannot make namespace $n"; done
for d in gwa-lan gwa-wan gwb-lan gwb-wan; do
    ip link show $d >/dev/null 2>&1 && fail "a device $d exists already; is another demo running?"
done

say "starting two gateways"
# One worker each: on the first and on the last processor that we may use.
CPUS=$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' /proc/self/status)
CPU_a=${CPUS%%[-,]*}
CPU_b=${CPUS##*[-,]}
for g in a b; do
    cp -r "$HERE/gateway-$g" "$DIR/gw-$g"
    chmod 600 "$DIR/gw-$g/ipsec.conf"
    eval "cpu=\$CPU_$g"
    sed -i "s|^control = .*|control = \"$DIR/gw-$g.sock\"|; s|^cpus = .*|cpus = [$cpu]|" "$DIR/gw-$g/softnet.toml"
    "$BIN" run -f "$DIR/gw-$g/softnet.toml" >"$DIR/gw-$g.log" 2>&1 &
    eval "PID_$g=$!"
    PIDS="$PIDS $!"
done
ready() { "$BIN" --control "$DIR/gw-$1.sock" status >/dev/null 2>&1; }
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    ready a && ready b && break
    kill -0 "$PID_a" 2>/dev/null && kill -0 "$PID_b" 2>/dev/null || fail "a gateway did not start"
    sleep 0.2
done
ready a && ready b || fail "the gateways do not answer"

host() { # namespace device v4 gateway4 v6 gateway6
    ip link set "$2" netns "$1" || fail "no device $2"
    ip -n "$1" link set lo up
    ip netns exec "$1" sysctl -qw "net.ipv6.conf.$2.accept_dad=0" "net.ipv6.conf.$2.accept_ra=0"
    ip -n "$1" link set "$2" up
    ip -n "$1" addr add "$3" dev "$2"
    ip -n "$1" -6 addr add "$5" dev "$2" nodad
    ip -n "$1" route add default via "$4"
    ip -n "$1" -6 route add default via "$6"
}
host demo-ha gwa-lan 192.0.2.10/24 192.0.2.1 2001:db8:a::10/64 2001:db8:a::1
host demo-hb gwb-lan 198.51.100.10/24 198.51.100.1 2001:db8:b::10/64 2001:db8:b::1
# The wire between the gateways: a namespace that hands packets over and answers ARP and ND for the far side. (A bridge
# would do as well; not every kernel has one.)
X="ip netns exec demo-wan sysctl -qw"
$X net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
wire() { # device, this side's v4 and v6, the far side's v6
    ip link set "$1" netns demo-wan || fail "no device $1"
    $X "net.ipv6.conf.$1.accept_dad=0" "net.ipv4.conf.$1.rp_filter=0" "net.ipv4.conf.$1.send_redirects=0" \
        "net.ipv4.conf.$1.proxy_arp=1" "net.ipv6.conf.$1.proxy_ndp=1" \
        "net.ipv4.neigh.$1.proxy_delay=0" "net.ipv6.neigh.$1.proxy_delay=0"
    ip -n demo-wan link set "$1" up
    ip -n demo-wan route add "$2/32" dev "$1"
    ip -n demo-wan -6 route add "$3/128" dev "$1"
    ip -n demo-wan -6 neigh add proxy "$4" dev "$1"
}
wire gwa-wan 203.0.113.1 2001:db8:ffff::1 2001:db8:ffff::2
wire gwb-wan 203.0.113.2 2001:db8:ffff::2 2001:db8:ffff::1
sleep 0.5

ip netns exec demo-wan tcpdump -i gwa-wan -U -w "$DIR/wan.pcap" >/dev/null 2>&1 &
DUMP=$!
PIDS="$PIDS $DUMP"
sleep 0.5

say "ping through the tunnel, IPv4 and IPv6"
ip netns exec demo-ha ping -c 5 -i 0.2 -W 2 198.51.100.10 || fail "no IPv4 ping"
ip netns exec demo-ha ping -6 -c 5 -i 0.2 -W 2 2001:db8:b::10 || fail "no IPv6 ping"
sleep 1
kill "$DUMP"; wait "$DUMP" 2>/dev/null

say "what the wire between the gateways carried (tcpdump)"
tcpdump -n -r "$DIR/wan.pcap" 2>/dev/null | sed 's/^[^ ]* //' | head -8
CLEAR=$(tcpdump -n -r "$DIR/wan.pcap" 'not esp and not arp and not (ip6 and dst net ff00::/8) and not (icmp6 and ip6[40] >= 133 and ip6[40] <= 137)' 2>/dev/null | wc -l)
SEALED=$(tcpdump -n -r "$DIR/wan.pcap" esp 2>/dev/null | wc -l)
echo "$SEALED ESP packets, $CLEAR others (besides ARP, ND and the kernel's own multicast)"
[ "$CLEAR" = 0 ] && [ "$SEALED" -ge 20 ] || fail "the wire carried something in clear"

say "throughput through the tunnel (iperf3, $EACH s each)"
ip netns exec demo-hb iperf3 -s >/dev/null 2>&1 &
PIDS="$PIDS $!"
sleep 0.5
run() { # text, iperf3 arguments
    text=$1; shift
    ip netns exec demo-ha timeout $((EACH + 20)) iperf3 -c 198.51.100.10 -t "$EACH" -J "$@" >"$DIR/iperf.json" 2>&1 ||
        fail "iperf3 $*: $(tail -3 "$DIR/iperf.json")"
    python3 - "$text" "$DIR/iperf.json" <<'P'
import json, sys
end = json.load(open(sys.argv[2]))["end"]
got = end.get("sum_received") or end["sum"]
loss = f', {end["sum"]["lost_percent"]:.2f} % lost' if "lost_percent" in end.get("sum", {}) else ""
print(f"  {sys.argv[1]:34s} {got['bits_per_second'] / 1e9:6.2f} Gb/s{loss}")
P
}
run "TCP, 1 stream, a to b"
run "TCP, 1 stream, b to a" -R
run "TCP, 4 streams, a to b" -P 4
run "UDP, 200 Mb/s, a to b" -u -b 200M -l 1372

say "pf and ALTQ on gateway a"
"$BIN" --control "$DIR/gw-a.sock" pfctl -s rules
"$BIN" --control "$DIR/gw-a.sock" pfctl -s queue

say "buffers of both gateways while they run"
for g in a b; do echo "gw-$g:"; "$BIN" --control "$DIR/gw-$g.sock" netstat -m || fail "gw-$g does not balance"; done

say "why packets ended on gateway a (netstat -s)"
"$BIN" --control "$DIR/gw-a.sock" netstat -s | grep -E "^[[:space:]]*[1-9]" | head -40

say "stopping"
STATUS=0
for g in a b; do
    eval "p=\$PID_$g"
    kill -TERM "$p"
    wait "$p" || { echo "gw-$g: exit status $?"; STATUS=1; }
    sed "s/^/gw-$g: /" "$DIR/gw-$g.log" | tail -6
done
[ $STATUS = 0 ] && echo && echo "demo: both gateways balance"
