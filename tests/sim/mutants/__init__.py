"""Bugs that others have had, or might have; the simulator must find each of them (X4).

`planting` says how they get into the code, the other modules have them. ``python -m
tests.sim.mutants`` shows which run finds which.
"""

from tests.sim.mutants import callers, elections, membership, reads, replication
from tests.sim.mutants.planting import MUTANTS, Mutant, planted

__all__ = [
    "MUTANTS",
    "Mutant",
    "callers",
    "elections",
    "membership",
    "planted",
    "reads",
    "replication",
]
