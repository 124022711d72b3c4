"""What the store keeps of one replica, beside its state: entries, where the log begins, its mark.

In: what the core wants persisted, and how far the state in the store has come. Out: what goes into
the next batch. Entries are forgotten only when the store's state has what they have done; a mark is
never lower than the one before.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from kvtwist.core.raft import Raft, Ready, Snapshot
from kvtwist.errors import KvtwistError, Unavailable
from kvtwist.node.compaction import Compaction
from kvtwist.storage import logs
from kvtwist.storage.engine import Batch
from kvtwist.storage.marks import Mark


class Kept:
    """Of one replica.

    :param last_written: the last entry that its log in the store has.
    :param saved_index: up to here the state in the store has what entries have changed.
    """

    def __init__(
        self, group: int, raft: Raft, compaction: Compaction, last_written: int, saved_index: int
    ) -> None:
        self._group = group
        self._raft = raft
        self._compaction = compaction
        self._last_written = last_written
        self._base: Snapshot | None = None
        self._mark = Mark(raft.term, raft.vote, 0)
        self._saved_index = saved_index
        self._savings: deque[tuple[int, Deferred[None]]] = deque()

    # -- the log --------------------------------------------------------------------------------

    def take_entries(self, ready: Ready, batch: Batch) -> None:
        """Put hard state and entries into *batch*."""
        is_replacing = bool(ready.entries) and ready.entries[0].index <= self._last_written
        self._last_written = logs.save(batch, self._group, ready, self._last_written)
        if is_replacing:
            self._compaction.measure()
        else:
            self._compaction.appended(ready.entries)

    def take_base(self, batch: Batch) -> None:
        """Put into *batch* that the log begins later; what goes has done its work already."""
        if self._base is not None:
            logs.save_base(batch, self._group, self._base)
            self._base = None

    def compact(self, saved: int) -> bool:
        """Forget entries whose changes are in the store, which has all up to *saved*; whether
        there is something to be taken now."""
        base = self._compaction.compact(saved)
        if base is not None:
            self._base = base
        return base is not None

    def replaced(self, last_written: int) -> None:
        """A snapshot takes the place of the log."""
        self._last_written = last_written
        self._base = None
        self._compaction.measure()

    # -- the mark (S7) --------------------------------------------------------------------------

    def new_mark(self) -> Mark | None:
        """Of a new term or vote: what a store that goes back would forget."""
        if (self._raft.term, self._raft.vote) == (self._mark.term, self._mark.vote):
            return None
        return self.raise_mark()

    def raise_mark(self) -> Mark:
        """How far the replica is, to be kept apart from the store."""
        # While a snapshot takes the place of the log, that is as if nothing of it were durable.
        committed = max(self._mark.committed, self._committed())
        self._mark = Mark(self._raft.term, self._raft.vote, committed)
        return self._mark

    @property
    def is_past_mark(self) -> bool:
        """Whether more is committed than the mark says."""
        return self._committed() > self._mark.committed

    def _committed(self) -> int:
        return min(self._raft.commit_index, self._raft.log.durable_index)

    # -- how far the state is -------------------------------------------------------------------

    def saved(self, index: int) -> None:
        """The state in the store has come to *index*."""
        self._saved_index = index
        while self._savings and self._savings[0][0] <= index:
            self._savings.popleft()[1].callback(None)

    def when_saved(self, index: int) -> Deferred[None]:
        """Fires when it has."""
        saved: Deferred[None] = Deferred()
        if self._saved_index >= index:
            saved.callback(None)
        else:
            self._savings.append((index, saved))
        return saved

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for that."""
        return bool(self._savings)

    def give_up(self, why: KvtwistError) -> None:
        """The replica is over."""
        savings, self._savings = self._savings, deque()
        for _, saved in savings:
            saved.errback(Failure(Unavailable(str(why))))
