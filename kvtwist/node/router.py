"""Brings each request on data to the node that leads its key's partition.

A request is carried out here if this node leads the partition; else it is forwarded to the leader,
once: a forwarded request is never passed on again, but answered with who leads. What is sent again,
and when:

* nothing has left (`NotSent`), or the other end says that nothing was done: again, to whoever leads
  by then, while time remains; so a request that comes during an election waits for its end;
* a read without an answer: again, while time remains;
* a write without an answer: never. Whether it was carried out is unknown, and is said so (C3).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.task import deferLater
from twisted.protocols import amp
from twisted.python.failure import Failure

from kvtwist.core.ring import partition_of
from kvtwist.core.topology import Member, Topology
from kvtwist.errors import (
    KvtwistError,
    NotLeader,
    NotSent,
    OutcomeUnknown,
    Refused,
    TooLarge,
    Unavailable,
)
from kvtwist.node.cluster import Cluster
from kvtwist.node.leaders import Leaders
from kvtwist.node.limits import Limits
from kvtwist.node.partitions import OPERATIONS, Partitions
from kvtwist.node.peers import Peers
from kvtwist.wire.again import may_be_sent_again
from kvtwist.wire.commands import REQUEST_TIMEOUT_MS, REQUEST_TIMEOUT_MS_MAX, WRITES
from kvtwist.wire.connection import Arguments, Connection, Responder, Unanswered

RETRY_DELAY_SECONDS: Final = 0.02


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
        self._peers = peers
        self._limits = limits
        self._elapsed_seconds = elapsed_seconds
        self._chance = chance
        self._stopping = False
        self._topology: Topology | None = None
        self._leaders: Leaders
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
        number = self._acceptable(arguments["key"], arguments.get("value"))
        if not self._partitions.leads(number):
            if arguments["forwarded"]:
                raise self._not_leader(number)
            return Deferred.fromCoroutine(
                self._bring(command, arguments, number, self.deadline(arguments))
            )
        answer = self._partitions.apply(number, command, arguments)
        if isinstance(answer, dict):
            return self._marked(answer, number)
        deadline = self.deadline(arguments)
        bounded = self.bounded(answer, command, deadline).addCallback(self._marked, number)
        if arguments["forwarded"]:
            return bounded
        return bounded.addErrback(self._not_here, command, arguments, number, deadline)

    def _not_here(
        self,
        failure: Failure,
        command: type[amp.Command],
        arguments: Arguments,
        number: int,
        deadline: float,
    ) -> Deferred[Arguments]:
        """This node leads no more; nothing was proposed, or a read was lost with the leadership."""
        failure.trap(NotLeader, Unavailable)
        if self._partitions.leader(number) is None:
            failure.raiseException()  # there are no replicas here any more
        return Deferred.fromCoroutine(self._bring(command, arguments, number, deadline))

    def deadline(self, arguments: Arguments) -> float:
        """When the time of a request is up."""
        timeout_ms = arguments["timeout_ms"] or REQUEST_TIMEOUT_MS
        return self._elapsed_seconds() + min(timeout_ms, REQUEST_TIMEOUT_MS_MAX) / 1000

    def is_over(self, deadline: float) -> bool:
        """Whether that time is up, or this node's is."""
        return self._elapsed_seconds() >= deadline or self._topology is None

    def bounded(
        self, answer: Deferred[Arguments], command: type[amp.Command], deadline: float
    ) -> Deferred[Arguments]:
        """*answer*, or an error when the time is up: what was proposed may be applied later."""

        def late(failure: Failure) -> Failure:
            if not failure.check(TimeoutError):
                return failure
            if command in WRITES:
                return Failure(
                    OutcomeUnknown(
                        "the write was begun, and was not confirmed by a majority in time: "
                        "read the key to see"
                    )
                )
            return Failure(Unavailable("a majority did not confirm the read in time"))

        seconds = max(0.0, deadline - self._elapsed_seconds())
        return answer.addTimeout(seconds, self._reactor).addErrback(late)

    def _marked(self, answer: Arguments, partition: int) -> Arguments:
        """The answer, with how far the partition is that gave it."""
        applied = self._partitions.applied(partition)
        answer["applied"] = self._places[partition] + applied.to_bytes(8, "big")
        return answer

    def answer_here(
        self, key: bytes, value: bytes | None, once: bytes | None
    ) -> bytes | Unanswered | None:
        """Answer a `Get` of *key*, or a `Put` of *value* under it, if all is well; the bytes are
        `kvtwist.wire.frequent`'s.

        ``None``, and nothing is done, when there is anything to say but the answer: `route` says
        it. This is nearly every request that a node gets from our own client.
        """
        limits = self._limits
        if self._topology is None or len(key) > limits.key_bytes_max:
            return None
        if value is not None and len(value) > limits.value_bytes_max:
            return None
        number = partition_of(key, len(self._mine))
        return self._partitions.begin(number, key, value, once, self._places[number])

    def locate(self, key: bytes, value: bytes | None, forwarded: bool) -> tuple[int, Member | None]:
        """The partition of *key*, and who leads it; ``None`` for this node.

        :param value: what is to be written, if anything.
        :raises NotDone: as `route` does; also when nobody is known to lead.
        """
        number = self._acceptable(key, value)
        if self._partitions.leads(number):
            return number, None
        if forwarded:
            raise self._not_leader(number)
        leader = self._leaders.of(number)
        if leader is None or leader.name == self._cluster.me.name:
            raise self._unavailable(number, None, "")
        return number, leader

    def _acceptable(self, key: bytes, value: bytes | None) -> int:
        """The partition of *key*, if the limits of this node allow the request."""
        limits = self._limits
        if len(key) > limits.key_bytes_max:
            raise _too_large("key", key, limits.key_bytes_max)
        if value is not None and len(value) > limits.value_bytes_max:
            raise _too_large("value", value, limits.value_bytes_max)
        if self._topology is None:
            self._look()
        return partition_of(key, len(self._mine))

    def _not_leader(self, number: int) -> NotLeader:
        topology = self._topology or self._look()
        leader = self._partitions.leader(number) or ""
        return NotLeader(
            f"{self._cluster.me.name} does not lead partition {number}: "
            + (f"{leader} does" if leader else "it knows nobody who does"),
            leader=leader,
            epoch=topology.epoch,
        )

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
        self._leaders = Leaders(name, topology, self._partitions)
        self._topology = topology
        return topology

    def _responder(self, command: type[amp.Command]) -> Responder:
        def respond(_: Connection, arguments: Arguments) -> Arguments | Deferred[Arguments]:
            return self.route(command, arguments)

        return respond

    async def _bring(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        number: int,
        deadline: float,
    ) -> Arguments:
        """Bring it to the leader, whoever that is by then.

        :raises Unavailable: when nobody has done it in time; nothing was done.
        :raises OutcomeUnknown: when a write was sent, and nobody can say.
        """
        asked, trouble = None, ""
        refused: set[str] = set()
        for attempt in count():
            if self.is_over(deadline):
                break
            leader = self._leaders.of(number, refused)
            if leader is not None:
                asked, trouble = leader, ""
                try:
                    return await self._attempt(command, arguments, number, leader, deadline)
                except KvtwistError as error:
                    if not may_be_sent_again(command, error):
                        raise
                    trouble = str(error)
                    if isinstance(error, NotLeader | NotSent):
                        refused.add(leader.name)
                    if isinstance(error, NotLeader):
                        self._leaders.learn(number, error.leader)
            await self.pause(attempt)
            if attempt % 2:
                refused.clear()
        raise self._unavailable(number, asked, trouble)

    async def _attempt(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        number: int,
        leader: Member,
        deadline: float,
    ) -> Arguments:
        if leader.name != self._cluster.me.name:
            answer = await self.forward(command, arguments, leader, deadline)
            return answer | {"leader": leader.name}
        applied = self._partitions.apply(number, command, arguments)
        if not isinstance(applied, dict):
            applied = await self.bounded(applied, command, deadline)
        return self._marked(applied, number)

    async def forward(
        self,
        command: type[amp.Command],
        arguments: Arguments,
        leader: Member,
        deadline: float | None = None,
    ) -> Arguments:
        """Have *leader* carry it out: one attempt.

        :raises OutcomeUnknown: when it was sent, and nobody can say.
        """
        deadline = self.deadline(arguments) if deadline is None else deadline
        left_seconds = max(0.0, deadline - self._elapsed_seconds())
        passed_on = arguments | {
            "forwarded": True,
            "timeout_ms": max(1, int(left_seconds * 1000)),
        }
        try:
            return await self._peers.bulk(leader.address).call(command, passed_on, left_seconds)
        except OutcomeUnknown as error:
            if command in WRITES:
                raise _unknown(leader, error) from error
            raise Unavailable(str(error), waiting_for=[leader.name]) from error
        except NotSent as error:
            raise NotSent(str(error), waiting_for=[leader.name]) from error

    def _unavailable(self, number: int, asked: Member | None, trouble: str) -> Unavailable:
        topology = self._topology or self._look()
        if asked is not None and trouble:
            return Unavailable(
                f"{asked.name} at {asked.address} leads partition {number} of this key, "
                f"and does not do it: {trouble}",
                waiting_for=[asked.name],
            )
        names = [each.name for each in topology.replicas(number)]
        return Unavailable(
            f"partition {number} of this key has no leader: an election is under way, or there is "
            f"no majority of {', '.join(names)}",
            waiting_for=names,
        )

    def learn(self, key: bytes, error: NotLeader) -> None:
        """Another node has said who leads the partition of *key*."""
        self._leaders.learn(partition_of(key, len(self._mine)), error.leader)

    async def pause(self, number: int) -> None:
        """Wait before another attempt; longer each time, with jitter."""
        seconds = RETRY_DELAY_SECONDS * 2.0 ** min(number, 3) * (1 + self._chance()) / 2
        await deferLater(self._reactor, seconds, lambda: None)


def check_keyspace(arguments: Arguments) -> None:
    """Refuse a request for a keyspace that there is not.

    :raises Refused: for any but 0.
    """
    if arguments["keyspace"]:
        raise Refused(f"there is no keyspace {arguments['keyspace']}: use 0, or leave it out")


def _unknown(leader: Member, error: OutcomeUnknown) -> OutcomeUnknown:
    return OutcomeUnknown(
        f"the write was sent to {leader.name} at {leader.address}, and its fate is "
        f"unknown ({error}): read the key to see"
    )


def _too_large(what: str, data: bytes, limit: int) -> TooLarge:
    return TooLarge(
        f"the {what} has {len(data):,} bytes; the limit here is {what}_bytes_max={limit:,}",
        setting=f"{what}_bytes_max",
        limit=limit,
        actual=len(data),
    )
