"""Whether the peer of a connection still does something: what is seen of it every few seconds.

Two things end a connection: silence, and a box that has begun and crawls. Silence is of no account
while something of the peer's is being worked on, or while it takes what it is sent. A box in
fragments is judged by what has come of it, over the whole time that it has taken: what comes
between its fragments says nothing of it.
"""

from __future__ import annotations

from typing import NamedTuple

from kvtwist.wire.boxes import BoxReader
from kvtwist.wire.fragments import FRAGMENT_BYTES_MAX
from kvtwist.wire.intake import Intake
from kvtwist.wire.limits import ConnectionLimits

BETWEEN_BYTES_MAX = 2 * FRAGMENT_BYTES_MAX
"""What whoever sends as we do sends at most from one fragment of a box to the next: a burst of
small boxes, the last of which may have any size that is not large; and the next fragment is under
way."""


class _Seen(NamedTuple):
    """What the last look saw.

    ``inside`` are the numbers of the boxes that had begun, one as such and one in fragments;
    ``None`` between boxes. ``quiet_looks`` counts whole intervals of silence: a new connection's
    first one may be no whole one.
    """

    read_bytes: int = 0
    inside: tuple[int | None, int | None] = (None, None)
    quiet_looks: int = -1


class Liveness:
    """What is known of the life of one connection's peer.

    :ivar reads: how often bytes have come in.
    :ivar read_bytes: how many.
    :ivar has_taken: whether it has taken all that the transport had, since the last look.
    """

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._seen = _Seen()
        self.reads = 0
        self.read_bytes = 0
        self.has_taken = False
        self._joined: int | None = None
        self._joined_from_bytes = 0
        self._joined_seconds = 0.0

    def objection(
        self, interval_seconds: float, intake: Intake, is_busy: bool, is_paused: bool
    ) -> str:
        """Why the connection has to end, if it has; to be asked every *interval_seconds*.

        :param is_busy: whether something of the peer's is being worked on.
        :param is_paused: whether this end does not read, so that no box can go on.
        """
        before, limits = self._seen, self._limits
        progress_bytes = self.read_bytes - before.read_bytes
        is_quiet = not (progress_bytes or is_busy or self.has_taken)
        self.has_taken = False
        inside = (
            (None, None) if is_paused else (_begun(intake.reader), _begun(intake.joiner.reader))
        )
        now = _Seen(self.read_bytes, inside, before.quiet_looks + 1 if is_quiet else 0)
        self._seen = now
        lags = self._joined_lags(interval_seconds, inside[1], intake.joiner.read_bytes)
        both = zip(before.inside, now.inside, strict=True)
        stuck = any(one is not None and one == other for one, other in both)
        if lags or (stuck and progress_bytes < limits.box_bytes_per_second_min * interval_seconds):
            return f"under box_bytes_per_second_min={limits.box_bytes_per_second_min}"
        if now.quiet_looks * interval_seconds >= limits.idle_seconds_max:
            return f"over idle_seconds_max={limits.idle_seconds_max}"
        return ""

    def _joined_lags(self, interval_seconds: float, number: int | None, read_bytes: int) -> bool:
        """Whether the box of that *number*, in fragments, has had too little since it was seen."""
        if number is None or number != self._joined:
            self._joined, self._joined_from_bytes, self._joined_seconds = number, read_bytes, 0.0
            return False
        self._joined_seconds += interval_seconds
        least_bytes = self._limits.box_bytes_per_second_min * self._joined_seconds
        return read_bytes - self._joined_from_bytes < least_bytes - BETWEEN_BYTES_MAX


def _begun(reader: BoxReader) -> int | None:
    """The number of the box that has begun."""
    return reader.boxes if reader.is_inside_box else None
