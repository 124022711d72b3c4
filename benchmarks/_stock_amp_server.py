"""The least that a key-value server on stock AMP can be: ``python _stock_amp_server.py PORT``.

Twisted's own `amp.AMP`, kvtwist's command classes, a dictionary.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet import endpoints, task
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols import amp

from kvtwist.wire.commands import Get, Put

Answer = dict[str, Any]
_NOTHING = (0, None)


class StockServer(amp.AMP):
    """One connection; all share the records."""

    records: dict[bytes, tuple[int, bytes]]

    @Put.responder
    def put(self, key: bytes, value: bytes, **_: object) -> Answer:
        """Write one key."""
        version = self.records.get(key, _NOTHING)[0] + 1
        self.records[key] = version, value
        return {"version": version}

    @Get.responder
    def get(self, key: bytes, **_: object) -> Answer:
        """Read one key."""
        version, value = self.records.get(key, _NOTHING)
        return {"version": version, "value": value}


class StockFactory(Factory):
    """Makes servers on the same records."""

    def __init__(self) -> None:
        self._records: dict[bytes, tuple[int, bytes]] = {}

    def buildProtocol(self, _: object) -> StockServer:
        """A server for one connection."""
        server = StockServer()
        server.records = self._records
        return server


async def main(reactor: Any, port: str) -> None:
    """Serve until the process is ended."""
    endpoint = endpoints.serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1")
    await endpoint.listen(StockFactory())
    await Deferred()


if __name__ == "__main__":
    task.react(lambda reactor, *words: Deferred.fromCoroutine(main(reactor, *words)), sys.argv[1:])
