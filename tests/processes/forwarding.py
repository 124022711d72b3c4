"""Large values by forwarding, and small requests beside them: a program for one test.

    python -m tests.processes.forwarding SECONDS PORT_1 PORT_2

For so many seconds it writes and reads values of 16 MiB through node-1, all of them under keys that
node-2 owns, over connections that go to node-1 only. Meanwhile it reads a small value in the same
way, and pings both nodes, each over a connection of its own. It ends with a line of JSON: what was
done how often, what failed, the longest time that something small took, and which peers each node
cannot reach.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, gatherResults
from twisted.internet.task import deferLater, react
from twisted.protocols import amp

from kvtwist.client.table import Table
from kvtwist.core.address import Address, parse_address
from kvtwist.errors import KvtwistError
from kvtwist.wire.clock import make_monotonic
from kvtwist.wire.commands import (
    REQUEST_TIMEOUT_MS,
    DescribeTopology,
    Get,
    Ping,
    Put,
    Status,
)
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting, features
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.link import Link

VALUE_BYTES = 16 << 20
LARGE_SECONDS_MAX = 20.0
WRITERS = 2
PAUSE_SECONDS = 0.02


class Load:
    """What is asked, and what came of it."""

    def __init__(self, reactor: Any, seconds: float, nodes: list[Address]) -> None:
        self._reactor = reactor
        self._deadlines = Deadlines(reactor)
        self._end = reactor.seconds() + seconds
        self._nodes = nodes
        self.done: Counter[str] = Counter()
        self.failed: list[str] = []
        self.slowest_ms: Counter[str] = Counter()

    async def run(self) -> None:
        """Everything at once, until time is up."""
        keys = await self._keys_of(self._nodes[1])
        small = keys.pop()
        await self._link_to(0).when_connected(5.0)
        writers = [self._large(key, bytes([at]) * VALUE_BYTES) for at, key in enumerate(keys)]
        await self._call(self._link_to(0), "setup", Put, {"key": small, "value": b"small"})
        others = [
            self._small("get", self._link_to(0), Get, {"key": small}),
            *(self._small(f"ping {at + 1}", self._link_to(at), Ping, {}) for at in (0, 1)),
        ]
        await gatherResults([Deferred.fromCoroutine(each) for each in (*writers, *others)])

    def _link_to(self, node: int) -> Link:
        link = Link(
            self._reactor,
            self._nodes[node],
            lambda: Greeting(features=features(DEFAULT_LIMITS.boxes)),
            random.random,
            self._deadlines,
        )
        link.start()
        return link

    async def _keys_of(self, owner: Address) -> list[bytes]:
        link = self._link_to(0)
        await link.when_connected(5.0)
        table = Table.from_answer(await link.call(DescribeTopology, {}, 5.0))
        keys = (b"key-%d" % number for number in range(1000))
        return [key for key in keys if table.leader_address(table.partition_of(key)) == owner][
            : WRITERS + 1
        ]

    async def unreachable(self, node: int) -> list[str]:
        """Which peers a node cannot reach on its control links."""
        answer = await self._call(self._link_to(node), "status", Status, {})
        return ["no answer"] if answer is None else list(answer["unreachable"])

    async def _large(self, key: bytes, value: bytes) -> None:
        link = self._link_to(0)
        while self._reactor.seconds() < self._end:
            await self._call(link, "put", Put, {"key": key, "value": value}, LARGE_SECONDS_MAX)
            answer = await self._call(link, "large get", Get, {"key": key}, LARGE_SECONDS_MAX)
            if answer is not None and answer["value"] != value:
                self.failed.append("another value than was written")

    async def _small(
        self, name: str, link: Link, command: type[amp.Command], arguments: dict[str, Any]
    ) -> None:
        while self._reactor.seconds() < self._end:
            began = self._reactor.seconds()
            await self._call(link, name, command, arguments)
            took_ms = int((self._reactor.seconds() - began) * 1000)
            self.slowest_ms[name] = max(self.slowest_ms[name], took_ms)
            await deferLater(self._reactor, PAUSE_SECONDS, lambda: None)

    async def _call(
        self,
        link: Link,
        name: str,
        command: type[amp.Command],
        arguments: dict[str, Any],
        seconds: float = REQUEST_TIMEOUT_MS / 1000,
    ) -> dict[str, Any] | None:
        try:
            connection = await link.when_connected(5.0)
            answer = await connection.call(command, arguments, seconds)
        except KvtwistError as error:
            self.failed.append(f"{name}: {error!r}")
            return None
        self.done[name] += 1
        return answer


async def _main(reactor: Any, seconds: str, *ports: str) -> None:
    load = Load(reactor, float(seconds), [parse_address(f":{port}") for port in ports])
    await load.run()
    unreachable = [await load.unreachable(node) for node in range(len(ports))]
    said = {
        "done": load.done,
        "failed": load.failed,
        "slowest_ms": load.slowest_ms,
        "unreachable": dict(zip(ports, unreachable, strict=True)),
    }
    print(json.dumps(said), flush=True)


def _run(main: Callable[..., Awaitable[None]]) -> None:
    from twisted.internet import reactor

    make_monotonic(reactor)
    react(lambda reactor: ensureDeferred(main(reactor, *sys.argv[1:])))  # type: ignore[arg-type]


if __name__ == "__main__":
    _run(_main)
