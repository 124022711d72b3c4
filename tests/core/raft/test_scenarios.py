"""Each golden scenario, replayed: see `tests.core.raft.scenarios`."""

from __future__ import annotations

from collections.abc import Callable
from difflib import unified_diff

from twisted.trial.unittest import SynchronousTestCase

from tests.core.raft.scenarios import names, path_of, replayed

SCENARIOS_MIN = 30
"""There are at least so many: a folder that is not found would pass."""


def _replay(name: str) -> Callable[[SynchronousTestCase], None]:
    def test(case: SynchronousTestCase) -> None:
        text = path_of(name).read_text()
        now = replayed(text)
        if now != text:
            diff = unified_diff(text.splitlines(), now.splitlines(), name, "now", lineterm="")
            case.fail("\n".join(diff))

    test.__doc__ = path_of(name).read_text().split("\n", 1)[0]
    return test


class ScenarioTests(SynchronousTestCase):
    """One test for each file; what a user would lose stands at its top."""

    def test_they_are_there(self) -> None:
        """Else nothing of all this is checked, and nobody notices."""
        self.assertGreaterEqual(len(names()), SCENARIOS_MIN)

    def test_each_says_what_it_is_for(self) -> None:
        """A trace that nobody can read is put right by rewriting it, whatever it says."""
        for name in names():
            lines = path_of(name).read_text().splitlines()
            self.assertTrue(lines[0].startswith("# "), name)
            self.assertTrue(
                any(line.startswith("# A user would lose") for line in lines[:12]), name
            )


for _name in names():
    setattr(ScenarioTests, f"test_{_name}", _replay(_name))
