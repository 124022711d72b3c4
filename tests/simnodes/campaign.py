"""Many runs: on all cores, for as long as there is time, with a summary."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TextIO

from tests.simnodes.simulation import Failure, run

MINIMUM_PER_RUN = {
    "operation: answered": 40.0,
    "operation: unknown": 1.0,
    "operation: not done": 0.5,
    "entries": 30.0,
    "leaders": 3.0,
    "fault: crash": 0.1,
    "fault: power_cut": 0.1,
    "fault: rolling_restart": 0.1,
    "fault: freeze": 0.1,
    "fault: leader_freeze": 0.1,
    "fault: slow_host": 0.1,
    "fault: cut": 0.1,
    "fault: flapping_cut": 0.1,
    "fault: cut: full": 0.03,
    "fault: cut: one-way": 0.03,
    "fault: cut: bridge": 0.03,
    "fault: cut: ring": 0.03,
    "fault: cut: isolation": 0.03,
    "fault: cut: deafness": 0.03,
    "fault: cut: deposition": 0.03,
    "fault: cut: clients": 0.03,
    "fault: resets": 0.1,
    "fault: half_open": 0.1,
    "fault: late_packets": 0.1,
    "fault: disk_stall": 0.1,
    "fault: disk_failure": 0.1,
    "fault: disk_full": 0.1,
    "fault: client_crash": 0.1,
    "fault: client_freeze": 0.1,
    "fault: stranger": 0.1,
    "fault: generation": 0.1,
    "runs with a minority away at the end": 0.1,
    "starts of nodes": 4.0,
    "snapshots installed": 0.3,
    "disk: commits under a crash": 0.1,
    "disk: unsynced writes lost": 0.3,
    "network: packets held up": 1.0,
    "network: late packets": 1.0,
}
"""What must have happened in a run, on average: less, and the batch has shown nothing (X1)."""


def too_little(counts: Counter[str]) -> list[str]:
    """What did not happen often enough for the batch to be worth anything."""
    runs = counts["runs"]
    return [
        f"{name}: {counts[name]} in {runs} runs, at least {per_run * runs:.0f} are needed"
        for name, per_run in MINIMUM_PER_RUN.items()
        if counts[name] < per_run * runs
    ]


def replay_command(seed: int, mutant: str | None = None) -> str:
    """What runs *seed* again, and shows it."""
    planted_bug = f" --mutant {mutant}" if mutant else ""
    return f"python -m tests.simnodes --seed {seed}{planted_bug} --trace"


@dataclass(slots=True)
class Batch:
    """What has come of the runs so far.

    :ivar failures: by seed: the plan, and what was wrong.
    """

    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """How many runs there were."""
        return self.counts["runs"] + len(self.failures)


def run_one(seed: int) -> tuple[int, Counter[str], tuple[str, str] | None]:
    """The run of *seed*, for a pool of processes."""
    try:
        return seed, run(seed).counts, None
    except Failure as failure:
        return seed, Counter(), (str(failure.plan), failure.wrong)


def run_all(batch: Batch, seeds: Iterable[int], jobs: int) -> Iterator[None]:
    """Run all *seeds*; yields after each."""
    began = time.monotonic()
    with ExitStack() as stack:
        results = map(run_one, seeds)
        if jobs > 1:
            pool = stack.enter_context(get_context("spawn").Pool(jobs))
            results = pool.imap(run_one, seeds)  # type: ignore[assignment]
        for seed, counts, failure in results:
            batch.counts.update(counts)
            if failure is not None:
                batch.failures[seed] = failure
            batch.seconds = time.monotonic() - began
            yield


def campaign(seeds: range, jobs: int, seconds: float | None, out: TextIO = sys.stderr) -> Batch:
    """Run *seeds*, or as many of them as *seconds* allow, and show how far it is."""
    batch = Batch()
    for _ in run_all(batch, seeds, jobs):
        rate = batch.done / batch.seconds if batch.seconds else 0.0
        answered = batch.counts["operation: answered"]
        out.write(
            f"\r{batch.done}/{len(seeds)} seeds, {rate:.2f}/s, {answered:,} operations answered, "
            f"{len(batch.failures)} failures "
        )
        out.flush()
        if seconds is not None and batch.seconds >= seconds:
            break
    out.write("\n")
    return batch


def summary(batch: Batch) -> str:
    """The whole batch, for people."""
    counts = batch.counts
    lines = [f"{counts['runs']} seeds ran to their end in {batch.seconds:.0f} s"]
    width = max((len(name) for name in counts), default=0)
    lines += [f"  {name:<{width}} {counts[name]:>12,}" for name in sorted(counts)]
    for seed, (plan, wrong) in sorted(batch.failures.items()):
        lines.append(f"FAILED seed {seed}: {wrong.splitlines()[0][:300]}")
        lines.append(f"  {plan}")
        lines.append(f"  {replay_command(seed)}")
    lines += [f"TOO LITTLE: {each}" for each in too_little(counts)]
    return "\n".join(lines)
