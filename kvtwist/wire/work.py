"""What the other end of a connection has asked for, and what is being done about it.

In: requests. Out: the bytes of an answer or an error for each that wants one, at once or later. An
exception in a responder, a malformed argument and an unknown command are answers too. What is
worked on at the same time is bounded, in number and in bytes; a request that is alone may have any
size.

**The short way.** The most frequent requests are taken where they lie in the stream
(`kvtwist.wire.frequent`), and answered at once or later, if nothing is to be said but the answer;
so are Raft messages, which want none. All else, and whatever follows it in the same chunk, goes the
ordinary way. What is answered later is one small object (`Unanswered`): there is no box of it, no
Deferred and no timer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias

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
    Unavailable,
    UnknownCommand,
)
from kvtwist.wire import commands, frequent
from kvtwist.wire.boxes import (
    ASK,
    BOX_BYTES,
    ERROR,
    ERROR_CODE,
    ERROR_DESCRIPTION,
    Box,
    OversizedBox,
    Parts,
    size_bytes,
    write_box,
)
from kvtwist.wire.calls import overloaded
from kvtwist.wire.codec import Codec, Values, codec_of
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.failures import crosses_the_wire, write_failure
from kvtwist.wire.limits import ConnectionLimits
from kvtwist.wire.sending import CORKED_BYTES_MAX, Sending

if TYPE_CHECKING:
    from kvtwist.wire.connection import Connection

Arguments: TypeAlias = Values
Responder: TypeAlias = "Callable[[Connection, Arguments], Arguments | Deferred[Arguments]]"
Responders: TypeAlias = Mapping[bytes, tuple[Codec, Responder]]
_log = Logger(namespace="kvtwist.wire")


class Unanswered:
    """A frequent request that is worked on, and whoever answers it has this to do it with.

    It ends once: by `answer` or `fail`, or by its time. What comes after that, or when its
    connection is lost, is passed over. None of it may come before `Work` has been given it.

    :cvar is_write: whether it may have been done although nobody says so.
    :ivar deadline: when its time is up, on the clock of the `Deadlines`.
    """

    __slots__ = ("deadline", "seconds", "size_bytes", "tag", "work")
    is_write: ClassVar[bool] = False

    work: Work | None
    tag: bytes
    size_bytes: int
    seconds: float
    deadline: float

    def answer(self, body: bytes) -> None:
        """The answer's bytes, after its tag."""
        work, self.work = self.work, None
        if work is not None:
            tag = self.tag
            work.answered(self, frequent.ANSWER_HEADS[len(tag)] + tag + body)

    def answer_at_length(self, answer: Values) -> None:
        """An answer that is not in the frequent form."""
        work, self.work = self.work, None
        if work is not None:
            command = commands.Put if self.is_write else commands.Get
            work.answered(self, codec_of(command).answer(self.tag, answer))

    def fail(self, error: BaseException) -> None:
        """There is an error instead."""
        work, self.work = self.work, None
        if work is not None:
            work.failed(self, error)


Frequent: TypeAlias = Callable[[bytes, "bytes | None", "bytes | None"], "bytes | Unanswered | None"]
"""Takes a `Get` of a key, or a `Put` of a key and a value, which may have ``once``. The answer's
bytes after its tag (`kvtwist.wire.frequent`), or what the answer will come to. ``None``: nothing is
done, and the request has to take the ordinary way."""


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
    :param deadlines: ends the requests of the short way whose time is up.
    :param done: called when an answer that came later has been sent. Not for each, where many are
        held back to be sent together: then `Sending` tells when that has happened.
    :param not_done: told why a request failed that wants no answer.

    :ivar unanswered: requests that are being worked on.
    :ivar request_bytes: their bytes, added up.
    """

    def __init__(
        self,
        connection: Connection,
        table: Responders,
        deadlines: Deadlines,
        limits: ConnectionLimits,
        sending: Sending,
        done: Callable[[], None],
        not_done: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._table = table
        self._deadlines = deadlines
        self._limits = limits
        self._sending = sending
        self._done = done
        self._not_done = not_done
        # Dictionaries for their order: whatever is done to all of them is done in that.
        self._deferred: dict[Deferred[Arguments], None] = {}
        self._later: dict[Unanswered, None] = {}
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
                    self._sending.write(codec.answer(tag, answer))
                return
            if not (codec.command.requiresAnswer and isinstance(answer, Deferred)):
                raise _senseless(answer)
        except Exception:
            self._failed(Failure(), name, tag)
            return
        size = size_bytes(box)
        self.unanswered += 1
        self.request_bytes += size
        self._deferred[answer] = None
        answer.addCallback(self._answered_later, codec, tag)
        answer.addErrback(self._failed, name, tag)
        answer.addBoth(self._ended, answer, size)

    def take_frequent(self, stream: bytes, respond: Frequent, box_bytes_max: int) -> int:
        """Take the frequent requests that *stream* begins with; where they end.

        One that is too much to be worked on beside the others is the ordinary way's business, and
        so is what comes when the transport has enough of the answers.
        """
        sending, at = self._sending, 0
        requests_max = self._limits.requests_in_flight_max
        bytes_max = self._limits.request_bytes_in_flight_max
        while (
            at < len(stream)
            and not sending.is_full
            and (request := frequent.read_request(stream, at)) is not None
        ):
            tag, key, value, once, _, end = request
            if end - at > box_bytes_max:
                break
            if self.unanswered and (
                self.unanswered >= requests_max or self.request_bytes + end - at > bytes_max
            ):
                break  # it may be too much: the ordinary way counts exactly
            try:
                answer = respond(key, value, once)
            except Exception:
                self._failed(Failure(), frequent.command_name(value), tag)
            else:
                if answer is None:
                    break
                if isinstance(answer, bytes):
                    sending.write(frequent.ANSWER_HEADS[len(tag)] + tag + answer)
                else:
                    self._take_up(answer, request)
            at = end
            if sending.corked_bytes > CORKED_BYTES_MAX:
                sending.uncork()
        return at

    def take_messages(self, stream: bytes, at: int, box_bytes_max: int) -> int:
        """Take the boxes of Raft messages that stand in *stream* from *at* on; where they end."""
        entry = self._table.get(frequent.RAFT)
        if entry is None:
            return at
        _, respond = entry
        while (
            at < len(stream)
            and not self._sending.is_full
            and (read := frequent.read_messages(stream, at)) is not None
        ):
            cluster, messages, is_willing, end = read
            if end - at > box_bytes_max:
                break
            told = {"cluster": cluster, "messages": messages, "willing": is_willing}
            try:
                answer = respond(self._connection, told)
                if not isinstance(answer, dict):
                    raise _senseless(answer)
            except Exception:
                self._failed(Failure(), frequent.RAFT, None)
            at = end
        return at

    def _take_up(self, later: Unanswered, request: frequent.Request) -> None:
        """Have *request* answered later."""
        if not self._later:
            self._deadlines.watch(self)
        later.work, later.tag = self, request[0]
        later.size_bytes = size = frequent.value_bytes(request)
        timeout_ms = int(request[4]) or commands.REQUEST_TIMEOUT_MS
        later.seconds = seconds = min(timeout_ms, commands.REQUEST_TIMEOUT_MS_MAX) / 1000
        later.deadline = self._deadlines.seconds() + seconds
        self._later[later] = None
        self.unanswered += 1
        self.request_bytes += size

    def answered(self, later: Unanswered, data: bytes | Parts) -> None:
        """The answer to a request of the short way."""
        sending = self._sending
        self._end(later)
        if not sending.has_room_for(data):
            self._failed(Failure(self._no_room()), _name_of(later), later.tag)
        else:
            sending.write(data)
            if sending.corked_bytes > CORKED_BYTES_MAX:
                sending.uncork()
        if not self.unanswered or not sending.corked_bytes:
            self._done()

    def failed(self, later: Unanswered, error: BaseException) -> None:
        """There is an error instead."""
        self._end(later)
        self._failed(Failure(error), _name_of(later), later.tag)
        self._done()

    def _end(self, later: Unanswered) -> None:
        del self._later[later]
        self.unanswered -= 1
        self.request_bytes -= later.size_bytes

    def expire(self, now: float) -> bool:
        """Fail the requests of the short way whose time is up; whether there are others
        (`Deadlines`)."""
        for later in [later for later in self._later if later.deadline <= now]:
            within = f"within {later.seconds:.3g} s"
            if later.is_write:
                later.fail(OutcomeUnknown(f"the write was not answered {within}: read to see"))
            else:
                later.fail(Unavailable(f"the read was not answered {within}"))
        return bool(self._later)

    def cancel(self) -> None:
        """Nobody can be answered any more: let go of what is worked on."""
        self._is_over = True
        for answer in tuple(self._deferred):
            answer.cancel()
        for later in tuple(self._later):
            later.work = None
            self._end(later)
        self._deadlines.forget(self)

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
            raise self._no_room()
        self._sending.write(data)

    def _no_room(self) -> OutcomeUnknown:
        limit = self._limits.answer_bytes_unread_max
        return OutcomeUnknown(
            f"there is no room for the answer (limit answer_bytes_unread_max={limit}): "
            "too many are waiting to be read"
        )

    def _failed(self, failure: Failure, name: bytes, tag: bytes | None) -> None:
        if self._is_over:
            return  # its work was cancelled: there is nobody to be told
        error = failure.value
        if not (isinstance(error, KvtwistError) and crosses_the_wire(error)):
            _log.failure("a bug: {command} failed", failure, command=_shown(name))
            error = NodeFault(f"the node failed at {_shown(name)}; its log says why")
        if tag is not None:
            code, text = write_failure(error)
            self._sending.write(write_box({ERROR: tag, ERROR_CODE: code, ERROR_DESCRIPTION: text}))
        elif name in self._table and not self._table[name][0].command.requiresAnswer:
            self._not_done(f"{_shown(name)} failed: {error}")

    def _ended(
        self, result: Failure | None, answer: Deferred[Arguments], size: int
    ) -> Failure | None:
        self._deferred.pop(answer, None)
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


def _senseless(answer: object) -> TypeError:
    return TypeError(f"a responder returned {type(answer).__name__}")


def _name_of(later: Unanswered) -> bytes:
    return frequent.PUT if later.is_write else frequent.GET


def _shown(name: bytes) -> str:
    return repr(name[:40])[1:]
