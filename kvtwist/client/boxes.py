"""Sends a call on many keys: one box per node, for all keys that it leads; then, alone, each key
that has to be sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.client.attempts import ATTEMPT_SECONDS, Attempts, expected, patience_seconds
from kvtwist.client.leaders import Leaders
from kvtwist.client.many import Many
from kvtwist.errors import KvtwistError, NoAnswer
from kvtwist.wire import commands
from kvtwist.wire.codec import Values
from kvtwist.wire.link import Link

MANY_IN_FLIGHT: Final = 64
"""Boxes, or keys alone, of one call that are under way at once."""

_Item = TypeVar("_Item")
_Key = TypeVar("_Key")
_Result = TypeVar("_Result")


class Boxes(Generic[_Key, _Result]):
    """One call.

    :param alone: the command for one key.
    :param finish: makes the result out of the answer to that.
    """

    def __init__(
        self,
        many: Many[_Key, _Result],
        alone: type[amp.Command],
        finish: Callable[[Values], _Result],
        attempts: Attempts,
        leaders: Leaders,
    ) -> None:
        self._many = many
        self._alone = alone
        self._finish = finish
        self._attempts = attempts
        self._sessions = attempts.sessions
        self._leaders = leaders
        self._deadline = attempts.deadline()
        self._is_write = many.command in commands.WRITES
        self._silent: set[Link] = set()

    async def outcome(self) -> dict[_Key, _Result]:
        """The results.

        :raises ManyFailed: when a key has an error.
        """
        many, leaders = self._many, self._leaders
        if leaders.table is None:
            with suppress(KvtwistError):
                await leaders.learn(ATTEMPT_SECONDS)
        await leaders.settled(ATTEMPT_SECONDS)
        try:
            has_sessions = self._is_write and self._sessions.slots
            if has_sessions:
                await self._open()
            send = self._named_box if has_sessions else self._box
            await each(many.boxes(leaders.links), send)
            if left := many.left():
                await each(left, self._one)
        finally:
            many.end()
        return many.outcome()

    def _open(self) -> Deferred[None]:
        """Have a session opened in each partition that has none: all at the same time.

        What fails here will be found, and said, when its keys are sent.
        """
        slots = self._sessions.slots
        missing = {number for number, slot in enumerate(slots) if slot.session is None}
        some_key = self._many.some_key_of(missing, len(slots)) if missing else {}

        async def open_one(partition: int) -> None:
            with suppress(KvtwistError):
                await self._sessions.session(partition, some_key[partition], self._deadline)

        opening = each(some_key, lambda one: Deferred.fromCoroutine(open_one(one)))
        return Deferred.fromCoroutine(opening)

    def _named_box(self, box: tuple[Link, list[int]]) -> Deferred[None]:
        async def named() -> None:
            if await self._many.name(box[1], self._sessions, self._deadline):
                await self._box(box)

        return Deferred.fromCoroutine(named())

    def _box(self, box: tuple[Link, list[int]]) -> Deferred[None]:
        link, places = box
        many = self._many
        wanted = many.arguments(places)
        patience = patience_seconds(wanted, 0) if self._is_write else 2 * ATTEMPT_SECONDS
        answer = self._attempts.one(link, many.command, wanted, self._deadline, patience)
        here = (places, link)
        return answer.addCallbacks(many.answered, self._box_failed, (places,), errbackArgs=here)

    def _box_failed(self, failure: Failure, places: list[int], link: Link) -> None:
        error = expected(failure)
        if isinstance(error, NoAnswer):
            self._silent.add(link)
        self._many.failed(places, error)

    def _one(self, at: int) -> Deferred[None]:
        many = self._many
        answer = self._attempts.request(
            self._alone,
            many.arguments_alone(at),
            self._finish,
            self._deadline,
            many.tickets.get(at),
            self._silent,
        )
        here = (at,)
        return answer.addCallbacks(many.answered_alone, self._one_failed, here, errbackArgs=here)

    def _one_failed(self, failure: Failure, at: int) -> None:
        self._many.failed_for_good((at,), expected(failure))


async def each(items: Iterable[_Item], work: Callable[[_Item], Deferred[None]]) -> None:
    """Do *work* for all *items*, for `MANY_IN_FLIGHT` of them at the same time."""
    todo = [*items]
    left = iter(todo[MANY_IN_FLIGHT:])

    async def one_after_the_other(first: _Item) -> None:
        await work(first)
        for item in left:
            await work(item)

    running = [
        Deferred.fromCoroutine(one_after_the_other(item))
        if len(todo) > MANY_IN_FLIGHT
        else work(item)
        for item in todo[:MANY_IN_FLIGHT]
    ]
    try:
        await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
