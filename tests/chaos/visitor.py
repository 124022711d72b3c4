"""A client that knows nothing: each request goes to any node, once, as a stock AMP client's would.

Our own clients find who leads and stay with it, so that two nodes are seldom asked about one key at
a time. These do that all the time: whoever was deposed and does not know it yet is asked as well.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.protocols import amp

from kvtwist.client import results
from kvtwist.core.address import parse_address
from kvtwist.core.partition import Record
from kvtwist.errors import NotSent
from kvtwist.wire import commands
from kvtwist.wire.codec import Values
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.greeting import Greeting, features
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.link import Link

_SECONDS = 2.0


class Visitor:
    """Has the methods of `kvtwist.client.client.Client` that it needs, and fails as they do."""

    def __init__(self, reactor: Any, peers: list[str], random: Random) -> None:
        self._random = random
        deadlines = Deadlines(reactor)
        self._links = [
            Link(reactor, parse_address(peer), _introduce, random.random, deadlines)
            for peer in peers
        ]
        for link in self._links:
            link.start()

    async def get(self, key: bytes) -> Record | None:
        """As the client's."""
        return results.record(await self._call(commands.Get, {"key": key}))

    async def put(self, key: bytes, value: bytes) -> int:
        """As the client's."""
        return results.version(await self._call(commands.Put, {"key": key, "value": value}))

    async def delete(self, key: bytes) -> bool:
        """As the client's."""
        return results.deleted(None, await self._call(commands.Delete, {"key": key}))

    async def compare_and_set(self, key: bytes, value: bytes, version: int) -> int:
        """As the client's."""
        wanted = {"key": key, "value": value, "version": version}
        return results.swapped(version, await self._call(commands.CompareAndSet, wanted))

    async def close(self) -> None:
        """Hang up."""
        for link in self._links:
            await link.stop()

    async def _call(self, command: type[amp.Command], arguments: Values) -> Values:
        up = [link for link in self._links if link.connection is not None]
        if not up:
            raise NotSent("no node is connected")
        asked: Values = arguments | {"timeout_ms": int(1000 * _SECONDS)}
        answer: Values = await self._random.choice(up).call(command, asked, _SECONDS + 0.25)
        return answer


def _introduce() -> Greeting:
    return Greeting(features=features(DEFAULT_LIMITS.boxes))
