"""A call that waits for its answer: `kvtwist.wire.calls` has those of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from kvtwist.errors import KvtwistError
from kvtwist.wire.codec import Codec, Values

if TYPE_CHECKING:
    from kvtwist.wire.calls import Calls


class Call(Deferred[Any]):
    """A call that waits for its answer, and the Deferred of whoever waits for it.

    They are one object, since there is one for each request. What is to become of an answer or an
    error is a method for the same reason: a subclass's is called without a callback to be added.

    :param deadline: when its time is up, on the clock of the `Deadlines`.
    :ivar is_frequent: whether `seen` takes answers that were read by `kvtwist.wire.frequent`.
    """

    is_frequent = False
    calls: Calls | None = None
    tag = b""
    size_bytes = 0

    def __init__(self, codec: Codec, deadline: float, timeout_seconds: float) -> None:
        super().__init__(_cancelled)
        self.codec = codec
        self.deadline = deadline
        self.timeout_seconds = timeout_seconds

    def answered(self, answer: Values) -> None:
        """The answer has come."""
        self.callback(answer)

    def seen(self, version: int, value: bytes | None) -> None:
        """The answer has come, and says only this."""
        raise NotImplementedError("only a frequent call is answered so")

    def failed(self, error: KvtwistError) -> None:
        """There will be no answer."""
        self.errback(error)

    def cancelled(self) -> None:
        """Nobody waits for it any more."""
        if self.calls is not None:
            self.calls.forget(self)


def _cancelled(call: Deferred[Any]) -> None:
    assert isinstance(call, Call)
    call.cancelled()
