"""The reads of one replica: asked, confirmed by a majority, and answered from what is applied.

::

    asked --the round of its context--> confirmed, with an index --that is applied--> answered
          --the leader has changed--> lost: Unavailable

All that are asked before the next Ready share its round, and so may share a context: a round begins
with a Ready, after all of them (R5).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import count

from kvtwist.core.raft import Raft, ReadState
from kvtwist.errors import KvtwistError, Unavailable
from kvtwist.node.proposals import dropped_error
from kvtwist.node.turns import Needed
from kvtwist.node.waiting import Reader, tell
from kvtwist.storage.states import StoredState

READS_MAX = 64
"""Records for so many reads are looked up, and fetched, together."""


class Reads:
    """Of one replica.

    :param changed: called when there is a round to begin.

    :ivar confirmed: the index that has to be applied, and who waits for it.
    """

    def __init__(self, group: int, raft: Raft, changed: Callable[[], None]) -> None:
        self._group = group
        self._raft = raft
        self._changed = changed
        self._contexts = count()
        self._asking: list[Reader] | None = None  # those since the last Ready, who share a context
        self._asked: dict[bytes, list[Reader]] = {}
        self.confirmed: deque[tuple[int, list[Reader]]] = deque()

    def ask(self, reader: Reader) -> KvtwistError | None:
        """Have what is there confirmed, and told to *reader*; why not, if it was not even asked."""
        if self._asking is None:
            context = next(self._contexts).to_bytes(8, "big")
            dropped = self._raft.read_index(context)
            if dropped is not None:
                return dropped_error(self._group, dropped)
            self._asking = self._asked[context] = []
            self._changed()
        self._asking.append(reader)
        return None

    def end_round(self) -> None:
        """A Ready is taken: who asks from now on needs another round."""
        self._asking = None

    def confirm(self, read: ReadState) -> None:
        """A majority has said that this replica leads."""
        asked = self._asked.pop(read.context, [])
        for at in range(0, len(asked), READS_MAX):
            self.confirmed.append((read.index, asked[at : at + READS_MAX]))

    def lose(self, context: bytes) -> None:
        """It does not, or not any more."""
        lost = Unavailable(f"group {self._group} has changed its leader")
        for reader in self._asked.pop(context, ()):
            tell(reader.lost, lost)

    def answer(self, state: StoredState) -> Needed | None:
        """Answer what *state* has come far enough for; what has to be fetched before it goes on."""
        records = state.records
        while self.confirmed and self.confirmed[0][0] <= state.machine.applied_index:
            _, readers = self.confirmed[0]
            missing = records.missing([reader.key for reader in readers])
            if missing:
                return Needed(tuple(missing))
            self.confirmed.popleft()
            for reader in readers:
                tell(reader.found, state.read(reader.key))
        records.forget_fetched()
        return None

    def give_up(self, why: KvtwistError) -> None:
        """The replica is over: nobody is answered any more."""
        readers = [reader for asked in self._asked.values() for reader in asked]
        readers += [reader for _, confirmed in self.confirmed for reader in confirmed]
        self._asking = None
        self._asked.clear()
        self.confirmed.clear()
        for reader in readers:
            tell(reader.lost, Unavailable(str(why)))
