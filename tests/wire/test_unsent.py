"""Requests of which nothing has left: definitely not done, and said so."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred

from kvtwist.errors import NoAnswer, NotSent
from kvtwist.wire.boxes import ASK
from kvtwist.wire.call import Call
from kvtwist.wire.codec import Values, codec_of
from kvtwist.wire.commands import Get, Put
from kvtwist.wire.connection import Connection
from kvtwist.wire.frequent import get_body, request_end
from kvtwist.wire.turn import Turn
from tests.wire.test_flow import SECONDS, FlowTestCase, Transport, boxes_in

MIB = 1 << 20
SIZES = (10, 2 * MIB)
"""Small and large requests wait in different places."""


class UnsentTests(FlowTestCase):
    """A write that was not sent may be sent again (C1): to call it unknown is to lose it."""

    def put(self, client: Transport, size: int) -> Deferred[Values]:
        """A write that the peer has not taken yet."""
        return client.protocol.call(Put, {"key": b"k", "value": b"v" * size}, SECONDS)

    def test_lost(self) -> None:
        """What waited for the transport, when the connection is lost."""
        for size in SIZES:
            client = self.client()
            sent, waits = self.put(client, 2 * MIB), self.put(client, size)
            client.go()
            self.failureResultOf(sent, NoAnswer)
            self.failureResultOf(waits, NotSent)

    def test_time_is_up(self) -> None:
        """What waited until its time was up; and it does not leave afterwards."""
        for size in SIZES:
            client = self.client()
            sent, waits = self.put(client, 2 * MIB), self.put(client, size)
            self.clock.pump([SECONDS, 1.0])
            self.failureResultOf(sent, NoAnswer)
            self.failureResultOf(waits, NotSent)
            self.assertEqual([box[ASK] for box in boxes_in(client.take())], [b"1"])

    def test_cancelled(self) -> None:
        """Nor does what its caller has given up."""
        for size in SIZES:
            client = self.client()
            calls = [self.put(client, each) for each in (2 * MIB, size, 10)]
            calls[1].cancel()
            self.failureResultOf(calls[1], CancelledError)
            self.assertEqual(sorted(box[ASK] for box in boxes_in(client.take())), [b"1", b"3"])

    def test_waited_in_a_turn(self) -> None:
        """What was held back while another connection was read, each for itself."""
        turn = Turn()
        client = Transport(Connection(self.deadlines, turn=turn))
        sent = self.put(client, 2 * MIB)
        turn.open()
        waits = [self.put(client, 10) for _ in range(3)]
        turn.close()
        waits[1].cancel()
        self.failureResultOf(waits[1], CancelledError)
        client.go()
        self.failureResultOf(sent, NoAnswer)
        for each in (waits[0], waits[2]):
            self.failureResultOf(each, NotSent)

    def test_dropped_in_its_turn(self) -> None:
        """What was held back when the connection was dropped: nothing leaves any more."""
        for size in SIZES:
            turn = Turn()
            client = Transport(Connection(self.deadlines, turn=turn))
            turn.open()
            held_back = self.put(client, size)
            client.protocol.drop("for a test")
            turn.close()
            self.assertEqual(client.written, 0)
            client.go()
            self.failureResultOf(held_back, NotSent)

    def test_dropped(self) -> None:
        """A connection that was dropped is down at once, not only when its loss is noticed."""
        client = self.client()
        before = self.put(client, 10)
        client.protocol.drop("for a test")
        self.failureResultOf(self.put(client, 10), NotSent)
        call = Call(codec_of(Get), SECONDS, SECONDS)
        self.assertFalse(client.protocol.ask(call, get_body(b"k", request_end(1))))
        self.assertNoResult(before)
        client.go()
        self.failureResultOf(before, NoAnswer)

    def test_half_closed(self) -> None:
        """A node that sends nothing more answers nothing more: what is asked of it then, or has not
        left, is not unknown; nor is it waited for one that does not read either."""
        for size in (10, 2 * MIB):
            client = self.client()
            sent, waits = self.put(client, size), self.put(client, 10)
            client.protocol.readConnectionLost()
            self.failureResultOf(self.put(client, 10), NotSent)
            client.take()
            if size > MIB:
                self.assertTrue(client.aborted)
                client.go()
                self.failureResultOf(waits, NotSent)
            else:
                self.assertIsNotNone(client.lost)
                self.failureResultOf(waits, NoAnswer)
            self.failureResultOf(sent, NoAnswer)

    def test_who_is_told_first(self) -> None:
        """Else whoever sends again at once what was not sent finds the same connection, and does so
        without end."""
        for end in ("drop", "lose"):
            client = self.client()
            told: list[str] = []
            client.protocol.when_down(_teller(told, "down"))
            self.put(client, 2 * MIB).addErrback(lambda _: None)
            self.put(client, 10).addErrback(_teller(told, "not sent"))
            if end == "drop":
                client.protocol.drop("for a test")
                self.assertEqual(told, ["down"])
            client.go()
            self.assertEqual(told, ["down", "not sent"])

    def test_dropped_twice(self) -> None:
        """The first reason is the one; there is one line."""
        client = self.client()
        client.protocol.drop("first")
        client.protocol.drop("second")
        self.assertEqual(client.protocol.why_dropped, "first")


class RoomTests(FlowTestCase):
    """Whoever waits for room is told, one way or another."""

    def test_after_the_end(self) -> None:
        """Else it waits for ever: nothing ends any more on a connection that is gone."""
        for end in (lambda client: client.protocol.drop("for a test"), Transport.go):
            client = self.client()
            end(client)
            self.failureResultOf(client.protocol.room(), NotSent)

    def test_while_there_is_room(self) -> None:
        """Else it waits for the end of a call that there may not be."""
        client = self.client(requests_in_flight_max=1)
        self.successResultOf(client.protocol.room())
        call = client.protocol.call(Put, {"key": b"k", "value": b""}, SECONDS)
        call.addErrback(lambda _: None)
        waiting = client.protocol.room()
        self.assertNoResult(waiting)
        call.cancel()
        self.successResultOf(waiting)

    def test_given_up(self) -> None:
        """Else who has stopped waiting takes the room of those who still do; or their end fails."""
        client = self.client(requests_in_flight_max=1)
        call = client.protocol.call(Put, {"key": b"k", "value": b""}, SECONDS)
        call.addErrback(lambda _: None)
        waiting = [client.protocol.room() for _ in range(2)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        call.cancel()
        self.successResultOf(waiting[1])
        client.protocol.call(Put, {"key": b"k", "value": b""}, SECONDS).addErrback(lambda _: None)
        waiting = [client.protocol.room() for _ in range(2)]
        waiting[0].cancel()
        self.failureResultOf(waiting[0], CancelledError)
        client.go()
        self.failureResultOf(waiting[1], NotSent)

    def test_nobody_is_overtaken(self) -> None:
        """Else who has just had room, and asks for more, has it before those who wait longer."""
        client = self.client(requests_in_flight_max=1)
        order: list[str] = []
        call = client.protocol.call(Put, {"key": b"k", "value": b""}, SECONDS)
        call.addErrback(lambda _: None)
        first, second = client.protocol.room(), client.protocol.room()
        first.addCallback(lambda _: client.protocol.room().addCallback(_teller(order, "again")))
        second.addCallback(_teller(order, "second"))
        call.cancel()
        self.assertEqual(order[0], "second")
        self.assertEqual(sorted(order), ["again", "second"])


def _teller(told: list[str], what: str) -> Callable[[object], None]:
    return lambda _: told.append(what)
