"""A cable between two network devices of one namespace, with somebody listening.

Frames that come out of one device go into the other. Each is kept for a while, the cable can be held (frames are kept
and not passed on), and a frame can be put in at either end. (A Linux bridge would do for the first; not every kernel
has one.)
"""

import collections
import ctypes
import os
import select
import socket
import struct
import threading

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_ADD_MEMBERSHIP, PACKET_VNET_HDR = 263, 1, 15
# struct virtio_net_hdr: of a super-frame how to cut it, and what checksum is missing. All zero: a plain frame.
OFFLOAD = 10
# Source and destination of ESP in UDP, and of keepalives.
NATT_PORTS = b"\x11\x94\x11\x94"
UDP, FRAGMENT = 17, 44
# Where the SPI is, behind a header of UDP, in ESP, AH and IPComp (there the CPI).
SPI = {17: slice(0, 4), 50: slice(0, 4), 51: slice(4, 8), 108: slice(2, 4)}


def in_netns(name, make):
    """Calls `make` on a thread that is in that namespace; a socket made there stays there."""
    result = []

    def enter():
        fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(fd, 0x40000000):  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(fd)
        result.append(make())

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    return result[0]


def open_device(device):
    """A raw socket on a device that sees every frame, and sends."""
    port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    port.bind((device, 0))
    promiscuous = struct.pack("iHH8s", socket.if_nametoindex(device), 1, 0, b"")
    port.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, promiscuous)
    port.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    return port


class Wire:
    """The cable: end 0 is `devices[0]`, end 1 is `devices[1]`."""

    def __init__(self, netns, devices):
        self.ports = in_netns(netns, lambda: [open_device(d) for d in devices])
        # By end: what came out of that device.
        self.seen = [collections.deque(maxlen=4096), collections.deque(maxlen=4096)]
        self.held = [False, False]
        self.lock = threading.Lock()
        self.lost = 0
        self.running = True
        self.thread = threading.Thread(target=self._carry, daemon=True)
        self.thread.start()

    def _carry(self):
        while self.running:
            for port in select.select(self.ports, [], [], 0.1)[0]:
                end = self.ports.index(port)
                whole, address = port.recvfrom(70000)
                offload, frame = whole[:OFFLOAD], whole[OFFLOAD:]
                if address[2] != PACKET_OUTGOING:
                    with self.lock:
                        self.seen[end].append(frame)
                    if not self.held[end]:
                        self.put(1 - end, frame, offload)

    def put(self, end, frame, offload=bytes(OFFLOAD)):
        """Puts a frame into the device at that end. Where that takes no super-frames, the kernel cuts them."""
        try:
            self.ports[end].send(offload + frame)
        except OSError:
            self.lost += 1

    def frames(self, end):
        """What came out of that device, oldest first."""
        with self.lock:
            return list(self.seen[end])

    def ipsec(self, end, t):
        """The frames of that which are protected as a case wants it."""
        return [f for f in self.frames(end) if ipsec_at(f, t.protections)]

    def strangers(self, end, t):
        """Those that are neither protected, by an SA of that case, nor what a link or a translator needs (ARP, neighbour
        discovery, multicast listeners, keepalives)."""
        spi = (t.spi_out, t.spi_in)[end]
        return [f for f in self.frames(end) if not (is_by(f, t.protections, spi) or f[12:14] == b"\x08\x06"
                                                    or is_link_icmp6(f) or is_keepalive(f))]

    def forget(self):
        """Forgets what was seen."""
        with self.lock:
            for frames in self.seen:
                frames.clear()

    def stop(self):
        """Unplugs."""
        self.running = False
        self.thread.join()
        for port in self.ports:
            port.close()


def upper(frame):
    """Protocol and place of what follows a frame's IP header, and where in its packet a fragment belongs."""
    if frame[12:14] == b"\x08\x00":
        return frame[23], 14 + (frame[14] & 15) * 4, struct.unpack("!H", frame[20:22])[0] & 0x1fff
    if frame[12:14] != b"\x86\xdd":
        return None, 0, 0
    if frame[20] == FRAGMENT:
        return frame[54], 62, struct.unpack("!H", frame[56:58])[0] >> 3
    return frame[20], 54, 0


def ipsec_at(frame, protections):
    """Where the header of a protocol that protects is; None if a frame has none of those. UDP is one from port 4500 to port
    4500. Of a fragment, all but the first have none, and count as what they are a part of."""
    proto, at, offset = upper(frame)
    if proto not in protections:
        return None
    if proto != UDP or offset:
        return at
    return at + 8 if frame[at:at + 4] == NATT_PORTS and not is_keepalive(frame) else None


def is_by(frame, protections, spi):
    """Whether a frame is protected so, and by that SA where it can be seen."""
    at = ipsec_at(frame, protections)
    if at is None:
        return False
    proto, _, offset = upper(frame)
    place = SPI.get(proto)
    return offset > 0 or place is None or int.from_bytes(frame[at:][place], "big") == spi


def is_keepalive(frame):
    """One octet of ones from one port 4500 to the other (RFC 3948, 2.3)."""
    at = 34 if frame[12:14] == b"\x08\x00" else 54
    return frame[at:at + 6] == NATT_PORTS + b"\0\x09" and frame[at + 8:at + 9] == b"\xff"


def is_link_icmp6(frame):
    """Neighbour and router discovery (133 to 137) and multicast listeners (behind a hop-by-hop header)."""
    if frame[12:14] != b"\x86\xdd":
        return False
    return frame[20] == 0 or (frame[20] == 58 and 130 <= frame[54] <= 143)
