"""Majorities: how many, how far, and who has won.

The arithmetic of the whole package stands here, apart from what uses it, so that it can be held
against a second, naive implementation.

Source: D. Ongaro, J. Ousterhout, "In Search of an Understandable Consensus Algorithm", 2014
("the paper"), sections 5.2 and 5.3.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from enum import Enum


class Election(Enum):
    """How an election stands."""

    WON = "won"
    LOST = "lost"
    UNDECIDED = "undecided"


def majority(voters: int) -> int:
    """How many of so many voters are more than half.

    :raises ValueError: when there are none: nothing can be decided by nobody.
    """
    if voters < 1:
        raise ValueError("a majority needs at least one voter")
    return voters // 2 + 1


def reached_by_majority(reached: Iterable[int]) -> int:
    """The highest number that more than half have reached; one number for each voter.

    Used for log indexes ("matchIndex[i] >= N for a majority of i") and for rounds of heartbeats.

    :raises ValueError: when there are no voters.
    """
    ordered = sorted(reached)
    return ordered[len(ordered) - majority(len(ordered))]


def election(voters: Collection[int], votes: Mapping[int, bool]) -> Election:
    """How an election stands; votes of anybody else are not counted.

    :param votes: what the voters heard so far have said.
    :raises ValueError: when there are no voters.
    """
    needed = majority(len(voters))
    granted = sum(votes.get(voter) is True for voter in voters)
    if granted >= needed:
        return Election.WON
    refused = sum(votes.get(voter) is False for voter in voters)
    return Election.LOST if len(voters) - refused < needed else Election.UNDECIDED
