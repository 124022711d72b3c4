"""One AMP connection, either end: typed commands out, typed commands in.

This takes the place of ``twisted.protocols.amp.AMP``: the same bytes, without what that does to a
server. An exception in a responder, a malformed argument and an unknown command are answered, and
the connection with all that is in flight on it lives on; nobody is offered ``StartTLS``; each call
has a time limit.

A call ends in exactly one of these ways:

* its answer;
* an error that the peer declared, rebuilt as the exception it was there;
* `NotSent`: there was no connection, and nothing has left;
* `NoAnswer`: time was up, or the connection was lost, after it had left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, TypeAlias

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    NoAnswer,
    NodeFault,
    NotSent,
    OutcomeUnknown,
    TooLarge,
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
    FramingError,
    OversizedBox,
    write_box,
)
from kvtwist.wire.failures import crosses_the_wire, read_failure, write_failure
from kvtwist.wire.greeting import Greeting

Arguments: TypeAlias = dict[str, Any]
Responder: TypeAlias = Callable[["Connection", Arguments], "Arguments | Deferred[Arguments]"]
Responders: TypeAlias = Mapping[type[amp.Command], Responder]

DEFAULT_LIMITS = BoxLimits.for_values_of(16 << 20)

_log = Logger(namespace="kvtwist.wire")


class _Question:
    """A call that waits for its answer."""

    __slots__ = ("answer", "command", "timeout")

    def __init__(
        self, command: type[amp.Command], answer: Deferred[Arguments], timeout: IDelayedCall
    ) -> None:
        self.command = command
        self.answer = answer
        self.timeout = timeout


class Connection(Protocol):
    """The protocol.

    :param reactor: for time limits.
    :param responders: what to do with each command that comes in. A responder gets the connection
        and the command's arguments; it returns the answer, or a Deferred of it, or raises.
    :param limits: how large a box may be.

    :ivar greeting: what the peer said in its `Hello`, once it has.
    :ivar reads: how often bytes have come in; it stands still while the peer is silent.
    :ivar unanswered: requests of the peer's that are being worked on.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        responders: Responders | None = None,
        limits: BoxLimits = DEFAULT_LIMITS,
    ) -> None:
        self._reactor = reactor
        self._responders = {
            command.commandName: (command, responder)
            for command, responder in (responders or {}).items()
        }
        self._reader = BoxReader(limits)
        self._questions: dict[bytes, _Question] = {}
        self._numbers = count(1)
        self._corked: list[bytes] | None = None
        self._why_dropped = ""
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
        box = command.makeArguments(arguments, self)
        if not self.connected:
            return fail(NotSent("the connection is down"))
        tag = b"%x" % next(self._numbers)
        box[COMMAND] = command.commandName
        box[ASK] = tag
        answer: Deferred[Arguments] = Deferred(lambda _: self._cancelled(tag))
        timeout = self._reactor.callLater(timeout_seconds, self._time_is_up, tag, timeout_seconds)
        self._questions[tag] = _Question(command, answer, timeout)
        self._write(write_box(box))
        return answer

    def abort(self) -> None:
        """Drop the connection at once: what is in flight on it fails."""
        if self.transport is not None:
            abort = getattr(self.transport, "abortConnection", self.transport.loseConnection)
            abort()

    def close(self) -> None:
        """Close the connection once everything written has been sent."""
        if self.transport is not None:
            self.transport.loseConnection()

    def when_made(self, notify: Callable[[Connection], None]) -> None:
        """Have *notify* called when the connection is made."""
        self._when_made.append(notify)

    def when_lost(self, notify: Callable[[Failure], None]) -> None:
        """Have *notify* called when the connection is lost."""
        self._when_lost.append(notify)

    def _cancelled(self, tag: bytes) -> None:
        self._forget(tag)

    def _forget(self, tag: bytes) -> _Question | None:
        question = self._questions.pop(tag, None)
        if question is not None and question.timeout.active():
            question.timeout.cancel()
        return question

    def _time_is_up(self, tag: bytes, timeout_seconds: float) -> None:
        question = self._forget(tag)
        if question is not None:
            question.answer.errback(NoAnswer(f"no answer within {timeout_seconds:.3g} s"))

    def _answer_received(self, tag: bytes, box: Box) -> None:
        question = self._forget(tag)
        if question is None:
            return  # too late: the call has ended already
        try:
            answer = question.command.parseResponse(box, self)
        except Exception as error:
            name = question.command.__name__
            question.answer.errback(OutcomeUnknown(f"the answer to {name} is malformed: {error}"))
        else:
            question.answer.callback(answer)

    def _error_received(self, tag: bytes, box: Box) -> None:
        question = self._forget(tag)
        if question is not None:
            code, description = box.get(ERROR_CODE, b""), box.get(ERROR_DESCRIPTION, b"")
            question.answer.errback(read_failure(code, description))

    # -- responding ---------------------------------------------------------------------------

    def _command_received(self, name: bytes, box: Box) -> None:
        tag = box.get(ASK)
        self.unanswered += 1
        try:
            answer = self._respond(name, box)
        except Exception:
            self._answer_failure(Failure(), name, tag)
            return
        if isinstance(answer, Deferred):
            answer.addCallback(self._answer, name, tag)
            answer.addErrback(self._answer_failure, name, tag)
        else:
            self._answer(answer, name, tag)

    def _respond(self, name: bytes, box: Box) -> Arguments | Deferred[Arguments]:
        if isinstance(box, OversizedBox):
            raise _too_large(box)
        if name not in self._responders:
            known = ", ".join(sorted(known.decode() for known in self._responders)) or "none"
            raise UnknownCommand(f"there is no command {_shown(name)} here; known are: {known}")
        command, responder = self._responders[name]
        try:
            arguments = command.parseArguments(box, self)
        except Exception as error:
            raise MalformedRequest(f"{command.__name__}: {error}") from error
        return responder(self, arguments)

    def _answer(self, answer: Arguments, name: bytes, tag: bytes | None) -> None:
        command, _ = self._responders[name]
        try:
            box = command.makeResponse(answer, self)
        except Exception:
            self._answer_failure(Failure(), name, tag)
            return
        self._finish(ANSWER, box, tag)

    def _answer_failure(self, failure: Failure, name: bytes, tag: bytes | None) -> None:
        error = failure.value
        if not (isinstance(error, KvtwistError) and crosses_the_wire(error)):
            _log.failure("a bug: {command} failed", failure, command=_shown(name))
            error = NodeFault(f"the node failed at {_shown(name)}; its log says why")
        code, description = write_failure(error)
        self._finish(ERROR, {ERROR_CODE: code, ERROR_DESCRIPTION: description}, tag)

    def _finish(self, kind: bytes, box: dict[bytes, bytes], tag: bytes | None) -> None:
        self.unanswered -= 1
        if tag is not None:
            box[kind] = tag
            self._write(write_box(box))

    # -- bytes --------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Take in bytes; what is answered at once goes out in one write."""
        self.reads += 1
        try:
            boxes = self._reader.feed(data)
        except FramingError as error:
            self._not_amp(error)
            return
        self._corked = []
        try:
            for box in boxes:
                self._box_received(box)
        finally:
            corked, self._corked = self._corked, None
            if corked and self.connected:
                self._write(b"".join(corked))

    def _box_received(self, box: Box) -> None:
        if (tag := box.get(ANSWER)) is not None:
            if isinstance(box, OversizedBox):
                self._oversized_answer(tag, box)
            else:
                self._answer_received(tag, box)
        elif (tag := box.get(ERROR)) is not None:
            self._error_received(tag, box)
        elif (name := box.get(COMMAND)) is not None:
            self._command_received(name, box)
        else:
            _log.debug("{peer}: a box without a command passed over", peer=self._peer())

    def _oversized_answer(self, tag: bytes, box: OversizedBox) -> None:
        question = self._forget(tag)
        if question is not None:
            question.answer.errback(_too_large(box))

    def _write(self, data: bytes) -> None:
        if not self.connected or self.transport is None:
            return
        if self._corked is not None:
            self._corked.append(data)
        else:
            self.transport.write(data)

    # -- the connection's life ------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Tell who wants to know."""
        for notify in self._when_made:
            notify(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Fail everything in flight."""
        self.connected = 0
        why = self._why_dropped or f"the connection was lost: {reason.getErrorMessage()}"
        for tag in list(self._questions):
            question = self._forget(tag)
            if question is not None:
                question.answer.errback(NoAnswer(why))
        for notify in self._when_lost:
            notify(reason)

    def _not_amp(self, error: FramingError) -> None:
        _log.warn("{peer}: connection dropped: {error}", peer=self._peer(), error=error)
        self._why_dropped = "it does not speak our protocol: is it a kvtwist node?"
        self.abort()

    def _peer(self) -> str:
        if self.greeting is not None and self.greeting.name:
            return self.greeting.who
        peer = self.transport.getPeer() if self.transport is not None else None
        host, port = getattr(peer, "host", None), getattr(peer, "port", None)
        return f"{host}:{port}" if host else "a peer"


def _too_large(box: OversizedBox) -> TooLarge:
    return TooLarge(
        f"the box is over the limit {box.setting}={box.limit}: send less at once",
        setting=box.setting,
        limit=box.limit,
        actual=box.actual,
    )


def _shown(name: bytes) -> str:
    return repr(name[:40])[1:]
