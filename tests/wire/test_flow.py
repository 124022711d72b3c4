"""What one connection may take: each limit at one less, at itself, and at one more.

The transport here is Twisted's own `FileDescriptor`, so that a connection is paused and resumed as
over TCP; only its socket is in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, Logger, LogLevel, capturedLogs, formatEvent
from twisted.protocols import amp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import (
    KvtwistError,
    NoAnswer,
    NotDone,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TooLarge,
)
from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    Box,
    BoxLimits,
    BoxReader,
    write_box,
)
from kvtwist.wire.codec import codec_of
from kvtwist.wire.commands import CompareAndSet, Get, Ping, Put
from kvtwist.wire.connection import Arguments, Connection, Responder, responders
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.failures import read_failure
from kvtwist.wire.limits import DEFAULT_LIMITS
from kvtwist.wire.seldom import INTERVAL_SECONDS, Seldom
from kvtwist.wire.sending import CORKED_BYTES_MAX

SECONDS = 5.0
WIDE_OPEN = BoxLimits(box_bytes_max=1 << 30, box_pairs_max=1 << 30)
TRANSPORT_BYTES_MAX = FileDescriptor.bufferSize
CHUNK_BYTES = 1 << 16
MIB = 1 << 20
"""As much as Twisted reads of a socket at once."""


class Watched:
    """The part of a reactor that a `FileDescriptor` needs: who wants to read and write."""

    def __init__(self) -> None:
        self.reading = False
        self.writing = False

    def addReader(self, _: object) -> None:
        self.reading = True

    def removeReader(self, _: object) -> None:
        self.reading = False

    def addWriter(self, _: object) -> None:
        self.writing = True

    def removeWriter(self, _: object) -> None:
        self.writing = False


class Transport(FileDescriptor):
    """A TCP connection to a peer that takes bytes only when the test says so.

    :ivar written: how many bytes were given to it to send.
    :ivar aborted: whether it was aborted.
    :ivar lost: why it is gone, once it is.
    """

    def __init__(self, protocol: Connection, address: str = "10.0.0.9") -> None:
        self.watched = Watched()
        super().__init__(self.watched)  # type: ignore[arg-type]
        self.connected = 1
        self.written = 0
        self.aborted = False
        self.lost: Failure | None = None
        self._address = address
        self._room = 0
        self._taken: list[bytes] = []
        self.protocol = protocol
        self.startReading()
        protocol.makeConnection(self)

    @property
    def is_reading(self) -> bool:
        """Whether bytes of the peer's would be read now."""
        return self.watched.reading and not self.aborted

    def take(self, size: int = 1 << 40) -> bytes:
        """The peer reads up to *size* bytes: what there is, and what comes because it reads."""
        self._room = size
        while self.watched.writing and self._room and not self.aborted:
            if (over := self.doWrite()) is not None:
                self.go(over)
                break
        taken, self._taken = b"".join(self._taken), []
        return taken

    def write(self, data: bytes) -> None:
        self.written += len(data)
        super().write(data)

    def writeSomeData(self, data: bytes) -> int:
        size = min(len(data), self._room)
        self._room -= size
        self._taken.append(bytes(data[:size]))
        return size

    def say(self, data: bytes) -> None:
        """The peer sends *data*; it is read in chunks, as long as the node reads."""
        for at in range(0, len(data), CHUNK_BYTES):
            assert self.is_reading, "nobody reads this"
            self.protocol.dataReceived(data[at : at + CHUNK_BYTES])

    def abortConnection(self) -> None:
        self.aborted = True

    def go(self, why: Any = None) -> None:
        """The connection is lost."""
        self.lost = Failure(why or (ConnectionAborted() if self.aborted else ConnectionLost()))
        self.connectionLost(self.lost)
        self.protocol.connectionLost(self.lost)

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self._address, 4000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.1", 8001)


def boxes_in(data: bytes) -> list[Box]:
    """The boxes that *data* consists of."""
    reader = BoxReader(WIDE_OPEN)
    boxes = reader.feed(data)
    assert not reader.is_inside_box, "a box is cut off"
    return boxes


def ask(command: type[amp.Command], tag: int = 1, **arguments: Any) -> bytes:
    """The bytes of a request."""
    return codec_of(command).write_request(b"%d" % tag, arguments)


def error_in(box: Box) -> KvtwistError:
    """The error that a box answers with."""
    return read_failure(box[ERROR_CODE], box[ERROR_DESCRIPTION])


def tags(boxes: Iterable[Box]) -> list[int]:
    """Which requests were answered, well or badly."""
    return [int(box[ANSWER] if ANSWER in box else box[ERROR]) for box in boxes]


@contextmanager
def warnings() -> Iterator[list[str]]:
    """The lines for people to look at."""
    lines: list[str] = []
    with capturedLogs() as events:
        yield lines
    lines += [formatEvent(event) for event in events if is_warning(event)]


def is_warning(event: LogEvent) -> bool:
    """Whether people should look at a line."""
    return bool(event["log_level"] >= LogLevel.warn)


class FlowTestCase(SynchronousTestCase):
    """One end under test, and a peer that says and takes what it is told to.

    :ivar late: `CompareAndSet`s and `Put`s that wait until the test answers them.
    :ivar got: the keys of the `Get`s that were carried out.
    :ivar value: what a `Get` answers with.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.late: list[Deferred[Arguments]] = []
        self.got: list[bytes] = []
        self.value = b"v"

    def server(self, **changes: Any) -> Transport:
        """An end that answers."""

        def get(_: Connection, said: Arguments) -> Arguments:
            self.got.append(said["key"])
            return {"version": 1, "value": self.value}

        def wait(_: Connection, __: Arguments) -> Deferred[Arguments]:
            self.late.append(Deferred())
            return self.late[-1]

        def ping(_: Connection, __: Arguments) -> Arguments:
            return {}

        table: dict[type[amp.Command], Responder] = {
            Ping: ping,
            Get: get,
            Put: wait,
            CompareAndSet: wait,
        }
        limits = replace(DEFAULT_LIMITS, **changes)
        return Transport(Connection(self.deadlines, responders(table), limits))

    def client(self, **changes: Any) -> Transport:
        """An end that asks."""
        limits = replace(DEFAULT_LIMITS, **changes)
        return Transport(Connection(self.deadlines, limits=limits))

    def answer(self, number: int, size: int = 0) -> None:
        """Answer the late request of that number, with a value of so many bytes."""
        self.late[number].callback({"done": False, "version": 1, "value": b"a" * size})

    def assert_alive(self, transport: Transport) -> None:
        """The connection is there, reads, and answers."""
        self.assertFalse(transport.aborted)
        self.assertTrue(transport.is_reading)
        transport.say(ask(Ping, 999_999))
        self.assertEqual(boxes_in(transport.take()), [{ANSWER: b"999999"}])

    def assert_dropped(self, transport: Transport, lines: list[str], why: str) -> None:
        """The connection was aborted, and one line says why."""
        self.assertTrue(transport.aborted)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(why, lines[0])
        self.assertIn("10.0.0.9:4000", lines[0])


class CallerTests(FlowTestCase):
    """T7: how much may be in flight of what this end has asked."""

    def put(self, client: Transport, size: int = 0) -> Deferred[Arguments]:
        """Ask for something; each request of one size is as long as the others."""
        arguments = {"key": b"k", "value": b"v" * size}
        return client.protocol.call(Put, arguments, SECONDS)

    def refused(self, client: Transport, size: int = 0) -> Overloaded:
        """The error of a request that is one too many."""
        client.take()
        error = self.failureResultOf(self.put(client, size), Overloaded).value
        assert isinstance(error, Overloaded)
        self.assertEqual(client.take(), b"", "it was sent all the same")
        self.assertIsInstance(error, NotDone)
        self.assertIn(f"{error.setting}={error.limit}", str(error))
        return error

    def test_requests(self) -> None:
        """Else a node that does not answer makes its callers hoard requests without end."""
        client = self.client(requests_in_flight_max=3)
        for _ in range(3):
            self.assertNoResult(self.put(client))
        self.assertEqual(len(boxes_in(client.take())), 3)
        error = self.refused(client)
        self.assertEqual((error.setting, error.limit), ("requests_in_flight_max", 3))

    def test_bytes(self) -> None:
        """Else a few very large requests to a slow node fill the caller's memory."""
        size = len(ask(Put, key=b"k", value=b"v" * 1000))
        for limit, fitting in ((3 * size - 1, 2), (3 * size, 3), (3 * size + 1, 3)):
            client = self.client(request_bytes_in_flight_max=limit)
            for _ in range(fitting):
                self.assertNoResult(self.put(client, 1000))
            self.assertEqual(len(boxes_in(client.take())), fitting)
            error = self.refused(client, 1000)
            self.assertEqual((error.setting, error.limit), ("request_bytes_in_flight_max", limit))

    def test_one_large_request_alone(self) -> None:
        """Else a value that is larger than the setting can never be written."""
        client = self.client(request_bytes_in_flight_max=1000)
        self.assertNoResult(self.put(client, 5000))
        self.assertEqual(len(boxes_in(client.take())), 1)
        self.refused(client)

    def test_room_again(self) -> None:
        """Else a connection that was full once takes nothing for the rest of its life."""
        size = len(ask(Put, key=b"k", value=b""))
        for end in (self.answered, self.failed, self.cancelled, self.expired):
            for changes in (
                {"requests_in_flight_max": 2},
                {"request_bytes_in_flight_max": 2 * size},
            ):
                client = self.client(**changes)
                calls = [self.put(client), self.put(client)]
                tag = boxes_in(client.take())[1][ASK]
                self.refused(client)
                end(client, tag, calls[1])
                calls.append(self.put(client))
                self.assertEqual(len(boxes_in(client.take())), 1)
                for call in calls:
                    call.addErrback(lambda failure: failure.trap(NoAnswer))

    def answered(self, client: Transport, tag: bytes, call: Deferred[Arguments]) -> None:
        """A call ends with its answer."""
        client.say(codec_of(Put).write_answer(tag, {"version": 7}))
        self.assertEqual(self.successResultOf(call)["version"], 7)

    def failed(self, client: Transport, tag: bytes, call: Deferred[Arguments]) -> None:
        """A call ends with the peer's error."""
        client.say(write_box({ERROR: tag, ERROR_CODE: b"REFUSED", ERROR_DESCRIPTION: b""}))
        self.failureResultOf(call, Refused)

    def cancelled(self, _: Transport, __: bytes, call: Deferred[Arguments]) -> None:
        """A caller gives up."""
        call.cancel()
        self.failureResultOf(call, CancelledError)

    def expired(self, _: Transport, __: bytes, call: Deferred[Arguments]) -> None:
        """Time is up."""
        self.clock.pump([SECONDS, 1.0])
        self.failureResultOf(call, NoAnswer)

    def test_lost(self) -> None:
        """Else a caller counts what was in flight on a connection that is gone."""
        client = self.client(requests_in_flight_max=1)
        call = self.put(client)
        client.go()
        self.failureResultOf(call, NoAnswer)
        self.failureResultOf(self.put(client), NotSent)

    def test_never_pauses(self) -> None:
        """Else two ends that both wait for the other to read wait for ever."""
        client = self.client()
        calls = [self.put(client, 1 << 20) for _ in range(8)]
        self.assertTrue(client.is_reading, "its own requests are not taken, so it reads nothing")
        for tag in range(1, 9):
            client.say(codec_of(Put).write_answer(b"%x" % tag, {"version": tag}))
        self.assertEqual([self.successResultOf(call)["version"] for call in calls], [*range(1, 9)])


class WorkTests(FlowTestCase):
    """T5: how much of what the peer asks is worked on at once, when the answers come later."""

    def put(self, transport: Transport, tag: int, size: int = 0) -> None:
        """A request whose answer comes later."""
        transport.say(ask(Put, tag, key=b"k", value=b"v" * size))

    def overload(self, transport: Transport) -> Overloaded:
        """The one error that there is to be read, after which the connection goes on."""
        (box,) = boxes_in(transport.take())
        error = error_in(box)
        assert isinstance(error, Overloaded)
        self.assertIn(f"{error.setting}={error.limit}", str(error))
        self.assertFalse(transport.aborted)
        self.assertTrue(transport.is_reading)
        return error

    def test_requests(self) -> None:
        """Else one peer has a node work on more than it can hold."""
        transport = self.server(requests_in_flight_max=3)
        for tag in (1, 2, 3):
            self.put(transport, tag)
            self.assertEqual(transport.take(), b"")
        self.put(transport, 4)
        error = self.overload(transport)
        self.assertEqual((error.setting, error.limit), ("requests_in_flight_max", 3))
        self.assertEqual(len(self.late), 3)

    def test_requests_of_one_read(self) -> None:
        """Else the limit holds only for peers that send one request at a time."""
        transport = self.server(requests_in_flight_max=3)
        transport.say(b"".join(ask(Put, tag, key=b"k", value=b"") for tag in range(1, 8)))
        self.assertEqual(tags(boxes_in(transport.take())), [4, 5, 6, 7])
        for number in range(3):
            self.answer(number)
        self.assertEqual(tags(boxes_in(transport.take())), [1, 2, 3])
        self.assert_alive(transport)

    def test_what_is_answered_at_once_is_not_in_flight(self) -> None:
        """Else a client that sends its requests without waiting is refused for no reason."""
        transport = self.server(requests_in_flight_max=1, request_bytes_in_flight_max=1)
        transport.say(b"".join(ask(Get, tag, key=b"k") for tag in range(1, 100)))
        answers = boxes_in(transport.take())
        self.assertEqual(tags(answers), [*range(1, 100)])
        self.assertTrue(all(ANSWER in box for box in answers))

    def fitting(self, limit: int, size: int) -> int:
        """How many requests of one size are taken under a limit of so many bytes."""
        transport = self.server(request_bytes_in_flight_max=limit)
        self.late.clear()
        for tag in (1, 2, 3, 4):
            self.put(transport, tag, size)
        for box in boxes_in(transport.take()):
            error = error_in(box)
            assert isinstance(error, Overloaded)
            self.assertEqual((error.setting, error.limit), ("request_bytes_in_flight_max", limit))
        self.assertFalse(transport.aborted)
        return len(self.late)

    def test_bytes(self) -> None:
        """Else a few very large requests for a slow owner fill the memory of the node that
        forwards them: their bytes, added up, stay within the setting, and may reach it."""
        size = 1000
        most = len(ask(Put, key=b"k", value=b"v" * size))
        least: dict[int, int] = {}
        for count in (2, 3):
            limits = range(count * size, count * most + 2)
            fitting = [self.fitting(limit, size) for limit in limits]
            self.assertEqual(fitting, sorted(fitting), "a smaller limit has let more in")
            self.assertEqual((fitting[0], fitting[-1]), (count - 1, count))
            least[count] = limits[fitting.index(count)]
        self.assertEqual(3 * least[2], 2 * least[3], "at the limit is not over it")

    def test_one_large_request_alone(self) -> None:
        """Else a value that is larger than the setting can never be written."""
        transport = self.server(request_bytes_in_flight_max=1000)
        self.put(transport, 1, 5000)
        self.assertEqual(len(self.late), 1)
        self.put(transport, 2)
        self.assertEqual(self.overload(transport).setting, "request_bytes_in_flight_max")
        self.answer(0)
        transport.take()
        self.put(transport, 3, 5000)
        self.assertEqual(len(self.late), 2)

    def test_room_again(self) -> None:
        """Else a connection that was full once is refused everything for the rest of its life."""
        for changes, fitting in (
            ({"requests_in_flight_max": 2}, 2),
            ({"request_bytes_in_flight_max": 900}, 1),
            ({"request_bytes_in_flight_max": 2500}, 2),
        ):
            for result in ({"version": 1}, Failure(Refused("no")), Failure(ZeroDivisionError())):
                self.late.clear()
                transport = self.server(**changes)
                for tag in range(fitting):
                    self.put(transport, tag, 1000)
                for again in (1, 2):
                    self.put(transport, 8, 1000)
                    self.overload(transport)
                    self.late[again - 1].callback(result)
                    self.flushLoggedErrors(ZeroDivisionError)
                    self.assertEqual(len(boxes_in(transport.take())), 1)
                    self.put(transport, 9, 1000)
                    self.assertEqual(transport.take(), b"")
                    self.assertEqual(len(self.late), fitting + again)

    def test_requests_without_a_tag(self) -> None:
        """Else a peer that wants no answers is not bounded at all."""
        transport = self.server(requests_in_flight_max=3)
        silent = write_box(codec_box(ask(CompareAndSet, key=b"k", value=b"", version=0)))
        transport.say(10 * silent)
        self.assertEqual(len(self.late), 3)
        self.assertEqual(transport.take(), b"")
        self.answer(0)
        self.assertEqual(transport.take(), b"")
        transport.say(silent)
        self.assertEqual(len(self.late), 4)

    def test_of_a_lost_connection(self) -> None:
        """Else requests of peers that have gone are worked on, and kept, for nobody; or what still
        ends after its connection is counted for it once more, and for ever."""
        stubborn: Deferred[Arguments] = Deferred()

        async def work() -> Arguments:
            try:
                return await Deferred()
            except CancelledError:
                return await stubborn

        def wait(_: Connection, __: Arguments) -> Deferred[Arguments]:
            return Deferred.fromCoroutine(work())

        held: list[int] = []
        table = responders({Put: wait})
        transport = Transport(Connection(self.deadlines, table, account=held.append))
        self.put(transport, 1, 1000)
        self.assertGreater(held[-1], 1000)
        transport.go()
        before = len(held)
        stubborn.callback({"version": 1})
        self.assertEqual(transport.protocol.unanswered, 0)
        self.assertEqual(len(held), before)

    def test_each_connection_for_itself(self) -> None:
        """Else one greedy client has all others refused."""
        greedy, other = self.server(requests_in_flight_max=2), self.server(requests_in_flight_max=2)
        for tag in range(1, 10):
            self.put(greedy, tag)
        self.put(other, 1)
        self.assertEqual(other.take(), b"")
        self.assert_alive(other)


def codec_box(data: bytes) -> Box:
    """A request without its tag."""
    (box,) = boxes_in(data)
    return {key: value for key, value in box.items() if key != ASK}


FILLING = b"v" * (TRANSPORT_BYTES_MAX + 1000)
"""A value that makes an answer after which the transport has enough."""
FILLING_BYTES = len(codec_of(Get).write_answer(b"1", {"version": 1, "value": FILLING}))


def late_bytes(size: int) -> int:
    """How long the answer to a late request with a tag of two digits is."""
    answer = {"done": False, "version": 1, "value": b"a" * size}
    return len(codec_of(CompareAndSet).write_answer(b"10", answer))


class UnreadTests(FlowTestCase):
    """T5: a peer that asks and does not read the answers."""

    value_bytes = 10_000

    def setUp(self) -> None:
        super().setUp()
        self.value = b"v" * self.value_bytes

    def gets(self, count: int, first: int = 1) -> bytes:
        """Requests that are answered at once."""
        return b"".join(ask(Get, tag, key=b"%d" % tag) for tag in range(first, first + count))

    def test_what_is_small_does_not_pause(self) -> None:
        """Else a connection is stopped and started at each request."""
        transport = self.server()
        transport.say(self.gets(6))
        self.assertTrue(transport.is_reading)
        self.assertEqual(tags(boxes_in(transport.take())), [*range(1, 7)])

    def test_paused(self) -> None:
        """Else a peer that does not read has the node do all its work, and keep all its answers."""
        transport = self.server()
        transport.say(self.gets(500))
        self.assertFalse(transport.is_reading)
        most = (TRANSPORT_BYTES_MAX + CORKED_BYTES_MAX) // self.value_bytes + 3
        self.assertLess(len(self.got), most)
        self.assertFalse(transport.aborted)

    def test_resumed(self) -> None:
        """Else a peer that reads slowly loses answers, or has them in another order, or twice."""
        transport = self.server()
        transport.say(self.gets(100))
        read = b""
        while piece := transport.take(30_000):
            self.assertEqual(transport.is_reading, len(self.got) == 100, "some wait")
            read += piece
            unread = transport.written - len(read)
            self.assertLess(unread, TRANSPORT_BYTES_MAX + CORKED_BYTES_MAX + 2 * self.value_bytes)
        self.assertEqual(tags(boxes_in(read)), [*range(1, 101)])
        self.assertEqual(self.got, [b"%d" % tag for tag in range(1, 101)])
        self.assert_alive(transport)

    def test_read_while_paused(self) -> None:
        """Else what was read just before the pause, or decrypted after it, overtakes what waits,
        or is carried out although nobody takes the answers."""
        transport = self.server()
        transport.say(self.gets(100))
        before = len(self.got)
        for first in (101, 102, 103):
            transport.protocol.dataReceived(self.gets(1, first))
        self.assertEqual(len(self.got), before)
        self.assertEqual(tags(boxes_in(transport.take())), [*range(1, 104)])
        self.assert_alive(transport)

    def test_read_while_paused_and_nothing_waits(self) -> None:
        """The same, for the first of them."""
        self.value = FILLING
        transport = self.server()
        transport.say(ask(Get, 1, key=b"k"))
        transport.protocol.dataReceived(ask(Get, 2, key=b"k"))
        self.assertEqual(len(self.got), 1)
        self.assertEqual(tags(boxes_in(transport.take())), [1, 2])

    def test_paused_again_and_again(self) -> None:
        """Else the second pause of a connection is not noticed, and its memory grows after all."""
        transport = self.server()
        for first in range(1, 1000, 100):
            transport.say(self.gets(100, first))
            self.assertFalse(transport.is_reading)
            self.assertLess(len(self.got), first + 20)
            self.assertEqual(tags(boxes_in(transport.take())), [*range(first, first + 100)])
        self.assert_alive(transport)

    def test_dropped_among_requests(self) -> None:
        """Else a node goes on working for a peer that it has given up, who will never know."""

        def get(_: Connection, said: Arguments) -> Arguments:
            self.got.append(said["key"])
            connection.drop("for a test")
            return {"version": 1, "value": b"v"}

        connection = Connection(self.deadlines, responders({Get: get}))
        transport = Transport(connection)
        transport.say(ask(Get, 1, key=b"k") + ask(Get, 2, key=b"l"))
        self.assertEqual((self.got, transport.written), ([b"k"], 0))

    def test_dropped_while_answering(self) -> None:
        """Else what a peer had asked before it had to go stays in memory until its loss is noticed,
        though its node had just dropped it for holding too much."""
        self.value = FILLING
        table = responders({Get: lambda _, __: {"version": 1, "value": FILLING}})
        connection = Connection(
            self.deadlines, table, account=lambda _: connection.drop("it holds too much")
        )
        transport = Transport(connection)
        transport.say(ask(Get, 1, key=b"k") * 10)
        self.assertTrue(transport.aborted)
        self.assertEqual(connection._intake.held_bytes, 0)

    def test_half_closed_while_paused(self) -> None:
        """Else a peer that has said all that it has to say gets a part of the answers; or all, and
        waits for the end of the connection."""
        self.value = FILLING
        transport = self.server()
        transport.say(b"".join(ask(Get, tag, key=b"k") for tag in range(1, 6)))
        self.assertLess(len(self.got), 5)
        transport.protocol.readConnectionLost()
        self.assertEqual(tags(boxes_in(transport.take())), [1, 2, 3, 4, 5])
        assert transport.lost is not None
        self.assertTrue(transport.lost.check(ConnectionDone))

    def test_lost_while_paused(self) -> None:
        """Else requests of a peer that has gone are carried out, one by one, for nobody."""
        transport = self.server()
        transport.say(self.gets(100))
        before = len(self.got)
        transport.go()
        transport.protocol.resumeProducing()
        self.assertEqual(len(self.got), before)

    def late_server(self, count: int, **changes: Any) -> Transport:
        """A server that is working on so many requests, tagged 10, 11, ... and is then paused."""
        self.late.clear()
        transport = self.server(**changes)
        for tag in range(10, 10 + count):
            transport.say(ask(CompareAndSet, tag, key=b"k", value=b"", version=0))
        before, self.value = self.value, FILLING
        transport.say(ask(Get, 1, key=b"filling"))
        self.value = before
        self.assertFalse(transport.is_reading)
        return transport

    def test_late_answers_at_the_limit(self) -> None:
        """Else the answers of requests that were forwarded are kept without end for a peer that
        does not read them; or one that reads a little late is cut off below the limit."""
        unread = FILLING_BYTES + 10 * late_bytes(5000)
        for limit in (unread - 1, unread, unread + 1):
            transport = self.late_server(10, answer_bytes_unread_max=limit)
            with warnings() as lines:
                for number in range(9):
                    self.answer(number, 5000)
                self.assertFalse(transport.aborted)
                self.answer(9, 5000)
            self.assertEqual((lines, transport.aborted), ([], False))
            boxes = boxes_in(transport.take())
            self.assertEqual(tags(boxes), [1, *range(10, 20)])
            self.assertEqual(ERROR in boxes[-1], limit < unread)
            self.assert_alive(transport)

    def test_one_late_answer_over_the_limit(self) -> None:
        """Else a value that is larger than the setting can never be read through another node."""
        transport = self.server(answer_bytes_unread_max=MIB)
        transport.say(ask(CompareAndSet, 10, key=b"k", value=b"", version=0))
        self.answer(0, 3 * MIB)
        (box,) = boxes_in(transport.take())
        self.assertEqual(box[ANSWER], b"10")

    def test_late_answers_without_room(self) -> None:
        """Else whoever asks for a few large values at once that another node has, and reads as fast
        as it can, loses its connection, and with it the outcome of its writes; or the values are
        kept, as many as it has asked for."""
        size = 12 * MIB
        transport = self.late_server(4)
        with warnings() as lines:
            for number in range(4):
                self.answer(number, size)
            self.assertLess(transport.protocol._outbox.unread_bytes, 40 * MIB)
            boxes = boxes_in(transport.take())
        self.assertEqual((lines, transport.aborted), ([], False))
        self.assertEqual(sorted(tags(boxes)), [1, 10, 11, 12, 13])
        refused = [box for box in boxes if ERROR in box]
        self.assertEqual(tags(refused), [12, 13])
        for box in refused:
            self.assertIsInstance(error_in(box), OutcomeUnknown)
            self.assertIn(f"answer_bytes_unread_max={32 * MIB}", str(error_in(box)))
        self.assert_alive(transport)

    def test_dropped(self) -> None:
        """Else the answers that come after the limit fill the memory all the same, each with a
        line in the log."""
        limit = FILLING_BYTES + 50_000
        transport = self.late_server(100, answer_bytes_unread_max=limit)
        with warnings() as lines:
            for number in range(100):
                self.answer(number, 10_000)
        self.assert_dropped(transport, lines, f"answer_bytes_unread_max={limit}")
        self.assertLess(transport.written, limit + late_bytes(10_000))
        with warnings() as lines:
            transport.go()
        self.assertEqual(lines, [])

    def test_errors_count_too(self) -> None:
        """Else a peer fills the memory with refusals."""
        limit = FILLING_BYTES + 5_000
        transport = self.late_server(100, answer_bytes_unread_max=limit)
        with warnings() as lines:
            for late in self.late:
                late.errback(Failure(Refused("r" * 1000)))
        self.assert_dropped(transport, lines, f"answer_bytes_unread_max={limit}")

    def test_what_was_read_does_not_count(self) -> None:
        """Else a peer that reads everything, if late, is cut off after so many bytes in all."""
        limit = FILLING_BYTES + 50_000
        transport = self.late_server(100, answer_bytes_unread_max=limit)
        read = b""
        with warnings() as lines:
            for number in range(100):
                self.answer(number, 10_000)
                if number % 4 == 3:
                    read += transport.take()
        self.assertEqual((lines, transport.aborted), ([], False))
        self.assertEqual(tags(boxes_in(read)), [1, *range(10, 110)])

    def test_still_behind(self) -> None:
        """Else a peer that has taken a part of its answers is asked for more requests, and what is
        kept for it grows with each burst that it takes."""
        transport = self.late_server(100)
        for number in range(100):
            self.answer(number, 10_000)
        transport.take(FILLING_BYTES)
        self.assertGreater(transport.protocol._outbox.behind_bytes, 900_000)
        self.assertFalse(transport.is_reading)
        self.assertEqual(len(boxes_in(transport.take())), 100)
        self.assert_alive(transport)

    def test_slow_but_steady(self) -> None:
        """Else a peer that reads its many answers as fast as they come, but never catches up, is
        cut off: for what was written since it fell behind, most of which it has read."""
        limit = FILLING_BYTES + 100_000
        transport = self.late_server(200, answer_bytes_unread_max=limit)
        read = b""
        with warnings() as lines:
            for number in range(200):
                self.answer(number, 10_000)
                read += transport.take(late_bytes(10_000))
                self.assertGreater(transport.protocol._outbox.unread_bytes, 0)
        self.assertEqual((lines, transport.aborted), ([], False))
        self.assertGreater(len(read), 10 * limit)
        read += transport.take()
        self.assertEqual(tags(boxes_in(read)), [1, *range(10, 210)])
        self.assert_alive(transport)

    def test_calls_of_a_dropped_connection_end(self) -> None:
        """Else who has asked something of the peer waits for its time limit, without a reason."""
        transport = self.late_server(100, answer_bytes_unread_max=FILLING_BYTES + 5_000)
        calls = [transport.protocol.call(Ping, {}, SECONDS) for _ in range(3)]
        for late in self.late:
            late.errback(Failure(Refused("r" * 1000)))
        transport.go()
        for call in calls:  # none had left: they waited behind the answers
            error = self.failureResultOf(call, NotSent).value
            self.assertIn("answer_bytes_unread_max", str(error))

    def test_closing(self) -> None:
        """Else a node that stops, or refuses a greeting, keeps the connections of slow readers
        although they have read everything."""
        for size in (10, 2 * TRANSPORT_BYTES_MAX):
            self.value = b"v" * size
            transport = self.server()
            transport.say(self.gets(1))
            transport.protocol.close()
            self.assertEqual(tags(boxes_in(transport.take())), [1])
            self.assertIsNotNone(transport.lost, f"still open after an answer of {size} bytes")
            assert transport.lost is not None
            self.assertTrue(transport.lost.check(ConnectionDone))


class BothEndsTests(FlowTestCase):
    """Two ends of ours, joined by a network that holds next to nothing."""

    def test_neither_waits_for_the_other(self) -> None:
        """Else large requests one way and large answers the other stop both for ever: each has
        written what the other does not read, because it waits itself."""
        self.value = b"v" * 200_000
        client, server = self.client(), self.server()
        said: Arguments = {"key": b"k", "trace": b"t" * 200_000}
        calls = [client.protocol.call(Get, said, SECONDS) for _ in range(50)]
        while self.carry(client, server) or self.carry(server, client):
            pass
        for call in calls:
            self.assertEqual(len(self.successResultOf(call)["value"]), 200_000)
        self.assertFalse(client.aborted or server.aborted)

    def carry(self, sender: Transport, receiver: Transport) -> bool:
        """A little, if the receiver reads at all; whether there was anything."""
        data = sender.take(CHUNK_BYTES) if receiver.is_reading else b""
        if data:
            receiver.say(data)
        return bool(data)


class BoxTests(FlowTestCase):
    """T5: how large a box may be, over a connection."""

    def refusal(self, boxes: BoxLimits, request: bytes) -> TooLarge | None:
        """The error that answers a request, if there is one; the connection lives on."""
        transport = self.server(boxes=boxes)
        transport.say(request)
        (box,) = boxes_in(transport.take())
        self.assertEqual(tags([box]), [1])
        self.assert_alive(transport)
        if ANSWER in box:
            return None
        error = error_in(box)
        assert isinstance(error, TooLarge)
        self.assertIn(f"{error.setting}={error.limit}", str(error))
        return error

    def test_bytes(self) -> None:
        """Else an endless box fills the memory; or the limit is not what its setting says."""
        request = ask(Get, key=b"k" * 1000)
        size = len(request) - len(b"\0\0")
        for limit in (size, size + 1):
            self.assertIsNone(self.refusal(replace(WIDE_OPEN, box_bytes_max=limit), request))
        error = self.refusal(replace(WIDE_OPEN, box_bytes_max=size - 1), request)
        assert error is not None
        self.assertEqual(error.details(), {
            "setting": "box_bytes_max", "limit": size - 1, "actual": size
        })  # fmt: skip

    def test_pairs(self) -> None:
        """The same, for a box of very many short pairs."""
        request = ask(Get, key=b"k", trace=b"t")
        pairs = len(boxes_in(request)[0])
        for limit in (pairs, pairs + 1):
            self.assertIsNone(self.refusal(replace(WIDE_OPEN, box_pairs_max=limit), request))
        error = self.refusal(replace(WIDE_OPEN, box_pairs_max=pairs - 1), request)
        assert error is not None
        self.assertEqual(error.details(), {
            "setting": "box_pairs_max", "limit": pairs - 1, "actual": pairs
        })  # fmt: skip

    def test_answer(self) -> None:
        """Else a node's answer fills the caller's memory; or the others in flight suffer for it."""
        answer = codec_of(Get).write_answer(b"1", {"version": 1, "value": b"v" * 1000})
        size = len(answer) - len(b"\0\0")
        for limit in (size - 1, size, size + 1):
            client = self.client(boxes=replace(WIDE_OPEN, box_bytes_max=limit))
            call = client.protocol.call(Get, {"key": b"k"}, SECONDS)
            other = client.protocol.call(Ping, {}, SECONDS)
            client.say(answer + write_box({ANSWER: b"2"}))
            self.assertEqual(self.successResultOf(other), {})
            if limit < size:
                error = self.failureResultOf(call, OutcomeUnknown).value
                self.assertIn(f"box_bytes_max={limit}", str(error))
            else:
                self.assertEqual(len(self.successResultOf(call)["value"]), 1000)


class StockClient(amp.AMP):
    """A program with nothing but Twisted's AMP."""


class IdleTests(FlowTestCase):
    """T8: a peer that says nothing. Sweeps are a second apart."""

    def sweep(self, transport: Transport, times: int = 1) -> None:
        """Let so many seconds pass."""
        for _ in range(times):
            transport.protocol.sweep(1.0)

    def test_idle(self) -> None:
        """Else dead peers hold their connections for ever, until there are no more to be had; or
        one that is only slow is hung up on."""
        for limit in (19, 20, 21):
            transport = self.server(idle_seconds_max=limit)
            transport.say(ask(Ping))
            transport.take()
            with warnings() as lines:
                self.sweep(transport, 1 + 19)
                self.assertEqual(transport.aborted, limit == 19)
                self.sweep(transport)
                self.assertEqual(transport.aborted, limit <= 20)
            if limit <= 20:
                self.assert_dropped(transport, lines[:1], f"idle_seconds_max={limit}")
            else:
                self.assert_alive(transport)

    def test_stock_client(self) -> None:
        """Else the ten-line program, which sends no pings, is hung up on while it is in use."""
        transport = self.server(idle_seconds_max=20)
        stock, wire = StockClient(), StringTransport()
        stock.makeConnection(wire)
        for _ in range(10):
            self.sweep(transport, 19)
            asked = stock.callRemote(Get, key=b"k")
            transport.say(wire.value())
            wire.clear()
            stock.dataReceived(transport.take())
            self.assertEqual(self.successResultOf(asked)["value"], b"v")
        self.assertFalse(transport.aborted)
        self.sweep(transport, 1 + 20)
        self.assertTrue(transport.aborted)

    def test_fresh_connection(self) -> None:
        """Else a client that connects just before a sweep is hung up on before it has said a word:
        it has been silent for a moment, not for the time between two sweeps."""
        transport = self.server(idle_seconds_max=10)
        transport.protocol.sweep(10.0)
        self.assert_alive(transport)

    def test_waiting_for_an_answer_is_not_idle(self) -> None:
        """Else a client that waits for a slow request is hung up on instead of answered."""
        transport = self.server(idle_seconds_max=5)
        transport.say(ask(Put, key=b"k", value=b"v"))
        self.sweep(transport, 50)
        self.answer(0)
        self.sweep(transport, 4)
        self.assertFalse(transport.aborted)
        self.sweep(transport, 2)
        self.assertTrue(transport.aborted)

    def test_taking_an_answer_is_a_sign_of_life(self) -> None:
        """Else a client that takes its time over a large answer is hung up on when it has it."""
        self.value = FILLING
        transport = self.server(idle_seconds_max=5)
        transport.say(ask(Get, key=b"k"))
        self.sweep(transport, 4)
        self.assertEqual(tags(boxes_in(transport.take())), [1])
        self.sweep(transport, 4)
        self.assert_alive(transport)

    def test_having_taken_an_answer_is_none(self) -> None:
        """Else a peer that has once read slowly is never hung up on, however silent."""
        self.value = FILLING
        transport = self.server(idle_seconds_max=5)
        transport.say(ask(Get, key=b"k"))
        transport.take()
        self.sweep(transport, 10)
        self.assertTrue(transport.aborted)


class SlowTests(FlowTestCase):
    """T5: a box that begins and does not end. Sweeps are five seconds apart."""

    least_bytes = 500

    def setUp(self) -> None:
        super().setUp()
        self.request = ask(Get, key=b"k", trace=b"t" * 60_000)

    def begin(self, **changes: Any) -> Transport:
        """A server that has read the beginning of a request."""
        transport = self.server(box_bytes_per_second_min=100, **changes)
        transport.say(self.request[:1])
        self.sweep(transport)
        self.said = 1
        return transport

    def go_on(self, transport: Transport, size: int) -> None:
        """The next bytes of the request, and a sweep."""
        transport.say(self.request[self.said : self.said + size])
        self.said += size
        self.sweep(transport)

    def sweep(self, transport: Transport) -> None:
        transport.protocol.sweep(5.0)

    def test_progress(self) -> None:
        """Else half a request holds its memory for as long as the attacker likes; or a client on a
        slow line can never send a large value."""
        for size in (self.least_bytes - 1, self.least_bytes, self.least_bytes + 1):
            transport = self.begin()
            with warnings() as lines:
                self.go_on(transport, size)
            if size < self.least_bytes:
                self.assert_dropped(transport, lines, "box_bytes_per_second_min=100")
            else:
                self.assertEqual((lines, transport.aborted), ([], False))

    def test_one_byte(self) -> None:
        """Else a byte now and then keeps a connection, and what it has begun, for ever."""
        transport = self.begin(idle_seconds_max=1000)
        self.go_on(transport, 1)
        self.assertTrue(transport.aborted)

    def test_large_box_over_several_sweeps(self) -> None:
        """Else a large value is cut off because it takes long, though it goes on."""
        transport = self.begin()
        for _ in range(100):
            self.go_on(transport, 600)
        self.assertFalse(transport.aborted)
        transport.say(self.request[self.said :])
        self.assertEqual(tags(boxes_in(transport.take())), [1])
        self.assert_alive(transport)

    def test_begun_just_before_a_sweep(self) -> None:
        """Else whoever begins to send at the wrong moment is cut off."""
        transport = self.server(box_bytes_per_second_min=100)
        transport.say(self.request[:1])
        self.sweep(transport)
        self.assertFalse(transport.aborted)
        transport.say(self.request[1:])
        transport.take()
        for at in range(20):
            transport.say(self.request[:1] if at % 2 == 0 else self.request[1:])
            self.sweep(transport)
            self.assertFalse(transport.aborted)
            if at % 2 == 0:
                transport.say(self.request[1:])
                transport.say(self.request[:1])

    def test_another_box(self) -> None:
        """Else a client that sends little at a time is cut off because each sweep finds it within
        some box."""
        transport = self.begin()
        small = ask(Ping)
        transport.say(self.request[1:])
        for _ in range(10):
            transport.say(small[:3])
            self.sweep(transport)
            transport.say(small[3:])
        self.assertFalse(transport.aborted)

    def test_between_boxes(self) -> None:
        """Else a client that waits a moment before its next request is cut off."""
        transport = self.server(box_bytes_per_second_min=100)
        transport.say(ask(Ping))
        for _ in range(10):
            self.sweep(transport)
        self.assertEqual(tags(boxes_in(transport.take())), [1])
        self.assert_alive(transport)

    def test_not_while_we_do_not_read(self) -> None:
        """Else a client is cut off for not sending while it is the node that does not read."""
        self.value = FILLING
        transport = self.server(box_bytes_per_second_min=100)
        transport.say(ask(Get, key=b"k") + self.request[:1])
        self.assertFalse(transport.is_reading)
        for _ in range(3):
            self.sweep(transport)
        self.assertFalse(transport.aborted)
        transport.take()
        self.sweep(transport)
        self.assertFalse(transport.aborted, "it has had no time to send anything")
        self.sweep(transport)
        self.assertTrue(transport.aborted)


class LogTests(FlowTestCase):
    """T5: what peers can do to the log."""

    def test_one_line_a_second(self) -> None:
        """Else whoever connects again and again fills the disk with log lines; and how many were
        kept back is said, since it says how bad it is."""
        seldom = Seldom(Logger(namespace="kvtwist.tests"), self.clock.seconds)
        garbage = b"GET / HTTP/1.1\r\n"
        with warnings() as lines:
            for _ in range(3):
                for _ in range(10):
                    transport = Transport(Connection(self.deadlines, seldom=seldom))
                    transport.say(garbage)
                    self.assertTrue(transport.aborted)
                self.clock.advance(INTERVAL_SECONDS)
        self.assertEqual(len(lines), 3)
        self.assertNotIn("more such lines", lines[0])
        for line in lines[1:]:
            self.assertIn("(and 9 more such lines)", line)
