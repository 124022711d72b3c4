"""One AMP connection, either end: typed commands out, typed commands in.

This takes the place of ``twisted.protocols.amp.AMP``: the same bytes, without what that does to a
server. An exception in a responder, a malformed argument and an unknown command are answered, and
the connection with all that is in flight on it lives on; nobody is offered ``StartTLS``; each call
has a time limit; and no peer can make it hold more than its `ConnectionLimits` allow.

A call ends in exactly one of these ways:

* its answer;
* an error that the peer declared, rebuilt as the exception it was there;
* `NotSent`: there was no connection, and nothing has left;
* `Overloaded`: too much is in flight here already, and nothing has left;
* `NoAnswer`: time was up, or the connection was lost, after it had left.

**Flow control.** A connection is its transport's push producer; what the transport has no room for
waits in an `Outbox`. One with responders reads nothing while its answers are not taken. One without
goes on reading whatever happens; so two ends never wait for each other. What it may send is bounded
by what may be in flight.

**The short way.** The most frequent boxes are taken where they lie in the stream, if nothing is to
be said but the answer (`kvtwist.wire.frequent`). All else, and whatever follows it in the same
chunk, goes the ordinary way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from twisted.internet import tcp
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    NodeFault,
    NotSent,
    Overloaded,
    TooLarge,
    UnknownCommand,
)
from kvtwist.wire import frequent
from kvtwist.wire.boxes import (
    ANSWER,
    ASK,
    COMMAND,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    Box,
    BoxReader,
    FramingError,
    OversizedBox,
    Parts,
    write_box,
)
from kvtwist.wire.calls import Call, Calls, overloaded
from kvtwist.wire.codec import Codec, Values, codec_of
from kvtwist.wire.commands import Fragment
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.failures import crosses_the_wire, write_failure
from kvtwist.wire.fragments import FRAGMENT, FRAGMENT_BYTES_MAX, Joiner
from kvtwist.wire.greeting import Greeting
from kvtwist.wire.limits import DEFAULT_LIMITS, ConnectionLimits
from kvtwist.wire.outbox import Outbox
from kvtwist.wire.seldom import Seldom
from kvtwist.wire.turn import Turn

Arguments: TypeAlias = Values
Responder: TypeAlias = Callable[["Connection", Arguments], "Arguments | Deferred[Arguments]"]
Responders: TypeAlias = Mapping[bytes, tuple[Codec, Responder]]
Frequent: TypeAlias = Callable[[bytes, "bytes | None"], "bytes | None"]
"""Answers a `Get` of a key, or a `Put` of a key and a value, at once: the answer's bytes after its
tag (`kvtwist.wire.frequent`). ``None``: the request has to take the ordinary way."""

SENSELESS_BOXES_MAX = 100
"""Boxes that are neither request nor answer: passed over, up to so many on one connection."""
CORKED_BYTES_MAX = 1 << 16
"""Answers are joined up to so many bytes; then they go to the transport, which says when it has
enough."""

_log = Logger(namespace="kvtwist.wire")


def responders(named: Mapping[type[amp.Command], Responder]) -> Responders:
    """A table for `Connection`: what to do with each command that comes in.

    A responder gets the connection and the command's arguments; it returns the answer, or a
    Deferred of it, or raises.
    """
    return {
        command.commandName: (codec_of(command), responder) for command, responder in named.items()
    }


class _Swept(NamedTuple):
    """What the last sweep saw.

    ``inside`` are the numbers of the boxes that had begun, one as such and one in fragments;
    ``None`` between boxes. ``quiet_sweeps`` counts whole intervals of silence: a new connection's
    first one may be no whole one.
    """

    read_bytes: int = 0
    inside: tuple[int | None, int | None] = (None, None)
    quiet_sweeps: int = -1


@implementer(IPushProducer, IHalfCloseableProtocol)
class Connection(Protocol):
    """The protocol.

    :param deadlines: ends the calls whose time is up.
    :param table: made by `responders`; none for an end that only asks.
    :param account: told how many bytes are held for the peer, whenever that has changed: boxes that
        it has begun, requests that wait or are worked on, answers that it has not taken.
    :param turn: shared with the connections that what comes in here makes something go out on.
    :param frequent_responder: the short way for the most frequent requests in the table.

    :ivar greeting: what the peer said in its `Hello`, once it has.
    :ivar reads: how often bytes have come in; it stands still while the peer is silent.
    :ivar why_dropped: why this side has dropped the connection; empty if it has not.
    :ivar unanswered: requests of the peer's that are being worked on.
    """

    transport: Any
    """An `ITCPTransport`, once the connection is made."""

    def __init__(
        self,
        deadlines: Deadlines,
        table: Responders | None = None,
        limits: ConnectionLimits = DEFAULT_LIMITS,
        seldom: Seldom | None = None,
        account: Callable[[int], None] | None = None,
        turn: Turn | None = None,
        frequent_responder: Frequent | None = None,
    ) -> None:
        self._account_for = account
        self._held_bytes = 0
        self._responders = table or {}
        self._limits = limits
        self._seldom = seldom or Seldom(_log, deadlines.seconds)
        self._reader = BoxReader(limits.boxes)
        self._joiner = Joiner(limits.boxes)
        self._calls = Calls(deadlines, limits)
        self._outbox = Outbox(self._hand_over, self._can_join, self._calls.waits_for)
        self._work: set[Deferred[Arguments]] = set()
        self._frequent_responder = frequent_responder
        # Under a limit that a frequent box could be over, none is taken for one.
        boxes = limits.boxes
        roomy = boxes.box_pairs_max >= frequent.PAIRS_MAX
        self._box_bytes_max = boxes.box_bytes_max if roomy else 0
        self._working_bytes = 0
        self._turn = turn or Turn()
        self._corked: list[Any] = []
        self._corked_bytes = 0
        self._backlog: deque[Box] = deque()
        self._backlog_bytes = 0
        self._paused = False
        self._read_bytes = 0
        self._swept = _Swept()
        self._senseless = 0
        self._read_lost = False
        self._resumed = False
        self.why_dropped = ""
        self._when_made: list[Callable[[Connection], None]] = []
        self._when_lost: list[Callable[[Failure], None]] = []
        self.greeting: Greeting | None = None
        self.reads = 0
        self.unanswered = 0

    # -- calling ------------------------------------------------------------------------------

    def call(
        self, command: type[amp.Command], arguments: Arguments, timeout_seconds: float
    ) -> Deferred[Arguments]:
        """Send *command*; see the module's docstring for how it ends.

        :raises ValueError, TypeError: at once, when the arguments do not fit the command.
        """
        if not self.connected:
            return fail(NotSent("the connection is down"))
        if self._outbox.is_paused and (overload := self._clogged()) is not None:
            return fail(overload)
        try:
            data, answer = self._calls.begin(command, arguments, timeout_seconds)
        except Overloaded as error:
            return fail(error)
        self._write(data)
        return answer

    def _clogged(self) -> Overloaded | None:
        """Requests whose time was up before the transport took them: not in flight, but there."""
        limit = self._limits.request_bytes_in_flight_max
        if self._outbox.behind_bytes > limit:
            return overloaded("request_bytes_in_flight_max", limit)
        return None

    def ask(self, call: Call, body: bytes) -> bool:
        """Send a frequent request, if there is a connection and room; else nothing has happened.

        :param call: is answered; its deadline is set.
        :param body: the request after its tag.
        """
        if not self.connected or self._outbox.is_paused:
            return False
        tag = self._calls.new_tag()
        if not self._calls.enter(call, tag, len(body)):
            return False
        self._write(frequent.ASK_HEADS[len(tag)] + tag + body)
        return True

    @property
    def is_full(self) -> bool:
        """Whether another call would end in `Overloaded` at once."""
        return self._calls.is_full

    def room(self) -> Deferred[None]:
        """Fires when there may be room for another call; first come, first served.

        Fails with `NotSent` when the connection is lost.
        """
        return self._calls.room()

    def abort(self) -> None:
        """Drop the connection at once: what is in flight on it fails."""
        if self.transport is not None:
            abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
            abort()

    def close(self) -> None:
        """Close the connection once everything written has been sent.

        A transport that has a producer waits for it; this one has nothing more to say.
        """
        if self.transport is not None:
            self.uncork()
            self._outbox.flush()
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def when_made(self, notify: Callable[[Connection], None]) -> None:
        """Have *notify* called when the connection is made."""
        self._when_made.append(notify)

    def when_lost(self, notify: Callable[[Failure], None]) -> None:
        """Have *notify* called when the connection is lost."""
        self._when_lost.append(notify)

    # -- responding ---------------------------------------------------------------------------

    def _command_received(self, name: bytes, box: Box) -> None:
        tag = box.get(ASK)
        try:
            codec, answer = self._respond(name, box)
            if isinstance(answer, dict):  # asked first: to ask for a Deferred asks an ABC
                if tag is not None:
                    self._write(codec.answer(tag, answer))
                return
            if not isinstance(answer, Deferred):
                raise TypeError(f"a responder returned {type(answer).__name__}")
        except Exception:
            self._answer_failure(Failure(), name, tag)
            return
        size_bytes = _size_bytes(box)
        self.unanswered += 1
        self._working_bytes += size_bytes
        self._work.add(answer)
        answer.addCallback(self._answer_later, codec, tag)
        answer.addErrback(self._answer_failure, name, tag)
        answer.addBoth(self._worked, answer, size_bytes)

    def _respond(self, name: bytes, box: Box) -> tuple[Codec, Arguments | Deferred[Arguments]]:
        if isinstance(box, OversizedBox) and name != FRAGMENT:
            raise _too_large(box)
        entry = self._responders.get(name)
        if entry is None and name == FRAGMENT:
            return codec_of(Fragment), self._join(box)
        if entry is None:
            known = ", ".join(sorted(known.decode() for known in self._responders)) or "none"
            raise UnknownCommand(f"there is no command {_shown(name)} here; known are: {known}")
        if self.unanswered and (overload := self._overworked(_size_bytes(box))) is not None:
            raise overload
        codec, responder = entry
        try:
            arguments = codec.read_arguments(box)
        except Exception as error:
            raise MalformedRequest(f"{codec.command.__name__}: {error}") from error
        return codec, responder(self, arguments)

    def _join(self, fragment: Box) -> Arguments:
        """Take in a fragment; what it completes is treated like a box that came whole."""
        try:
            whole = self._joiner.feed(fragment)
        except FramingError as error:
            self.drop("it sends fragments that make no box", str(error))
        else:
            if whole is not None:
                self._box_received(whole)
        return {}

    def _overworked(self, size_bytes: int) -> Overloaded | None:
        limits = self._limits
        if self.unanswered >= limits.requests_in_flight_max:
            return overloaded("requests_in_flight_max", limits.requests_in_flight_max)
        if self._working_bytes + size_bytes > limits.request_bytes_in_flight_max:
            return overloaded("request_bytes_in_flight_max", limits.request_bytes_in_flight_max)
        return None

    def _answer_later(self, answer: Arguments, codec: Codec, tag: bytes | None) -> None:
        if tag is not None:
            self._write(codec.answer(tag, answer))

    def _worked(
        self, result: Failure | None, answer: Deferred[Arguments], size_bytes: int
    ) -> Failure | None:
        self._work.discard(answer)
        self.unanswered -= 1
        self._working_bytes -= size_bytes
        self._account()
        self._close_if_done()
        return result

    def _answer_failure(self, failure: Failure, name: bytes, tag: bytes | None) -> None:
        if not self.connected:
            return  # its work was cancelled: there is nobody to be told
        error = failure.value
        if not (isinstance(error, KvtwistError) and crosses_the_wire(error)):
            _log.failure("a bug: {command} failed", failure, command=_shown(name))
            error = NodeFault(f"the node failed at {_shown(name)}; its log says why")
        if tag is not None:
            code, text = write_failure(error)
            self._write(write_box({ERROR: tag, ERROR_CODE: code, ERROR_DESCRIPTION: text}))

    # -- bytes --------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take in bytes; what is answered at once goes out in one write."""
        self.reads += 1
        self._read_bytes += len(data)
        if self.why_dropped:
            return
        mine = self._turn.open()
        try:
            at = self._take_frequent(data)
            if at < len(data) and not self.why_dropped:
                self._take_any(data[at:] if at else data)
        finally:
            if mine:
                self._turn.close()

    def _take_frequent(self, data: bytes) -> int:
        """Take the boxes that *data* begins with while they are frequent ones; where they end."""
        if self._reader.is_inside_box:
            return 0
        if self._frequent_responder is None:
            return self._take_answers(data)
        return self._take_requests(data, self._frequent_responder)

    def _take_answers(self, data: bytes) -> int:
        """Take the frequent answers."""
        read, seen, at = frequent.read_answer, self._calls.seen, 0
        while (answer := read(data, at)) is not None and not self.why_dropped:
            tag, version, value, end = answer
            if end - at > self._box_bytes_max or not seen(tag, version, value):
                break
            at = end
        return at

    def _take_requests(self, data: bytes, respond: Frequent) -> int:
        """Answer the frequent requests, until the transport has enough of the answers.

        While others are being worked on, what they take of the limits has to be looked at: that is
        the ordinary way's business.
        """
        at = 0
        if self.unanswered:
            return at
        while not self._paused and (request := frequent.read_request(data, at)) is not None:
            tag, key, value, end = request
            if end - at > self._box_bytes_max:
                break
            try:
                answer = respond(key, value)
            except Exception:
                self._answer_failure(Failure(), frequent.command_name(value), tag)
            else:
                if answer is None:
                    break
                self._write(frequent.ANSWER_HEADS[len(tag)] + tag + answer)
            at = end
            if self._corked_bytes > CORKED_BYTES_MAX:
                self.uncork()
        return at

    def _take_any(self, data: bytes) -> None:
        """Take boxes of all kinds."""
        try:
            boxes = self._reader.feed(data)
        except FramingError as error:
            self.drop("it does not speak our protocol: is it a kvtwist node?", str(error))
            return
        if self._backlog or self._paused:
            self._lay_by(boxes)
        else:
            self._take(boxes)
        self._account()

    def _lay_by(self, boxes: list[Box]) -> None:
        """Leave *boxes* for later."""
        self._backlog.extend(boxes)
        self._backlog_bytes += sum(map(_size_bytes, boxes))

    def _take(self, boxes: list[Box]) -> None:
        """Work on *boxes*, until the transport has enough of the answers."""
        for at, box in enumerate(boxes):
            self._box_received(box)
            if self.why_dropped:
                return
            if self._corked_bytes > CORKED_BYTES_MAX:
                self.uncork()
                if self._paused:
                    self._lay_by(boxes[at + 1 :])
                    return

    def _box_received(self, box: Box) -> None:
        if (tag := box.get(ANSWER)) is not None:
            self._calls.answered(tag, box)
        elif (tag := box.get(ERROR)) is not None:
            self._calls.failed(tag, box)
        elif (name := box.get(COMMAND)) is not None:
            self._command_received(name, box)
        else:
            self._senseless += 1
            if self._senseless > SENSELESS_BOXES_MAX:
                self.drop("it sends boxes that say nothing")

    def _write(self, data: bytes | Parts) -> None:
        if not self._turn.is_open:
            self._send(data)
            return
        if not self._corked:
            self._turn.holds_back(self)
        self._corked.append(data)
        self._corked_bytes += len(data)

    def uncork(self) -> None:
        """Send what was held back in this turn."""
        corked, self._corked = self._corked, []
        size_bytes, self._corked_bytes = self._corked_bytes, 0
        if not corked:
            return
        if size_bytes <= FRAGMENT_BYTES_MAX:
            self._send(self._sent_now(b"".join(corked)))
        else:
            for data in corked:  # one of them is large, and must not take the others with it
                self._send(data)
        self._account()

    def _sent_now(self, data: bytes) -> bytes:
        """Hand *data* to the socket at once; what of it is left, for the transport.

        A TCP transport whose buffer is empty would ask the reactor when the socket can be written
        to, which it can, and let go of it again: three system calls and a turn of the reactor.
        This is only for the end of a turn; what is written outside of one the transport joins.
        """
        transport = self.transport
        if (
            not isinstance(transport, tcp.Connection)
            or transport.TLS
            or not transport.connected
            or transport.disconnecting
            or transport.dataBuffer
            or transport._tempDataBuffer
            or self._outbox.is_paused
            or self.why_dropped
            or len(data) > CORKED_BYTES_MAX  # what is left of it would be copied
        ):
            return data
        sent = transport.writeSomeData(data)
        if not isinstance(sent, int):
            return data  # the connection is lost, which the transport will find out in its turn
        return data[sent:]

    def _send(self, data: bytes | Parts) -> None:
        if not self.connected or self.transport is None or self.why_dropped or not data:
            return
        outbox = self._outbox
        was_paused = outbox.is_paused
        if was_paused or len(data) > FRAGMENT_BYTES_MAX:
            self._queue(data)
            return
        self.transport.write(data)
        if outbox.is_paused:
            outbox.wrote(len(data))

    def _queue(self, data: bytes | Parts) -> None:
        """Send what the transport has no room for."""
        was_behind = self._outbox.behind_bytes
        self._outbox.put(data)
        self._rest()
        # One answer alone may be over the limit: so large are the values that the node takes.
        limit = self._limits.answer_bytes_unread_max
        if self._responders and was_behind and self._outbox.behind_bytes > limit:
            self.drop(f"over answer_bytes_unread_max={limit}: it does not read its answers")

    def _hand_over(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)

    def _can_join(self) -> bool:
        return self.greeting is not None and self.greeting.joins_fragments

    # -- flow control: the transport's side ------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport has enough; it says so at every write that it has no room for."""
        self._outbox.pause()
        self._rest()

    def resumeProducing(self) -> None:
        """It has nothing left: first what waits, then what was left lying, then new requests."""
        self._resumed = True
        self._outbox.resume()
        if self._paused and not self._outbox.has_enough:
            self._go_on()
        if not self._outbox.is_paused and getattr(self.transport, "disconnecting", False):
            self.transport.unregisterProducer()  # who waits for us to have nothing more to say
        self._account()

    def _rest(self) -> None:
        """Read no more requests while the other end does not take its answers."""
        if self._responders and not self._paused and self._outbox.has_enough:
            self._paused = True
            if self.transport is not None:
                self.transport.pauseProducing()

    def _go_on(self) -> None:
        self._paused = False
        while self._backlog and not self._paused:
            boxes = list(self._backlog)
            self._backlog.clear()
            self._backlog_bytes = 0
            mine = self._turn.open()
            try:
                self._take(boxes)
            finally:
                if mine:
                    self._turn.close()
        if not self._paused and self.transport is not None:
            self.transport.resumeProducing()
            self._close_if_done()

    def stopProducing(self) -> None:
        """The connection is going; `connectionLost` follows."""

    # -- the connection's life ------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Tell who wants to know."""
        if self.transport is not None:
            self.transport.registerProducer(self, True)
        for notify in self._when_made:
            notify(self)

    def sweep(self, interval_seconds: float) -> None:
        """Look whether the peer still does something; to be called every *interval_seconds*."""
        before, limits = self._swept, self._limits
        progress_bytes = self._read_bytes - before.read_bytes
        busy = progress_bytes or self.unanswered or self._resumed
        self._resumed = False
        now = _Swept(
            read_bytes=self._read_bytes,
            inside=(self._begun(self._reader), self._begun(self._joiner.reader)),
            quiet_sweeps=0 if busy else before.quiet_sweeps + 1,
        )
        self._swept = now
        both = zip(before.inside, now.inside, strict=True)
        stuck = any(one is not None and one == other for one, other in both)
        least_bytes = limits.box_bytes_per_second_min * interval_seconds
        if stuck and progress_bytes < least_bytes:
            self.drop(f"under box_bytes_per_second_min={limits.box_bytes_per_second_min}")
        elif now.quiet_sweeps * interval_seconds >= limits.idle_seconds_max:
            self.drop(f"over idle_seconds_max={limits.idle_seconds_max}")

    def _begun(self, reader: BoxReader) -> int | None:
        """The number of the box that has begun, if it is for the peer to go on with it."""
        return reader.boxes if reader.is_inside_box and not self._paused else None

    def readConnectionLost(self) -> None:
        """The peer sends nothing more, but may still read: answer what it has asked, then close."""
        self._read_lost = True
        self._close_if_done()

    def writeConnectionLost(self) -> None:
        """We do not half-close; `IHalfCloseableProtocol` wants this."""

    def _close_if_done(self) -> None:
        if self._read_lost and not self.unanswered and not self._backlog:
            self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail everything in flight."""
        self.connected = 0
        for answer in tuple(self._work):
            answer.cancel()  # nobody can be answered, and it holds what it works on
        self._backlog.clear()
        self._outbox.clear()
        self._reader.clear()
        self._joiner.reader.clear()
        why = self.why_dropped or f"the connection was lost: {reason.getErrorMessage()}"
        self._calls.lost(why)
        for notify in self._when_lost:
            notify(reason)

    def _account(self) -> None:
        """Say what is held, if somebody wants to know and it has changed."""
        if self._account_for is None or self.why_dropped or not self.connected:
            return
        held_bytes = (
            self._reader.held_bytes
            + self._joiner.reader.held_bytes
            + self._backlog_bytes
            + self._working_bytes
            + self._outbox.unread_bytes
        )
        if held_bytes != self._held_bytes:
            self._held_bytes = held_bytes
            self._account_for(held_bytes)

    def drop(self, why: str, detail: str = "") -> None:
        """Abort the connection and say why, in the log (seldom) and to whoever waits."""
        self.why_dropped = why
        self._seldom.warn(f"{self._peer()}: connection dropped: {detail or why}")
        self.abort()

    def _peer(self) -> str:
        if self.greeting is not None and self.greeting.name:
            return self.greeting.who
        peer = self.transport.getPeer() if self.transport is not None else None
        host, port = getattr(peer, "host", None), getattr(peer, "port", None)
        return f"{host}:{port}" if host else "a peer"


def _size_bytes(box: Box) -> int:
    return sum(map(len, box.values()))


def _too_large(box: OversizedBox) -> TooLarge:
    return TooLarge(
        f"the box is over the limit {box.setting}={box.limit}: send less at once",
        setting=box.setting,
        limit=box.limit,
        actual=box.actual,
    )


def _shown(name: bytes) -> str:
    return repr(name[:40])[1:]
