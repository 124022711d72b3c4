"""Which Raft groups a cluster begins with, and who is who in them.

In: a topology. Out: the groups, each with its replicas. At the founding ids are a function of the
placement, so that all founders agree on them without a word: a partition's group is its number
beyond `FIRST_PARTITION_GROUP`, and its replicas count from 1 in the order of its row. Ids allocated
later are never one of these again.

A replica id belongs to one member, and to one disk: who it is in a message is checked against this.

**The meta group** (`META`) holds the topology. Its voters are the first five members by name, three
when there are fewer than five, all when there are three or fewer; the others are learners.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kvtwist.core.raft.configuration import Configuration
from kvtwist.core.topology import Topology

META: Final = 1
FIRST_PARTITION_GROUP: Final = 2
FIRST_GENERATION: Final = 1
"""Of a partition's membership."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group, as it was founded.

    :ivar members: the names of those who have a replica; the first one has replica 1, and so on.
    :ivar voter_count: how many of them, from the first, are voters; the others are learners.
    """

    id: int
    members: tuple[str, ...]
    voter_count: int
    _replicas: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        replicas = {name: replica for replica, name in enumerate(self.members, start=1)}
        object.__setattr__(self, "_replicas", replicas)

    @property
    def configuration(self) -> Configuration:
        """The one that it begins with."""
        ids = tuple(range(1, len(self.members) + 1))
        return Configuration(ids[: self.voter_count], ids[self.voter_count :])

    @property
    def owner(self) -> str:
        """Who leads it, if nothing is in the way."""
        return self.members[0]

    def replica_of(self, member: str) -> int | None:
        """The id of *member*'s replica; ``None``: it has none."""
        return self._replicas.get(member)

    def member_of(self, replica: int) -> str | None:
        """Whose replica that is; ``None``: nobody's."""
        return self.members[replica - 1] if 1 <= replica <= len(self.members) else None


def group_of(partition: int) -> int:
    """The group that a partition is at the founding."""
    return partition + FIRST_PARTITION_GROUP


def partition_of_group(group: int) -> int | None:
    """The partition that a group of the founding is; ``None``: the meta group."""
    return group - FIRST_PARTITION_GROUP if group >= FIRST_PARTITION_GROUP else None


def meta_group(topology: Topology) -> Group:
    """The meta group."""
    names = tuple(member.name for member in topology.members)  # sorted by name
    count = len(names)
    return Group(META, names, 5 if count >= 5 else min(count, 3))


def groups_of(topology: Topology) -> dict[int, Group]:
    """All groups, by id."""
    rows = topology.placement.replicas
    groups = [meta_group(topology)]
    groups += [Group(group_of(number), row, len(row)) for number, row in enumerate(rows)]
    return {group.id: group for group in groups}
