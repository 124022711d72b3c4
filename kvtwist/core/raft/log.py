"""The log of one replica, from its last compaction on.

It knows four places in the log. From the front::

    compacted_index    the entry here and all before it are gone; a snapshot has what they did
    applying_index     handed out to be applied so far
    commit_index       known to be committed
    durable_index      known to be on this replica's disk
    last_index         the last entry

**Invariants:** ``compacted_index <= applying_index <= min(commit_index, durable_index)``, and
neither of these is past ``last_index``. ``applying_index`` and ``commit_index`` never fall.
``durable_index`` falls when what was durable is replaced: to 0 by a snapshot, until that is
written; only then it is less than the two before it.

``durable_index`` and ``commit_index`` are in no order: a leader learns that its own entries are
committed by the others before its own disk has them.

Source: the paper, section 5.3 and figure 2; the dissertation, 10.2.1 for writing in parallel.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from kvtwist.core.raft.configuration import Configuration

ENTRY_OVERHEAD_BYTES: Final = 16
"""What an entry costs besides its data, wherever entries are bounded by bytes."""


class EntryKind(IntEnum):
    """What an entry is. A replica that meets a kind it does not know must stop."""

    NOOP = 0
    DATA = 1
    CONFIGURATION = 2


@dataclass(slots=True, unsafe_hash=True)
class Entry:
    """One entry of the log.

    :ivar index: its place; the first one is 1.
    :ivar term: of the leader that made it.
    :ivar data: of a `EntryKind.DATA` the proposal; of a `EntryKind.CONFIGURATION` that.
    """

    index: Final[int]
    term: Final[int]
    kind: Final[EntryKind]
    data: Final[bytes]

    def __init__(
        self, index: int, term: int, kind: EntryKind = EntryKind.DATA, data: bytes = b""
    ) -> None:
        self.index = index
        self.term = term
        self.kind = kind
        self.data = data

    @property
    def size_bytes(self) -> int:
        """What it counts for where bytes are bounded."""
        return ENTRY_OVERHEAD_BYTES + len(self.data)


def total_bytes(entries: Sequence[Entry]) -> int:
    """What they count for together."""
    size_bytes = ENTRY_OVERHEAD_BYTES * len(entries)
    for entry in entries:
        size_bytes += len(entry.data)
    return size_bytes


@dataclass(slots=True, unsafe_hash=True)
class _Write:
    """A write of entries that is under way.

    ``first`` is 0 when it replaces the whole log by a snapshot.
    """

    number: Final[int]
    first: Final[int]
    last: Final[int]

    def __init__(self, number: int, first: int, last: int) -> None:
        self.number = number
        self.first = first
        self.last = last


class Log:
    """The log.

    :param configuration: in force at *compacted_index*.
    :param entries: those right after *compacted_index*, all of them durable.
    :raises ValueError: when they have gaps or go back in term.
    """

    __slots__ = (
        "_configurations",
        "_entries",
        "_unwritten",
        "_writes",
        "applying_index",
        "commit_index",
        "compacted_index",
        "compacted_term",
        "durable_index",
        "is_replaced",
        "last_index",
    )

    def __init__(
        self,
        configuration: Configuration,
        compacted_index: int = 0,
        compacted_term: int = 0,
        entries: Sequence[Entry] = (),
    ) -> None:
        _check_row(entries, compacted_index, compacted_term)
        self.compacted_index = compacted_index
        self.compacted_term = compacted_term
        self._entries = list(entries)
        self.last_index = compacted_index + len(entries)
        """The last entry; ``compacted_index`` when none is here."""
        self._configurations = [(compacted_index, configuration)]
        self._note_configurations(entries)
        self.applying_index = compacted_index
        self.commit_index = compacted_index
        self.durable_index = self.last_index
        self._unwritten = self.last_index + 1
        self._writes: deque[_Write] = deque()
        self.is_replaced = False
        """A snapshot has taken the place of the log, and that has not been handed out yet."""

    # -- what there is ------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """The first entry that is here; ``last_index + 1`` when none is."""
        return self.compacted_index + 1

    @property
    def last_term(self) -> int:
        """Its term; 0 for an empty log."""
        return self._entries[-1].term if self._entries else self.compacted_term

    def term_at(self, index: int) -> int | None:
        """The term of the entry at *index*; ``None`` when it is compacted or there is none."""
        at = index - self.compacted_index
        if at == 0:
            return self.compacted_term
        return self._entries[at - 1].term if 0 < at <= len(self._entries) else None

    def has(self, index: int, term: int) -> bool:
        """Whether the entry at *index* is that of *term*."""
        return self.term_at(index) == term

    def entries(self, first: int, last: int, bytes_max: int | None = None) -> tuple[Entry, ...]:
        """The entries from *first* to *last*, both included.

        :param bytes_max: stop before the entry that would go over it; the first one always comes.
        :raises IndexError: when they are not all here.
        """
        if first > last:
            return ()
        if first < self.first_index or last > self.last_index:
            raise IndexError(
                f"entries {first} to {last} are not all in {self.first_index} to {self.last_index}"
            )
        if bytes_max is not None:
            # More cannot fit; a follower that lags by a million entries is sent a few at a time.
            last = min(last, first + bytes_max // ENTRY_OVERHEAD_BYTES)
        row = self._entries[first - self.first_index : last - self.compacted_index]
        if bytes_max is None:
            return tuple(row)
        total = 0
        for at, entry in enumerate(row):
            total += ENTRY_OVERHEAD_BYTES + len(entry.data)
            if total > bytes_max and at:
                return tuple(row[:at])
        return tuple(row)

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as up-to-date as this one (paper, 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    @property
    def configuration(self) -> Configuration:
        """The latest one, committed or not."""
        return self._configurations[-1][1]

    @property
    def configuration_index(self) -> int:
        """Where the latest one stands."""
        return self._configurations[-1][0]

    @property
    def committed_configuration(self) -> Configuration:
        """The latest one that is known to be committed."""
        return self.configuration_at(self.commit_index)

    def configuration_at(self, index: int) -> Configuration:
        """The one in force at *index*, which is not before ``compacted_index``."""
        for place, configuration in reversed(self._configurations):
            if place <= index:
                return configuration
        raise IndexError(f"what was in force at {index} is forgotten")

    # -- what is done to it -------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Add *entries* at the end."""
        _check_row(entries, self.last_index, self.last_term)
        self._note_configurations(entries)  # first: what cannot be read must leave nothing behind
        self._entries.extend(entries)
        self.last_index += len(entries)

    def merge(self, entries: Sequence[Entry]) -> None:
        """Take over a leader's *entries*, which follow an entry that is here.

        Those that are here already stay, and so does what follows them: the message may be an old
        one. Only from a real conflict on is the log cut off (paper, figure 2, "AppendEntries RPC",
        3; R12).
        """
        for at, entry in enumerate(entries):
            if entry.index > self.last_index:
                self.append(entries[at:])
                return
            if entry.index > self.compacted_index and not self.has(entry.index, entry.term):
                self._truncate(entry.index)
                self.append(entries[at:])
                return

    def _truncate(self, index: int) -> None:
        """Cut off the entry at *index* and all that follow."""
        assert index > self.commit_index, "a committed entry would be lost"
        del self._entries[index - self.first_index :]
        self.last_index = index - 1
        while self._configurations[-1][0] >= index:
            self._configurations.pop()
        self.durable_index = min(self.durable_index, index - 1)
        self._unwritten = min(self._unwritten, index)

    def commit(self, index: int) -> bool:
        """Everything up to *index* is committed; whether that is news."""
        assert index <= self.last_index, "what is not there cannot be committed"
        if index <= self.commit_index:
            return False
        self.commit_index = index
        return True

    def replace(self, index: int, term: int, configuration: Configuration) -> None:
        """Have a snapshot take the place of the whole log."""
        assert index > self.commit_index, "a snapshot that is behind is ignored (R13)"
        self.compacted_index = self.last_index = index
        self.applying_index = self.commit_index = index
        self.compacted_term = term
        self._entries.clear()
        self._configurations = [(index, configuration)]
        self.durable_index = 0
        self._unwritten = index + 1
        self.is_replaced = True

    def compact(self, index: int) -> None:
        """Forget everything up to *index*; no more than has been handed out to be applied."""
        if index <= self.compacted_index:
            return
        assert index <= self.applying_index, "what is not applied cannot be forgotten"
        term, configuration = self.term_at(index), self.configuration_at(index)
        assert term is not None
        del self._entries[: index - self.compacted_index]
        later = [each for each in self._configurations if each[0] > index]
        self._configurations = [(index, configuration), *later]
        self.compacted_index, self.compacted_term = index, term

    def find_agreement(self, index: int, term: int) -> tuple[int, int]:
        """The highest place not after *index* whose term here is *term* or an earlier one.

        The logs cannot agree between there and *index*, so nobody need ask for it: a whole term is
        skipped at a time (paper, 5.3, the end). Returns the place and its term; a place that is
        compacted is returned as it is, with term 0.
        """
        place = min(index, self.last_index)
        while place >= self.compacted_index and (self.term_at(place) or 0) > term:
            place -= 1
        return place, self.term_at(place) or 0

    def _note_configurations(self, entries: Sequence[Entry]) -> None:
        self._configurations += [
            (entry.index, Configuration.decode(entry.data))
            for entry in entries
            if entry.kind is EntryKind.CONFIGURATION
        ]

    # -- to the disk and back -----------------------------------------------------------------

    @property
    def has_unwritten(self) -> bool:
        """Whether there is something to be written."""
        return self._unwritten <= self.last_index or self.is_replaced

    def take_unwritten(self, number: int) -> tuple[Entry, ...]:
        """The entries to be written, which are from now on under way in write *number*."""
        row = self.entries(self._unwritten, self.last_index)
        if self.is_replaced:
            self._writes.append(_Write(number, 0, self.last_index))
            self.is_replaced = False
        elif row:
            self._writes.append(_Write(number, row[0].index, self.last_index))
        self._unwritten = self.last_index + 1
        return row

    def written(self, number: int) -> None:
        """All writes up to *number* are durable.

        Of such a write only what no later write replaces counts, be it under way or still to come:
        else an acknowledgement could cover an entry that the disk is about to lose and get back
        (R2).
        """
        durable = None
        while self._writes and self._writes[0].number <= number:
            durable = self._writes.popleft().last
        if durable is None or self.is_replaced:
            return
        for write in self._writes:
            durable = min(durable, write.first - 1)
        self.durable_index = max(self.durable_index, min(durable, self._unwritten - 1))

    @property
    def appliable_index(self) -> int:
        """How far may be applied: what is committed, and durable here."""
        return min(self.commit_index, self.durable_index)

    def take_appliable(self, bytes_max: int) -> tuple[Entry, ...]:
        """The next entries to be applied, at least one if there are any."""
        row = self.entries(self.applying_index + 1, self.appliable_index, bytes_max)
        if row:
            self.applying_index = row[-1].index
        return row


def _check_row(entries: Sequence[Entry], index: int, term: int) -> None:
    for entry in entries:
        index += 1
        if entry.index != index:
            raise ValueError(f"entry {entry.index} stands where {index} is due")
        if entry.term < term:
            raise ValueError(f"entry {index} is of term {entry.term}, after one of term {term}")
        term = entry.term
