"""The public client.

It learns from any node who leads which partition, and sends each request straight to the leader of
its key's. When that cannot be reached it asks another node, which forwards. Reads are sent again,
and so are writes to a cluster with disks, where each is carried out once however often it is sent
(`kvtwist.client.sessions`); a write to a cluster in memory only while nothing can have been done
yet.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from kvtwist.client import results
from kvtwist.client.attempts import (
    ATTEMPT_SECONDS,
    GRACE_SECONDS,
    Attempts,
    whole_ms,
)
from kvtwist.client.boxes import Boxes
from kvtwist.client.leaders import Leaders
from kvtwist.client.links import Links
from kvtwist.client.many import Many
from kvtwist.client.request import OnceRequest, PutRequest, Request
from kvtwist.client.table import Table
from kvtwist.core.address import Address, parse_address, parse_addresses
from kvtwist.core.partition import Record
from kvtwist.core.ring import partition_of
from kvtwist.core.state.outcomes import Counted
from kvtwist.core.topology import Member
from kvtwist.errors import NotLeader, OutcomeUnknown, Unavailable
from kvtwist.wire import commands
from kvtwist.wire.arguments import INT64_MIN, NATURAL_MAX
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.clock import elapsed_clock
from kvtwist.wire.codec import Values
from kvtwist.wire.connection import Connection
from kvtwist.wire.deadlines import Deadlines
from kvtwist.wire.frequent import get_body, put_body, request_end

TIMEOUT_SECONDS = 5.0

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
        self._seconds = seconds = elapsed_clock(reactor)
        deadlines = Deadlines(reactor, seconds)
        self._links = Links(reactor, parse_addresses(peers), chance, deadlines)
        self._leaders = Leaders(self._links, seconds)
        self._attempts = Attempts(
            reactor, self._links, self._leaders, seconds, chance, timeout_seconds
        )
        self._sessions = self._attempts.sessions
        self._timeout_seconds = timeout_seconds
        # Who has no time at all goes the ordinary way, which says so.
        self._has_time = has_time = timeout_seconds > 0
        self._frequent_connection = (
            self._leaders.frequent_connection if has_time else _no_connection
        )
        # What the first attempt of a `Request` may take, and how that stands at its box's end. A
        # put without a session has no other.
        attempt_seconds = min(timeout_seconds, ATTEMPT_SECONDS)
        self._attempt_seconds = attempt_seconds + GRACE_SECONDS
        self._put_seconds = timeout_seconds + GRACE_SECONDS
        self._attempt_end = request_end(whole_ms(attempt_seconds))
        self._put_end = request_end(whole_ms(timeout_seconds))

    def get(self, key: bytes | str) -> Deferred[Record | None]:
        """The record of *key*, with ``.value`` and ``.version``; ``None`` if there is none."""
        key = _bytes("key", key)
        connection = self._frequent_connection(key)
        if connection is not None:
            request = Request(self._attempts, key, None, self._seconds(), self._attempt_seconds)
            if connection.ask(request, get_body(key, self._attempt_end)):
                return request
        return self._request(commands.Get, {"key": key}, results.record)

    def put(self, key: bytes | str, value: bytes | str) -> Deferred[int]:
        """Write *value* under *key*, whatever was there. The new version."""
        key, value = _bytes("key", key), _bytes("value", value)
        links = self._leaders.links
        if links and len(key) <= VALUE_BYTES_MAX and len(value) <= VALUE_BYTES_MAX:
            partition = partition_of(key, len(links))
            connection = links[partition].connection
            if connection is not None and self._has_time:
                request = self._put_at_once(connection, partition, key, value)
                if request is not None:
                    return request
        return self._request(commands.Put, {"key": key, "value": value}, results.version)

    def _put_at_once(
        self, connection: Connection, partition: int, key: bytes, value: bytes
    ) -> PutRequest | None:
        """The first attempt of a `put`; ``None``: the ordinary way has to be taken."""
        slots = self._sessions.slots
        if not slots:
            request = PutRequest(self._attempts, key, value, self._seconds(), self._put_seconds)
            sent = connection.ask(request, put_body(key, value, self._put_end))
            return request if sent else None
        session = slots[partition].session
        if session is None or (seq := session.begin()) is None:
            return None
        named = OnceRequest(
            self._attempts, key, value, self._seconds(), self._attempt_seconds, session, seq
        )
        once = session.once(seq)
        if connection.ask(named, put_body(key, value, self._attempt_end, once)):
            return named
        session.end(seq)
        return None

    def delete(self, key: bytes | str, *, version: int | None = None) -> Deferred[bool]:
        """Remove *key*. Whether there was something to remove.

        :param version: remove only this version. Fails with `VersionMismatch` if there is another.
        """
        wanted = {
            "key": _bytes("key", key),
            "version": None if version is None else _checked(version),
        }
        return self._request(commands.Delete, wanted, partial(results.deleted, version))

    def compare_and_set(self, key: bytes | str, value: bytes | str, version: int) -> Deferred[int]:
        """Write *value* only if *key* is at *version* (0: only if it does not exist).

        The new version. Fails with `VersionMismatch`, which has the version and value seen.
        """
        wanted = {
            "key": _bytes("key", key),
            "value": _bytes("value", value),
            "version": _checked(version),
        }
        return self._request(commands.CompareAndSet, wanted, partial(results.swapped, version))

    def increment(self, key: bytes | str, delta: int = 1) -> Deferred[Counted]:
        """Add *delta* to the number under *key*; a missing key is 0.

        What there is then, with ``.number`` and ``.version``. The value is the number in decimal
        digits, an int64. Fails with `NotANumber` when what is there is none, with `OutOfRange`
        when the sum would be none.
        """
        wanted = {"key": _bytes("key", key), "delta": _int64(delta)}
        return self._request(commands.Increment, wanted, results.counted)

    def get_many(self, keys: Iterable[KeyOrText]) -> Deferred[dict[KeyOrText, Record | None]]:
        """The record of each of *keys*, under the key as it was given. Not a snapshot.

        Fails with `ManyFailed`, which has the results that there are and an error for each other
        key.
        """
        if isinstance(keys, (str, bytes)):
            raise TypeError("keys are several: for a single key there is get")
        given = list(dict.fromkeys(keys))
        many = Many(commands.GetMany, given, (_all_bytes("key", given),), results.records)
        return self._many(many, commands.Get, results.record)

    def put_many(self, mapping: Mapping[KeyOrText, bytes | str]) -> Deferred[dict[KeyOrText, int]]:
        """Write each value under its key. The new version of each key, as it was given.

        Each key is written on its own. Fails with `ManyFailed` as `get_many` does.
        """
        given = list(mapping)
        columns = _all_bytes("key", given), _all_bytes("value", [*mapping.values()])
        many = Many(commands.PutMany, given, columns, results.versions)
        return self._many(many, commands.Put, results.version)

    def topology(self) -> Deferred[Table]:
        """The members and who has which partition, asked anew."""
        return Deferred.fromCoroutine(self._attempts.topology())

    def status(self, address: str | Address) -> Deferred[Values]:
        """What the node at *address*, and no other, says of itself (`kvtwist.wire.commands`)."""
        where = address if isinstance(address, Address) else parse_address(address)
        return Deferred.fromCoroutine(self._status(where))

    def ask(
        self,
        address: Address,
        command: type[amp.Command],
        arguments: Values,
        timeout_seconds: float | None = None,
    ) -> Deferred[Values]:
        """The answer to a command that changes nothing, of the node at *address* and no other.

        It is sent once.

        :param timeout_seconds: by default the client's.
        """
        seconds = self._timeout_seconds if timeout_seconds is None else timeout_seconds
        return Deferred.fromCoroutine(self._ask(address, command, arguments, seconds))

    def ask_leader(
        self, partition: int, command: type[amp.Command], arguments: Values
    ) -> Deferred[tuple[Member, Values]]:
        """The answer to a command that changes nothing and only a partition's leader can give; and
        who that is. It is sent again, to whoever leads by then, until the client's time is up."""
        return Deferred.fromCoroutine(self._ask_leader(partition, command, arguments))

    def close(self) -> Deferred[None]:
        """Hang up. Requests under way end as their nature demands: not done, or unknown."""
        return self._links.stop()

    def _request(
        self, command: type[amp.Command], arguments: Values, finish: Callable[[Values], _Result]
    ) -> Deferred[_Result]:
        attempts = self._attempts
        return attempts.request(command, arguments, finish, attempts.deadline())

    def _many(
        self,
        many: Many[KeyOrText, _Result],
        alone: type[amp.Command],
        finish: Callable[[Values], _Result],
    ) -> Deferred[dict[KeyOrText, _Result]]:
        boxes = Boxes(many, alone, finish, self._attempts, self._leaders)
        return Deferred.fromCoroutine(boxes.outcome())

    async def _status(self, address: Address) -> Values:
        return await self._ask(address, commands.Status, {}, ATTEMPT_SECONDS)

    async def _ask_leader(
        self, partition: int, command: type[amp.Command], arguments: Values
    ) -> tuple[Member, Values]:
        attempts, seconds = self._attempts, self._timeout_seconds
        deadline = attempts.deadline()
        table = self._leaders.table or await attempts.topology()
        row = table.replicas[partition]
        asked = table.leaders[partition] or row[0]
        for attempt in count():
            try:
                return asked, await self._ask(asked.address, command, dict(arguments), seconds)
            except (NotLeader, Unavailable) as error:
                if self._seconds() >= deadline:
                    raise Unavailable(
                        f"partition {partition} cannot be read from {asked.name} at "
                        f"{asked.address}: {error}",
                        waiting_for=[asked.name],
                    ) from error
                said = table.member(error.leader) if isinstance(error, NotLeader) else None
                asked = said or row[(row.index(asked) + 1) % len(row) if asked in row else 0]
            await attempts.pause(attempt, deadline)
        raise AssertionError("unreachable: counting never ends")

    async def _ask(
        self, address: Address, command: type[amp.Command], arguments: Values, seconds: float
    ) -> Values:
        link = self._links.to(address)
        await link.when_settled(min(seconds, ATTEMPT_SECONDS))
        try:
            return await link.call(command, arguments, seconds)
        except OutcomeUnknown as error:
            raise Unavailable(f"{address}: {error}", waiting_for=[str(address)]) from error


def _no_connection(_: bytes) -> None:
    """There is none."""


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


def _int64(number: int) -> int:
    if type(number) is not int:
        raise TypeError(f"a number to add is an int, not {type(number).__name__}")
    if not INT64_MIN <= number <= NATURAL_MAX:
        raise ValueError(f"a number to add is between -2^63 and 2^63 - 1, not {number}")
    return number


def _checked(version: int) -> int:
    if type(version) is not int:
        raise TypeError(f"a version is an int, not {type(version).__name__}")
    if not 0 <= version <= NATURAL_MAX:
        raise ValueError(f"a version is between 0 and 2^63 - 1, not {version}")
    return version
