"""Runs the simulator of whole nodes: one seed, to look at it, or many.

python -m tests.simnodes --seed 42 --trace
python -m tests.simnodes --seeds 0:10000 --jobs 2 --seconds 3600
"""

from __future__ import annotations

import argparse
import os
import signal
import sys

from tests.simnodes.campaign import campaign, replay_command, summary, too_little
from tests.simnodes.mutants import planted
from tests.simnodes.plan import draw
from tests.simnodes.simulation import Failure, Simulation
from tests.simnodes.surroundings import uncollected

TRACE_EVENTS = 200


def _seeds(text: str) -> range:
    first, _, end = text.rpartition(":")
    return range(int(first or 0), int(end))


def _one(seed: int, mutant: str | None, trace_events: int) -> int:
    plan = draw(seed)
    print(plan)
    with uncollected(), planted(mutant):
        simulation = Simulation(plan)
        try:
            report = simulation.run()
        except Failure as found:
            failure = found.alone()
            if trace_events:
                print(failure.trace.last(trace_events))
                print(*failure.__notes__, sep="\n")
            print(f"FAILED {failure}")
            print(f"again: {replay_command(seed, mutant)}")
            return 1
    if trace_events:
        print(simulation.trace.last(trace_events))
    for name, count in sorted(report.counts.items()):
        print(f"  {name:<40} {count:>10,}")
    print(f"digest {report.digest}")
    return 0


def main() -> int:
    """The exit status: 0 when nothing was found, and enough happened."""
    parser = argparse.ArgumentParser(prog="python -m tests.simnodes", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one")
    which.add_argument("--seeds", type=_seeds, metavar="A:B", help="run A to before B")
    parser.add_argument("--mutant", help="plant this bug first; see tests.simnodes.mutants")
    parser.add_argument(
        "--trace",
        type=int,
        nargs="?",
        const=TRACE_EVENTS,
        default=0,
        metavar="EVENTS",
        help=f"show the last events ({TRACE_EVENTS})",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=float, help="begin no more runs after so long")
    chosen = parser.parse_args()
    # So that the pool takes its processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.seed is not None:
        return _one(chosen.seed, chosen.mutant, chosen.trace)
    batch = campaign(chosen.seeds, chosen.jobs, chosen.seconds)
    print(summary(batch))
    return 1 if batch.failures or too_little(batch.counts) else 0


if __name__ == "__main__":
    sys.exit(main())
