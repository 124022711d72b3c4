"""Requests for many keys: each key for itself, in one box per node.

A node carries out what it owns, sends the rest to the owners in one request each, and answers with
a result or an error for every key.

Nearly all requests are for keys that are owned here and acceptable, all of them. That is seen at
one look, and what is done then costs little for each key; in all other requests each key is looked
at on its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, gatherResults
from twisted.protocols import amp

from kvtwist.core.ring import partitions_of
from kvtwist.core.topology import Member
from kvtwist.errors import KvtwistError, MalformedRequest, OutcomeUnknown, Overloaded, TooLarge
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import MemoryPartitions, Partitions
from kvtwist.node.router import Router, check_keyspace
from kvtwist.wire.applied import join_applied, pack_applied, unpack_applied
from kvtwist.wire.commands import ANSWER_BYTES_MAX, Get, GetMany, Put, PutMany
from kvtwist.wire.connection import Arguments, Connection, Responder
from kvtwist.wire.failures import pack_failure, unpack_failure


class _Results:
    """What became of the keys of a request, each at its place in it.

    :ivar versions: 0 where there is an error, or no such key.
    :ivar values: what was read.
    :ivar errors: under their places.
    :ivar applied: how far each partition that was used is.
    """

    __slots__ = ("applied", "cluster_id", "errors", "values", "versions")

    def __init__(self, cluster_id: bytes, count: int) -> None:
        self.cluster_id = cluster_id
        self.versions = [0] * count
        self.values: list[bytes | None] = [None] * count
        self.errors: dict[int, KvtwistError] = {}
        self.applied: dict[int, int] = {}

    def take(
        self, places: Sequence[int], versions: Sequence[int], values: Sequence[bytes | None]
    ) -> None:
        """Put results where they belong."""
        for at, version, value in zip(places, versions, values, strict=True):
            self.versions[at], self.values[at] = version, value

    def take_part(self, places: Sequence[int], answer: Arguments) -> None:
        """The same for what another node did, and answered.

        :raises ValueError: when the answer does not fit the places; then nothing is taken.
        """
        versions, nothing = answer["versions"], [None] * len(places)
        values = answer.get("values", nothing)
        errors = nothing if answer["errors"] is None else answer["errors"]
        if not len(places) == len(versions) == len(values) == len(errors):
            raise ValueError("it answered for another number of keys")
        if answer["applied"] is not None:
            join_applied(self.applied, unpack_applied(self.cluster_id, answer["applied"]))
        self.take(places, versions, values)
        for at, error in zip(places, errors, strict=True):
            if error is not None:
                self.errors[at] = unpack_failure(error)

    def answer(self, command: type[amp.Command]) -> Arguments:
        """The answer."""
        answer: Arguments = {"versions": self.versions}
        if command is GetMany:
            self._bound()
            answer["values"] = self.values
        if self.errors:
            packed: list[bytes | None] = [None] * len(self.versions)
            for at, error in self.errors.items():
                packed[at] = pack_failure(error)
            answer["errors"] = packed
        if self.applied:
            answer["applied"] = pack_applied(self.cluster_id, self.applied)
        return answer

    def _bound(self) -> None:
        """Leave out values that the answer has no room for."""
        room = ANSWER_BYTES_MAX
        if sum(map(len, filter(None, self.values))) <= room:
            return
        for at, value in enumerate(self.values):
            if value is None:
                continue
            if len(value) > room and room < ANSWER_BYTES_MAX:
                self.versions[at], self.values[at] = 0, None
                self.errors[at] = Overloaded("the answer is full: ask for this key again")
            else:
                room -= len(value)


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
        results = _Results(cluster_id, len(keys))
        partitions = self._all_here(mine, keys, values)
        memory = self._partitions
        if not isinstance(memory, MemoryPartitions):
            return Deferred.fromCoroutine(self._durably(command, arguments, results))
        if partitions is not None:
            done = _apply(memory, results, partitions, keys, values)
            results.versions, results.values = done
            return results.answer(command)
        here, elsewhere = self._located(results, arguments)
        places = [*here]
        wanted = _part(arguments, places)
        done = _apply(memory, results, [*here.values()], wanted["keys"], wanted.get("values"))
        results.take(places, *done)
        if not elsewhere:
            return results.answer(command)
        return Deferred.fromCoroutine(self._forward(command, arguments, elsewhere, results))

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

    def _located(
        self, results: _Results, arguments: Arguments
    ) -> tuple[dict[int, int], dict[Member, list[int]]]:
        """Where each key is at home: the partition under its place, for those that this node owns,
        and the places of all others under their owners. *results* learns what is unacceptable."""
        here: dict[int, int] = {}
        elsewhere: dict[Member, list[int]] = {}
        keys = arguments["keys"]
        values = arguments.get("values") or [None] * len(keys)
        for at, (key, value) in enumerate(zip(keys, values, strict=True)):
            try:
                partition, owner = self._router.locate(key, value, arguments["forwarded"])
            except KvtwistError as error:
                results.errors[at] = error
                continue
            if owner is None:
                here[at] = partition
            else:
                elsewhere.setdefault(owner, []).append(at)
        return here, elsewhere

    async def _durably(
        self, command: type[amp.Command], arguments: Arguments, results: _Results
    ) -> Arguments:
        """The same where each key has to wait for a disk: all of them wait together."""
        here, elsewhere = self._located(results, arguments)
        keys, values, alone = arguments["keys"], arguments.get("values"), _ALONE[command]

        async def one(at: int, number: int) -> None:
            wanted = arguments | {"key": keys[at], "value": values and values[at]}
            try:
                applied = self._partitions.apply(number, alone, wanted)
                answer = applied if isinstance(applied, dict) else await applied
            except KvtwistError as error:
                results.errors[at] = error
            else:
                results.take([at], [answer["version"]], [answer.get("value")])

        each = [Deferred.fromCoroutine(one(*place)) for place in here.items()]
        await gatherResults(each, consumeErrors=True)
        results.applied = {number: self._partitions.applied(number) for number in {*here.values()}}
        return await self._forward(command, arguments, elsewhere, results)

    async def _forward(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        elsewhere: Mapping[Member, list[int]],
        results: _Results,
    ) -> Arguments:
        async def part(owner: Member, places: list[int]) -> None:
            try:
                answer = await self._router.forward(command, _part(arguments, places), owner)
                results.take_part(places, answer)
            except ValueError as error:
                odd = OutcomeUnknown(f"the answer of {owner.name} makes no sense: {error}")
                results.errors.update(dict.fromkeys(places, odd))
            except KvtwistError as error:
                results.errors.update(dict.fromkeys(places, error))

        parts = [Deferred.fromCoroutine(part(*one)) for one in elsewhere.items()]
        await gatherResults(parts, consumeErrors=True)
        return results.answer(command)

    def _responder(self, command: type[amp.Command]) -> Responder:
        def respond(_: Connection, arguments: Arguments) -> Arguments | Deferred[Arguments]:
            return self.route(command, arguments)

        return respond


_ALONE: Mapping[type[amp.Command], type[amp.Command]] = {GetMany: Get, PutMany: Put}


def _apply(
    memory: MemoryPartitions,
    results: _Results,
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
    return values


def _part(arguments: Arguments, places: Sequence[int]) -> Arguments:
    """The same request, for some of its keys."""
    lists = {
        name: [arguments[name][at] for at in places]
        for name in ("keys", "values")
        if name in arguments
    }
    return arguments | lists
