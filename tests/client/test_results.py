"""What answers mean, and that one which makes no sense is no result.

A node of another release, or with a bug, may answer a request with another's answer: a `get` that
is answered as a `put` would say that there is no such key.
"""

from __future__ import annotations

from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.client import results
from kvtwist.client.attempts import GRACE_SECONDS, Attempts, patience_seconds
from kvtwist.client.leaders import Leaders
from kvtwist.client.links import Links
from kvtwist.client.request import PutRequest, Request
from kvtwist.client.table import Table
from kvtwist.core.partition import Record
from kvtwist.errors import (
    KvtwistError,
    NodeFault,
    NotANumber,
    NotLeader,
    NotSent,
    OutcomeUnknown,
    SessionRefused,
    VersionMismatch,
    WrongGeneration,
)
from kvtwist.wire import frequent
from kvtwist.wire.again import may_be_sent_again
from kvtwist.wire.boxes import ANSWER, ASK
from kvtwist.wire.codec import Values
from kvtwist.wire.commands import CompareAndSet, Get, Put, PutMany
from kvtwist.wire.connection import Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.link import Link
from tests.wire.loopback import Loopback, RawPeer

SECONDS = 5.0
APPLIED = b"a" * 26
END = frequent.request_end(1000)


class RequestTests(SynchronousTestCase):
    """Requests on the short way, and a node that answers them as it likes."""

    def setUp(self) -> None:
        self.client, self.peer = Connection(Deadlines(Clock())), RawPeer()
        self.wire = Loopback(self.client, self.peer)
        self.errors: list[KvtwistError] = []

    def request(self, value: bytes | None) -> Request:
        """A `get`, or a `put` of *value*, that has reached the node."""
        make = Request if value is None else PutRequest
        request = make(self, b"k", value, 0.0, SECONDS)
        is_get = value is None
        body = frequent.get_body(b"k", END) if is_get else frequent.put_body(b"k", b"v", END)
        self.assertTrue(self.client.ask(request, body))
        self.wire.pump()
        return request

    def again(self, request: Request, error: KvtwistError) -> Deferred[Any]:
        """Notes what would be weighed; there is no other attempt."""
        self.errors.append(error)
        raise error

    def taught(self, key: bytes, answer: Values) -> None:
        """Nobody is taught anything."""

    def say(self, short: bool, version: int, value: bytes | None) -> None:
        """The node's answer to the last request, in the frequent form or another."""
        tag = self.peer.boxes[-1][ASK]
        if short:
            body = (
                frequent.put_answer(version, APPLIED)
                if value is None
                else frequent.get_answer(version, value, APPLIED)
            )
            self.peer.say_bytes(frequent.ANSWER_HEADS[len(tag)] + tag + body)
        else:
            said = {} if value is None else {b"value": value}
            self.peer.say(said | {b"version": b"%d" % version, ANSWER: tag})
        self.wire.pump()

    def test_sensible(self) -> None:
        """Else every request fails."""
        for short in (True, False):
            for value, answer, result in (
                (None, (7, b"v"), Record(b"v", 7)),
                (None, (7, b""), Record(b"", 7)),
                (None, (0, None), None),
                (b"v", (7, None), 7),
            ):
                request = self.request(value)
                self.say(short, *answer)
                self.assertEqual(self.successResultOf(request), result)
        self.assertEqual(self.errors, [])

    def test_anothers_answer(self) -> None:
        """Else a `get` says that there is no such key, a `put` that it has written nothing."""
        for short in (True, False):
            for value, answer in ((None, (7, None)), (None, (0, b"v")), (b"v", (0, None))):
                request = self.request(value)
                self.say(short, *answer)
                self.failureResultOf(request, OutcomeUnknown)
                self.assertIsInstance(self.errors.pop(), OutcomeUnknown)

    def test_ordinary_answers(self) -> None:
        """The same for the results of the ordinary way."""
        for version, value in ((7, None), (0, b"v")):
            self.assertRaises(OutcomeUnknown, results.record, {"version": version, "value": value})
        self.assertRaises(OutcomeUnknown, results.version, {"version": 0})


class AgainTests(SynchronousTestCase):
    """The rule for sending again, in one place for all who send."""

    def test_another_owner(self) -> None:
        """Else a client that has an old table asks the wrong node until its time is up."""
        clock = Clock()
        links = Links(clock, (), lambda: 0.5, Deadlines(clock))
        leaders = Leaders(links, clock.seconds)
        attempts = Attempts(clock, links, leaders, clock.seconds, lambda: 0.5, SECONDS)
        for error, forgets in ((NotSent(), False), (NotLeader(), True)):
            leaders.table = table = cast("Table", object())
            request = Request(attempts, b"k", None, 0.0, SECONDS)
            again = attempts.again(request, error)
            self.assertIs(leaders.table, None if forgets else table)
            again.cancel()
            self.failureResultOf(again, CancelledError)

    def test_how_long_an_attempt_may_take(self) -> None:
        """Else a write that a node is slow at is unknown though its answer would have come; or a
        read, or a write that has a session, is not asked of another when one does not answer."""
        clock, said = Clock(), list[tuple[float, int]]()
        links = Links(clock, (), lambda: 0.5, Deadlines(clock))
        leaders = Leaders(links, clock.seconds)
        attempts = Attempts(clock, links, leaders, clock.seconds, lambda: 0.5, SECONDS)

        class Listener:
            def call(self, _: Any, arguments: Any, timeout_seconds: float) -> Deferred[Any]:
                said.append((timeout_seconds, arguments["timeout_ms"]))
                return Deferred()

        patient, short = (SECONDS + GRACE_SECONDS, 5000), (1.0 + GRACE_SECONDS, 1000)
        named: Values = {"once": b"o" * 32}
        for command, arguments, expected in (
            (Put, {}, patient),
            (CompareAndSet, {"once": None}, patient),
            (Get, {}, short),
            (Put, named, short),
            (PutMany, {"onces": b"o" * 32}, short),
        ):
            attempts.one(cast("Link", Listener()), command, arguments, SECONDS, 1.0)
            self.assertEqual(said.pop(), expected)

    def test_what_is_large_has_more_time(self) -> None:
        """Else a large value that a slow network needs two seconds for is sent over and over, and
        never arrives."""
        small, large = ({"key": b"k", "value": b"v" * size} for size in (0, 2 << 20))
        for attempt, seconds in ((0, 1.0), (1, 2.0), (2, 4.0)):
            self.assertEqual(patience_seconds(small, attempt), seconds)
            self.assertEqual(patience_seconds(large, attempt), seconds + 2.0)
        self.assertEqual(patience_seconds({"key": b"k"}, 0), 1.0)

    def test_rule(self) -> None:
        """C3: else a write is done twice; or a read, or a write that is done once however often
        it is sent, is given up that could be asked again."""
        for error, read, write in (
            (NotSent(), True, True),
            (OutcomeUnknown(), True, False),
            (NodeFault(), True, False),
            (VersionMismatch(), False, False),
            (NotANumber(), False, False),
            (SessionRefused(reason="too_many_answers"), True, True),
            (SessionRefused(reason="unknown"), False, False),
            (WrongGeneration(), False, False),
        ):
            self.assertEqual(may_be_sent_again(Get, error), read, error)
            for command in (Put, CompareAndSet):
                self.assertEqual(may_be_sent_again(command, error), write, error)
                self.assertEqual(may_be_sent_again(command, error, is_once=True), read, error)
