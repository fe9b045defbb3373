"""A Linux kernel of our own as a peer: user-mode-linux, an ordinary process.

The kernel of the machine may have no XFRM, and must not be configured by a test anyway. The guest's kernel and modules
come from Debian's package `user-mode-linux`, unpacked into the cache; its programs are the machine's own, seen through
hostfs, read-only. Its network cards are TAP devices of a namespace. It is told over its serial
line which script to run next.

Not here: speed. The guest shows that bytes are right.
"""

import ctypes
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "softnet" / "guest"


class Failed(Exception):
    """Something the rig needs did not work."""


def sh(*command, check=True, timeout=60):
    """Runs a program and returns what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise Failed(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def die_with_parent():
    """In a child, before exec: no child outlives the rig, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def build():
    """Fetches kernel and modules into the cache, once. Returns (kernel, what loads modules)."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (CACHE / "complete").exists():
            sh("sh", "-c", f"cd '{CACHE}' && rm -rf root *.deb && apt-get -qq -o DPkg::Lock::Timeout=300 update"
               " && apt-get -qq download user-mode-linux && dpkg-deb -x user-mode-linux_*.deb root && rm -f *.deb"
               " && mkdir -p root/lib && mv root/usr/lib/uml/modules root/lib/", timeout=600)
            for version in os.listdir(CACHE / "root/lib/modules"):
                sh("depmod", "-b", str(CACHE / "root"), version)
            # What the guest's kernel calls when it misses a module.
            loader = CACHE / "modprobe"
            loader.write_text(f"#!/bin/sh\nexec /sbin/modprobe -d '{CACHE}/root' \"$@\"\n", encoding="ascii")
            loader.chmod(0o755)
            (CACHE / "complete").touch()
        sh("gcc", "-shared", "-fPIC", "-O2", "-o", str(CACHE / "registers.so"), str(HERE / "registers.c"), "-ldl")
    return CACHE / "root/usr/bin/linux.uml", CACHE / "modprobe"


class Guest:
    """A running guest: `cards` are TAP devices of namespace `netns`, made here; in the guest vec0, vec1 ...

    Its log and its scripts go into `folder`.
    """

    def __init__(self, name, netns, cards, folder):
        self.name, self.scripts, self.folder = name, 0, folder
        kernel, loader = build()
        cmdline = ["mem=192M", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={HERE}/guest-init",
                   f"loader={loader}", "quiet", "con=null", "con0=null,fd:1", "ssl=null", f"umid=softnet-{name}-{os.getpid()}"]
        for i, card in enumerate(cards):
            sh("ip", "-n", netns, "tuntap", "add", "dev", card, "mode", "tap")
            # The guest's driver drops super-frames.
            sh("ip", "netns", "exec", netns, "ethtool", "-K", card, "tso", "off", "gso", "off", check=False)
            sh("ip", "-n", netns, "link", "set", card, "up")
            mac = f"52:54:00:{sum(name.encode()) % 256:02x}:00:{i + 1:02x}"
            cmdline.append(f"vec{i}:transport=tap,ifname={card},depth=128,mac={mac}")
        self.line, theirs = socket.socketpair()
        with open(folder / f"{name}.log", "wb") as log:
            # In a process namespace of its own: the guest's many processes end with its first.
            self.process = subprocess.Popen(
                ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "ip", "netns", "exec", netns, str(kernel),
                 *cmdline, f"ssl0=fd:{theirs.fileno()}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[theirs.fileno()], preexec_fn=die_with_parent,
                env={**os.environ, "LD_PRELOAD": str(CACHE / "registers.so")})
        theirs.close()
        try:
            self._read_until(rb"__READY__\r?\n", 60)
        except Failed as failed:
            self.stop()
            told = (folder / f"{name}.log").read_text(errors="replace")[-500:]
            raise Failed(f"guest {name} did not boot: {told}") from failed

    def _read_until(self, pattern, timeout):
        seen, deadline = b"", time.monotonic() + timeout
        while not (match := re.search(pattern, seen)):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.line], [], [], left)[0]:
                raise Failed(f"guest {self.name}: no answer in {timeout} s, only {seen[-200:]!r}")
            if not (data := self.line.recv(65536)):
                raise Failed(f"guest {self.name} ended")
            seen += data
        return seen[:match.start()].decode(errors="replace"), match

    def run(self, script, check=True, timeout=60):
        """Runs a shell script in the guest and returns what it printed."""
        # A new file each time: the guest keeps what it has read.
        self.scripts += 1
        path = self.folder / f"{self.name}-{self.scripts}"
        path.write_text(script, encoding="utf-8")
        self.line.sendall(f"{path}\n".encode())
        out, match = self._read_until(rb"\n?__END__ (\d+)\r?\n", timeout)
        if check and int(match.group(1)):
            raise Failed(f"guest {self.name}, status {match.group(1).decode()}: {out.strip()[-300:]}")
        return out

    def stop(self):
        """Ends the guest and every process in it."""
        # The namespace's first process, so that `unshare` is still there to reap it.
        for first in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii").split():
            os.kill(int(first), signal.SIGKILL)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.line.close()
