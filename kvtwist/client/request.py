"""A `get` or `put` on its way to a leader that is connected: nearly all requests, and their cost.

One object is the caller's Deferred, the call that waits for the answer, and what is needed to try
again if there is none. Whether to try again, and how, is `kvtwist.client.attempts`'s business.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvtwist.client import results
from kvtwist.client.sessions import Session, Sessions, Ticket
from kvtwist.core.partition import Record
from kvtwist.errors import KvtwistError
from kvtwist.wire import commands
from kvtwist.wire.call import Call
from kvtwist.wire.codec import Codec, Values, codec_of


class Attempting(Protocol):
    """What knows how to try again: `kvtwist.client.attempts.Attempts`."""

    def again(self, request: Request, error: KvtwistError) -> Deferred[Any]:
        """Make the other attempts, after *error*, which is raised if it is for good."""

    def taught(self, key: bytes, answer: Values) -> None:
        """Take note of what an answer says of who leads."""


class Request(Call):
    """The first attempt of a `get`.

    :param attempts: makes the other attempts.
    :ivar begun_seconds: when the request was made, on the client's clock.
    """

    is_frequent = True
    of_command: ClassVar[Codec] = codec_of(commands.Get)

    def __init__(
        self,
        attempts: Attempting,
        key: bytes,
        value: bytes | None,
        begun_seconds: float,
        timeout_seconds: float,
    ) -> None:
        super().__init__(self.of_command, begun_seconds + timeout_seconds, timeout_seconds)
        self.begun_seconds = begun_seconds
        self.key = key
        self.value = value
        self._attempts = attempts
        self._others: Deferred[Any] | None = None

    def arguments(self) -> Values:
        """The command's arguments, for another attempt."""
        return {"key": self.key}

    def ticket(self, sessions: Sessions) -> Ticket | None:
        """What another attempt needs of the session, if it is a write; it has to be ended then."""
        return None

    def finish(self, answer: Values) -> Any:
        """The result, out of the answer to another attempt."""
        return results.record(answer)

    def answered(self, answer: Values) -> None:
        """The answer has come, in a box that was not of the frequent form."""
        self._attempts.taught(self.key, answer)
        try:
            result = self.finish(answer)
        except KvtwistError as error:
            self.failed(error)
        else:
            self.callback(result)

    def seen(self, version: int, value: bytes | None) -> None:
        """The answer has come."""
        if value is not None and version:
            self.callback(Record(value, version))
        else:
            self.answered({"version": version, "value": value})

    def failed(self, error: KvtwistError) -> None:
        """This attempt has no answer."""
        try:
            self._others = others = self._attempts.again(self, error)
        except Exception:
            self.errback(Failure())
        else:
            others.addCallbacks(self.callback, self.errback)

    def cancelled(self) -> None:
        """Nobody waits for it any more."""
        super().cancelled()
        if self._others is not None:
            self._others.cancel()


class PutRequest(Request):
    """The first attempt of a `put`."""

    of_command = codec_of(commands.Put)

    def arguments(self) -> Values:
        """The command's arguments, for another attempt."""
        return {"key": self.key, "value": self.value}

    def ticket(self, sessions: Sessions) -> Ticket | None:
        """This was sent without a session; another attempt may have one."""
        return Ticket(sessions)

    def finish(self, answer: Values) -> Any:
        """The result, out of the answer to another attempt."""
        return results.version(answer)

    def seen(self, version: int, value: bytes | None) -> None:
        """The answer has come."""
        if version:
            self.callback(version)
        else:
            self.answered({"version": version})


class OnceRequest(PutRequest):
    """The first attempt of a `put` that has a session.

    :param seq: which it has begun there; it is ended when there is an answer, or nobody waits.
    """

    def __init__(
        self,
        attempts: Attempting,
        key: bytes,
        value: bytes,
        begun_seconds: float,
        timeout_seconds: float,
        session: Session,
        seq: int,
    ) -> None:
        super().__init__(attempts, key, value, begun_seconds, timeout_seconds)
        self._session = session
        self._seq = seq

    def ticket(self, sessions: Sessions) -> Ticket | None:
        """The seq goes over to the other attempts."""
        return Ticket(sessions, self._session, self._seq)

    def seen(self, version: int, value: bytes | None) -> None:
        """The answer has come."""
        if version:
            self._session.end(self._seq)
            self.callback(version)
        else:
            self.answered({"version": version})

    def answered(self, answer: Values) -> None:
        """The answer has come, in a box that was not of the frequent form."""
        self._attempts.taught(self.key, answer)
        try:
            version = self.finish(answer)
        except KvtwistError as error:
            self.failed(error)
        else:
            self._session.end(self._seq)
            self.callback(version)

    def cancelled(self) -> None:
        """Nobody waits for it any more."""
        if self._others is None:
            self._session.end(self._seq)
        super().cancelled()
