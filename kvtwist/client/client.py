"""The public client.

It learns from any node who has which partition, and sends each request straight to the node that
owns its key. When that node cannot be reached it asks another one, which forwards. A request is
sent again only while nothing can have been done yet, or when it is a read.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

from twisted.internet.defer import (
    Deferred,
    TimeoutError,
    fail,
)
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.client.links import Links
from kvtwist.client.many import Many, each, may_be_sent_again, records_of, versions_of
from kvtwist.client.request import PutRequest, Request
from kvtwist.client.table import Table
from kvtwist.core.address import Address, parse_address, parse_addresses
from kvtwist.core.partition import Record
from kvtwist.core.ring import partition_of
from kvtwist.errors import (
    KvtwistError,
    NotDone,
    NotOwner,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    VersionMismatch,
)
from kvtwist.wire import commands
from kvtwist.wire.arguments import NATURAL_MAX
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.clock import elapsed_clock
from kvtwist.wire.connection import Arguments, Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.frequent import get_body, put_body, request_end
from kvtwist.wire.link import Link

TIMEOUT_SECONDS = 5.0
ATTEMPT_SECONDS = 1.0
GRACE_SECONDS = 0.25
"""How much longer than it tells the node the client waits, so that the node's own, clearer error
about a time that is up arrives first."""
ENDLESS_SECONDS = 1e9
"""What a node is told of a timeout that is longer, even infinite: it answers sooner anyway."""
RETRY_DELAY_SECONDS = 0.05
RETRY_DELAY_SECONDS_MAX = 1.0

KeyOrText = TypeVar("KeyOrText", bytes, str)
_Result = TypeVar("_Result")


class Client:
    """A client of one cluster. Every method returns a Deferred, which one can await.

    ::

        client = Client(reactor, ":8001,:8002,:8003")
        version = await client.put("user:42", "alice")
        record = await client.get("user:42")        # Record(value=b"alice", version=...)
        await client.close()

    Keys and values are bytes; a ``str`` is encoded as UTF-8.

    Any method may fail with `Unavailable` (nobody who could do it was reached in time; nothing was
    done) or `Refused` (the request is not acceptable, say too large); one that writes also with
    `OutcomeUnknown` (it was sent, and nobody can say whether it was done). A method that fails
    otherwise says so. `TypeError` or `ValueError` is raised at once for an argument that makes no
    sense.

    :param peers: addresses of nodes, any that the cluster has, as ``"host:port,host:port"`` or as
        separate strings. Others are learnt.
    :param timeout_seconds: how long one request may take, retries included.
    :raises ConfigurationError: when *peers* cannot be read.
    """

    def __init__(
        self,
        reactor: Any,
        peers: str | Iterable[str],
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._reactor = reactor
        self._timeout_seconds = timeout_seconds
        self._chance = chance
        self._table: Table | None = None
        self._owner_links: list[Link] = []
        """For each partition the link to its owner, as the table has it."""
        # What the first attempt of a `Request` may take, and how that stands at its box's end.
        get_seconds = min(timeout_seconds, ATTEMPT_SECONDS)
        self._get_seconds = get_seconds + GRACE_SECONDS
        self._put_seconds = timeout_seconds + GRACE_SECONDS
        self._get_end = request_end(_whole_ms(get_seconds))
        self._put_end = request_end(_whole_ms(timeout_seconds))
        self._seconds = elapsed_clock(reactor)
        deadlines = Deadlines(reactor, self._seconds)
        self._links = Links(reactor, parse_addresses(peers), chance, deadlines)

    def get(self, key: bytes | str) -> Deferred[Record | None]:
        """The record of *key*, with ``.value`` and ``.version``; ``None`` if there is none."""
        key = _bytes("key", key)
        connection = self._frequent_connection(key)
        if connection is not None:
            request = Request(self._again, key, None, self._seconds(), self._get_seconds)
            if connection.ask(request, get_body(key, self._get_end)):
                return request
        return self._request(commands.Get, {"key": key}, _record, self._deadline())

    def put(self, key: bytes | str, value: bytes | str) -> Deferred[int]:
        """Write *value* under *key*, whatever was there. The new version."""
        key, value = _bytes("key", key), _bytes("value", value)
        connection = self._frequent_connection(key)
        if connection is not None and len(value) <= VALUE_BYTES_MAX:
            request = PutRequest(self._again, key, value, self._seconds(), self._put_seconds)
            if connection.ask(request, put_body(key, value, self._put_end)):
                return request
        return self._request(commands.Put, {"key": key, "value": value}, _version, self._deadline())

    def delete(self, key: bytes | str, *, version: int | None = None) -> Deferred[bool]:
        """Remove *key*. Whether there was something to remove.

        :param version: remove only this version. Fails with `VersionMismatch` if there is another.
        """
        wanted = {
            "key": _bytes("key", key),
            "version": None if version is None else _checked(version),
        }
        return self._request(commands.Delete, wanted, partial(_deleted, version), self._deadline())

    def compare_and_set(self, key: bytes | str, value: bytes | str, version: int) -> Deferred[int]:
        """Write *value* only if *key* is at *version* (0: only if it does not exist).

        The new version. Fails with `VersionMismatch`, which has the version and value seen.
        """
        wanted = {
            "key": _bytes("key", key),
            "value": _bytes("value", value),
            "version": _checked(version),
        }
        return self._request(
            commands.CompareAndSet, wanted, partial(_swapped, version), self._deadline()
        )

    def get_many(self, keys: Iterable[KeyOrText]) -> Deferred[dict[KeyOrText, Record | None]]:
        """The record of each of *keys*, under the key as it was given. Not a snapshot.

        Fails with `ManyFailed`, which has the results that there are and an error for each other
        key.
        """
        if isinstance(keys, (str, bytes)):
            raise TypeError("keys are several: for a single key there is get")
        given = list(dict.fromkeys(keys))
        many = Many(commands.GetMany, given, (_all_bytes("key", given),), records_of)
        return Deferred.fromCoroutine(self._many(many, commands.Get, _record))

    def put_many(self, mapping: Mapping[KeyOrText, bytes | str]) -> Deferred[dict[KeyOrText, int]]:
        """Write each value under its key. The new version of each key, as it was given.

        Each key is written on its own. Fails with `ManyFailed` as `get_many` does.
        """
        given = list(mapping)
        columns = _all_bytes("key", given), _all_bytes("value", [*mapping.values()])
        many = Many(commands.PutMany, given, columns, versions_of)
        return Deferred.fromCoroutine(self._many(many, commands.Put, _version))

    def topology(self) -> Deferred[Table]:
        """The members and who has which partition, asked anew."""
        return Deferred.fromCoroutine(self._topology())

    def status(self, address: str | Address) -> Deferred[Arguments]:
        """What the node at *address*, and no other, says of itself (`kvtwist.wire.commands`)."""
        where = address if isinstance(address, Address) else parse_address(address)
        return Deferred.fromCoroutine(self._status(where))

    def close(self) -> Deferred[None]:
        """Hang up. Requests under way end as their nature demands: not done, or unknown."""
        return self._links.stop()

    # -- the operations -----------------------------------------------------------------------

    async def _many(
        self,
        many: Many[KeyOrText, _Result],
        alone: type[amp.Command],
        finish: Callable[[Arguments], _Result],
    ) -> dict[KeyOrText, _Result]:
        """One box per node, for all keys that it owns; then, *alone*, what has to be sent again."""
        deadline = self._deadline()
        if self._table is None:
            with suppress(KvtwistError):
                await self._learn(ATTEMPT_SECONDS)

        def box(link: Link, places: list[int]) -> Deferred[None]:
            wanted, patience_seconds = many.arguments(places), 2 * ATTEMPT_SECONDS
            answer = self._attempt(link, many.command, wanted, deadline, patience_seconds)
            here = (places,)
            return answer.addCallbacks(many.answered, box_failed, here, errbackArgs=here)

        def box_failed(failure: Failure, places: list[int]) -> None:
            many.failed(places, _expected(failure))

        def one(at: int) -> Deferred[None]:
            answer = self._request(alone, many.arguments_alone(at), finish, deadline)
            here = (at,)
            return answer.addCallbacks(many.answered_alone, failed_alone, here, errbackArgs=here)

        def failed_alone(failure: Failure, at: int) -> None:
            many.failed_for_good((at,), _expected(failure))

        await self._owners_settled(ATTEMPT_SECONDS)
        await each(many.boxes(self._owner_links), lambda one: box(*one))
        if left := many.left():
            await each(left, one)
        return many.outcome()

    # -- routing ------------------------------------------------------------------------------

    def _frequent_connection(self, key: bytes) -> Connection | None:
        """The connection to the owner of *key*, if there is one and a key so long is frequent."""
        owners = self._owner_links
        if not owners or len(key) > VALUE_BYTES_MAX or self._timeout_seconds <= 0:
            return None
        return owners[partition_of(key, len(owners))].connection

    def _again(self, request: Request, error: KvtwistError) -> Deferred[Any]:
        """The attempts after the first one of *request*.

        :raises KvtwistError: *error*, if it is for good.
        """
        command = request.codec.command
        trouble = self._weighed(command, error)
        deadline = request.begun_seconds + self._timeout_seconds
        wanted, finish = request.arguments(), request.finish
        rest = self._attempts(command, wanted, finish, deadline, trouble)
        return Deferred.fromCoroutine(rest)

    def _request(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        finish: Callable[[Arguments], _Result],
        deadline: float,
    ) -> Deferred[_Result]:
        """Send one request, again if need and nature allow, until its time is up.

        The first attempt, to an owner that is connected, is made without the coroutine that the
        others run in. Most of `get` and `put` do not even come here (`kvtwist.client.request`).
        """
        link = self._owner_link(arguments["key"])
        if link is None:
            return Deferred.fromCoroutine(self._attempts(command, arguments, finish, deadline))
        answer = self._attempt(link, command, arguments, deadline, ATTEMPT_SECONDS)
        return answer.addCallbacks(
            finish, self._failed_once, errbackArgs=(command, arguments, finish, deadline)
        )

    def _failed_once(
        self,
        failure: Failure,
        command: type[amp.Command],
        arguments: Arguments,
        finish: Callable[[Arguments], _Result],
        deadline: float,
    ) -> Deferred[_Result]:
        error = failure.value
        if not isinstance(error, KvtwistError):
            failure.raiseException()
        trouble = self._weighed(command, error)
        rest = self._attempts(command, arguments, finish, deadline, trouble)
        return Deferred.fromCoroutine(rest)

    async def _attempts(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        finish: Callable[[Arguments], _Result],
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
                link = await self._link_for(key, min(left_seconds, ATTEMPT_SECONDS))
                patience_seconds = ATTEMPT_SECONDS * 2**attempt
                answer = await self._attempt(link, command, arguments, deadline, patience_seconds)
            except KvtwistError as error:
                trouble = self._weighed(command, error)
            else:
                return finish(answer)
        raise AssertionError("unreachable: counting never ends")

    def _weighed(self, command: type[amp.Command], error: KvtwistError) -> KvtwistError:
        """*error*, if the request may be sent again after it; else it is raised."""
        if not may_be_sent_again(command, error):
            raise error
        if isinstance(error, NotOwner):
            self._forget_table()
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

    def _attempt(
        self,
        link: Link,
        command: type[amp.Command],
        arguments: Arguments,
        deadline: float,
        patience_seconds: float,
    ) -> Deferred[Arguments]:
        """One try. A write is waited for as long as there is time: it will not be sent again."""
        seconds = deadline - self._seconds()
        if seconds <= 0 or self._links.is_stopped:
            return fail(NotSent("there was no time left to send it"))
        if command not in commands.WRITES:
            seconds = min(seconds, patience_seconds)
        arguments["timeout_ms"] = _whole_ms(seconds)
        return link.call(command, arguments, seconds + GRACE_SECONDS)

    def _deadline(self) -> float:
        return self._seconds() + self._timeout_seconds

    def _owner_link(self, key: bytes) -> Link | None:
        """The link to the owner of *key*, if it is connected."""
        owners = self._owner_links
        if not owners:
            return None
        link = owners[partition_of(key, len(owners))]
        return link if link.connection is not None else None

    async def _link_for(self, key: bytes, seconds: float) -> Link:
        """The owner's link if it is up, or may soon be; else any that is."""
        end = self._seconds() + seconds
        table = self._table or await self._learn(seconds)
        link = self._links.to(table.owner_address(key))
        if link.is_fresh:
            await link.when_settled(max(0.0, end - self._seconds()))
        if link.connection is not None:
            return link
        return await self._links.any(max(0.0, end - self._seconds()))

    async def _learn(self, seconds: float) -> Table:
        """Ask any node for the table. Nothing of a request has left if that fails."""
        link = await self._links.any(seconds)
        try:
            answer = await link.call(commands.DescribeTopology, {}, seconds)
            table = Table.from_answer(answer)
        except OutcomeUnknown as error:
            link.hang_up("it did not answer")
            raise NotSent(f"{link.address} did not tell who owns what: {error}") from error
        self._links.pin(table.cluster_id)
        self._owner_links = [self._links.to(row[0].address) for row in table.replicas]
        self._table = table
        return table

    async def _owners_settled(self, seconds: float) -> None:
        """Give the first attempts to reach the owners a chance."""
        for link in {*self._owner_links}:
            if link.is_fresh:
                await link.when_settled(seconds)

    async def _topology(self) -> Table:
        deadline = self._deadline()
        for attempt in count():
            try:
                return await self._learn(ATTEMPT_SECONDS)
            except NotDone as error:
                if self._seconds() >= deadline or self._links.is_stopped:
                    raise self._in_time(error) from error
            await self._pause(attempt, deadline)
        raise AssertionError("unreachable: counting never ends")

    async def _status(self, address: Address) -> Arguments:
        link = self._links.to(address)
        await link.when_settled(ATTEMPT_SECONDS)
        try:
            return await link.call(commands.Status, {}, ATTEMPT_SECONDS)
        except OutcomeUnknown as error:
            raise Unavailable(f"{address}: {error}", waiting_for=[str(address)]) from error

    async def _back_off(
        self, key: bytes, trouble: KvtwistError, attempt: int, deadline: float
    ) -> None:
        """Wait before another attempt: twice as long each time, with jitter. If it is this client
        that has too much in flight, until there is room."""
        link = self._owner_link(key)
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

    def _forget_table(self) -> None:
        self._table = None
        self._owner_links = []


def _expected(failure: Failure) -> KvtwistError:
    """The error in *failure*; anything else that it may be is a bug, and is raised."""
    error = failure.value
    if not isinstance(error, KvtwistError):
        failure.raiseException()
    return error


def _whole_ms(seconds: float) -> int:
    return max(1, int(min(seconds, ENDLESS_SECONDS) * 1000))


def _bytes(what: str, given: bytes | str) -> bytes:
    if type(given) is bytes:
        return given
    if isinstance(given, str):
        return given.encode()
    if isinstance(given, bytes):
        return bytes(given)
    raise TypeError(f"a {what} is bytes or str, not {type(given).__name__}")


def _all_bytes(what: str, given: Sequence[bytes | str]) -> Sequence[bytes]:
    """Each as `_bytes` has it."""
    if {*map(type, given)} <= {bytes}:
        return cast("Sequence[bytes]", given)
    return [_bytes(what, one) for one in given]


def _checked(version: int) -> int:
    if type(version) is not int:
        raise TypeError(f"a version is an int, not {type(version).__name__}")
    if not 0 <= version <= NATURAL_MAX:
        raise ValueError(f"a version is between 0 and 2^63 - 1, not {version}")
    return version


def _record(answer: Arguments) -> Record | None:
    if answer["value"] is None:
        return None
    return Record(answer["value"], answer["version"])


def _version(answer: Arguments) -> int:
    version: int = answer["version"]
    return version


def _deleted(wanted: int | None, answer: Arguments) -> bool:
    if not answer["done"] and answer["version"]:
        raise _mismatch(wanted, answer)
    return bool(answer["done"])


def _swapped(wanted: int, answer: Arguments) -> int:
    if not answer["done"]:
        raise _mismatch(wanted, answer)
    return _version(answer)


def _mismatch(wanted: int | None, answer: Arguments) -> VersionMismatch:
    seen = _record(answer)
    there = f"it is at version {seen.version}" if seen else "it does not exist"
    demand = f"version {wanted}" if wanted else "that it does not exist"
    return VersionMismatch(
        f"the key was not changed: {demand} was demanded, and {there}",
        version=seen.version if seen else 0,
        value=seen.value if seen else None,
    )
