"""Machines that are network namespaces, and the cables between them. Root only. A namespace has no name and its interfaces are
its own: all is gone with the last process in it, however that ended."""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import random
import struct
import subprocess
import sys
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
WIRE = pathlib.Path(__file__).resolve().parent / "wire.py"


def unusable():
    """Why this cannot be used here, or None."""
    return None if os.geteuid() == 0 else "network namespaces with cables between them need root"


def _die_with_parent():
    LIBC.prctl(1, 9)


def _check(result, what):
    if result < 0:
        raise OSError(ctypes.get_errno(), what)


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"


def leave_host_network():
    """This process, alone so far, into a network namespace of its own."""
    _check(LIBC.unshare(CLONE_NEWNET), "unshare")
    run("ip", "link", "set", "lo", "up")


def some_net():
    """10.x.y: its first part, chosen by chance."""
    return f"10.{random.SystemRandom().randrange(64, 250)}.{random.SystemRandom().randrange(1, 250)}"


class Machine:
    """A network namespace. `prefix` begins a command that is to run in it (the process stays the same: its id is the
    command's)."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"], stdin=subprocess.DEVNULL,
                                       preexec_fn=_die_with_parent)
        self.path = f"/proc/{self.holder.pid}/ns/net"
        ours, end = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
        while os.readlink(self.path) == ours:
            assert time.monotonic() < end and self.holder.poll() is None, "unshare -n does not work"
            time.sleep(0.005)
        self.prefix = ["nsenter", f"--net={self.path}", "--"]
        self.run("ip", "link", "set", "lo", "up")

    def run(self, *words):
        run(*self.prefix, *words)

    @contextlib.contextmanager
    def inside(self):
        """The calling thread is in there meanwhile."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        there = os.open(self.path, os.O_RDONLY)
        try:
            _check(LIBC.setns(there, CLONE_NEWNET), "setns")
            yield
        finally:
            _check(LIBC.setns(home, CLONE_NEWNET), "setns")
            os.close(home)
            os.close(there)

    def remove(self):
        self.holder.kill()
        self.holder.wait()


def veth(machine):
    """A plain cable from here to the machine: (our address, its address)."""
    net, name = some_net(), f"mu{random.SystemRandom().randrange(1 << 32):08x}"
    # At once in the other namespace: what is left behind there goes away with it, and ours with its peer.
    run("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "up0", "netns", str(machine.holder.pid))
    run("ip", "addr", "add", f"{net}.1/30", "dev", name)
    run("ip", "link", "set", name, "up")
    machine.run("ip", "addr", "add", f"{net}.2/30", "dev", "up0")
    machine.run("ip", "link", "set", "up0", "up")
    return f"{net}.1", f"{net}.2"


def _tun(name):
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


class Cables:
    """Cables from this process's network namespace to machines, through a program that delays, duplicates, reorders and drops
    packets (wire.py): kernels without netem have nothing like it."""

    def __init__(self, machines):
        self.machines, net = machines, some_net()
        self.address = f"{net}.1"
        run("ip", "addr", "add", f"{self.address}/32", "dev", "lo")
        fds = []
        for i, m in enumerate(machines):
            m.address = f"{net}.{i + 2}"
            here = _tun(f"cable{i}")
            run("ip", "link", "set", f"cable{i}", "up", "mtu", "1400")
            run("ip", "route", "add", f"{m.address}/32", "dev", f"cable{i}", "src", self.address)
            with m.inside():
                there = _tun("up0")
                run("ip", "link", "set", "up0", "up", "mtu", "1400")
                run("ip", "addr", "add", f"{m.address}/32", "dev", "up0")
            self._route(m)
            fds.append((here, there))
        flat = [fd for pair in fds for fd in pair]
        self.process = subprocess.Popen([sys.executable, str(WIRE), *(f"{a}:{b}" for a, b in fds)], pass_fds=flat,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_die_with_parent)
        for fd in flat:
            os.close(fd)
        self.lock = threading.Lock()

    def _route(self, machine):
        machine.run("ip", "route", "add", f"{self.address}/32", "dev", "up0", "src", machine.address)

    def set(self, number, **how):
        """cut (bool), delay_ms, jitter_ms, duplicate and reorder (shares of 1)."""
        with self.lock:
            self.process.stdin.write(json.dumps({"link": number, **how}) + "\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

    def unplug(self, number):
        """The machine's own interface goes down: it knows at once that there is no way out."""
        self.machines[number].run("ip", "link", "set", "up0", "down")

    def plug(self, number):
        self.machines[number].run("ip", "link", "set", "up0", "up")
        self._route(self.machines[number])

    def remove(self):
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
