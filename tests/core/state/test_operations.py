"""What each operation does, alone and in batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.partition import Partition
from kvtwist.core.state.answers import Answer, NotWritten, Written
from kvtwist.core.state.commands import Condition
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.operations import (
    INT64_MAX,
    INT64_MIN,
    Delete,
    Get,
    Increment,
    Put,
    number_of,
)
from kvtwist.core.state.outcomes import (
    Changed,
    Counted,
    Found,
    Mismatch,
    NotANumber,
    OutOfRange,
    Unchanged,
)
from kvtwist.core.state.records import ABSENT, REVISION_MAX, Record
from tests.core.state.machines import new
from tests.wire.properties import examples


class OperationTests(SynchronousTestCase):
    """One operation at a time."""

    def setUp(self) -> None:
        self.machine = new()

    def assert_value(self, key: bytes, value: bytes | None) -> None:
        record = self.machine.get(key)
        self.assertEqual(None if record is None else record.value, value)

    def test_put(self) -> None:
        """Versions count the partition's changes; ``created`` stays until the key is gone."""
        self.assertEqual(self.machine.do(Put(b"a", b"1")), Written((Changed(1),)))
        self.assertEqual(self.machine.do(Put(b"b", b"2")), Written((Changed(2),)))
        self.assertEqual(self.machine.do(Put(b"a", b"3")), Written((Changed(3),)))
        self.assertEqual(self.machine.get(b"a"), Record(b"3", version=3, created=1))
        self.machine.do(Delete(b"a"), Put(b"a", b"4"))
        self.assertEqual(self.machine.get(b"a"), Record(b"4", version=5, created=5))

    def test_first_revision(self) -> None:
        """A cluster in memory starts high, so that versions of a former life match nothing."""
        machine = new(revision=1000)
        self.assertEqual(machine.do(Put(b"a", b"")), Written((Changed(1001),)))
        for revision in (-1, REVISION_MAX):
            self.assertRaises(ValueError, Contents, 1, revision)

    def test_compare_and_set(self) -> None:
        """C4: without what was seen a client cannot try again. A change in between shows."""
        self.machine.do(Put(b"a", b"1"))
        self.assertEqual(
            self.machine.do(Put(b"a", b"2", version=2)), NotWritten((Mismatch(0, 1, b"1"),))
        )
        self.assert_value(b"a", b"1")
        self.assertEqual(self.machine.do(Put(b"a", b"2", version=1)), Written((Changed(2),)))
        self.assertEqual(
            self.machine.do(Put(b"a", b"3", version=1)), NotWritten((Mismatch(0, 2, b"2"),))
        )
        self.assertEqual(
            self.machine.do(Put(b"none", b"3", version=1)), NotWritten((Mismatch(0, 0, None),))
        )

    def test_put_if_absent(self) -> None:
        """Of two that ask for the same lock, one gets it, and the other sees who has it."""
        self.assertEqual(self.machine.do(Put(b"a", b"1", version=ABSENT)), Written((Changed(1),)))
        self.assertEqual(
            self.machine.do(Put(b"a", b"2", version=ABSENT)), NotWritten((Mismatch(0, 1, b"1"),))
        )

    def test_delete(self) -> None:
        """A missing key is no change, unless a version was asked for: then it is a failure."""
        self.assertEqual(self.machine.do(Delete(b"a")), Written((Unchanged(),)))
        self.assertEqual(self.machine.do(Delete(b"a", ABSENT)), Written((Unchanged(),)))
        self.assertEqual(self.machine.do(Delete(b"a", 1)), NotWritten((Mismatch(0, 0, None),)))
        self.assertEqual(self.machine.revision, 0)
        self.machine.do(Put(b"a", b"1"))
        self.assertEqual(self.machine.do(Delete(b"a", 2)), NotWritten((Mismatch(0, 1, b"1"),)))
        self.assertEqual(self.machine.do(Delete(b"a", 1)), Written((Changed(2),)))
        self.assert_value(b"a", None)
        self.assertEqual(self.machine.key_count, 0)

    def test_increment(self) -> None:
        """A counter starts at 0, and says what it has come to."""
        self.assertEqual(self.machine.do(Increment(b"n")), Written((Counted(1, 1),)))
        self.assertEqual(self.machine.do(Increment(b"n", -3)), Written((Counted(2, -2),)))
        self.assertEqual(self.machine.get(b"n"), Record(b"-2", version=2, created=1))

    def test_increment_of_no_number(self) -> None:
        """A counter that somebody has overwritten is not started anew, and stays as it is."""
        self.machine.do(Put(b"n", b"1x"))
        self.assertEqual(self.machine.do(Increment(b"n")), NotWritten((NotANumber(0, 1),)))
        self.assert_value(b"n", b"1x")

    def test_increment_out_of_range(self) -> None:
        """A counter at its end says so; it does not go round."""
        self.machine.do(Put(b"n", b"%d" % INT64_MAX))
        self.assertEqual(self.machine.do(Increment(b"n")), NotWritten((OutOfRange(0, 1),)))
        self.machine.do(Put(b"n", b"%d" % INT64_MIN))
        self.assertEqual(self.machine.do(Increment(b"n", -1)), NotWritten((OutOfRange(0, 2),)))
        self.assertEqual(self.machine.do(Increment(b"n", INT64_MAX)), Written((Counted(3, -1),)))

    def test_numbers(self) -> None:
        """One number has one form, on every replica and in every release of Python."""
        for value in (b"0", b"-1", b"12", b"%d" % INT64_MAX, b"%d" % INT64_MIN):
            self.assertEqual(number_of(value), int(value), value)
        for value in (b"", b"-", b"+1", b"01", b"-0", b" 1", b"1\n", b"1_0", b"1.0", b"x"):
            self.assertEqual(number_of(value), None, value)
        for value in (b"%d" % (INT64_MAX + 1), b"%d" % (INT64_MIN - 1), b"1" * 5000):
            self.assertEqual(number_of(value), None, value)

    def test_keyspaces(self) -> None:
        """Keys of one keyspace are not seen in another, nor in a scan of it."""
        for keyspace in (0, 1, 2**32 - 1):
            self.machine.do(Put(b"a", b"%d" % keyspace), keyspace=keyspace)
        for keyspace in (0, 1, 2**32 - 1):
            record = self.machine.get(b"a", keyspace)
            assert record is not None
            self.assertEqual(record.value, b"%d" % keyspace)
            page = self.machine.scan(keyspace=keyspace)
            self.assertEqual(page, ([(b"a", record)], None))
        self.assertEqual(self.machine.get(b"a", 2), None)


class BatchTests(SynchronousTestCase):
    """Several operations, and conditions."""

    def setUp(self) -> None:
        self.machine = new()

    def assert_nothing_done(self, answer: Answer, *failures: object) -> None:
        self.assertEqual(answer, NotWritten(failures))  # type: ignore[arg-type]
        self.assertEqual((self.machine.revision, self.machine.scan().records), self.before)

    def remember(self) -> None:
        self.before = (self.machine.revision, self.machine.scan().records)

    def test_versions(self) -> None:
        """Each change has its own version, in order; what changes nothing takes none."""
        answer = self.machine.do(
            Put(b"a", b"1"), Get(b"a"), Delete(b"none"), Increment(b"n"), Delete(b"a"), Get(b"a")
        )
        self.assertEqual(
            answer,
            Written(
                (
                    Changed(1),
                    Found(1, b"1"),
                    Unchanged(),
                    Counted(2, 1),
                    Changed(3),
                    Found(0, None),
                )
            ),
        )
        self.assertEqual(self.machine.revision, 3)
        self.assertEqual([key for key, _ in self.machine.scan().records], [b"n"])

    def test_conditions(self) -> None:
        """All conditions are judged by what was there before, and all that fail are told (C4)."""
        self.machine.do(Put(b"a", b"1"), Put(b"b", b"2"))
        self.remember()
        self.assert_nothing_done(
            self.machine.do(
                Put(b"c", b"3"),
                conditions=[Condition(b"a", 9), Condition(b"b", 2), Condition(b"c", 1)],
            ),
            Mismatch(0, 1, b"1"),
            Mismatch(2, 0, None),
        )
        holds = [Condition(b"a", 1), Condition(b"b", 2), Condition(b"c", ABSENT)]
        answer = self.machine.do(Put(b"c", b"3"), Put(b"a", b"4"), conditions=holds)
        self.assertEqual(answer, Written((Changed(3), Changed(4))))

    def test_one_failure_undoes_all(self) -> None:
        """A batch whose last operation fails leaves nothing: money is not taken from one account
        and not given to the other. The failure says which operation it was."""
        self.machine.do(Put(b"n", b"x"), Put(b"a", b"1", ttl_ms=5))
        self.remember()
        first = (Put(b"a", b"2"), Put(b"b", b"3", ttl_ms=5), Delete(b"n"), Put(b"n", b"y"))
        self.assert_nothing_done(
            self.machine.do(*first, Increment(b"n"), conditions=[Condition(b"n", 1)]),
            NotANumber(5, 6),
        )
        self.assert_nothing_done(
            self.machine.do(*first, Put(b"a", b"", 0, 9)), Mismatch(4, 3, b"2")
        )
        self.assert_nothing_done(self.machine.do(*first, Delete(b"z", 1)), Mismatch(4, 0, None))

    def test_operations_see_those_before(self) -> None:
        """Two increments in one batch count twice."""
        answer = self.machine.do(Increment(b"n", 2), Increment(b"n", 3), Put(b"n", b"0", 0, 2))
        self.assertEqual(answer, Written((Counted(1, 2), Counted(2, 5), Changed(3))))

    def test_conditions_only(self) -> None:
        """Several versions can be checked at one moment, without a change."""
        self.assertEqual(self.machine.do(conditions=[Condition(b"a", ABSENT)]), Written(()))

    def test_revisions_run_out(self) -> None:
        """The counter stops the replica at its end rather than wrap round."""
        machine = new(revision=REVISION_MAX - 1)
        self.assertEqual(machine.do(Put(b"a", b"")), Written((Changed(REVISION_MAX),)))
        self.assertRaises(AssertionError, machine.do, Put(b"a", b""))


class SameAsPartitionTests(SynchronousTestCase):
    """Partitions with one copy, in memory, have a machine of their own."""

    @examples(60)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "delete", "compare_and_set", "increment"]),
                st.sampled_from([b"a", b"b"]),
                st.binary(max_size=1) | st.sampled_from([b"-7", b"07", b"%d" % INT64_MAX]),
                st.integers(0, 9),
                st.booleans(),
            )
        )
    )
    def test_same(self, steps: list[tuple[str, bytes, bytes, int, bool]]) -> None:
        """What an operation does must not depend on how many copies of the data there are."""
        machine, partition = new(), Partition()
        for what, key, value, version, is_free in steps:
            seen = partition.get(key)
            if what == "put":
                expected: Answer = Written((Changed(partition.put(key, value)),))
                answer = machine.do(Put(key, value))
            elif what == "delete":
                done = partition.delete(key, None if is_free else version)
                answer = machine.do(Delete(key, None if is_free else version))
                if not done.done and seen is None and (is_free or version == ABSENT):
                    # To that one, "there was nothing" and "the version is another" are the same.
                    expected = Written((Unchanged(),))
                else:
                    expected = conditional(done.done, done.version, seen and seen.value)
            elif what == "increment":
                by = version if is_free else -version
                counted = partition.increment(key, by)
                if isinstance(counted, Counted):
                    expected = Written((counted,))
                else:
                    expected = NotWritten((counted,))
                answer = machine.do(Increment(key, by))
            else:
                done = partition.compare_and_set(key, value, version)
                answer = machine.do(Put(key, value, version=version))
                expected = conditional(done.done, done.version, seen and seen.value)
            self.assertEqual(answer, expected)
        self.assertEqual(machine.revision, partition.revision)
        for key, record in machine.scan().records:
            self.assertEqual((record.value, record.version), partition.get(key))
        self.assertEqual(machine.key_count, len(partition))


def conditional(is_done: bool, version: int, value: bytes | None) -> Answer:
    """The answer that means the same as the partition's."""
    if is_done:
        return Written((Changed(version),))
    return NotWritten((Mismatch(0, version, value),))
