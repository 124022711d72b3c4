"""Descriptions of replicas as the answer to `kvtwist.wire.commands.DescribeReplicas`, and back.

The columns are as the command's docstring has them. A number that a later release may add to a
column (a role, a way of sending) is an error here: what is not understood is not to be guessed at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from kvtwist.core.description import Description, Following, Other
from kvtwist.core.raft import Role
from kvtwist.core.raft.progress import Sending
from kvtwist.wire.connection import Arguments

ROLES = (Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER)
SENDINGS = (Sending.PROBE, Sending.REPLICATE, Sending.SNAPSHOT)

_QUIESCENT, _VOTER, _CONFIRMED = 1, 2, 4
_OTHER_VOTER, _FOLLOWED, _HEARD = 1, 2, 4

_FIRST_TABLE = (
    "groups",
    "group_partitions",
    "replica_ids",
    "roles",
    "terms",
    "leader_ids",
    "commit_indexes",
    "applied_indexes",
    "last_indexes",
    "compacted_indexes",
    "replica_flags",
    "key_counts",
    "byte_counts",
)
_SECOND_TABLE = (
    "other_rows",
    "other_ids",
    "other_members",
    "other_flags",
    "match_indexes",
    "sendings",
    "snapshot_indexes",
)

_Row = tuple[int, ...]
_Thing = TypeVar("_Thing")


def write_descriptions(
    descriptions: Sequence[Description], following: int, members: Sequence[str]
) -> Arguments:
    """As an answer.

    :param following: the group to go on from; 0: these were the last.
    :param members: the names of the topology's.
    """
    indexes = {name: at for at, name in enumerate(members, start=1)}
    others = [
        _other_row(at, other, indexes)
        for at, each in enumerate(descriptions)
        for other in each.others
    ]
    return {
        "following": following,
        **_columns(_FIRST_TABLE, [*map(_row, descriptions)]),
        **_columns(_SECOND_TABLE, others),
    }


def read_descriptions(answer: Arguments, members: Sequence[str]) -> list[Description]:
    """From an answer.

    :param members: the names of the topology's.
    :raises ValueError: when it contradicts itself, or says what this release does not know.
    """
    rows = [*_rows(_FIRST_TABLE, answer)]
    others: list[list[Other]] = [[] for _ in rows]
    for at, *row in _rows(_SECOND_TABLE, answer):
        if at >= len(rows):
            raise ValueError("a replica is described that is in no group")
        others[at].append(_other(row, members))
    return [_description(row, tuple(them)) for row, them in zip(rows, others, strict=True)]


def _columns(names: Sequence[str], rows: Sequence[_Row]) -> Arguments:
    columns = zip(*rows, strict=True) if rows else ([] for _ in names)
    return dict(zip(names, columns, strict=True))


def _rows(names: Sequence[str], answer: Arguments) -> Iterator[_Row]:
    """:raises ValueError: when the columns differ in length."""
    return zip(*(answer[name] for name in names), strict=True)


def _row(said: Description) -> _Row:
    flags = (
        _QUIESCENT * said.is_quiescent | _VOTER * said.is_voter | _CONFIRMED * said.has_confirmed
    )
    return (
        said.group,
        0 if said.partition is None else said.partition + 1,
        said.replica,
        ROLES.index(said.role),
        said.term,
        said.leader,
        said.commit,
        said.applied,
        said.last,
        said.compacted,
        flags,
        said.key_count,
        said.data_bytes,
    )


def _other_row(at: int, other: Other, indexes: dict[str, int]) -> _Row:
    known = other.following
    head = (at, other.replica, indexes.get(other.member, 0))
    if known is None:
        return (*head, _OTHER_VOTER * other.is_voter, 0, 0, 0)
    flags = _OTHER_VOTER * other.is_voter | _FOLLOWED | _HEARD * known.is_heard
    return (*head, flags, known.match, SENDINGS.index(known.sending), known.snapshot_index)


def _description(row: _Row, others: tuple[Other, ...]) -> Description:
    group, partition, replica, role, term, leader, commit, applied, last, compacted = row[:10]
    flags, key_count, data_bytes = row[10:]
    return Description(
        group=group,
        partition=partition - 1 if partition else None,
        replica=replica,
        role=_known(ROLES, role),
        term=term,
        leader=leader,
        commit=commit,
        applied=applied,
        last=last,
        compacted=compacted,
        is_quiescent=bool(flags & _QUIESCENT),
        is_voter=bool(flags & _VOTER),
        has_confirmed=bool(flags & _CONFIRMED),
        key_count=key_count,
        data_bytes=data_bytes,
        others=others,
    )


def _other(row: Sequence[int], members: Sequence[str]) -> Other:
    replica, member, flags, match, sending, snapshot_index = row
    name = _known(members, member - 1) if member else ""
    following = (
        Following(match, bool(flags & _HEARD), _known(SENDINGS, sending), snapshot_index)
        if flags & _FOLLOWED
        else None
    )
    return Other(replica, name, bool(flags & _OTHER_VOTER), following)


def _known(things: Sequence[_Thing], at: int) -> _Thing:
    if at >= len(things):
        raise ValueError(f"{at} stands for nothing that this release knows")
    return things[at]
