"""Joins what is sent while one connection is read: one write for each connection, not one for each
box.

What a read brings is often answered, or asked anew, at once, and not only on the connection that
was read: a client sends its next request to whichever node owns the key, a node forwards. So the
connections of one client, or of one node, share a `Turn`.
"""

from __future__ import annotations

from typing import Protocol

from twisted.logger import Logger

_log = Logger(namespace="kvtwist.wire")


class Corked(Protocol):
    """What holds back bytes during a turn."""

    def uncork(self) -> None:
        """Send them."""


class Turn:
    """The time in which one connection is read.

    :ivar is_open: whether it is now; then what is to be sent waits for its end.
    """

    __slots__ = ("_corked", "is_open")

    def __init__(self) -> None:
        self.is_open = False
        self._corked: list[Corked] = []

    def open(self) -> bool:
        """Begin one; ``False`` if there is one already, whose end is its opener's business."""
        if self.is_open:
            return False
        self.is_open = True
        return True

    def holds_back(self, corked: Corked) -> None:
        """Have *corked* uncorked at the end of this turn."""
        self._corked.append(corked)

    def close(self) -> None:
        """End it: send everything."""
        self.is_open = False
        corked, self._corked = self._corked, []
        for one in corked:
            try:
                one.uncork()
            except Exception:  # which is its own trouble: the others' bytes have to leave
                _log.failure("a bug: sending at the end of a turn failed")
