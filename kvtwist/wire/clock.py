"""Which clock a node measures elapsed time with (T1).

Twisted's reactor counts ``time.time``: when somebody sets the wall clock back by an hour, every
timer stands still for an hour. A node that owns its process mends the reactor
(`make_monotonic`, before the first timer); a node that is a guest in another program must leave it
alone, and at least measures its own durations by ``time.monotonic``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from twisted.logger import Logger

_log = Logger(namespace="kvtwist.node")

_SAME_CLOCK_SECONDS = 1.0

_warned: WeakSet[Any] = WeakSet()
"""The reactors that were warned about: once is enough, however many nodes and clients use one."""


def make_monotonic(reactor: Any) -> None:
    """Have *reactor* count monotonic time.

    :raises RuntimeError: when it has timers already: they were counted by the other clock, and
        would never fire.
    """
    if reactor.seconds is time.monotonic:
        return
    if reactor.getDelayedCalls():
        raise RuntimeError("the reactor has timers already: its clock cannot be changed any more")
    reactor.seconds = time.monotonic


def elapsed_clock(reactor: Any) -> Callable[[], float]:
    """The function that a node takes times from, in seconds since whenever.

    The reactor's own, unless that is the wall clock: then ``time.monotonic``, and a warning.
    """
    if abs(reactor.seconds() - time.time()) > _SAME_CLOCK_SECONDS:
        seconds: Callable[[], float] = reactor.seconds
        return seconds
    if reactor not in _warned:
        _warned.add(reactor)
        _log.warn(
            "this reactor's timers follow the wall clock: when it is set back, kvtwist's timeouts "
            "wait that much longer. Set reactor.seconds = time.monotonic before the first timer"
        )
    return time.monotonic
