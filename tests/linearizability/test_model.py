"""One step on one state: the table that both checks rest on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.history import ABSENT
from tests.linearizability.model import EMPTY, State, Step, after, known_values

AT_3: State = (3, True, b"x")
FROM_3: State = (3, False, b"x")
REMOVED_AT_3: State = (3, False, None)


class AfterTests(SynchronousTestCase):
    """A wrong line here makes both checks wrong in the same way."""

    def test_changes(self) -> None:
        """A change has a higher version than all before; one that was not told has some higher."""
        for state in (AT_3, FROM_3, REMOVED_AT_3):
            put = Step(is_change=True, value_given=b"y")
            self.assertEqual(after(state, put), (4, False, b"y"))
            self.assertEqual(after(state, put._replace(version_given=4)), (4, True, b"y"))
            self.assertIsNone(after(state, put._replace(version_given=3)))
            self.assertIsNone(after(state, put._replace(version_given=2)))

    def test_versions_wanted(self) -> None:
        """An exact version is this one; one that is not known may be any from the lowest on, and
        is known afterwards."""
        for state, wanted, expected in (
            (AT_3, 3, AT_3),
            (AT_3, 2, None),
            (AT_3, 4, None),
            (AT_3, ABSENT, None),
            (FROM_3, 3, AT_3),
            (FROM_3, 2, None),
            (FROM_3, 4, (4, True, b"x")),
            (FROM_3, ABSENT, None),
            (REMOVED_AT_3, ABSENT, REMOVED_AT_3),
            (REMOVED_AT_3, 3, None),
            (EMPTY, ABSENT, EMPTY),
            (EMPTY, 1, None),
        ):
            self.assertEqual(after(state, Step(wanted)), expected, (state, wanted))

    def test_removal(self) -> None:
        """Takes a version, and demands that there is something."""
        removal = Step(is_presence_wanted=True, is_change=True)
        self.assertEqual(after(AT_3, removal), (4, False, None))
        self.assertEqual(after(AT_3, removal._replace(version_given=7)), (7, False, None))
        self.assertIsNone(after(REMOVED_AT_3, removal))

    def test_increment_of_unknown_sum(self) -> None:
        """From what there is; refused where that is no number, or the sum no int64."""
        add = Step(is_change=True, amount=2)
        self.assertEqual(after(EMPTY, add), (1, False, b"2"))
        self.assertEqual(after((3, True, b"-5"), add), (4, False, b"-3"))
        self.assertIsNone(after(AT_3, add))
        self.assertIsNone(after((3, True, b"9223372036854775806"), add))

    def test_learning_nothing_gives_the_same_state(self) -> None:
        """The search knows by this that an observation may take place at once."""
        for step in (Step(3), Step(None, b"x"), Step(is_presence_wanted=True)):
            self.assertIs(after(AT_3, step), AT_3)
        self.assertIsNot(after(FROM_3, Step(3)), FROM_3)

    def test_known_values(self) -> None:
        """From changes and observations; a compare-and-set does not tell what it replaced."""
        steps = [
            Step(4, is_change=True, version_given=5, value_given=b"y"),
            Step(3, b"x"),
            Step(6),
            Step(is_presence_wanted=True, is_change=True, version_given=7),
        ]
        self.assertEqual(known_values(steps), {5: b"y", 3: b"x"})
