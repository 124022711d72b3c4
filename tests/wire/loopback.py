"""Two protocols joined in memory: real bytes pass, cut into chunks as one likes.

Nothing moves but in `Loopback.pump`, so no protocol is called from inside another's call, just as
with a real reactor::

    wire = Loopback(client, server, pieces(3))
    answer = client.call(Ping, {}, 1.0)
    wire.pump()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure

from kvtwist.wire.boxes import Box, BoxLimits, BoxReader, write_box

Cut = Callable[[bytes], list[bytes]]

WIDE_OPEN = BoxLimits(box_bytes_max=1 << 30, box_pairs_max=1 << 30)


def whole(data: bytes) -> list[bytes]:
    """What was on its way arrives in one chunk."""
    return [data]


def pieces(size: int) -> Cut:
    """It arrives in chunks of *size* bytes."""
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


def cut_at(data: bytes, places: Iterable[int]) -> list[bytes]:
    """*data*, cut at the *places*, each taken modulo its length; empty chunks stay."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


class End:
    """One end of the loopback: a transport.

    :ivar writes: each write, as it was made.
    :ivar closed: how it was closed: ``"lost"``, ``"aborted"`` or, while it is open, nothing.
    """

    disconnecting = False

    def __init__(self, protocol: Any, here: str, there: str) -> None:
        self.protocol = protocol
        self.writes: list[bytes] = []
        self.closed = ""
        self.under_way = b""
        self._here = IPv4Address("TCP", here, 8001)
        self._there = IPv4Address("TCP", there, 8001)

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.writes.append(data)
            self.under_way += data

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.closed = self.closed or "lost"
        self.disconnecting = True

    def abortConnection(self) -> None:
        self.closed = "aborted"
        self.under_way = b""
        self.disconnecting = True

    def getHost(self) -> IPv4Address:
        return self._here

    def getPeer(self) -> IPv4Address:
        return self._there

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def unregisterProducer(self) -> None:
        pass


class Loopback:
    """A connection between two protocols, made at once.

    :param cut: how the bytes under way are cut into the chunks in which they arrive.
    """

    def __init__(self, client: Any, server: Any, cut: Cut = whole) -> None:
        self._cut = cut
        self.is_open = True
        self.client = End(client, "10.0.0.1", "10.0.0.2")
        self.server = End(server, "10.0.0.2", "10.0.0.1")
        server.makeConnection(self.server)
        client.makeConnection(self.client)

    def pump(self) -> None:
        """Let everything arrive, and the answers to it, until all is quiet."""
        while self.is_open and (self.client.under_way or self.server.under_way):
            self._carry(self.client, self.server)
            self._carry(self.server, self.client)
        if self.is_open and (self.client.closed or self.server.closed):
            self._hang_up()

    def lose(self) -> None:
        """Pull the plug: what is under way is gone, and both ends learn of it."""
        self._over(Failure(ConnectionLost()), Failure(ConnectionLost()))

    def _carry(self, sender: End, receiver: End) -> None:
        data, sender.under_way = sender.under_way, b""
        for chunk in self._cut(data) if data else ():
            if not receiver.closed:
                receiver.protocol.dataReceived(chunk)

    def _hang_up(self) -> None:
        if "aborted" in (self.client.closed, self.server.closed):
            by_client = self.client.closed == "aborted"
            mine, theirs = Failure(ConnectionAborted()), Failure(ConnectionLost())
            self._over(*(mine, theirs) if by_client else (theirs, mine))
        else:
            self._over(Failure(ConnectionDone()), Failure(ConnectionDone()))

    def _over(self, for_client: Failure, for_server: Failure) -> None:
        self.is_open = False
        for end in (self.client, self.server):
            end.closed = end.closed or "lost"
            end.under_way = b""
        self.client.protocol.connectionLost(for_client)
        self.server.protocol.connectionLost(for_server)


class RawPeer(Protocol):
    """A peer that says exactly what it is told to, AMP or not, and takes down what it hears.

    :ivar boxes: what it heard.
    :ivar lost: why the connection was lost, once it was.
    """

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.lost: Failure | None = None
        self._reader = BoxReader(WIDE_OPEN)

    def say(self, *boxes: Mapping[bytes, bytes]) -> None:
        """Send boxes, all in one write."""
        self.say_bytes(b"".join(write_box(box) for box in boxes))

    def say_bytes(self, data: bytes) -> None:
        """Send anything."""
        assert self.transport is not None
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.boxes += self._reader.feed(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost = reason


class Outcome:
    """How a Deferred ends, watched from the start.

    Stock AMP hangs up when an error reaches the end of a call's callbacks; this takes it first.

    :ivar ends: how many times it has ended: 0 or 1.
    """

    def __init__(self, deferred: Deferred[Any]) -> None:
        self.ends = 0
        self._value: Any = None
        deferred.addBoth(self._take)

    def _take(self, value: Any) -> None:
        self.ends += 1
        self._value = value

    @property
    def answer(self) -> Any:
        """The result."""
        assert self.ends == 1, "no answer yet"
        if isinstance(self._value, Failure):
            self._value.raiseException()
        return self._value

    @property
    def error(self) -> Any:
        """The exception."""
        assert self.ends == 1, "no answer yet"
        assert isinstance(self._value, Failure), f"no error but {self._value!r}"
        return self._value.value
