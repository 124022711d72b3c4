"""Runs the simulator: one seed, to look at it, or many.

python -m tests.sim --seed 42 --trace
python -m tests.sim --seeds 0:10000 --resume campaign.json
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.sim.campaign import campaign, summary, too_little
from tests.sim.mutants import planted
from tests.sim.plan import draw
from tests.sim.simulation import Failure, Simulation

TRACE_EVENTS = 150


def replay_command(seed: int, mutant: str | None = None) -> str:
    """What runs *seed* again, and shows it."""
    planted_bug = f" --mutant {mutant}" if mutant else ""
    return f"python -m tests.sim --seed {seed}{planted_bug} --trace"


def _seeds(text: str) -> tuple[int, int]:
    first, _, end = text.rpartition(":")
    return int(first or 0), int(end)


def _one(seed: int, mutant: str | None, trace_events: int) -> int:
    plan = draw(seed)
    print(plan)
    with planted(mutant):
        simulation = Simulation(plan)
        try:
            report = simulation.run()
        except Failure as failure:
            if trace_events:
                print(failure.trace.last(trace_events))
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
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--seed", type=int, help="run this one")
    which.add_argument("--seeds", type=_seeds, metavar="A:B", help="run A to before B")
    parser.add_argument("--mutant", help="plant this bug first; see tests.sim.mutants")
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
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on where FILE says")
    chosen = parser.parse_args()
    # So that the pool takes its processes with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.seed is not None:
        return _one(chosen.seed, chosen.mutant, chosen.trace)
    first, end = chosen.seeds
    batch = campaign(first, end, chosen.jobs, chosen.resume)
    print(summary(batch))
    return 1 if batch.failures or too_little(batch.counts) else 0


if __name__ == "__main__":
    sys.exit(main())
