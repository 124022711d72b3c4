"""The checks beside brute force, on small random histories: good ones, bad ones, and many that are
one answer or one moment from the other kind."""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.linearizability.execution import COUNTING, MIXED, Workload, execute, mutated
from tests.linearizability.explain import forgotten
from tests.linearizability.history import Kind, Operation, Outcome
from tests.linearizability.search import Verdict
from tests.linearizability.written import verdicts

HISTORIES = 4000
OPERATIONS_MAX = 7
EVENLY = [(kind, 1) for kind in Kind]


def small_history(seed: int) -> list[Operation]:
    """A history of the kind that *seed* says."""
    random = Random(seed)
    workload = Workload(
        clients=random.choice((2, 3, 4)),
        mix=random.choice((MIXED, COUNTING, EVENLY)),
        unknown=random.choice((0, 0.1, 0.3, 0.6)),
        not_done=0.1,
        values=random.choice((0, 2, 3)),
        are_versions_told=random.random() < 0.6,
        is_removal_told=random.random() < 0.8,
    )
    history = execute(random, random.randint(1, OPERATIONS_MAX), workload)
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        history = mutated(random, history)
    return history


class BruteForceTests(SynchronousTestCase):
    """No check may ever disagree with trying everything."""

    def test_agreement(self) -> None:
        """A check that says "good" of a bad history hides lost data; one that says "bad" of a good
        one sends people after a fault that is not there. (The orders found are replayed too.)"""
        said: Counter[tuple[str, Verdict]] = Counter()
        kinds: Counter[tuple[Kind, Outcome]] = Counter()
        for seed in range(HISTORIES):
            history = small_history(seed)
            found = verdicts(history)
            truth = found["brute force"]
            for check in ("search", "both"):
                self.assertEqual(found[check], truth, f"{check}, seed {seed}: {history}")
            if found["versions"] is not Verdict.UNDECIDED:
                self.assertEqual(found["versions"], truth, f"versions, seed {seed}: {history}")
            said.update(found.items())
            kinds.update((each.kind, each.outcome) for each in history)
        # X1: both verdicts, from each of the checks, and everything that can be in a history.
        for check, least in (("search", 700), ("both", 700), ("versions", 400)):
            for verdict in (Verdict.LINEARIZABLE, Verdict.NOT_LINEARIZABLE):
                self.assertGreater(said[check, verdict], least, f"{check} {verdict}")
        self.assertEqual(said["search", Verdict.UNDECIDED] + said["both", Verdict.UNDECIDED], 0)
        for kind in Kind:
            for outcome in Outcome:
                self.assertGreater(kinds[kind, outcome], 50, f"{kind} {outcome}")

    def test_fast_check_decides_its_domain(self) -> None:
        """Where all versions are told and no write is unknown it leaves nothing to the search."""
        decided: Counter[Verdict] = Counter()
        for seed in range(1000):
            random = Random(seed)
            history = execute(random, OPERATIONS_MAX, Workload(clients=3, unknown=0))
            history = [each for each in mutated(random, history) if not is_unknown_write(each)]
            found = verdicts(history)
            self.assertEqual(found["versions"], found["brute force"], f"seed {seed}: {history}")
            decided[found["versions"]] += 1
        self.assertGreater(decided[Verdict.LINEARIZABLE], 200)
        self.assertGreater(decided[Verdict.NOT_LINEARIZABLE], 200)

    def test_forgetting_only_widens(self) -> None:
        """What counterexamples rest on: a good history stays good when answers are forgotten."""
        for seed in range(500):
            random = Random(seed)
            history = execute(random, OPERATIONS_MAX, Workload(clients=3, unknown=0.2))
            kept = {i for i in range(len(history)) if random.random() < 0.5}
            found = set(verdicts(forgotten(history, kept)).values())
            self.assertLessEqual(found, {Verdict.LINEARIZABLE, Verdict.UNDECIDED}, f"seed {seed}")


def is_unknown_write(operation: Operation) -> bool:
    """Whether it is outside of the fast check's domain."""
    return operation.may_change and not operation.is_answered
