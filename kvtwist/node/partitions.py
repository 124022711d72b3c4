"""The data that this node holds, and what the commands do to it: of a cluster in memory, here.

The other kind, on disk, is `kvtwist.node.durable`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.protocols import amp

from kvtwist.core.partition import ABSENT, Conditional, Partition, Record
from kvtwist.core.state.answers import Written
from kvtwist.core.state.commands import NO_SESSION
from kvtwist.core.state.contents import KEYSPACE_BYTES
from kvtwist.core.state.outcomes import Changed
from kvtwist.core.state.records import Record as Seen
from kvtwist.core.topology import Topology
from kvtwist.errors import KvtwistError, Refused, SessionRefused
from kvtwist.node.description import EMPTY, Page, Standing
from kvtwist.node.operations import counted_or_raise
from kvtwist.node.outgoing import Outgoing
from kvtwist.node.waiting import Reader, Writer
from kvtwist.wire import commands
from kvtwist.wire.boxes import VALUE_BYTES_MAX
from kvtwist.wire.connection import Arguments, Responder, Unanswered
from kvtwist.wire.frequent import get_answer, nothing_answer, put_answer


class Partitions(Protocol):
    """The partitions that a node has."""

    @property
    def key_count(self) -> int:
        """How many keys there are in them."""

    def start(self, topology: Topology) -> None:
        """The cluster is founded: have those that this node is listed for."""

    def stop(self, why: KvtwistError) -> Deferred[None]:
        """Take no more commands; fires when all that was acknowledged is where it is kept."""

    def hand_over(self) -> Coroutine[Any, Any, None]:
        """This node stops: have others lead, where there are any."""

    def leads(self, number: int) -> bool:
        """Whether commands on partition *number* are carried out here."""

    def leader(self, number: int) -> str | None:
        """The name of the member that leads partition *number*, as far as this node can say by
        itself; empty: nobody does; ``None``: it cannot say."""

    def is_heard(self, name: str) -> bool:
        """Whether there are signs of life of the member called *name*, where any are given."""

    def apply(
        self, number: int, command: type[amp.Command], arguments: Arguments
    ) -> Arguments | Deferred[Arguments]:
        """Carry *command* out in partition *number*; the answer to it, without ``applied``.

        :raises NotLeader: when that is for another node; nothing was done.
        """

    def begin(
        self, number: int, key: bytes, value: bytes | None, once: bytes | None, place: bytes
    ) -> bytes | Unanswered | None:
        """Carry out a `Get` of *key* in partition *number*, or a `Put` of *value* under it, in the
        form of `kvtwist.wire.frequent`: the bytes of its answer, or what they will come to.

        :param place: what the answer's mark begins with.

        ``None``, and nothing is done, when there is anything to say but the answer: `apply` does.
        """

    def write(
        self, number: int, key: bytes, value: bytes, once: bytes | None, writer: Writer
    ) -> None:
        """Put *value* under *key* in partition *number*, and tell *writer*.

        :raises KvtwistError: when nothing was begun; then nobody is told.
        """

    def read(self, number: int, reader: Reader) -> None:
        """Tell *reader* what there is in partition *number*; likewise."""

    def applied(self, number: int) -> int:
        """How far partition *number*, which has been used, is applied."""

    def outgoing(self, number: int) -> Deferred[Outgoing]:
        """All of partition *number* at one moment, after all that was answered before."""

    def on_full(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when the disk is full: what was `outgoing` has to be closed."""

    def describe(self, first: int, count: int) -> Page:
        """The replicas of groups *first* and up, at most *count*, as they are."""

    def standing(self) -> Standing | None:
        """How this node does as a whole; ``None``: it has no replicas."""

    def responders(self) -> Mapping[type[amp.Command], Responder]:
        """Of the commands that other nodes bring data with, if there are any."""


class MemoryPartitions:
    """`Partitions` in memory, each made when it is first written or read.

    :param name: this node's.
    :param first_revision: draws the revision at which a new partition starts to count.
    """

    def __init__(self, name: str, first_revision: Callable[[], int]) -> None:
        self._name = name
        self._first_revision = first_revision
        self._owners: tuple[str, ...] = ()
        self._partitions: dict[int, Partition] = {}

    @property
    def key_count(self) -> int:
        """How many keys there are."""
        return sum(map(len, self._partitions.values()))

    def start(self, topology: Topology) -> None:
        """Know who owns what: that is who leads it."""
        self._owners = tuple(row[0] for row in topology.placement.replicas)

    def leads(self, number: int) -> bool:
        """Whether this node owns the partition."""
        return self._owners[number] == self._name

    def leader(self, number: int) -> str:
        """The owner."""
        return self._owners[number]

    async def hand_over(self) -> None:
        """Nobody else has the data."""

    def stop(self, why: KvtwistError) -> Deferred[None]:
        """Nothing to do."""
        return succeed(None)

    def applied(self, number: int) -> int:
        """How often the partition, which has been used, was changed."""
        return self._partitions[number].revision

    def outgoing(self, number: int) -> Deferred[Outgoing]:
        """Nothing: its records have no log that says how far a copy is."""
        raise Refused("a cluster in memory is not backed up: it keeps nothing that could go back")

    def on_full(self, notify: Callable[[], None]) -> None:
        """Nothing to do."""

    def describe(self, first: int, count: int) -> Page:
        """There are no replicas."""
        return EMPTY

    def standing(self) -> None:
        """There is nothing to be said."""

    def responders(self) -> Mapping[type[amp.Command], Responder]:
        """None: nobody else has the data."""
        return {}

    def is_heard(self, name: str) -> bool:
        """Nobody is listened to here: who does not answer is noticed by that."""
        return True

    def apply(self, number: int, command: type[amp.Command], arguments: Arguments) -> Arguments:
        """Carry *command* out in partition *number*; the answer to it."""
        if arguments.get("once") is not None:
            raise no_sessions()
        return OPERATIONS[command](self.partition(number), arguments)

    def begin(
        self, number: int, key: bytes, value: bytes | None, once: bytes | None, place: bytes
    ) -> bytes | None:
        """Carry it out at once."""
        if self._owners[number] != self._name or once is not None:
            return None
        partition = self.partition(number)
        if value is not None:
            version = partition.put(key, value)
            return put_answer(version, place + partition.revision.to_bytes(8, "big"))
        record, mark = partition.get(key), place + partition.revision.to_bytes(8, "big")
        if record is None:
            return nothing_answer(mark)
        if len(record.value) > VALUE_BYTES_MAX:
            return None
        return get_answer(record.version, record.value, mark)

    def write(
        self, number: int, key: bytes, value: bytes, once: bytes | None, writer: Writer
    ) -> None:
        """Put it there.

        :raises SessionRefused: when it carries ``once``.
        """
        if once is not None:
            raise no_sessions()
        version = self.partition(number).put(key, value)
        writer.applied(Written((Changed(version),)))

    def read(self, number: int, reader: Reader) -> None:
        """Look."""
        record = self.partition(number).get(reader.key[KEYSPACE_BYTES:])
        reader.found(None if record is None else Seen(record.value, record.version, ABSENT))

    def partition(self, number: int) -> Partition:
        """Partition *number*."""
        partition = self._partitions.get(number)
        if partition is None:
            partition = self._partitions[number] = Partition(self._first_revision())
        return partition


def _get(partition: Partition, arguments: Arguments) -> Arguments:
    return _seen(partition.get(arguments["key"]))


def _put(partition: Partition, arguments: Arguments) -> Arguments:
    return {"version": partition.put(arguments["key"], arguments["value"])}


def _delete(partition: Partition, arguments: Arguments) -> Arguments:
    return _conditional(partition.delete(arguments["key"], arguments["version"]))


def _compare_and_set(partition: Partition, arguments: Arguments) -> Arguments:
    key, value, version = arguments["key"], arguments["value"], arguments["version"]
    return _conditional(partition.compare_and_set(key, value, version))


def _increment(partition: Partition, arguments: Arguments) -> Arguments:
    return counted_or_raise(partition.increment(arguments["key"], arguments["delta"]))


def _open_session(partition: Partition, arguments: Arguments) -> Arguments:
    return {"session": NO_SESSION, "generation": 0}


def no_sessions() -> SessionRefused:
    """The error for a write that carries a session here."""
    return SessionRefused("a cluster in memory has no sessions: write without", reason="unknown")


def _seen(record: Record | None) -> Arguments:
    if record is None:
        return {"version": 0, "value": None}
    return {"version": record.version, "value": record.value}


def _conditional(outcome: Conditional) -> Arguments:
    if outcome.done:
        return {"done": True, "version": outcome.version, "value": None}
    return {"done": False, **_seen(outcome.seen)}


OPERATIONS: Mapping[type[amp.Command], Callable[[Partition, Arguments], Arguments]] = {
    commands.Get: _get,
    commands.Put: _put,
    commands.Delete: _delete,
    commands.CompareAndSet: _compare_and_set,
    commands.Increment: _increment,
    commands.OpenSession: _open_session,
}
"""The commands on data."""
