#!/usr/bin/env python3
"""ESP against a Linux kernel: tunnels of every suite and mix of families, both ways, and what must be refused.

    namespace host          namespace wire
    192.0.2.10 ── lan ══ gateway ══ wan ── Wire ── guest0 ══ guest ── 198.51.100.10 (on its own dummy0)
                      203.0.113.1                          203.0.113.2

`══` is a TAP device. The gateway is softnet, or with `--gateway linux` a second guest: that tests the rig itself. Four
tunnels at a time, one for each mix of families, each with its own pair of SAs bound to its policies.

One line a case, a summary, status 0 if all passed. Everything is taken down again, however it ends.
"""

import argparse
import contextlib
import hashlib
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

from guest import Failed, Guest, die_with_parent, sh
from wire import Wire, esp_at

NAMES = f"interop-{os.getpid()}-"
COUNT = int(os.environ.get("PINGS", "100"))

# Suite: key bytes (salt included), setkey's word, XFRM's word.
SUITES = {
    "aes-128-gcm": (20, "aes-gcm-16", "rfc4106(gcm(aes))"),
    "aes-256-gcm": (36, "aes-gcm-16", "rfc4106(gcm(aes))"),
    "chacha20-poly1305": (36, "chacha20-poly1305", "rfc7539esp(chacha20,poly1305)"),
}
# By family, (ours, the guest's): outer addresses, inner networks.
OUTER = {4: ("203.0.113.1", "203.0.113.2"), 6: ("2001:db8:c::1", "2001:db8:c::2")}
NETS = {4: ("192.0.2.0/24", "198.51.100.0/24"), 6: ("2001:db8:a::/64", "2001:db8:b::/64")}
LENGTH = {4: (32, 24), 6: (128, 64)}  # of a host's prefix, of a network's
ROUTER = {4: "192.0.2.1", 6: "2001:db8:a::1"}


class Tunnel:
    """One mix of families: inner packets of `inner` in outer packets of `outer`."""

    def __init__(self, suite, number, inner, outer):
        self.inner, self.outer, self.reqid = inner, outer, number
        self.name = f"{suite} v{inner}-in-v{outer}"
        self.host, self.far = (net.split("/")[0] + "10" if inner == 6 else net[:-4] + "10" for net in NETS[inner])
        if outer == 6:  # so that no two tunnels have the same inner addresses
            self.host, self.far = (a[:-2] + "20" for a in (self.host, self.far))
        self.ours, self.guests = OUTER[outer]
        self.spi_out, self.spi_in = 0x1000 + number, 0x2000 + number  # seen from the gateway
        length, self.setkey, self.xfrm = SUITES[suite]
        self.key_out, self.key_in = (
            "0x" + hashlib.shake_128(f"{self.name} {way}".encode()).hexdigest(length) for way in ("out", "in"))

    def setkey_lines(self):
        """For ipsec.conf of the gateway."""
        bits, u = LENGTH[self.inner][0], self.reqid
        sa = "add {} {} esp {:#x} -m tunnel -r 32 -u {} -E {} {};"
        sp = "spdadd {} {} any -P {} ipsec esp/tunnel/{}-{}/unique:{};"
        here, there = f"{self.host}/{bits}", f"{self.far}/{bits}"
        return [
            sa.format(self.ours, self.guests, self.spi_out, u, self.setkey, self.key_out),
            sa.format(self.guests, self.ours, self.spi_in, u, self.setkey, self.key_in),
            sp.format(here, there, "out", self.ours, self.guests, u),
            sp.format(there, here, "in", self.guests, self.ours, u),
        ]

    def xfrm_lines(self, gateway):
        """For `ip -batch` in a guest: the gateway's side or the other."""
        bits, u = LENGTH[self.inner][0], self.reqid
        sa = "xfrm state add src {} dst {} proto esp spi {:#x} reqid {} mode tunnel flag af-unspec replay-window 32 aead '{}' {} 128"
        sp = "xfrm policy add src {} dst {} dir {} tmpl src {} dst {} proto esp reqid {} mode tunnel"
        here, there = f"{self.host}/{bits}", f"{self.far}/{bits}"
        lines = [
            sa.format(self.ours, self.guests, self.spi_out, u, self.xfrm, self.key_out),
            sa.format(self.guests, self.ours, self.spi_in, u, self.xfrm, self.key_in),
            sp.format(here, there, "out" if gateway else "in", self.ours, self.guests, u),
            sp.format(there, here, "in" if gateway else "out", self.guests, self.ours, u),
        ]
        if gateway:
            lines.append(sp.format(there, here, "fwd", self.guests, self.ours, u))
        return lines


def xfrm_setup(guest, tunnels, gateway):
    """Gives a guest its SAs and policies; its errors are counted from here."""
    lines = "\n".join(line for t in tunnels for line in t.xfrm_lines(gateway))
    guest.run(f"ip xfrm state flush; ip xfrm policy flush; ip -batch - <<'X'\n{lines}\nX")


def xfrm_stat(guest):
    """The guest's IPsec error counters."""
    return {k: int(v) for k, v in (line.split() for line in guest.run("cat /proc/net/xfrm_stat").splitlines() if line)}


class LinuxGateway:
    """A second guest in softnet's place."""

    refusals = {"replay": "XfrmInStateSeqError", "auth": "XfrmInStateProtoError", "no SA": "XfrmInNoStates"}

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

    def refused(self):
        return xfrm_stat(self.guest)

    def stop(self):
        self.guest.stop()
        sh("ip", "-n", NAMES + "wire", "link", "del", "wan")
        sh("ip", "-n", NAMES + "host", "link", "del", "lan")
        return ""


class SoftnetGateway:
    """`softnet run` with a configuration of its own."""

    refusals = {"replay": "esp.replay", "auth": "esp.auth", "no SA": "esp.no_sa"}

    def __init__(self, tunnels, folder):
        self.binary = os.environ.get("SOFTNET_BIN") or str(Path(__file__).resolve().parents[3] / "target/release/softnet")
        self.folder, self.conf, self.log = folder, folder / "softnet.toml", folder / "softnet.log"
        keys = folder / "ipsec.conf"
        keys.touch(mode=0o600)
        keys.write_text("".join(f"{line}\n" for t in tunnels for line in t.setkey_lines()))
        self.conf.write_text(f"""
[router]
name = "interop"
workers = 1
clusters = 4096
jumbos = 64
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
        return {why: stat["value"] for why, stat in ended.items() if why.startswith(("esp.", "spd."))}

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
    """Namespaces, guest, gateway and wire of one suite."""

    def __init__(self, guest, gateway, suite, folder):
        mixes = [(4, 4), (6, 4), (4, 6), (6, 6)]
        self.tunnels = [Tunnel(suite, n, *mix) for n, mix in enumerate(mixes, 1)]
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
        for t in self.tunnels:
            sh("ip", "-n", host, "addr", "add", f"{t.host}/{LENGTH[t.inner][1]}", "dev", "lan", *(["nodad"] if t.inner == 6 else []))
        for v in (4, 6):
            sh("ip", "-n", host, "route", "add", NETS[v][1], "via", ROUTER[v])

    def stop(self):
        """Takes the suite down; what went wrong in doing so."""
        self.stack.close()
        return self.last_words

    def ping_from_host(self, t, count, size):
        command = ["ip", "netns", "exec", NAMES + "host", "ping", "-n", "-q", "-I", t.host, "-c", str(count), "-i", "0.01",
                   "-W", "2", "-s", str(size), t.far]
        return received(sh(*command, check=False))

    def ping_from_guest(self, t, count, size):
        return received(self.guest.run(f"ping -n -q -I {t.far} -c {count} -i 0.01 -W 2 -s {size} {t.host}", check=False))

    def packets(self, t):
        """Packets the guest counts on the two SAs of a tunnel."""
        told = self.guest.run("ip -s xfrm state")
        found = re.findall(r"spi 0x([0-9a-f]+)\(.*?lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", told, re.S)
        counts = {int(spi, 16): int(packets) for spi, packets in found}
        return [counts[t.spi_out], counts[t.spi_in]]

    def case(self, t):
        """Pings through a tunnel, both ways; what is wrong."""
        self.ping_from_host(t, 1, 56)  # finds the neighbours
        before, errors, refused = self.packets(t), xfrm_stat(self.guest), self.gateway.refused()
        self.wire.forget()
        wrong = []
        for way, ping, size in (("out", self.ping_from_host, 56), ("in", self.ping_from_guest, 1200)):
            if (got := ping(t, COUNT, size)) != COUNT:
                wrong.append(f"{way}: {got} of {COUNT} came back")
        passed = [after - earlier for earlier, after in zip(before, self.packets(t))]
        if passed != [2 * COUNT] * 2:
            wrong.append(f"guest counts {passed} packets on the SAs, not {2 * COUNT} each")
        wrong += differences("guest", errors, xfrm_stat(self.guest), {})
        wrong += differences("gateway", refused, self.gateway.refused(), {})
        for end in (0, 1):
            if strangers := self.wire.strangers(end):
                wrong.append(f"in clear on the wire: {strangers[0][:60].hex()}")
        return wrong

    def refusals(self, t):
        """What must be refused, each once and for its own reason; then the good one must still be taken."""
        self.wire.forget()
        self.wire.held[1] = True
        self.ping_from_guest(t, 1, 56)
        self.wire.held[1] = False
        frames = self.wire.esp(1)
        if not frames:
            return [("refusals", ["no ESP came from the guest"])]
        genuine, at = frames[-1], esp_at(frames[-1])
        results = []
        forged = genuine[:-1] + bytes([genuine[-1] ^ 1])
        unknown = genuine[:at] + struct.pack("!I", 0xdead0000 + t.reqid) + genuine[at + 4:]
        for what, frame, counter in (("flipped ICV", forged, "auth"), ("unknown SPI", unknown, "no SA")):
            results.append((what, self.inject(frame, counter, 0)))
        results.append(("genuine after forged", self.inject(genuine, None, 1)))
        results.append(("replayed", self.inject(genuine, "replay", 0)))
        return results

    def inject(self, frame, counter, answers):
        """Puts a frame into the gateway: which counter must move by one, how many ESP frames must come back."""
        before = self.gateway.refused()
        self.wire.forget()
        self.wire.put(0, frame)
        expected = {self.gateway.refusals[counter]: 1} if counter else {}
        deadline = time.monotonic() + 2
        while True:
            time.sleep(0.1)
            wrong = differences("gateway", before, self.gateway.refused(), expected)
            if (came := len(self.wire.esp(0))) != answers:
                wrong.append(f"{came} ESP frames came back, not {answers}")
            if not wrong or time.monotonic() > deadline:
                return wrong


def received(told):
    found = re.search(r"(\d+) received", told)
    return int(found.group(1)) if found else 0


def differences(who, before, after, expected):
    """Counters that moved otherwise than expected."""
    moved = {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}
    return [] if moved == expected else [f"{who} counted {moved}, not {expected}"]


def set_up_guest(folder):
    """The guest with all addresses it will ever have."""
    guest = Guest("peer", NAMES + "wire", ["guest0"], folder)
    commands = ["ip link add dummy0 type dummy 2>/dev/null; ip link set dummy0 up"]
    for v in (4, 6):
        nodad = "nodad" if v == 6 else ""
        commands += [f"ip addr add {OUTER[v][1]}/{LENGTH[v][1]} dev vec0 {nodad}", f"ip route add {NETS[v][0]} via {OUTER[v][0]}"]
        for outer in (4, 6):
            commands.append(f"ip addr add {Tunnel('aes-128-gcm', 0, v, outer).far}/{LENGTH[v][0]} dev dummy0 {nodad}")
    guest.run("\n".join(commands))
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


def run_suite(report, guest, gateway, suite, folder, only):
    lab = Lab(guest, gateway, suite, folder)
    try:
        tunnels = [t for t in lab.tunnels if re.search(only, t.name)]
        for t in tunnels:
            report.case(t.name, lambda t=t: lab.case(t))
        for t in tunnels:
            for what, wrong in lab.refusals(t):
                report.line(f"{t.name}, {what}", wrong)
    finally:
        last_words = lab.stop()
    report.line(f"{suite}, stop", [last_words] if last_words else [])


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
        guest = set_up_guest(folder)
        stack.callback(guest.stop)
        for suite in SUITES:
            if any(re.search(options.only, f"{suite} v{i}-in-v{o}") for i in (4, 6) for o in (4, 6)):
                run_suite(report, guest, gateway, suite, folder, options.only)
    print(f"{report.passed} passed, {report.failed} failed, {time.monotonic() - start:.0f} s")
    sys.exit(report.failed != 0 or report.passed == 0)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"FAIL {failed}")
