"""The calls that one end of a connection has made and that wait for their answers.

In: commands to send, boxes that answer, time, the end of the connection. Out: the bytes of each
request, and its Deferred, which fires exactly once. What may wait at the same time is bounded, in
number and in bytes; a call that is alone may have any size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.protocols import amp

from kvtwist.errors import NoAnswer, NotSent, OutcomeUnknown, Overloaded
from kvtwist.wire.boxes import ERROR_CODE, ERROR_DESCRIPTION, Box, OversizedBox, Parts
from kvtwist.wire.call import Call
from kvtwist.wire.codec import codec_of
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.failures import read_failure
from kvtwist.wire.frequent import ASK_HEADS, read_answer
from kvtwist.wire.limits import ConnectionLimits


class Calls:
    """The calls in flight.

    :param deadlines: looks after their time limits.
    :param withdraw: takes back the requests with these tags, where that is possible, and says which
        those were: they have not been sent.

    **Invariant:** a call is in here exactly as long as its Deferred has not fired.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        limits: ConnectionLimits,
        withdraw: Callable[[Iterable[bytes]], set[bytes]],
    ) -> None:
        self._deadlines = deadlines
        self._withdraw = withdraw
        self._calls_max = limits.requests_in_flight_max
        self._bytes_max = limits.request_bytes_in_flight_max
        self._calls: dict[bytes, Call] = {}
        self._bytes = 0
        self._begun = 0
        self._waiting: deque[Deferred[None]] = deque()
        self._is_closed = False
        self._unsent: set[bytes] = set()

    def begin(
        self, command: type[amp.Command], arguments: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[bytes | Parts, Call]:
        """The bytes to send, and the Deferred of the answer.

        :raises Overloaded: when too much is in flight.
        :raises ValueError, TypeError: when the arguments do not fit the command.
        """
        codec = codec_of(command)
        call = Call(codec, self._deadlines.seconds() + timeout_seconds, timeout_seconds)
        tag = self._new_tag()
        data = codec.request(tag, arguments)
        if not self._enter(call, tag, len(data)):
            raise self._overload(len(data))
        return data, call

    def begin_frequent(self, call: Call, body: bytes) -> bytes | None:
        """The bytes to send for a frequent request; ``None`` if that would be too much in flight.

        :param body: the request after its tag.
        """
        tag = self._new_tag()
        if not self._enter(call, tag, len(body)):
            return None
        return ASK_HEADS[len(tag)] + tag + body

    def _new_tag(self) -> bytes:
        self._begun += 1
        return b"%x" % self._begun

    def _enter(self, call: Call, tag: bytes, size_bytes: int) -> bool:
        """Wait for the answer to *call*; ``False`` if that would be too much in flight."""
        calls = self._calls
        if not calls:
            self._deadlines.watch(self)
        elif len(calls) >= self._calls_max or self._bytes + size_bytes > self._bytes_max:
            return False
        call.calls = self
        call.tag = tag
        call.size_bytes = size_bytes
        calls[tag] = call
        self._bytes += size_bytes
        return True

    @property
    def is_full(self) -> bool:
        """Whether another call would be too much."""
        full = len(self._calls) >= self._calls_max or self._bytes > self._bytes_max
        return bool(self._calls) and full

    def room(self) -> Deferred[None]:
        """Fires when there may be room for another call; first come, first served.

        Fails with `NotSent` when the connection is lost.
        """
        if self._is_closed:
            return fail(NotSent("the connection is down"))
        waiting: Deferred[None] = Deferred()
        if self._waiting or self.is_full:
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
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
            call.failed(OutcomeUnknown(f"the answer to {name} is malformed: {error}"))
        else:
            call.answered(answer)

    def take_frequent(self, stream: bytes, box_bytes_max: int) -> int:
        """Take in the frequent answers that *stream* begins with; where they end."""
        calls, at = self._calls, 0
        while (
            at < len(stream)
            and (answer := read_answer(stream, at)) is not None
            and not self._is_closed
        ):
            tag, version, value, end = answer
            call = calls.get(tag)
            if end - at > box_bytes_max or call is None or not call.is_frequent:
                break
            self._end(tag)
            call.seen(version, value)
            at = end
        return at

    def failed(self, tag: bytes, box: Box) -> None:
        """Take in an error, in the same way."""
        call = self._end(tag)
        if call is not None:
            code, description = box.get(ERROR_CODE, b""), box.get(ERROR_DESCRIPTION, b"")
            call.failed(read_failure(code, description))

    def expire(self, now: float) -> bool:
        """Fail the calls whose time is up; whether there are others (`Deadlines`)."""
        overdue = [tag for tag, call in self._calls.items() if call.deadline <= now]
        unsent = self._withdraw(overdue) if overdue else ()
        for tag in overdue:
            call = self._end(tag)
            if call is not None:
                within = f"within {call.timeout_seconds:.3g} s"
                if tag in unsent:
                    call.failed(NotSent(f"the connection had no room for it {within}"))
                else:
                    call.failed(NoAnswer(f"no answer {within}"))
        return bool(self._calls)

    def forget(self, call: Call) -> None:
        """Nobody waits for *call* any more: an answer will be passed over."""
        if self._end(call.tag) is not None:
            self._withdraw((call.tag,))

    def close(self, unsent: set[bytes]) -> None:
        """Take in nothing more; `lost` follows.

        :param unsent: the tags of requests that have not been sent and will not be.
        """
        self._is_closed = True
        self._unsent |= unsent

    def lost(self, why: str) -> None:
        """The connection is lost: fail all calls, and whoever waits for room."""
        waiting, self._waiting = self._waiting, deque()
        for tag in list(self._calls):
            call = self._end(tag)
            if call is not None:
                call.failed(NotSent(why) if tag in self._unsent else NoAnswer(why))
        self._deadlines.forget(self)
        for one in waiting:
            one.errback(NotSent(why))

    def _overload(self, size_bytes: int) -> Overloaded:
        """The error that says which limit another call of so many bytes would be over."""
        if len(self._calls) >= self._calls_max:
            return overloaded("requests_in_flight_max", self._calls_max)
        assert self._bytes + size_bytes > self._bytes_max
        return overloaded("request_bytes_in_flight_max", self._bytes_max)

    def _end(self, tag: bytes) -> Call | None:
        call = self._calls.pop(tag, None)
        if call is not None:
            self._bytes -= call.size_bytes
            while self._waiting and not self.is_full:
                # Which fills the room, or leaves it to the next: also if it was cancelled.
                self._waiting.popleft().callback(None)
        return call


def overloaded(setting: str, limit: int) -> Overloaded:
    """The error that names the limit."""
    return Overloaded(
        f"too much is in flight on this connection (limit {setting}={limit}): try again later",
        setting=setting,
        limit=limit,
    )
