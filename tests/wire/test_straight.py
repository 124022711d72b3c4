"""Straight to the socket: at once where nothing stands before the bytes, else not at all.

The transports are Twisted's own `tcp.Connection`, made as a reactor makes them; only the socket is
in memory. So these tests fail when a release of Twisted changes what `kvtwist.wire.straight` knows.
"""

from __future__ import annotations

from errno import EPIPE, EWOULDBLOCK
from typing import Any

from twisted.internet import tcp
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kvtwist.wire.boxes import BoxReader
from kvtwist.wire.call import Call
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Get
from kvtwist.wire.connection import Connection, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.frequent import get_answer, get_body, request_end
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.straight import STRAIGHT_BYTES_MAX, write_straight

END = request_end(1000)
APPLIED = b"a" * 26


class Socket:
    """The socket, and as much of a reactor as its transport needs.

    :ivar room: how many bytes it takes; negative when the other end is gone.
    :ivar sent: what it took.
    :ivar waits: how often the reactor was asked when it can be written to.
    """

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.sent = b""
        self.waits = 0

    def send(self, data: Any) -> int:
        if self.room < 0:
            raise OSError(EPIPE, "gone")
        if not self.room:
            raise OSError(EWOULDBLOCK, "full")
        taken = bytes(data[: self.room])
        self.room -= len(taken)
        self.sent += taken
        return len(taken)

    def setblocking(self, _: bool) -> None:
        pass

    def setsockopt(self, *_: object) -> None:
        pass

    def fileno(self) -> int:
        return -1

    def addWriter(self, _: object) -> None:
        self.waits += 1

    def removeWriter(self, _: object) -> None:
        pass

    def addReader(self, _: object) -> None:
        pass

    def removeReader(self, _: object) -> None:
        pass


def transport_to(socket: Socket, kind: Any = tcp.Connection) -> Any:
    """Twisted's transport over *socket*."""
    transport = kind(socket, Protocol(), socket)
    transport.connected = 1
    return transport


class StraightTests(SynchronousTestCase):
    """The function."""

    def setUp(self) -> None:
        self.socket = Socket()
        self.transport = transport_to(self.socket)

    def test_at_once(self) -> None:
        """Else each burst of answers costs three system calls and a turn of the reactor. This
        fails too when Twisted no longer has the attributes that say that nothing waits."""
        self.assertTrue(verifyObject(ITransport, self.transport))
        self.assertEqual(write_straight(self.transport, b"abc"), b"")
        self.assertEqual((self.socket.sent, self.socket.waits), (b"abc", 0))

    def test_what_the_socket_leaves(self) -> None:
        """Else it is lost, or sent twice."""
        for room, left in ((0, b"abc"), (2, b"c"), (3, b"")):
            self.socket.room = room
            self.assertEqual(write_straight(self.transport, b"abc"), left)

    def test_behind_what_was_written(self) -> None:
        """Else bytes overtake those that were written before them: the stream is damaged."""
        self.transport.write(b"first")
        self.assertEqual(write_straight(self.transport, b"second"), b"second")
        self.assertEqual(self.socket.sent, b"")

    def test_behind_what_is_half_sent(self) -> None:
        """The same, when the transport has begun to send it."""
        self.socket.room = 2
        self.transport.write(b"first")
        self.transport.doWrite()
        self.socket.room = 100
        self.assertEqual(write_straight(self.transport, b"second"), b"second")
        self.transport.doWrite()
        self.assertEqual(self.socket.sent, b"first")
        self.assertEqual(write_straight(self.transport, b"second"), b"")

    def test_an_unknown_twisted(self) -> None:
        """Else a release without one of the attributes breaks every connection."""
        for name in ("_tempDataBuffer", "dataBuffer"):
            missing = property(_missing, lambda *_: None)
            other = type("Other", (tcp.Connection,), {name: missing})
            self.assertEqual(write_straight(transport_to(self.socket, other), b"abc"), b"abc", name)
        self.assertEqual(self.socket.sent, b"")

    def test_other_transports(self) -> None:
        """In tests, and over pipes, there is no such socket."""
        self.assertEqual(write_straight(StringTransport(), b"abc"), b"abc")
        self.assertEqual(write_straight(None, b"abc"), b"abc")

    def test_by_the_transport(self) -> None:
        """TLS has work of its own on what is written; one that closes or is closed knows best."""
        for name, value in (("TLS", True), ("disconnecting", True), ("connected", 0)):
            transport = transport_to(self.socket)
            setattr(transport, name, value)
            self.assertEqual(write_straight(transport, b"abc"), b"abc", name)
        self.assertEqual(self.socket.sent, b"")

    def test_long(self) -> None:
        """Else what the socket leaves of a large value is copied, again and again."""
        for size, straight in ((STRAIGHT_BYTES_MAX, True), (STRAIGHT_BYTES_MAX + 1, False)):
            left = write_straight(self.transport, b"x" * size)
            self.assertEqual(left == b"", straight, size)

    def test_connection_lost(self) -> None:
        """The transport finds it out in its turn; nobody is called in the middle of ours."""
        self.socket.room = -1
        self.assertEqual(write_straight(self.transport, b"abc"), b"abc")
        self.transport.write(b"abc")
        self.assertIsInstance(self.transport.doWrite(), ConnectionLost)


def _missing(_: object) -> None:
    raise AttributeError


class ConnectionTests(SynchronousTestCase):
    """What a turn has brought goes straight to the socket."""

    def server(self, socket: Socket) -> Connection:
        """One that answers every `Get`."""
        answer = get_answer(1, b"v" * 10, APPLIED)
        table = responders({Get: lambda _, __: {"version": 1}})
        server = Connection(Deadlines(Clock()), table, frequent_responder=lambda *_: answer)
        server.makeConnection(transport_to(socket))
        return server

    def asked(self, count: int) -> bytes:
        """So many requests."""
        client = Connection(Deadlines(Clock()))
        transport = StringTransport()
        client.makeConnection(transport)
        for _ in range(count):
            self.assertTrue(client.ask(Call(codec_of(Get), 1.0, 1.0), get_body(b"k", END)))
        asked: bytes = transport.value()
        return asked

    def test_at_once(self) -> None:
        """Answers of one read: one write, and the reactor is not asked."""
        socket = Socket()
        self.server(socket).dataReceived(self.asked(10))
        self.assertEqual(len(BoxReader(DEFAULT_LIMITS.boxes).feed(socket.sent)), 10)
        self.assertEqual(socket.waits, 0)

    def test_part_of_it(self) -> None:
        """What the socket does not take follows, in order: nothing is lost, nothing twice."""
        whole, socket = Socket(), Socket(room=30)
        requests = self.asked(10)
        self.server(whole).dataReceived(requests)
        server = self.server(socket)
        server.dataReceived(requests)
        self.assertEqual(socket.waits, 1)
        socket.room = 1 << 20
        server.dataReceived(self.asked(1))
        self.assertEqual(len(socket.sent), 30, "what comes later waits behind it")
        server.transport.doWrite()
        self.assertTrue(socket.sent.startswith(whole.sent))
        self.assertEqual(len(BoxReader(DEFAULT_LIMITS.boxes).feed(socket.sent)), 11)
