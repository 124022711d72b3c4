"""What is told and not asked: it leaves or it does not, and nobody waits for an answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import MalformedRequest
from kvtwist.wire.boxes import ANSWER, ASK, COMMAND, Box, BoxLimits, write_box
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import Get, Ping, Put, RaftMessages
from kvtwist.wire.connection import Arguments, Connection, Responders, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.fragments import FEATURE, FRAGMENT, Joiner
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.turn import Turn
from tests.wire.test_connection import complaints
from tests.wire.test_flow import (
    MIB,
    TRANSPORT_BYTES_MAX,
    WIDE_OPEN,
    Transport,
    ask,
    boxes_in,
    error_in,
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
    """An end that tells, and one that is told.

    :cvar more: what is told besides.
    :cvar knows_short_way: whether the one that is told does.
    """

    more: ClassVar[Arguments] = {}
    knows_short_way: ClassVar[bool] = False

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.turn = Turn()
        self.told: list[Arguments] = []
        self.error: Exception | None = None
        self.answer: Arguments | Deferred[Arguments] = {}
        self.late: list[Deferred[Arguments]] = []

    def teller(self, joins: bool = True, **changes: Any) -> Transport:
        """An end that asks and tells; its peer takes nothing before the test says so."""
        limits = replace(DEFAULT_LIMITS, **changes)
        connection = Connection(self.deadlines, limits=limits, turn=self.turn)
        connection.greeting = Greeting(name="n2", features=(FEATURE,) if joins else ())
        return Transport(connection)

    def listener(self, **changes: Any) -> Transport:
        """An end that is told."""

        def take(_: Connection, arguments: Arguments) -> Arguments | Deferred[Arguments]:
            if self.error is not None:
                raise self.error
            self.told.append(arguments)
            return self.answer

        def wait(_: Connection, __: Arguments) -> Deferred[Arguments]:
            self.late.append(Deferred())
            return self.late[-1]

        table = responders({RaftMessages: take, Put: wait, Ping: lambda _, __: {}})
        return self.told_by(table, **changes)

    def told_by(self, table: Responders, **changes: Any) -> Transport:
        """An end that does this with what it is told."""
        limits = replace(DEFAULT_LIMITS, **changes)
        frequent = (lambda *_: None) if self.knows_short_way else None
        return Transport(Connection(self.deadlines, table, limits, frequent_responder=frequent))

    def tell(self, transport: Transport, number: int = 0, size: int = 0) -> bool:
        """Tell something."""
        return transport.protocol.tell(RaftMessages, said(number, size) | self.more)


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

    def test_one_large_alone(self) -> None:
        """Else a value that is larger than the setting is never replicated. T7: and if there is no
        limit for large ones, a peer that does not read has a box of each group kept for it."""
        teller = self.teller()
        self.assertEqual(
            [self.tell(teller, number, 6 * MIB) for number in range(4)], [True, True, False, False]
        )
        self.assertLess(teller.protocol._outbox.unread_bytes, 13 * MIB)

    def test_large_ones_stop_no_small_ones(self) -> None:
        """Else a large value or two on their way to a peer silence all heartbeats to it, and every
        group on it elects another leader."""
        teller = self.teller()
        for number in range(3):
            self.tell(teller, number, 6 * MIB)
        self.assertTrue(self.tell(teller, 7))
        boxes = boxes_in(teller.take())
        at = numbers(boxes).index(7)
        self.assertLess(at, 3, "it has waited for the large ones")

    def test_small_ones_stop_no_large_one(self) -> None:
        """Else heartbeats that pile up keep the entries away that a follower waits for."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        while self.tell(teller, 0, 1000):
            pass
        self.assertTrue(self.tell(teller, 1, 2 * MIB))

    def test_in_fragments(self) -> None:
        """Else a large box keeps all others waiting, though the peer could join fragments."""
        teller, joiner = self.teller(), Joiner(WIDE_OPEN)
        self.assertTrue(self.tell(teller, 1, 3 * MIB))
        fragments = boxes_in(teller.take())
        self.assertEqual([box[COMMAND] for box in fragments], [FRAGMENT] * 4)
        whole = [joiner.feed(box) for box in fragments]
        self.assertEqual(whole[:-1], [None] * 3)
        assert whole[-1] is not None
        arguments = codec_of(RaftMessages).read_arguments(whole[-1])
        self.assertTrue(arguments["messages"] == said(1, 3 * MIB)["messages"])
        self.assertNotIn(ASK, whole[-1])

    def test_whole(self) -> None:
        """Else a peer that cannot join fragments gets them all the same."""
        teller = self.teller(joins=False)
        self.assertTrue(self.tell(teller, 1, 3 * MIB))
        (box,) = boxes_in(teller.take())
        self.assertEqual(box[COMMAND], b"RaftMessages")

    def test_order(self) -> None:
        """Else what was told overtakes a request that was made before, or the other way round:
        also when all of it has waited."""
        for is_full in (False, True):
            teller = self.teller()
            if is_full:
                self.assertTrue(self.tell(teller, 99, 2 * TRANSPORT_BYTES_MAX))
            for number in range(6):
                if number % 2:
                    self.assertTrue(self.tell(teller, number))
                else:
                    call = teller.protocol.call(Get, {"key": b"%d" % number}, SECONDS)
                    call.addErrback(lambda _: None)
            boxes = boxes_in(teller.take())[is_full:]
            seen = [box.get(b"key", box.get(b"messages", b""))[:1] for box in boxes]
            self.assertEqual(seen, [b"%d" % number for number in range(6)])

    def test_in_a_turn(self) -> None:
        """Else each message of a turn is a write of its own; or what is held back has no limit."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        self.turn.open()
        sent = [number for number in range(1000) if self.tell(teller, number, 1000)]
        self.assertEqual(teller.written, 0)
        self.assertGreater(len(sent), 90)
        self.assertLess(len(sent), 100)
        self.turn.close()
        self.assertEqual(numbers(boxes_in(teller.take())), sent)
        self.turn.open()
        self.assertTrue(self.tell(teller, 1001, 1000))
        self.turn.close()

    def test_lost_in_a_turn(self) -> None:
        """Else a link is blocked for ever by what it held back when its connection was lost."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        self.turn.open()
        while self.tell(teller, 0, 1000):
            pass
        teller.go()
        self.turn.close()
        self.assertFalse(self.tell(teller))
        self.assertEqual(teller.written, 0)

    def test_lost_while_it_waits(self) -> None:
        """Else what was told to a peer that is gone stays in memory, or is counted on."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        while self.tell(teller, 0, 1000):
            pass
        outbox = teller.protocol._outbox
        self.assertGreater(outbox.small_told_bytes, 90_000)
        teller.go()
        self.assertEqual((outbox.small_told_bytes, outbox.unread_bytes), (0, 0))

    def test_calls_do_not_count(self) -> None:
        """Else requests that wait keep the messages away that they wait for."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        for _ in range(20):
            put = {"key": b"k", "value": b"v" * 50_000}
            teller.protocol.call(Put, put, SECONDS).addErrback(lambda _: None)
        self.assertTrue(self.tell(teller))

    def test_withdrawn_calls(self) -> None:
        """Else a call whose time is up takes what was told with it, or the count goes wrong."""
        teller = self.teller(tell_bytes_unsent_max=100_000)
        self.assertTrue(self.tell(teller, 1, 2 * TRANSPORT_BYTES_MAX))
        call = teller.protocol.call(Put, {"key": b"k", "value": b"v"}, SECONDS)
        self.assertTrue(self.tell(teller, 2))
        call.cancel()
        self.failureResultOf(call)
        self.assertEqual(numbers(boxes_in(teller.take())), [1, 2])
        self.assertEqual(teller.protocol._outbox.small_told_bytes, 0)

    def test_by_who_answers(self) -> None:
        """Else who tells something on a connection that it answers on is cut off as one that does
        not read, before there is too much."""
        listener = self.listener(answer_bytes_unread_max=MIB)
        with warnings() as lines:
            while self.tell(listener, 0, 10_000):
                pass
        self.assertFalse(listener.aborted, lines)
        self.assertLess(listener.protocol._outbox.unread_bytes, MIB + TRANSPORT_BYTES_MAX)


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

    def test_in_fragments(self) -> None:
        """Else a large entry never arrives."""
        teller, listener = self.teller(), self.listener()
        self.assertTrue(self.tell(teller, 1, 3 * MIB))
        listener.say(teller.take())
        self.assertEqual([len(each["messages"]) for each in self.told], [3 * MIB + 2])
        self.assertEqual(listener.take(), b"")

    def test_malformed(self) -> None:
        """Else a node that cannot be understood is thought to be silent, and nobody knows why."""
        listener = self.listener()
        box = {COMMAND: b"RaftMessages", b"messages": b"m"}
        with warnings() as lines:
            listener.say(write_box(box))
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("cluster is missing", lines[0])
        self.assertEqual(listener.take(), b"")
        self.assert_alive(listener)

    def test_too_large(self) -> None:
        """The same, for one that is over the limit of a box."""
        listener = self.listener(boxes=BoxLimits(box_bytes_max=2000, box_pairs_max=20))
        teller = self.teller()
        self.assertTrue(self.tell(teller, 1, 5000))
        with warnings() as lines:
            listener.say(teller.take())
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("box_bytes_max=2000", lines[0])
        self.assertEqual(self.told, [])
        self.assert_alive(listener)

    def test_a_bug(self) -> None:
        """Else a bug in what is done with Raft messages goes unseen, or ends the connection."""
        listener = self.listener()
        self.error = ZeroDivisionError("a bug")
        listener.say(self.tells(1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(listener.take(), b"")
        self.assert_alive(listener)

    def test_done_later(self) -> None:
        """Else what is told piles up without a limit while it is worked on."""
        self.answer = Deferred()
        listener = self.listener()
        listener.say(self.tells(1))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(listener.protocol.unanswered, 0)

    def test_though_much_is_in_flight(self) -> None:
        """Else writes that wait for a majority keep the very messages out that they wait for, and
        all of them fail when their time is up."""
        listener = self.listener(requests_in_flight_max=3)
        for tag in range(4):
            listener.say(ask(Put, tag, key=b"k", value=b"v"))
        (box,) = boxes_in(listener.take())
        self.assertEqual(error_in(box).code, "OVERLOADED")
        listener.say(self.tells(1))
        self.assertEqual(len(self.told), 1)

    def test_asked(self) -> None:
        """Else a stock client that sends the command as it sends all others waits for ever."""
        listener = self.listener()
        listener.say(ask(RaftMessages, 5, cluster=CLUSTER, messages=b""))
        self.assertEqual(boxes_in(listener.take()), [{ANSWER: b"5"}])

    def test_unknown(self) -> None:
        """Else anybody can fill the log of a node with a command that is none."""
        listener = self.listener()
        with capturedLogs() as events:
            listener.say(write_box({COMMAND: b"Nonsense"}) * 10)
        self.assertEqual(complaints(events), [])
        self.assert_alive(listener)

    def assert_alive(self, listener: Transport) -> None:
        """It goes on answering."""
        self.assertFalse(listener.aborted)
        listener.say(ask(Ping, 9))
        self.assertEqual(boxes_in(listener.take()), [{ANSWER: b"9"}])


class ShortWayTests(ListenerTests):
    """The same, as our nodes tell it: taken where it lies in the stream."""

    more: ClassVar[Arguments] = {"willing": True}
    knows_short_way = True

    def ordinary(self, listener: Transport) -> int:
        """How many boxes have been cut out of the stream."""
        return int(listener.protocol._intake.reader.boxes)

    def test_in_place(self) -> None:
        """Else all of this is for nothing."""
        listener = self.listener()
        listener.say(self.tells(1, 2))
        self.assertEqual(self.told, [said(number) | self.more for number in (1, 2)])
        self.assertEqual(self.ordinary(listener), 0)

    def test_among_others(self) -> None:
        """Else what is told behind something else is lost, or comes before it."""
        listener = self.listener()
        listener.say(self.tells(1) + ask(Ping, 1) + self.tells(2) + self.tells(3)[:-1])
        self.assertEqual([each["messages"] for each in self.told], [b"1:", b"2:"])
        listener.say(self.tells(3)[-1:] + self.tells(4))
        self.assertEqual([each["messages"] for each in self.told], [b"1:", b"2:", b"3:", b"4:"])

    def test_what_it_may_not_tell(self) -> None:
        """Else an end that takes no Raft messages fails at them, and does not say so."""
        listener = self.told_by(responders({Ping: lambda _, __: {}}))
        listener.say(self.tells(1) + ask(Ping, 1))
        self.assertEqual(boxes_in(listener.take()), [{ANSWER: b"1"}])

    def test_after_a_drop(self) -> None:
        """Else a replica hears what comes from a peer that was given up."""

        def drop(connection: Connection, arguments: Arguments) -> Arguments:
            self.told.append(arguments)
            connection.drop("for a test")
            return {}

        self.told_by(responders({RaftMessages: drop})).say(self.tells(1, 2))
        self.assertEqual(len(self.told), 1)
