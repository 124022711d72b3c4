"""Who is in a group: its configuration, and the changes to it, one replica at a time.

A configuration is part of the log: the latest one in a replica's log is in force there from the
moment it is appended, committed or not, and is out of force again if its entry is truncated
(dissertation, 4.1). Two configurations that differ in one voter have no two disjoint majorities, so
one change at a time is safe, as long as none begins before the leader has committed an entry of its
own term (D. Ongaro, "bug in single-server membership changes", raft-dev, 2015; R10).

A learner is made a voter only when its log is close. Nothing is left to be checked when such an
entry is applied (R10 asks for that): it holds the whole configuration, which was in force before.

Source: D. Ongaro, "Consensus: Bridging Theory and Practice", 2014 ("the dissertation"), chapter 4.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeAlias

_VERSION: Final = 1
_HEAD: Final = struct.Struct(">BHH")
REPLICAS_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Configuration:
    """The replicas of a group, by their ids.

    :ivar voters: those whose votes and acknowledgements count; sorted.
    :ivar learners: those who only receive the log; sorted.

    **Invariant:** nobody is both, nobody stands twice, an id is at least 1.
    """

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        everybody = self.voters + self.learners
        if len(set(everybody)) != len(everybody):
            raise ValueError(f"a replica stands twice in {self}")
        if any(replica < 1 for replica in everybody):
            raise ValueError(f"replica ids are at least 1: {self}")
        for ids in (self.voters, self.learners):
            if list(ids) != sorted(ids):
                raise ValueError(f"the ids are not sorted: {self}")
        if len(everybody) > REPLICAS_MAX:
            raise ValueError(f"a group has at most {REPLICAS_MAX} replicas")

    @property
    def replicas(self) -> tuple[int, ...]:
        """Voters and learners."""
        return self.voters + self.learners

    def encode(self) -> bytes:
        """As the data of a log entry."""
        ids = self.replicas
        head = _HEAD.pack(_VERSION, len(self.voters), len(self.learners))
        return head + struct.pack(f">{len(ids)}Q", *ids)

    @classmethod
    def decode(cls, data: bytes) -> Configuration:
        """From the data of a log entry.

        :raises ValueError: when it is no configuration, or one of a later format.
        """
        if len(data) < _HEAD.size:
            raise ValueError("the configuration is cut off")
        version, voters, learners = _HEAD.unpack_from(data)
        if version != _VERSION:
            raise ValueError(f"configuration of format {version}: only {_VERSION} is known")
        if len(data) != _HEAD.size + 8 * (voters + learners):
            raise ValueError("the configuration has another length than it says")
        ids = struct.unpack_from(f">{voters + learners}Q", data, _HEAD.size)
        return cls(ids[:voters], ids[voters:])


@dataclass(frozen=True, slots=True)
class AddLearner:
    """Have *replica* receive the log. Every new replica starts so (R10)."""

    replica: int


@dataclass(frozen=True, slots=True)
class Promote:
    """Make the learner *replica* a voter."""

    replica: int


@dataclass(frozen=True, slots=True)
class Demote:
    """Make the voter *replica* a learner."""

    replica: int


@dataclass(frozen=True, slots=True)
class Remove:
    """Take *replica* out, voter or learner. Its id is never used again (R11)."""

    replica: int


Change: TypeAlias = AddLearner | Promote | Demote | Remove


def changed(configuration: Configuration, change: Change) -> Configuration | None:
    """The configuration after *change*; ``None`` if the change makes no sense there.

    That is: to add a replica that is there, promote what is no learner, demote what is no voter,
    remove who is not there, or take away the last voter.
    """
    voters, learners = set(configuration.voters), set(configuration.learners)
    replica = change.replica
    was_voter, was_learner = replica in voters, replica in learners
    voters.discard(replica)
    learners.discard(replica)
    match change:
        case AddLearner():
            possible = not was_voter and not was_learner and replica >= 1
            learners.add(replica)
        case Promote():
            possible = was_learner
            voters.add(replica)
        case Demote():
            possible = was_voter
            learners.add(replica)
        case Remove():
            possible = was_voter or was_learner
    if not possible or not voters or len(voters) + len(learners) > REPLICAS_MAX:
        return None
    return Configuration(tuple(sorted(voters)), tuple(sorted(learners)))
