"""One partition's state machine, beside a model that is too plain to be wrong."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.partition import ABSENT, REVISION_MAX, Conditional, Partition, Record

KEYS = [b"", b"a", b"b", b"{a}b", b"\x00\xff"]

keys = st.sampled_from(KEYS)
values = st.binary(max_size=3)


class PartitionMachine(RuleBasedStateMachine):
    """Random operations on a partition and on the model: key to record, and every version ever."""

    first_revision = 0

    def __init__(self) -> None:
        super().__init__()
        self.partition = Partition(self.first_revision)
        self.model: dict[bytes, Record] = {}
        self.given_out = [self.first_revision]
        self.former: dict[bytes, list[int]] = {key: [] for key in KEYS}

    def expect_new(self, version: int) -> None:
        """Versions grow by one with each change, whatever the key."""
        assert version == self.given_out[-1] + 1, (version, self.given_out)
        self.given_out.append(version)

    def expect_no_change(self, outcome: Conditional, key: bytes) -> None:
        """A failed condition says what was seen, and gives out no version."""
        seen = self.model.get(key)
        assert outcome == Conditional(False, seen.version if seen else ABSENT, seen), outcome

    def write(self, key: bytes, value: bytes, version: int) -> None:
        self.expect_new(version)
        self.retire(key)
        self.model[key] = Record(value, version)

    def retire(self, key: bytes) -> None:
        if key in self.model:
            self.former[key].append(self.model.pop(key).version)

    @rule(key=keys, value=values)
    def put(self, key: bytes, value: bytes) -> None:
        self.write(key, value, self.partition.put(key, value))

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        seen = self.model.get(key)
        outcome = self.partition.delete(key)
        if seen is None:
            self.expect_no_change(outcome, key)
        else:
            assert outcome.done and outcome.seen == seen, outcome
            self.expect_new(outcome.version)
            self.retire(key)

    @rule(key=keys)
    def delete_what_was_seen(self, key: bytes) -> None:
        seen = self.model.get(key)
        if seen is not None:
            outcome = self.partition.delete(key, seen.version)
            assert outcome.done and outcome.seen == seen, outcome
            self.expect_new(outcome.version)
            self.retire(key)

    @rule(key=keys, value=values)
    def set_what_was_seen(self, key: bytes, value: bytes) -> None:
        seen = self.model.get(key)
        outcome = self.partition.compare_and_set(key, value, seen.version if seen else ABSENT)
        assert outcome.done and outcome.seen == seen, outcome
        self.write(key, value, outcome.version)

    @precondition(lambda self: any(self.former.values()))
    @rule(data=st.data(), value=values)
    def use_a_former_version(self, data: st.DataObject, value: bytes) -> None:
        """No ABA: a version that the key once had never comes back, whatever happened since."""
        key = data.draw(st.sampled_from([key for key in KEYS if self.former[key]]))
        version = data.draw(st.sampled_from(self.former[key]))
        self.expect_no_change(self.partition.compare_and_set(key, value, version), key)
        self.expect_no_change(self.partition.delete(key, version), key)

    @rule(key=keys, value=values, version=st.one_of(st.integers(0, 30), st.just(REVISION_MAX)))
    def use_some_version(self, key: bytes, value: bytes, version: int) -> None:
        """Also those of other keys, those to come, and "no such key" for one that exists."""
        seen = self.model.get(key)
        if version != (seen.version if seen else ABSENT):
            self.expect_no_change(self.partition.compare_and_set(key, value, version), key)
            self.expect_no_change(self.partition.delete(key, version), key)

    @invariant()
    def is_as_the_model(self) -> None:
        assert {key: self.partition.get(key) for key in KEYS} == {
            key: self.model.get(key) for key in KEYS
        }
        assert len(self.partition) == len(self.model)
        assert self.partition.revision == self.given_out[-1]


class HighPartitionMachine(PartitionMachine):
    """The same from a high number on, as in a node that keeps nothing on disk."""

    first_revision = 1 << 52


class ModelTests(SynchronousTestCase):
    """Random operations."""

    def test_against_a_dictionary(self) -> None:
        """A read would show what was never written, or a failed condition change data (C4)."""
        run_state_machine_as_test(
            PartitionMachine,
            settings=settings(deadline=None, max_examples=80, stateful_step_count=40),
        )

    def test_from_a_high_revision(self) -> None:
        """The same would happen, but only to the nodes that people run."""
        run_state_machine_as_test(
            HighPartitionMachine,
            settings=settings(deadline=None, max_examples=20, stateful_step_count=40),
        )


def operations() -> st.SearchStrategy[list[tuple[Any, ...]]]:
    """Lists of (name of a method, its arguments)."""
    versions = st.integers(0, 12)
    return st.lists(
        st.one_of(
            st.tuples(st.just("put"), keys, values),
            st.tuples(st.just("delete"), keys, st.one_of(st.none(), versions)),
            st.tuples(st.just("compare_and_set"), keys, values, versions),
            st.tuples(st.just("get"), keys),
        ),
        max_size=30,
    )


class DeterminismTests(SynchronousTestCase):
    """Same operations, same state."""

    @settings(deadline=None)
    @given(operations(), st.integers(0, 1 << 60))
    def test_two_partitions(self, listed: list[tuple[Any, ...]], revision: int) -> None:
        """R17: replicas that applied the same operations would answer differently."""
        one, other = Partition(revision), Partition(revision)
        for name, *arguments in listed:
            self.assertEqual(getattr(one, name)(*arguments), getattr(other, name)(*arguments))
        self.assertEqual(one.revision, other.revision)
        self.assertEqual([one.get(key) for key in KEYS], [other.get(key) for key in KEYS])

    @settings(deadline=None)
    @given(operations(), operations())
    def test_partitions_are_separate(
        self, listed: list[tuple[Any, ...]], elsewhere: list[tuple[Any, ...]]
    ) -> None:
        """Writes to one partition would show in another."""
        alone, crowded, neighbour = Partition(), Partition(), Partition()
        for name, *arguments in elsewhere:
            getattr(neighbour, name)(*arguments)
        for name, *arguments in listed:
            self.assertEqual(getattr(alone, name)(*arguments), getattr(crowded, name)(*arguments))


class VersionTests(SynchronousTestCase):
    """Directed cases."""

    def test_made_again(self) -> None:
        """Who compares with a deleted key's version would overwrite the one made since (ABA)."""
        partition = Partition()
        first = partition.put(b"k", b"a")
        removal = partition.delete(b"k")
        again = partition.compare_and_set(b"k", b"a", ABSENT)
        self.assertTrue(first < removal.version < again.version)
        refused = partition.compare_and_set(b"k", b"b", first)
        self.assertEqual(refused, Conditional(False, again.version, Record(b"a", again.version)))

    def test_failed_condition_says_what_was_seen(self) -> None:
        """C4: who lost a race would have to read again to learn what is there."""
        partition = Partition()
        version = partition.put(b"k", b"v")
        for outcome in (
            partition.compare_and_set(b"k", b"new", version + 1),
            partition.compare_and_set(b"k", b"new", ABSENT),
            partition.delete(b"k", version + 1),
            partition.delete(b"k", ABSENT),
        ):
            self.assertEqual(outcome, Conditional(False, version, Record(b"v", version)))
        self.assertEqual(
            partition.compare_and_set(b"other", b"", version), Conditional(False, 0, None)
        )
        self.assertEqual(partition.revision, version)

    def test_deleting_nothing(self) -> None:
        """Deleting what is not there would count as a change, and be reported as done."""
        partition = Partition(7)
        self.assertEqual(partition.delete(b"k"), Conditional(False, ABSENT, None))
        self.assertEqual(partition.delete(b"k", 7), Conditional(False, ABSENT, None))
        self.assertEqual((partition.revision, len(partition)), (7, 0))

    def test_same_value_is_a_change(self) -> None:
        """A write of what was there already would be invisible to whoever compares versions."""
        partition = Partition()
        self.assertEqual([partition.put(b"k", b"v"), partition.put(b"k", b"v")], [1, 2])

    def test_empty_key_and_value(self) -> None:
        """An empty value would be taken for a missing key, or an empty key for none at all."""
        partition = Partition()
        partition.put(b"", b"")
        self.assertEqual(partition.get(b""), Record(b"", 1))
        self.assertTrue(partition.delete(b"").done)


class RevisionTests(SynchronousTestCase):
    """The ends of the range of revisions."""

    def test_first_version(self) -> None:
        """Version 0 means that there is no key: a record that had it could not be compared with."""
        self.assertEqual(Partition().put(b"k", b"v"), 1)
        self.assertEqual(Partition(41).put(b"k", b"v"), 42)

    def test_out_of_range(self) -> None:
        """A partition that starts outside the 63 bits would give versions that fit no wire."""
        for revision in (-1, REVISION_MAX, REVISION_MAX + 1, 1 << 64):
            with self.assertRaises(ValueError):
                Partition(revision)

    def test_last_version(self) -> None:
        """The counter would run over, and old versions match new records."""
        partition = Partition(REVISION_MAX - 1)
        self.assertEqual(partition.put(b"k", b"v"), (1 << 63) - 1)
        for change in (
            lambda: partition.put(b"k", b"w"),
            lambda: partition.put(b"other", b"w"),
            lambda: partition.compare_and_set(b"k", b"w", REVISION_MAX),
            lambda: partition.compare_and_set(b"other", b"w", ABSENT),
        ):
            self.assertRaises(AssertionError, change)
            self.assertEqual(partition.get(b"k"), Record(b"v", REVISION_MAX))
            self.assertEqual((len(partition), partition.revision), (1, REVISION_MAX))

    def test_last_version_is_no_removal(self) -> None:
        """A removal that was answered with an error would have been carried out all the same."""
        partition = Partition(REVISION_MAX - 1)
        partition.put(b"k", b"v")
        self.assertRaises(AssertionError, partition.delete, b"k")
        self.assertEqual(partition.get(b"k"), Record(b"v", REVISION_MAX))
