"""The short way of frequent requests through a connection, at either end: it is never seen, but by
a clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from sys import getsizeof
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import KvtwistError, NoAnswer, OutcomeUnknown, Refused
from kvtwist.wire import frequent
from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    BoxLimits,
    BoxReader,
)
from kvtwist.wire.call import Call
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import CompareAndSet, Get, Ping, Put
from kvtwist.wire.connection import Arguments, Connection, responders
from kvtwist.wire.deadlines import TICK_SECONDS, Deadlines
from kvtwist.wire.limits import DEFAULT_LIMITS, ConnectionLimits
from kvtwist.wire.sending import CORKED_BYTES_MAX
from kvtwist.wire.turn import Turn
from tests.wire.loopback import Loopback, RawPeer, cut_at
from tests.wire.properties import examples
from tests.wire.test_flow import Transport

SECONDS = 5.0
APPLIED = b"a" * frequent.APPLIED_BYTES
END = frequent.request_end(5000)


def get(tag: bytes, key: bytes) -> bytes:
    """A frequent get."""
    return frequent.ASK_HEADS[len(tag)] + tag + frequent.get_body(key, END)


def put(tag: bytes, key: bytes, value: bytes) -> bytes:
    """A frequent put."""
    return frequent.ASK_HEADS[len(tag)] + tag + frequent.put_body(key, value, END)


class Keys:
    """A store that answers both ways, with the same bytes.

    :ivar short, ordinary: how many requests took which way.
    :ivar late: what `CompareAndSet`s wait for.
    """

    def __init__(self) -> None:
        self.stored: dict[bytes, tuple[int, bytes]] = {}
        self.revision = 0
        self.short = 0
        self.ordinary = 0
        self.late: list[Deferred[Arguments]] = []

    def answer(self, key: bytes, value: bytes | None, _: bytes | None) -> bytes | None:
        """The short way; a key that begins with ``?`` may not take it, with ``!`` has a bug."""
        if key.startswith(b"?"):
            return None
        if key.startswith(b"!"):
            raise ZeroDivisionError
        self.short += 1
        if value is not None:
            self.put(key, value)
            return frequent.put_answer(self.revision, APPLIED)
        if key not in self.stored:
            return frequent.nothing_answer(APPLIED)
        return frequent.get_answer(*self.stored[key], APPLIED)

    def put(self, key: bytes, value: bytes) -> None:
        """Write."""
        self.revision += 1
        self.stored[key] = self.revision, value

    def server(self, limits: ConnectionLimits = DEFAULT_LIMITS, short: bool = True) -> Connection:
        """A connection of this store's."""

        def ordinary_get(_: Connection, said: Arguments) -> Arguments:
            self.ordinary += 1
            version, value = self.stored.get(said["key"], (0, None))
            return {"version": version, "value": value, "applied": APPLIED}

        def ordinary_put(_: Connection, said: Arguments) -> Arguments:
            self.ordinary += 1
            self.put(said["key"], said["value"])
            return {"version": self.revision, "applied": APPLIED}

        def later(_: Connection, __: Arguments) -> Deferred[Arguments]:
            self.late.append(Deferred())
            return self.late[-1]

        table = responders(
            {Get: ordinary_get, Put: ordinary_put, Ping: lambda _, __: {}, CompareAndSet: later}
        )
        responder = self.answer if short else None
        return Connection(Deadlines(Clock()), table, limits, frequent_responder=responder)


class AnsweringTests(SynchronousTestCase):
    """A server that knows the short way."""

    def setUp(self) -> None:
        self.keys = Keys()

    def join(self, limits: ConnectionLimits = DEFAULT_LIMITS) -> tuple[RawPeer, Loopback]:
        """A peer that says anything, and the server."""
        peer = RawPeer()
        self.server = self.keys.server(limits)
        return peer, Loopback(peer, self.server)

    def ways(self) -> tuple[int, int]:
        """How many requests have taken the short way, and the ordinary one."""
        return self.keys.short, self.keys.ordinary

    def test_short(self) -> None:
        """Else all of this is for nothing: both commands, all answers, in one write."""
        peer, wire = self.join()
        peer.say_bytes(get(b"1", b"k") + put(b"2", b"k", b"v") + get(b"3", b"k"))
        wire.pump()
        self.assertEqual(self.ways(), (3, 0))
        self.assertEqual([box[ANSWER] for box in peer.boxes], [b"1", b"2", b"3"])
        self.assertEqual([box.get(b"value") for box in peer.boxes], [None, None, b"v"])
        self.assertEqual(len(wire.server.writes), 1)

    def test_one_that_may_not(self) -> None:
        """It takes the ordinary way, in its turn, and so do those behind it in the same chunk."""
        peer, wire = self.join()
        peer.say_bytes(put(b"1", b"k", b"v") + put(b"2", b"?", b"v") + get(b"3", b"k"))
        wire.pump()
        self.assertEqual(self.ways(), (1, 2))
        self.assertEqual([box[b"version"] for box in peer.boxes], [b"1", b"2", b"1"])

    def test_while_others_are_worked_on(self) -> None:
        """What is being worked on counts against the limits, and only the ordinary way counts."""
        peer, wire = self.join(replace(DEFAULT_LIMITS, requests_in_flight_max=1))
        wanted = {"key": b"k", "value": b"v", "version": 0}
        peer.say_bytes(codec_of(CompareAndSet).write_request(b"1", wanted))
        wire.pump()
        peer.say_bytes(get(b"2", b"k"))
        wire.pump()
        self.assertEqual(self.ways(), (0, 0))
        self.assertEqual(peer.boxes[0][ERROR_CODE], b"OVERLOADED")
        self.keys.late[0].callback({"done": True, "version": 1})
        peer.say_bytes(get(b"3", b"k"))
        wire.pump()
        self.assertEqual(self.ways(), (1, 0))

    def test_boxes_over_a_limit(self) -> None:
        """Else the limits hold for everybody but our own client (T5)."""
        size = len(put(b"1", b"k", b"v" * 100)) - 2
        for bytes_max, pairs_max, refused in (
            (size + 2, 5, False),
            (size, 5, False),
            (size - 1, 5, True),
            (size + 2, 4, True),
        ):
            limits = BoxLimits(box_bytes_max=bytes_max, box_pairs_max=pairs_max)
            peer, wire = self.join(replace(DEFAULT_LIMITS, boxes=limits))
            peer.say_bytes(put(b"1", b"k", b"v" * 100))
            wire.pump()
            self.assertIs(ERROR in peer.boxes[0], refused, (bytes_max, pairs_max))

    def test_a_request_inside_a_value(self) -> None:
        """Else whoever can write a value, and guess where the stream is cut, writes any key."""
        inside = put(b"2", b"forbidden", b"v")
        outside = put(b"1", b"k", inside)
        peer, wire = self.join()
        at = outside.index(inside)
        for chunk in (outside[:at], outside[at:]):
            peer.say_bytes(chunk)
            wire.pump()
        self.assertEqual(self.keys.stored, {b"k": (1, inside)})

    def test_bugs(self) -> None:
        """T4: else one request that hits a bug takes all others on its connection with it."""
        peer, wire = self.join()
        peer.say_bytes(put(b"1", b"!", b"v") + get(b"2", b"!") + get(b"3", b"k"))
        wire.pump()
        self.assertEqual([box.get(ERROR_CODE) for box in peer.boxes], [b"NODE_FAULT"] * 2 + [None])
        self.assertIn(b"Put", peer.boxes[0][ERROR_DESCRIPTION])
        self.assertIn(b"Get", peer.boxes[1][ERROR_DESCRIPTION])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_after_the_drop(self) -> None:
        """Else what was still in the socket is carried out for a peer that we have given up."""
        self.join()
        self.server.drop("enough")
        self.server.dataReceived(put(b"1", b"k", b"v"))
        self.assertEqual(self.keys.stored, {})

    def test_garbage_behind(self) -> None:
        """A stream that turns into something else is over, as ever."""
        peer, wire = self.join()
        peer.say_bytes(put(b"1", b"k", b"v") + b"\1\1")
        wire.pump()
        self.assertIn("does not speak our protocol", self.server.why_dropped)

    def test_answers_that_are_not_taken(self) -> None:
        """Else a peer that asks and does not read fills the node's memory (T5)."""
        self.keys.put(b"k", b"v" * 50_000)
        transport = Transport(self.keys.server())
        transport.protocol.dataReceived(get(b"1", b"k") * 1000)
        self.assertFalse(transport.is_reading)
        self.assertLess(transport.written, 2 * CORKED_BYTES_MAX + FileDescriptor.bufferSize)
        answers = BoxReader(DEFAULT_LIMITS.boxes).feed(transport.take())
        self.assertEqual(len(answers), 1000)
        self.assertTrue(transport.is_reading)

    def test_within_anothers_turn(self) -> None:
        """Else what is read while another connection is read ends the other's turn, and each box
        that follows is a write of its own."""
        turn = Turn()
        table = responders({Ping: lambda _, __: {}})
        transport = Transport(Connection(Deadlines(Clock()), table, turn=turn))
        turn.open()
        transport.protocol.dataReceived(codec_of(Ping).write_request(b"1", {}))
        self.assertTrue(turn.is_open)
        self.assertEqual(transport.written, 0)
        turn.close()
        self.assertGreater(transport.written, 0)

    def test_dropped_among_requests(self) -> None:
        """Else a node goes on writing for a peer that it has given up, who will never know."""
        server, done = self.keys.server(), list[bytes]()

        def respond(key: bytes, _: bytes | None, __: bytes | None) -> bytes:
            done.append(key)
            server.drop("for a test")
            return frequent.nothing_answer(APPLIED)

        server._frequent_responder = respond
        transport = Transport(server)
        transport.protocol.dataReceived(put(b"1", b"k", b"v") + put(b"2", b"l", b"v"))
        self.assertEqual((done, transport.written), ([b"k"], 0))

    @given(st.data())
    @examples(60)
    def test_nobody_can_tell(self, data: st.DataObject) -> None:
        """The same bytes are answered with the same bytes, whichever way, however they are cut."""
        requests = st.sampled_from(
            [
                lambda tag: get(tag, b"k"),
                lambda tag: put(tag, b"k", b"v" + tag),
                lambda tag: put(tag, b"?", b""),
                lambda tag: get(tag, b"none"),
                lambda tag: codec_of(Ping).write_request(tag, {}),
                lambda tag: codec_of(Get).write_request(tag, {"key": b"k"}),
            ]
        )
        asked: list[Callable[[bytes], bytes]] = data.draw(st.lists(requests, max_size=12))
        stream = b"".join(one(b"%x" % at) for at, one in enumerate(asked))
        places = data.draw(st.lists(st.integers(0, len(stream)), max_size=5))
        heard = []
        for short in (True, False):
            peer, server = RawPeer(), Keys().server(short=short)
            wire = Loopback(peer, server, lambda sent: cut_at(sent, places))
            peer.say_bytes(stream)
            wire.pump()
            heard.append(b"".join(wire.server.writes))
        self.assertEqual(heard[0], heard[1])
        self.assertEqual(heard[0].count(ANSWER), len(asked))


class Asked(Call):
    """A frequent call that notes what it is told.

    :ivar told: what that was.
    """

    is_frequent = True

    def __init__(self, deadline: float = SECONDS) -> None:
        super().__init__(codec_of(Get), deadline, SECONDS)
        self.told: list[Any] = []
        self.addErrback(lambda failure: failure.trap(CancelledError))

    def seen(self, version: int, value: bytes | None) -> None:
        self.told.append((version, value))
        self.callback(None)

    def answered(self, answer: Arguments) -> None:
        self.told.append(("ordinary", answer["version"], answer["value"]))
        self.callback(None)

    def failed(self, error: KvtwistError) -> None:
        self.told.append(error)
        self.callback(None)


class AskingTests(SynchronousTestCase):
    """A client's connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.turn = Turn()
        self.client = self.connection()
        self.peer = RawPeer()
        self.wire = Loopback(self.client, self.peer)

    def connection(self, limits: ConnectionLimits = DEFAULT_LIMITS) -> Connection:
        """A connection of the client's."""
        return Connection(Deadlines(self.clock), None, limits, turn=self.turn)

    def ask(self, call: Asked, key: bytes = b"k") -> bool:
        """Send it."""
        return self.client.ask(call, frequent.get_body(key, END))

    def asked(self) -> Asked:
        """A call that has reached the peer."""
        call = Asked(self.clock.seconds() + SECONDS)
        self.assertTrue(self.ask(call))
        self.wire.pump()
        return call

    def tag(self) -> bytes:
        """The tag of the last request."""
        return self.peer.boxes[-1][ASK]

    def say(self, tag: bytes, body: bytes) -> None:
        """A frequent answer."""
        self.peer.say_bytes(frequent.ANSWER_HEADS[len(tag)] + tag + body)
        self.wire.pump()

    def test_answer(self) -> None:
        """Read in place, and the call is over."""
        call = self.asked()
        self.assertEqual(self.peer.boxes[-1][COMMAND], b"Get")
        self.say(self.tag(), frequent.get_answer(7, b"v", APPLIED))
        self.assertEqual(call.told, [(7, b"v")])
        self.say(self.tag(), frequent.get_answer(8, b"w", APPLIED))
        self.assertEqual(call.told, [(7, b"v")], "a second answer is passed over")

    def test_other_forms(self) -> None:
        """Another node, another release: the answer is understood all the same."""
        call = self.asked()
        self.peer.say({b"new": b"", b"value": b"v", b"version": b"7", ANSWER: self.tag()})
        self.wire.pump()
        self.assertEqual(call.told, [("ordinary", 7, b"v")])

    def test_ordinary_calls(self) -> None:
        """A call that knows only dictionaries gets one, whatever its answer looks like."""
        call = self.client.call(Get, {"key": b"k"}, SECONDS)
        self.wire.pump()
        self.say(self.tag(), frequent.get_answer(7, b"v", APPLIED))
        answer = self.successResultOf(call)
        self.assertEqual(answer, {"version": 7, "value": b"v", "applied": APPLIED, "leader": None})

    def test_errors(self) -> None:
        """An error, a malformed answer and one over a limit each say what they are."""
        call = self.asked()
        box = {ERROR: self.tag(), ERROR_CODE: b"REFUSED", ERROR_DESCRIPTION: b"no"}
        self.peer.say(box)
        self.wire.pump()
        self.assertIsInstance(call.told[0], Refused)
        for body in (
            frequent.get_answer(7, b"v", APPLIED).replace(b"\0\x017", b"\0\x01x"),
            frequent.get_answer(7, b"v" * 500, APPLIED),
        ):
            self.client, self.peer = self.connection(SMALL), RawPeer()
            self.wire = Loopback(self.client, self.peer)
            call = self.asked()
            self.say(self.tag(), body)
            (error,) = call.told
            self.assertIsInstance(error, OutcomeUnknown)
        self.assertIn("box_bytes_max", str(error))

    def test_deadline(self) -> None:
        """Else a caller waits for ever for a node that is frozen (T7)."""
        call = self.asked()
        self.clock.pump([TICK_SECONDS] * int(SECONDS / TICK_SECONDS - 1))
        self.assertEqual(call.told, [])
        self.clock.pump([TICK_SECONDS] * 2)
        self.assertIsInstance(call.told[0], NoAnswer)
        self.say(self.tag(), frequent.get_answer(7, b"v", APPLIED))
        self.assertEqual(len(call.told), 1, "too late")

    def test_cancel(self) -> None:
        """Nobody waits any more: the answer is passed over, and the room is free again."""
        call = self.asked()
        call.cancel()
        self.say(self.tag(), frequent.get_answer(7, b"v", APPLIED))
        self.assertEqual(call.told, [])
        self.clock.advance(TICK_SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_connection_lost(self) -> None:
        """What had left may have been done; what comes after has not left."""
        call = self.asked()
        self.wire.lose()
        self.assertIsInstance(call.told[0], NoAnswer)
        self.assertFalse(self.ask(Asked()))

    def test_no_room(self) -> None:
        """Each limit at itself and one more (T7); what is refused has not been sent."""
        body_bytes = len(frequent.get_body(b"k", END))
        for limits in (
            replace(DEFAULT_LIMITS, requests_in_flight_max=2),
            replace(DEFAULT_LIMITS, request_bytes_in_flight_max=2 * body_bytes),
        ):
            self.client, self.peer = self.connection(limits), RawPeer()
            self.wire = Loopback(self.client, self.peer)
            calls = [Asked() for _ in range(3)]
            self.assertEqual([self.ask(call) for call in calls], [True, True, False])
            self.wire.pump()
            self.assertEqual(len(self.peer.boxes), 2)
            self.say(self.tag(), frequent.nothing_answer(APPLIED))
            self.assertTrue(self.ask(calls[2]), "there is room again")

    def test_a_transport_that_has_enough(self) -> None:
        """The ordinary way knows what may still wait for it; the short way does not ask."""
        self.client = self.connection()
        Transport(self.client)
        self.assertTrue(self.ask(Asked()))
        self.client.call(Put, {"key": b"k", "value": b"v" * 100_000}, SECONDS)
        self.assertFalse(self.ask(Asked()))

    def test_dropped_by_a_callback(self) -> None:
        """Else a connection that its owner has given up goes on delivering."""
        first, second = self.asked(), Asked()
        self.assertTrue(self.ask(second))
        self.wire.pump()
        first.addCallback(lambda _: self.client.drop("enough"))
        answers = [
            frequent.ANSWER_HEADS[len(box[ASK])] + box[ASK] + frequent.nothing_answer(APPLIED)
            for box in self.peer.boxes
        ]
        self.peer.say_bytes(b"".join(answers))
        self.wire.pump()
        self.assertEqual(first.told, [(0, None)])
        self.assertIsInstance(second.told[0], NoAnswer)

    def test_one_write_for_each_connection(self) -> None:
        """Requests that answers bring about go out together, on whatever connection."""
        other, other_peer = self.connection(), RawPeer()
        other_wire = Loopback(other, other_peer)
        calls = [self.asked() for _ in range(4)]
        for call in calls:
            call.addCallback(lambda _: other.ask(Asked(), frequent.get_body(b"k", END)))
        before = len(other_wire.client.writes)
        self.peer.say_bytes(
            b"".join(
                frequent.ANSWER_HEADS[1] + box[ASK] + frequent.nothing_answer(APPLIED)
                for box in self.peer.boxes
            )
        )
        self.wire.pump()
        self.assertEqual(len(other_wire.client.writes) - before, 1)
        other_wire.pump()
        self.assertEqual(len(other_peer.boxes), 4)


SMALL = replace(DEFAULT_LIMITS, boxes=BoxLimits(box_bytes_max=300, box_pairs_max=20))


class AccountTests(SynchronousTestCase):
    """What is held is known also when another connection's turn has brought it about."""

    def test_requests_in_work(self) -> None:
        """T5: else the smallest requests, of which thousands are worked on, count next to nothing,
        and are dictionaries all the same."""
        held: list[int] = []
        table = responders({CompareAndSet: lambda _, __: Deferred()})
        server = Connection(Deadlines(Clock()), table, account=held.append)
        transport = Transport(server)
        request = codec_of(CompareAndSet).write_request(
            b"1", {"key": b"", "value": b"", "version": 0}
        )
        transport.say(request * 100)
        self.assertGreater(held[-1], 100 * getsizeof(BoxReader(SMALL.boxes).feed(request)[0]))

    def test_answers_of_a_turn(self) -> None:
        """Else a node's limit for all connections does not see forwarded answers (T5)."""
        late: Deferred[Arguments] = Deferred()
        held: list[int] = []
        turn = Turn()
        table = responders({CompareAndSet: lambda _, __: late})
        server = Connection(Deadlines(Clock()), table, account=held.append, turn=turn)
        transport = Transport(server)
        wanted = {"key": b"k", "value": b"v", "version": 0}
        server.dataReceived(codec_of(CompareAndSet).write_request(b"1", wanted))
        turn.open()
        late.callback({"done": False, "version": 1, "value": b"v" * 200_000})
        turn.close()
        self.assertGreater(held[-1], 200_000)
        transport.take()
        self.assertEqual(held[-1], 0)
