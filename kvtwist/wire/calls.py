"""The calls that one end of a connection has made and that wait for their answers.

In: commands to send, boxes that answer, time, the end of the connection. Out: the bytes of each
request, and its Deferred, which fires exactly once. What may wait at the same time is bounded, in
number and in bytes; a call that is alone may have any size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import count
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from kvtwist.errors import KvtwistError, NoAnswer, NotSent, OutcomeUnknown, Overloaded
from kvtwist.wire.boxes import ERROR_CODE, ERROR_DESCRIPTION, Box, OversizedBox, Parts
from kvtwist.wire.codec import Codec, Values, codec_of
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.failures import read_failure
from kvtwist.wire.limits import ConnectionLimits


class _Call(NamedTuple):
    """A call that waits for its answer."""

    codec: Codec
    answer: Deferred[Values]
    deadline: float
    timeout_seconds: float
    size_bytes: int


class Calls:
    """The calls in flight.

    :param deadlines: looks after their time limits.

    **Invariant:** a call is in here exactly as long as its Deferred has not fired.
    """

    def __init__(self, deadlines: Deadlines, limits: ConnectionLimits) -> None:
        self._deadlines = deadlines
        self._limits = limits
        self._calls: dict[bytes, _Call] = {}
        self._bytes = 0
        self._numbers = count(1)
        self._waiting: deque[Deferred[None]] = deque()

    def begin(
        self, command: type[amp.Command], arguments: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[bytes | Parts, Deferred[Values]]:
        """The bytes to send, and the Deferred of the answer.

        :raises Overloaded: when too much is in flight.
        :raises ValueError, TypeError: when the arguments do not fit the command.
        """
        tag = b"%x" % next(self._numbers)
        codec = codec_of(command)
        data = codec.request(tag, arguments)
        if not self._calls:
            self._deadlines.watch(self)
        elif (overload := self._overload(len(data))) is not None:
            raise overload
        answer: Deferred[Values] = Deferred(lambda _: self._cancelled(tag))
        deadline = self._deadlines.seconds() + timeout_seconds
        self._calls[tag] = _Call(codec, answer, deadline, timeout_seconds, len(data))
        self._bytes += len(data)
        return data, answer

    @property
    def is_full(self) -> bool:
        """Whether another call would be too much."""
        return bool(self._calls) and self._overload(0) is not None

    def waits_for(self, tag: bytes) -> bool:
        """Whether the request with *tag* has not ended yet."""
        return tag in self._calls

    def room(self) -> Deferred[None]:
        """Fires when there may be room for another call; first come, first served.

        Fails with `NotSent` when the connection is lost.
        """
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def answered(self, tag: bytes, box: Box) -> None:
        """Take in an answer. One that comes too late, or to nothing, is passed over."""
        call = self._end(tag)
        if call is None:
            return
        try:
            if isinstance(box, OversizedBox):
                raise ValueError(f"it is over the limit {box.setting}={box.limit}")
            answer = call.codec.read_answer(box)
        except Exception as error:
            name = call.codec.command.__name__
            call.answer.errback(OutcomeUnknown(f"the answer to {name} is malformed: {error}"))
        else:
            call.answer.callback(answer)

    def failed(self, tag: bytes, box: Box) -> None:
        """Take in an error, in the same way."""
        call = self._end(tag)
        if call is not None:
            code, description = box.get(ERROR_CODE, b""), box.get(ERROR_DESCRIPTION, b"")
            call.answer.errback(read_failure(code, description))

    def expire(self, now: float) -> bool:
        """Fail the calls whose time is up; whether there are others (`Deadlines`)."""
        overdue = [tag for tag, call in self._calls.items() if call.deadline <= now]
        for tag in overdue:
            call = self._end(tag)
            if call is not None:
                call.answer.errback(NoAnswer(f"no answer within {call.timeout_seconds:.3g} s"))
        return bool(self._calls)

    def lost(self, why: str) -> None:
        """The connection is lost: fail all calls, and whoever waits for room."""
        waiting, self._waiting = self._waiting, deque()
        for tag in list(self._calls):
            call = self._end(tag)
            if call is not None:
                call.answer.errback(NoAnswer(why))
        self._deadlines.forget(self)
        for one in waiting:
            if not one.called:
                one.errback(NotSent(why))

    def _overload(self, size_bytes: int) -> KvtwistError | None:
        limits = self._limits
        if len(self._calls) >= limits.requests_in_flight_max:
            return overloaded("requests_in_flight_max", limits.requests_in_flight_max)
        if self._bytes + size_bytes > limits.request_bytes_in_flight_max:
            return overloaded("request_bytes_in_flight_max", limits.request_bytes_in_flight_max)
        return None

    def _cancelled(self, tag: bytes) -> None:
        self._end(tag)

    def _end(self, tag: bytes) -> _Call | None:
        call = self._calls.pop(tag, None)
        if call is not None:
            self._bytes -= call.size_bytes
            while self._waiting and not self.is_full:
                waiting = self._waiting.popleft()
                if not waiting.called:
                    waiting.callback(None)  # which fills the room, or leaves it to the next
        return call


def overloaded(setting: str, limit: int) -> Overloaded:
    """The error that names the limit."""
    return Overloaded(
        f"too much is in flight on this connection (limit {setting}={limit}): try again later",
        setting=setting,
        limit=limit,
    )
