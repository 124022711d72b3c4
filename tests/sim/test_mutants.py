"""The simulator is not blind: planted bugs are found (X4)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.core.raft.state import State
from tests.sim.invariants import Violation, names
from tests.sim.mutants import MUTANTS, planted
from tests.sim.mutants.directed import DIRECTED
from tests.sim.mutants.hunting import hunt
from tests.sim.mutants.planting import Patch
from tests.sim.simulation import run

QUICK = (
    "acknowledged_before_sync",
    "commit_by_counting_an_old_term",
    "configuration_waits_for_its_commit",
    "conflicts_are_kept",
    "election_quorum_off_by_one",
    "learner_acknowledgements_count",
    "no_fsync",
    "pre_vote_changes_the_term",
    "read_before_applied",
    "retry_applied_again",
    "snapshot_without_configuration",
)
"""Some that one of the first seeds finds, each by another invariant, of safety, of liveness, or by
the clients' history; all: ``python -m tests.sim.mutants``."""

SEEDS = range(60)


class QuickTests(SynchronousTestCase):
    """A handful, so that a simulator that sees nothing any more is noticed."""

    def test_found(self) -> None:
        """X4: each by one of a few seeds."""
        for name in QUICK:
            self.assertTrue(hunt(name, SEEDS, enough=1).found, f"{name} was not found")

    def test_nothing_without(self) -> None:
        """What they find is the bug, not something that is there anyway."""
        with planted(None):
            for seed in range(10):
                run(seed)


class DirectedTests(SynchronousTestCase):
    """Situations that runs hardly ever come to."""

    def test_found(self) -> None:
        """R2, R12: with the bug there is a violation, and without it none."""
        for name, situation in DIRECTED.items():
            situation()
            with planted(name):
                self.assertRaises(Violation, situation)


class PlantingTests(SynchronousTestCase):
    """What is planted is taken out again: else all later tests would test a bug."""

    def test_undone(self) -> None:
        """Also when the run raises."""
        before, during = State.send_when_voted, []

        def run() -> None:
            with planted("vote_before_sync"):
                during.append(State.send_when_voted)
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, run)
        self.assertIsNot(during[0], before)
        self.assertIs(State.send_when_voted, before)

    def test_every_one_can_be_planted(self) -> None:
        """A bug whose place in the code has moved is no bug any more."""
        for mutant in MUTANTS.values():
            patch = Patch()
            mutant.plant(patch)
            self.assertTrue(patch.is_planted, mutant.name)
            patch.undo()

    def test_enough(self) -> None:
        """At least 25 bugs, and 20 invariants to find them with."""
        self.assertGreaterEqual(len(MUTANTS), 25)
        self.assertGreaterEqual(len(names()), 20)
