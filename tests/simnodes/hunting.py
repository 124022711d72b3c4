"""Looks for planted bugs: which seeds find them, and by which invariant.

python -m tests.simnodes.hunting
python -m tests.simnodes.hunting --only forwarded_again --enough 10
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing import get_context

from tests.simnodes.mutants import MUTANTS, planted
from tests.simnodes.simulation import Failure, run


@dataclass(slots=True)
class Hunt:
    """What has come of looking for one bug.

    :ivar seeds: how many were run.
    :ivar found: those that found it.
    :ivar invariants: by which.
    """

    name: str
    seeds: int = 0
    found: list[int] = field(default_factory=list)
    invariants: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        by = ", ".join(f"`{name}`" for name, _ in self.invariants.most_common(3))
        what = f"{len(self.found)} of {self.seeds} seeds: {by}" if self.found else "NOT FOUND"
        return f"| `{self.name}` | {MUTANTS[self.name].what} | {what} |"


def hunt(name: str, seeds: range, enough: int) -> Hunt:
    """Run *seeds* with that bug, until it was found often enough."""
    result = Hunt(name)
    with planted(name):
        for seed in seeds:
            result.seeds += 1
            try:
                run(seed)
            except Failure as failure:
                result.found.append(seed)
                result.invariants[failure.invariant] += 1
                if len(result.found) >= enough:
                    break
    return result


def hunt_job(job: tuple[str, range, int]) -> Hunt:
    """`hunt`, for a pool of processes."""
    return hunt(*job)


def main() -> int:
    """The exit status: 0 when all were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simnodes.hunting", description=__doc__)
    parser.add_argument("--seeds", type=int, default=300, help="at most, for each")
    parser.add_argument("--enough", type=int, default=3, help="findings of each")
    parser.add_argument("--only", nargs="*", choices=sorted(MUTANTS), help="these")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    chosen = parser.parse_args()
    # So that the pool takes its processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = chosen.only or sorted(MUTANTS)
    jobs = [(name, range(chosen.seeds), chosen.enough) for name in names]
    missed = 0
    with get_context("spawn").Pool(chosen.jobs) as pool:
        for result in pool.imap_unordered(hunt_job, jobs):
            print(result, flush=True)
            missed += not result.found
    print(f"{len(jobs) - missed} of {len(jobs)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
