"""Virtual time: what happens when, and in which order.

Time is a whole number of *moments*; `TICK` of them are one tick of a replica whose clock is right.
Of two events at one moment the one that was planned first comes first, so that nothing depends on
addresses, hashes or the order of a set.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

TICK = 1000
"""Moments in a tick."""


class Schedule:
    """What is planned.

    :ivar now: in moments.
    :ivar done: how many events have happened.
    """

    __slots__ = ("_planned", "_plans", "done", "now")

    def __init__(self) -> None:
        self.now = 0
        self.done = 0
        self._plans = 0
        self._planned: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []

    def after(self, moments: int, action: Callable[..., None], *arguments: Any) -> None:
        """Have *action* happen in so many moments."""
        self._plans += 1
        heappush(self._planned, (self.now + moments, self._plans, action, arguments))

    def run_until(self, moment: int) -> None:
        """Let everything happen that is planned for *moment* or earlier."""
        planned = self._planned
        while planned and planned[0][0] <= moment:
            self.now, _, action, arguments = heappop(planned)
            self.done += 1
            action(*arguments)
        self.now = moment
