"""What is true of the whole cluster: what no node can know, and all are held against.

The ledger remembers, and reads the disks. What must hold is in `tests.simnodes.invariants`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kvtwist.core.groups import group_of
from kvtwist.core.raft import Entry
from kvtwist.core.ring import partition_of
from kvtwist.core.topology import Topology
from kvtwist.node.replica import Replica
from kvtwist.storage import logs
from kvtwist.storage.layout import BASE, HARD, entry_key, group_key
from tests.simnodes.disk import Disk


class Violation(Exception):
    """An invariant does not hold.

    :ivar invariant: its name.
    """

    def __init__(self, invariant: str, wrong: str) -> None:
        super().__init__(f"{invariant}: {wrong}")
        self.invariant = invariant


class Told(NamedTuple):
    """What a replica has told others, and must never forget.

    :ivar term: the highest that it was in.
    :ivar vote: whom it has voted for in that term; 0: nobody.
    """

    term: int = 0
    vote: int = 0


class GroupLedger:
    """Of one group.

    :ivar committed: each entry that was applied anywhere, by index; its term and what it is.
    :ivar highest: the last of them.
    :ivar states: by index, what the state machine was there: revision, log time, keys, bytes.
    :ivar digests: by index, the hash of all of it.
    :ivar answers: by index, what the state machine answered.
    :ivar index_of_version: the entry that made each version.
    :ivar generations: of the membership, by index.
    :ivar leaders: by term, the member that led.
    :ivar voters: how the group is made up, as who applied something last knew it.
    """

    def __init__(self, members: tuple[str, ...]) -> None:
        self.members = members
        self.committed: dict[int, Entry] = {}
        self.highest = 0
        self.states: dict[int, tuple[int, ...]] = {}
        self.digests: dict[int, bytes] = {}
        self.answers: dict[int, object] = {}
        self.index_of_version: dict[int, int] = {}
        self.generations: dict[int, int] = {}
        self.leaders: dict[int, str] = {}
        self.voters: tuple[int, ...] = ()
        self.told: dict[str, Told] = {}
        self.votes: dict[tuple[str, int], int] = {}

    def name_of(self, replica: int) -> str:
        """The member that has a replica."""
        return self.members[replica - 1]


class Ledger:
    """Of all groups.

    :param disks: of all nodes, by name.
    """

    def __init__(self, disks: Mapping[str, Disk]) -> None:
        self.disks = disks
        self.groups: dict[int, GroupLedger] = {}
        self.topology: Topology | None = None

    def founded(self, topology: Topology) -> None:
        """There is a cluster."""
        if self.topology is None:
            self.topology = topology

    def group(self, group: int) -> GroupLedger:
        """The ledger of *group*."""
        known = self.groups.get(group)
        if known is None:
            assert self.topology is not None
            members = tuple(member.name for member in self.topology.members)
            if group >= group_of(0):
                members = tuple(self.topology.placement.replicas[group - group_of(0)])
            known = self.groups[group] = GroupLedger(members)
        return known

    def group_of_key(self, key: bytes) -> int:
        """The group that *key* belongs to."""
        assert self.topology is not None
        return group_of(partition_of(key, self.topology.settings.partitions))

    # -- the disks ------------------------------------------------------------------------------

    def holders(self, group: int, index: int, term: int) -> list[str]:
        """The voters whose disks are certain to have an entry after a crash."""
        known = self.group(group)
        names = [known.name_of(voter) for voter in known.voters]
        return [name for name in names if self.has(name, group, index, term)]

    def has(self, name: str, group: int, index: int, term: int) -> bool:
        """Whether one disk is certain to."""
        disk = self.disks[name]
        frame = disk.synced.get(entry_key(group, index))
        if frame is not None:
            return logs.read_entry(entry_key(group, index), frame).term == term
        return index <= self.base_index(disk, group)

    def base_index(self, disk: Disk, group: int) -> int:
        """Up to where a disk's log is compacted."""
        key = group_key(BASE, group)
        frame = disk.synced.get(key)
        return -1 if frame is None else logs.read_base(key, frame).index

    def hard_state(self, name: str, group: int) -> Told:
        """The term and vote that are certain to be on a disk after a crash."""
        key = group_key(HARD, group)
        frame = self.disks[name].synced.get(key)
        if frame is None:
            return Told()
        hard = logs.read_hard_state(key, frame)
        return Told(hard.term, hard.vote)

    def is_safe(self, group: int, index: int) -> str | None:
        """What is wrong if the entry at *index* is not on a majority of disks."""
        known = self.group(group)
        entry = known.committed[index]
        held = self.holders(group, index, entry.term)
        if 2 * len(held) > len(known.voters):
            return None
        return f"group {group}: entry {index} of term {entry.term} is on the disks of {held} only"


def state_of(replica: Replica) -> tuple[int, ...]:
    """What a state machine is like, without looking at all of it."""
    machine = replica._state.machine
    return (machine.revision, machine.log_time_ms, machine.key_count, machine.data_bytes)
