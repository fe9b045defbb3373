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
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from cases import LEGACY, LENGTH, NETS, OUTER, ROUTER, all_cases
from gateways import BINARY, EVERY, NAMES, LinuxGateway, SoftnetGateway, kernel_errors, kernel_sas, open_natt, received, xfrm_setup
from guest import Failed, Guest, sh
from refusals import REFUSALS, Refusals, differences
from wire import Wire

COUNT = int(os.environ.get("PINGS", "100"))


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

    def counts(self, t):
        """What both ends count: packets on the SAs of a case, and errors."""
        return {"guest": (kernel_sas(self.guest, t), kernel_errors(self.guest)), "gateway": (self.gateway.sas(t), self.gateway.errors())}

    def case(self, t):
        """Pings through a tunnel, both ways: how many are lost, and what else is wrong."""
        # Finds the neighbours, and how large a packet may be.
        self.ping_out(t, 1, t.sizes[0])
        before = self.counts(t)
        self.wire.forget()
        lost, wrong = [], []
        for way, ping, size in zip(("out", "in"), (self.ping_out, self.ping_in), t.sizes):
            if (got := ping(t, COUNT, size)) != COUNT:
                lost.append((way, COUNT - got))
        missing = sum(n for _, n in lost)
        for who, (sas, errors) in self.counts(t).items():
            passed = {key: after - before[who][0].get(key, 0) for key, after in sas.items()}
            wrong += miscounted(who, passed, expected(t, who), missing * max(t.pieces))
            wrong += differences(who, before[who][1], errors, {})
        for end in (0, 1):
            if strangers := self.wire.strangers(end, t):
                wrong.append(f"in clear on the wire: {strangers[0][:60].hex()}")
        wrong += self.unfilled(t)
        return [f"{way}: {n} of {COUNT} lost" for way, n in lost], wrong

    def unfilled(self, t):
        """What the gateway has not filled up as it was told (RFC 4303, 2.7)."""
        least = 14 + 20 + 8 + t.algorithm.iv + t.more["tfc"] + 2 + t.algorithm.icv if "tfc" in t.more else 0
        return [f"{len(frame)} octets, not {least}" for frame in self.wire.ipsec(0, t) if len(frame) < least][:1]


def expected(t, who):
    """Packets on each SA of a case."""
    ways = {spi: t.packets(COUNT)[way] for _, _, spi, way in t.sas()}
    if t.protocol != "ipcomp":
        return {(t.protocol, spi): n for spi, n in ways.items()}
    # Small packets go out through the SA, which leaves them as they are; they come in beside it.
    beside = {"guest": t.spi_out, "gateway": t.spi_in}[who]
    comp = {("comp", spi): 0 if spi == beside and not t.more.get("big") else n for spi, n in ways.items()}
    return comp | ({("esp", spi): n for spi, n in ways.items()} if t.algorithm else {})


def opened(t):
    """What the receivers' SAs have counted when a case passes: of as many as were sent."""
    outermost = "comp" if t.outermost == "ipcomp" else t.outermost
    each = {who: expected(t, who)[outermost, spi] for who, spi in (("guest", t.spi_out), ("gateway", t.spi_in))}
    return "".join(f", {who} opened {n} of {n}" for who, n in each.items() if n)


def miscounted(who, passed, wanted, missing):
    """SAs that have not counted what was sent. Of a lost echo, only what came before it was lost was counted."""
    right = passed.keys() == wanted.keys() and all(n - missing <= passed[key] <= n for key, n in wanted.items())
    return [] if right else [f"{who} counts {passed} packets on the SAs, not {wanted}"]


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

    def case(self, name, run, counted=""):
        """Runs a case, and says what is counted if it passes. A ping may be lost on a busy machine: if that is all, and no counter says why, there is a second try, and
        that is said. Nothing else is tried again."""
        (lost, wrong), note = run(), ""
        if lost and not wrong:
            note = f" (second try: {'; '.join(lost)})"
            lost, wrong = run()
        self.line(name, lost + wrong, note + (counted if not lost + wrong else ""))

    def line(self, name, wrong, note=""):
        self.passed, self.failed = self.passed + (not wrong), self.failed + bool(wrong)
        print(f"{'FAIL' if wrong else 'ok  '} {name}{note}{': ' if wrong else ''}{'; '.join(wrong)}", flush=True)


def run_cases(report, guest, gateway, cases, folder):
    """All cases, then what some of them must refuse."""
    lab = Lab(guest, gateway, cases, folder)
    try:
        for t in cases:
            report.case(t.name, lambda t=t: lab.case(t), opened(t))
        for t in cases:
            if t.name in REFUSALS:
                for what, wrong in Refusals(lab).of(t):
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
        if gateway is LinuxGateway:
            cases = [t for t in cases if "tfc" not in t.more]
        elif not has_legacy(folder):
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
