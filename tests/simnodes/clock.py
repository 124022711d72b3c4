"""Virtual time, and timers on it: what Twisted's `Clock` is, made for many of them.

`Clock` keeps its calls sorted, which costs as many steps for each new one as there are; here they
stand in a heap, and one that is cancelled stays there until its turn comes. Of two timers that are
due at one moment the one that was set first comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from zope.interface import implementer


class Clock:
    """The true time of a run, in seconds.

    :ivar now: seconds since its beginning.
    :ivar done: how many timers have gone off.
    """

    __slots__ = ("_planned", "_plans", "done", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.done = 0
        self._plans = 0
        self._planned: list[tuple[float, int, Callable[..., None], Any]] = []

    def at(self, when: float, action: Callable[..., None], argument: Any = None) -> None:
        """Have *action* called with *argument* at *when*; that cannot be taken back."""
        self._plans += 1
        heappush(self._planned, (when, self._plans, action, argument))

    def after(self, seconds: float, action: Callable[..., None], argument: Any = None) -> None:
        """The same, *seconds* from now."""
        self.at(self.now + seconds, action, argument)

    def run_until(self, end: float) -> None:
        """Let all happen that is planned up to *end*."""
        planned = self._planned
        while planned and planned[0][0] <= end:
            self.now, _, action, argument = heappop(planned)
            self.done += 1
            action(argument)
        self.now = end


@implementer(IDelayedCall)
class Timer:
    """A call that a host has planned.

    :param seconds: the host's clock.
    :param plan: sets the timer, again if it is reset.
    """

    __slots__ = ("_is_called", "_is_cancelled", "_plan", "_seconds", "call", "due", "planned")

    def __init__(
        self,
        due: float,
        call: Callable[[], Any],
        seconds: Callable[[], float],
        plan: Callable[[Timer], None],
    ) -> None:
        self.due = due
        self.call = call
        self.planned = due
        self._seconds = seconds
        self._plan = plan
        self._is_called = False
        self._is_cancelled = False
        plan(self)

    def getTime(self) -> float:
        """When it goes off, on its host's clock."""
        return self.due

    def active(self) -> bool:
        """Whether it will."""
        return not (self._is_called or self._is_cancelled)

    def cancel(self) -> None:
        """Have it not go off."""
        self._check()
        self._is_cancelled = True

    def reset(self, secondsFromNow: float) -> None:
        """Have it go off then instead."""
        self._check()
        self._move(self._seconds() + secondsFromNow)

    def delay(self, secondsLater: float) -> None:
        """Have it go off so much later."""
        self._check()
        self._move(self.due + secondsLater)

    def go_off(self) -> bool:
        """Its time has come. Whether it was called."""
        if not self.active():
            return False
        if self.due > self.planned:  # it was put off, once or several times
            self.planned = self.due
            self._plan(self)
            return False
        self._is_called = True
        self.call()
        return True

    def _check(self) -> None:
        if self._is_cancelled:
            raise AlreadyCancelled
        if self._is_called:
            raise AlreadyCalled

    def _move(self, due: float) -> None:
        earlier, self.due = due < self.planned, due
        if earlier:
            self.planned = due
            self._plan(self)
