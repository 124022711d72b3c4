"""Marks of how far a node has been: a store that has gone back is noticed (S7)."""

from __future__ import annotations

import stat
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import ClassVar

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import StoreDamaged, StoreFailed
from kvtwist.storage.marks import Mark, Marks, behind


class MarksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.top = Path(tempfile.mkdtemp(prefix="kvtwist-test-"))
        self.addCleanup(rmtree, self.top)
        self.path = self.top / "marks"

    def opened(self) -> Marks:
        marks = Marks(self.path)
        self.addCleanup(marks.close)
        return marks

    def filled(self) -> bytes:
        """The bytes of a file with marks of two groups, one of them raised twice."""
        marks = self.opened()
        marks.raise_to({1: Mark(3, 2, 10), 2: Mark(1, 1, 5)})
        marks.raise_to({1: Mark(4, 0, 12)})
        return self.path.read_bytes()

    def test_they_are_there_again(self) -> None:
        """The latest of each group, also after a kill: nothing is closed here."""
        self.filled()
        expected = {1: Mark(4, 0, 12), 2: Mark(1, 1, 5)}
        self.assertEqual(self.opened().known, expected)
        self.assertEqual(self.opened().known, expected)

    def test_the_file_does_not_grow_for_ever(self) -> None:
        """Each start writes one record a group."""
        marks = self.opened()
        for term in range(1, 200):
            marks.raise_to({1: Mark(term, 0, 0)})
        before = self.path.stat().st_size
        self.opened()
        self.assertLess(self.path.stat().st_size, before / 50)

    def test_a_torn_record_at_the_end_is_a_crash(self) -> None:
        """It was never relied upon: nothing is sent before its sync."""
        whole = self.filled()
        for cut in range(1, 36):
            self.path.write_bytes(whole[:-cut])
            self.assertEqual(self.opened().known[1], Mark(3, 2, 10))

    def test_other_damage_is_damage(self) -> None:
        """A mark that is lost in the middle must not make an old store look new."""
        whole = bytearray(self.filled())
        whole[30] ^= 1
        self.path.write_bytes(whole)
        error = self.assertRaises(StoreDamaged, Marks, self.path)
        self.assertIn(str(self.path), str(error))

    def test_another_file_is_not_read_as_marks(self) -> None:
        """Nor is one of a later release."""
        self.path.write_bytes(b"kvtwist marks 2\n")
        self.assertRaises(StoreDamaged, Marks, self.path)

    def test_a_directory_that_is_not_there(self) -> None:
        """One line, with the path."""
        error = self.assertRaises(StoreFailed, Marks, self.top / "absent" / "marks")
        self.assertIn("absent", str(error))

    def test_it_is_for_nobody_else(self) -> None:
        """As everything in the data directory."""
        self.filled()
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)


class BehindTests(SynchronousTestCase):
    known: ClassVar = {7: Mark(term=4, vote=2, committed=10)}

    def check(self, stored: Mark, expected: bool) -> None:
        self.assertEqual(behind(self.known, {7: stored}), [7] if expected else [])

    def test_as_it_was_or_further(self) -> None:
        """What a store should be."""
        self.check(Mark(4, 2, 10), False)
        self.check(Mark(4, 2, 99), False)
        self.check(Mark(5, 0, 10), False)
        self.check(Mark(5, 3, 10), False)

    def test_what_a_store_may_have_forgotten(self) -> None:
        """Each of these lets a replica vote twice, or lose what others count on."""
        self.check(Mark(3, 2, 10), True)
        self.check(Mark(4, 0, 10), True)
        self.check(Mark(4, 3, 10), True)
        self.check(Mark(4, 2, 9), True)
        self.check(Mark(5, 0, 9), True)

    def test_a_group_that_is_gone(self) -> None:
        """An empty store under an old file of marks is the worst of them."""
        self.assertEqual(behind(self.known, {}), [7])

    def test_no_vote_needs_no_vote(self) -> None:
        """A mark made before the vote of the same term forbids nothing."""
        self.assertEqual(behind({1: Mark(4, 0, 0)}, {1: Mark(4, 3, 0)}), [])
