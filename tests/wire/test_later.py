"""Frequent requests whose answers come later: they count, wait and end like all others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import Unavailable
from kvtwist.wire import frequent
from kvtwist.wire.boxes import ANSWER, BOX_BYTES, ERROR_CODE, ERROR_DESCRIPTION, BoxReader
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import CompareAndSet, Get, Ping, Put
from kvtwist.wire.connection import Arguments, Connection, Unanswered, responders
from kvtwist.wire.deadlines import TICK_SECONDS, Deadlines
from kvtwist.wire.limits import DEFAULT_LIMITS, ConnectionLimits
from kvtwist.wire.sending import CORKED_BYTES_MAX
from kvtwist.wire.turn import Turn
from tests.wire.loopback import Loopback, RawPeer, cut_at
from tests.wire.properties import examples
from tests.wire.test_flow import Transport
from tests.wire.test_short_way import APPLIED, get, put

SECONDS = 5.0


class Reading(Unanswered):
    """A get that waits."""

    __slots__ = ()


class Writing(Unanswered):
    """A put that waits."""

    __slots__ = ()
    is_write = True


class Disk:
    """Answers nothing at once; a key that begins with ``?`` has to take the ordinary way.

    :ivar waiting: what is to be answered, in its order: each is called with the value of a get.
    :ivar short, ordinary: how many requests took which way.
    """

    def __init__(self, limits: ConnectionLimits = DEFAULT_LIMITS, is_short: bool = True) -> None:
        self.waiting: list[Callable[[bytes | KvError], None]] = []
        self.short = 0
        self.ordinary = 0
        self.held: list[int] = []
        self.clock = Clock()
        self.turn = Turn()
        self.server = Connection(
            Deadlines(self.clock),
            responders(
                {
                    Get: self.ordinarily,
                    Put: self.ordinarily,
                    CompareAndSet: lambda _, __: Deferred(),
                    Ping: lambda _, __: {},
                }
            ),
            limits,
            account=self.held.append,
            turn=self.turn,
            frequent_responder=self.shortly if is_short else None,
        )

    def shortly(self, key: bytes, value: bytes | None, _: bytes | None) -> Unanswered | None:
        """The short way."""
        if key.startswith(b"?"):
            return None
        self.short += 1
        later = Reading() if value is None else Writing()

        def settle(what: bytes | KvError) -> None:
            if isinstance(what, KvError):
                later.fail(what)
            elif value is None:
                later.answer(frequent.get_answer(7, what, APPLIED))
            else:
                later.answer(frequent.put_answer(8, APPLIED))

        self.waiting.append(settle)
        return later

    def ordinarily(self, _: Connection, said: Arguments) -> Deferred[Arguments]:
        """The ordinary way."""
        self.ordinary += 1
        later: Deferred[Arguments] = Deferred()

        def settle(what: bytes | KvError) -> None:
            if isinstance(what, KvError):
                later.errback(Failure(what))
            elif "value" not in said:
                later.callback({"version": 7, "value": what, "applied": APPLIED})
            else:
                later.callback({"version": 8, "applied": APPLIED})

        self.waiting.append(settle)
        return later

    def settle(self, value: bytes = b"v") -> None:
        """Answer the one that waits longest."""
        self.waiting.pop(0)(value)

    def ways(self) -> tuple[int, int]:
        """How many requests have taken the short way, and the ordinary one."""
        return self.short, self.ordinary


KvError = Unavailable
"""The error that a `Disk` may be told."""


class LaterTests(SynchronousTestCase):
    """A server that answers its frequent requests later."""

    def join(self, limits: ConnectionLimits = DEFAULT_LIMITS) -> tuple[RawPeer, Loopback, Disk]:
        """A peer that says anything, and the server."""
        peer, disk = RawPeer(), Disk(limits)
        return peer, Loopback(peer, disk.server), disk

    def test_answers(self) -> None:
        """Else a durable node pays a dictionary, a coroutine and a Deferred for each request. They
        are answered in whatever order they are done."""
        peer, wire, disk = self.join()
        for request in (get(b"1", b"k"), put(b"2", b"k", b"v"), get(b"3", b"k")):
            peer.say_bytes(request)
            wire.pump()
        self.assertEqual((disk.ways(), disk.server.unanswered), ((3, 0), 3))
        disk.waiting.reverse()
        for _ in range(3):
            disk.waiting[0](b"v")
            disk.settle(b"a second time")
        wire.pump()
        self.assertEqual([box[ANSWER] for box in peer.boxes], [b"3", b"2", b"1"])
        self.assertEqual([box.get(b"value") for box in peer.boxes], [b"v", None, b"v"])
        self.assertEqual(disk.server.unanswered, 0)

    def test_errors(self) -> None:
        """Else what went wrong after all is silence."""
        peer, wire, disk = self.join()
        peer.say_bytes(put(b"1", b"k", b"v"))
        wire.pump()
        disk.waiting[0](Unavailable("no majority"))
        disk.waiting[0](b"too late")
        wire.pump()
        self.assertEqual([box[ERROR_CODE] for box in peer.boxes], [b"UNAVAILABLE"])
        self.assertEqual(disk.server.unanswered, 0)

    def test_requests_in_flight(self) -> None:
        """T5: else what waits for a disk is bounded by nothing. The ordinary way, which is the only
        one that refuses, counts the same requests."""
        for others in (0, 1):
            peer, wire, disk = self.join(replace(DEFAULT_LIMITS, requests_in_flight_max=3))
            wanted = {"key": b"k", "value": b"v", "version": 0}
            peer.say_bytes(codec_of(CompareAndSet).write_request(b"0", wanted) * others)
            wire.pump()
            peer.say_bytes(b"".join(put(b"%d" % at, b"k", b"v") for at in range(3 - others)))
            wire.pump()
            self.assertEqual((disk.ways(), peer.boxes), ((3 - others, 0), []))
            peer.say_bytes(put(b"9", b"k", b"v"))
            wire.pump()
            self.assertEqual([box[ERROR_CODE] for box in peer.boxes], [b"OVERLOADED"])
            self.assertIn(b"requests_in_flight_max", peer.boxes[0][ERROR_DESCRIPTION])
            self.assertEqual(disk.ways(), (3 - others, 0))
            disk.settle()
            peer.say_bytes(put(b"10", b"k", b"v"))
            wire.pump()
            self.assertEqual(disk.ways(), (4 - others, 0), "there is room again")

    def test_bytes_in_flight(self) -> None:
        """T5: the same for what they weigh, to the byte; one alone may weigh more."""
        size = frequent.value_bytes((b"1", b"k", b"v" * 100, None, b"5000", 0))
        for limit, refused in ((2 * size, False), (2 * size - 1, True)):
            peer, wire, disk = self.join(replace(DEFAULT_LIMITS, request_bytes_in_flight_max=limit))
            for tag in (b"1", b"2"):
                peer.say_bytes(put(tag, b"k", b"v" * 100))
                wire.pump()
            self.assertEqual([ERROR_CODE in box for box in peer.boxes], [True] * refused)
            self.assertEqual(len(disk.waiting), 2 - refused)
        peer, wire, disk = self.join(replace(DEFAULT_LIMITS, request_bytes_in_flight_max=1))
        peer.say_bytes(put(b"1", b"k", b"v"))
        wire.pump()
        self.assertEqual(disk.ways(), (1, 0))

    def test_their_time(self) -> None:
        """Promise 5: each operation ends by its deadline. A write may have been done all the same;
        and nobody gets a second answer."""
        peer, wire, disk = self.join()
        peer.say_bytes(put(b"1", b"k", b"v") + get(b"2", b"k"))
        wire.pump()
        disk.clock.pump([TICK_SECONDS] * int((SECONDS - TICK_SECONDS) / TICK_SECONDS))
        wire.pump()
        self.assertEqual(peer.boxes, [], "not before it")
        disk.clock.pump([TICK_SECONDS] * 2)
        wire.pump()
        codes = [box[ERROR_CODE] for box in peer.boxes]
        self.assertEqual(codes, [b"OUTCOME_UNKNOWN", b"UNAVAILABLE"])
        self.assertEqual(disk.server.unanswered, 0)
        disk.settle()
        disk.settle()
        wire.pump()
        self.assertEqual(len(peer.boxes), 2)
        self.assertEqual(disk.clock.getDelayedCalls(), [], "nothing is left in the reactor")

    def test_whose_time_is_longest(self) -> None:
        """Else a peer keeps what it asks for in a node's memory for ever."""
        peer, wire, disk = self.join()
        end = frequent.request_end(10**15)
        peer.say_bytes(frequent.ASK_HEADS[1] + b"1" + frequent.get_body(b"k", end))
        wire.pump()
        disk.clock.pump([1.0] * 61)
        self.assertEqual(disk.server.unanswered, 0)

    def test_no_time(self) -> None:
        """No time limit is the usual one, as on the ordinary way."""
        peer, wire, disk = self.join()
        end = frequent.request_end(0)
        peer.say_bytes(frequent.ASK_HEADS[1] + b"1" + frequent.get_body(b"k", end))
        wire.pump()
        disk.clock.pump([TICK_SECONDS] * 20)
        self.assertEqual(disk.server.unanswered, 1)

    def test_lost_connection(self) -> None:
        """Else a node that is stopped waits for the requests of peers that are gone, and what they
        asked for stays in memory."""
        peer, wire, disk = self.join()
        peer.say_bytes(put(b"1", b"k", b"v") + get(b"2", b"k"))
        wire.pump()
        disk.server.drop("for a test")
        wire.pump()
        self.assertEqual(disk.server.unanswered, 0)
        self.assertEqual(disk.clock.getDelayedCalls(), [])
        disk.settle()
        disk.settle()
        self.assertEqual(disk.server.unanswered, 0)

    def test_half_closed(self) -> None:
        """A peer that says nothing more and reads on gets what it has asked for, then the end."""
        for in_turn in (False, True):
            transport = Transport((disk := Disk()).server)
            transport.say(put(b"1", b"k", b"v") + get(b"2", b"k"))
            disk.server.readConnectionLost()
            if in_turn:
                disk.turn.open()
            disk.settle()
            self.assertFalse(transport.disconnecting)
            disk.settle()
            disk.turn.close()
            self.assertTrue(transport.disconnecting)
            self.assertEqual(len(BoxReader(DEFAULT_LIMITS.boxes).feed(transport.take())), 2)

    def test_no_room_for_answers(self) -> None:
        """T5: else answers pile up for a peer that does not read, and it is cut off for them."""
        limits = replace(DEFAULT_LIMITS, answer_bytes_unread_max=100_000)
        transport = Transport((disk := Disk(limits)).server)
        for at in range(8):
            transport.say(get(b"%d" % at, b"k"))
        for _ in range(8):
            disk.settle(b"v" * 50_000)
        self.assertEqual(disk.server.why_dropped, "")
        boxes = BoxReader(DEFAULT_LIMITS.boxes).feed(transport.take())
        codes = [box.get(ERROR_CODE) for box in boxes]
        self.assertEqual(len(codes), 8)
        self.assertGreater(codes.count(b"OUTCOME_UNKNOWN"), 2)
        self.assertGreater(codes.count(None), 1)

    def test_within_a_turn(self) -> None:
        """What one sync brings about leaves in one write; and not before the turn's end is said
        what is held, instead of once for each."""
        peer, wire, disk = self.join()
        peer.say_bytes(b"".join(put(b"%d" % at, b"k", b"v") for at in range(10)))
        wire.pump()
        self.assertGreater(disk.held[-1], 10 * BOX_BYTES)
        said = len(disk.held)
        disk.turn.open()
        for _ in range(9):
            disk.settle()
        self.assertEqual(len(disk.held), said)
        disk.turn.close()
        self.assertEqual(len(wire.server.writes), 1)
        self.assertLess(disk.held[-1], 2 * BOX_BYTES)
        disk.settle()
        self.assertEqual(disk.held[-1], 0)

    def test_more_than_a_turn_may_hold(self) -> None:
        """Else large answers that come together are all in memory before one of them leaves, and
        nothing sees that the peer does not take them (T5)."""
        limits = replace(DEFAULT_LIMITS, answer_bytes_unread_max=200_000)
        transport = Transport((disk := Disk(limits)).server)
        for at in range(50):
            transport.say(get(b"%d" % at, b"k"))
        disk.turn.open()
        for _ in range(50):
            disk.settle(b"v" * 50_000)
        self.assertLess(transport.written, 500_000 + CORKED_BYTES_MAX)
        self.assertGreater(transport.written, 0)
        disk.turn.close()
        self.assertEqual(disk.server.why_dropped, "")
        boxes = BoxReader(DEFAULT_LIMITS.boxes).feed(transport.take())
        self.assertEqual(len(boxes), 50)
        self.assertGreater(sum(ERROR_CODE in box for box in boxes), 30)

    @given(st.data())
    @examples(100)
    def test_nobody_can_tell(self, data: st.DataObject) -> None:
        """The same requests get the same bytes, whichever way, however they are cut, whatever order
        they are done in, and whatever the limits are."""
        requests = st.sampled_from(
            [
                lambda tag: get(tag, b"k"),
                lambda tag: put(tag, b"k", b"v" * 20),
                lambda tag: put(tag, b"?", b""),
                lambda tag: codec_of(Ping).write_request(tag, {}),
                lambda tag: codec_of(Get).write_request(tag, {"key": b"k"}),
            ]
        )
        asked: list[Callable[[bytes], bytes]] = data.draw(st.lists(requests, max_size=12))
        limits = replace(
            DEFAULT_LIMITS,
            requests_in_flight_max=data.draw(st.integers(1, 12)),
            request_bytes_in_flight_max=data.draw(st.sampled_from([1, 30, 60, 100, 1000])),
        )
        stream = b"".join(one(b"%x" % at) for at, one in enumerate(asked))
        places = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
        done = data.draw(st.lists(st.tuples(st.integers(0, 11), st.booleans()), max_size=12))
        heard, held = [], []
        for is_short in (True, False):
            peer, disk = RawPeer(), Disk(limits, is_short)
            wire = Loopback(peer, disk.server, lambda sent: cut_at(sent, places))
            peer.say_bytes(stream)
            wire.pump()
            for at, is_error in done:
                if disk.waiting:
                    settle = disk.waiting.pop(at % len(disk.waiting))
                    settle(Unavailable("for a test") if is_error else b"value")
            heard.append(b"".join(wire.server.writes))
            held.append((disk.server.unanswered, disk.held[-1:]))
        self.assertEqual(heard[0], heard[1])
        self.assertEqual(held[0], held[1])
