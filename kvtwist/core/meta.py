"""The topology as the meta group holds it: one record, under one key, and its bytes.

In: a topology. Out: a `TopologyRecord`, with all that has been allocated in the cluster so far;
its bytes; and back. What it holds beside the map itself is what nobody may work out again once the
cluster has changed: group and replica ids, which are allocated once and never used a second time
(R11), and the *cluster version*, which says what the members may write.

**The format** is JSON with sorted keys and no spaces, so that one record has one encoding. It says
its ``format``; another one than is known here was written by a later release, and is refused
rather than guessed at. The record's version in the group's state machine is the topology's epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kvtwist.core.address import parse_address
from kvtwist.core.founding import FoundingRecord
from kvtwist.core.groups import FIRST_GENERATION, groups_of, partition_of_group
from kvtwist.core.topology import Member, Settings, Topology
from kvtwist.errors import ConfigurationError

TOPOLOGY_KEY = b"topology"
CLUSTER_VERSION = 1
"""What this release can write and read of everything that is kept and sent: log entries, records,
snapshots. A cluster's is the least that all its members can, and is raised when all can more."""
ACTIVE = "active"
"""The state of a member that takes part in everything: in this release all do."""

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group, as it is wanted; what it is, its own configuration says.

    :ivar partition: what it is for; ``None``: it is the meta group.
    :ivar generation: of its membership.
    :ivar replicas: replica id -> the member that has it.
    :ivar learners: those of them that are no voters.
    :ivar next_replica: the id of the next replica that it gets.
    """

    id: int
    partition: int | None
    generation: int
    replicas: tuple[tuple[int, str], ...]
    learners: tuple[int, ...]
    next_replica: int


@dataclass(frozen=True, slots=True)
class TopologyRecord:
    """The cluster.

    :ivar cluster_version: see `CLUSTER_VERSION`.
    :ivar founding: what the cluster began as; its hash is the cluster's id.
    :ivar members: each with its state.
    :ivar replicas_wanted: in force are as many as there are members, at most.
    :ivar groups: by id, the lowest first.
    :ivar next_group: the id of the next group.
    """

    cluster_version: int
    founding: FoundingRecord
    members: tuple[tuple[Member, str], ...]
    replicas_wanted: int
    groups: tuple[GroupRecord, ...]
    next_group: int


def first_record(topology: Topology) -> TopologyRecord:
    """The record of a cluster that has just been founded: all founders come to the same."""
    groups = groups_of(topology)
    return TopologyRecord(
        CLUSTER_VERSION,
        FoundingRecord(topology.members, topology.settings),
        tuple((member, ACTIVE) for member in topology.members),
        topology.settings.replicas,
        tuple(
            GroupRecord(
                id,
                partition_of_group(id),
                FIRST_GENERATION,
                tuple(enumerate(group.members, start=1)),
                group.configuration.learners,
                len(group.members) + 1,
            )
            for id, group in sorted(groups.items())
        ),
        max(groups) + 1,
    )


def objection(mine: TopologyRecord, kept: TopologyRecord) -> str:
    """Why a node that works by *mine* may not go on in a cluster that has *kept*; empty: it may.

    Addresses are not looked at: they change without anything being another's.
    """
    if kept.cluster_version > CLUSTER_VERSION:
        return (
            f"the cluster is of version {kept.cluster_version}, and this release knows "
            f"{CLUSTER_VERSION}: use a later kvtwist"
        )
    for what, ours, theirs in (
        ("cluster id", mine.founding.cluster_id, kept.founding.cluster_id),
        ("members", _who(mine), _who(kept)),
        ("replicas wanted", mine.replicas_wanted, kept.replicas_wanted),
        ("groups", (mine.groups, mine.next_group), (kept.groups, kept.next_group)),
    ):
        if ours != theirs:
            return (
                f"the cluster's topology has other {what} than this node works by: it would act on "
                "another map; use the kvtwist that the other nodes run"
            )
    return ""


def _who(record: TopologyRecord) -> tuple[tuple[str, str, str], ...]:
    return tuple((member.name, member.identity, state) for member, state in record.members)


# -- bytes ----------------------------------------------------------------------------------------


def encode(record: TopologyRecord) -> bytes:
    """The record's bytes."""
    said = {
        "format": _FORMAT,
        "cluster_version": record.cluster_version,
        "founding": {
            "members": [_said(member) for member in record.founding.members],
            "settings": asdict(record.founding.settings),
        },
        "members": [[*_said(member), state] for member, state in record.members],
        "replicas_wanted": record.replicas_wanted,
        "groups": [
            [
                each.id,
                each.partition,
                each.generation,
                [list(replica) for replica in each.replicas],
                list(each.learners),
                each.next_replica,
            ]
            for each in record.groups
        ],
        "next_group": record.next_group,
    }
    return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()


def decode(data: bytes) -> TopologyRecord:
    """The record of these bytes.

    :raises ConfigurationError: when a later release wrote them, or they are no record.
    """
    try:
        said: Mapping[str, Any] = json.loads(data)
        if said["format"] != _FORMAT:
            raise ConfigurationError(
                f"the cluster's topology is of format {said['format']}, and this release knows "
                f"{_FORMAT}: use a later kvtwist"
            )
        founding = said["founding"]
        return TopologyRecord(
            said["cluster_version"],
            FoundingRecord(
                tuple(_member(*each) for each in founding["members"]),
                Settings(**founding["settings"]),
            ),
            tuple((_member(*each[:3]), each[3]) for each in said["members"]),
            said["replicas_wanted"],
            tuple(_group(*each) for each in said["groups"]),
            said["next_group"],
        )
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ConfigurationError(f"the cluster's topology cannot be read: {error}") from error


def _said(member: Member) -> list[str]:
    return [member.name, member.identity, str(member.address)]


def _member(name: str, identity: str, address: str) -> Member:
    return Member(name, identity, parse_address(address))


def _group(
    id: int,
    partition: int | None,
    generation: int,
    replicas: list[list[Any]],
    learners: list[int],
    next_replica: int,
) -> GroupRecord:
    rows = tuple((replica, name) for replica, name in replicas)
    return GroupRecord(id, partition, generation, rows, tuple(learners), next_replica)
