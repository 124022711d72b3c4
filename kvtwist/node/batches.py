"""Requests for many keys: each key for itself, in one box per node.

A node carries out what it leads, sends the rest to the leaders in one request each, and answers
with a result or an error for every key.

Of a cluster in memory nearly all requests are for keys that are owned here and acceptable, all of
them. That is seen at one look, and what is done then costs little for each key; in all other
requests each key is looked at on its own (`kvtwist.node.results` is told what became of it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols import amp

from kvtwist.core.ring import partitions_of
from kvtwist.core.state.contents import stored_key
from kvtwist.core.topology import Member
from kvtwist.errors import (
    KvtwistError,
    MalformedRequest,
    NotLeader,
    OutcomeUnknown,
    TooLarge,
)
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import MemoryPartitions, Partitions, no_sessions
from kvtwist.node.results import OneKey, Results, Waiting
from kvtwist.node.router import Router, check_keyspace
from kvtwist.wire.again import may_be_sent_again
from kvtwist.wire.commands import GetMany, PutMany
from kvtwist.wire.connection import Arguments, Connection, Responder
from kvtwist.wire.once import ONCE_BYTES


class Batches:
    """The responder of `GetMany` and `PutMany`."""

    def __init__(self, router: Router, partitions: Partitions, limits: Limits) -> None:
        self._router = router
        self._partitions = partitions
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
        keys = arguments["keys"]
        self._check(len(keys))
        values = _values(command, arguments)
        try:
            cluster_id, mine = self._router.owned()
        except KvtwistError:  # which each key will have for itself
            cluster_id, mine = b"", []
        results = Results(cluster_id, len(keys))
        memory = self._partitions
        if isinstance(memory, MemoryPartitions):
            if arguments.get("onces") is not None:
                raise no_sessions()
            partitions = self._all_here(mine, keys, values)
            if partitions is not None:
                done = _apply(memory, results, partitions, keys, values)
                results.versions, results.values = done
                return results.answer(command)
        return Deferred.fromCoroutine(self._each(command, arguments, results))

    def _check(self, keys: int) -> None:
        limit = self._limits.keys_per_request_max
        if keys > limit:
            raise TooLarge(
                f"the request has {keys:,} keys; the limit here is keys_per_request_max={limit:,}",
                setting="keys_per_request_max",
                limit=limit,
                actual=keys,
            )

    def _all_here(
        self, mine: Sequence[bool], keys: Sequence[bytes], values: Sequence[bytes] | None
    ) -> list[int] | None:
        """The partition of each key, if this node owns all of them and no limit is in the way.

        Else ``None``: then `Router.locate` says what is to become of which. It must never find
        fault with what passes here; what it accepts may well fail here.
        """
        limits = self._limits
        if not mine or max(map(len, keys), default=0) > limits.key_bytes_max:
            return None
        if values and max(map(len, values)) > limits.value_bytes_max:
            return None
        partitions = partitions_of(keys, len(mine))
        return partitions if all(mine[number] for number in {*partitions}) else None

    async def _each(
        self, command: type[amp.Command], arguments: Arguments, results: Results
    ) -> Arguments:
        """Each key where it is led, all at the same time; those that nothing has become of again,
        where they are led by then, while there is time."""
        deadline = self._router.deadline(arguments)
        todo = [*range(len(arguments["keys"]))]
        for attempt in count():
            here, elsewhere = self._located(results, arguments, todo)
            parts: list[Deferred[Any]] = [
                Deferred.fromCoroutine(self._part(command, arguments, *part, deadline, results))
                for part in elsewhere.items()
            ]
            if here:
                parts.append(self._begin(command, arguments, here, deadline, results))
            await gatherResults(parts, consumeErrors=True)
            todo = self._left(command, arguments, results, todo)
            if not todo or self._router.is_over(deadline) or arguments["forwarded"]:
                break
            await self._router.pause(attempt)
        return results.answer(command)

    def _left(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        results: Results,
        todo: Sequence[int],
    ) -> list[int]:
        """The places of the keys that may be asked for again."""
        left: list[int] = []
        for at in todo:
            error = results.errors.get(at)
            if isinstance(error, NotLeader):
                self._router.learn(arguments["keys"][at], error)
            if error is not None and may_be_sent_again(command, error):
                left.append(at)
        return left

    def _located(
        self, results: Results, arguments: Arguments, todo: Sequence[int]
    ) -> tuple[dict[int, int], dict[Member, list[int]]]:
        """Where each key is led: the partition under its place, for those that this node leads,
        and the places of all others under their leaders. *results* learns what is unacceptable."""
        here: dict[int, int] = {}
        elsewhere: dict[Member, list[int]] = {}
        keys, values = arguments["keys"], arguments.get("values")
        is_forwarded = bool(arguments["forwarded"])
        for at in todo:
            results.errors.pop(at, None)
            value = None if values is None else values[at]
            try:
                number, leader = self._router.locate(keys[at], value, is_forwarded)
            except KvtwistError as error:
                results.errors[at] = error
                continue
            if leader is None:
                here[at] = number
            else:
                elsewhere.setdefault(leader, []).append(at)
        return here, elsewhere

    def _begin(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        here: Mapping[int, int],
        deadline: float,
        results: Results,
    ) -> Deferred[Any]:
        """The keys that this node leads: the partition of each under its place."""
        keys, values, partitions = arguments["keys"], arguments.get("values"), self._partitions
        onces = arguments.get("onces")
        waiting = Waiting(here, results, partitions.applied)
        for at, number in here.items():
            one = OneKey(waiting, at, stored_key(0, keys[at]))
            once = onces and onces[ONCE_BYTES * at : ONCE_BYTES * (at + 1)]
            try:
                if values is None:
                    partitions.read(number, one)
                else:
                    partitions.write(number, keys[at], values[at], once, one)
            except KvtwistError as error:
                one.lost(error)
        return self._router.bounded(waiting.done, command, deadline).addErrback(waiting.end)

    async def _part(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        leader: Member,
        places: list[int],
        deadline: float,
        results: Results,
    ) -> None:
        """The keys that another node leads."""
        try:
            wanted = _part(arguments, places)
            answer = await self._router.forward(command, wanted, leader, deadline)
            results.take_part(places, answer)
        except ValueError as error:
            odd = OutcomeUnknown(f"the answer of {leader.name} makes no sense: {error}")
            results.errors.update(dict.fromkeys(places, odd))
        except KvtwistError as error:
            results.errors.update(dict.fromkeys(places, error))

    def _responder(self, command: type[amp.Command]) -> Responder:
        def respond(_: Connection, arguments: Arguments) -> Arguments | Deferred[Arguments]:
            return self.route(command, arguments)

        return respond


def _apply(
    memory: MemoryPartitions,
    results: Results,
    numbers: Sequence[int],
    keys: Sequence[bytes],
    values: Sequence[bytes] | None,
) -> tuple[list[int], list[bytes | None]]:
    """Write the values, if there are any, else read; each in the partition of that number.

    The version and the value for each key. *results* learns how far the partitions are.
    """
    used = {number: memory.partition(number) for number in {*numbers}}
    versions: list[int]
    seen: list[bytes | None]
    if values is not None:
        versions = [
            used[number].put(key, value)
            for number, key, value in zip(numbers, keys, values, strict=True)
        ]
        seen = [None] * len(keys)
    else:
        records = [used[number].get(key) for number, key in zip(numbers, keys, strict=True)]
        versions = [0 if record is None else record.version for record in records]
        seen = [None if record is None else record.value for record in records]
    results.applied = {number: partition.revision for number, partition in used.items()}
    return versions, seen


def _values(command: type[amp.Command], arguments: Arguments) -> Sequence[bytes] | None:
    """The values to write; none for a read.

    :raises MalformedRequest: when they do not fit the keys.
    """
    keys = arguments["keys"]
    if None in keys:
        raise MalformedRequest(f"{command.__name__}: a key is missing")
    if command is GetMany:
        return None
    values: Sequence[bytes] = arguments["values"]
    if len(keys) != len(values) or None in values:
        raise MalformedRequest(
            f"{command.__name__}: {len(keys)} keys and {len(values)} values; each key needs a value"
        )
    onces = arguments["onces"]
    if onces is not None and len(onces) != ONCE_BYTES * len(keys):
        raise MalformedRequest(
            f"{command.__name__}: {len(keys)} keys and {len(onces)} bytes of onces; each key needs "
            f"{ONCE_BYTES}"
        )
    return values


def _part(arguments: Arguments, places: Sequence[int]) -> Arguments:
    """The same request, for some of its keys."""
    lists: Arguments = {
        name: [arguments[name][at] for at in places]
        for name in ("keys", "values")
        if name in arguments
    }
    if (onces := arguments.get("onces")) is not None:
        each = [onces[ONCE_BYTES * at : ONCE_BYTES * (at + 1)] for at in places]
        lists["onces"] = b"".join(each)
    return arguments | lists
