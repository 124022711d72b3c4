"""Versions across the keys of a partition."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.history import ABSENT, Kind, Operation
from tests.linearizability.judge import check
from tests.linearizability.revisions import Clash, check_revisions
from tests.linearizability.search import Verdict
from tests.linearizability.written import got, put, unknown


def clashes(*operations: Operation) -> list[Clash]:
    """What is wrong, where a key's first byte says its partition."""
    return check_revisions(operations, lambda key: key[0])


class RevisionTests(SynchronousTestCase):
    """A partition that forgets its count gives versions anew, and compare-and-set takes a new
    record for the old one. On each key alone that may look right."""

    def test_count_that_was_lost(self) -> None:
        """Another key of the partition has a lower version later."""
        first = put("a", (0, 1), b"x", 9, key=b"p1")
        second = put("a", (2, 3), b"y", 4, key=b"p2")
        self.assertIs(check([first, second]).verdict, Verdict.LINEARIZABLE)
        self.assertEqual(clashes(first, second), [Clash(first, second)])

    def test_version_given_twice(self) -> None:
        """Also to writes under way together."""
        first = put("a", (0, 3), b"x", 9, key=b"p1")
        second = put("b", (0, 3), b"y", 9, key=b"p2")
        self.assertEqual(clashes(first, second), [Clash(first, second)])

    def test_what_was_read_counts(self) -> None:
        """A version that a read was told is in the past of what begins after it; a read that comes
        later of an old record is none of this check's business."""
        write = put("a", (0, 9), b"x", 9, key=b"p1")
        read = got("b", (1, 2), 9, b"x", key=b"p1")
        late = put("c", (3, 4), b"y", 5, key=b"p2")
        self.assertEqual(clashes(write, read, late), [Clash(read, late)])
        self.assertEqual(clashes(late, write, got("d", (20, 21), 5, b"y", key=b"p2")), [])

    def test_version_that_was_read_before(self) -> None:
        """Given anew to another key, when nobody was told who made it."""
        read = got("b", (1, 2), 9, b"x", key=b"p1")
        late = put("c", (3, 4), b"y", 9, key=b"p2")
        self.assertEqual(clashes(read, late), [Clash(read, late)])

    def test_right_ones(self) -> None:
        """Growing, or under way together, or of another partition, or not known."""
        self.assertEqual(
            clashes(
                put("a", (0, 1), b"x", 5, key=b"p1"),
                put("a", (2, 5), b"x", 8, key=b"p2"),
                put("b", (3, 4), b"x", 7, key=b"p1"),
                put("b", (5, 6), b"x", 9, key=b"p1"),
                put("a", (7, 8), b"x", 1, key=b"q1"),
                got("a", (9, 10), ABSENT, key=b"p3"),
                unknown("a", Kind.PUT, 9, b"x"),
                put("a", (11, 12), b"x", None, key=b"p4"),
            ),
            [],
        )
