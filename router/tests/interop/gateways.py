"""What stands in the middle: softnet, or a second Linux guest in its place; and what both ends count."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from cases import LENGTH, NETS, OUTER, ROUTER
from guest import Failed, Guest, die_with_parent, sh

NAMES = f"interop-{os.getpid()}-"
# A ping that waits this long between two: a guest of one emulated CPU keeps up with it.
EVERY = "0.005"
# Errors that a Linux kernel counts below and above IPsec. Not those of reassembly: it counts them a minute late, in another case.
KERNEL_ERRORS = re.compile(r"(InErrors|CsumErrors|HdrErrors|AddrErrors|TruncatedPkts|Discards|FragFails)$")


def xfrm_setup(guest, tunnels, gateway):
    """Gives a guest its SAs and policies; its errors are counted from here."""
    lines = "\n".join(line for t in tunnels for line in t.xfrm_lines(gateway))
    guest.run(f"ip xfrm state flush; ip xfrm policy flush; ip -batch - <<'X'\n{lines}\nX")


def kernel_errors(guest):
    """The error counters of a guest: IPsec's, and those of IP, ICMP and UDP."""
    told = guest.run("cat /proc/net/xfrm_stat /proc/net/snmp6; cat /proc/net/snmp /proc/net/netstat")
    errors, names = {}, None
    for line in told.splitlines():
        words = line.split()
        if len(words) == 2 and not words[0].endswith(":"):
            errors[words[0]] = int(words[1])
        elif names and names[0] == words[0]:
            errors |= {names[0][:-1] + name: int(value) for name, value in zip(names[1:], words[1:])}
            names = None
        else:
            names = words
    return {name: value for name, value in errors.items() if name.startswith("Xfrm") or KERNEL_ERRORS.search(name)}


def kernel_sas(guest, t):
    """Packets that a guest counts on the SAs of a case, by protocol and SPI."""
    told = guest.run(f"ip -s xfrm state list reqid {t.number}")
    found = re.findall(r"proto (\w+) spi 0x([0-9a-f]+)\(.*?lifetime current:\s+\d+\(bytes\), (\d+)\(packets\)", told, re.S)
    return {(proto, int(spi, 16)): int(packets) for proto, spi, packets in found}


def open_natt(guest, cases):
    """Has a guest take ESP out of UDP for as long as it lives."""
    if any(t.more.get("natt") for t in cases):
        guest.run(f"python3 '{Path(__file__).with_name('natt.py')}'")


def received(told):
    """How many echoes came back, as any ping tells it."""
    found = re.search(r"(\d+) (?:packets )?received", told)
    return int(found.group(1)) if found else 0


class LinuxGateway:
    """A second guest in softnet's place."""

    refusals = {"replay": "XfrmInStateSeqError", "auth": "XfrmInStateProtoError", "inflate": "XfrmInStateProtoError",
                "no SA": "XfrmInNoStates", "policy": "XfrmInNoPols"}
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
        """What it refuses of IPsec's, or because it is cut short."""
        errors = self.errors()
        truncated = {"ip.truncated": errors["IpExtInTruncatedPkts"], "ip6.truncated": errors["Ip6InTruncatedPkts"]}
        return {name: value for name, value in errors.items() if name.startswith("Xfrm")} | truncated

    def errors(self):
        """Everything that may say why a packet is missing."""
        return kernel_errors(self.guest)

    def sas(self, t):
        """Packets it counts on the SAs of a case, by protocol and SPI."""
        return kernel_sas(self.guest, t)

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
# Ends of what a link needs, and of what the guest asks all routers for.
ORDINARY = ("arp.done", "nd.done", "icmp.done", "ip.multicast", "ip6.multicast")
# What iproute2 calls what setkey calls otherwise.
PROTOCOLS = {"ipcomp": "comp", "esp-udp": "esp"}
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

    def ask(self, *command):
        """What it answers."""
        return json.loads(sh(self.binary, *command, "--json", "--control", str(self.folder / "control.sock")))

    def refused(self):
        """Packets that ended for a reason of IPsec's, by reason."""
        return {why: n for why, n in self.errors().items() if why.startswith(IPSEC)}

    def errors(self):
        """Everything that may say why a packet is missing."""
        return {why: stat["value"] for why, stat in self.ask("netstat", "-s")["ended"].items() if why not in ORDINARY}

    def sas(self, t):
        """Packets it counts on the SAs of a case, by protocol and SPI: sealed with the one, opened with the other."""
        return {(PROTOCOLS.get(sa["proto"], sa["proto"]), sa["spi"]): sa["sent" if sa["spi"] == t.spi_out else "received"]["packets"]
                for sa in self.ask("setkey", "-D") if sa["spi"] in (t.spi_out, t.spi_in)}

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
