"""The simulator is not blind: planted bugs are found (X4)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.storage.store import Store
from tests.sim.mutants.planting import Patch
from tests.simnodes.hunting import hunt
from tests.simnodes.mutants import MUTANTS, planted
from tests.simnodes.surroundings import uncollected

QUICK = {
    "appends_acknowledged_before_sync": 2,
    "applied_index_in_another_batch": 2,
    "failed_sync_ignored": 2,
    "never_synced": 2,
    "votes_released_before_sync": 2,
}
"""Some that the first seeds find, with the seeds that are tried; all: ``python -m
tests.simnodes.hunting``."""


class QuickTests(SynchronousTestCase):
    """A handful, so that a simulator that sees nothing any more is noticed."""

    def test_found(self) -> None:
        """X4: each by one of a few seeds."""
        for name, seeds in QUICK.items():
            self.assertTrue(hunt(name, range(seeds), enough=1).found, f"{name} was not found")
        self.flushLoggedErrors()  # which hold what has logged them
        with uncollected():
            pass  # else what failed in there is laid to the charge of a later test


class PlantingTests(SynchronousTestCase):
    """What is planted is taken out again: else all later tests would test a bug."""

    def test_undone(self) -> None:
        """Also when the run raises."""
        before, during = Store.write, []

        def run() -> None:
            with planted("never_synced"):
                during.append(Store.write)
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, run)
        self.assertIsNot(during[0], before)
        self.assertIs(Store.write, before)

    def test_every_one_can_be_planted(self) -> None:
        """A bug whose place in the code has moved is no bug any more."""
        for mutant in MUTANTS.values():
            patch = Patch()
            mutant.plant(patch)
            self.assertTrue(patch.is_planted, mutant.name)
            patch.undo()

    def test_enough(self) -> None:
        """At least ten bugs of whole nodes."""
        self.assertGreaterEqual(len(MUTANTS), 10)
