"""What the other end of a connection has asked for, and what is being done about it.

In: requests. Out: the bytes of an answer or an error for each that wants one, at once or later. An
exception in a responder, a malformed argument and an unknown command are answers too. What is
worked on at the same time is bounded, in number and in bytes; a request that is alone may have any
size.

**The short way.** The most frequent requests are answered where they lie in the stream, if nothing
is to be said but the answer (`kvtwist.wire.frequent`). All else, and whatever follows it in the
same chunk, goes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    NodeFault,
    OutcomeUnknown,
    TooLarge,
    UnknownCommand,
)
from kvtwist.wire import frequent
from kvtwist.wire.boxes import (
    ASK,
    BOX_BYTES,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    Box,
    OversizedBox,
    size_bytes,
    write_box,
)
from kvtwist.wire.calls import overloaded
from kvtwist.wire.codec import Codec, Values, codec_of
from kvtwist.wire.failures import crosses_the_wire, write_failure
from kvtwist.wire.limits import ConnectionLimits
from kvtwist.wire.sending import CORKED_BYTES_MAX, Sending

if TYPE_CHECKING:
    from kvtwist.wire.connection import Connection

Arguments: TypeAlias = Values
Responder: TypeAlias = "Callable[[Connection, Arguments], Arguments | Deferred[Arguments]]"
Responders: TypeAlias = Mapping[bytes, tuple[Codec, Responder]]
Frequent: TypeAlias = Callable[[bytes, "bytes | None"], "bytes | None"]
"""Answers a `Get` of a key, or a `Put` of a key and a value, at once: the answer's bytes after its
tag (`kvtwist.wire.frequent`). ``None``: the request has to take the ordinary way."""

_log = Logger(namespace="kvtwist.wire")


def responders(named: Mapping[type[amp.Command], Responder]) -> Responders:
    """A table for `Work`: what to do with each command that comes in.

    A responder gets the connection and the command's arguments; it returns the answer, or a
    Deferred of it, or raises. That of a command which wants no answer returns an empty one at once.
    """
    return {
        command.commandName: (codec_of(command), responder) for command, responder in named.items()
    }


class Work:
    """The requests of one connection's peer.

    :param connection: what responders are told about who asks.
    :param table: made by `responders`.
    :param done: called when an answer that came later has been sent.
    :param not_done: told why a request failed that wants no answer.

    :ivar unanswered: requests that are being worked on.
    :ivar request_bytes: their bytes, added up.
    """

    def __init__(
        self,
        connection: Connection,
        table: Responders,
        limits: ConnectionLimits,
        sending: Sending,
        done: Callable[[], None],
        not_done: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._table = table
        self._limits = limits
        self._sending = sending
        self._write = sending.write
        self._done = done
        self._not_done = not_done
        self._deferred: set[Deferred[Arguments]] = set()
        self._is_over = False
        self.unanswered = 0
        self.request_bytes = 0

    @property
    def held_bytes(self) -> int:
        """How much memory they take, roughly."""
        return self.request_bytes + BOX_BYTES * self.unanswered

    def received(self, name: bytes, box: Box) -> None:
        """Answer a request for the command of that *name*, or begin to."""
        tag = box.get(ASK)
        try:
            codec, answer = self._respond(name, box)
            if isinstance(answer, dict):  # asked first: to ask for a Deferred asks an ABC
                if tag is not None:
                    self._write(codec.answer(tag, answer))
                return
            if not (codec.command.requiresAnswer and isinstance(answer, Deferred)):
                raise TypeError(f"a responder returned {type(answer).__name__}")
        except Exception:
            self._failed(Failure(), name, tag)
            return
        size = size_bytes(box)
        self.unanswered += 1
        self.request_bytes += size
        self._deferred.add(answer)
        answer.addCallback(self._answered_later, codec, tag)
        answer.addErrback(self._failed, name, tag)
        answer.addBoth(self._ended, answer, size)

    def take_frequent(self, stream: bytes, respond: Frequent, box_bytes_max: int) -> int:
        """Answer the frequent requests that *stream* begins with; where they end.

        While others are being worked on, what they take of the limits has to be looked at: that is
        the ordinary way's business. So is what comes when the transport has enough of the answers.
        """
        at = 0
        if self.unanswered:
            return at
        sending, write, read = self._sending, self._write, frequent.read_request
        while not sending.is_full and (request := read(stream, at)) is not None:
            tag, key, value, end = request
            if end - at > box_bytes_max:
                break
            try:
                answer = respond(key, value)
            except Exception:
                self._failed(Failure(), frequent.command_name(value), tag)
            else:
                if answer is None:
                    break
                write(frequent.ANSWER_HEADS[len(tag)] + tag + answer)
            at = end
            if sending.corked_bytes > CORKED_BYTES_MAX:
                sending.uncork()
        return at

    def cancel(self) -> None:
        """Nobody can be answered any more: let go of what is worked on."""
        self._is_over = True
        for answer in tuple(self._deferred):
            answer.cancel()

    def _respond(self, name: bytes, box: Box) -> tuple[Codec, Arguments | Deferred[Arguments]]:
        if isinstance(box, OversizedBox):
            raise _too_large(box)
        entry = self._table.get(name)
        if entry is None:
            known = ", ".join(sorted(known.decode() for known in self._table)) or "none"
            raise UnknownCommand(f"there is no command {_shown(name)} here; known are: {known}")
        codec, responder = entry
        if self.unanswered and codec.command.requiresAnswer:
            self._check_load(size_bytes(box))
        try:
            arguments = codec.read_arguments(box)
        except Exception as error:
            raise MalformedRequest(f"{codec.command.__name__}: {error}") from error
        return codec, responder(self._connection, arguments)

    def _check_load(self, size: int) -> None:
        """Raise `Overloaded` if another request of that size is too much to be worked on.

        A command without an answer is never too much: it is done with at once. What is worked on
        may wait for nothing but such a command to come through.
        """
        limits = self._limits
        if self.unanswered >= limits.requests_in_flight_max:
            raise overloaded("requests_in_flight_max", limits.requests_in_flight_max)
        if self.request_bytes + size > limits.request_bytes_in_flight_max:
            raise overloaded("request_bytes_in_flight_max", limits.request_bytes_in_flight_max)

    def _answered_later(self, answer: Arguments, codec: Codec, tag: bytes | None) -> None:
        if tag is None:
            return
        data = codec.answer(tag, answer)
        if not self._sending.has_room_for(data):
            limit = self._limits.answer_bytes_unread_max
            raise OutcomeUnknown(
                f"there is no room for the answer (limit answer_bytes_unread_max={limit}): "
                "too many are waiting to be read"
            )
        self._write(data)

    def _failed(self, failure: Failure, name: bytes, tag: bytes | None) -> None:
        if self._is_over:
            return  # its work was cancelled: there is nobody to be told
        error = failure.value
        if not (isinstance(error, KvtwistError) and crosses_the_wire(error)):
            _log.failure("a bug: {command} failed", failure, command=_shown(name))
            error = NodeFault(f"the node failed at {_shown(name)}; its log says why")
        if tag is not None:
            code, text = write_failure(error)
            self._write(write_box({ERROR: tag, ERROR_CODE: code, ERROR_DESCRIPTION: text}))
        elif name in self._table and not self._table[name][0].command.requiresAnswer:
            self._not_done(f"{_shown(name)} failed: {error}")

    def _ended(
        self, result: Failure | None, answer: Deferred[Arguments], size: int
    ) -> Failure | None:
        self._deferred.discard(answer)
        self.unanswered -= 1
        self.request_bytes -= size
        self._done()
        return result


def _too_large(box: OversizedBox) -> TooLarge:
    return TooLarge(
        f"the box is over the limit {box.setting}={box.limit}: send less at once",
        setting=box.setting,
        limit=box.limit,
        actual=box.actual,
    )


def _shown(name: bytes) -> str:
    return repr(name[:40])[1:]
