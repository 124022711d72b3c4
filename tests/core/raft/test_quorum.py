"""Majorities, against the definitions written down naively."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, product

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft.quorum import Election, election, majority, reached_by_majority

SIZES = range(1, 8)


def sets_of(size: int, voters: int) -> Iterator[frozenset[int]]:
    """All sets of *size* of so many voters."""
    return map(frozenset, combinations(range(voters), size))


def all_meet(size: int, voters: int) -> bool:
    """Whether any two sets of this size have a voter in common."""
    return all(one & other for one, other in product(list(sets_of(size, voters)), repeat=2))


def naive_majority(voters: int) -> int:
    """The smallest number that is a quorum."""
    return next(size for size in range(1, voters + 1) if all_meet(size, voters))


def naive_reached(reached: tuple[int, ...]) -> int:
    """The highest number that all of some quorum have reached."""
    quorum = len(reached) // 2 + 1
    return max(min(reached[voter] for voter in chosen) for chosen in sets_of(quorum, len(reached)))


def naive_election(votes: tuple[bool | None, ...]) -> Election:
    """Won when nothing can prevent it any more, lost when nothing can bring it about."""
    heard = [[vote] if vote is not None else [True, False] for vote in votes]
    results = {sum(outcome) * 2 > len(votes) for outcome in product(*heard)}
    if len(results) == 2:
        return Election.UNDECIDED
    return Election.WON if results.pop() else Election.LOST


class QuorumTests(SynchronousTestCase):
    """Were a majority one too small, two leaders would be elected in one term."""

    def test_majority(self) -> None:
        """The least number of which any two choices share a voter."""
        for voters in SIZES:
            self.assertEqual(majority(voters), naive_majority(voters), voters)

    def test_nobody(self) -> None:
        """No voters decide nothing, in none of the three questions."""
        self.assertRaises(ValueError, majority, 0)
        self.assertRaises(ValueError, reached_by_majority, [])
        self.assertRaises(ValueError, election, (), {})

    def test_reached(self) -> None:
        """Every row of up to seven voters: else what a minority has would count as committed."""
        for voters in SIZES:
            for reached in product(range(4 if voters < 7 else 3), repeat=voters):
                self.assertEqual(reached_by_majority(reached), naive_reached(reached), reached)

    def test_reached_by_large_numbers(self) -> None:
        """Indexes far apart, in any order."""
        self.assertEqual(reached_by_majority([1 << 63, 0, 17]), 17)
        self.assertEqual(reached_by_majority([0, 17, 1 << 63, 0]), 0)

    def test_election(self) -> None:
        """Every way in which up to seven voters may have voted so far."""
        for voters in SIZES:
            for votes in product((True, False, None), repeat=voters):
                said = {voter: vote for voter, vote in enumerate(votes) if vote is not None}
                self.assertIs(election(range(voters), said), naive_election(votes), votes)

    def test_strangers(self) -> None:
        """Votes of a learner, or of one that was removed, decide nothing."""
        strangers = dict.fromkeys(range(10, 20), True)
        self.assertIs(election((1, 2, 3), {1: True, **strangers}), Election.UNDECIDED)
        strangers = dict.fromkeys(range(10, 20), False)
        self.assertIs(election((1, 2, 3), {1: True, **strangers}), Election.UNDECIDED)
