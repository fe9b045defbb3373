"""scapy as an oracle: seals and opens packets that a test sends, one request a line.

    op protocol outer ports crypt crypt-key auth auth-key icv esn seq packet

Keys and packets are hexadecimal, "-" stands for none. `outer` is a tunnel's IP header with its options or extension headers,
`ports` are those of ESP in UDP (`4500:4501`), esn is 0 or 1 and seq all 64 bits. The answer is the packet as
it is on the wire ("seal") or inside ("open"), or "error" and why.
"""
import copy
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import AH, ESP, SecurityAssociation



class ShortGcm:
    """GCM with a tag that is cut, which scapy has not."""

    def __init__(self, key, length):
        self.key, self.length = key, length

    def encrypt(self, nonce, data, aad):
        seal = Cipher(algorithms.AES(self.key), modes.GCM(nonce)).encryptor()
        seal.authenticate_additional_data(aad)
        sealed = seal.update(data) + seal.finalize()
        return sealed + seal.tag[: self.length]

    def decrypt(self, nonce, data, aad):
        body, tag = data[: -self.length], data[-self.length :]
        opener = Cipher(algorithms.AES(self.key), modes.GCM(nonce, tag, min_tag_length=self.length)).decryptor()
        opener.authenticate_additional_data(aad)
        return opener.update(body) + opener.finalize()


def family(packet):
    return IPv6 if packet[0] >> 4 == 6 else IP


def answer(words):
    op, protocol, outer, ports, crypt, crypt_key, auth, auth_key, icv, esn, seq, packet = words
    unhex = lambda text: b"" if text == "-" else bytes.fromhex(text)
    seq, packet, icv = int(seq), unhex(packet), int(icv)
    outer = family(unhex(outer))(unhex(outer)) if outer != "-" else None
    kind = ESP if protocol == "esp" else AH
    options = {}
    if ports != "-":
        sport, dport = map(int, ports.split(":"))
        options["nat_t_header"] = UDP(sport=sport, dport=dport)
    if protocol == "esp":
        options.update(crypt_algo=crypt, crypt_key=unhex(crypt_key) or None)
    if crypt == "AES-CCM":
        options["crypt_icv_size"] = icv
    if auth != "-":
        options.update(auth_algo=auth, auth_key=unhex(auth_key))
    sa = SecurityAssociation(
        kind, spi=0x1000, seq_num=seq & 0xFFFFFFFF, tunnel_header=outer, esn_en=esn == "1", esn=seq >> 32, **options
    )
    if crypt == "AES-GCM" and icv != 16:
        sa.crypt_algo = copy.copy(sa.crypt_algo)
        sa.crypt_algo.cipher = lambda key: ShortGcm(key, icv)
        sa.crypt_icv_size = icv
    numbers = dict(esn_en=esn == "1", esn=seq >> 32)
    if op == "seal":
        return bytes(sa.encrypt(family(packet)(packet), seq_num=seq & 0xFFFFFFFF, **numbers))
    return bytes(sa.decrypt(family(packet)(packet), verify=True, **numbers))


for line in sys.stdin:
    try:
        print(answer(line.split()).hex(), flush=True)
    except Exception as error:
        print("error", type(error).__name__, str(error).replace("\n", " "), flush=True)
