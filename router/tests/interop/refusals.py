"""What is made of a good packet, and what must be refused of it, each once and for its own reason."""

import collections
import struct
import time

from cases import LENGTH
from wire import ipsec_at

# Cases of which everything that must be refused is tried.
REFUSALS = ("esp4in4_gcm128", "esp4in4_cbc128_sha256", "esp4in4_chacha20poly1305", "esp4in4_ctr128_sha256", "esp6in6_gcm128", "esp6in4_gcm128",
            "esp4in4_natt_gcm128", "esp4in4_gcm128_esn_hi5", "esp_transport4_gcm128", "esp_transport6_cbc128_sha256", "esp_beet4_gcm128", "esp_beet6in4_cbc128_sha256",
            "ah4in4_sha256", "ah6in6_sha256", "ah_transport4_sha256", "ah_transport6_sha256",
            "ipcomp4in4_deflate", "ipcomp6in6_deflate", "ipcomp_tunnel+esp_transport4_gcm128")


class Refusals:
    """On a laboratory in which a case passes."""

    def __init__(self, lab):
        self.lab, self.guest, self.gateway, self.wire = lab, lab.guest, lab.gateway, lab.wire

    def of(self, t):
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
        """A request from the guest that did not reach the gateway. What the guest asks its neighbours is held, too: if it has just
        forgotten the gateway's address, it gets it by a request that passes, and is asked again."""
        size = t.sizes[1] if t.protocol == "ipcomp" else 56
        for _ in range(3):
            self.wire.forget()
            self.wire.held[1] = True
            self.lab.ping_in(t, 1, size)
            self.wire.held[1] = False
            if caught := self.wire.ipsec(1, t):
                return caught[-1]
            self.lab.ping_in(t, 1, size)
        return None

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
            if answers := self.wire.ipsec(0, t):
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
            if (came := len(self.wire.ipsec(0, t))) != answers:
                wrong.append(f"{came} frames came back, not {answers}")
            if not wrong or time.monotonic() > deadline:
                return wrong


def differences(who, before, after, expected):
    """Counters that moved otherwise than expected."""
    moved = {k: after[k] - before.get(k, 0) for k in after if after[k] != before.get(k, 0)}
    return [] if moved == expected else [f"{who} counted {moved}, not {expected}"]


def forged(t, genuine):
    """What is made of a frame: (what, frame, counter)."""
    at = ipsec_at(genuine, t.protections)

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
