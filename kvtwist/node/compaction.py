"""How far a replica's log is forgotten.

A log is in memory, and on the disk: when it has more entries or bytes than it may, it is forgotten
to half of that. What is left is for replicas that are slow.

A leader goes no further than those replicas have got that it hears of, and those that a snapshot is
on its way to: else they would be sent one, or the next one, for what they lack is gone again (with
long values a log's tail is not even one entry). But none of them stops it for ever: past some
multiple of what the log may have, nobody is waited for (R14).
"""

from __future__ import annotations

from collections.abc import Sequence

from kvtwist.core.raft import Entry, Raft, Snapshot
from kvtwist.core.raft.log import total_bytes
from kvtwist.core.raft.progress import Sending

LOG_ENTRIES_MAX = 2048
LOG_BYTES_MAX = 1 << 20
"""A log that has more of either is compacted to half of it. One entry alone may be larger."""
HELD_TIMES = 32
"""How often as much it may have for the sake of other replicas."""
HEARD_TICKS = 40
"""A replica that has not been heard of for so long is not waited for."""
_STEP = 8
"""Of a log that is held, at least this part of what it may have is forgotten at a time: each time
costs the disk something."""


class Compaction:
    """Of one replica's log."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._log_bytes = 0
        self._ticks = 0
        self._heard: dict[int, int] = {}
        self._held: dict[int, int] = {}
        self.measure()

    # -- what the log has -----------------------------------------------------------------------

    def measure(self) -> None:
        """The log is another one than it was: see what it has."""
        log = self._raft.log
        self._log_bytes = total_bytes(log.entries(log.first_index, log.last_index))

    def appended(self, entries: Sequence[Entry]) -> None:
        """It has got *entries*, at its end."""
        self._log_bytes += total_bytes(entries)

    # -- whom it is held for --------------------------------------------------------------------

    def tick(self) -> None:
        """Time passes. A group that has fallen silent is not heard of by anybody."""
        if not self._raft.is_quiescent:
            self._ticks += 1

    def heard(self, replica: int) -> None:
        """Something has come from *replica*."""
        self._heard[replica] = self._ticks

    def hold(self, replica: int, index: int) -> None:
        """A snapshot up to *index* is on its way to *replica*."""
        self._held[replica] = index

    def release(self, replica: int) -> None:
        """There is none any more."""
        self._held.pop(replica, None)

    def _floor(self) -> int:
        """Up to here nobody lacks anything who is waited for."""
        floor = self._raft.last_index
        for replica, progress in self._raft.progress().items():
            index = self._held.get(replica)
            if index is not None:
                floor = min(floor, max(index, progress.match))
            elif progress.sending is not Sending.SNAPSHOT and self._is_heard(replica):
                floor = min(floor, progress.match)
        return floor

    def _is_heard(self, replica: int) -> bool:
        return self._ticks - self._heard.get(replica, 0) <= HEARD_TICKS

    # -- how far --------------------------------------------------------------------------------

    def compact(self, saved: int) -> Snapshot | None:
        """Forget what may be forgotten; where the log begins now, ``None``: as before.

        :param saved: the store has all that entries up to here have changed.
        """
        log = self._raft.log
        if not self._is_over(log.last_index - log.compacted_index, self._log_bytes, 1):
            return None
        index, left_bytes = self._reach(saved)
        forgotten, forgotten_bytes = index - log.compacted_index, self._log_bytes - left_bytes
        if not forgotten or not (
            forgotten > LOG_ENTRIES_MAX // _STEP or forgotten_bytes > LOG_BYTES_MAX // _STEP
        ):
            return None
        base = self._raft.describe(index)
        self._log_bytes = left_bytes
        self._raft.compact(index)
        return base

    def _reach(self, saved: int) -> tuple[int, int]:
        """How far it is to be forgotten, and how many bytes are left then."""
        log = self._raft.log
        index, size_bytes = log.compacted_index, self._log_bytes
        floor = min(saved, self._floor())
        is_held = not self._is_over(log.last_index - index, size_bytes, HELD_TIMES)
        for entry in log.entries(index + 1, floor if is_held else saved):
            count = log.last_index - index
            if index >= floor and not self._is_over(count, size_bytes, HELD_TIMES):
                break
            if count <= LOG_ENTRIES_MAX // 2 and size_bytes <= LOG_BYTES_MAX // 2:
                break
            index, size_bytes = entry.index, size_bytes - entry.size_bytes
        return index, size_bytes

    def _is_over(self, entries: int, size_bytes: int, times: int) -> bool:
        return entries > times * LOG_ENTRIES_MAX or size_bytes > times * LOG_BYTES_MAX
