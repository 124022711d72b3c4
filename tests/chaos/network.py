"""A network of our own: each host in a namespace, on one switch, cut between any two, each way.

A cut is made where the packets leave: the host's table of neighbours, which is fixed from the
beginning, gets an address for the other one that nobody has. So packets are lost without a word, as
they are when a cable breaks; a connection stays as it is, and nobody is refused. All of it is
``ip``, and needs root.

The names of the namespaces have our process's id; a namespace takes all that is in it along when it
goes, so nothing else has to be cleaned up. What a run that was killed has left goes when the next
one begins.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.chaos.schedule import CLIENTS, Pair

_PREFIX = "kvtwist-chaos"
_NAMESPACES = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_SUBNET = "10.77.77"
_NOBODY = "02:77:77:77:ff:ff"


class NotPermittedError(Exception):
    """This machine lets us make no namespaces; the reason, in one line."""


class Network:
    """Hosts, numbered from 0 on, on one switch.

    :ivar cuts: what is cut.
    :raises NotPermittedError: when it cannot be made; nothing is left of it then.
    """

    def __init__(self, hosts: int) -> None:
        self._hosts = range(hosts)
        self.cuts: frozenset[Pair] = frozenset()
        _sweep()
        try:
            self._build()
        except (OSError, subprocess.SubprocessError) as error:
            self.close()
            said = getattr(error, "stderr", None) or str(error)
            raise NotPermittedError(" ".join(said.split())) from error

    def address(self, host: int) -> str:
        """Where *host* is reached."""
        return f"{_SUBNET}.{host + 1}"

    def prefix(self, host: int) -> tuple[str, ...]:
        """What runs a command on *host*; the process is the command's own."""
        return ("ip", "netns", "exec", self._name(host))

    def enter(self) -> None:
        """This thread, and every thread and process that it starts, is now on the clients' host."""
        with (_NAMESPACES / self._name(CLIENTS)).open("rb") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot enter a network namespace")

    def cut(self, pairs: Iterable[Pair]) -> None:
        """From now on exactly these pairs are cut; none: all is whole."""
        wanted = frozenset(pairs)
        for host in self._hosts:
            lines = [
                self._neighbour(other, _NOBODY if (host, other) in wanted else _hardware(other))
                for other in self._hosts
                if ((host, other) in wanted) != ((host, other) in self.cuts)
            ]
            if lines:
                _run("-n", self._name(host), "-batch", "-", lines=lines)
        self.cuts = wanted

    def close(self) -> None:
        """Remove it, and all that is in it."""
        for name in [self._name(host) for host in self._hosts] + [self._name("switch")]:
            if (_NAMESPACES / name).exists():
                subprocess.run(("ip", "netns", "del", name), check=False, capture_output=True)

    def _build(self) -> None:
        switch = self._name("switch")
        _run("netns", "add", switch)
        _run("-n", switch, "link", "add", "switch", "type", "bridge")
        _run("-n", switch, "link", "set", "switch", "up")
        for host in self._hosts:
            self._build_host(host, switch)

    def _build_host(self, host: int, switch: str) -> None:
        name, port = self._name(host), f"port{host}"
        _run("netns", "add", name)
        lines = [
            "link set lo up",
            f"link add eth0 address {_hardware(host)} type veth peer name {port} netns {switch}",
            f"address add {self.address(host)}/24 dev eth0",
            "link set eth0 up",
        ]
        lines += [self._neighbour(each, _hardware(each)) for each in self._hosts if each != host]
        _run("-n", name, "-batch", "-", lines=lines)
        _run("-n", switch, "link", "set", port, "master", "switch", "up")

    def _neighbour(self, host: int, hardware: str) -> str:
        return f"neighbour replace {self.address(host)} lladdr {hardware} dev eth0 nud permanent"

    def _name(self, host: int | str) -> str:
        return f"{_PREFIX}-{os.getpid()}-{host}"


def _hardware(host: int) -> str:
    return f"02:77:77:77:00:{host + 1:02x}"


def _run(*arguments: str, lines: Iterable[str] = ()) -> None:
    subprocess.run(
        ("ip", *arguments),
        input="".join(f"{line}\n" for line in lines),
        check=True,
        capture_output=True,
        text=True,
        timeout=10,
    )


def _sweep() -> None:
    """Remove the namespaces of runs that were killed."""
    for path in _NAMESPACES.glob(f"{_PREFIX}-*-*"):
        pid = path.name.removeprefix(f"{_PREFIX}-").partition("-")[0]
        if not Path("/proc", pid).exists():
            subprocess.run(("ip", "netns", "del", path.name), check=False, capture_output=True)
