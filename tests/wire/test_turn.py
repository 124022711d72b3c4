"""Turns: what several connections send while one is read goes out at the end, once for each."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.wire.turn import Turn


class TurnTests(SynchronousTestCase):
    """The rules that `kvtwist.wire.connection` builds on."""

    def setUp(self) -> None:
        self.turn = Turn()
        self.sent: list[str] = []

    def corked(self, name: str) -> Corked:
        """Something that notes when it is uncorked."""
        return Corked(name, self.sent, self.turn)

    def test_sends_at_its_end(self) -> None:
        """Else what is asked while answers come in waits for ever."""
        self.assertIs(self.turn.open(), True)
        self.turn.holds_back(self.corked("a"))
        self.turn.holds_back(self.corked("b"))
        self.assertEqual(self.sent, [])
        self.turn.close()
        self.assertEqual(self.sent, ["a", "b"])

    def test_sends_once(self) -> None:
        """What one turn has sent is no business of the next."""
        for _ in range(2):
            self.turn.open()
            self.turn.close()
        self.turn.open()
        self.turn.holds_back(self.corked("a"))
        self.turn.close()
        self.turn.open()
        self.turn.close()
        self.assertEqual(self.sent, ["a"])

    def test_one_that_fails(self) -> None:
        """Else what the others hold back is never sent, in this turn or in any other."""
        self.turn.open()
        bad = self.corked("bad")
        self.patch(bad, "uncork", lambda: 1 / 0)
        self.turn.holds_back(bad)
        self.turn.holds_back(self.corked("a"))
        self.turn.close()
        self.assertEqual(self.sent, ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_has_one_opener(self) -> None:
        """Else a connection read within another's turn sends what the other still adds to."""
        self.assertIs(self.turn.open(), True)
        self.assertIs(self.turn.open(), False)
        self.turn.close()
        self.assertIs(self.turn.open(), True)

    def test_is_over_when_it_sends(self) -> None:
        """Else what sending brings about is held back, with nobody left to send it."""
        self.turn.open()
        one = self.corked("a")
        self.turn.holds_back(one)
        self.turn.close()
        self.assertIs(one.was_open, False)


class Corked:
    """Notes that it was uncorked, and whether there was a turn then."""

    was_open: bool | None = None

    def __init__(self, name: str, sent: list[str], turn: Turn) -> None:
        self._name = name
        self._sent = sent
        self._turn = turn

    def uncork(self) -> None:
        self._sent.append(self._name)
        self.was_open = self._turn.is_open
