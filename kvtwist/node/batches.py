"""Requests for many keys: each key for itself, in one box per node.

A node carries out what it owns, sends the rest to the owners in one request each, and answers with
a result or an error for every key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import TypeAlias

from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols import amp

from kvtwist.core.topology import Member
from kvtwist.errors import KvtwistError, MalformedRequest, OutcomeUnknown, Overloaded, TooLarge
from kvtwist.node.limits import Limits
from kvtwist.node.router import Router, check_keyspace
from kvtwist.node.store import Store
from kvtwist.wire.commands import ANSWER_BYTES_MAX, GetMany, PutMany
from kvtwist.wire.connection import Arguments, Connection, Responder
from kvtwist.wire.failures import pack_failure, unpack_failure

_Result: TypeAlias = tuple[int, bytes | None] | KvtwistError
"""Version and value, or what went wrong."""


class Batches:
    """The responder of `GetMany` and `PutMany`."""

    def __init__(self, router: Router, store: Store, limits: Limits) -> None:
        self._router = router
        self._store = store
        self._limits = limits

    def responders(self) -> dict[type[amp.Command], Responder]:
        """A responder for each."""
        return {command: self._responder(command) for command in (GetMany, PutMany)}

    def route(
        self, command: type[amp.Command], arguments: Arguments
    ) -> Arguments | Deferred[Arguments]:
        """Answer one request.

        :raises TooLarge: when there are too many keys.
        :raises MalformedRequest: when keys and values do not fit each other.
        """
        check_keyspace(arguments)
        self._check(len(arguments["keys"]))
        forwarded = arguments["forwarded"]
        results: dict[int, _Result] = {}
        elsewhere: dict[Member, list[int]] = {}
        for at, (key, value) in enumerate(_pairs(command, arguments)):
            try:
                partition, owner = self._router.locate(key, value, forwarded)
            except KvtwistError as error:
                results[at] = error
                continue
            if owner is None:
                results[at] = self._apply(partition, key, value)
            else:
                elsewhere.setdefault(owner, []).append(at)
        if not elsewhere:
            return _answer(command, results)
        return Deferred.fromCoroutine(self._forward(command, arguments, elsewhere, results))

    def _apply(self, number: int, key: bytes, value: bytes | None) -> _Result:
        partition = self._store.partition(number)
        if value is not None:
            return partition.put(key, value), None
        record = partition.get(key)
        return (0, None) if record is None else (record.version, record.value)

    def _check(self, keys: int) -> None:
        limit = self._limits.keys_per_request_max
        if keys > limit:
            raise TooLarge(
                f"the request has {keys:,} keys; the limit here is keys_per_request_max={limit:,}",
                setting="keys_per_request_max",
                limit=limit,
                actual=keys,
            )

    async def _forward(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        elsewhere: Mapping[Member, list[int]],
        results: dict[int, _Result],
    ) -> Arguments:
        async def part(owner: Member, places: list[int]) -> None:
            try:
                wanted = _part(arguments, places)
                answer = await self._router.forward(command, wanted, owner)
                results.update(zip(places, _results(command, answer, len(places)), strict=True))
            except ValueError:
                odd = OutcomeUnknown(f"{owner.name} answered for another number of keys")
                results.update(dict.fromkeys(places, odd))
            except KvtwistError as error:
                results.update(dict.fromkeys(places, error))

        parts = [Deferred.fromCoroutine(part(*one)) for one in elsewhere.items()]
        await gatherResults(parts, consumeErrors=True)
        return _answer(command, results)

    def _responder(self, command: type[amp.Command]) -> Responder:
        def respond(_: Connection, arguments: Arguments) -> Arguments | Deferred[Arguments]:
            return self.route(command, arguments)

        return respond


def _pairs(
    command: type[amp.Command], arguments: Arguments
) -> Iterable[tuple[bytes, bytes | None]]:
    """Each key with the value to write; with none for a read."""
    keys = arguments["keys"]
    if None in keys:
        raise MalformedRequest(f"{command.__name__}: a key is missing")
    if command is GetMany:
        return zip(keys, repeat(None), strict=False)
    values = arguments["values"]
    if len(keys) != len(values) or None in values:
        raise MalformedRequest(
            f"{command.__name__}: {len(keys)} keys and {len(values)} values; each key needs a value"
        )
    return zip(keys, values, strict=True)


def _part(arguments: Arguments, places: Sequence[int]) -> Arguments:
    """The same request, for some of its keys."""
    lists = {
        name: [arguments[name][at] for at in places]
        for name in ("keys", "values")
        if name in arguments
    }
    return arguments | lists


def _results(command: type[amp.Command], answer: Arguments, count: int) -> list[_Result]:
    """The result for each key, out of an owner's answer."""
    versions, errors = answer["versions"], answer["errors"]
    values = answer["values"] if command is GetMany else [None] * count
    return [
        (version, value) if error is None else unpack_failure(error)
        for version, value, error in zip(versions, values, errors, strict=True)
    ]


def _answer(command: type[amp.Command], results: Mapping[int, _Result]) -> Arguments:
    """The answer, with the results in the order of the keys."""
    versions: list[int] = []
    values: list[bytes | None] = []
    errors: list[bytes | None] = []
    room = ANSWER_BYTES_MAX
    for at in range(len(results)):
        result = results[at]
        if isinstance(result, tuple) and result[1] is not None:
            size = len(result[1])
            if size > room and room < ANSWER_BYTES_MAX:
                result = Overloaded("the answer is full: ask for this key again")
            else:
                room -= size
        if isinstance(result, tuple):
            versions.append(result[0])
            values.append(result[1])
            errors.append(None)
        else:
            versions.append(0)
            values.append(None)
            errors.append(pack_failure(result))
    answer = {"versions": versions, "errors": errors}
    return answer | {"values": values} if command is GetMany else answer
