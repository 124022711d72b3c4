"""Connections: each call ends once, and nothing that a peer says ends one but garbage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from kvtwist.errors import (
    ConfigurationError,
    HelloRefused,
    KvtwistError,
    MalformedRequest,
    NoAnswer,
    NodeFault,
    NotDone,
    NotLeader,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooLarge,
    Unavailable,
    UnknownCommand,
)
from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    Box,
    BoxLimits,
    BoxReader,
)
from kvtwist.wire.commands import (
    CompareAndSet,
    Delete,
    DescribeTopology,
    Fragment,
    Get,
    Hello,
    Ping,
    Put,
    Status,
)
from kvtwist.wire.connection import (
    Arguments,
    Connection,
    Responder,
    responders,
)
from kvtwist.wire.deadlines import TICK_SECONDS, Deadlines
from kvtwist.wire.failures import CLASSES, write_failure
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.intake import SENSELESS_BOXES_MAX
from kvtwist.wire.limits import DEFAULT_LIMITS, ConnectionLimits
from tests.wire.loopback import (
    WIDE_OPEN,
    Cut,
    End,
    Loopback,
    Outcome,
    RawPeer,
    cut_at,
    pieces,
    whole,
)
from tests.wire.properties import examples

SECONDS = 5.0
KEY: Arguments = {"key": b"k"}
SMALL = ConnectionLimits(boxes=BoxLimits(box_bytes_max=2000, box_pairs_max=20))

Pairs = Mapping[bytes, bytes]
Table = Mapping[type[amp.Command], Responder]


def ask(command: type[amp.Command], tag: bytes, **arguments: Any) -> Box:
    """A request, as a box."""
    return {**command.makeArguments(arguments, None), COMMAND: command.commandName, ASK: tag}


def told(said: Arguments) -> Arguments:
    """What an answer or a request says; optional arguments that are missing are no part of it."""
    return {name: value for name, value in said.items() if value is not None}


def complaints(events: Sequence[LogEvent]) -> list[LogEvent]:
    """What was logged for people to look at."""
    return [event for event in events if event["log_level"] >= LogLevel.warn]


class ConnectionTestCase(SynchronousTestCase):
    """A store of a few keys, at one end.

    :ivar late: `CompareAndSet`s that wait until the test answers them.
    :ivar error: what a `Delete` raises, at once.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.stored: dict[bytes, bytes] = {}
        self.late: list[Deferred[Arguments]] = []
        self.error: Exception = Refused("no")
        self.heard: list[Arguments] = []

    def table(self) -> Table:
        """What the store does."""

        def get(_: Connection, said: Arguments) -> Arguments:
            self.heard.append(said)
            return {"version": 1, "value": self.stored.get(said["key"])}

        def put(_: Connection, said: Arguments) -> Arguments:
            self.stored[said["key"]] = said["value"]
            return {"version": 1}

        def delete(_: Connection, said: Arguments) -> Arguments:
            raise self.error

        def compare_and_set(_: Connection, said: Arguments) -> Deferred[Arguments]:
            self.late.append(Deferred())
            return self.late[-1]

        return {
            Ping: lambda _, __: {},
            Get: get,
            Put: put,
            Delete: delete,
            CompareAndSet: compare_and_set,
            Hello: lambda _, said: Greeting.from_arguments(said).arguments(),
        }

    def ours(
        self, limits: ConnectionLimits = DEFAULT_LIMITS, table: Table | None = None
    ) -> Connection:
        """One of our connections."""
        known = self.table() if table is None else table
        return Connection(self.deadlines, responders(known), limits)

    def join(self, cut: Cut = whole, **changes: Any) -> tuple[Connection, Connection, Loopback]:
        """A client and a server of ours, and what joins them."""
        client, server = self.ours(table={}), self.ours(**changes)
        return client, server, Loopback(client, server, cut)

    def join_raw(self, cut: Cut = whole, **changes: Any) -> tuple[RawPeer, Connection, Loopback]:
        """A peer that says anything, and a server of ours."""
        peer, server = RawPeer(), self.ours(**changes)
        return peer, server, Loopback(peer, server, cut)

    def join_raw_server(self, **changes: Any) -> tuple[Connection, RawPeer, Loopback]:
        """A client of ours, and a peer that answers anything."""
        client, peer = self.ours(table={}, **changes), RawPeer()
        return client, peer, Loopback(client, peer)

    def assert_no_timers(self) -> None:
        """Nothing is left to do once the timer of all calls has looked again."""
        self.clock.advance(TICK_SECONDS)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def assert_alive(self, client: Connection, wire: Loopback) -> None:
        """The connection goes on answering."""
        ping = client.call(Ping, {}, SECONDS)
        wire.pump()
        self.assertEqual(self.successResultOf(ping), {})

    def assert_raw_alive(self, peer: RawPeer, wire: Loopback) -> None:
        """The same, for a raw peer."""
        before = len(peer.boxes)
        peer.say(ask(Ping, b"still there?"))
        wire.pump()
        self.assertEqual(peer.boxes[before:], [{ANSWER: b"still there?"}])

    def error_for(self, peer: RawPeer, wire: Loopback, box: Pairs) -> KvtwistError:
        """The error that answers one box, after which the connection goes on."""
        client, pretended, back = self.join_raw_server()
        asked = client.call(Ping, {}, SECONDS)
        before = len(peer.boxes)
        peer.say(box)
        wire.pump()
        (answer,) = peer.boxes[before:]
        self.assertEqual(answer[ERROR], box[ASK])
        self.assert_raw_alive(peer, wire)
        pretended.say(answer | {ERROR: b"1"})
        back.pump()
        error = self.failureResultOf(asked).value
        assert isinstance(error, KvtwistError)
        return error


class CallTests(ConnectionTestCase):
    """How a call ends."""

    def test_answer(self) -> None:
        """Else nothing works."""
        for cut in (whole, pieces(1), pieces(3), pieces(1000)):
            client, _, wire = self.join(cut)
            for value in (b"", b"v", bytes(range(256)) * 300):
                put = client.call(Put, {"key": b"k", "value": value}, SECONDS)
                get = client.call(Get, {"key": b"k", "trace": b"t", "timeout_ms": 7}, SECONDS)
                missing = client.call(Get, {"key": b"none"}, SECONDS)
                wire.pump()
                self.assertEqual(told(self.successResultOf(put)), {"version": 1})
                answer = told(self.successResultOf(get))
                self.assertEqual(answer, {"version": 1, "value": value})
                self.assertEqual(self.successResultOf(missing)["value"], None)
            self.assertEqual(told(self.heard[-2]), {"key": b"k", "trace": b"t", "timeout_ms": 7})
            self.assertIn("forwarded", self.heard[-2])
            self.assert_no_timers()

    def test_large_value(self) -> None:
        """Else a value at the default limit, 16 MiB, cannot be stored."""
        client, _, wire = self.join(pieces(65_536))
        value = b"16 bytes of it.." * (1 << 20)
        put = client.call(Put, {"key": b"k", "value": value}, SECONDS)
        get = client.call(Get, KEY, SECONDS)
        wire.pump()
        self.successResultOf(put)
        self.assertTrue(self.successResultOf(get)["value"] == value)

    def test_both_ways(self) -> None:
        """Else a node cannot ask the node that has dialled it."""
        client, server = self.ours(), self.ours()
        wire = Loopback(client, server)
        calls = [end.call(Ping, {}, SECONDS) for end in (client, server, client, server)]
        wire.pump()
        self.assertEqual([self.successResultOf(call) for call in calls], [{}] * 4)

    def test_answers_in_any_order(self) -> None:
        """Else one slow key holds up all the others, or a caller gets another one's answer."""
        client, _, wire = self.join()
        calls = [
            client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, SECONDS)
            for _ in range(3)
        ]
        wire.pump()
        for number in (2, 0, 1):
            self.assertNoResult(calls[number])
            self.late[number].callback({"done": True, "version": number})
            wire.pump()
            self.assertEqual(self.successResultOf(calls[number])["version"], number)
        self.assert_no_timers()

    def test_error(self) -> None:
        """Else a client cannot tell what to do about an error."""
        client, _, wire = self.join()
        for error in (
            Refused("no"),
            NotLeader("node-2 has it", leader="node-2", epoch=7),
            Unavailable("nobody", waiting_for=["node-1", "node-2"]),
            TooLarge("too large", setting="value_bytes_max", limit=1, actual=2),
            OutcomeUnknown("who knows"),
            HelloRefused("go away", reason="name"),
        ):
            self.error = error
            asked = client.call(Delete, KEY, SECONDS)
            wire.pump()
            got = self.failureResultOf(asked, type(error)).value
            self.assertEqual((str(got), got.details()), (str(error), error.details()))
        self.assert_alive(client, wire)
        self.assert_no_timers()

    def test_local_errors_are_not_passed_on_as_such(self) -> None:
        """Else a node that could not reach the owner tells its client "nothing was sent"."""
        client, _, wire = self.join()
        for error, kind in ((NotSent("x"), Unavailable), (NoAnswer("x"), OutcomeUnknown)):
            self.error = error
            asked = client.call(Delete, KEY, SECONDS)
            wire.pump()
            self.assertIs(type(self.failureResultOf(asked).value), kind)

    def test_time_is_up(self) -> None:
        """T7: else a call to a node that hangs never ends."""
        client, _, wire = self.join()
        slow = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, 2.0)
        slower = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, 3.0)
        wire.pump()
        self.clock.advance(1.9)
        self.assertNoResult(slow)
        self.clock.advance(0.2)
        self.assertIn("2 s", str(self.failureResultOf(slow, NoAnswer).value))
        self.assertNoResult(slower)
        for late in self.late:
            late.callback({"done": True, "version": 7})
        wire.pump()
        self.assertEqual(self.successResultOf(slower)["version"], 7)
        self.assert_alive(client, wire)
        self.assert_no_timers()

    def test_late_error(self) -> None:
        """Else an error that comes after the time limit is raised at somebody else."""
        client, _, wire = self.join()
        slow = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, 2.0)
        wire.pump()
        self.clock.advance(3.0)
        self.failureResultOf(slow, NoAnswer)
        self.late[0].errback(Failure(Refused("late")))
        wire.pump()
        self.assert_alive(client, wire)

    def test_connection_lost(self) -> None:
        """Else whoever waits when a node dies waits for ever; each is told that its write may
        have been done."""
        client, _, wire = self.join()
        calls = [client.call(Ping, {}, SECONDS) for _ in range(3)]
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for call in calls:
            self.failureResultOf(call, NoAnswer)
        self.assertNotIsInstance(NoAnswer(), NotDone)

    def test_connection_lost_before(self) -> None:
        """Else a caller believes that a write may have been done that has never left."""
        client, _, wire = self.join()
        wire.lose()
        self.failureResultOf(client.call(Ping, {}, SECONDS), NotSent)
        self.failureResultOf(self.ours().call(Ping, {}, SECONDS), NotSent)
        self.assert_no_timers()

    def test_calling_again_when_lost(self) -> None:
        """Else a retry at the wrong moment is never answered."""
        client, _, wire = self.join()
        again: list[Deferred[Any]] = []
        first = client.call(Ping, {}, SECONDS)
        first.addErrback(lambda _: again.append(client.call(Ping, {}, SECONDS)))
        wire.lose()
        self.successResultOf(first)
        self.failureResultOf(again[0], NotSent)

    def test_cancelled(self) -> None:
        """Else a caller that gives up leaves a timer and a place in the table behind, or gets the
        answer all the same."""
        client, _, wire = self.join()
        asked = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, SECONDS)
        wire.pump()
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assert_no_timers()
        self.late[0].callback({"done": True, "version": 7})
        wire.pump()
        self.assert_alive(client, wire)
        wire.lose()

    def test_malformed_answer(self) -> None:
        """Else an answer that cannot be read is nobody's, and its caller waits; the write that it
        answers may have been done."""
        client, peer, wire = self.join_raw_server()
        answers: list[Box] = [
            {}, {b"version": b"9" * 60_000}, {b"version": b"-1"}, {b"other": b"1"},
        ]  # fmt: skip
        for answer in answers:
            asked = client.call(Put, {"key": b"k", "value": b"v"}, SECONDS)
            wire.pump()
            peer.say(answer | {ANSWER: peer.boxes[-1][ASK]})
            wire.pump()
            error = self.failureResultOf(asked, OutcomeUnknown).value
            self.assertIn("Put", str(error))
        self.assert_no_timers()

    def test_malformed_lists(self) -> None:
        """The same, for answers with lists of members and the table."""
        client, peer, wire = self.join_raw_server()
        for members in (b"\xff\xff", b"\0\1a", b"\0\4name\0\1\xff\0\0", b"\0\0"):
            asked = client.call(DescribeTopology, {}, SECONDS)
            wire.pump()
            fine = DescribeTopology.makeResponse(
                {
                    "cluster_id": "c", "epoch": 1, "partitions": 1, "replicas": 1,
                    "tokens_per_member": 1, "durable": False, "members": [], "placement": [(0,)],
                },
                None,
            )  # fmt: skip
            peer.say(fine | {b"members": members, ANSWER: peer.boxes[-1][ASK]})
            wire.pump()
            outcome = Outcome(asked)
            self.assertEqual(outcome.ends, 1)
            if members != b"\0\1a":  # cut off: stock AMP reads what is whole
                self.assertIsInstance(outcome.error, OutcomeUnknown)
        self.assertTrue(wire.is_open)

    def test_oversized_answer(self) -> None:
        """T5: else an answer over the client's limit fills its memory, or is waited for until the
        time is up; the others in flight are not its business."""
        client, peer, wire = self.join_raw_server(limits=SMALL)
        large = client.call(Get, KEY, SECONDS)
        other = client.call(Ping, {}, SECONDS)
        wire.pump()
        tags = [box[ASK] for box in peer.boxes]
        peer.say({b"value": b"v" * 3000, b"version": b"1", ANSWER: tags[0]}, {ANSWER: tags[1]})
        wire.pump()
        error = self.failureResultOf(large, KvtwistError).value
        self.assertIn("box_bytes_max=2000", str(error))
        self.assertEqual(self.successResultOf(other), {})

    def test_oversized_answer_to_a_write(self) -> None:
        """Else a write that *was* done is reported as definitely not done, and done again."""
        client, peer, wire = self.join_raw_server(limits=SMALL)
        asked = client.call(Put, {"key": b"k", "value": b"v"}, SECONDS)
        wire.pump()
        peer.say({b"version": b"1", b"new": b"n" * 3000, ANSWER: peer.boxes[0][ASK]})
        wire.pump()
        self.assertNotIsInstance(self.failureResultOf(asked).value, NotDone)

    def test_oversized_error(self) -> None:
        """Else an error with very much to say is none."""
        client, peer, wire = self.join_raw_server(limits=SMALL)
        asked = client.call(Get, KEY, SECONDS)
        wire.pump()
        tag = peer.boxes[0][ASK]
        peer.say({b"more": b"m" * 3000, ERROR: tag, ERROR_CODE: b"REFUSED"})
        wire.pump()
        self.failureResultOf(asked, Refused)

    def test_unknown_tags(self) -> None:
        """Else a peer that answers what nobody asked stops the others' calls."""
        client, peer, wire = self.join_raw_server()
        asked = client.call(Ping, {}, SECONDS)
        wire.pump()
        tag = peer.boxes[0][ASK]
        for wrong in (b"", b"ff", tag + b"\0", b"x" * 60_000):
            peer.say({ANSWER: wrong}, {ERROR: wrong, ERROR_CODE: b"REFUSED"})
        wire.pump()
        self.assertNoResult(asked)
        peer.say({ANSWER: tag}, {ANSWER: tag}, {ERROR: tag})
        wire.pump()
        self.assertEqual(self.successResultOf(asked), {})
        self.assertTrue(wire.is_open)

    def test_error_without_code(self) -> None:
        """Else an error box that lacks something is nobody's, and the caller waits."""
        client, peer, wire = self.join_raw_server()
        rests: list[Box] = [
            {}, {ERROR_CODE: b""}, {ERROR_DESCRIPTION: b"oh"}, {ERROR_CODE: b"\xff"},
        ]  # fmt: skip
        for rest in rests:
            asked = client.call(Ping, {}, SECONDS)
            wire.pump()
            peer.say(rest | {ERROR: peer.boxes[-1][ASK]})
            wire.pump()
            self.failureResultOf(asked, OutcomeUnknown)

    def test_hostile_error(self) -> None:
        """Else a hostile peer's error drops the connection, and its caller never learns anything:
        each call has to end."""
        client, peer, wire = self.join_raw_server()
        asked = client.call(Ping, {}, SECONDS)
        wire.pump()
        peer.say(
            {
                ERROR: peer.boxes[0][ASK],
                ERROR_CODE: b"REFUSED",
                ERROR_DESCRIPTION: b"x\n" + b"[" * 60_000,
            }
        )
        wire.pump()
        self.failureResultOf(asked, Refused)

    def test_bad_arguments(self) -> None:
        """Else a mistake in the caller's code is found at the other end, or breaks the
        connection; nothing of it may stay behind."""
        client, peer, wire = self.join_raw_server()
        for command, arguments in (
            (Put, {"key": "text", "value": b"v"}),
            (Put, {"key": b"k"}),
            (CompareAndSet, {"key": b"k", "value": b"", "version": -1}),
            (Hello, Greeting(name="n" * 70_000).arguments()),
        ):
            with self.assertRaises((ValueError, TypeError)):
                client.call(command, arguments, SECONDS)
        self.clock.advance(2 * SECONDS)
        self.assertEqual(self.flushLoggedErrors(), [])
        wire.pump()
        self.assertEqual(peer.boxes, [])

    def test_bad_arguments_leave_no_timer(self) -> None:
        """The same: else each such mistake keeps its timer, and ends as an error that nobody
        handles."""
        client, _, _ = self.join_raw_server()
        with self.assertRaises(ValueError):
            client.call(Hello, Greeting(name="n" * 70_000).arguments(), SECONDS)
        self.assert_no_timers()

    def test_room(self) -> None:
        """Else a program that has much to ask polls for its turn, or takes another one's."""
        client, peer, wire = self.join_raw_server(limits=ConnectionLimits(requests_in_flight_max=2))
        self.assertFalse(client.is_full)
        for _ in range(2):
            client.call(Ping, {}, SECONDS).addErrback(lambda _: None)
        self.assertTrue(client.is_full)
        turns = [client.room() for _ in range(4)]
        turns[1].addErrback(lambda _: None).cancel()
        wire.pump()
        for turn in turns[:1] + turns[2:]:
            self.assertNoResult(turn)
        peer.say({ANSWER: peer.boxes[0][ASK]})
        wire.pump()
        for turn in turns[:1] + turns[2:]:
            self.assertIsNone(self.successResultOf(turn))

    def test_room_is_taken_in_turn(self) -> None:
        """Else one that is woken and has nothing to ask any more leaves the others asleep, or all
        are woken for the room of one."""
        client, peer, wire = self.join_raw_server(limits=ConnectionLimits(requests_in_flight_max=2))
        for _ in range(2):
            client.call(Ping, {}, SECONDS).addErrback(lambda _: None)
        asked: list[int] = []

        def ask_again(_: None, number: int) -> None:
            asked.append(number)
            client.call(Ping, {}, SECONDS).addErrback(lambda _: None)

        client.room()
        for number in range(3):
            client.room().addCallback(ask_again, number)
        wire.pump()
        peer.say({ANSWER: peer.boxes[0][ASK]})
        wire.pump()
        self.assertEqual(asked, [0])

    def test_no_room_when_lost(self) -> None:
        """Else who waits for their turn waits for ever when the node dies."""
        client, _, wire = self.join_raw_server(limits=ConnectionLimits(requests_in_flight_max=1))
        asked = client.call(Ping, {}, SECONDS)
        turns = [client.room() for _ in range(3)]
        turns[2].addErrback(lambda _: None).cancel()
        wire.lose()
        self.failureResultOf(asked, NoAnswer)
        self.assertTrue(all(turn.called for turn in turns))
        self.failureResultOf(turns[1], NotSent)
        turns[0].addErrback(lambda _: None)

    def test_arguments_are_left_alone(self) -> None:
        """Else a request cannot be sent to one node after the other."""
        client, _, _ = self.join()
        arguments = {"key": b"k", "timeout_ms": 5}
        client.call(Get, arguments, SECONDS)
        self.assertEqual(arguments, {"key": b"k", "timeout_ms": 5})


class ResponderTests(ConnectionTestCase):
    """T4: whatever a responder does, it is answered, and the connection lives."""

    def fault(self, command: type[amp.Command], responder: Any) -> NodeFault:
        """What the caller of a command gets whose responder has a bug, while others go on."""
        table = {**self.table(), command: responder}
        client, server, wire = self.join(table=table)
        slow = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, SECONDS)
        asked = client.call(command, KEY if command in (Get, Delete) else {}, SECONDS)
        wire.pump()
        self.late[-1].callback({"done": True, "version": 7})
        wire.pump()
        self.assertEqual(self.successResultOf(slow)["version"], 7)
        self.assert_alive(client, wire)
        self.assertEqual(server.unanswered, 0)
        self.assert_no_timers()
        error = self.failureResultOf(asked, NodeFault).value
        assert isinstance(error, NodeFault)
        return error

    def test_undeclared_exception(self) -> None:
        """Else one bug at one key fails everything in flight on the connection; and the log has
        to have its traceback, once."""
        for bug in (ZeroDivisionError("secret"), KeyError("secret"), RecursionError("secret")):

            def broken(_: Connection, __: Arguments, bug: Exception = bug) -> Arguments:
                raise bug

            error = self.fault(Delete, broken)
            self.assertEqual([seen.value for seen in self.flushLoggedErrors()], [bug])
            self.assertIn("Delete", str(error))
            self.assertNotIn("secret", str(error))

    def test_undeclared_failure_later(self) -> None:
        """The same, when the bug shows only after a while."""
        for bug in (ZeroDivisionError("secret"), CancelledError()):
            waiting: Deferred[Arguments] = Deferred()

            def broken(
                _: Connection, __: Arguments, waiting: Deferred[Arguments] = waiting
            ) -> Deferred[Arguments]:
                return waiting

            client, server, wire = self.join(table={Delete: broken, Ping: lambda _, __: {}})
            asked = client.call(Delete, KEY, SECONDS)
            wire.pump()
            self.assertEqual(server.unanswered, 1)
            waiting.errback(Failure(bug))
            wire.pump()
            self.failureResultOf(asked, NodeFault)
            self.assertEqual([seen.value for seen in self.flushLoggedErrors()], [bug])
            self.assertEqual(server.unanswered, 0)
            self.assert_alive(client, wire)

    def test_errors_that_do_not_cross(self) -> None:
        """Else an error meant for the node's operator is told to strangers."""
        for error in (ConfigurationError("secret"), NotDone("secret"), KvtwistError("secret")):

            def broken(_: Connection, __: Arguments, error: Exception = error) -> Arguments:
                raise error

            self.assertNotIn("secret", str(self.fault(Delete, broken)))
            self.assertEqual(len(self.flushLoggedErrors(KvtwistError)), 1)

    def test_expected_errors_are_not_logged(self) -> None:
        """Else the log fills with other people's mistakes."""
        client, _, wire = self.join()
        with capturedLogs() as events:
            for cls in CLASSES:
                self.error = cls("as ever")
                asked = client.call(Delete, KEY, SECONDS)
                wire.pump()
                self.failureResultOf(asked, cls)
        self.assertEqual(complaints(events), [])

    def test_answer_that_does_not_fit(self) -> None:
        """Else a bug in an answer is a lost connection instead of an error."""
        for answer in (
            None,
            {},
            {"version": "1"},
            {"version": -1},
            {"version": 1, "value": "v"},
            7,
        ):
            self.fault(Get, lambda _, __, answer=answer: answer)
            self.assertEqual(len(self.flushLoggedErrors()), 1)

    def test_answer_that_does_not_fit_later(self) -> None:
        """The same, when the answer comes only after a while."""

        def later(_: Connection, __: Arguments) -> Deferred[Any]:
            waiting: Deferred[Any] = Deferred()
            waiting.callback({"version": -1})
            return waiting

        self.fault(Get, later)
        self.assertEqual(len(self.flushLoggedErrors()), 1)

    too_long: Arguments = {  # noqa: RUF012
        "name": "n", "identity": "i", "address": "a", "software": "s", "uptime_ms": 1,
        "cluster_id": "c", "epoch": 1, "keys": 0, "owned": 0, "waiting_for": [],
        "unreachable": ["node-1: connection refused"] * 3000,
    }  # fmt: skip

    def test_answer_that_no_box_can_hold(self) -> None:
        """Else a node that has too much to say hangs up on whoever asks, and fails what else is in
        flight."""
        self.fault(Status, lambda _, __: self.too_long)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_answer_that_no_box_can_hold_later(self) -> None:
        """The same, after a while; and a node that stops must not take the request for unanswered
        and wait for it."""

        def later(_: Connection, __: Arguments) -> Deferred[Arguments]:
            waiting: Deferred[Arguments] = Deferred()
            waiting.callback(self.too_long)
            return waiting

        self.fault(Status, later)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_error_that_cannot_be_told(self) -> None:
        """The same, for an error whose text is not UTF-8, as a file's name may be."""
        self.error = Refused("cannot read b\udcff.sst")
        client, server, wire = self.join()
        asked = client.call(Delete, KEY, SECONDS)
        wire.pump()
        self.failureResultOf(asked, Refused, NodeFault)
        self.assertEqual(server.unanswered, 0)
        self.flushLoggedErrors()

    def test_deferred(self) -> None:
        """Else nothing that takes time can be answered."""
        client, server, wire = self.join()
        done = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, SECONDS)
        refused = client.call(CompareAndSet, {"key": b"k", "value": b"", "version": 0}, SECONDS)
        wire.pump()
        self.assertEqual(server.unanswered, 2)
        self.late[0].callback({"done": False, "version": 3, "value": b"seen"})
        self.late[1].errback(Failure(NotLeader("no", leader="node-3", epoch=2)))
        wire.pump()
        self.assertEqual(
            told(self.successResultOf(done)), {"done": False, "version": 3, "value": b"seen"}
        )
        self.assertEqual(self.failureResultOf(refused, NotLeader).value.leader, "node-3")
        self.assertEqual(server.unanswered, 0)

    def test_answer_after_the_connection_was_lost(self) -> None:
        """Else a node's log fills with errors about clients that have gone."""
        client, server, wire = self.join()
        for _ in range(2):
            client.call(
                CompareAndSet, {"key": b"k", "value": b"", "version": 0}, SECONDS
            ).addErrback(lambda _: None)
        wire.pump()
        written = len(wire.server.writes)
        wire.lose()
        with capturedLogs() as events:
            self.late[0].callback({"done": True, "version": 1})
            self.late[1].errback(Failure(Refused("late")))
        self.assertEqual(complaints(events), [])
        self.assertEqual(len(wire.server.writes), written)
        self.assertEqual(server.unanswered, 0)

    def test_what_has_been_answered_is_not_in_flight(self) -> None:
        """T5: else a connection that has carried 64 MiB refuses everything from then on."""
        limits = ConnectionLimits(request_bytes_in_flight_max=4000)
        client, _, wire = self.join(limits=limits)
        arguments = {"key": b"k", "value": b"v" * 1500, "version": 0}
        for number in range(8):
            calls = [client.call(CompareAndSet, arguments, SECONDS) for _ in range(2)]
            wire.pump()
            self.late[-2].callback({"done": True, "version": number})
            self.late[-1].errback(Failure(Refused("no")))
            wire.pump()
            self.assertEqual(self.successResultOf(calls[0])["version"], number)
            self.failureResultOf(calls[1], Refused)

    def test_connection_is_given(self) -> None:
        """Else a responder cannot know who asks, nor ask back."""
        given_: list[Connection] = []

        def ping(connection: Connection, _: Arguments) -> Arguments:
            given_.append(connection)
            return {}

        client, server, wire = self.join(table={Ping: ping})
        self.assert_alive(client, wire)
        self.assertEqual(given_, [server])


class RequestTests(ConnectionTestCase):
    """What a peer may ask, well or badly: it is answered, and the connection lives."""

    def test_unknown_command(self) -> None:
        """Else a client of the next release loses its connection instead of learning that this
        node cannot do what it asks."""
        peer, _, wire = self.join_raw()
        for name in (b"Sing", b"", b"\xff\0\n" * 200, b"ping", b"S" * 60_000):
            error = self.error_for(peer, wire, {COMMAND: name, ASK: b"1"})
            self.assertIs(type(error), UnknownCommand)
            self.assertIn("CompareAndSet, Delete, Get, Hello, Ping, Put", str(error))
            self.assertLess(len(str(error)), 300)
        self.assertIn("Sing", str(self.error_for(peer, wire, {COMMAND: b"Sing", ASK: b"1"})))

    def test_no_start_tls(self) -> None:
        """T6: ``amp.AMP`` answers ``StartTLS`` to anyone; here it is a command like any unknown."""
        peer, _, wire = self.join_raw()
        for command in (amp.StartTLS, amp.ProtocolSwitchCommand):
            error = self.error_for(peer, wire, {COMMAND: command.commandName, ASK: b"1"})
            self.assertIs(type(error), UnknownCommand)

    def test_no_responders_at_all(self) -> None:
        """Else a node that is dialled can ask its caller only what it knows."""
        peer, _, wire = self.join_raw(table={})
        peer.say(ask(Ping, b"1"))
        wire.pump()
        self.assertEqual(peer.boxes[0][ERROR_CODE], b"UNHANDLED")
        self.assertTrue(wire.is_open)

    def test_requests_to_an_end_that_only_asks(self) -> None:
        """T5: else a node that reads nothing fills its client's memory with the refusals of what it
        asks; the client does not stop reading, whatever it has to send."""
        for said in (ask(Ping, b"1"), {COMMAND: b"Ping", ASK: b"1", b"_": b"x" * 1000}):
            peer, client, wire = self.join_raw(table={})
            for _ in range(SENSELESS_BOXES_MAX):
                peer.say(said)
            wire.pump()
            self.assertTrue(wire.is_open)
            self.assertEqual(len(peer.boxes), SENSELESS_BOXES_MAX)
            peer.say(said)
            wire.pump()
            self.assertFalse(wire.is_open)
            self.assertIn("only asks", client.why_dropped)

    def test_fragments_are_not_answered(self) -> None:
        """The same, with fragments, of which there may be as many as one likes."""
        peer, _, wire = self.join_raw(table={})
        for number in range(3):
            peer.say(ask(Fragment, b"1", number=number, last=False, piece=b"\0\1a\0\1b"))
        wire.pump()
        self.assertEqual((peer.boxes, wire.is_open), ([], True))

    def test_missing_argument(self) -> None:
        """Else a mistake in a client that somebody writes costs them the connection; the error
        names command and argument."""
        peer, _, wire = self.join_raw()
        for command, missing in (
            (Put, "value"), (Get, "key"), (CompareAndSet, "version"), (Hello, "version_min"),
            (Hello, "features"),
        ):  # fmt: skip
            arguments: Arguments = (
                Greeting().arguments()
                if command is Hello
                else {"key": b"k", "value": b"v", "version": 1}
            )
            known = {name.decode() for name, _ in command.arguments}
            box = ask(command, b"1", **{n: a for n, a in arguments.items() if n in known})
            del box[missing.encode()]
            error = self.error_for(peer, wire, box)
            self.assertIs(type(error), MalformedRequest)
            self.assertIn(command.__name__, str(error))
            self.assertIn(missing, str(error))

    def test_malformed_argument(self) -> None:
        """Else a version of 60,000 digits costs everybody the connection, and the node its time."""
        peer, server, wire = self.join_raw()
        for name, value in (
            (b"version", b"9" * 60_000), (b"version", b"-1"), (b"version", b""),
            (b"version", b"1_0"), (b"timeout_ms", b"soon"), (b"keyspace", b"\xff"),
            (b"forwarded", b"maybe"), (b"forwarded", b"x" * 60_000),
        ):  # fmt: skip
            error = self.error_for(peer, wire, ask(Delete, b"1", key=b"k") | {name: value})
            self.assertIs(type(error), MalformedRequest)
            self.assertIn("Delete", str(error))
        for name, value in ((b"name", b"\xff"), (b"version_min", b"x"), (b"features", b"\0\1\xff")):
            box = ask(Hello, b"1", **Greeting().arguments()) | {name: value}
            self.assertIs(type(self.error_for(peer, wire, box)), MalformedRequest)
        self.assertEqual(server.unanswered, 0)

    def test_malformed_argument_is_named(self) -> None:
        """Else people have to guess which of a request's seven arguments it is."""
        peer, _, wire = self.join_raw()
        for name, value in ((b"version", b"x"), (b"timeout_ms", b"x"), (b"forwarded", b"x")):
            error = self.error_for(peer, wire, ask(Delete, b"1", key=b"k") | {name: value})
            self.assertIn(name.decode(), str(error))

    def test_missing_argument_is_said_to_be_missing(self) -> None:
        """Else an error such as "CompareAndSet: b'version'" does not say what is wrong."""
        peer, _, wire = self.join_raw()
        for command in (Put, CompareAndSet):
            box = ask(CompareAndSet, b"1", key=b"k", value=b"v", version=1)
            del box[b"value" if command is Put else b"version"]
            box[COMMAND] = command.commandName
            self.assertIn("missing", str(self.error_for(peer, wire, box)))

    def test_unknown_arguments(self) -> None:
        """Else a node refuses clients of the next release, which say more."""
        peer, _, wire = self.join_raw()
        peer.say(ask(Ping, b"1") | {b"colour": b"blue", b"trace.2": b"x", b"\xff": b""})
        wire.pump()
        self.assertEqual(peer.boxes, [{ANSWER: b"1"}])

    def test_empty_box(self) -> None:
        """T4: else two zero bytes drop the connection."""
        for cut in (whole, pieces(1)):
            peer, server, wire = self.join_raw(cut)
            peer.say_bytes(b"\0\0" * (SENSELESS_BOXES_MAX - 2))
            peer.say({b"neither": b"command", b"nor": b"answer"}, {ASK: b"1"})
            wire.pump()
            self.assertEqual(peer.boxes, [])
            self.assertEqual(server.unanswered, 0)
            self.assert_raw_alive(peer, wire)

    def test_nothing_but_empty_boxes(self) -> None:
        """T5: else a peer keeps the node busy with nothing, for as long as it likes."""
        for senseless in (b"\0\0", b"\0\1a\0\0\0\0"):
            peer, _, wire = self.join_raw()
            with capturedLogs() as events:
                peer.say_bytes(senseless * (SENSELESS_BOXES_MAX + 1))
                wire.pump()
            self.assertEqual((wire.is_open, wire.server.closed), (False, "aborted"))
            self.assertEqual(len(complaints(events)), 1)

    def test_late_answers_are_no_nonsense(self) -> None:
        """Else a client drops a node that was slow for a while, and all that is in flight."""
        client, peer, wire = self.join_raw_server()
        for number in range(2 * SENSELESS_BOXES_MAX):
            peer.say({ANSWER: b"%x" % number}, {ERROR: b"%x" % number})
        wire.pump()
        self.assertTrue(wire.is_open)
        self.assertEqual(client.reads, 1)

    def test_box_of_ten_thousand_pairs(self) -> None:
        """T5: else it is kept in memory, or drops the connection."""
        peer, _, wire = self.join_raw()
        many = {b"%d" % number: b"" for number in range(10_000)}
        for box in (many | ask(Ping, b"1"), ask(Ping, b"1") | many):
            error = self.error_for(peer, wire, box)
            assert isinstance(error, TooLarge)
            self.assertEqual(error.setting, "box_pairs_max")
            self.assertEqual(error.limit, DEFAULT_LIMITS.boxes.box_pairs_max)

    def test_oversized_box(self) -> None:
        """T5: else who sends a value that is too large loses the connection, or is not told which
        limit it is."""
        for cut in (whole, pieces(7)):
            peer, _, wire = self.join_raw(cut, limits=SMALL)
            small = ask(Put, b"1", key=b"k", value=b"")
            for box in (small | {b"value": b"v" * 3000}, small | {b"x": b"x" * 2000}):
                for ordered in (box, dict(sorted(box.items())), dict(reversed(box.items()))):
                    error = self.error_for(peer, wire, ordered)
                    assert isinstance(error, TooLarge)
                    self.assertEqual((error.setting, error.limit), ("box_bytes_max", 2000))
                    self.assertGreater(error.actual, 2000)
                    self.assertIn("box_bytes_max=2000", str(error))
        self.assertEqual(self.stored, {})

    def test_limits(self) -> None:
        """Else what is within the limit is refused, or what is over it is done."""
        peer, _, wire = self.join_raw(limits=SMALL)
        empty = ask(Put, b"1", key=b"", value=b"")
        rest = sum(4 + len(key) + len(value) for key, value in empty.items())
        for size, done in ((2000, True), (2001, False)):
            self.stored.clear()
            peer.say(ask(Put, b"1", key=b"", value=b"v" * (size - rest)))
            wire.pump()
            self.assertEqual(bool(self.stored), done)

    def test_requests_without_ask(self) -> None:
        """Else a client that wants no answer gets one, which it cannot place; not even an error."""
        peer, server, wire = self.join_raw()
        boxes = [
            ask(Put, b"1", key=b"k", value=b"v"),
            ask(Delete, b"1", key=b"k"),
            ask(CompareAndSet, b"1", key=b"k", value=b"", version=0),
            Box({COMMAND: b"Sing"}),
            Box({COMMAND: b"Get"}),
        ]
        for box in boxes:
            box.pop(ASK, None)
        peer.say(*boxes)
        wire.pump()
        self.late[0].callback({"done": True, "version": 1})
        wire.pump()
        self.assertEqual(peer.boxes, [])
        self.assertEqual(self.stored, {b"k": b"v"})
        self.assertEqual(server.unanswered, 0)

    def test_tags_come_back_as_they_are(self) -> None:
        """Else clients that number their requests otherwise than we do get no answers."""
        peer, _, wire = self.join_raw()
        tags = [b"", b"0", b"\xff\0", b"t" * 1000, b"1", b"1"]
        peer.say(*(ask(Ping, tag) for tag in tags))
        wire.pump()
        self.assertEqual(peer.boxes, [{ANSWER: tag} for tag in tags])

    def test_one_write(self) -> None:
        """Else throughput falls to a sixth: a system call for each answer. (Answers that take time
        go out on their own.)"""
        peer, _, wire = self.join_raw()
        peer.say(
            ask(Ping, b"1"),
            ask(Delete, b"2", key=b"k"),
            ask(CompareAndSet, b"3", key=b"k", value=b"", version=0),
            Box({COMMAND: b"Sing", ASK: b"4"}),
            ask(Ping, b"5"),
        )
        wire.pump()
        self.assertEqual(len(wire.server.writes), 1)
        self.assertEqual(
            [box.get(ANSWER) or box.get(ERROR) for box in peer.boxes], [b"1", b"2", b"4", b"5"]
        )
        self.late[0].callback({"done": True, "version": 1})
        self.assertEqual(len(wire.server.writes), 2)

    def test_calls_made_while_reading_join_the_write(self) -> None:
        """The same, for a node that asks others while it answers."""
        client, peer, wire = self.join_raw_server()
        first = client.call(Ping, {}, SECONDS)
        first.addCallback(lambda _: [client.call(Ping, {}, SECONDS) for _ in range(5)])
        wire.pump()
        self.assertEqual(len(wire.client.writes), 1)
        peer.say({ANSWER: peer.boxes[0][ASK]})
        wire.pump()
        self.assertEqual((len(wire.client.writes), len(peer.boxes)), (2, 6))

    def test_nothing_is_written_for_nothing(self) -> None:
        """Else an idle connection wakes the other end with empty writes."""
        peer, _, wire = self.join_raw()
        peer.say({b"no": b"command"}, {ANSWER: b"1"})
        wire.pump()
        self.assertEqual(wire.server.writes, [])

    def test_closing_while_reading(self) -> None:
        """`Connection.close` closes once everything is sent: else answers that were ready are lost
        when a responder closes the connection in the same turn."""

        def close(connection: Connection, _: Arguments) -> Arguments:
            connection.close()
            return {}

        table: Table = {**self.table(), Ping: close}
        peer, _, wire = self.join_raw(table=table)
        peer.say(ask(Put, b"1", key=b"k", value=b"v"), ask(Ping, b"2"))
        wire.pump()
        self.assertEqual(self.stored, {b"k": b"v"})
        self.assertEqual(peer.boxes[:1], [{b"version": b"1", ANSWER: b"1"}])
        self.assertFalse(wire.is_open)


boxes = st.dictionaries(
    st.sampled_from(
        [ASK, COMMAND, ANSWER, ERROR, ERROR_CODE, ERROR_DESCRIPTION, b"key", b"value", b"value.2",
         b"version", b"trace", b"keyspace", b"timeout_ms", b"forwarded", b"features", b"name"]
    ),
    st.sampled_from(
        [b"Get", b"Put", b"CompareAndSet", b"Ping", b"Hello", b"Delete", b"1", b"2", b"3", b"",
         b"True", b"\xff", b"REFUSED", b"x\n{}", b"x\n[", b"9" * 70]
    )
    | st.binary(max_size=9),
    min_size=1,
    max_size=9,
).filter(lambda box: not {COMMAND, ERROR} <= set(box))  # fmt: skip


class GarbageTests(ConnectionTestCase):
    """What is no AMP, or AMP without sense."""

    def dropped(self, chunks: list[bytes]) -> tuple[Loopback, list[str]]:
        """What becomes of a connection that is sent *chunks*, and what is logged."""
        peer, _, wire = self.join_raw(lambda data: chunks)
        with capturedLogs() as events:
            peer.say_bytes(b"".join(chunks) or b"?")
            wire.pump()
        return wire, [event["line"] for event in complaints(events)]

    def test_not_amp(self) -> None:
        """Else a web browser or a scanner at the port keeps a connection for ever, or fills the
        log: the connection is dropped at once, with one line."""
        for greeting in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x02\x00", b"SSH-2.0"):
            wire, lines = self.dropped([greeting, greeting])
            self.assertFalse(wire.is_open)
            self.assertEqual(wire.server.closed, "aborted")
            self.assertEqual(len(lines), 1)

    def test_who_it_was(self) -> None:
        """Else people cannot find the program that dials the wrong port."""
        peer, server, wire = self.join_raw()
        with capturedLogs() as events:
            peer.say_bytes(b"GET /")
            wire.pump()
        (event,) = complaints(events)
        self.assertIn("10.0.0.1:8001: ", event["line"])
        peer, server, wire = self.join_raw()
        server.greeting = Greeting(name="node-7", address="a:1")
        with capturedLogs() as events:
            peer.say_bytes(b"GET /")
            wire.pump()
        (event,) = complaints(events)
        self.assertIn("node-7 at a:1: ", event["line"])

    def test_callers_learn_why(self) -> None:
        """Else who has the wrong port in --peers reads "connection lost", and looks at the
        network."""
        client, peer, wire = self.join_raw_server()
        asked = client.call(Ping, {}, SECONDS)
        peer.say_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with capturedLogs():
            wire.pump()
        self.assertIn("our protocol", str(self.failureResultOf(asked, NoAnswer).value))

    @examples(80)
    @given(
        st.binary(max_size=80)
        | st.lists(st.sampled_from([b"\0", b"\0\0", b"\0\1", b"a", b"\xff"])).map(b"".join),
        st.lists(st.integers(0, 99), max_size=9),
    )
    @example(b"\0\1a\0\1b\1\0", [1, 2, 3])
    def test_random_bytes(self, stream: bytes, cuts: list[int]) -> None:
        """Else whoever reaches the port can stop the node, or fill its log."""
        wire, lines = self.dropped([chunk for chunk in cut_at(stream, cuts) if chunk])
        self.assertEqual(len(lines), 0 if wire.is_open else 1)
        self.assertEqual(wire.server.closed, "" if wire.is_open else "aborted")

    @examples(120)
    @given(st.lists(boxes, max_size=6), st.integers(1, 99))
    def test_random_requests(self, said: list[dict[bytes, bytes]], size: int) -> None:
        """T4: else one strange request costs everybody else their answers: each that asks for an
        answer gets exactly one, in order, and nothing is logged."""
        self.error = Refused("no")
        self.late.clear()
        peer, server, wire = self.join_raw(pieces(size), limits=SMALL)
        with capturedLogs() as events:
            if said:
                peer.say(*said)
            wire.pump()
            for late in self.late:
                late.callback({"done": True, "version": 1})
            wire.pump()
        self.assertTrue(wire.is_open)
        self.assertEqual(server.unanswered, 0)
        self.assertEqual(complaints(events), [])
        requests = [box for box in said if COMMAND in box and not {ANSWER, ERROR} & set(box)]
        tags = [box[ASK] for box in requests if ASK in box]
        answered = [box[ANSWER] if ANSWER in box else box[ERROR] for box in peer.boxes]
        self.assertEqual(sorted(answered), sorted(tags))

    @examples(120)
    @given(st.lists(boxes, max_size=6), st.integers(1, 99), st.booleans())
    def test_random_answers(self, said: list[dict[bytes, bytes]], size: int, is_lost: bool) -> None:
        """Else a peer that answers nonsense leaves a caller waiting, or answers it twice."""
        client, peer = self.ours(table={}, limits=SMALL), RawPeer()
        wire = Loopback(client, peer, pieces(size))
        calls = [
            Outcome(client.call(command, arguments, SECONDS))
            for command, arguments in (
                (Get, KEY),
                (Put, {"key": b"k", "value": b"v"}),
                (Hello, Greeting().arguments()),
            )
        ]
        with capturedLogs() as events:
            if said:
                peer.say(*said)
            wire.pump()
            if is_lost:
                wire.lose()
            else:
                self.clock.advance(SECONDS)
        self.assertEqual([call.ends for call in calls], [1, 1, 1])
        self.assertEqual(complaints(events), [])
        self.assert_no_timers()


class TCPEnd(End):
    """One that the kernel may hold small writes back for."""

    is_delaying: object = True

    def setTcpNoDelay(self, enabled: object) -> None:
        self.is_delaying = not enabled


class LifeTests(ConnectionTestCase):
    """A connection's beginning and end."""

    def test_small_writes_are_not_held_back(self) -> None:
        """Over TCP the kernel is told so, at either end: else a write waits while the one before it
        is not acknowledged, for 40 ms at worst."""
        end = TCPEnd(self.ours(), "10.0.0.1", "10.0.0.2")
        directlyProvides(end, ITCPTransport)
        end.protocol.makeConnection(end)
        self.assertFalse(end.is_delaying)

    def test_notified(self) -> None:
        """Else whoever keeps a connection does not learn that it is there, or gone."""
        connection = self.ours()
        told: list[str] = []
        connection.when_made(lambda made: told.append(f"made {made is connection}"))
        connection.when_lost(lambda why: told.append(f"lost {type(why.value).__name__}"))
        wire = Loopback(RawPeer(), connection)
        connection.when_lost(lambda _: told.append("the second one"))
        self.assertEqual(told, ["made True"])
        wire.lose()
        self.assertEqual(told, ["made True", "lost ConnectionLost", "the second one"])

    def test_calls_fail_before_others_are_told(self) -> None:
        """Else a link dials anew and still has calls on the old connection in flight."""
        client, _, wire = self.join()
        asked = Outcome(client.call(Ping, {}, SECONDS))
        ends: list[int] = []
        client.when_lost(lambda _: ends.append(asked.ends))
        wire.lose()
        self.assertEqual(ends, [1])

    def test_abort_and_close(self) -> None:
        """T8: else a connection to a dead peer waits for its bytes to be sent, for minutes."""
        for end, closed, mine in (
            (Connection.abort, "aborted", ConnectionAborted),
            (Connection.close, "lost", ConnectionDone),
        ):
            client, _, wire = self.join()
            reasons: list[Failure] = []
            client.when_lost(reasons.append)
            asked = client.call(Ping, {}, SECONDS)
            end(client)
            self.assertEqual(wire.client.closed, closed)
            wire.pump()
            self.assertTrue(reasons[0].check(mine))
            self.assertEqual(Outcome(asked).ends, 1)
            end(client)
        for end in (Connection.abort, Connection.close):
            end(self.ours())  # never connected: there is nothing to do

    def test_half_closed(self) -> None:
        """Else a client that says all it wants, then that it has said all, gets no answers: so do
        programs that write to a pipe, such as netcat."""
        peer, server, wire = self.join_raw()
        self.assertTrue(IHalfCloseableProtocol.providedBy(server))
        peer.say(
            ask(Put, b"1", key=b"k", value=b"v"),
            ask(CompareAndSet, b"2", key=b"k", value=b"", version=0),
            ask(CompareAndSet, b"3", key=b"k", value=b"", version=0),
        )
        wire.pump()
        server.readConnectionLost()
        wire.pump()
        self.late[0].callback({"done": True, "version": 1})
        wire.pump()
        self.assertTrue(wire.is_open)
        self.late[1].errback(Failure(Refused("no")))
        wire.pump()
        self.assertFalse(wire.is_open)
        self.assertEqual(wire.server.closed, "lost")
        self.assertEqual(
            [box.get(ANSWER) or box.get(ERROR) for box in peer.boxes], [b"1", b"2", b"3"]
        )

    def test_half_closed_with_nothing_to_do(self) -> None:
        """Else a node keeps connections that will never be used again."""
        for asks in (False, True):
            client, server, wire = self.join()
            asked = [server.call(Ping, {}, SECONDS)] if asks else []
            wire.client.under_way = wire.server.under_way = b""
            server.readConnectionLost()
            wire.pump()
            self.assertFalse(wire.is_open)
            for one in asked:
                self.failureResultOf(one, NoAnswer)
            self.assertFalse(client.connected)

    def test_reads(self) -> None:
        """T8: else a peer that is silent is not noticed, or one that is not is hung up on."""
        client, peer, wire = self.join_raw_server()
        client.call(Ping, {}, SECONDS)
        wire.pump()
        self.assertEqual(client.reads, 0)
        for said in (b"\0", b"\0", b"\0\0\0\0"):
            before = client.reads
            peer.say_bytes(said)
            wire.pump()
            self.assertGreater(client.reads, before)

    def test_lost_in_the_middle_of_a_box(self) -> None:
        """Else half a request is carried out."""
        peer, _, wire = self.join_raw()
        peer.say_bytes(b"\0\4_ask\0\0011\0\x08_command\0\4Ping\0")
        wire.pump()
        wire.lose()
        assert peer.lost is not None
        self.assertTrue(peer.lost.check(ConnectionLost))
        self.assertEqual(wire.server.writes, [])


class StockClient(amp.AMP):
    """Nothing but Twisted's."""


class StockServer(amp.AMP):
    """A store, with nothing but Twisted and our command classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: dict[bytes, bytes] = {}
        self.error: Exception = Unavailable("gone fishing", waiting_for=["bob"])

    @Put.responder
    def put(self, key: bytes, value: bytes, **_: Any) -> Arguments:
        self.stored[key] = value
        return {"version": len(self.stored)}

    @Get.responder
    def get(self, key: bytes, **_: Any) -> Arguments:
        return {"version": 1, "value": self.stored.get(key)}

    @Delete.responder
    def delete(self, **_: Any) -> Arguments:
        raise self.error


class PlainPut(amp.Command):
    """What somebody writes who has not even our command classes."""

    commandName = b"Put"
    arguments = [(b"key", amp.String()), (b"value", amp.String())]  # noqa: RUF012
    response = [(b"version", amp.Integer())]  # noqa: RUF012
    errors = {ValueError: b"TOO_LARGE"}  # noqa: RUF012


class StockClientTests(ConnectionTestCase):
    """``twisted.protocols.amp`` asks, we answer."""

    def join_stock(
        self, cut: Cut = whole, **changes: Any
    ) -> tuple[Callable[..., Outcome], Loopback]:
        """A function that asks, and what joins it with our server."""
        client, server = StockClient(), self.ours(**changes)
        wire = Loopback(client, server, cut)

        def call(command: type[amp.Command], **arguments: Any) -> Outcome:
            outcome = Outcome(client.callRemote(command, **arguments))
            wire.pump()
            return outcome

        return call, wire

    def test_put_and_get(self) -> None:
        """Else the ten-line program with ``twisted.protocols.amp`` does not work."""
        for cut in (whole, pieces(1000), pieces(1)):
            call, _ = self.join_stock(cut)
            for value in (b"", b"v", b"v" * 70_000, b"w" * 200_000)[: 3 if cut(b"xx")[1:] else 4]:
                self.assertEqual(told(call(Put, key=b"k", value=value).answer), {"version": 1})
                answer = told(call(Get, key=b"k").answer)
                self.assertEqual(answer, {"version": 1, "value": value})
            self.assertEqual(told(call(Get, key=b"none").answer), {"version": 1})

    def test_with_plain_commands(self) -> None:
        """The same, with commands of one's own made of ``amp.String``s."""
        call, _ = self.join_stock(limits=SMALL)
        self.assertEqual(call(PlainPut, key=b"k", value=b"v").answer, {"version": 1})
        self.assertEqual(self.stored, {b"k": b"v"})
        self.assertIsInstance(call(PlainPut, key=b"k", value=b"v" * 9000).error, ValueError)
        self.assertEqual(call(PlainPut, key=b"k", value=b"w").answer, {"version": 1})

    def test_typed_errors(self) -> None:
        """Else a stock client sees ``UnknownRemoteError``, and has to guess."""
        call, wire = self.join_stock()
        for error in (
            Unavailable("nobody is there", waiting_for=["node-1"]),
            NotLeader("node-2 has it", leader="node-2", epoch=7),
            TooLarge("too large", setting="s", limit=1, actual=2),
            Refused("no"),
            OutcomeUnknown("who knows"),
            NotSent("node-3 cannot be reached"),
        ):
            self.error = error
            got = call(Delete, key=b"k").error
            kind = Unavailable if isinstance(error, NotSent) else type(error)
            self.assertIs(type(got), kind)
            self.assertEqual(str(got).splitlines()[0], str(error))
            self.assertEqual(write_failure(error)[1].decode(), str(got))
        self.assertTrue(wire.is_open)

    def test_mistakes(self) -> None:
        """T4: stock AMP hangs up at each of these; here the connection lives."""
        call, wire = self.join_stock()

        class Sing(amp.Command):
            """Not ours."""

        class NoValue(amp.Command):
            """A `Put` that lacks something."""

            commandName = b"Put"
            errors = Put.errors

        class HugeVersion(amp.Command):
            """A `Delete` that costs time."""

            commandName = b"Delete"
            arguments = [(b"key", amp.String()), (b"version", amp.String())]  # noqa: RUF012
            errors = Delete.errors

        self.error = ZeroDivisionError()
        self.assertIsInstance(call(Sing).error, amp.UnhandledCommand)
        self.assertIsInstance(call(NoValue).error, MalformedRequest)
        self.assertIsInstance(
            call(HugeVersion, key=b"k", version=b"9" * 60_000).error, MalformedRequest
        )
        self.assertIsInstance(call(Delete, key=b"k").error, NodeFault)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(call(Ping).answer, {})
        self.assertTrue(wire.is_open)

    def test_many_at_once(self) -> None:
        """Else a stock client that pipelines its requests mixes up the answers."""
        client, server = StockClient(), self.ours()
        wire = Loopback(client, server, pieces(5))
        puts = [Outcome(client.callRemote(Put, key=b"%d" % n, value=b"v%d" % n)) for n in range(50)]
        gets = [Outcome(client.callRemote(Get, key=b"%d" % n)) for n in range(50)]
        wire.pump()
        self.assertEqual([put.answer["version"] for put in puts], [1] * 50)
        self.assertEqual([get.answer["value"] for get in gets], [b"v%d" % n for n in range(50)])


class StockServerTests(ConnectionTestCase):
    """We ask, ``twisted.protocols.amp`` answers."""

    def setUp(self) -> None:
        super().setUp()
        self.client, self.server = self.ours(table={}), StockServer()
        self.wire = Loopback(self.client, self.server)

    def call(self, command: type[amp.Command], **arguments: Any) -> Outcome:
        """Ask."""
        outcome = Outcome(self.client.call(command, arguments, SECONDS))
        self.wire.pump()
        return outcome

    def test_put_and_get(self) -> None:
        """Else our client works with nothing but our server, and our command classes are no
        documentation of the protocol."""
        for value in (b"", b"v", b"v" * 70_000):
            self.assertEqual(told(self.call(Put, key=b"k", value=value).answer), {"version": 1})
            answer = told(self.call(Get, key=b"k", trace=b"t").answer)
            self.assertEqual(answer, {"version": 1, "value": value})
        self.assert_no_timers()

    def test_typed_errors(self) -> None:
        """Else an error from somebody's own server means nothing to our client."""
        error = self.call(Delete, key=b"k").error
        self.assertIs(type(error), Unavailable)
        self.assertEqual(str(error), "gone fishing")
        self.server.error = NotLeader("not mine", leader="x", epoch=1)
        self.assertIs(type(self.call(Delete, key=b"k").error), NotLeader)

    def test_unknown_command(self) -> None:
        """Else "it does not know that" looks like an unknown outcome."""
        error = self.call(CompareAndSet, key=b"k", value=b"", version=0).error
        self.assertIs(type(error), UnknownCommand)
        self.assertTrue(self.wire.is_open)

    def test_undeclared_error(self) -> None:
        """Else a crash in somebody's server, at which stock AMP hangs up, is taken for "not
        done"."""
        self.server.error = ZeroDivisionError()
        first = Outcome(self.client.call(Delete, KEY, SECONDS))
        error = first.error if first.ends else self.call(Ping).error
        self.assertIsInstance(first.error, OutcomeUnknown)
        self.assertIsInstance(error, (OutcomeUnknown, NotDone))
        self.flushLoggedErrors(ZeroDivisionError)
        self.assertFalse(self.wire.is_open)


class FormatTests(ConnectionTestCase):
    """The boxes themselves."""

    def test_request_and_answer(self) -> None:
        """The format is fixed: else releases, and programs in other languages, cannot talk."""
        client, _, wire = self.join()
        client.call(Put, {"key": b"k", "value": b"v"}, SECONDS)
        wire.pump()
        self.assertEqual(
            read(wire.client), {COMMAND: b"Put", ASK: b"1", b"key": b"k", b"value": b"v"}
        )
        self.assertEqual(read(wire.server), {ANSWER: b"1", b"version": b"1"})

    def test_error(self) -> None:
        """The same."""
        peer, _, wire = self.join_raw()
        self.error = TooLarge("over s=1", setting="s", limit=1, actual=2)
        peer.say(ask(Delete, b"x", key=b"k"))
        wire.pump()
        self.assertEqual(
            read(wire.server),
            {
                ERROR: b"x",
                ERROR_CODE: b"TOO_LARGE",
                ERROR_DESCRIPTION: b'over s=1\n{"setting":"s","limit":1,"actual":2}',
            },
        )


def read(end: End) -> Box:
    """The one box that an end has sent."""
    (box,) = BoxReader(WIDE_OPEN).feed(b"".join(end.writes))
    return box
