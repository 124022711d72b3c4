"""What is told and not asked: it leaves or it does not, and nobody waits for an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import MalformedRequest
from kvtwist.wire.boxes import ANSWER, COMMAND, Box
from kvtwist.wire.commands import Ping, Put, RaftMessages
from kvtwist.wire.connection import Arguments, Connection, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.fragments import FEATURE
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.turn import Turn
from tests.wire.test_flow import (
    TRANSPORT_BYTES_MAX,
    Transport,
    ask,
    boxes_in,
    warnings,
)

SECONDS = 5.0
CLUSTER = bytes(range(16))


def said(number: int = 0, size: int = 0) -> Arguments:
    """Something to tell, which can be told from others."""
    return {"cluster": CLUSTER, "messages": b"%d:" % number + b"m" * size}


def numbers(boxes: list[Box]) -> list[int]:
    """Which were told, of the boxes that tell something."""
    told = [box for box in boxes if box[COMMAND] == b"RaftMessages"]
    return [int(box[b"messages"].partition(b":")[0]) for box in told]


class TellTestCase(SynchronousTestCase):
    """An end that tells, and one that is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.turn = Turn()
        self.told: list[Arguments] = []
        self.error: Exception | None = None
        self.late: list[Deferred[Arguments]] = []

    def teller(self, joins: bool = True, **changes: Any) -> Transport:
        """An end that asks and tells; its peer takes nothing before the test says so."""
        limits = replace(DEFAULT_LIMITS, **changes)
        connection = Connection(self.deadlines, limits=limits, turn=self.turn)
        connection.greeting = Greeting(name="n2", features=(FEATURE,) if joins else ())
        return Transport(connection)

    def listener(self, **changes: Any) -> Transport:
        """An end that is told."""

        def take(_: Connection, arguments: Arguments) -> Arguments:
            if self.error is not None:
                raise self.error
            self.told.append(arguments)
            return {}

        def wait(_: Connection, __: Arguments) -> Deferred[Arguments]:
            self.late.append(Deferred())
            return self.late[-1]

        table = responders({RaftMessages: take, Put: wait, Ping: lambda _, __: {}})
        limits = replace(DEFAULT_LIMITS, **changes)
        return Transport(Connection(self.deadlines, table, limits))

    def tell(self, transport: Transport, number: int = 0, size: int = 0) -> bool:
        """Tell something."""
        return transport.protocol.tell(RaftMessages, said(number, size))


class TellerTests(TellTestCase):
    """What leaves, what waits, and what does not."""

    def test_leaves(self) -> None:
        """Else a peer answers what nobody waits for, or a call hangs that nobody made."""
        teller = self.teller()
        self.assertTrue(self.tell(teller, 7))
        (box,) = boxes_in(teller.take())
        self.assertEqual(box, {COMMAND: b"RaftMessages", b"cluster": CLUSTER, b"messages": b"7:"})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_connection(self) -> None:
        """Else a message is thought to be on its way that will never be."""
        teller = self.teller()
        teller.go()
        self.assertFalse(self.tell(teller))
        self.assertEqual(teller.written, 0)

    def test_misfits(self) -> None:
        """Else a mistake of the caller's looks like a connection that is down."""
        teller = self.teller()
        with self.assertRaises(ValueError):
            teller.protocol.tell(RaftMessages, {"cluster": CLUSTER})

    def test_peer_that_does_not_read(self) -> None:
        """T7: else a node that is frozen fills the memory of all others with old news."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        sent = [number for number in range(1000) if self.tell(teller, number, 1000)]
        self.assertLessEqual(teller.protocol._outbox.unread_bytes, 100_000 + TRANSPORT_BYTES_MAX)
        self.assertGreater(len(sent), 150)
        self.assertLess(len(sent), 180)
        self.assertEqual(numbers(boxes_in(teller.take())), sent)
        self.assertTrue(self.tell(teller, 1000, 1000))
        self.assertEqual(numbers(boxes_in(teller.take())), [1000])


class ListenerTests(TellTestCase):
    """What comes in without wanting an answer."""

    def tells(self, *numbers: int) -> bytes:
        """The bytes of some."""
        teller = self.teller()
        for number in numbers:
            self.assertTrue(self.tell(teller, number))
        return teller.take()

    def test_told(self) -> None:
        """Else Raft hears nothing, or the peer gets answers to nothing."""
        listener = self.listener()
        listener.say(self.tells(1, 2))
        self.assertEqual([each["messages"] for each in self.told], [b"1:", b"2:"])
        self.assertEqual(listener.take(), b"")

    def test_errors(self) -> None:
        """Else one damaged box costs the connection, or floods the log, or is answered."""
        listener = self.listener()
        self.error = MalformedRequest("the checksum is wrong")
        with warnings() as lines:
            listener.say(self.tells(1, 2, 3))
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("10.0.0.9:4000", lines[0])
        self.assertIn("RaftMessages", lines[0])
        self.assertIn("the checksum is wrong", lines[0])
        self.assertEqual(listener.take(), b"")
        self.error = None
        listener.say(self.tells(4) + ask(Ping, 1))
        self.assertEqual(len(self.told), 1)
        self.assertEqual(boxes_in(listener.take()), [{ANSWER: b"1"}])
