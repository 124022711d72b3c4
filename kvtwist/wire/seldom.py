"""Log lines that a peer can provoke, at most one a second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.logger import Logger

INTERVAL_SECONDS: Final = 1.0


class Seldom:
    """A logger that says how many lines it has kept to itself.

    :param seconds: the clock.
    """

    def __init__(self, log: Logger, seconds: Callable[[], float]) -> None:
        self._log = log
        self._seconds = seconds
        self._next_at = float("-inf")
        self._kept = 0

    def warn(self, line: str) -> None:
        """Log *line*, unless there was one less than a second ago."""
        now = self._seconds()
        if now < self._next_at:
            self._kept += 1
            return
        kept, self._kept = self._kept, 0
        self._next_at = now + INTERVAL_SECONDS
        more = f" (and {kept} more such lines)" if kept else ""
        self._log.warn("{line}{more}", line=line, more=more)
