"""Histories whose verdict is known: the anomalies that have a name, and their harmless sisters.

Every check is asked: by versions, by search, both together, and brute force. One that is wrong
about these would let a store pass that loses data, or hold up one that does not.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.history import ABSENT, Kind, Operation, Outcome
from tests.linearizability.search import Verdict
from tests.linearizability.written import (
    added,
    ended,
    got,
    made,
    not_added,
    not_made,
    not_swapped,
    put,
    removed,
    removed_nothing,
    swapped,
    unknown,
    verdicts,
)


class KnownTests(SynchronousTestCase):
    """Asks every check."""

    def assert_good(self, *operations: Operation, by_versions: bool = True) -> None:
        """All find an order; the fast check only if it is said to decide."""
        self.assert_all(Verdict.LINEARIZABLE, by_versions, operations)

    def assert_bad(self, *operations: Operation, by_versions: bool = True) -> None:
        """All find that there is none."""
        self.assert_all(Verdict.NOT_LINEARIZABLE, by_versions, operations)

    def assert_all(
        self, verdict: Verdict, by_versions: bool, operations: tuple[Operation, ...]
    ) -> None:
        """All say *verdict*."""
        self.assertEqual(
            verdicts(operations),
            {
                "brute force": verdict,
                "versions": verdict if by_versions else Verdict.UNDECIDED,
                "search": verdict,
                "both": verdict,
            },
        )


class ReadTests(KnownTests):
    """What gets may see."""

    def test_nothing_happened(self) -> None:
        """The empty history is good; callers count what they have judged."""
        self.assert_good()

    def test_reads_what_was_written(self) -> None:
        """The plainest of all."""
        self.assert_good(put("a", (0, 1), b"x", 1), got("b", (2, 3), 1, b"x"))

    def test_stale_read(self) -> None:
        """A write has returned, and a later read does not see it: reads served by an old leader."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1), put("a", (2, 3), b"y", 2), got("b", (4, 5), 1, b"x")
        )

    def test_read_during_a_write_may_see_either(self) -> None:
        """Concurrent with the write, both the old and the new value are right."""
        write = (put("a", (0, 1), b"x", 1), put("a", (2, 5), b"y", 2))
        self.assert_good(*write, got("b", (3, 4), 1, b"x"))
        self.assert_good(*write, got("b", (3, 4), 2, b"y"))

    def test_read_going_backwards(self) -> None:
        """One read sees the new value, a later one the old again, both during the write: regular
        registers do that, atomic ones never (Lamport's new-old inversion)."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1),
            put("a", (2, 9), b"y", 2),
            got("b", (3, 4), 2, b"y"),
            got("c", (5, 6), 1, b"x"),
        )

    def test_non_repeatable(self) -> None:
        """New, old, new: the same client sees a value come, go and come again."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1),
            put("b", (2, 9), b"y", 2),
            got("c", (3, 4), 1, b"x"),
            got("c", (5, 6), 2, b"y"),
            got("c", (7, 8), 1, b"x"),
        )

    def test_empty_after_a_write(self) -> None:
        """A key that was written and never removed is missing: a lost write."""
        self.assert_bad(put("a", (0, 1), b"x", 1), got("b", (2, 3), ABSENT))

    def test_value_from_nowhere(self) -> None:
        """A value that nobody has written, or another one than the version's."""
        self.assert_bad(put("a", (0, 1), b"x", 1), got("b", (2, 3), 1, b"y"))
        self.assert_bad(put("a", (0, 1), b"x", 1), got("b", (2, 3), 2, b"x"))
        self.assert_bad(got("b", (2, 3), 1, b"x"))

    def test_seen_before_it_was_written(self) -> None:
        """A read returns a value before its write has begun."""
        self.assert_bad(got("a", (0, 1), 1, b"x"), put("b", (2, 3), b"x", 1))

    def test_two_readers_disagree_on_the_order(self) -> None:
        """Independent readers see two concurrent writes in opposite orders (IRIW)."""
        self.assert_bad(
            put("a", (0, 9), b"x", 1),
            put("b", (0, 9), b"y", 2),
            got("c", (1, 2), 1, b"x"),
            got("c", (3, 4), 2, b"y"),
            got("d", (1, 2), 2, b"y"),
            got("d", (3, 4), 1, b"x"),
        )

    def test_touching_is_concurrent(self) -> None:
        """A read that begins at the very moment at which a write returns may miss it: which of them
        was first cannot be known from such times. A moment later it may not."""
        write = (put("a", (0, 1), b"x", 1), put("a", (2, 3), b"y", 2))
        self.assert_good(*write, got("b", (3, 4), 1, b"x"))
        self.assert_bad(*write, got("b", (3.1, 4), 1, b"x"))

    def test_without_versions(self) -> None:
        """Values alone decide as well; the fast check leaves these to the search."""
        write = (put("a", (0, 1), b"x", None), put("a", (2, 3), b"y", None))
        self.assert_good(*write, got("b", (4, 5), None, b"y"), by_versions=False)
        self.assert_bad(*write, got("b", (4, 5), None, b"x"), by_versions=False)

    def test_versions_matter_where_values_do_not(self) -> None:
        """Two writes of one value: only the version tells that the read is stale."""
        write = (put("a", (0, 1), b"x", 1), put("a", (2, 3), b"x", 2))
        self.assert_bad(*write, got("b", (4, 5), 1, b"x"))
        self.assert_good(*write, got("b", (4, 5), None, b"x"), by_versions=False)


class VersionTests(KnownTests):
    """What versions may be."""

    def test_version_going_backwards(self) -> None:
        """A later write has a lower version: a revision that was lost with a leader."""
        self.assert_bad(put("a", (0, 1), b"x", 5), put("a", (2, 3), b"y", 4))

    def test_version_given_twice(self) -> None:
        """Two changes with one version: a client's compare-and-set could not tell them apart."""
        self.assert_bad(put("a", (0, 3), b"x", 5), put("b", (0, 3), b"y", 5))

    def test_versions_tell_the_order_of_concurrent_writes(self) -> None:
        """Any order, with gaps, while they overlap."""
        self.assert_good(
            put("a", (0, 9), b"x", 9), put("b", (0, 9), b"y", 4), got("c", (1, 2), 4, b"y")
        )

    def test_version_that_was_seen_before(self) -> None:
        """A write is told a version that was read before it began. That is wrong whatever became of
        the unknown ones."""
        self.assert_bad(
            unknown("a", Kind.PUT, 0, b"x"),
            unknown("a", Kind.DELETE, 0),
            got("b", (1, 2), 2, b"x"),
            put("b", (3, 4), b"x", 2),
        )

    def test_no_room_for_an_unknown_write(self) -> None:
        """Each change takes a version of its own: between 1 and 2 there was none."""
        write = (put("a", (0, 1), b"x", 1), unknown("b", Kind.PUT, 2, b"y"))
        read = got("c", (4, 5), None, b"y")
        self.assert_good(*write, read, put("a", (6, 7), b"z", 3), by_versions=False)
        self.assert_bad(*write, read, put("a", (6, 7), b"z", 2), by_versions=False)


class ConditionTests(KnownTests):
    """Compare-and-set, put-if-absent, conditional deletes."""

    def test_lost_update(self) -> None:
        """Two clients read version 1 and both replace it: one update is lost."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1),
            swapped("b", (2, 5), 1, b"y", 2),
            swapped("c", (2, 5), 1, b"z", 3),
        )

    def test_one_of_two_fails(self) -> None:
        """As it should be, and the loser sees the winner's record."""
        self.assert_good(
            put("a", (0, 1), b"x", 1),
            swapped("b", (2, 5), 1, b"y", 2),
            not_swapped("c", (2, 5), 1, 2, b"y"),
        )

    def test_both_make_the_key(self) -> None:
        """Two clients take one lock."""
        self.assert_bad(made("a", (0, 5), b"a", 1), made("b", (0, 5), b"b", 2))
        self.assert_good(made("a", (0, 5), b"a", 1), not_made("b", (0, 5), 1))

    def test_failed_on_what_it_demands(self) -> None:
        """It says to have failed, and to have seen the very version that it demanded."""
        self.assert_bad(put("a", (0, 1), b"x", 1), not_swapped("b", (2, 3), 1, 1, b"x"))

    def test_failed_on_what_was_gone(self) -> None:
        """A failed compare-and-set is a read: what it saw must have been there then."""
        write = (put("a", (0, 1), b"x", 1), put("a", (2, 3), b"y", 2))
        self.assert_bad(*write, not_swapped("b", (4, 5), 7, 1, b"x"))
        self.assert_good(*write, not_swapped("b", (4, 5), 7, 2, b"y"))

    def test_swapped_from_the_past(self) -> None:
        """The version that it demands was replaced long before."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1), put("a", (2, 3), b"y", 2), swapped("b", (4, 5), 1, b"z", 3)
        )

    def test_put_if_absent_found_a_key_that_was_not_there(self) -> None:
        """Nobody has written, and yet it failed; also when it does not say what it saw."""
        self.assert_bad(not_made("a", (0, 1), 1))
        self.assert_bad(not_made("a", (0, 1), None), by_versions=False)
        self.assert_bad(not_made("a", (0, 1), ABSENT))


class RemovalTests(KnownTests):
    """Deletes."""

    def test_ghost(self) -> None:
        """A key that was removed is read: a replica that missed the removal."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1), removed("a", (2, 3), 2), got("b", (4, 5), 1, b"x")
        )

    def test_ghost_without_the_removals_version(self) -> None:
        """The same where a client is told only that it has removed something."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1),
            removed("a", (2, 3), None),
            got("b", (4, 5), 1, b"x"),
            by_versions=False,
        )

    def test_removed_and_made_again(self) -> None:
        """Absent reads fit between, and only there. The new record's version is above them all."""
        history = (
            put("a", (0, 1), b"x", 1),
            removed("a", (2, 3), 2, demanded=1),
            removed_nothing("b", (3.5, 4)),
            made("a", (5, 6), b"y", 3),
        )
        self.assert_good(*history, got("b", (4, 5), ABSENT))
        self.assert_bad(*history, got("b", (7, 8), ABSENT))
        self.assert_bad(*history[:3], made("a", (5, 6), b"y", 2))

    def test_removed_twice(self) -> None:
        """Two clients remove one record; both are told that they did."""
        self.assert_bad(put("a", (0, 1), b"x", 1), removed("b", (2, 5), 2), removed("c", (2, 5), 3))

    def test_absent_reads_share_the_first_gap_they_can(self) -> None:
        """Two gaps, and a read of the record between them."""
        self.assert_good(
            put("a", (0, 1), b"x", 1),
            removed("a", (2, 9), 2),
            put("b", (2, 9), b"y", 3),
            removed("c", (2, 9), 4),
            got("d", (3, 4), ABSENT),
            got("d", (5, 6), 3, b"y"),
            got("d", (7, 8), ABSENT),
        )

    def test_absent_between_two_that_exist(self) -> None:
        """Nothing was removed by then."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1),
            put("b", (2, 9), b"y", 2),
            got("c", (3, 4), ABSENT),
            removed("c", (10, 11), 3),
        )


class UnknownTests(KnownTests):
    """Operations that may have taken place."""

    def test_may_be_seen_or_not(self) -> None:
        """It is seen long after, or never; both are right."""
        write = (put("a", (0, 1), b"x", 1), unknown("b", Kind.PUT, 2, b"y"))
        self.assert_good(*write, got("c", (90, 91), 2, b"y"))
        self.assert_good(*write, got("c", (90, 91), 1, b"x"))
        self.assert_good(*write, got("c", (80, 81), 1, b"x"), got("c", (90, 91), 2, b"y"))

    def test_seen_then_unseen(self) -> None:
        """Once seen it has taken place, and must stay: an entry that was read before it was
        committed, and was lost with its leader."""
        self.assert_bad(
            put("a", (0, 1), b"x", 1),
            unknown("b", Kind.PUT, 2, b"y"),
            got("c", (4, 5), 2, b"y"),
            got("c", (6, 7), 1, b"x"),
        )

    def test_seen_before_it_was_invoked(self) -> None:
        """The future is not unknown in this sense."""
        self.assert_bad(got("c", (0, 1), 2, b"y"), unknown("b", Kind.PUT, 2, b"y"))

    def test_applied_twice(self) -> None:
        """A retry that was not recognised: an unknown write seen, replaced, and seen again."""
        self.assert_bad(
            unknown("a", Kind.PUT, 0, b"x"),
            got("b", (1, 2), 1, b"x"),
            put("b", (3, 4), b"y", 2),
            got("b", (5, 6), 3, b"x"),
            by_versions=False,
        )

    def test_increment_counted_twice(self) -> None:
        """One increment of unknown outcome, and the counter is up by two."""
        history = (added("a", (0, 1), 1, b"1", 1), unknown("b", Kind.INCREMENT, 2, amount=1))
        self.assert_good(*history, got("c", (4, 5), 2, b"2"))
        self.assert_good(*history, got("c", (4, 5), 1, b"1"))
        self.assert_bad(*history, got("c", (4, 5), 3, b"3"), by_versions=False)

    def test_increments_hidden_between_two_answers(self) -> None:
        """The next answer shows how many there were, and leaves a version for each."""
        history = (
            added("a", (0, 1), 1, b"1", 1),
            unknown("b", Kind.INCREMENT, 2, amount=2),
            unknown("c", Kind.INCREMENT, 2, amount=5),
        )
        self.assert_good(*history, added("a", (4, 5), 1, b"9", 4), by_versions=False)
        self.assert_bad(*history, added("a", (4, 5), 1, b"9", 3), by_versions=False)
        self.assert_bad(*history, added("a", (4, 5), 1, b"5", 4), by_versions=False)

    def test_chain_of_unknown_operations(self) -> None:
        """What was read had three reasons, none of which anybody has seen."""
        history = (
            unknown("a", Kind.PUT, 0, b"7"),
            unknown("b", Kind.INCREMENT, 1, amount=1),
            unknown("c", Kind.DELETE, 2),
            unknown("d", Kind.PUT_IF_ABSENT, 3, b"8"),
            unknown("e", Kind.INCREMENT, 3, amount=1),
        )
        self.assert_good(*history, got("f", (4, 5), 5, b"10"), by_versions=False)
        self.assert_bad(*history, got("f", (4, 5), 2, b"10"), by_versions=False)
        self.assert_bad(*history, got("f", (4, 5), 5, b"11"), by_versions=False)

    def test_unknown_compare_and_set(self) -> None:
        """It may be the reason only while the version that it demands is there."""
        swap = unknown("b", Kind.COMPARE_AND_SET, 2, b"y", version=1)
        history = (put("a", (0, 1), b"x", 1), swap)
        self.assert_good(*history, got("c", (4, 5), 2, b"y"))
        self.assert_bad(
            *history, put("a", (4, 5), b"z", 2), got("c", (4.5, 5), 2, b"z"),
            got("c", (6, 7), 3, b"y"), by_versions=False,
        )  # fmt: skip

    def test_unknown_removal(self) -> None:
        """The reason why a key is missing; then the key stays missing."""
        history = (put("a", (0, 1), b"x", 1), unknown("b", Kind.DELETE, 2))
        self.assert_good(*history, got("c", (4, 5), ABSENT), by_versions=False)
        self.assert_bad(
            *history, got("c", (4, 5), ABSENT), got("c", (6, 7), 1, b"x"), by_versions=False
        )

    def test_version_learned_without_the_value(self) -> None:
        """A failed condition tells the version of an unknown write, and a later read which of two
        it was."""
        history = (
            unknown("a", Kind.PUT, 0, b"x"),
            unknown("b", Kind.PUT, 0, b"y"),
            not_made("c", (2, 3), 4),
        )
        self.assert_good(*history, got("d", (5, 6), None, b"y"), by_versions=False)
        self.assert_bad(
            *history, got("d", (4, 5), 4, b"x"), got("d", (6, 7), 4, b"y"),
        )  # fmt: skip

    def test_learned_version_is_not_the_value_known_before(self) -> None:
        """``x`` was there when last read, but version 4 may be ``y`` already; and here it must be,
        since ``z`` got the very next version."""
        history = (
            unknown("a", Kind.PUT, 0, b"x"),
            unknown("b", Kind.PUT, 0, b"y"),
            got("c", (2, 3), None, b"x"),
            not_made("c", (4, 5), 4),
            got("c", (6, 7), None, b"y"),
        )
        self.assert_good(*history, put("c", (8, 9), b"z", 5), by_versions=False)
        self.assert_bad(*history, put("c", (8, 9), b"z", 4))

    def test_unknown_read(self) -> None:
        """A get without an answer says nothing."""
        self.assert_good(put("a", (0, 1), b"x", 1), unknown("b", Kind.GET, 2))


class NotDoneTests(KnownTests):
    """Operations of which the system said that they did not take place."""

    def test_not_done_but_visible(self) -> None:
        """The client was told "not done", may try again, and the write is there: applied twice."""
        refused = ended(Outcome.NOT_DONE, "b", Kind.PUT, 2, b"y")
        history = (put("a", (0, 1), b"x", 1), refused)
        self.assert_good(*history, got("c", (4, 5), 1, b"x"))
        self.assert_bad(*history, got("c", (4, 5), 2, b"y"))


class IncrementTests(KnownTests):
    """Counters."""

    def test_lost_increment(self) -> None:
        """Two increments, both answered, and the counter is up by one."""
        self.assert_bad(added("a", (0, 5), 1, b"1", 1), added("b", (0, 5), 1, b"1", 2))
        self.assert_good(added("a", (0, 5), 1, b"1", 1), added("b", (0, 5), 1, b"2", 2))

    def test_missing_key_counts_as_zero(self) -> None:
        """And so does one that was removed."""
        self.assert_good(
            added("a", (0, 1), -3, b"-3", 1),
            removed("a", (2, 3), 2),
            added("a", (4, 5), 4, b"4", 3),
        )

    def test_refused(self) -> None:
        """Rightly on what is no number and past int64; wrongly on a number."""
        word = put("a", (0, 1), b"x", 1)
        most = put("a", (0, 1), b"9223372036854775807", 1)
        one = put("a", (0, 1), b"1", 1)
        self.assert_good(word, not_added("b", (2, 3), 1, 1))
        self.assert_good(most, not_added("b", (2, 3), 1, 1))
        self.assert_bad(most, not_added("b", (2, 3), -1, 1))
        self.assert_bad(one, not_added("b", (2, 3), 1, 1))
        self.assert_bad(one, not_added("b", (2, 3), 1), by_versions=False)

    def test_added_to_no_number(self) -> None:
        """Only one form of a number is one: ``+1``, ``01`` and ``-0`` are refused."""
        for value in (b"x", b"", b"+1", b"01", b"-0", b" 1", b"1.0", b"9223372036854775808"):
            word = put("a", (0, 1), value, 1)
            self.assert_good(word, not_added("b", (2, 3), 1, 1))
            self.assert_bad(word, added("b", (2, 3), 1, b"2", 2))


class LiteratureTests(KnownTests):
    """Figures of papers, in our operations; values only, as there."""

    def test_herlihy_and_wing(self) -> None:
        """Register histories in the manner of Herlihy & Wing's figure 1: overlapping writes, reads
        that agree on an order, and one that does not."""
        writes = (put("a", (0, 4), b"0", None), put("b", (1, 6), b"1", None))
        self.assert_good(
            *writes, got("c", (5, 7), None, b"1"), got("a", (8, 9), None, b"1"), by_versions=False
        )
        self.assert_bad(
            *writes, got("c", (5, 7), None, b"1"), got("a", (8, 9), None, b"0"),
            got("b", (10, 11), None, b"1"), by_versions=False,
        )  # fmt: skip

    def test_order_must_be_found_by_trying(self) -> None:
        """The write that is due first must come last: a checker that takes operations in the order
        of their returns gives a false alarm."""
        self.assert_good(
            put("a", (0, 5), b"x", None),
            put("b", (0, 6), b"y", None),
            put("c", (0, 7), b"z", None),
            got("d", (1, 8), None, b"y"),
            got("d", (9, 10), None, b"x"),
            got("e", (1, 8), None, b"z"),
            by_versions=False,
        )
