"""Brings each request on data to the node that owns its key.

A request is carried out here if this node owns the key; else it is forwarded to the owner, once: a
forwarded request is never passed on again. What is sent again, and when:

* nothing has left (`NotSent`), or the owner says that nothing was done: again, while time remains;
* a read without an answer: again, while time remains;
* a write without an answer: never. Whether it was carried out is unknown, and is said so (C3).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.protocols import amp

from kvtwist.core.ring import partition_of
from kvtwist.core.topology import Member, Topology
from kvtwist.errors import (
    NotLeader,
    NotSent,
    OutcomeUnknown,
    Overloaded,
    Refused,
    TooLarge,
    Unavailable,
)
from kvtwist.node.cluster import Cluster
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import OPERATIONS, MemoryPartitions, Partitions
from kvtwist.node.peers import Peers
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.commands import REQUEST_TIMEOUT_MS, WRITES
from kvtwist.wire.connection import Arguments, Connection, Responder
from kvtwist.wire.frequent import get_answer, nothing_answer, put_answer

REQUEST_TIMEOUT_MS_MAX = 60_000
RETRY_DELAY_SECONDS = 0.05


class Router:
    """The responder of all commands on data.

    :param elapsed_seconds: the clock that deadlines are measured by.
    :param chance: a number from 0 to 1, different at each call; for jitter.
    """

    def __init__(
        self,
        reactor: Any,
        cluster: Cluster,
        partitions: Partitions,
        peers: Peers,
        limits: Limits,
        elapsed_seconds: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._reactor = reactor
        self._cluster = cluster
        self._partitions = partitions
        self._memory = partitions if isinstance(partitions, MemoryPartitions) else None
        self._peers = peers
        self._limits = limits
        self._elapsed_seconds = elapsed_seconds
        self._chance = chance
        self._stopping = False
        self._topology: Topology | None = None
        self._mine: list[bool] = []
        self._places: list[bytes] = []

    def responders(self) -> dict[type[amp.Command], Responder]:
        """A responder for each command on data."""
        return {command: self._responder(command) for command in OPERATIONS}

    def start(self) -> None:
        """Take requests."""
        self._stopping = False

    def stop(self) -> None:
        """Take no new requests."""
        self._stopping = True
        self._topology = None

    def route(
        self, command: type[amp.Command], arguments: Arguments
    ) -> Arguments | Deferred[Arguments]:
        """Answer one request.

        :raises TooLarge, Refused: when it is not acceptable.
        :raises Unavailable: when there is no cluster (yet, or any more).
        :raises NotLeader: when it was forwarded here by mistake.
        """
        check_keyspace(arguments)
        key, value, forwarded = arguments["key"], arguments.get("value"), arguments["forwarded"]
        partition, owner = self.locate(key, value, forwarded)
        if owner is None:
            answer = self._partitions.apply(partition, command, arguments)
            if isinstance(answer, dict):
                return self._marked(answer, partition)
            return answer.addCallback(self._marked, partition)
        return Deferred.fromCoroutine(self.forward(command, arguments, owner))

    def _marked(self, answer: Arguments, partition: int) -> Arguments:
        """The answer, with how far the partition is that gave it."""
        applied = self._partitions.applied(partition)
        answer["applied"] = self._places[partition] + applied.to_bytes(8, "big")
        return answer

    def answer_here(self, key: bytes, value: bytes | None) -> bytes | None:
        """Answer a `Get` of *key*, or a `Put` of *value* under it, at once, if all is well; the
        bytes are `kvtwist.wire.frequent`'s.

        ``None``, and nothing is done, when there is anything to say but the answer: `route` says
        it. This is nearly every request that a node gets from our own client.
        """
        limits = self._limits
        memory = self._memory
        if self._topology is None or memory is None or len(key) > limits.key_bytes_max:
            return None
        number = partition_of(key, len(self._mine))
        if not self._mine[number]:
            return None
        partition = memory.partition(number)
        if value is None:
            record = partition.get(key)
            applied = self._places[number] + partition.revision.to_bytes(8, "big")
            if record is None:
                return nothing_answer(applied)
            if len(record.value) > VALUE_BYTES_MAX:
                return None
            return get_answer(record.version, record.value, applied)
        if len(value) > limits.value_bytes_max:
            return None
        version = partition.put(key, value)
        return put_answer(version, self._places[number] + partition.revision.to_bytes(8, "big"))

    def locate(self, key: bytes, value: bytes | None, forwarded: bool) -> tuple[int, Member | None]:
        """The partition of *key*, and its owner; ``None`` for this node.

        :param value: what is to be written, if anything.
        :raises NotDone: as `route` does.
        """
        limits = self._limits
        if len(key) > limits.key_bytes_max:
            raise _too_large("key", key, limits.key_bytes_max)
        if value is not None and len(value) > limits.value_bytes_max:
            raise _too_large("value", value, limits.value_bytes_max)
        topology = self._topology or self._look()
        partition = partition_of(key, len(self._mine))
        if self._mine[partition]:
            return partition, None
        owner = topology.owner(partition)
        if forwarded:
            raise NotLeader(
                f"{self._cluster.me.name} does not own partition {partition}: {owner.name} does",
                leader=owner.name,
                epoch=topology.epoch,
            )
        return partition, owner

    def owned(self) -> tuple[bytes, list[bool]]:
        """The cluster's id, and for each partition whether this node owns it.

        :raises Unavailable: as `route` does.
        """
        topology = self._topology or self._look()
        return bytes.fromhex(topology.cluster_id), self._mine

    def _look(self) -> Topology:
        """The topology, remembered with what this node owns in it: each request needs both.

        :raises Unavailable: when there is none, or this node is stopping.
        """
        name = self._cluster.me.name
        if self._stopping:
            raise Unavailable(f"{name} is stopping: ask another node", waiting_for=[name])
        topology = self._cluster.founded()
        self._mine = [row[0] == name for row in topology.placement.replicas]
        cluster = bytes.fromhex(topology.cluster_id)
        self._places = [
            cluster + partition.to_bytes(2, "big")
            for partition in range(topology.settings.partitions)
        ]
        self._topology = topology
        return topology

    def _responder(self, command: type[amp.Command]) -> Responder:
        def respond(_: Connection, arguments: Arguments) -> Arguments | Deferred[Arguments]:
            return self.route(command, arguments)

        return respond

    async def forward(
        self, command: type[amp.Command], arguments: Arguments, owner: Member
    ) -> Arguments:
        """Have *owner* carry it out.

        :raises Unavailable: when it is definitely not done.
        :raises OutcomeUnknown: when it writes, and nobody can say.
        """
        timeout_ms = arguments["timeout_ms"] or REQUEST_TIMEOUT_MS
        seconds = min(timeout_ms, REQUEST_TIMEOUT_MS_MAX) / 1000
        deadline = self._elapsed_seconds() + seconds
        link = self._peers.bulk(owner.address)
        trouble, pauses = "", count(0)
        while (left_seconds := deadline - self._elapsed_seconds()) > 0:
            passed_on = arguments | {
                "forwarded": True,
                "timeout_ms": max(1, int(left_seconds * 1000)),
            }
            try:
                return await link.call(command, passed_on, left_seconds)
            except NotSent:
                trouble = link.trouble
                await self._reconnected(owner, left_seconds)
            except (Unavailable, Overloaded) as error:
                trouble = str(error)
                await self._pause(next(pauses))
            except OutcomeUnknown as error:
                if command in WRITES:
                    raise _unknown(owner, error) from error
                trouble = str(error)
                await self._pause(next(pauses))
        raise _unavailable(owner, trouble)

    async def _reconnected(self, owner: Member, left_seconds: float) -> None:
        link = self._peers.bulk(owner.address)
        try:
            await link.when_connected(left_seconds)
        except NotSent as error:
            raise _unavailable(owner, link.trouble) from error

    async def _pause(self, number: int) -> None:
        seconds = RETRY_DELAY_SECONDS * 2.0 ** min(number, 4) * (1 + self._chance()) / 2
        await deferLater(self._reactor, seconds, lambda: None)


def check_keyspace(arguments: Arguments) -> None:
    """Refuse a request for a keyspace that there is not.

    :raises Refused: for any but 0.
    """
    if arguments["keyspace"]:
        raise Refused(f"there is no keyspace {arguments['keyspace']}: use 0, or leave it out")


def _unavailable(owner: Member, trouble: str) -> Unavailable:
    return Unavailable(
        f"{owner.name} at {owner.address} owns this key and does not answer: {trouble}",
        waiting_for=[owner.name],
    )


def _unknown(owner: Member, error: OutcomeUnknown) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the write was sent to {owner.name} at {owner.address}, and its fate is "
        f"unknown ({error}): read the key to see"
    )


def _too_large(what: str, data: bytes, limit: int) -> TooLarge:
    return TooLarge(
        f"the {what} has {len(data):,} bytes; the limit here is {what}_bytes_max={limit:,}",
        setting=f"{what}_bytes_max",
        limit=limit,
        actual=len(data),
    )
