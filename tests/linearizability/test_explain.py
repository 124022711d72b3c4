"""Counterexamples: small, true, and readable by who has to find the fault."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.explain import Counterexample, forgotten
from tests.linearizability.history import ABSENT, Kind, Outcome
from tests.linearizability.judge import Judgement, assert_linearizable, check
from tests.linearizability.search import Verdict
from tests.linearizability.written import (
    added,
    ended,
    got,
    not_swapped,
    put,
    removed,
    swapped,
    unknown,
)

NOISE = [
    each
    for i in range(100)
    for each in (put("n", (i, i + 0.2), b"n%d" % i, i + 1), got("m", (i, i + 0.5), i + 1))
]
STALE = got("b", (200, 201), 50, b"n49")


def judged_wrong(judgement: Judgement) -> str:
    """The text of a judgement that must be a bad one."""
    assert judgement.verdict is Verdict.NOT_LINEARIZABLE, judgement
    return str(judgement)


class CounterexampleTests(SynchronousTestCase):
    """What is left of a long history."""

    maxDiff = None

    def test_stale_read_among_many(self) -> None:
        """200 good operations and a stale read: the read, and the write that it should have seen.
        The write of what it saw instead is context."""
        judgement = check([*NOISE, STALE])
        self.assertEqual(
            judged_wrong(judgement).splitlines(),
            [
                "not linearizable: key b'k', these 2 of 201 operations fit in no order:",
                "          99 .. 99.2       n            put b'n99'                       "
                "-> version 100",
                "         200 .. 201        b            get                              "
                "-> version 50 b'n49'",
                "writes of what they saw:",
                "          49 .. 49.2       n            put b'n49'                       "
                "-> version 50",
            ],
        )

    def test_what_is_shown_is_enough(self) -> None:
        """All other answers forgotten, it is still wrong; and with one less it is not."""
        history = [*NOISE, STALE]
        shown = check(history).counterexample
        assert shown is not None
        kept = {history.index(each) for each in shown.answers}
        self.assertIs(check(forgotten(history, kept)).verdict, Verdict.NOT_LINEARIZABLE)
        for each in kept:
            rest = forgotten(history, kept - {each})
            self.assertIs(check(rest).verdict, Verdict.LINEARIZABLE)

    def test_write_said_not_to_be_done(self) -> None:
        """The one that explains it all is shown, though it is not part of the contradiction."""
        refused = ended(Outcome.NOT_DONE, "a", Kind.PUT, 150, b"refused")
        text = judged_wrong(check([*NOISE, refused, got("b", (200, 201), 101, b"refused")]))
        self.assertIn("these 1 of 202", text)
        self.assertIn("put b'refused'                   NOT DONE", text)

    def test_without_versions(self) -> None:
        """The search's counterexamples are small as well."""
        history = [
            each
            for i in range(60)
            for each in (
                put("a", (i, i + 0.2), b"v%d" % i, None),
                got("b", (i + 0.3, i + 0.4), None, b"v%d" % i),
            )
        ]
        judgement = check([*history, got("c", (100, 101), None, b"v7")])
        judged_wrong(judgement)
        assert judgement.counterexample is not None
        self.assertLessEqual(len(judgement.counterexample.answers), 4)

    def test_first_wrong_key(self) -> None:
        """Of several keys the one that is wrong is named, and explained."""
        other = put("a", (0, 1), b"x", 1, key=b"other")
        text = judged_wrong(check([other, got("b", (2, 3), ABSENT, key=b"other"), *NOISE]))
        self.assertIn("key b'other', these 2 of 2", text)

    def test_each_kind_can_be_read(self) -> None:
        """One line for each operation, whatever it is."""
        example = Counterexample(
            key=b"k",
            operations=6,
            answers=(
                swapped("a", (0, 1), ABSENT, b"x", 1),
                not_swapped("a", (0, 1), 7, ABSENT),
                removed("a", (0, 1), None, demanded=3),
                added("a", (0, 1), -2, b"-2", 4),
                put("a", (0, 1), b"y" * 100, None),
                unknown("a", Kind.DELETE, 0),
            ),
            context=(),
        )
        self.assertEqual(
            [line[40:] for line in str(example).splitlines()[1:]],
            [
                "compare-and-set b'x' if absent   -> version 1",
                "compare-and-set b'never' if at 7 -> failed, saw no key",
                "delete if at 3                   -> done",
                "increment by -2                  -> version 4 b'-2'",
                "put b'yyyyyyyyyyyyyyyyyyyy'... (100 bytes) -> done",
                "delete                           UNKNOWN",
            ],
        )


class AssertTests(SynchronousTestCase):
    """The way in that most callers take."""

    def test_wrong(self) -> None:
        """The failure of a test tells the counterexample."""
        error = self.assertRaises(AssertionError, assert_linearizable, [*NOISE, STALE])
        self.assertIn("-> version 50 b'n49'", str(error))

    def test_undecided_is_a_failure(self) -> None:
        """X2: with too small a budget nothing is known, and that is said."""
        history = [put("a", (0, 9), b"%d" % i, None) for i in range(9)] + [
            got("b", (10, 11), None, b"8"),
            got("b", (0, 11), None, b"7"),
        ]
        self.assertIs(check(history, budget=1).verdict, Verdict.UNDECIDED)
        error = self.assertRaises(AssertionError, assert_linearizable, history, budget=1)
        self.assertIn("undecided: b'k' after", str(error))
        assert_linearizable(history)

    def test_wrong_is_worse_than_undecided(self) -> None:
        """A key that is wrong is reported even if another one was given up."""
        hard = [put("a", (0, 9), b"%d" % i, None, key=b"hard") for i in range(9)]
        hard.append(got("b", (10, 11), None, b"8", key=b"hard"))
        self.assertIs(check(hard, budget=1).verdict, Verdict.UNDECIDED)
        self.assertIs(check([*hard, *NOISE, STALE], budget=1).verdict, Verdict.NOT_LINEARIZABLE)
