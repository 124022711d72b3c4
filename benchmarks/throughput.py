"""Puts and gets per second: one client process, three nodes on this machine, 100-byte values.

    python benchmarks/throughput.py [seconds per row]

The machine is shared by client and nodes, so figures compare only within one run.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import Any

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from kvtwist.client import Client

NODES = 3
KEYS = 10_000
VALUE = b"v" * 100
TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start_nodes(directory: str, ports: list[int]) -> list[subprocess.Popen[bytes]]:
    """A cluster."""
    peers = ",".join(f":{port}" for port in ports)
    return [
        subprocess.Popen(
            (*TWISTD, "-n", "kvnode", f"--id=node-{port}", f"--addr=:{port}", f"--peers={peers}"),
            cwd=directory,
            stdout=subprocess.DEVNULL,
        )
        for port in ports
    ]


async def rate(call: Callable[[], Awaitable[object]], in_flight: int, seconds: float) -> float:
    """Calls per second, with *in_flight* of them at any time."""
    end = time.monotonic() + seconds
    started = time.monotonic()
    done = 0

    async def one() -> None:
        nonlocal done
        while time.monotonic() < end:
            await call()
            done += 1

    await gatherResults([Deferred.fromCoroutine(one()) for _ in range(in_flight)])
    return done / (time.monotonic() - started)


async def measure(reactor: Any, peers: str, seconds: float) -> None:
    """Print the table."""
    client = Client(reactor, peers, timeout_seconds=20)
    keys = [f"user:{number}".encode() for number in range(KEYS)]
    chance = random.Random(1)
    await client.put_many(dict.fromkeys(keys, VALUE))
    print(f"{'in flight':>9}  {'puts/s':>8}  {'gets/s':>8}")
    for in_flight in (1, 64, 256):
        puts = await rate(lambda: client.put(chance.choice(keys), VALUE), in_flight, seconds)
        gets = await rate(lambda: client.get(chance.choice(keys)), in_flight, seconds)
        print(f"{in_flight:>9}  {puts:>8,.0f}  {gets:>8,.0f}")
    await client.close()


def main() -> None:
    """Run it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 3.0
    ports = free_ports(NODES)
    peers = ",".join(f":{port}" for port in ports)
    with tempfile.TemporaryDirectory() as directory:
        nodes = start_nodes(directory, ports)
        try:
            task.react(lambda reactor: Deferred.fromCoroutine(measure(reactor, peers, seconds)))
        finally:
            for node in nodes:
                node.terminate()
            for node in nodes:
                node.wait()


if __name__ == "__main__":
    main()
