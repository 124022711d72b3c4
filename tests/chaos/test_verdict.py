"""Histories that are known to be wrong, and what is said of them (X2)."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.chaos.evidence import FILE, read, write
from tests.chaos.verdict import wrong_with
from tests.linearizability.history import Kind, Operation, Outcome
from tests.linearizability.written import added, got, not_swapped, put, removed

COUNTER = [
    added("a", (1, 2), 3, b"3", 1),
    added("b", (2, 3), 4, b"7", 2),
]


class VerdictTests(SynchronousTestCase):
    """Each kind of harm that a user could come to."""

    def test_nothing_wrong(self) -> None:
        """Else nobody would believe the rest."""
        history = [put("a", (1, 2), b"v", 1), got("b", (3, 4), 1, b"v")]
        self.assertEqual(wrong_with(history, 1), [])

    def test_a_lost_write(self) -> None:
        """Promise 1: it was acknowledged, and the last read does not have it."""
        history = [put("a", (1, 2), b"v", 1), got("last", (9, 10), 0)]
        self.assertIn("not linearizable", wrong_with(history, 1)[0])

    def test_a_stale_read(self) -> None:
        """Promise 2: the old value, after the new one was acknowledged."""
        history = [
            put("a", (1, 2), b"v", 1),
            put("a", (3, 4), b"w", 2),
            got("b", (5, 6), 1, b"v"),
        ]
        self.assertIn("not linearizable", wrong_with(history, 1)[0])

    def test_versions_from_key_to_key(self) -> None:
        """A partition that has lost its count may look right on each key."""
        history = [put("a", (1, 2), b"v", 5, b"k1"), put("a", (3, 4), b"w", 5, b"k2")]
        self.assertIn("do not grow, 2 times", wrong_with(history, 1)[0])
        self.assertEqual(len(wrong_with(history, 1)), 1)

    def test_a_counter(self) -> None:
        """C2: an increment that was applied twice, or not at all."""
        for total in (b"3", b"11"):
            history = [*COUNTER, got("last", (4, 5), None, total)]
            wrong = [each for each in wrong_with(history, 1) if "was added" in each]
            self.assertEqual(len(wrong), 1, total)
        self.assertEqual(wrong_with([*COUNTER, got("last", (4, 5), 2, b"7")], 1), [])

    def test_a_counter_with_unknowns(self) -> None:
        """What is unknown may have been added, once."""
        unknown = Operation("c", b"k", Kind.INCREMENT, 2, 3, Outcome.UNKNOWN, amount=5)
        for total, is_right in ((b"7", True), (b"12", True), (b"17", False)):
            version = 2 if total == b"7" else 3
            history = [*COUNTER, unknown, got("last", (4, 5), version, total)]
            self.assertEqual(wrong_with(history, 1) == [], is_right, total)


class EvidenceTests(SynchronousTestCase):
    """A history that is kept."""

    def test_there_and_back(self) -> None:
        """Else a failure could not be judged again, when the checker has changed."""
        history = [
            *COUNTER,
            put("a", (1, 2), b"v", 1),
            got("a", (1, 2.5), 0),
            not_swapped("a", (1, 2), 4, 5, b"w"),
            removed("a", (1, 2), None, 3),
            replace(put("a", (1, 2), b"v", 1), outcome=Outcome.UNKNOWN, answer=None),
        ]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, FILE)
            write(path, history)
            self.assertEqual(read(path), history)
