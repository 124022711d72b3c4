"""The replicas of a node as its disk has them; begun there, when they are new.

All of it waits for the disk: it is done when the node starts, and when its store was opened anew.
Who is in a group is said by its founding (`kvtwist.core.groups`); everything else by the disk, and
a disk that has gone back behind the marks beside it is refused (S7).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from kvtwist.core.groups import FIRST_GENERATION, Group, group_of
from kvtwist.core.raft import Raft, Restored, Settings, Snapshot
from kvtwist.storage import logs
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import Batch
from kvtwist.storage.layout import BASE, group_key
from kvtwist.storage.recent import bytes_of_group
from kvtwist.storage.snapshots import remove_orphans
from kvtwist.storage.states import StoredState, load_state, new_state, remove_group

SETTINGS = Settings(stall_ticks=40, eager_commit=False, narrow_reads=True, quiesce_after_ticks=20)
"""A large value may take a disk longer than an election timeout; that alone deposes nobody."""


MADE_MAX = 1 << 12
"""How often a replica can be made in one life of its node."""


class Loading:
    """Of one node.

    :param name: the node's.
    :param chance: numbers from 0 to 1, for election timeouts.
    """

    def __init__(self, name: str, directory: DataDirectory, chance: Callable[[], float]) -> None:
        self._name = name
        self._directory = directory
        self._chance = chance
        self._groups: Mapping[int, Group] = {}
        self._loaded: dict[int, Restored | None] = {}
        self._made: Counter[int] = Counter()
        self._recent_bytes_max = 0

    def load(self, groups: Mapping[int, Group]) -> list[int]:
        """Load the logs of those of *groups* that this node has a replica of, or begin them.

        Returns the ids of these groups.

        :raises StorageError: when the store cannot be read as what was written, or has gone back.
        """
        self._groups = groups
        held = [group for group, each in groups.items() if each.replica_of(self._name)]
        self._recent_bytes_max = bytes_of_group(len(held))
        self._remove_restored(held)
        loaded = {group: self._load(group) for group in held}
        self._begin([group for group, restored in loaded.items() if restored is None])
        self._loaded = {group: restored or self._load(group) for group, restored in loaded.items()}
        known = {group: restored for group, restored in self._loaded.items() if restored}
        self._directory.check_marks(known)
        return held

    def replica(self, group: Group) -> tuple[Raft, StoredState]:
        """What makes this node's replica of *group*: its core, and its state."""
        engine = self._directory.engine
        state = load_state(group.id, engine, engine.get_cached, self._recent_bytes_max)
        state = state or self._new_state(group.id)
        restored = self._loaded.pop(group.id, None) or self._load(group.id)
        me = group.replica_of(self._name)
        assert restored is not None and me is not None
        restored = replace(restored, applied=state.machine.applied_index)
        raft = Raft(me, SETTINGS, restored, self._chance, self._life(group.id))
        if group.owner == self._name:
            raft.campaign()  # nobody follows it who hears another leader
        return raft, state

    def _life(self, group: int) -> int:
        """Larger each time that the replica is made: also when that is more than once in a life of
        the node, after a full disk. Else it would use numbers of its reads again (R5)."""
        self._made[group] += 1
        return self._directory.record.life * MADE_MAX + self._made[group]

    def _load(self, group: int) -> Restored | None:
        return logs.load(self._directory.engine, group, applied=0)

    def _new_state(self, group: int) -> StoredState:
        engine = self._directory.engine
        cached, bytes_max = engine.get_cached, self._recent_bytes_max
        return new_state(group, engine, cached, FIRST_GENERATION, 0, bytes_max)

    def _begin(self, groups: Sequence[int]) -> None:
        batch = remove_orphans(self._directory.engine)
        for group in groups:
            logs.save_base(batch, group, Snapshot(0, 0, self._groups[group].configuration))
            changes, _ = self._new_state(group).take_batch()
            batch.extend(changes)
        if batch:
            self._directory.engine.commit(batch, sync=True)

    def _remove_restored(self, held: Sequence[int]) -> None:
        """What a backup had of partitions that are others' goes, now that it is known whose they
        are: they have it as well. What stays gets its group's replicas."""
        restored = self._directory.record.restored
        if restored is None:
            return
        batch = Batch()
        for group in map(group_of, range(restored.partitions)):
            if group in held:
                self._found_restored(batch, group)
            else:
                remove_group(batch, group)
        self._directory.have_removed(batch)

    def _found_restored(self, batch: Batch, group: int) -> None:
        key = group_key(BASE, group)
        frame = self._directory.engine.get(key)
        if frame is not None:
            base = logs.read_base(key, frame)
            configuration = self._groups[group].configuration
            logs.save_base(batch, group, replace(base, configuration=configuration))
