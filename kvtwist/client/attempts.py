"""How a request is made: one attempt after another, while its nature and its time allow.

The first attempt goes to the node that owns the key, if it is connected; later ones to whoever is
reached, who forwards. Whether there is another is `kvtwist.wire.again`'s rule. A write is waited
for as long as there is time, since it will not be sent again; a read's attempts are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.client.links import Links
from kvtwist.client.owners import Owners
from kvtwist.client.request import Request
from kvtwist.client.table import Table
from kvtwist.errors import KvtwistError, NotDone, NotLeader, NotSent, Overloaded, Unavailable
from kvtwist.wire import commands
from kvtwist.wire.again import may_be_sent_again
from kvtwist.wire.codec import Values
from kvtwist.wire.link import Link

ATTEMPT_SECONDS = 1.0
GRACE_SECONDS = 0.25
"""How much longer than it tells the node the client waits, so that the node's own, clearer error
about a time that is up arrives first."""
ENDLESS_SECONDS = 1e9
"""What a node is told of a timeout that is longer, even infinite: it answers sooner anyway."""
RETRY_DELAY_SECONDS = 0.05
RETRY_DELAY_SECONDS_MAX = 1.0

_Result = TypeVar("_Result")


class Attempts:
    """Makes the attempts of one client's requests.

    :param seconds: the clock that deadlines are on.
    :param timeout_seconds: how long one request may take.
    """

    def __init__(
        self,
        reactor: Any,
        links: Links,
        owners: Owners,
        seconds: Callable[[], float],
        chance: Callable[[], float],
        timeout_seconds: float,
    ) -> None:
        self._reactor = reactor
        self._links = links
        self._owners = owners
        self._seconds = seconds
        self._chance = chance
        self._timeout_seconds = timeout_seconds

    def deadline(self) -> float:
        """When the time of a request that begins now is up."""
        return self._seconds() + self._timeout_seconds

    def request(
        self,
        command: type[amp.Command],
        arguments: Values,
        finish: Callable[[Values], _Result],
        deadline: float,
    ) -> Deferred[_Result]:
        """Send one request, again if need and nature allow, until its time is up.

        The first attempt, to an owner that is connected, is made without the coroutine that the
        others run in. Most of `get` and `put` do not even come here (`kvtwist.client.request`).
        """
        link = self._owners.connected(arguments["key"])
        if link is None:
            return Deferred.fromCoroutine(self._others(command, arguments, finish, deadline))
        answer = self.one(link, command, arguments, deadline, ATTEMPT_SECONDS)
        result = answer.addCallback(finish)
        return result.addErrback(self._failed_once, command, arguments, finish, deadline)

    def again(self, request: Request, error: KvtwistError) -> Deferred[Any]:
        """The attempts after the first one of *request*.

        :raises KvtwistError: *error*, if it is for good.
        """
        command = request.codec.command
        trouble = self._weighed(command, error)
        deadline = request.begun_seconds + self._timeout_seconds
        wanted, finish = request.arguments(), request.finish
        return Deferred.fromCoroutine(self._others(command, wanted, finish, deadline, trouble))

    def one(
        self,
        link: Link,
        command: type[amp.Command],
        arguments: Values,
        deadline: float,
        patience_seconds: float,
    ) -> Deferred[Values]:
        """One try.

        :param patience_seconds: how long a read waits.
        """
        seconds = deadline - self._seconds()
        if seconds <= 0 or self._links.is_stopped:
            return fail(NotSent("there was no time left to send it"))
        if command not in commands.WRITES:
            seconds = min(seconds, patience_seconds)
        arguments["timeout_ms"] = whole_ms(seconds)
        return link.call(command, arguments, seconds + GRACE_SECONDS)

    async def topology(self) -> Table:
        """The table, asked anew."""
        deadline = self.deadline()
        for attempt in count():
            try:
                return await self._owners.learn(ATTEMPT_SECONDS)
            except NotDone as error:
                if self._seconds() >= deadline or self._links.is_stopped:
                    raise self._in_time(error) from error
            await self._pause(attempt, deadline)
        raise AssertionError("unreachable: counting never ends")

    def _failed_once(
        self,
        failure: Failure,
        command: type[amp.Command],
        arguments: Values,
        finish: Callable[[Values], _Result],
        deadline: float,
    ) -> Deferred[_Result]:
        trouble = self._weighed(command, expected(failure))
        return Deferred.fromCoroutine(self._others(command, arguments, finish, deadline, trouble))

    async def _others(
        self,
        command: type[amp.Command],
        arguments: Values,
        finish: Callable[[Values], _Result],
        deadline: float,
        trouble: KvtwistError | None = None,
    ) -> _Result:
        """The attempts after *trouble*; all of them, if there was none yet.

        Each may take twice as long as the one before: a large value needs its time.
        """
        key = arguments["key"]
        for attempt in count(0 if trouble is None else 1):
            if trouble is not None:
                await self._back_off(key, trouble, attempt, deadline)
            left_seconds = deadline - self._seconds()
            if left_seconds <= 0 or self._links.is_stopped:
                raise self._in_time(trouble)
            try:
                link = await self._owners.link_for(key, min(left_seconds, ATTEMPT_SECONDS))
                patience_seconds = ATTEMPT_SECONDS * 2**attempt
                answer = await self.one(link, command, arguments, deadline, patience_seconds)
                return finish(answer)
            except KvtwistError as error:
                trouble = self._weighed(command, error)
        raise AssertionError("unreachable: counting never ends")

    def _weighed(self, command: type[amp.Command], error: KvtwistError) -> KvtwistError:
        """*error*, if the request may be sent again after it; else it is raised."""
        if not may_be_sent_again(command, error):
            raise error
        if isinstance(error, NotLeader):
            self._owners.forget()
        return error

    def _in_time(self, trouble: KvtwistError | None) -> Unavailable:
        """The error when there is no time for another attempt."""
        if self._links.is_stopped:
            return Unavailable("the client is closed")
        if isinstance(trouble, Unavailable) and not isinstance(trouble, NotSent):
            return trouble
        return Unavailable(
            f"no answer within {self._timeout_seconds:g} s: {trouble or 'not tried'}",
            waiting_for=getattr(trouble, "waiting_for", ()),
        )

    async def _back_off(
        self, key: bytes, trouble: KvtwistError, attempt: int, deadline: float
    ) -> None:
        """Wait before another attempt: twice as long each time, with jitter. If it is this client
        that has too much in flight, until there is room."""
        link = self._owners.connected(key)
        connection = link.connection if link is not None else None
        if isinstance(trouble, Overloaded) and connection is not None and connection.is_full:
            left_seconds = max(0.0, deadline - self._seconds())
            with suppress(TimeoutError, KvtwistError):
                await connection.room().addTimeout(left_seconds, self._reactor)
        else:
            await self._pause(attempt, deadline)

    async def _pause(self, attempt: int, deadline: float) -> None:
        seconds = min(RETRY_DELAY_SECONDS * 2.0**attempt, RETRY_DELAY_SECONDS_MAX)
        seconds = min(seconds * (1 + self._chance()) / 2, deadline - self._seconds())
        await deferLater(self._reactor, max(0.0, seconds), lambda: None)


def expected(failure: Failure) -> KvtwistError:
    """The error in *failure*; anything else that it may be is a bug, and is raised."""
    error = failure.value
    if not isinstance(error, KvtwistError):
        failure.raiseException()
    return error


def whole_ms(seconds: float) -> int:
    """A timeout, as a node is told it."""
    return max(1, int(min(seconds, ENDLESS_SECONDS) * 1000))
