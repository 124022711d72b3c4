"""The log of one replica: what may be added, cut off, forgotten and replaced."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft import Configuration, Entry, EntryKind
from kvtwist.core.raft.log import ENTRY_OVERHEAD_BYTES, Log
from tests.core.raft.group import log_of

quickly = settings(deadline=None, max_examples=150)

ONE, TWO, THREE = (Configuration(tuple(range(1, size + 1))) for size in (1, 2, 3))


def terms(log: Log) -> list[int]:
    """Of all entries that are here."""
    return [entry.term for entry in log.entries(log.first_index, log.last_index)]


def configuration(index: int, term: int, content: Configuration) -> Entry:
    """An entry."""
    return Entry(index, term, EntryKind.CONFIGURATION, content.encode())


def compacted(at: int, term: int, *more: int) -> Log:
    """A log whose entries up to *at* are gone."""
    return Log(ONE, at, term, log_of(*more, first=at + 1))


class QueryTests(SynchronousTestCase):
    """What there is."""

    def test_empty(self) -> None:
        """Nothing was ever in it."""
        log = Log(ONE)
        self.assertEqual((log.first_index, log.last_index, log.last_term), (1, 0, 0))
        self.assertEqual(log.term_at(0), 0)
        self.assertIsNone(log.term_at(1))
        self.assertFalse(log.has_unwritten)

    def test_compacted(self) -> None:
        """The place of the compaction has a term still, but no entry."""
        log = compacted(5, 2, 2, 3)
        self.assertEqual((log.first_index, log.last_index, log.last_term), (6, 7, 3))
        self.assertEqual([log.term_at(index) for index in (4, 5, 6, 7, 8)], [None, 2, 2, 3, None])
        self.assertRaises(IndexError, log.entries, 5, 6)
        self.assertRaises(IndexError, log.entries, 6, 8)
        self.assertEqual(log.entries(7, 6), ())

    def test_all_compacted(self) -> None:
        """The term of the last entry outlives it: elections compare it."""
        log = compacted(5, 2)
        self.assertEqual((log.first_index, log.last_index, log.last_term), (6, 5, 2))

    def test_bytes_max(self) -> None:
        """At the limit, one below, one above; the first entry always comes."""
        log = Log(ONE, entries=tuple(Entry(index, 1, data=b"1234") for index in (1, 2, 3)))
        size = ENTRY_OVERHEAD_BYTES + 4
        for bytes_max, count in (
            (1, 1),
            (size, 1),
            (2 * size - 1, 1),
            (2 * size, 2),
            (2 * size + 1, 2),
            (3 * size - 1, 2),
            (3 * size, 3),
            (None, 3),
        ):
            self.assertEqual(len(log.entries(1, 3, bytes_max)), count, bytes_max)

    def test_up_to_date(self) -> None:
        """The later last term wins, then the longer log (paper, 5.4.1)."""
        log = Log(ONE, entries=log_of(1, 2, 2))
        for index, term, better in (
            (3, 2, True),
            (4, 2, True),
            (2, 2, False),
            (1, 3, True),
            (9, 1, False),
        ):
            self.assertIs(log.is_up_to_date(index, term), better, (index, term))

    def test_contradictions(self) -> None:
        """A disk that has gaps, or terms that fall, is not believed."""
        for entries in (log_of(2, 1), log_of(1, first=2), log_of(1) + log_of(1)):
            self.assertRaises(ValueError, Log, ONE, 0, 0, entries)
        self.assertRaises(ValueError, Log, ONE, 3, 5, log_of(4, first=4))


class MergeTests(SynchronousTestCase):
    """Figure 2, "AppendEntries RPC", 3 and 4."""

    def test_conflict(self) -> None:
        """From the first conflict on, the leader's entries replace what was here."""
        log = Log(ONE, entries=log_of(1, 1, 1, 1))
        log.merge(log_of(1, 2, first=2))
        self.assertEqual(terms(log), [1, 1, 2])
        self.assertEqual(log.durable_index, 2)
        self.assertEqual(log.take_unwritten(1), log_of(2, first=3))

    def test_no_conflict(self) -> None:
        """R12: an old message, whose entries are here, cuts off nothing that came since."""
        log = Log(ONE, entries=log_of(1, 1, 2, 2))
        log.merge(log_of(1, 2, first=2))
        self.assertEqual(terms(log), [1, 1, 2, 2])
        self.assertEqual(log.durable_index, 4)
        self.assertFalse(log.has_unwritten)

    def test_what_is_compacted_stays(self) -> None:
        """A message may reach back before the compaction."""
        log = compacted(3, 1, 1)
        log.merge(log_of(1, 1, 1, 1, 2, first=1))
        self.assertEqual(terms(log), [1, 2])

    def test_committed_entries_are_never_cut_off(self) -> None:
        """No replica keeps Raft's promises and asks for that: stop rather than obey."""
        log = Log(ONE, entries=log_of(1, 1))
        log.commit(2)
        self.assertRaises(AssertionError, log.merge, log_of(2, first=2))
        self.assertEqual(terms(log), [1, 1])

    @quickly
    @given(st.data())
    def test_any_messages_of_one_leader(self, data: st.DataObject) -> None:
        """In any order, repeated: what has come stays, and at the end all is there."""
        shared = sorted(data.draw(st.lists(st.integers(1, 3), max_size=3)))
        tails = [st.lists(st.sampled_from(of), max_size=4).map(sorted) for of in ((3, 5), (4, 6))]
        # What has the same index and term has the same entries before it (Log Matching).
        theirs, mine = (log_of(*shared, *data.draw(tail)) for tail in tails)
        log = Log(ONE, entries=mine)
        piece_of = st.tuples(st.integers(0, 6), st.integers(0, 6))
        pieces = [(0, len(theirs)), *data.draw(st.lists(piece_of, max_size=6))]
        reached = 0
        for first, count in data.draw(st.permutations(pieces)):
            if first <= len(theirs) and log.has(first, theirs[first - 1].term if first else 0):
                piece = theirs[first : first + count]
                log.merge(piece)
                reached = max([reached, *(entry.index for entry in piece)])
                self.assertEqual(log.entries(1, reached), theirs[:reached])
        self.assertEqual(log.entries(1, len(theirs)), theirs)


class CommitTests(SynchronousTestCase):
    """How far it is known to be committed, and applied."""

    def test_never_falls(self) -> None:
        """R12: an old message tells an old commit index."""
        log = Log(ONE, entries=log_of(1, 1, 1))
        self.assertTrue(log.commit(2))
        self.assertFalse(log.commit(2))
        self.assertFalse(log.commit(1))
        self.assertEqual(log.commit_index, 2)

    def test_not_past_the_end(self) -> None:
        """What is not here is not committed here."""
        self.assertRaises(AssertionError, Log(ONE, entries=log_of(1)).commit, 2)

    def test_appliable(self) -> None:
        """Committed and durable; each entry once, in order, and as many as fit."""
        log = Log(ONE)
        log.append(log_of(1, 1, 1))
        log.commit(2)
        log.take_unwritten(1)
        self.assertEqual(log.take_appliable(1), ())
        log.written(1)
        self.assertEqual(log.take_appliable(1), log_of(1))
        self.assertEqual(log.take_appliable(1 << 20), log_of(1, first=2))
        self.assertEqual(log.take_appliable(1 << 20), ())
        self.assertEqual(log.applying_index, 2)


class CompactTests(SynchronousTestCase):
    """Forgetting what is applied."""

    def test_forget(self) -> None:
        """The rest stays as it was."""
        log = Log(ONE, entries=log_of(1, 1, 2, 2))
        log.commit(3)
        log.take_appliable(1 << 20)
        log.compact(2)
        self.assertEqual((log.compacted_index, log.compacted_term, terms(log)), (2, 1, [2, 2]))
        log.compact(1)
        self.assertEqual(log.compacted_index, 2)
        log.compact(3)
        self.assertEqual((log.compacted_term, terms(log)), (2, [2]))

    def test_not_what_is_not_applied(self) -> None:
        """Else it would be in no snapshot and in no log."""
        log = Log(ONE, entries=log_of(1, 1))
        log.commit(2)
        self.assertRaises(AssertionError, log.compact, 1)

    def test_what_was_not_written_is_still_to_be(self) -> None:
        """Compaction leaves the writes under way as they are."""
        log = Log(ONE, entries=log_of(1, 1))
        log.commit(2)
        log.take_appliable(1 << 20)
        log.append(log_of(1, first=3))
        log.take_unwritten(1)
        log.append(log_of(1, first=4))
        log.compact(2)
        self.assertEqual(log.take_unwritten(2), log_of(1, first=4))
        log.written(1)
        self.assertEqual(log.durable_index, 3)


class ReplaceTests(SynchronousTestCase):
    """A snapshot in place of the log."""

    def test_everything_is_replaced(self) -> None:
        """Log, commit index, configuration."""
        log = Log(ONE, entries=log_of(1, 1))
        log.replace(7, 3, TWO)
        self.assertEqual((log.first_index, log.last_index, log.last_term), (8, 7, 3))
        self.assertEqual((log.commit_index, log.applying_index, log.durable_index), (7, 7, 0))
        self.assertEqual(log.configuration, TWO)
        self.assertTrue(log.has_unwritten)

    def test_durable_with_its_write(self) -> None:
        """Not with a write that began before it; entries after it are in the same write."""
        log = Log(ONE)
        log.append(log_of(1, 1))
        log.take_unwritten(1)
        log.replace(7, 3, TWO)
        log.written(1)
        self.assertEqual(log.durable_index, 0)
        log.append(log_of(3, first=8))
        self.assertEqual(log.take_unwritten(2), log_of(3, first=8))
        self.assertFalse(log.has_unwritten)
        log.written(2)
        self.assertEqual(log.durable_index, 8)

    def test_earlier_write_while_it_is_under_way(self) -> None:
        """The older write's entries are about to go: they do not count."""
        log = Log(ONE)
        log.append(log_of(1, 1))
        log.take_unwritten(1)
        log.replace(7, 3, TWO)
        log.take_unwritten(2)
        log.written(1)
        self.assertEqual(log.durable_index, 0)
        log.written(2)
        self.assertEqual(log.durable_index, 7)

    def test_never_back(self) -> None:
        """R13: a snapshot that is behind what is committed is not for this log."""
        log = Log(ONE, entries=log_of(1, 1))
        log.commit(2)
        self.assertRaises(AssertionError, log.replace, 2, 1, ONE)


class AgreementTests(SynchronousTestCase):
    """Where two logs may still agree (paper, 5.3, the end)."""

    def test_a_term_at_a_time(self) -> None:
        """Everything of later terms is skipped at once."""
        log = Log(ONE, entries=log_of(1, 1, 3, 3, 3))
        for index, term, found in (
            (5, 3, (5, 3)),
            (5, 2, (2, 1)),
            (4, 1, (2, 1)),
            (9, 4, (5, 3)),
            (5, 0, (0, 0)),
            (0, 0, (0, 0)),
        ):
            self.assertEqual(log.find_agreement(index, term), found, (index, term))

    def test_compacted(self) -> None:
        """What is forgotten is left to the other side; a known conflict there is skipped too."""
        log = compacted(5, 4, 4)
        self.assertEqual(log.find_agreement(6, 4), (6, 4))
        self.assertEqual(log.find_agreement(3, 2), (3, 0))
        self.assertEqual(log.find_agreement(6, 3), (4, 0))

    def test_no_such_term(self) -> None:
        """Whatever a message says, the search ends: before the first entry that is here."""
        self.assertEqual(Log(ONE, entries=log_of(1, 1)).find_agreement(2, -1), (-1, 0))
        self.assertEqual(compacted(5, 4, 4).find_agreement(6, -1), (4, 0))

    @quickly
    @given(st.data())
    def test_against_a_search(self, data: st.DataObject) -> None:
        """No place that agrees is skipped, whatever the logs are."""
        row = st.lists(st.integers(1, 4), max_size=7).map(sorted)
        mine, theirs = data.draw(row), data.draw(row)
        index = data.draw(st.integers(0, len(theirs)))
        term = theirs[index - 1] if index else 0
        agree = [
            place
            for place in range(1, index + 1)
            if place <= len(mine) and mine[place - 1] == theirs[place - 1]
        ]
        place, here = Log(ONE, entries=log_of(*mine)).find_agreement(index, term)
        self.assertGreaterEqual(place, max(agree, default=0))
        self.assertEqual(here, mine[place - 1] if place else 0)


class ConfigurationTests(SynchronousTestCase):
    """The latest configuration in the log is in force (dissertation, 4.1)."""

    def test_in_force_at_once(self) -> None:
        """Committed or not."""
        log = Log(ONE)
        log.append([configuration(1, 1, TWO)])
        self.assertEqual((log.configuration, log.configuration_index), (TWO, 1))
        self.assertEqual(log.committed_configuration, ONE)
        log.commit(1)
        self.assertEqual(log.committed_configuration, TWO)

    def test_follows_a_truncation(self) -> None:
        """R12: cut off, the one before is in force again, however many there were."""
        log = Log(ONE, entries=[*log_of(1), configuration(2, 1, TWO), configuration(3, 1, THREE)])
        self.assertEqual(log.configuration, THREE)
        log.merge(log_of(2, first=3))
        self.assertEqual((log.configuration, log.configuration_index), (TWO, 2))
        log.append([configuration(4, 2, THREE)])
        log.merge(log_of(3, first=2))
        self.assertEqual((log.configuration, log.configuration_index), (ONE, 0))

    def test_survives_compaction(self) -> None:
        """At the place of the compaction, and after it."""
        log = Log(ONE, entries=[*log_of(1), configuration(2, 1, TWO), configuration(3, 1, THREE)])
        log.commit(3)
        log.take_appliable(1 << 20)
        log.compact(2)
        self.assertEqual(log.configuration_at(2), TWO)
        self.assertEqual(log.configuration, THREE)
        self.assertRaises(IndexError, log.configuration_at, 1)
        log.compact(3)
        self.assertEqual((log.configuration, log.configuration_index), (THREE, 3))
