"""The writes of one replica that wait for their entries to be applied.

Rule 1: what is refused was not proposed: nothing was done.

Rule 2: who waits gets the answer to its own entry, known by index and term, and to no other.

Rule 3: a proposal that is lost may be committed all the same, by another leader: its outcome is
unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvtwist.core.raft import Dropped, Entry, Raft, Reason, Role
from kvtwist.core.state.answers import Answer
from kvtwist.core.state.logtime import LogClock
from kvtwist.errors import KvtwistError, NotLeader, OutcomeUnknown, Overloaded, TooLarge
from kvtwist.node.waiting import Writer, tell
from kvtwist.wire.limits import MEMBER_BOXES
from kvtwist.wire.raft import entry_bytes_for

ENTRY_BYTES_MAX = entry_bytes_for(MEMBER_BOXES)
"""A longer entry is not proposed: no follower could be brought it."""

DEPOSED_TICKS: Final = 10
"""So long a replica that leads no more waits for its proposals to be committed by the next leader,
as they mostly are after a hand-over. Then their fate is unknown."""


class Proposals:
    """Of one replica."""

    def __init__(self, group: int, raft: Raft) -> None:
        self._group = group
        self._raft = raft
        self._waiting: dict[int, tuple[int, Writer]] = {}  # by index, each with its term
        self._deposed_ticks = 0

    def propose(self, entry: bytes, writer: Writer) -> KvtwistError | None:
        """Propose an entry; why not, if it was not."""
        if len(entry) > ENTRY_BYTES_MAX:
            return _too_large(len(entry))
        proposed = self._raft.propose((entry,))
        if isinstance(proposed, Dropped):
            return dropped_error(self._group, proposed)
        self._waiting[proposed.index] = proposed.term, writer
        return None

    def __len__(self) -> int:
        return len(self._waiting)

    def applied(self, entry: Entry, answer: Answer | None) -> None:
        """*entry* was applied: tell who waits for its place in the log, if anybody does.

        :param answer: ``None``: it was not a write.
        """
        proposal = self._waiting.pop(entry.index, None)
        if proposal is None:
            return
        term, writer = proposal
        if term == entry.term and answer is not None:
            tell(writer.applied, answer)
        else:
            lost = "its leader was deposed, and another one's entry took the place"
            tell(writer.lost, OutcomeUnknown(lost))

    def tick(self) -> None:
        """Do not wait for long for what another leader may commit, or not."""
        if not self._waiting:
            return
        raft = self._raft
        if raft.role is Role.LEADER and all(
            term == raft.term for term, _ in self._waiting.values()
        ):
            self._deposed_ticks = 0
            return
        self._deposed_ticks += 1
        if self._deposed_ticks >= DEPOSED_TICKS:
            self._deposed_ticks = 0
            self.lose(OutcomeUnknown("its leader was deposed before it was committed"))

    def lose(self, why: KvtwistError) -> None:
        """What was proposed and is not applied will not be, as far as this replica can say."""
        waiting, self._waiting = self._waiting, {}
        for _, writer in waiting.values():
            tell(writer.lost, why)


class Stamps:
    """Log time, as one replica counts it while it leads.

    :param seconds: a monotonic clock.
    """

    def __init__(self, raft: Raft, seconds: Callable[[], float]) -> None:
        self._raft = raft
        self._seconds = seconds
        self._clock: LogClock | None = None
        self._clock_term = 0
        self._clock_saw_ms = 0

    def stamp_ms(self, log_time_ms: int) -> int:
        """Log time now, counted from what the replica had applied when it became the leader.

        :param log_time_ms: of what it has applied by now.
        """
        now, clock = self._seconds(), self._clock
        if clock is None or self._clock_term != self._raft.term:
            clock = self._clock = LogClock(log_time_ms, now)
            self._clock_term, self._clock_saw_ms = self._raft.term, log_time_ms
        elif log_time_ms != self._clock_saw_ms:
            clock.applied(log_time_ms, now)
            self._clock_saw_ms = log_time_ms
        return clock.stamp_ms(now)


def dropped_error(group: int, dropped: Dropped) -> KvtwistError:
    """What became of a request that the core has dropped: nothing."""
    why = f"group {group} does not take it: {dropped.reason.value}"
    if dropped.reason is Reason.UNCOMMITTED_BYTES:
        return Overloaded(why, setting="uncommitted_bytes_max")
    return NotLeader(why)


def _too_large(size_bytes: int) -> TooLarge:
    return TooLarge(
        f"that is {size_bytes} bytes of one partition's log at once, and nodes bring each other "
        f"{ENTRY_BYTES_MAX}: write less in one batch",
        setting="box_bytes_max",
        limit=ENTRY_BYTES_MAX,
        actual=size_bytes,
    )
