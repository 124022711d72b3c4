"""Plants each bug, and shows which seeds find it, and by what.

python -m tests.sim.mutants
python -m tests.sim.mutants --only vote_before_sync --enough 50
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from multiprocessing import get_context

from tests.sim.mutants import MUTANTS
from tests.sim.mutants.hunting import hunt_job


def main() -> int:
    """The exit status: 0 when all were found."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.mutants", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="at most, for each")
    parser.add_argument("--enough", type=int, default=10, help="findings of each")
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
            missed += not result.found and not result.directed
    print(f"{len(jobs) - missed} of {len(jobs)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
