"""What a node says of the replicas that it holds, for people to see how a cluster is.

Nothing is decided by it. It is read out of the replicas at one moment, between two turns, and costs
nothing while nobody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from kvtwist.core.description import Description, Following, Other
from kvtwist.core.groups import Group, partition_of_group
from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Progress
from kvtwist.node.replica import Replica
from kvtwist.storage.store import Condition, Store

IsHeard = Callable[[str], bool]
"""Whether the member of that name is heard, by whatever group."""


class Page(NamedTuple):
    """Some of the replicas.

    :ivar following: the group to go on from; 0: these were the last.
    """

    descriptions: list[Description]
    following: int


class Standing(NamedTuple):
    """How a node does as a whole.

    :ivar leads: partitions whose group it leads, as far as it knows.
    :ivar held: partitions that it has a replica of.
    :ivar condition: its disk's: ``open``, or what is wrong.
    :ivar trouble: more of that; empty: there is none.
    """

    leads: int
    held: int
    condition: str
    trouble: str


EMPTY = Page([], 0)


def page(
    replicas: Mapping[int, Replica],
    groups: Mapping[int, Group],
    is_heard: IsHeard,
    first: int,
    count: int,
) -> Page:
    """Of the replicas in groups *first* and up, the first *count*, in the order of their groups."""
    there = sorted(group for group in replicas if group >= first)
    told, left = there[:count], there[count:]
    rows = [describe(replicas[group], groups[group], is_heard) for group in told]
    return Page(rows, left[0] if left else 0)


def standing(replicas: Mapping[int, Replica], store: Store) -> Standing:
    """How the node does that holds *replicas*."""
    of_partitions = [
        replica for group, replica in replicas.items() if partition_of_group(group) is not None
    ]
    leads = sum(replica.raft.role is Role.LEADER for replica in of_partitions)
    trouble = "" if store.condition is Condition.OPEN else store.trouble
    return Standing(leads, len(of_partitions), store.condition.value, trouble)


def describe(replica: Replica, group: Group, is_heard: IsHeard) -> Description:
    """One replica."""
    raft = replica.raft
    configuration, progress = raft.configuration, raft.progress()
    others = tuple(
        Other(
            other,
            (member := group.member_of(other) or ""),
            other in configuration.voters,
            _following(progress.get(other), raft.is_quiescent, is_heard(member)),
        )
        for other in configuration.replicas
        if other != raft.replica
    )
    return Description(
        group=group.id,
        partition=partition_of_group(group.id),
        replica=raft.replica,
        role=raft.role,
        term=raft.term,
        leader=raft.leader,
        commit=raft.commit_index,
        applied=replica.applied_index,
        last=raft.last_index,
        compacted=raft.log.compacted_index,
        is_quiescent=raft.is_quiescent,
        is_voter=raft.replica in configuration.voters,
        has_confirmed=raft.log.term_at(raft.commit_index) == raft.term,
        key_count=replica.key_count,
        data_bytes=replica.data_bytes,
        others=others,
    )


def _following(
    progress: Progress | None, is_quiescent: bool, is_node_heard: bool
) -> Following | None:
    """A group that has fallen silent hears nobody, and one that was woken just now takes all for
    heard: so the node counts as well."""
    if progress is None:
        return None
    is_heard = is_node_heard and (is_quiescent or progress.is_heard)
    return Following(progress.match, is_heard, progress.sending, progress.pending_snapshot_index)
