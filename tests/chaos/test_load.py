"""The clients' part: what an error comes to in the history, and which keys there are."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.ring import partition_of
from kvtwist.errors import (
    KvtwistError,
    NoAnswer,
    NotDone,
    NotLeader,
    OutcomeUnknown,
    StoreFailed,
    Unavailable,
    VersionMismatch,
)
from tests.chaos.load import COUNTERS, ERASED, REGISTERS, History, Keys
from tests.chaos.values import name_of, padded
from tests.linearizability.history import Answer, Kind, Operation, Outcome


class ErrorTests(SynchronousTestCase):
    """A write that is called not done and was done is a false alarm; one that is called unknown and
    was not done hides a fault."""

    def ended(self, error: KvtwistError) -> Operation:
        """What becomes of a compare-and-set that fails so."""
        self.history = History(lambda: 2.0)
        ticket = self.history.recorder.begin(
            "c", Kind.COMPARE_AND_SET, b"k", at=1.0, value=b"v", version=3
        )
        self.history.failed(ticket, error)
        (operation,) = self.history.recorder.operations()
        return operation

    def test_not_done(self) -> None:
        """Only what says so."""
        for error in (NotDone("x"), Unavailable("x"), NotLeader("x")):
            self.assertIs(self.ended(error).outcome, Outcome.NOT_DONE)
            self.assertEqual(self.history.errors, {type(error).__name__: 1})

    def test_unknown(self) -> None:
        """C1: a missing answer is no answer."""
        for error in (OutcomeUnknown("x"), NoAnswer("x")):
            self.assertIs(self.ended(error).outcome, Outcome.UNKNOWN)

    def test_a_condition_that_did_not_hold(self) -> None:
        """It is a `NotDone`, and an answer: it has seen something, and must fit (C4)."""
        operation = self.ended(VersionMismatch("x", version=7, value=b"w"))
        self.assertEqual(operation.answer, Answer(False, 7, b"w"))
        self.assertEqual(self.history.errors, {})

    def test_others(self) -> None:
        """An error that no client should see ends the run."""
        self.assertRaises(StoreFailed, self.ended, StoreFailed("x"))

    def test_visitors(self) -> None:
        """They never try again: what they are told says nothing about what clients are."""
        self.ended(Unavailable("x"))
        ticket = self.history.recorder.begin("v", Kind.GET, b"k", at=1.0)
        self.history.failed(ticket, Unavailable("x"), is_visit=True)
        self.assertEqual(self.history.errors, {"Unavailable": 1})
        self.assertEqual(self.history.visit_errors, {"Unavailable": 1})


class KeyTests(SynchronousTestCase):
    """The keys that are worked on."""

    def test_of_each_partition(self) -> None:
        """A partition without keys would be no part of the campaign."""
        keys = Keys.of(8, 2)
        kinds = [REGISTERS, REGISTERS, ERASED, COUNTERS]
        for partition, those in enumerate(keys.by_partition):
            self.assertEqual([key.partition(b"-")[0] for key in those], kinds)
            self.assertEqual({partition_of(key, 8) for key in those}, {partition})
        self.assertEqual(len({*keys.all}), 8 * len(kinds))


class ValueTests(SynchronousTestCase):
    """Long values."""

    def test_there_and_back(self) -> None:
        """Else a history would be too long to keep; and one in pieces must not look whole."""
        value = padded(b"c1:7", Random(1))
        self.assertGreater(len(value), 8 << 10)
        self.assertEqual(name_of(value), b"c1:7")
        for damaged in (value[:-1], value + b".", value[:-5] + b"x" + value[-4:]):
            self.assertIn(b"damaged", name_of(damaged) or b"")

    def test_short_ones(self) -> None:
        """They, numbers and nothing are as they are."""
        for value in (b"c1:7", b"-12", b"", None):
            self.assertEqual(name_of(value), value)
