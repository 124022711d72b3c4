"""How long a partition took no write."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.ring import partition_of
from tests.chaos.outages import (
    Condition,
    Outage,
    Span,
    good_times,
    longest,
    without_stalls,
)
from tests.chaos.schedule import CLIENTS, Pair
from tests.linearizability.history import Kind, Operation, Outcome
from tests.linearizability.written import got, put

KEYS = {partition_of(b"key-%d" % number, 2): b"key-%d" % number for number in range(20)}


class OutageTests(SynchronousTestCase):
    """What the report says of availability."""

    def longest(self, history: list[Operation], whole: Span) -> list[Outage]:
        """Of two partitions, at any time."""
        return longest(history, whole, [[whole]] * 2)

    def test_between_answers(self) -> None:
        """From the one answer to the next; not from when somebody asked."""
        history = [
            put("a", (1, 2), b"1", 1, KEYS[0]),
            put("a", (2, 7), b"2", 2, KEYS[0]),
            put("b", (3, 4), b"3", 1, KEYS[1]),
        ]
        self.assertEqual(self.longest(history, (0, 9)), [Outage(0, 2, 5), Outage(1, 4, 5)])

    def test_beginning_and_end(self) -> None:
        """A partition that never takes a write is out all the time."""
        self.assertEqual(self.longest([], (3, 10))[0], Outage(0, 3, 7))

    def test_only_acknowledged_writes(self) -> None:
        """Else reads, or writes that failed, would hide an outage."""
        key = KEYS[0]
        history = [
            got("a", (1, 2), 0, key=key),
            Operation("b", key, Kind.PUT, 3, 4, Outcome.NOT_DONE, value=b"1"),
            Operation("b", key, Kind.PUT, 5, 6, Outcome.UNKNOWN, value=b"2"),
        ]
        self.assertEqual(self.longest(history, (0, 10))[0], Outage(0, 0, 10))

    def test_within_spans(self) -> None:
        """Only the part of an outage counts that is within one; a shorter outage may have more."""
        history = [put("a", (at, at), b"%d" % at, at, KEYS[0]) for at in (1, 7, 11)]
        for spans, outage in (
            ([(2, 4)], Outage(0, 2, 2)),
            ([(2, 4), (3, 6)], Outage(0, 3, 3)),
            ([(0, 2), (6, 20)], Outage(0, 7, 4)),
            ([], Outage(0, 0, 0)),
        ):
            self.assertEqual(longest(history, (0, 12), [spans, []])[0], outage)

    def test_meets(self) -> None:
        """A fault right after an outage has not caused it."""
        outage = Outage(0, 5, 2)
        self.assertTrue(outage.meets(6, 9))
        self.assertTrue(outage.meets(1, 6))
        self.assertFalse(outage.meets(7, 9))
        self.assertFalse(outage.meets(1, 5))


class GoodTimesTests(SynchronousTestCase):
    """R9: when there has to be somebody who leads."""

    def good(self, *conditions: tuple[set[int], set[Pair]]) -> list[Span]:
        """Of replicas at 1, 2, 3; one condition a second."""
        given = [
            Condition(at, frozenset(up), frozenset(cuts))
            for at, (up, cuts) in enumerate(conditions)
        ]
        return sorted(good_times((1, 2, 3), given, len(given)))

    def test_majorities(self) -> None:
        """Two of three, whoever else is there."""
        self.assertEqual(self.good(({1, 2, 3, 4}, set())), [(0, 1)] * 3)
        self.assertEqual(self.good(({1, 3, 5}, set())), [(0, 1)] * 2)
        self.assertEqual(self.good(({1, 4, 5}, set())), [])

    def test_cuts(self) -> None:
        """Both ways are needed to each of a majority; one of them in the middle will do."""
        self.assertEqual(self.good(({1, 2, 3}, {(1, 2), (1, 3)})), [(0, 1)] * 2)
        self.assertEqual(self.good(({1, 2, 3}, {(1, 2), (3, 1)})), [(0, 1)] * 2)
        self.assertEqual(self.good(({1, 2, 3}, {(1, 2), (3, 1), (2, 3)})), [])
        self.assertEqual(self.good(({1, 2}, {(1, 2)})), [])

    def test_clients(self) -> None:
        """Who does not reach them serves nobody."""
        self.assertEqual(self.good(({1, 2}, {(CLIENTS, 1), (2, CLIENTS)})), [])

    def test_the_same_one_all_the_time(self) -> None:
        """A majority that is another one each second has no time to elect anybody."""
        changing = self.good(({1, 2}, set()), ({2, 3}, set()), ({1, 3}, set()))
        self.assertEqual(changing, [(0, 1), (0, 2), (1, 3), (2, 3)])

    def test_without_stalls(self) -> None:
        """Else a machine that stood still would look like a cluster that did."""
        up, fewer = frozenset({1, 2, 3}), frozenset({1, 2})
        whole: frozenset[Pair] = frozenset()
        nobody = Condition(2, frozenset(), whole)
        one, two = Condition(0, up, whole), Condition(5, fewer, whole)
        for stall, told in (
            ((2, 4), [one, nobody, Condition(4, up, whole), two]),
            ((2, 5), [one, nobody, two]),
            ((2, 6), [one, nobody, Condition(6, fewer, whole)]),
        ):
            self.assertEqual(without_stalls([one, two], [stall]), told)
        self.assertEqual(without_stalls([one, two], []), [one, two])
        spans = good_times((1, 2, 3), without_stalls([one, two], [(2, 4)]), 9)
        self.assertEqual(spans, [(0, 2), (4, 9), (0, 2), (4, 9), (0, 2), (4, 5)])
