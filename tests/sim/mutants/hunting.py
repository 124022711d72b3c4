"""Looks for a planted bug: which seeds find it, and by which invariant."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.sim.invariants import Violation
from tests.sim.mutants.directed import DIRECTED
from tests.sim.mutants.planting import planted
from tests.sim.simulation import Failure, run


@dataclass(slots=True)
class Hunt:
    """What has come of looking for one bug.

    :ivar seeds: how many were run.
    :ivar found: those that found it.
    :ivar invariants: by which.
    :ivar directed: the invariant by which a situation made for it found it.
    """

    name: str
    seeds: int = 0
    found: list[int] = field(default_factory=list)
    invariants: Counter[str] = field(default_factory=Counter)
    directed: str = ""

    def __str__(self) -> str:
        by = ", ".join(f"{name} {count}" for name, count in self.invariants.most_common(3))
        first = f"first {self.found[0]}" if self.found else "-" if self.directed else "NOT FOUND"
        if self.directed:
            by = ", ".join(filter(None, (by, f"directed: {self.directed}")))
        return f"{self.name:<38} {len(self.found):>4} of {self.seeds:>5}  {first:<10} {by}"


def hunt(name: str, seeds: range, enough: int) -> Hunt:
    """Run *seeds* with that bug, until it was found often enough."""
    result = Hunt(name)
    with planted(name):
        if name in DIRECTED:
            try:
                DIRECTED[name]()
            except Violation as violation:
                result.directed = violation.invariant
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
