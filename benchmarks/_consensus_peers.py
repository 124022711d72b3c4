"""Who is measured by `replicated.py`: three nodes each, every write on the disks of two of them.

A peer that can be used in several ways has a series of figures for each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from _nodes import Nodes
from _peers import (
    FILL_IN_FLIGHT,
    FILL_SECONDS_MAX,
    NODES,
    Missing,
    Peer,
    Start,
    build_go,
    keys_file,
    output_of,
    python_generator,
)
from _processes import Generator, PeerFailed, Process, Processes, cpu_seconds, free_ports
from _workload import KEYS, Cell, Sample

OURS = ("kvtwist",)
TITLES = {
    "kvtwist": "kvtwist",
    "etcd": "etcd",
    "etcd-leader": "etcd, leader",
    "pysyncobj": "PySyncObj",
    "pysyncobj-fast": "PySyncObj, fast",
    "pysyncobj-synced": "PySyncObj, sync",
}
"""Every series, as it is called in the table."""

FILLS_MAX = 3

_HERE = Path(__file__).resolve().parent
_GOCODE = Path("/usr/share/gocode")
"""Where Debian has the sources of Go libraries."""
_INSTALL_SECONDS_MAX = 60.0
_PYSYNCOBJ = "pysyncobj==0.3.17"


class ConsensusPeer:
    """A peer under load generators of ours, which also says what it takes of the processors.

    :param loads: for each series a generator, and what it adds to the name of an operation.
    :param servers: their processor time is counted as the servers', also if one is a generator.
    """

    def __init__(
        self, loads: Mapping[str, tuple[Generator, str]], servers: Sequence[Process]
    ) -> None:
        self.series = tuple(loads)
        self._loads = loads
        self._servers = servers

    def fill(self, value_bytes: int) -> None:
        """Put every key, all once more if that did not work for some: leaders may still change."""
        generator, _ = self._loads[self.series[0]]
        for _ in range(FILLS_MAX):
            sample = generator.measure("fill", value_bytes, FILL_IN_FLIGHT, FILL_SECONDS_MAX)
            if sample.operations == KEYS:
                return
        filled = f"{sample.operations} of {KEYS} keys were put"
        raise PeerFailed(f"{generator.name}: {filled}: {sample.error or 'too slow'}")

    def measure(self, series: str, cell: Cell, seconds: float) -> Sample:
        """One measurement."""
        generator, way = self._loads[series]
        clients = [each for each in (generator.process,) if each not in self._servers]
        before = cpu_seconds(self._servers), cpu_seconds(clients)
        load = (f"{cell.operation}{way}", cell.value_bytes, cell.in_flight)
        sample = generator.measure(*load, seconds)
        after = cpu_seconds(self._servers), cpu_seconds(clients)
        if not sample.operations:
            raise PeerFailed(f"{generator.name}: nothing was done: {sample.error or 'too slow'}")
        servers_us, client_us = (
            (late - early) * 1e6 / sample.operations
            for early, late in zip(before, after, strict=True)
        )
        return replace(sample, servers_cpu_us=servers_us, client_cpu_us=client_us)


def start_kvtwist(processes: Processes) -> Peer:
    """Three nodes with their data on disk, three replicas of each partition."""
    nodes = Nodes(processes, NODES, ("--replicas=3",))
    load = python_generator(processes, "kvtwist", nodes.ports)
    return ConsensusPeer({"kvtwist": (load, "")}, nodes.running)


def start_etcd(processes: Processes) -> Peer:
    """Three members as they come; a client for all of them, and one that asks only the leader."""
    if shutil.which("etcd") is None:
        raise Missing("there is no `etcd`; install it (Debian: etcd-server)")
    if not (_GOCODE / "src/go.etcd.io/etcd/clientv3").is_dir():
        raise Missing("there is no Go client of etcd; install it (Debian: golang-etcd-server-dev)")
    old_way = {"GO111MODULE": "off", "GOPATH": str(_GOCODE)}
    program = build_go(processes, ("-tags=etcd",), old_way)
    ports = free_ports(2 * NODES)
    clients, peers = ports[:NODES], ports[NODES:]
    members = {f"etcd-{at}": f"http://127.0.0.1:{port}" for at, port in enumerate(peers, start=1)}
    cluster = ",".join(f"{name}={address}" for name, address in members.items())
    servers = []
    for (name, peer), port in zip(members.items(), clients, strict=True):
        options = {
            "--name": name,
            "--data-dir": f"{name}.etcd",
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--listen-client-urls": f"http://127.0.0.1:{port}",
            "--advertise-client-urls": f"http://127.0.0.1:{port}",
            "--initial-cluster": cluster,
            "--initial-cluster-state": "new",
        }
        words = [word for option in options.items() for word in option]
        servers.append(processes.serve(name, ("etcd", *words), port))
    loads = {}
    for kind in ("etcd", "etcd-leader"):
        command = (program, "load", kind, keys_file(processes), *map(str, clients))
        loads[kind] = processes.generator(f"{kind}-load", command), ""
    return ConsensusPeer(loads, servers)


def start_pysyncobj(processes: Processes) -> Peer:
    """Three nodes with journals; the first one leads, and makes the requests itself."""
    environment = {} if find_spec("pysyncobj") else {"PYTHONPATH": _installed(processes)}
    ports = free_ports(NODES)
    script = str(_HERE / "_pysyncobj_node.py")
    rest = (str(processes.directory), keys_file(processes), *map(str, ports))
    servers = [
        processes.start(f"pysyncobj-{at}", (sys.executable, script, str(at), *rest), environment)
        for at in range(1, NODES)
    ]
    leader = processes.generator("pysyncobj-0", (sys.executable, script, "0", *rest), environment)
    ways = {"pysyncobj": "", "pysyncobj-fast": "_fast", "pysyncobj-synced": "_synced"}
    loads = {series: (leader, way) for series, way in ways.items()}
    return ConsensusPeer(loads, [leader.process, *servers])


PEERS: Mapping[str, Start] = {"etcd": start_etcd, "pysyncobj": start_pysyncobj}
"""All but kvtwist itself, which always takes part."""


def _installed(processes: Processes) -> str:
    """A directory with PySyncObj in it, which is gone after the run.

    :raises Missing: when it cannot be installed.
    """
    directory = str(processes.directory / "site-packages")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", directory)
    try:
        output_of((*pip, _PYSYNCOBJ), _INSTALL_SECONDS_MAX)
    except (PeerFailed, subprocess.SubprocessError):
        raise Missing(f"PySyncObj is not installed: pip install {_PYSYNCOBJ}") from None
    return directory
