"""A batch of simulated runs, and that they can be trusted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.history import Kind, Operation, Outcome
from tests.sim.campaign import too_little
from tests.sim.plan import draw
from tests.sim.simulation import Failure, Simulation, run

CHECKOUT = Path(__file__).resolve().parents[2]

SECONDS = float(os.environ.get("KVTWIST_SIM_SECONDS", "60"))
FIRST_SEED = int(os.environ.get("KVTWIST_SIM_SEED", "0"))
SEEDS_MIN = 60


class BatchTests(SynchronousTestCase):
    """As many runs as there is time for."""

    def test_batch(self) -> None:
        """R1 to R17: a seed that fails here is a lost or wrong answer that a user gets some day.

        What it prints has the seed and the command that shows the run. The time is
        KVTWIST_SIM_SECONDS of CPU (60), the first seed KVTWIST_SIM_SEED (0).
        """
        counts: Counter[str] = Counter()
        end, seed = time.process_time() + SECONDS, FIRST_SEED
        while time.process_time() < end or seed < FIRST_SEED + SEEDS_MIN:
            try:
                counts.update(run(seed).counts)
            except Failure as failure:
                self.fail(explain(failure))
            seed += 1
        print(f"{seed - FIRST_SEED} seeds, {counts['events']} events")
        self.assertEqual(too_little(counts), [], "X1: the batch has shown nothing")


def explain(failure: Failure) -> str:
    """What a person needs to go on from here."""
    again = f"python -m tests.sim --seed {failure.seed} --trace"
    return f"{failure}\n{failure.trace.last(60)}\nagain: {again}"


class DeterminismTests(SynchronousTestCase):
    """The same number is the same run; else a failure could not be looked at."""

    SEEDS = (3, 17, 40)

    def test_twice(self) -> None:
        """In one process, one after the other."""
        for seed in self.SEEDS:
            self.assertEqual(run(seed).digest, run(seed).digest, f"seed {seed}")

    def test_every_hash_seed(self) -> None:
        """In processes whose sets of bytes are in other orders: what depends on that would differ
        between two replicas as well (R17)."""
        here = [run(seed).digest for seed in self.SEEDS]
        program = (
            "from tests.sim.simulation import run\n"
            f"print(*[run(seed).digest for seed in {self.SEEDS}])"
        )
        for hash_seed in ("0", "1", "4242"):
            done = subprocess.run(
                [sys.executable, "-c", program],
                cwd=CHECKOUT,
                env={**os.environ, "PYTHONHASHSEED": hash_seed},
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
            self.assertEqual(done.stdout.split(), here, f"PYTHONHASHSEED={hash_seed}")

    def test_digest_sees_differences(self) -> None:
        """Two seeds are two runs; a digest of nothing would be the same for all."""
        self.assertNotEqual(run(3).digest, run(4).digest)


class PlanTests(SynchronousTestCase):
    """What is drawn."""

    def test_every_size(self) -> None:
        """Groups of one to seven voters, which fail in different ways."""
        sizes = {draw(seed).voters for seed in range(300)}
        self.assertEqual(sizes, {1, 2, 3, 4, 5, 6, 7})

    def test_history_is_judged(self) -> None:
        """X1: an empty history is linearizable; here there are changes, reads, unknown outcomes."""
        operations: list[Operation] = []
        for seed in range(5):
            simulation = Simulation(draw(seed))
            simulation.run()
            operations += simulation.history
        self.assertGreater(sum(each.is_change for each in operations), 40)
        self.assertGreater(sum(each.kind is Kind.GET for each in operations), 40)
        self.assertTrue(any(each.outcome is Outcome.UNKNOWN for each in operations))
