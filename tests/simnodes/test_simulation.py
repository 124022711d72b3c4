"""A batch of simulated clusters, and that they can be trusted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.history import Answer, Kind, Operation, Outcome
from tests.simnodes.campaign import MINIMUM_PER_RUN, replay_command, too_little
from tests.simnodes.judging import miscounted
from tests.simnodes.plan import draw
from tests.simnodes.simulation import Failure, Simulation, run
from tests.simnodes.surroundings import uncollected

CHECKOUT = Path(__file__).resolve().parents[2]

SECONDS = float(os.environ.get("KVTWIST_NODES_SIM_SECONDS", "120"))
FIRST_SEED = int(os.environ.get("KVTWIST_NODES_SIM_SEED", "0"))
SEEDS_MIN = 3
SEEDS_TO_COUNT = 60
"""With fewer runs, chance decides whether enough of everything has happened."""


class BatchTests(SynchronousTestCase):
    """As many runs as there is time for."""

    def test_batch(self) -> None:
        """DESIGN's promises 1 to 5: a seed that fails here is a lost or wrong answer, or none at
        all, that a user gets some day.

        What it prints has the seed and the command that shows the run. The time is
        KVTWIST_NODES_SIM_SECONDS of CPU (120), the first seed KVTWIST_NODES_SIM_SEED (0).
        """
        counts: Counter[str] = Counter()
        end, seed = time.process_time() + SECONDS, FIRST_SEED
        while time.process_time() < end or seed < FIRST_SEED + SEEDS_MIN:
            try:
                counts.update(run(seed).counts)
            except Failure as failure:
                self.fail(explain(failure))
            seed += 1
        print(f"{seed - FIRST_SEED} seeds, {counts['operation: answered']} operations answered")
        if seed - FIRST_SEED >= SEEDS_TO_COUNT:
            self.assertEqual(too_little(counts), [], "X1: the batch has shown nothing")
        self.assertGreater(counts["operation: answered"], 0)


def explain(failure: Failure) -> str:
    """What a person needs to go on from here."""
    last, again = failure.trace.last(80), replay_command(failure.seed)
    return f"{failure}\n{failure.plan}\n{last}\nagain: {again}"


class DeterminismTests(SynchronousTestCase):
    """The same number is the same run; else a failure could not be looked at."""

    SEEDS = (1, 4)

    def test_twice(self) -> None:
        """In one process, one after the other, to the last byte on the wire."""
        for seed in self.SEEDS:
            self.assertEqual(run(seed).digest, run(seed).digest, f"seed {seed}")

    def test_every_hash_seed(self) -> None:
        """In a process whose sets of bytes, and of objects, are in other orders."""
        here = [run(seed).digest for seed in self.SEEDS]
        program = (
            "from tests.simnodes.simulation import run\n"
            f"print(*[run(seed).digest for seed in {self.SEEDS}])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONHASHSEED": "4242"},
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        self.assertEqual(done.stdout.split(), here)

    def test_digest_sees_differences(self) -> None:
        """Two seeds are two runs; a digest of nothing would be the same for all."""
        self.assertNotEqual(run(1).digest, run(4).digest)


class PlanTests(SynchronousTestCase):
    """What is drawn."""

    def test_every_size(self) -> None:
        """Clusters of three to seven nodes, with one to five replicas, fail in different ways."""
        plans = [draw(seed) for seed in range(200)]
        self.assertEqual({plan.nodes for plan in plans}, {3, 4, 5, 7})
        self.assertEqual({plan.replicas for plan in plans}, {1, 3, 5})
        self.assertEqual({plan.heals for plan in plans}, {True, False})

    def test_history_is_judged(self) -> None:
        """X1: an empty history is linearizable; here there are changes, reads, counts."""
        operations: list[Operation] = []
        with uncollected():
            for seed in self.SEEDS:
                simulation = Simulation(draw(seed))
                simulation.run()
                operations += simulation.operations
            del simulation
        kinds = Counter(each.kind for each in operations if each.is_answered)
        self.assertGreater(kinds[Kind.PUT], 50)
        self.assertGreater(kinds[Kind.GET], 50)
        self.assertGreater(kinds[Kind.COMPARE_AND_SET], 10)
        self.assertGreater(kinds[Kind.INCREMENT], 10)

    SEEDS = (1, 3)


class CountingTests(SynchronousTestCase):
    """The check that needs no judge."""

    def history(self, *amounts: int, unknown: int, last: int) -> list[Operation]:
        sums = [sum(amounts[: at + 1]) for at in range(len(amounts))]
        done = [
            Operation(
                "c",
                b"n",
                Kind.INCREMENT,
                at,
                at + 1,
                Outcome.ANSWERED,
                Answer(True, at + 1, b"%d" % sums[at]),
                amount=amount,
            )
            for at, amount in enumerate(amounts)
        ]
        seen = Answer(True, 9, b"%d" % last)
        return [
            *done,
            Operation("c", b"n", Kind.INCREMENT, 50, amount=unknown),
            Operation("c", b"n", Kind.GET, 100, 101, Outcome.ANSWERED, seen),
        ]

    def test_bounds(self) -> None:
        """C2: one that was counted twice, or not at all."""
        for last in (7, 12):
            self.assertIsNone(miscounted(b"n", self.history(3, 4, unknown=5, last=last)))
        for last in (4, 14):
            self.assertIsNotNone(miscounted(b"n", self.history(3, 4, unknown=5, last=last)))


class CampaignTests(SynchronousTestCase):
    def test_too_little(self) -> None:
        """X1: a batch in which a kind of fault did not happen has shown nothing."""
        enough = Counter({name: int(each * 100) + 1 for name, each in MINIMUM_PER_RUN.items()})
        enough["runs"] = 100
        self.assertEqual(too_little(enough), [])
        for name in MINIMUM_PER_RUN:
            self.assertEqual(len(too_little(enough - Counter({name: enough[name]}))), 1, name)
