"""What must never be otherwise, wherever a run has got to."""

from tests.sim.invariants.inspector import Inspector
from tests.sim.invariants.registry import Violation, names

__all__ = ["Inspector", "Violation", "names"]
