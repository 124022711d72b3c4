"""What has happened in a run: to be read by people, and to be compared between runs.

An event is a flat row of numbers and short words, and beside it a value that is only shown. The
rows alone make up the run's digest.
"""

from __future__ import annotations

import marshal
from hashlib import blake2b
from typing import NamedTuple, TypeAlias

from tests.sim.schedule import TICK, Schedule


class Event(NamedTuple):
    """One thing that happened.

    :ivar replica: whom it happened to; 0: nobody.
    :ivar shown: anything with a readable `str`; no part of the digest.
    """

    moment: int
    kind: str
    replica: int
    first: int
    second: int
    shown: object

    def __str__(self) -> str:
        who = f"#{self.replica}" if self.replica else ""
        return f"{self.moment / TICK:9.3f} {who:>4} {self.kind:<12} {_readable(self)}"


Row: TypeAlias = tuple[int, str, int, int, int, object]
"""An `Event` as it is kept: a plain tuple, for there are thousands in each run."""


class Trace:
    """The events of a run, in their order."""

    __slots__ = ("_schedule", "events")

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self.events: list[Row] = []

    def add(
        self, kind: str, replica: int, first: int = 0, second: int = 0, shown: object = None
    ) -> None:
        """Something has happened, now."""
        self.events.append((self._schedule.now, kind, replica, first, second, shown))

    def digest(self) -> str:
        """The same for two runs in which the same happened."""
        rows = [event[:5] for event in self.events]
        # In version 0 equal values have equal bytes, whatever is shared between them.
        return blake2b(marshal.dumps(rows, 0), digest_size=16).hexdigest()

    def last(self, events: int) -> str:
        """The last so many events, a line for each."""
        return "\n".join(str(Event(*row)) for row in self.events[-events:])


def _readable(event: Event) -> str:
    shown = event.shown
    if shown is None:
        return f"{event.first} {event.second}"
    text = str(shown)
    return text if len(text) <= 400 else text[:397] + "..."
