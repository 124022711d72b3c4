"""Many runs: on all cores, with a summary, and to be taken up again where they stopped."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TextIO, TypeAlias

from tests.sim.simulation import Failure, run

CHUNK_SEEDS = 20

MINIMUM_PER_RUN = {
    "operation: answered": 20.0,
    "committed entries": 20.0,
    "leaders": 1.0,
    "fault: crash": 0.3,
    "fault: power_cut": 0.3,
    "fault: pause": 0.3,
    "fault: disk_stall": 0.3,
    "fault: fail-stop": 0.3,
    "fault: slow_applier": 0.3,
    "fault: loss_burst": 0.3,
    "fault: writes lost": 1.0,
    "fault: partition: full": 0.05,
    "fault: partition: one-way": 0.05,
    "fault: partition: bridge": 0.05,
    "fault: partition: ring": 0.05,
    "fault: partition: isolation": 0.05,
    "fault: partition: deafness": 0.05,
    "fault: partition: deposition": 0.05,
    "message: lost": 10.0,
    "message: duplicated": 3.0,
    "message: late": 5.0,
    "message: cut": 5.0,
    "configurations": 0.5,
    "operator: AddLearner taken": 0.2,
    "operator: Promote taken": 0.1,
    "operator: Demote taken": 0.05,
    "operator: Remove taken": 0.1,
    "operator: transfer begun": 0.3,
    "operation: unknown": 0.5,
    "seen: snapshot installed": 0.3,
    "seen: candidate": 1.5,
    "runs with a partial cut at the end": 0.05,
    "silences": 0.1,
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


@dataclass(slots=True)
class Batch:
    """What has come of the runs so far.

    :ivar next_seed: all before it are done.
    :ivar failures: by seed: the invariant, and what was wrong.
    """

    next_seed: int
    counts: Counter[str] = field(default_factory=Counter)
    failures: dict[int, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0

    def save(self, path: Path) -> None:
        """Write it down, whole or not at all."""
        data = {
            "next_seed": self.next_seed,
            "counts": dict(sorted(self.counts.items())),
            "failures": {str(seed): each for seed, each in sorted(self.failures.items())},
            "seconds": self.seconds,
        }
        part = path.with_suffix(path.suffix + ".part")
        part.write_text(json.dumps(data, indent=1))
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Batch:
        """What `save` has written."""
        data = json.loads(path.read_text())
        failures = {int(seed): (each[0], each[1]) for seed, each in data["failures"].items()}
        return cls(data["next_seed"], Counter(data["counts"]), failures, data["seconds"])


_Result: TypeAlias = tuple[range, Counter[str], dict[int, tuple[str, str]]]


def _run_chunk(seeds: range) -> _Result:
    counts: Counter[str] = Counter()
    failures: dict[int, tuple[str, str]] = {}
    for seed in seeds:
        try:
            counts.update(run(seed).counts)
        except Failure as failure:
            failures[seed] = (failure.invariant, failure.wrong)
    return seeds, counts, failures


def run_all(batch: Batch, end_seed: int, jobs: int) -> Iterator[None]:
    """Run all seeds from the batch's next one to before *end_seed*; yields after some of them."""
    chunks = [
        range(first, min(first + CHUNK_SEEDS, end_seed))
        for first in range(batch.next_seed, end_seed, CHUNK_SEEDS)
    ]
    began, before = time.monotonic(), batch.seconds
    with ExitStack() as stack:
        results: Iterable[_Result] = map(_run_chunk, chunks)
        if jobs > 1:
            pool = stack.enter_context(get_context("spawn").Pool(jobs))
            results = pool.imap(_run_chunk, chunks)
        for seeds, counts, failures in results:
            batch.next_seed = seeds.stop
            batch.counts.update(counts)
            batch.failures.update(failures)
            batch.seconds = before + time.monotonic() - began
            yield


def campaign(
    first_seed: int, end_seed: int, jobs: int, resume: Path | None, out: TextIO = sys.stderr
) -> Batch:
    """Run seeds *first_seed* to before *end_seed*, and show how far it is.

    :param resume: where what has come of it so far is kept.
    """
    batch = Batch(first_seed)
    if resume is not None and resume.exists():
        batch = Batch.load(resume)
    for _ in run_all(batch, end_seed, jobs):
        if resume is not None:
            batch.save(resume)
        out.write("\r" + _bar(batch, first_seed, end_seed))
        out.flush()
    out.write("\n")
    return batch


def _bar(batch: Batch, first_seed: int, end_seed: int) -> str:
    done, total = batch.next_seed - first_seed, end_seed - first_seed
    filled = 40 * done // total
    rate = done / batch.seconds if batch.seconds else 0.0
    bar = "#" * filled + "." * (40 - filled)
    return f"[{bar}] {done}/{total} seeds, {rate:.1f}/s, {len(batch.failures)} failures "


def summary(batch: Batch) -> str:
    """The whole batch, for people."""
    counts = batch.counts
    lines = [f"{counts['runs']} seeds ran to their end in {batch.seconds:.0f} s"]
    width = max((len(name) for name in counts), default=0)
    lines += [f"  {name:<{width}} {counts[name]:>12,}" for name in sorted(counts)]
    for seed, (invariant, wrong) in sorted(batch.failures.items()):
        lines.append(f"FAILED seed {seed}: {wrong.splitlines()[0][:300]}")
        lines.append(f"  python -m tests.sim --seed {seed} --trace   # {invariant}")
    lines += [f"TOO LITTLE: {each}" for each in too_little(counts)]
    return "\n".join(lines)
