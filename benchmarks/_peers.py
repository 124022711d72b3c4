"""Who is measured: each peer starts its processes and knows how to have a cell measured.

A peer has one series of figures, or two when it can be used in two ways.
"""

from __future__ import annotations

import csv
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from _nodes import Nodes
from _processes import Generator, PeerFailed, Processes, free_ports
from _workload import KEYS, KEYS_PER_BATCH, Cell, Sample, keys

NODES = 3
FILL_SECONDS_MAX = 60.0
FILL_IN_FLIGHT = 64
REDIS_PIPELINE = 64
BUILD_SECONDS_MAX = 300.0

TITLES = {
    "kvtwist": "kvtwist",
    "kvtwist-many": f"kvtwist by {KEYS_PER_BATCH}",
    "amp": "stock AMP",
    "go": "Go net/rpc",
    "redis": "Redis",
    "redis-pipelined": f"Redis -P {REDIS_PIPELINE}",
}
"""Every series, as it is called in the table."""
OURS = ("kvtwist", "kvtwist-many")

_HERE = Path(__file__).resolve().parent
# Build with the version that is there, and ask no network for another one.
_GO = {"GOTOOLCHAIN": "local", "GOFLAGS": ""}


class Missing(Exception):
    """A peer's program is not installed; the reason says what to install."""


class Peer(Protocol):
    """Running processes that can be measured."""

    @property
    def series(self) -> Sequence[str]:
        """The names of its series, keys of `TITLES`."""

    def fill(self, value_bytes: int) -> None:
        """Put every key once.

        :raises PeerFailed: when that did not work.
        """

    def measure(self, series: str, cell: Cell, seconds: float) -> Sample | None:
        """One measurement; ``None`` where the cell makes no sense for the series.

        :raises PeerFailed: when there is no figure.
        """


class GeneratorPeer:
    """A peer under one of our own load generators."""

    def __init__(self, series: Sequence[str], generator: Generator) -> None:
        self.series = series
        self._generator = generator

    def fill(self, value_bytes: int) -> None:
        """Put every key once; the generator reads one of them again."""
        sample = self._generator.measure("fill", value_bytes, FILL_IN_FLIGHT, FILL_SECONDS_MAX)
        if sample.operations != KEYS:
            filled = f"{sample.operations} of {KEYS} keys were put"
            raise PeerFailed(f"{self._generator.name}: {filled}: {sample.error or 'too slow'}")

    def measure(self, series: str, cell: Cell, seconds: float) -> Sample:
        """One measurement."""
        if series.endswith("-many"):
            load = (f"{cell.operation}_many", cell.value_bytes, cell.batches_in_flight)
        else:
            load = (cell.operation, cell.value_bytes, cell.in_flight)
        return self._generator.measure(*load, seconds)


class RedisPeer:
    """Redis under ``redis-benchmark``, which counts requests where the others watch the time.

    How many make up the time is learnt, for each cell, from the measurement before.
    """

    series = ("redis", "redis-pipelined")

    def __init__(self, port: int) -> None:
        self._port = port
        self._rates: dict[tuple[str, Cell], float] = {}

    def fill(self, value_bytes: int) -> None:
        """Put every key once."""
        value = b"v" * value_bytes
        with socket.create_connection(("127.0.0.1", self._port), FILL_SECONDS_MAX) as connection:
            for key in keys():
                lengths = len(key), key, len(value), value
                connection.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % lengths)
            with connection.makefile("rb") as answers:
                if any(answers.readline() != b"+OK\r\n" for _ in range(KEYS)):
                    raise PeerFailed("redis did not take all keys")

    def measure(self, series: str, cell: Cell, seconds: float) -> Sample | None:
        """One measurement. A pipeline of 64 needs 64 in flight."""
        pipeline = REDIS_PIPELINE if series == "redis-pipelined" else 1
        if cell.in_flight < pipeline:
            return None
        if (series, cell) not in self._rates:
            guess = self._run(cell, pipeline, cell.in_flight * 100)
            self._rates[series, cell] = guess.per_second
        wanted = self._rates[series, cell] * seconds
        sample = self._run(cell, pipeline, max(int(wanted), cell.in_flight))
        self._rates[series, cell] = sample.per_second
        return sample

    def _run(self, cell: Cell, pipeline: int, requests: int) -> Sample:
        options = {
            "-p": self._port,
            "-t": {"put": "set", "get": "get"}[cell.operation],
            "-d": cell.value_bytes,
            "-r": KEYS,
            "-c": cell.in_flight // pipeline,
            "-P": pipeline,
            "-n": requests,
        }
        words = [str(word) for option in options.items() for word in option]
        output = output_of(["redis-benchmark", *words, "--csv"], FILL_SECONDS_MAX)
        rows = [row for row in csv.DictReader(output.splitlines()) if row.get("rps")]
        if len(rows) != 1:
            raise PeerFailed(f"redis-benchmark: {output.strip() or 'it said nothing'}")
        return Sample(requests, requests / float(rows[0]["rps"]))


def start_kvtwist(processes: Processes) -> Peer:
    """Three nodes, in memory, one owner for each key; a client that connects to all."""
    nodes = Nodes(processes, NODES, ("--memory",))
    return GeneratorPeer(OURS, python_generator(processes, "kvtwist", nodes.ports))


def start_amp(processes: Processes) -> Peer:
    """Three servers on Twisted's own AMP, and its client."""
    ports = free_ports(NODES)
    for number, port in enumerate(ports, start=1):
        command = (sys.executable, str(_HERE / "_stock_amp_server.py"), str(port))
        processes.serve(f"amp-{number}", command, port)
    return GeneratorPeer(("amp",), python_generator(processes, "amp", ports))


def start_go(processes: Processes) -> Peer:
    """Three servers on Go's net/rpc, and its client; built first."""
    program = build_go(processes)
    ports = free_ports(NODES)
    for number, port in enumerate(ports, start=1):
        processes.serve(f"go-{number}", (program, "serve", str(port)), port)
    command = (program, "load", "rpc", keys_file(processes), *map(str, ports))
    return GeneratorPeer(("go",), processes.generator("go-load", command))


def start_redis(processes: Processes) -> Peer:
    """One server without persistence."""
    for program, package in (("redis-server", "redis-server"), ("redis-benchmark", "redis-tools")):
        if shutil.which(program) is None:
            raise Missing(f"there is no `{program}`; install Redis (Debian: {package})")
    (port,) = free_ports(1)
    listen = ("--bind", "127.0.0.1", "--port", str(port))
    nothing_kept = ("--save", "", "--appendonly", "no")
    processes.serve("redis", ("redis-server", *listen, *nothing_kept), port)
    return RedisPeer(port)


Start: TypeAlias = Callable[[Processes], Peer]

PEERS: Mapping[str, Start] = {
    "amp": start_amp,
    "go": start_go,
    "redis": start_redis,
}
"""All but kvtwist itself, which always takes part."""


def python_generator(processes: Processes, kind: str, ports: Sequence[int]) -> Generator:
    """`_load.py`, for a store of this kind."""
    script = str(_HERE / "_load.py")
    command = (sys.executable, script, kind, keys_file(processes), *map(str, ports))
    return processes.generator(f"{kind}-load", command)


def keys_file(processes: Processes) -> str:
    """A file with all keys, for a load generator."""
    path = processes.directory / "keys"
    path.write_bytes(b"\n".join(keys()))
    return str(path)


def build_go(
    processes: Processes, arguments: Sequence[str] = (), environment: Mapping[str, str] = _GO
) -> str:
    """The path of `peers/gostore`, built.

    :raises Missing: when there is no Go.
    :raises PeerFailed: when it cannot be built.
    """
    if shutil.which("go") is None:
        raise Missing("there is no `go`; install Go (Debian: golang-go)")
    program = str(processes.directory / "-".join(("gostore", *arguments)).replace("--", "-"))
    build = ("go", "build", "-buildvcs=false", *arguments, "-o", program, ".")
    output_of(build, BUILD_SECONDS_MAX, _HERE / "peers" / "gostore", environment)
    return program


def output_of(
    command: Sequence[str],
    seconds: float,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a command prints.

    :param environment: what is different in its environment.

    :raises PeerFailed: when it fails, or takes longer than *seconds*.
    """
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env=os.environ | dict(environment or {}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"{command[0]} took longer than {seconds:g} s") from None
    output = done.stdout.decode(errors="replace")
    if done.returncode:
        raise PeerFailed(f"{command[0]} failed: {output.strip()}")
    return output
