"""The cases: what goes through which SAs, in setkey's words for softnet and in iproute2's for the guest.

Eighty-seven of them: ESP with every algorithm, mixed families, transport, BEET (in all four mixes of families), extended sequence numbers (from the start, with
a high half, and over the wrap of the low one), UDP encapsulation over both families, fragments, traffic flow confidentiality, AH (with extended numbers, and
for peers that align it to eight octets), IPComp, and IPComp in ESP. Each has its own pair of addresses and its own SAs bound to its policies, so all of them
live in one gateway at the same time.
"""

import hashlib

# By family, (ours, the guest's): outer addresses, inner networks.
OUTER = {4: ("203.0.113.1", "203.0.113.2"), 6: ("2001:db8:c::1", "2001:db8:c::2")}
NETS = {4: ("192.0.2.0/24", "198.51.100.0/24"), 6: ("2001:db8:a::/64", "2001:db8:b::/64")}
LENGTH = {4: (32, 24), 6: (128, 64)}  # of a host's prefix, of a network's
ROUTER = {4: "192.0.2.1", 6: "2001:db8:a::1"}


class Algorithm:
    """The words for it, by key; in ESP the octets of its IV, of what its ciphertext is a multiple of, and of its ICV (RFC 4303, 2)."""

    def __init__(self, words, icv, iv=0, block=4):
        self.words, self.icv, self.iv, self.block = words, icv, iv, block

    def __call__(self, key):
        return self.words(key)


def aead(setkey, xfrm, length, icv):
    """One algorithm with one key."""
    return Algorithm(lambda key: (f"-E {setkey} {key('cipher', length)}", f"aead '{xfrm}' {key('cipher', length)} {icv * 8}"), icv, 8)


def pair(setkey, xfrm, length, auth):
    """A cipher and a hash."""
    words, kernel, auth_length, bits = AUTH[auth]
    iv, block = BLOCKS[setkey]

    def both(key):
        cipher = key("cipher", length) if length else ""
        hashed = key("hash", auth_length)
        return (f"-E {setkey} {cipher} -A {words} {hashed}",
                f"auth-trunc '{kernel}' {hashed} {bits} enc '{xfrm}' {cipher or repr('')}")
    return Algorithm(both, bits // 8, iv, block)


def hashed(auth):
    """A hash alone, for AH."""
    words, kernel, length, bits = AUTH[auth]
    return Algorithm(lambda key: (f"-A {words} {key('hash', length)}", f"auth-trunc '{kernel}' {key('hash', length)} {bits}"), bits // 8)


# Octets of a cipher's IV, and of what it makes whole blocks of.
BLOCKS = {"aes-cbc": (16, 16), "aes-ctr": (8, 4), "3des-cbc": (8, 8), "null": (0, 4)}
# setkey's word, the kernel's, octets of the key, bits of the ICV.
AUTH = {
    "sha1": ("hmac-sha1", "hmac(sha1)", 20, 96),
    "sha256": ("hmac-sha256", "hmac(sha256)", 32, 128),
    "sha384": ("hmac-sha384", "hmac(sha384)", 48, 192),
    "sha512": ("hmac-sha512", "hmac(sha512)", 64, 256),
    "cmac": ("aes-cmac", "cmac(aes)", 16, 96),
    "xcbc": ("aes-xcbc-mac", "xcbc(aes)", 16, 96),
    "md5": ("hmac-md5", "hmac(md5)", 16, 96),
}
GCM, CCM, GMAC = "rfc4106(gcm(aes))", "rfc4309(ccm(aes))", "rfc4543(gcm(aes))"
ALGORITHMS = {
    "gcm128": aead("aes-gcm-16", GCM, 20, 16),
    "gcm192": aead("aes-gcm-16", GCM, 28, 16),
    "gcm256": aead("aes-gcm-16", GCM, 36, 16),
    "gcm128_icv8": aead("aes-gcm-8", GCM, 20, 8),
    "gcm128_icv12": aead("aes-gcm-12", GCM, 20, 12),
    "gmac": aead("aes-gmac", GMAC, 20, 16),
    "ccm128_icv16": aead("aes-ccm-16", CCM, 19, 16),
    "ccm128_icv8": aead("aes-ccm-8", CCM, 19, 8),
    "ccm256_icv12": aead("aes-ccm-12", CCM, 35, 12),
    "chacha20poly1305": aead("chacha20-poly1305", "rfc7539esp(chacha20,poly1305)", 36, 16),
    "cbc128_sha256": pair("aes-cbc", "cbc(aes)", 16, "sha256"),
    "cbc256_sha256": pair("aes-cbc", "cbc(aes)", 32, "sha256"),
    "cbc128_sha1": pair("aes-cbc", "cbc(aes)", 16, "sha1"),
    "cbc192_sha384": pair("aes-cbc", "cbc(aes)", 24, "sha384"),
    "cbc256_sha512": pair("aes-cbc", "cbc(aes)", 32, "sha512"),
    "ctr128_sha256": pair("aes-ctr", "rfc3686(ctr(aes))", 20, "sha256"),
    "cbc128_cmac": pair("aes-cbc", "cbc(aes)", 16, "cmac"),
    "cbc128_xcbc": pair("aes-cbc", "cbc(aes)", 16, "xcbc"),
    "cbc128_md5": pair("aes-cbc", "cbc(aes)", 16, "md5"),
    "des3_sha1": pair("3des-cbc", "cbc(des3_ede)", 24, "sha1"),
    "null_sha256": pair("null", "ecb(cipher_null)", 0, "sha256"),
}
# What only a softnet built with the feature `legacy` has.
LEGACY = ("md5", "des3")


class Case:
    """Packets of family `inner` between one pair of addresses, protected in packets of family `outer`."""

    def __init__(self, name, algorithm=None, protocol="esp", mode="tunnel", outer=4, inner=4, **more):
        self.name, self.algorithm, self.protocol, self.mode = name, algorithm, protocol, mode
        self.outer, self.inner, self.more = outer, inner, more
        self.number = 0

    def place(self, number):
        """Gives it its numbers and addresses."""
        self.number = number
        self.spi_out, self.spi_in = 0x1000 + number, 0x2000 + number  # seen from the gateway
        self.ours, self.guests = OUTER[self.outer]
        if self.mode == "transport":
            self.guests = f"203.0.113.{100 + number}" if self.outer == 4 else f"2001:db8:c::1:{number:x}"
            self.host, self.far = self.ours, self.guests
        else:
            self.host, self.far = (
                f"{net[:-4]}{10 + number}" if self.inner == 4 else f"{net[:-3]}1:{number:x}" for net in NETS[self.inner])
        return self

    @property
    def esn(self):
        """The high half of the numbers before the first packet; None for 32-bit numbers."""
        return self.more.get("esn")

    @property
    def outermost(self):
        """The protocol that is on the wire."""
        return "esp" if self.algorithm and self.protocol == "ipcomp" else self.protocol

    @property
    def protections(self):
        """The protocols that its packets may have on the wire. What IPComp left as it is is a packet in another."""
        if self.more.get("natt"):
            return {17}
        if self.outermost == "ipcomp" and not self.more.get("big"):
            return {108, 4 if self.inner == 4 else 41}
        return {{"esp": 50, "ah": 51, "ipcomp": 108}[self.outermost]}

    def packets(self, count):
        """Packets on each SA when so many echoes are asked for both ways: requests one way, answers the other."""
        return {way: 2 * count * pieces for way, pieces in zip(("out", "in"), self.pieces)}

    @property
    def pieces(self):
        """Packets that an echo is on its way through the SAs, out and in. A host behind the gateway cuts what is too long itself; so
        does the guest over IPv6, while over IPv4, and in transport mode, an end cuts what it has sealed."""
        return self.more.get("pieces", (1, 1))

    @property
    def sizes(self):
        """Octets of echo data, out and in."""
        if "sizes" in self.more:
            return self.more["sizes"]
        if self.protocol == "ipcomp":
            return (900, 900) if self.more.get("big") else (20, 20)
        return (56, 1200)

    def key(self, way):
        """Keys of one SA, by what they are for."""
        return lambda use, length: "0x" + hashlib.shake_128(f"{self.name} {way} {use}".encode()).hexdigest(length)

    def sas(self):
        """Source, destination, SPI, way."""
        return [(self.ours, self.guests, self.spi_out, "out"), (self.guests, self.ours, self.spi_in, "in")]

    def pair(self, way):
        """Source and destination of the packets inside."""
        return (self.host, self.far) if way == "out" else (self.far, self.host)

    def upper(self):
        """Upper layers, as (setkey, iproute2): echoes alone where neighbours must still be found in clear."""
        if self.mode == "transport" and self.inner == 6:
            return [("icmp6 128,0", "proto ipv6-icmp type 128 code 0"), ("icmp6 129,0", "proto ipv6-icmp type 129 code 0")]
        return [("any", "")]

    def setkey_lines(self):
        """For ipsec.conf of the gateway."""
        bits, u, lines = LENGTH[self.inner][0], self.number, []
        first = (self.esn or 0) << 32 | self.more.get("before", 0)
        for src, dst, spi, way in self.sas():
            common = f"-u {u} -r {8 if self.esn is not None else 4}"
            if self.esn is not None:
                common += f" -esn -seq {first}"
            if "words" in self.more:
                common += f" {self.more['words']}"
            if self.protocol == "ipcomp":
                lines.append(f"add {src} {dst} ipcomp {spi:#x} -m tunnel -u {u} -C deflate;")
                if self.algorithm:
                    words, _ = self.algorithm(self.key(way))
                    lines.append(f"add {src} {dst} esp {spi:#x} -m transport {common} {words};")
            else:
                words, _ = self.algorithm(self.key(way))
                ends, protocol = (src, dst), self.protocol
                if self.more.get("natt"):
                    ends, protocol = (f"{src}[4500]", f"{dst}[4500]"), "esp-udp"
                inner = "-inner {} {}".format(*self.pair(way)) if self.mode == "beet" else ""
                lines.append(f"add {ends[0]} {ends[1]} {protocol} {spi:#x} -m {self.mode} {inner} {common} {words};")
        here, there = f"{self.host}/{bits}", f"{self.far}/{bits}"
        for upper, _ in self.upper():
            for (src, dst), (a, b), way in (((here, there), (self.ours, self.guests), "out"), ((there, here), (self.guests, self.ours), "in")):
                lines.append(f"spdadd {src} {dst} {upper} -P {way} ipsec {self.requests(a, b, way)};")
        return lines

    def requests(self, src, dst, way):
        """What a policy asks for."""
        u = self.number
        if self.protocol == "ipcomp":
            # A packet too small to gain comes as it is (RFC 3173, 2.2).
            comp = f"ipcomp/tunnel/{src}-{dst}/{'use' if way == 'in' else f'unique:{u}'}"
            return comp + (f" esp/transport//unique:{u}" if self.algorithm else "")
        ends = f"{src}-{dst}" if self.mode != "transport" else ""
        return f"{self.protocol}/{self.mode}/{ends}/unique:{u}"

    def xfrm_lines(self, gateway):
        """For `ip -batch` in a guest: the gateway's side or the other."""
        bits, u, lines = LENGTH[self.inner][0], self.number, []
        flags = ["esn"] * (self.esn is not None) + ["af-unspec"] * (self.outer != self.inner and self.mode != "beet")
        flags += ["align4"] * (self.protocol == "ah" and self.outer == 4 and not self.more.get("old"))
        flag = f"flag {' '.join(flags)}" if flags else ""
        window = "replay-window 32"
        if self.esn is not None:
            hi, before = self.esn, self.more.get("before", 0)
            window = f"replay-window 64 replay-seq-hi {hi} replay-oseq-hi {hi} replay-seq {before} replay-oseq {before}"
        encap = "encap espinudp 4500 4500 0.0.0.0" if self.more.get("natt") else ""
        for src, dst, spi, way in self.sas():
            head = f"xfrm state add src {src} dst {dst} proto"
            if self.protocol == "ipcomp":
                lines.append(f"{head} comp spi {spi:#x} reqid {u} mode tunnel comp deflate")
                if self.algorithm:
                    _, words = self.algorithm(self.key(way))
                    lines.append(f"{head} esp spi {spi:#x} reqid {u} mode transport {window} {words}")
            else:
                _, words = self.algorithm(self.key(way))
                sel = "sel src {} dst {}".format(*(f"{host}/{bits}" for host in self.pair(way))) if self.mode == "beet" else ""
                lines.append(f"{head} {self.protocol} spi {spi:#x} reqid {u} mode {self.mode} {flag} {window} {words} {encap} {sel}")
        here, there = f"{self.host}/{bits}", f"{self.far}/{bits}"
        ways = [("out" if gateway else "in", here, there, self.ours, self.guests), ("in" if gateway else "out", there, here, self.guests, self.ours)]
        if gateway:
            ways.append(("fwd", there, here, self.guests, self.ours))
        for _, upper in self.upper():
            for way, src, dst, a, b in ways:
                lines.append(f"xfrm policy add src {src} dst {dst} {upper} dir {way} {self.templates(a, b, way)}")
        return lines

    def templates(self, src, dst, way):
        """What a policy of the guest asks for."""
        u = self.number
        if self.protocol == "ipcomp":
            comp = f"tmpl src {src} dst {dst} proto comp reqid {u} mode tunnel{'' if way == 'out' else ' level use'}"
            return comp + (f" tmpl src {src} dst {dst} proto esp reqid {u} mode transport" if self.algorithm else "")
        return f"tmpl src {src} dst {dst} proto {self.protocol} reqid {u} mode {self.mode}"


def all_cases():
    """All of them."""
    a, cases = ALGORITHMS, []

    def case(name, algorithm=None, **more):
        cases.append(Case(name, algorithm, **more))

    for name, algorithm in a.items():
        case(f"esp4in4_{name}", algorithm)
    for name in ("gcm128", "gcm256", "chacha20poly1305", "cbc128_sha256", "ctr128_sha256", "gmac"):
        case(f"esp6in6_{name}", a[name], outer=6, inner=6)
    for name in ("gcm128", "cbc128_sha256"):
        case(f"esp4in6_{name}", a[name], outer=6)
        case(f"esp6in4_{name}", a[name], inner=6)
    for name in ("gcm128", "cbc128_sha256"):
        case(f"esp_transport4_{name}", a[name], mode="transport")
        case(f"esp_transport6_{name}", a[name], mode="transport", outer=6, inner=6)
    for name in ("gcm128", "gcm256", "chacha20poly1305", "cbc128_sha256", "ccm128_icv16", "null_sha256", "gmac"):
        case(f"esp4in4_{name}_esn", a[name], esn=0)
        case(f"esp4in4_{name}_esn_hi5", a[name], esn=5)
    wrap = {"esn": 0, "before": 0xfffffff0}
    case("esp6in6_gcm128_esn_wrap", a["gcm128"], outer=6, inner=6, **wrap)
    case("esp4in4_gcm128_esn_wrap", a["gcm128"], **wrap)
    for name in ("gcm128", "cbc128_sha256"):
        case(f"esp4in4_natt_{name}", a[name], natt=True)
    case("esp6in4_natt_gcm128", a["gcm128"], inner=6, natt=True)
    case("esp4in6_natt_gcm128", a["gcm128"], outer=6, natt=True)
    case("esp6in6_natt_gcm128", a["gcm128"], outer=6, inner=6, natt=True)
    large = {"sizes": (3000, 3000)}
    case("esp4in4_gcm128_fragments", a["gcm128"], pieces=(3, 1), **large)
    case("esp6in6_gcm128_fragments", a["gcm128"], outer=6, inner=6, pieces=(3, 3), **large)
    case("esp_transport4_gcm128_fragments", a["gcm128"], mode="transport", **large)
    case("esp_transport6_gcm128_fragments", a["gcm128"], mode="transport", outer=6, inner=6, **large)
    # The guest fills nothing up: iproute2 has no word for the kernel's tfcpad.
    case("esp4in4_gcm128_tfc", a["gcm128"], words="-tfc 200", tfc=200, sizes=(56, 120))
    for name in ("gcm128", "cbc128_sha256"):
        case(f"esp_beet4_{name}", a[name], mode="beet")
        case(f"esp_beet6_{name}", a[name], mode="beet", outer=6, inner=6)
        case(f"esp_beet4in6_{name}", a[name], mode="beet", outer=6)
        case(f"esp_beet6in4_{name}", a[name], mode="beet", inner=6)
    for name in ("sha256", "sha1", "sha512", "cmac", "xcbc"):
        case(f"ah4in4_{name}", hashed(name), protocol="ah")
    for name, outer, inner in (("ah6in6", 6, 6), ("ah4in6", 6, 4), ("ah6in4", 4, 6)):
        case(f"{name}_sha256", hashed("sha256"), protocol="ah", outer=outer, inner=inner)
    case("ah_transport4_sha256", hashed("sha256"), protocol="ah", mode="transport")
    case("ah_transport6_sha256", hashed("sha256"), protocol="ah", mode="transport", outer=6, inner=6)
    case("ah4in4_sha256_esn", hashed("sha256"), protocol="ah", esn=0)
    case("ah4in4_sha256_esn_hi5", hashed("sha256"), protocol="ah", esn=5)
    # A Linux that is not told otherwise fills AH up to eight octets over IPv4, too.
    case("ah4in4_sha256_align8", hashed("sha256"), protocol="ah", words="-f align8", old=True)
    case("ipcomp4in4_deflate", protocol="ipcomp", big=True)
    case("ipcomp6in6_deflate", protocol="ipcomp", outer=6, inner=6, big=True)
    case("ipcomp4in4_small_uncompressed", protocol="ipcomp")
    case("ipcomp_tunnel+esp_transport4_gcm128", a["gcm128"], protocol="ipcomp", big=True)
    case("ipcomp_tunnel+esp_transport6_gcm128", a["gcm128"], protocol="ipcomp", outer=6, inner=6, big=True)
    return [case.place(number) for number, case in enumerate(cases, 1)]
