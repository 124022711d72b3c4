"""The load generator for whatever speaks AMP: a process of its own, the same loop for everybody.

    python benchmarks/_load.py (kvtwist | amp) KEYS_FILE PORT...

It reads lines ``OPERATION VALUE_BYTES IN_FLIGHT SECONDS`` and answers each with a line of JSON, a
`Sample`. ``fill`` puts every key once. ``benchmarks/peers/gostore`` does the same for Go.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import cycle
from pathlib import Path
from typing import Any, TypeAlias

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.protocols import amp

from _cluster import Cluster
from _workload import KEYS_PER_BATCH, Sample, quantile_ms
from kvtwist.client import Client
from kvtwist.core.ring import Ring
from kvtwist.wire.commands import Get, Put

REQUEST_SECONDS_MAX = 20.0

Keys: TypeAlias = Sequence[bytes]
Call: TypeAlias = Callable[[Keys, bytes], Awaitable[object]]
"""One request: for these keys, with this value."""


class Kvtwist:
    """kvtwist through its public client; the only one that has batches."""

    def __init__(self, reactor: Any, ports: Sequence[str]) -> None:
        peers = [f":{port}" for port in ports]
        self._client = client = Client(reactor, peers, timeout_seconds=REQUEST_SECONDS_MAX)
        self._cluster = Cluster(reactor, client, peers)
        self.calls: Mapping[str, Call] = {
            "put": lambda keys, value: client.put(keys[0], value),
            "get": lambda keys, _: client.get(keys[0]),
            "put_many": lambda keys, value: client.put_many(dict.fromkeys(keys, value)),
            "get_many": lambda keys, _: client.get_many(keys),
        }

    async def open(self) -> None:
        """Wait until each partition is led by its owner; the client connects when it needs to."""
        await self._cluster.settled()

    async def read(self, key: bytes) -> bytes | None:
        """The value of one key."""
        record = await self._client.get(key)
        return record.value if record else None


class StockAmp:
    """Twisted's own `amp.AMP`, one connection to each server, the owner found on kvtwist's ring."""

    def __init__(self, reactor: Any, ports: Sequence[str]) -> None:
        self._reactor = reactor
        self._ports = {f"node-{number}": port for number, port in enumerate(ports, start=1)}
        self._ring = Ring(self._ports)
        self._connections: dict[str, amp.AMP] = {}
        self.calls: Mapping[str, Call] = {
            "put": lambda keys, value: self._owner(keys[0]).callRemote(
                Put, key=keys[0], value=value
            ),
            "get": lambda keys, _: self._owner(keys[0]).callRemote(Get, key=keys[0]),
        }

    async def open(self) -> None:
        """Connect."""
        for name, port in self._ports.items():
            server = clientFromString(self._reactor, f"tcp:127.0.0.1:{port}")
            self._connections[name] = await connectProtocol(server, amp.AMP())

    async def read(self, key: bytes) -> bytes | None:
        """The value of one key."""
        answer = await self._owner(key).callRemote(Get, key=key)
        value: bytes | None = answer["value"]
        return value

    def _owner(self, key: bytes) -> amp.AMP:
        return self._connections[self._ring.member_of(key)]


STORES: Mapping[str, type[Kvtwist] | type[StockAmp]] = {"kvtwist": Kvtwist, "amp": StockAmp}


async def measure(
    call: Call, requests: Iterable[Keys], value: bytes, in_flight: int, seconds: float
) -> Sample:
    """Make *requests*, *in_flight* of them at any time, until they or the time run out."""
    remaining = iter(requests)
    clock = time.monotonic
    done = failed = 0
    trouble = ""
    latencies: list[float] = []
    started = clock()
    end = started + seconds

    async def worker() -> None:
        nonlocal done, failed, trouble
        for keys in remaining:
            if (begun := clock()) >= end:
                return
            try:
                await call(keys, value)
            except Exception as error:  # whatever it is: it is counted, and reported
                failed += len(keys)
                trouble = f"{type(error).__name__}: {error}"
            else:
                done += len(keys)
                latencies.append(clock() - begun)

    await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(in_flight)])
    seconds = clock() - started
    latencies.sort()
    p50_ms, p99_ms = quantile_ms(latencies, 0.5), quantile_ms(latencies, 0.99)
    return Sample(done, seconds, failed, trouble, p50_ms, p99_ms)


class Load:
    """One store under load."""

    def __init__(self, store: Kvtwist | StockAmp, keys: Keys) -> None:
        self._store = store
        self._singles = [(key,) for key in keys]
        starts = range(0, len(keys), KEYS_PER_BATCH)
        self._endless_singles = cycle(self._singles)
        self._endless_batches = cycle([keys[at : at + KEYS_PER_BATCH] for at in starts])

    async def answer(self, question: str) -> Sample:
        """What a line asks for."""
        operation, value_bytes, in_flight, seconds = question.split()
        value = b"v" * int(value_bytes)
        if operation == "fill":
            return await self._fill(value, int(in_flight), float(seconds))
        call = self._store.calls[operation]
        many = operation.endswith("_many")
        requests = self._endless_batches if many else self._endless_singles
        return await measure(call, requests, value, int(in_flight), float(seconds))

    async def _fill(self, value: bytes, in_flight: int, seconds: float) -> Sample:
        """Put every key once, and see that a value comes back as it was put."""
        sample = await measure(self._store.calls["put"], self._singles, value, in_flight, seconds)
        if not sample.failed and await self._store.read(self._singles[0][0]) != value:
            raise RuntimeError("what was put is not what was got")
        return sample


async def main(reactor: Any, kind: str, keys_file: str, *ports: str) -> None:
    """Answer until nobody asks any more."""
    store = STORES[kind](reactor, ports)
    await store.open()
    load = Load(store, Path(keys_file).read_bytes().split())
    while question := await deferToThread(sys.stdin.readline):
        print(json.dumps(asdict(await load.answer(question))), flush=True)


if __name__ == "__main__":
    task.react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
