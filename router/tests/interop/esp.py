#!/usr/bin/env python3
"""IPsec against a Linux kernel: every case of cases.py, both ways, and what must be refused.

    namespace host          namespace wire
    192.0.2.10 ── lan ══ gateway ══ wan ── Wire ── guest0 ══ guest ── 198.51.100.10 (on its own dummy0)
                      203.0.113.1                          203.0.113.2

`══` is a TAP device. The gateway is softnet, or with `--gateway linux` a second guest: that tests the rig itself. All
cases live in it at the same time, each with addresses of its own and SAs bound to its policies. In transport mode the
gateway itself is the one end.

One line a case, a summary, status 0 if all passed. Everything is taken down again, however it ends.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cases import LEGACY, LENGTH, NETS, OUTER, ROUTER, all_cases
from guest import Failed, Guest, die_with_parent, sh
from wire import Wire, ipsec_at

NAMES = f"interop-{os.getpid()}-"
COUNT = int(os.environ.get("PINGS", "100"))
# A ping that waits this long between two: a guest of one emulated CPU keeps up with it.
EVERY = "0.005"
# Cases of which everything that must be refused is tried as well.
REFUSALS = ("esp4in4_gcm128", "esp4in4_cbc128_sha256", "esp4in4_chacha20poly1305", "esp4in4_ctr128_sha256", "esp6in6_gcm128", "esp6in4_gcm128",
            "esp4in4_natt_gcm128", "esp_transport4_gcm128", "esp_transport6_cbc128_sha256", "esp_beet4_gcm128", "esp_beet6in4_cbc128_sha256",
            "ah4in4_sha256", "ah6in6_sha256", "ah_transport4_sha256", "ah_transport6_sha256",
            "ipcomp4in4_deflate", "ipcomp6in6_deflate", "ipcomp_tunnel+esp_transport4_gcm128")


def xfrm_setup(guest, tunnels, gateway):
    """Gives a guest its SAs and policies; its errors are counted from here."""
    lines = "\n".join(line for t in tunnels for line in t.xfrm_lines(gateway))
    guest.run(f"ip xfrm state flush; ip xfrm policy flush; ip -batch - <<'X'\n{lines}\nX")


def xfrm_stat(guest):
    """The guest's IPsec error counters."""
    return {k: int(v) for k, v in (line.split() for line in guest.run("cat /proc/net/xfrm_stat").splitlines() if line)}


def open_natt(guest, cases):
    """Has a guest take ESP out of UDP for as long as it lives."""
    if any(t.more.get("natt") for t in cases):
        guest.run(f"python3 '{Path(__file__).with_name('natt.py')}'")


class LinuxGateway:
    """A second guest in softnet's place."""

    refusals = {"replay": "XfrmInStateSeqError", "auth": "XfrmInStateProtoError", "inflate": "XfrmInStateProtoError",
                "no SA": "XfrmInNoStates", "policy": "XfrmInTmplMismatch"}
    # Where no policy is asked, it takes what comes in transport mode.
    refuses_strangers = False

    def __init__(self, tunnels, folder):
        self.guest = Guest("gateway", NAMES + "wire", ["lan", "wan"], folder)
        commands = ["sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"]
        for v in (4, 6):
            nodad = "nodad" if v == 6 else ""
            commands += [f"ip addr add {ROUTER[v]}/{LENGTH[v][1]} dev vec0 {nodad}",
                         f"ip addr add {OUTER[v][0]}/{LENGTH[v][1]} dev vec1 {nodad}",
                         f"ip route add {NETS[v][1]} via {OUTER[v][1]}"]
        self.guest.run("\n".join(commands))
        xfrm_setup(self.guest, tunnels, gateway=True)
        open_natt(self.guest, tunnels)

    def refused(self):
        told = dict(line.split() for line in self.guest.run("cat /proc/net/snmp6").splitlines())
        names, values = (line.split() for line in self.guest.run("grep IpExt /proc/net/netstat").splitlines())
        truncated = {"ip.truncated": int(dict(zip(names, values))["InTruncatedPkts"]), "ip6.truncated": int(told["Ip6InTruncatedPkts"])}
        return xfrm_stat(self.guest) | truncated

    @staticmethod
    def cut(t, length):
        """The counter of a packet with so many octets behind its IP header, cut short."""
        if t.more.get("natt"):
            # Otherwise it is a datagram for whoever has the port.
            return "XfrmInStateProtoError" if length > 16 else None
        return "XfrmInStateProtoError" if length >= {"esp": 8, "ah": 12, "ipcomp": 4}[t.outermost] else "XfrmInHdrError"

    def ping(self, t, count, size):
        return received(self.guest.run(f"ping -n -q -I {t.host} -c {count} -i {EVERY} -W 2 -s {size} {t.far}", check=False))

    def stop(self):
        self.guest.stop()
        sh("ip", "-n", NAMES + "wire", "link", "del", "wan")
        sh("ip", "-n", NAMES + "host", "link", "del", "lan")
        return ""


BINARY = os.environ.get("SOFTNET_BIN") or str(Path(__file__).resolve().parents[3] / "target/release/softnet")
# By family: AH's length is a multiple of it (RFC 4302, 3.3.3.2.1).
LENGTH_OF_AH = {4: 4, 6: 8}
# Reasons of packets' ends that are IPsec's, and those of the packets it is handed.
IPSEC = ("esp.", "natt.", "ah.", "ipcomp.", "spd.", "ip.truncated", "ip6.truncated")


class SoftnetGateway:
    """`softnet run` with a configuration of its own."""

    refusals = {"replay": "{}.replay", "auth": "{}.auth", "inflate": "{}.inflate", "no SA": "{}.no_sa", "policy": "{}.policy"}
    refuses_strangers = True

    def __init__(self, tunnels, folder):
        self.binary = BINARY
        self.folder, self.conf, self.log = folder, folder / "softnet.toml", folder / "softnet.log"
        keys = folder / "ipsec.conf"
        keys.touch(mode=0o600)
        keys.write_text("".join(f"{line}\n" for t in tunnels for line in t.setkey_lines()))
        self.conf.write_text(f"""
[router]
name = "interop"
workers = 1
clusters = 4096
jumbos = 512
control = "{folder}/control.sock"
ipsec = "ipsec.conf"

[[interface]]
name = "lan0"
driver = "tap"
device = "lan"
address = ["{ROUTER[4]}/24", "{ROUTER[6]}/64"]

[[interface]]
name = "wan0"
driver = "tap"
device = "wan"
address = ["{OUTER[4][0]}/24", "{OUTER[6][0]}/64"]

[[route]]
to = "{NETS[4][1]}"
via = "{OUTER[4][1]}"

[[route]]
to = "{NETS[6][1]}"
via = "{OUTER[6][1]}"
""")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", NAMES + "wire", self.binary, "run", "-f", str(self.conf)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        self.wait_until_up()

    def wait_until_up(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"softnet ended with {self.process.returncode}: {self.log.read_text()[-500:]}")
            with contextlib.suppress(Failed):
                self.refused()
                return
            time.sleep(0.1)
        self.process.kill()
        raise Failed(f"softnet is not up after 20 s: {self.log.read_text()[-500:]}")

    def refused(self):
        """Packets that ended for a reason of IPsec's, by reason."""
        ended = json.loads(sh(self.binary, "netstat", "-s", "--json", "--control", str(self.folder / "control.sock")))["ended"]
        return {why: stat["value"] for why, stat in ended.items() if why.startswith(IPSEC)}

    @staticmethod
    def cut(t, length):
        """The counter of a packet with so many octets behind its IP header, cut short."""
        if t.more.get("natt"):
            length -= 8
            if length < 4:
                # Without ports it is not known to be for port 4500.
                return "natt.malformed" if length >= -4 else "ip.truncated"
        if t.outermost == "ipcomp":
            return "ipcomp.malformed" if length < 4 else "ipcomp.inflate"
        if t.outermost == "ah":
            header = -(-(12 + t.algorithm.icv) // LENGTH_OF_AH[t.outer]) * LENGTH_OF_AH[t.outer]
            return "ah.malformed" if length < header else "ah.auth"
        least = 8 + t.algorithm.iv + t.algorithm.block + t.algorithm.icv
        return "esp.auth" if length >= least and (length - least) % t.algorithm.block == 0 else "esp.malformed"

    def ping(self, t, count, size):
        return received(sh(self.binary, "ping", "-c", str(count), "-i", EVERY, "-W", "2", "-s", str(size), t.far,
                           "--control", str(self.folder / "control.sock"), check=False))

    def stop(self):
        """Stops it as an operator would; what is wrong with its last words."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "softnet did not stop in 20 s"
        return "" if status == 0 else f"softnet ended with {status}: {self.log.read_text()[-500:]}"


class Lab:
    """Namespaces, guest, gateway and wire."""

    def __init__(self, guest, gateway, cases, folder):
        self.tunnels = cases
        self.guest = guest
        self.stack = contextlib.ExitStack()
        self.last_words = ""
        with contextlib.ExitStack() as stack:
            xfrm_setup(guest, self.tunnels, gateway=False)
            self.gateway = gateway(self.tunnels, folder)
            stack.callback(self.stop_gateway)
            self.set_up_host()
            self.wire = Wire(NAMES + "wire", ["wan", "guest0"])
            stack.callback(self.wire.stop)
            self.stack = stack.pop_all()

    def stop_gateway(self):
        self.last_words = self.gateway.stop()

    def set_up_host(self):
        wire, host = NAMES + "wire", NAMES + "host"
        sh("ip", "-n", wire, "link", "set", "wan", "up")
        sh("ip", "-n", wire, "link", "set", "lan", "netns", host)
        sh("ip", "netns", "exec", host, "sysctl", "-qw", "net.ipv6.conf.lan.accept_dad=0", "net.ipv6.conf.lan.accept_ra=0",
           "net.ipv6.conf.lan.disable_ipv6=0")
        sh("ip", "-n", host, "link", "set", "lan", "up")
        addresses = [f"addr add {t.host}/{LENGTH[t.inner][1]} dev lan {'nodad' if t.inner == 6 else ''}\n"
                     for t in self.tunnels if t.mode != "transport"]
        batch(host, "".join(addresses))
        for v in (4, 6):
            sh("ip", "-n", host, "route", "add", NETS[v][1], "via", ROUTER[v])

    def stop(self):
        """Takes all of it down; what went wrong in doing so."""
        self.stack.close()
        return self.last_words

    def ping_out(self, t, count, size):
        """Echoes from our side: a host behind the gateway, or the gateway itself."""
        if t.mode == "transport":
            return self.gateway.ping(t, count, size)
        command = ["ip", "netns", "exec", NAMES + "host", "ping", "-n", "-q", "-I", t.host, "-c", str(count), "-i", EVERY,
                   "-W", "2", "-s", str(size), t.far]
        return received(sh(*command, check=False))

    def ping_in(self, t, count, size):
        """Echoes from the guest."""
        return received(self.guest.run(f"ping -n -q -I {t.far} -c {count} -i {EVERY} -W 2 -s {size} {t.host}", check=False))

    def packets(self, t):
        """Packets the guest counts on the SAs of a case, by protocol and SPI."""
        told = self.guest.run("ip -s xfrm state")
        found = re.findall(r"proto (\w+) spi 0x([0-9a-f]+)\(.*?lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", told, re.S)
        return {(proto, int(spi, 16)): int(packets) for proto, spi, packets in found if int(spi, 16) in (t.spi_out, t.spi_in)}

    def case(self, t):
        """Pings through a tunnel, both ways; what is wrong."""
        self.ping_out(t, 1, 56)  # finds the neighbours
        before, errors, refused = self.packets(t), xfrm_stat(self.guest), self.gateway.refused()
        self.wire.forget()
        wrong = []
        for way, ping, size in zip(("out", "in"), (self.ping_out, self.ping_in), t.sizes):
            if (got := ping(t, COUNT, size)) != COUNT:
                wrong.append(f"{way}: {got} of {COUNT} came back")
        passed = {key: after - before.get(key, 0) for key, after in self.packets(t).items()}
        if passed != self.expected(t):
            wrong.append(f"guest counts {passed} packets on the SAs, not {self.expected(t)}")
        wrong += differences("guest", errors, xfrm_stat(self.guest), {})
        wrong += differences("gateway", refused, self.gateway.refused(), {})
        for end in (0, 1):
            if strangers := self.wire.strangers(end):
                wrong.append(f"in clear on the wire: {strangers[0][:60].hex()}")
        return wrong

    @staticmethod
    def expected(t):
        """Packets on each SA: requests one way, answers the other, both ways."""
        all_of_them = 2 * COUNT
        if t.protocol != "ipcomp":
            return {(t.protocol, spi): all_of_them for spi in (t.spi_out, t.spi_in)}
        # Small packets go out through the SA, which leaves them as they are; they come in beside it.
        comp = {("comp", t.spi_out): all_of_them if t.more.get("big") else 0, ("comp", t.spi_in): all_of_them}
        return comp | ({("esp", spi): all_of_them for spi in (t.spi_out, t.spi_in)} if t.algorithm else {})

    def refusals(self, t):
        """What must be refused, each once and for its own reason; then the good one must still be taken."""
        genuine = self.catch(t)
        if genuine is None:
            return [("refusals", [f"no packet of {t.protocol} came from the guest"])]
        results = []
        for what, frame, counter in forged(t, genuine):
            results.append((what, self.inject(t, frame, counter, 0)))
        results.append(("truncated", self.truncated(t, genuine)))
        results.append(("genuine after forged", self.inject(t, genuine, None, 1)))
        if t.outermost != "ipcomp":
            results.append(("replayed", self.inject(t, genuine, "replay", 0)))
        # In BEET mode the receiver makes the addresses, so there are no others.
        if t.mode == "tunnel":
            results.append(("wrong selector", self.wrong_selector(t)))
        elif t.mode == "transport" and self.gateway.refuses_strangers:
            results.append(("wrong selector", self.stranger(t)))
        return results

    def catch(self, t):
        """A request from the guest that did not reach the gateway."""
        self.wire.forget()
        self.wire.held[1] = True
        self.ping_in(t, 1, t.sizes[1] if t.protocol == "ipcomp" else 56)
        self.wire.held[1] = False
        return (self.wire.ipsec(1) or [None])[-1]

    def truncated(self, t, genuine):
        """Every shorter form of a frame: as it was cut on the way, and with headers that agree to it. Each must be counted once, for the
        reason that its length has."""
        ip = 34 if t.outer == 4 else 54
        cut = [genuine[:length] for length in range(ip, len(genuine))]
        agreed = collections.Counter(self.gateway.cut(t, len(frame) - ip) for frame in cut)
        del agreed[None]
        wrong = []
        for what, frames, expected in (("cut", cut, {"ip.truncated" if t.outer == 4 else "ip6.truncated": len(cut)}),
                                       ("agreed", [with_length(frame, t.more.get("natt")) for frame in cut], dict(agreed))):
            before = self.gateway.refused()
            self.wire.forget()
            for frame in frames:
                self.wire.put(0, frame)
            deadline = time.monotonic() + 3
            while (differs := differences("gateway", before, self.gateway.refused(), expected)) and time.monotonic() < deadline:
                time.sleep(0.05)
            wrong += [f"{what}: {difference}" for difference in differs]
            if answers := self.wire.ipsec(0):
                wrong.append(f"{what}: {len(answers)} answers")
        return wrong

    def wrong_selector(self, t):
        """The right SA with a packet that its policy is not for."""
        far = "198.51.100.250" if t.inner == 4 else "2001:db8:b::ffff"
        return self.against_policy(t, far, "", t.templates(t.guests, t.ours, "out"))

    def stranger(self, t):
        """The same in transport mode: the packet of another host, who has got hold of the SA. It is its last."""
        far = "203.0.113.99" if t.inner == 4 else "2001:db8:c::ffff"
        sa = t.xfrm_lines(False)[1].replace(f"src {t.guests} ", f"src {far} ").replace("replay-window 32", "replay-window 32 replay-oseq 1000")
        src, dst, spi, _ = t.sas()[1]
        self.guest.run(f"ip xfrm state delete src {src} dst {dst} proto {t.protocol} spi {spi:#x} && ip {sa}")
        return self.against_policy(t, far, t.upper()[0][1], t.templates(far, t.ours, "out"))

    def against_policy(self, t, far, upper, tmpl):
        """A packet of `far` through SAs that are for others."""
        bits, before = LENGTH[t.inner][0], self.gateway.refused()
        policy = f"src {far}/{bits} dst {t.host}/{bits} {upper} dir out"
        size = t.sizes[1] if t.protocol == "ipcomp" else 56
        self.guest.run(f"ip addr add {far}/{bits} dev dummy0 {'nodad' if t.inner == 6 else ''};"
                       f"ip xfrm policy add {policy} {tmpl}; ping -n -q -I {far} -c 1 -W 1 -s {size} {t.host};"
                       f"ip xfrm policy del {policy}; ip addr del {far}/{bits} dev dummy0", check=False)
        return differences("gateway", before, self.gateway.refused(), {self.gateway.refusals["policy"].format(t.protocol): 1})

    def inject(self, t, frame, counter, answers):
        """Puts a frame into the gateway: which counter must move by one, how many ESP frames must come back."""
        before = self.gateway.refused()
        self.wire.forget()
        self.wire.put(0, frame)
        expected = {self.gateway.refusals[counter].format(t.outermost): 1} if counter else {}
        deadline = time.monotonic() + 2
        while True:
            time.sleep(0.1)
            wrong = differences("gateway", before, self.gateway.refused(), expected)
            if (came := len(self.wire.ipsec(0))) != answers:
                wrong.append(f"{came} frames came back, not {answers}")
            if not wrong or time.monotonic() > deadline:
                return wrong


def received(told):
    found = re.search(r"(\d+) (?:packets )?received", told)
    return int(found.group(1)) if found else 0


def differences(who, before, after, expected):
    """Counters that moved otherwise than expected."""
    moved = {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}
    return [] if moved == expected else [f"{who} counted {moved}, not {expected}"]


def forged(t, genuine):
    """What is made of a frame: (what, frame, counter)."""
    at = ipsec_at(genuine)

    def but(place, octets):
        return genuine[:place] + octets + genuine[place + len(octets):]

    if t.outermost == "ipcomp":
        # It has no ICV; but there is no fourth kind of block (RFC 1951, 3.2.3).
        return [("spoilt stream", but(at + 4, b"\xff"), "inflate"), ("unknown CPI", but(at + 2, struct.pack("!H", 0xde00 + t.number)), "no SA")]
    icv = at + 12 if t.outermost == "ah" else len(genuine) - 1
    spi = at + (4 if t.outermost == "ah" else 0)
    return [("flipped ICV", but(icv, bytes([genuine[icv] ^ 1])), "auth"),
            ("unknown SPI", but(spi, struct.pack("!I", 0xdead0000 + t.number)), "no SA")]


def with_length(frame, in_udp):
    """A frame whose headers say how long it is."""
    frame, ip = bytearray(frame), 14
    if frame[12:14] == b"\x86\xdd":
        frame[18:20] = struct.pack("!H", len(frame) - 54)
        return bytes(frame)
    if in_udp and len(frame) >= 42:
        frame[38:40] = struct.pack("!H", len(frame) - 34)
    frame[16:18], frame[24:26] = struct.pack("!H", len(frame) - ip), b"\0\0"
    total = sum(struct.unpack("!10H", frame[ip:ip + 20]))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    frame[24:26] = struct.pack("!H", ~total & 0xffff)
    return bytes(frame)


def batch(netns, lines):
    """Many commands of `ip` in one process."""
    with tempfile.NamedTemporaryFile("w", suffix=".ip") as file:
        file.write(lines)
        file.flush()
        sh("ip", "-n", netns, "-batch", file.name)


def set_up_guest(folder, cases):
    """The guest with all addresses it will ever have."""
    guest = Guest("peer", NAMES + "wire", ["guest0"], folder)
    commands = ["ip link add dummy0 type dummy 2>/dev/null; ip link set dummy0 up; ip -batch - <<'X'"]
    for v in (4, 6):
        nodad = "nodad" if v == 6 else ""
        commands += [f"addr add {OUTER[v][1]}/{LENGTH[v][1]} dev vec0 {nodad}", f"route add {NETS[v][0]} via {OUTER[v][0]}"]
    for t in cases:
        where, bits = ("vec0", LENGTH[t.inner][1]) if t.mode == "transport" else ("dummy0", LENGTH[t.inner][0])
        commands.append(f"addr add {t.far}/{bits} dev {where} {'nodad' if t.inner == 6 else ''}")
    guest.run("\n".join([*commands, "X"]))
    open_natt(guest, cases)
    return guest


def sweep():
    """Removes what runs that were killed have left."""
    for name in re.findall(r"^(interop-(\d+)-\w+)", sh("ip", "netns", "list"), re.M):
        if not Path(f"/proc/{name[1]}").exists():
            sh("ip", "netns", "del", name[0], check=False)
    for folder in Path(tempfile.gettempdir()).glob("softnet-interop-*"):
        if not Path("/proc", folder.name.rpartition("-")[2]).exists():
            shutil.rmtree(folder, ignore_errors=True)


class Report:
    """One line a case, a summary at the end."""

    def __init__(self):
        self.passed = self.failed = 0

    def case(self, name, run):
        """Runs a case; a ping may be lost on a busy machine, so it has a second try, and that is said."""
        wrong, note = run(), ""
        if wrong:
            first, wrong, note = wrong, run(), " (second try)"
            if not wrong:
                note += ": " + "; ".join(first)
        self.line(name, wrong, note)

    def line(self, name, wrong, note=""):
        self.passed, self.failed = self.passed + (not wrong), self.failed + bool(wrong)
        print(f"{'FAIL' if wrong else 'ok  '} {name}{note}{': ' if wrong else ''}{'; '.join(wrong)}", flush=True)


def run_cases(report, guest, gateway, cases, folder):
    """All cases, then what some of them must refuse."""
    lab = Lab(guest, gateway, cases, folder)
    try:
        for t in cases:
            report.case(t.name, lambda t=t: lab.case(t))
        for t in cases:
            if t.name in REFUSALS:
                for what, wrong in lab.refusals(t):
                    report.line(f"{t.name}, {what}", wrong)
    finally:
        last_words = lab.stop()
    report.line("stop", [last_words] if last_words else [])


def left_out(case):
    """Whether a case needs the feature `legacy`; that is printed."""
    if any(word in case.name for word in LEGACY):
        print(f"left out {case.name}: this softnet is built without the feature legacy")
        return True
    return False


def has_legacy(folder):
    """Whether this softnet has 3DES and MD5."""
    keys, conf = folder / "ipsec.conf", folder / "softnet.toml"
    keys.touch(mode=0o600)
    keys.write_text("add 10.0.0.1 10.0.0.2 esp 999 -E null -A hmac-md5 \"sixteen  octets!\";")
    conf.write_text("[router]\nname = \"legacy\"\nipsec = \"ipsec.conf\"\n")
    faults = json.loads(sh(BINARY, "check", "-f", str(conf), "--json", check=False))["faults"]
    return not any("legacy" in fault for fault in faults)


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--gateway", choices=["softnet", "linux"], default="softnet")
    options.add_argument("--only", default="", metavar="REGEX", help="cases to run, by name")
    options = options.parse_args()
    gateway = LinuxGateway if options.gateway == "linux" else SoftnetGateway
    report, start = Report(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("not done in 10 minutes"))
    signal.alarm(600)
    with contextlib.ExitStack() as stack:
        sweep()
        folder = Path(tempfile.gettempdir()) / f"softnet-interop-{os.getpid()}"
        folder.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for netns in ("wire", "host"):
            sh("ip", "netns", "add", NAMES + netns)
            stack.callback(sh, "ip", "netns", "del", NAMES + netns, check=False)
            sh("ip", "-n", NAMES + netns, "link", "set", "lo", "up")
        # Nothing of this kernel's own on the wire.
        sh("ip", "netns", "exec", NAMES + "wire", "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        cases = [t for t in all_cases() if re.search(options.only, t.name)]
        if gateway is SoftnetGateway:
            if not has_legacy(folder):
                cases = [t for t in cases if not left_out(t)]
        guest = set_up_guest(folder, cases)
        stack.callback(guest.stop)
        run_cases(report, guest, gateway, cases, folder)
    print(f"{report.passed} passed, {report.failed} failed, {time.monotonic() - start:.0f} s")
    sys.exit(report.failed != 0 or report.passed == 0)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"FAIL {failed}")
