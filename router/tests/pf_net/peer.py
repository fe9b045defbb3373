"""A host whose SCTP is scapy's. It reads one order a line and answers each with one line.

    send EXPRESSION     the packet that this makes goes out as it is
    get SECONDS         the next SCTP packet that has come, or "nothing"
"""

import select
import socket
import sys

from scapy.all import IP, raw
from scapy.layers.sctp import *  # noqa: F403  (the expressions are made of it)

# As long as somebody listens to the protocol the kernel does not say that there is none.
heard = socket.socket(socket.AF_INET, socket.SOCK_RAW, 132)
out = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def told(octets):
    packet = IP(octets)
    sctp = packet[SCTP]
    # What scapy makes of the same fields has the sums that it thinks right.
    again = IP(octets)
    del again.chksum
    del again[SCTP].chksum
    sums = "right" if raw(again) == octets else "wrong"
    chunks, layer = [], sctp.payload
    while layer:
        chunks.append(type(layer).__name__.removeprefix("SCTPChunk"))
        layer = layer.payload
    ends = f"{packet.src}:{sctp.sport} {packet.dst}:{sctp.dport}"
    return f"{ends} tag {sctp.tag:x} {'+'.join(chunks)} sums {sums}"


print("ready", flush=True)
for line in sys.stdin:
    order, _, what = line.strip().partition(" ")
    if order == "send":
        packet = eval(what)
        out.sendto(raw(packet), (packet.dst, 0))
        answer = "sent"
    else:
        ready, _, _ = select.select([heard], [], [], float(what))
        answer = told(heard.recv(65536)) if ready else "nothing"
    print(answer, flush=True)
