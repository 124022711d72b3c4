"""What can be an operation, and the recorder."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.history import (
    ABSENT,
    Answer,
    Kind,
    Operation,
    Outcome,
    Recorder,
    number_of,
)
from tests.linearizability.judge import assert_linearizable


class OperationTests(SynchronousTestCase):
    """A history that was recorded wrongly must not pass for a good or a bad one."""

    def assert_refused(self, why: str, kind: Kind, answer: Answer | None, **more: Any) -> None:
        """Such an operation cannot be made, and *why* is said."""
        facts = {"invoked": 0, "returned": 1, "outcome": Outcome.ANSWERED} | more
        error = self.assertRaises(ValueError, Operation, "a", b"k", kind, answer=answer, **facts)
        self.assertIn(why, str(error))

    def test_contradictions(self) -> None:
        """Each of them, by name."""
        seen, failed = Answer(True, 1, b"x"), Answer(False, 1)
        for why, kind, answer, more in (
            ("if and only if", Kind.GET, None, {}),
            ("if and only if", Kind.GET, seen, {"outcome": Outcome.UNKNOWN}),
            ("before it was invoked", Kind.GET, seen, {"invoked": 2}),
            ("came at some time", Kind.GET, seen, {"returned": None}),
            ("value to write", Kind.GET, seen, {"value": b"x"}),
            ("value to write", Kind.PUT, Answer(True, 1), {}),
            ("demands a version", Kind.COMPARE_AND_SET, Answer(True, 1), {"value": b"x"}),
            ("demands no version", Kind.GET, seen, {"version": 1}),
            ("no such version", Kind.DELETE, failed, {"version": ABSENT}),
            ("not negative", Kind.GET, Answer(True, -1), {}),
            ("above 0", Kind.PUT, Answer(True, ABSENT), {"value": b"x"}),
            ("says the sum", Kind.INCREMENT, Answer(True, 1), {"amount": 1}),
            ("says the sum", Kind.INCREMENT, Answer(True, 1, b"x"), {"amount": 1}),
            ("has no value", Kind.GET, Answer(True, ABSENT, b"x"), {}),
            ("are done", Kind.GET, Answer(False, 1), {}),
            ("are done", Kind.PUT, Answer(False, 1), {"value": b"x"}),
            ("a get says", Kind.GET, Answer(True), {}),
            ("says the version seen", Kind.DELETE, Answer(False), {"version": 1}),
        ):
            self.assert_refused(why, kind, answer, **more)

    def test_numbers(self) -> None:
        """One form for each number of int64, and a missing key is 0."""
        for value, number in (
            (None, 0),
            (b"0", 0),
            (b"-7", -7),
            (b"9223372036854775807", 2**63 - 1),
            (b"-9223372036854775808", -(2**63)),
        ):
            self.assertEqual(number_of(value), number)
        for value in (
            b"", b"-", b"-0", b"+1", b"01", b" 1", b"1_0", b"\xb2", b"9223372036854775808",
            b"-9223372036854775809", b"1" * 5000,
        ):  # fmt: skip
            self.assertIsNone(number_of(value), value)


class RecorderTests(SynchronousTestCase):
    """How runs write their histories down."""

    def test_outcomes(self) -> None:
        """One of each; what never ended is unknown, not forgotten."""
        recorder = Recorder()
        write = recorder.begin("a", Kind.PUT, b"k", at=1, value=b"x")
        refused = recorder.begin("b", Kind.DELETE, b"k", at=2, version=7)
        recorder.not_done(refused, at=3)
        recorder.answered(write, at=4, version=1)
        given_up = recorder.begin("b", Kind.INCREMENT, b"k", at=5, amount=1)
        recorder.unknown(given_up, at=6)
        recorder.begin("a", Kind.COMPARE_AND_SET, b"k", at=7, value=b"y", version=ABSENT)
        self.assertEqual(len(recorder), 4)
        self.assertEqual(
            [(each.outcome, each.invoked, each.returned) for each in recorder.operations()],
            [
                (Outcome.ANSWERED, 1, 4),
                (Outcome.NOT_DONE, 2, 3),
                (Outcome.UNKNOWN, 5, 6),
                (Outcome.UNKNOWN, 7, None),
            ],
        )
        judged = assert_linearizable(recorder.operations())
        self.assertEqual(
            (judged.keys, judged.answered, judged.changes, judged.unknown, judged.not_done),
            (1, 1, 1, 2, 1),
        )

    def test_ends_once(self) -> None:
        """An answer that comes after the client gave up must not make the outcome known: nobody
        was told."""
        recorder = Recorder()
        ticket = recorder.begin("a", Kind.GET, b"k", at=1)
        recorder.unknown(ticket, at=2)
        self.assertRaises(ValueError, recorder.answered, ticket, at=3, version=ABSENT)
