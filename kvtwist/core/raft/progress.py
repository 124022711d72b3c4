"""What a leader knows of another replica's log, and how much it sends there.

Three states, each with its own way of sending::

    PROBE       it is not known where the logs agree: one message, then wait for its answer or for
                the next heartbeat's
    REPLICATE   they agree up to ``match``: send one after another, as much as may be under way
    SNAPSHOT    what it needs is compacted: send nothing until a snapshot has arrived, or failed

    PROBE --accepted--> REPLICATE --rejected, or lost--> PROBE
    PROBE, REPLICATE --compacted--> SNAPSHOT --arrived, or failed--> PROBE

**Invariant:** ``match < next``.

``match`` and ``next`` are the paper's *matchIndex* and *nextIndex* (figure 2).
"""

from __future__ import annotations

from collections import deque
from enum import Enum


class Sending(Enum):
    """The states."""

    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """One replica's.

    :ivar match: its log is known to be the leader's up to here, durably; never falls (R12).
    :ivar next: the entry to send next.
    :ivar is_waiting: in `Sending.PROBE`: a message is out, and unanswered.
    :ivar pending_snapshot_index: in `Sending.SNAPSHOT`: of the snapshot under way; 0: none yet.
    :ivar is_active: it was heard of since the leader last looked, once an election timeout.
    :ivar was_active: it had been heard of when the leader last looked.
    :ivar round: the latest round of heartbeats that it has answered.
    :ivar told_commit: the commit index in the latest `AppendRequest` to it.
    """

    __slots__ = (
        "_bytes_max",
        "_inflight",
        "_inflight_bytes",
        "_messages_max",
        "is_active",
        "is_waiting",
        "match",
        "next",
        "pending_snapshot_index",
        "round",
        "sending",
        "told_commit",
        "was_active",
    )

    def __init__(self, next_index: int, messages_max: int, bytes_max: int) -> None:
        self.match = 0
        self.next = next_index
        self.sending = Sending.PROBE
        self.is_waiting = False
        self.is_active = True
        self.was_active = True
        self.pending_snapshot_index = 0
        self.round = 0
        self.told_commit = 0
        self._messages_max = messages_max
        self._bytes_max = bytes_max
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0

    @property
    def is_heard(self) -> bool:
        """Whether it was heard of within an election timeout or two; for people."""
        return self.is_active or self.was_active

    @property
    def may_send(self) -> bool:
        """Whether an `AppendRequest` may be sent now."""
        if self.sending is Sending.REPLICATE:
            return not self.is_full
        return self.sending is Sending.PROBE and not self.is_waiting

    @property
    def is_full(self) -> bool:
        """In `Sending.REPLICATE`: as much is under way as may be (R16)."""
        full = len(self._inflight) >= self._messages_max or self._inflight_bytes >= self._bytes_max
        return self.sending is Sending.REPLICATE and full

    @property
    def inflight(self) -> tuple[int, int]:
        """How many messages with entries are under way, and of how many bytes."""
        return len(self._inflight), self._inflight_bytes

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries up to *last_index* have been sent; none, if that is before ``next``."""
        if self.sending is Sending.PROBE:
            self.is_waiting = True
        elif last_index >= self.next:
            self.next = last_index + 1
            self._inflight.append((last_index, size_bytes))
            self._inflight_bytes += size_bytes

    def accepted(self, index: int) -> bool:
        """It has everything up to *index*. Whether that is news."""
        while self._inflight and self._inflight[0][0] <= index:
            self._drop_first()
        is_news = index > self.match
        if is_news:
            self.match = index
        if self.sending is Sending.PROBE:
            self._become(Sending.REPLICATE)
            self.next = self.match + 1
        else:
            self.next = max(self.next, self.match + 1)
        return is_news

    def rejected(self, index: int, hint_index: int) -> bool:
        """It does not have the entry at *index*, but may have that at *hint_index*.

        Whether that is news: an old rejection must not put back what is known since.
        """
        if self.sending is Sending.REPLICATE:
            if index <= self.match:
                return False
            self._become(Sending.PROBE)
            self.next = self.match + 1
            return True
        if self.sending is Sending.SNAPSHOT or index != self.next - 1:
            return False
        self.next = max(min(index, hint_index + 1), self.match + 1)
        self.is_waiting = False
        return True

    def probe(self) -> None:
        """Find out where its log stands."""
        self.next = max(self.match, self.pending_snapshot_index) + 1
        self._become(Sending.PROBE)

    def snapshot_failed(self) -> None:
        """The snapshot did not arrive: find out what is there without it."""
        self.pending_snapshot_index = 0
        self.probe()

    def need_snapshot(self) -> None:
        """What it needs next is compacted."""
        self._become(Sending.SNAPSHOT)

    def heard(self) -> None:
        """It has answered a heartbeat: a probe that was lost may be sent again."""
        self.is_active = True
        self.is_waiting = False

    def _become(self, sending: Sending) -> None:
        self.sending = sending
        self.is_waiting = False
        self.pending_snapshot_index = 0
        self._inflight.clear()
        self._inflight_bytes = 0

    def _drop_first(self) -> None:
        _, size_bytes = self._inflight.popleft()
        self._inflight_bytes -= size_bytes
