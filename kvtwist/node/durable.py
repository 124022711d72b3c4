"""The data of a node that keeps it on disk: each partition that it owns is a Raft group of its own.

Until partitions are replicated a group has one replica, on its owner. All else is as it will be: a
write is proposed, synced, applied, and then answered; a read is confirmed by the group, and sees
what was applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from kvtwist.core.raft import Configuration, Raft, Restored, Settings, Snapshot
from kvtwist.core.topology import Topology
from kvtwist.errors import DiskFull, KvtwistError, Unavailable
from kvtwist.node.operations import answer_to, proposal, seen
from kvtwist.node.outgoing import Outgoing, opened
from kvtwist.node.replica import Replica
from kvtwist.node.replicas import Replicas
from kvtwist.storage import logs
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import Batch
from kvtwist.storage.snapshots import remove_orphans
from kvtwist.storage.states import StoredState, load_state, new_state, remove_group
from kvtwist.storage.store import Condition, Store
from kvtwist.wire import commands
from kvtwist.wire.connection import Arguments

FIRST_GENERATION = 1
"""Of a partition's membership."""

_REPLICA = 1
ALONE = Configuration((_REPLICA,))
_SETTINGS = Settings(quiesce_after_ticks=20)


def group_of(partition: int) -> int:
    """The group that a partition is at the founding. Group 1 is not a partition's."""
    return partition + 2


class DurablePartitions:
    """`kvtwist.node.partitions.Partitions` on disk.

    :param failed: called, once, when the node cannot go on.
    :param chance: numbers from 0 to 1, for election timeouts.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        directory: DataDirectory,
        store: Store,
        failed: Callable[[KvtwistError], None],
        seconds: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._name = name
        self._directory = directory
        self._store = store
        self._seconds = seconds
        self._chance = chance
        self._replicas = Replicas(reactor, store, self._replica, failed)
        self._is_running = False
        self._loaded: dict[int, Restored | None] = {}

    @property
    def key_count(self) -> int:
        """How many keys there are."""
        return self._replicas.key_count

    def start(self, topology: Topology) -> None:
        """Load what this node owns, or begin it.

        It waits for the disk, once.

        :raises StorageError: when the store cannot be read as what was written.
        """
        owned = [
            group_of(number)
            for number, row in enumerate(topology.placement.replicas)
            if row[0] == self._name
        ]
        self._remove_restored(owned)
        loaded = {group: self._load(group) for group in owned}
        self._begin([group for group, restored in loaded.items() if restored is None])
        self._loaded = {group: restored or self._load(group) for group, restored in loaded.items()}
        known = {group: restored for group, restored in self._loaded.items() if restored}
        self._directory.check_marks(known)
        self._replicas.start(owned)
        self._is_running = True

    def stop(self, why: KvtwistError) -> Deferred[None]:
        """Answer nobody any more, and close the store."""
        if self._is_running:
            self._is_running = False
            self._replicas.stop(why)
        return self._store.close()

    def applied(self, number: int) -> int:
        """The index of the last entry that is applied."""
        return self._replicas.replica(group_of(number)).applied_index

    def apply(
        self, number: int, command: type[amp.Command], arguments: Arguments
    ) -> Deferred[Arguments]:
        """Carry *command* out, durably."""
        try:
            replica = self._replicas.replica(group_of(number))
        except KeyError:
            raise Unavailable(f"{self._name} cannot serve: {self._store.trouble}") from None
        if command is commands.Get:
            return replica.read(arguments["key"], arguments["keyspace"] or 0).addCallback(seen)
        if self._store.condition is not Condition.OPEN:
            raise DiskFull(f"{self._name} cannot write: {self._store.trouble}")
        proposed = replica.propose(proposal(command, arguments, FIRST_GENERATION))
        return proposed.addCallback(lambda answer: answer_to(command, answer))

    def outgoing(self, number: int) -> Deferred[Outgoing]:
        """All of a partition at one moment, after all that was answered before."""
        group = group_of(number)
        try:
            replica = self._replicas.replica(group)
        except KeyError:
            raise Unavailable(f"{self._name} cannot serve: {self._store.trouble}") from None
        if self._store.condition is not Condition.OPEN:
            raise DiskFull(f"{self._name} cannot be backed up: {self._store.trouble}")
        return replica.settled().addCallback(lambda _: opened(self._store, group))

    def on_full(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when the disk is full."""
        self._store.on_full(notify)

    # -- replicas -------------------------------------------------------------------------------

    def _begin(self, groups: list[int]) -> None:
        batch = remove_orphans(self._directory.engine)
        for group in groups:
            logs.save_base(batch, group, Snapshot(0, 0, ALONE))
            changes, _ = self._new_state(group).take_batch()
            batch.extend(changes)
        if batch:
            self._directory.engine.commit(batch, sync=True)

    def _remove_restored(self, owned: list[int]) -> None:
        """What a backup had of partitions that are others' goes, now that it is known whose they
        are: they have it as well."""
        restored = self._directory.record.restored
        if restored is None:
            return
        batch = Batch()
        for group in {*map(group_of, range(restored.partitions))} - {*owned}:
            remove_group(batch, group)
        self._directory.have_removed(batch)

    def _new_state(self, group: int) -> StoredState:
        engine = self._directory.engine
        return new_state(group, engine, engine.get_cached, FIRST_GENERATION, revision=0)

    def _load(self, group: int) -> Restored | None:
        return logs.load(self._directory.engine, group, applied=0)

    def _replica(self, group: int, changed: Callable[[Replica], None]) -> Replica:
        engine = self._directory.engine
        state = load_state(group, engine, engine.get_cached) or self._new_state(group)
        restored = self._loaded.pop(group, None) or self._load(group)
        assert restored is not None
        restored = replace(restored, applied=state.machine.applied_index)
        life = self._directory.record.life
        raft = Raft(_REPLICA, _SETTINGS, restored, self._chance, life)
        raft.campaign()
        replica = Replica(
            group, raft, state, raft.last_index, self._seconds, changed, lambda *_: None
        )
        changed(replica)
        return replica
