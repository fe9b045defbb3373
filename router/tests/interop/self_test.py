"""What the rig itself would miss if it were wrong: what counts as protected, and what is tried again. `run` runs it first."""

import contextlib
import io
import unittest

from cases import all_cases
from esp import Report, expected, miscounted
from wire import ipsec_at, is_by

CASES = {t.name: t for t in all_cases()}


def frame(family, proto, rest, offset=0):
    """A frame whose headers say no more than that."""
    if family == 4:
        return bytes(12) + b"\x08\x00" + bytes([0x45]) + bytes(5) + offset.to_bytes(2, "big") + bytes([64, proto]) + bytes(10) + rest
    return bytes(12) + b"\x86\xdd" + b"\x60" + bytes(5) + bytes([proto, 64]) + bytes(32) + rest


def esp(spi):
    return spi.to_bytes(4, "big") + bytes(60)


NATT = b"\x11\x94\x11\x94\0\x48\0\0"


class Protected(unittest.TestCase):
    def taken(self, name, frame, end=0):
        t = CASES[name]
        return is_by(frame, t.protections, (t.spi_out, t.spi_in)[end])

    def test_only_the_protocol_of_the_case_protects(self):
        t = CASES["esp4in4_gcm128"]
        self.assertTrue(self.taken(t.name, frame(4, 50, esp(t.spi_out))))
        for proto in (1, 4, 41, 51, 108):
            self.assertFalse(self.taken(t.name, frame(4, proto, esp(t.spi_out))), proto)
        self.assertFalse(self.taken(t.name, frame(4, 17, NATT + esp(t.spi_out))))
        for name in ("ipcomp4in4_deflate", "ipcomp_tunnel+esp_transport4_gcm128", "ah4in4_sha256"):
            self.assertFalse(self.taken(name, frame(4, 4, bytes(60))), name)

    def test_what_ipcomp_leaves_alone_is_a_packet_in_a_packet(self):
        self.assertTrue(self.taken("ipcomp4in4_small_uncompressed", frame(4, 4, bytes(60))))
        self.assertFalse(self.taken("ipcomp4in4_small_uncompressed", frame(4, 41, bytes(60))))

    def test_a_case_in_udp_is_in_udp(self):
        for name, family in (("esp4in4_natt_gcm128", 4), ("esp4in6_natt_gcm128", 6)):
            t = CASES[name]
            self.assertTrue(self.taken(name, frame(family, 17, NATT + esp(t.spi_out))))
            self.assertFalse(self.taken(name, frame(family, 50, esp(t.spi_out))))
            self.assertFalse(self.taken(name, frame(family, 17, b"\x11\x94\x01\xf4\0\x48\0\0" + esp(t.spi_out))))

    def test_another_case_s_sa_protects_nothing(self):
        t = CASES["esp4in4_gcm128"]
        self.assertFalse(self.taken(t.name, frame(4, 50, esp(t.spi_out)), end=1))
        self.assertTrue(self.taken(t.name, frame(4, 50, esp(t.spi_in)), end=1))
        ah = CASES["ah4in4_sha256"]
        self.assertTrue(self.taken(ah.name, frame(4, 51, bytes(4) + esp(ah.spi_out))))
        self.assertFalse(self.taken(ah.name, frame(4, 51, bytes(4) + esp(ah.spi_in))))

    def test_of_fragments_the_first_tells_the_sa(self):
        t = CASES["esp6in6_gcm128_fragments"]
        later = frame(6, 44, bytes([50, 0]) + (180 << 3).to_bytes(2, "big") + bytes(60))
        first = frame(6, 44, bytes([50, 0, 0, 1]) + bytes(4) + esp(t.spi_in))
        self.assertTrue(self.taken(t.name, later))
        self.assertFalse(self.taken(t.name, first))
        self.assertTrue(self.taken(t.name, first, end=1))
        self.assertIsNone(ipsec_at(frame(6, 44, bytes([58, 0]) + bytes(62)), t.protections))


class SecondTry(unittest.TestCase):
    def told(self, *runs):
        """How often a case is run that gives this, and whether it passes."""
        left, report = list(runs), Report()
        with contextlib.redirect_stdout(io.StringIO()) as out:
            report.case("case", lambda: left.pop(0))
        return len(runs) - len(left), report.failed == 0, "second try" in out.getvalue()

    def test_only_a_lost_ping_is_tried_again_once(self):
        good, lost, wrong = ([], []), (["out: 1 of 100 lost"], []), ([], ["guest counted {'XfrmInError': 1}"])
        self.assertEqual(self.told(good), (1, True, False))
        self.assertEqual(self.told(lost, good), (2, True, True))
        self.assertEqual(self.told(lost, lost, good), (2, False, True))
        self.assertEqual(self.told(wrong, good), (1, False, False))
        self.assertEqual(self.told((lost[0], wrong[1]), good), (1, False, False))

    def test_counters_are_exact_but_for_what_was_lost(self):
        t = CASES["esp4in4_gcm128"]
        wanted = expected(t, "gateway")
        less = {key: n - 1 for key, n in wanted.items()}
        more = {key: n + 1 for key, n in wanted.items()}
        self.assertEqual(miscounted("gateway", wanted, wanted, 0), [])
        self.assertEqual(miscounted("gateway", less, wanted, 1), [])
        for passed, missing in ((less, 0), (more, 0), (more, 1), ({}, 0), ({}, 1000)):
            self.assertNotEqual(miscounted("gateway", passed, wanted, missing), [])


if __name__ == "__main__":
    unittest.main()
