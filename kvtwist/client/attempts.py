"""How a request is made: one attempt after another, while its nature and its time allow.

The first attempt goes to the node that leads the partition, as far as is known, if it is connected;
later ones to whoever is reached, who forwards, and to those last who have not answered. Whether
there is another is `kvtwist.wire.again`'s rule; of a write that has a session,
`kvtwist.client.sessions` knows what became of the attempts before. A write without one is waited
for as long as there is time, since it will not be sent again; all other attempts are shorter, so
that a node that is frozen costs one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.client.leaders import Leaders
from kvtwist.client.links import Links
from kvtwist.client.request import Request
from kvtwist.client.sessions import IDLE_MS, Sessions, Ticket
from kvtwist.client.table import Table
from kvtwist.errors import (
    KvtwistError,
    NotDone,
    NotLeader,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    SessionRefused,
    Unavailable,
    WrongGeneration,
)
from kvtwist.wire import commands
from kvtwist.wire.again import may_be_sent_again
from kvtwist.wire.codec import Values
from kvtwist.wire.link import Link

ATTEMPT_SECONDS = 1.0
SENT_BYTES_PER_SECOND = 1 << 20
"""What is large may take longer, by as much as it takes to send it at this rate."""
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
        leaders: Leaders,
        seconds: Callable[[], float],
        chance: Callable[[], float],
        timeout_seconds: float,
    ) -> None:
        self._reactor = reactor
        self._links = links
        self._leaders = leaders
        self._seconds = seconds
        self._chance = chance
        self._timeout_seconds = timeout_seconds
        self.sessions = Sessions(reactor, self._open_session, seconds)
        leaders.on_table = self._learned

    def deadline(self) -> float:
        """When the time of a request that begins now is up."""
        return self._seconds() + self._timeout_seconds

    def request(
        self,
        command: type[amp.Command],
        arguments: Values,
        finish: Callable[[Values], _Result],
        deadline: float,
        ticket: Ticket | None = None,
        silent: Collection[Link] = (),
    ) -> Deferred[_Result]:
        """Send one request, again if need and nature allow, until its time is up.

        The first attempt, to a leader that is connected, is made without the coroutine that the
        others run in, unless it is a write that has, or needs, a session. Most of `get` and `put`
        do not even come here (`kvtwist.client.request`).

        :param ticket: of a write that was sent before, with others.
        :param silent: who was asked then, and was of no use.
        """
        link = self._leaders.connected(arguments["key"])
        is_write = command in commands.WRITES
        if link is None or link in silent or (is_write and self.sessions.slots):
            if is_write and ticket is None:
                ticket = Ticket(self.sessions)
            attempts = self._others(command, arguments, finish, deadline, ticket, None, silent)
            return Deferred.fromCoroutine(attempts)
        answer = self.one(link, command, arguments, deadline, ATTEMPT_SECONDS)
        result = answer.addCallback(finish)
        return result.addErrback(self._failed_once, command, arguments, finish, deadline)

    def again(self, request: Request, error: KvtwistError) -> Deferred[Any]:
        """The attempts after the first one of *request*.

        :raises KvtwistError: *error*, if it is for good.
        """
        command = request.codec.command
        ticket = request.ticket(self.sessions)
        try:
            trouble = self._weighed(command, error, ticket)
        except KvtwistError:
            if ticket is not None:
                ticket.end()
            raise
        deadline = request.begun_seconds + self._timeout_seconds
        wanted, finish = request.arguments(), request.finish
        silent = [self._leaders.connected(request.key)] if _is_of_no_use(error) else []
        attempts = self._others(command, wanted, finish, deadline, ticket, trouble, silent)
        return Deferred.fromCoroutine(attempts)

    def one(
        self,
        link: Link,
        command: type[amp.Command],
        arguments: Values,
        deadline: float,
        patience_seconds: float,
    ) -> Deferred[Values]:
        """One try.

        :param patience_seconds: how long it is waited for, if it may be sent again then.
        """
        seconds = deadline - self._seconds()
        if seconds <= 0 or self._links.is_stopped:
            return fail(NotSent("there was no time left to send it"))
        is_named = arguments.get("once") or arguments.get("onces")
        if command not in commands.WRITES or is_named:
            seconds = min(seconds, patience_seconds)
        arguments["timeout_ms"] = whole_ms(seconds)
        answer = link.call(command, arguments, seconds + GRACE_SECONDS)
        if "key" in arguments:
            answer.addCallback(self._answered, arguments["key"])
        return answer

    def _answered(self, answer: Values, key: bytes) -> Values:
        self._leaders.taught(key, answer)
        return answer

    def taught(self, key: bytes, answer: Values) -> None:
        """An answer may say who leads."""
        self._leaders.taught(key, answer)

    async def topology(self) -> Table:
        """The table, asked anew."""
        deadline = self.deadline()
        for attempt in count():
            try:
                return await self._leaders.learn(ATTEMPT_SECONDS)
            except NotDone as error:
                if self._seconds() >= deadline or self._links.is_stopped:
                    raise self._in_time(error) from error
            await self.pause(attempt, deadline)
        raise AssertionError("unreachable: counting never ends")

    def _failed_once(
        self,
        failure: Failure,
        command: type[amp.Command],
        arguments: Values,
        finish: Callable[[Values], _Result],
        deadline: float,
    ) -> Deferred[_Result]:
        error = expected(failure)
        trouble = self._weighed(command, error)
        silent = [self._leaders.connected(arguments["key"])] if _is_of_no_use(error) else []
        ticket = Ticket(self.sessions) if command in commands.WRITES else None
        attempts = self._others(command, arguments, finish, deadline, ticket, trouble, silent)
        return Deferred.fromCoroutine(attempts)

    async def _others(
        self,
        command: type[amp.Command],
        arguments: Values,
        finish: Callable[[Values], _Result],
        deadline: float,
        ticket: Ticket | None = None,
        trouble: KvtwistError | None = None,
        silent: Iterable[Link | None] = (),
    ) -> _Result:
        """The attempts after *trouble*; all of them, if there was none yet.

        :param ticket: the write's; ``None``: it is none.
        :param silent: who was asked before, and was of no use.
        """
        key, unheard = arguments["key"], {*silent}
        try:
            for attempt in count(0 if trouble is None else 1):
                if trouble is not None:
                    await self._back_off(key, trouble, attempt, deadline)
                left_seconds = deadline - self._seconds()
                if left_seconds <= 0 or self._links.is_stopped:
                    raise self._in_time(trouble, ticket)
                link: Link | None = None
                try:
                    seconds = min(left_seconds, ATTEMPT_SECONDS)
                    table = self._leaders.table or await self._leaders.learn(seconds)
                    if ticket is not None:
                        partition = table.partition_of(key)
                        arguments["once"] = await ticket.prepare(partition, key, deadline)
                    link = await self._leaders.link_for(key, seconds, unheard)
                    patience = patience_seconds(arguments, attempt)
                    answer = await self.one(link, command, arguments, deadline, patience)
                    return finish(answer)
                except KvtwistError as error:
                    if _is_of_no_use(error):
                        unheard.add(link)
                    trouble = self._weighed(command, error, ticket)
        finally:
            if ticket is not None:
                ticket.end()
        raise AssertionError("unreachable: counting never ends")

    def _weighed(
        self, command: type[amp.Command], error: KvtwistError, ticket: Ticket | None = None
    ) -> KvtwistError:
        """*error*, if the request may be sent again after it; else it is raised."""
        if ticket is not None:
            ticket.weighed(command, error)
        elif not may_be_sent_again(command, error):
            raise error
        if isinstance(error, NotLeader):
            self._leaders.forget()
        return error

    def _open_session(self, key: bytes, deadline: float) -> Deferred[Values]:
        wanted = {"key": key, "idle_ms": IDLE_MS}
        return self.request(commands.OpenSession, wanted, lambda answer: answer, deadline)

    def _learned(self, table: Table) -> None:
        self.sessions.know(table.settings.partitions, table.settings.durable)

    def _in_time(self, trouble: KvtwistError | None, ticket: Ticket | None = None) -> KvtwistError:
        """The error when there is no time for another attempt."""
        if ticket is not None and ticket.is_unknown:
            return OutcomeUnknown(f"it was sent, and its fate is unknown: {trouble}")
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
        if attempt == 1 and isinstance(trouble, (SessionRefused, WrongGeneration)):
            return  # it has been said what to do instead
        link = self._leaders.connected(key)
        connection = link.connection if link is not None else None
        if isinstance(trouble, Overloaded) and connection is not None and connection.is_full:
            left_seconds = max(0.0, deadline - self._seconds())
            with suppress(TimeoutError, KvtwistError):
                await connection.room().addTimeout(left_seconds, self._reactor)
        else:
            await self.pause(attempt, deadline)

    async def pause(self, attempt: int, deadline: float) -> None:
        """Wait before another attempt: twice as long each time, with jitter."""
        seconds = min(RETRY_DELAY_SECONDS * 2.0**attempt, RETRY_DELAY_SECONDS_MAX)
        seconds = min(seconds * (1 + self._chance()) / 2, deadline - self._seconds())
        await deferLater(self._reactor, max(0.0, seconds), lambda: None)


def _is_of_no_use(error: KvtwistError) -> bool:
    """Whether somebody else is to be asked next: no answer has come, or who was asked could not
    bring it to anybody who leads. It may be cut off from all who could (R9)."""
    return isinstance(error, (OutcomeUnknown, Unavailable))


def patience_seconds(arguments: Values, attempt: int) -> float:
    """How long an attempt is waited for, if there can be another: twice as long each time, and
    longer if there is much to send."""
    size_bytes = len(arguments.get("value", b"")) + sum(map(len, arguments.get("values", ())))
    return ATTEMPT_SECONDS * 2.0**attempt + size_bytes / SENT_BYTES_PER_SECOND


def expected(failure: Failure) -> KvtwistError:
    """The error in *failure*; anything else that it may be is a bug, and is raised."""
    error = failure.value
    if not isinstance(error, KvtwistError):
        failure.raiseException()
    return error


def whole_ms(seconds: float) -> int:
    """A timeout, as a node is told it."""
    return max(1, int(min(seconds, ENDLESS_SECONDS) * 1000))
