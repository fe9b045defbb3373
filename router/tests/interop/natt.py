"""Opens UDP port 4500 for ESP in UDP (RFC 3948), for v4 and v6, and holds it as long as the machine runs."""

import os
import socket
import sys
import time

UDP_ENCAP, ESPINUDP = 100, 2
ports = []
for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    port = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        port.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    port.setsockopt(socket.IPPROTO_UDP, UDP_ENCAP, ESPINUDP)
    port.bind((address, 4500))
    ports.append(port)
if os.fork():
    sys.exit()
os.setsid()
null = os.open("/dev/null", os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
while True:
    time.sleep(3600)
