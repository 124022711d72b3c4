"""Time limits of calls: one coarse timer for all of them.

A reactor timer for each request costs 3 to 4 us to set and cancel, half of what all else at a
client's request costs. A call's limit need not be exact. So one timer looks, a few times a second
and only while calls are under way, for those whose time is up. The number of calls in flight on a
connection is bounded, and so is the work of a look.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

_log = Logger(namespace="kvtwist.wire")

TICK_SECONDS: Final = 0.05
"""How much too late a time limit may be."""


class Expiring(Protocol):
    """What has deadlines."""

    def expire(self, now: float) -> bool:
        """End what is overdue at *now*; whether there are deadlines left."""


class Deadlines:
    """The timer.

    :param elapsed_seconds: the clock that deadlines are on; by default the reactor's.
    """

    def __init__(self, reactor: Any, elapsed_seconds: Callable[[], float] | None = None) -> None:
        self.seconds: Callable[[], float] = elapsed_seconds or reactor.seconds
        self._watched: dict[Expiring, None] = {}  # in the order in which they came
        self._ticking = False
        self._loop = LoopingCall(self._tick)
        self._loop.clock = reactor

    def watch(self, expiring: Expiring) -> None:
        """Look at *expiring* until it has no deadlines left."""
        self._watched[expiring] = None
        if not self._loop.running:
            self._loop.start(TICK_SECONDS, now=False)

    def forget(self, expiring: Expiring) -> None:
        """Look at *expiring* no more. When nobody is left, nothing is left in the reactor."""
        self._watched.pop(expiring, None)
        self._rest()

    def _rest(self) -> None:
        # Not within a tick: a loop that is stopped and started while it runs would run twice.
        if not self._watched and not self._ticking and self._loop.running:
            self._loop.stop()

    def _tick(self) -> None:
        now = self.seconds()
        self._ticking = True
        try:
            for expiring in tuple(self._watched):
                try:
                    has_more = expiring.expire(now)
                except Exception:  # whose calls are looked at again; the others' have limits too
                    _log.failure("a bug: looking for overdue calls failed")
                else:
                    if not has_more:
                        self._watched.pop(expiring, None)
        finally:
            self._ticking = False
        self._rest()
