"""All that a partition's state machine holds, and how its records are changed and read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple, Protocol

from kvtwist.core.state.ordered import Ordered
from kvtwist.core.state.records import NEVER, REVISION_MAX, Record, Stored
from kvtwist.core.state.sessions import Session, Sessions

KEYSPACE_BYTES: Final = 4


def stored_key(keyspace: int, key: bytes) -> bytes:
    """Under what *key* is kept: keyspaces one after the other, keys in byte order in each."""
    return keyspace.to_bytes(KEYSPACE_BYTES, "big") + key


class Frozen(Protocol):
    """Records at one moment: so many, and each as (stored key, record), in the order of keys."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[bytes, Stored]]: ...


class Records(Protocol):
    """Where records are kept: an `Ordered` in memory, or on a disk (`kvtwist.storage.records`)."""

    def __len__(self) -> int: ...

    def get(self, key: bytes) -> Stored | None:
        """What is under *key*."""

    def put(self, key: bytes, value: Stored) -> Stored | None:
        """Put it there; what was there before."""

    def remove(self, key: bytes) -> Stored:
        """Remove what is there; `KeyError` when there is nothing."""

    def items(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Stored]]:
        """(key, record) from *start* on, before *end*."""

    def freeze(self) -> Frozen:
        """A view that no later change shows in."""


class Due(Protocol):
    """Where is kept what expires, under its time and key: likewise."""

    def put(self, key: bytes, value: bool) -> bool | None:
        """Note one."""

    def remove(self, key: bytes) -> bool:
        """Forget one."""

    def items(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bool]]:
        """Those from *start* on, before *end*."""


class View(NamedTuple):
    """The contents at one moment, which no later change shows in."""

    generation: int
    revision: int
    applied_index: int
    log_time_ms: int
    sessions: list[Session]
    records: Frozen


class Contents:
    """The contents of one partition.

    :param records: where its records are kept; by default in memory.
    :param due: where is kept which of them expire; likewise.

    :ivar generation: of the partition's membership.
    :ivar revision: how many changes there were, and where they were counted from.
    :ivar applied_index: of the last entry.
    :ivar log_time_ms: the highest stamp of all entries.
    :ivar data_bytes: keys, with their keyspaces, and values, added up.

    **Invariant:** ``_due`` has (expires_at, key) of exactly the records that expire.
    """

    __slots__ = (
        "_due",
        "_records",
        "applied_index",
        "data_bytes",
        "generation",
        "log_time_ms",
        "revision",
        "sessions",
    )

    def __init__(
        self,
        generation: int,
        revision: int = 0,
        records: Records | None = None,
        due: Due | None = None,
    ) -> None:
        if not 0 <= revision < REVISION_MAX:
            raise ValueError(f"a revision is between 0 and 2^63 - 2, not {revision}")
        self.generation = generation
        self.revision = revision
        self.applied_index = 0
        self.log_time_ms = 0
        self.sessions = Sessions()
        self.data_bytes = 0
        self._records: Records = Ordered[Stored]() if records is None else records
        self._due: Due = Ordered[bool]() if due is None else due

    @property
    def key_count(self) -> int:
        """How many records there are; those that are due count until they are removed."""
        return len(self._records)

    def get(self, key: bytes) -> Record | None:
        """What is under a stored key at the log time."""
        stored = self._records.get(key)
        # Due is due at once, on every replica at the same entry, removed or not.
        if stored is None or NEVER != stored[3] <= self.log_time_ms:
            return None
        return Record._make(stored)

    def replace(self, key: bytes, record: Record | None) -> None:
        """Put *record* under a stored key; ``None``: nothing is there any more."""
        if record is not None:
            self.put(key, record)
        elif self._records.get(key) is not None:
            self.remove(key)

    def put(self, key: bytes, record: Record) -> None:
        """Put *record* under a stored key."""
        self._put(key, record[:])  # a slice is a plain tuple

    def write(self, key: bytes, value: bytes, version: int, expires_at_ms: int) -> None:
        """Put *value* under a stored key, whatever is there at the log time."""
        seen = self._records.get(key)
        is_there = seen is not None and not NEVER != seen[3] <= self.log_time_ms
        created = seen[2] if seen is not None and is_there else version
        self._put(key, (value, version, created, expires_at_ms, 0, 0))

    def _put(self, key: bytes, record: Stored) -> None:
        before, expires_at_ms = self._records.put(key, record), record[3]
        if before is None:
            self.data_bytes += len(key) + len(record[0])
        else:
            self.data_bytes += len(record[0]) - len(before[0])
            if before[3] != NEVER:
                self._due.remove(_due_key(before[3], key))
        if expires_at_ms != NEVER:
            self._due.put(_due_key(expires_at_ms, key), True)

    def remove(self, key: bytes) -> None:
        """Remove what is under a stored key.

        :raises KeyError: when there is nothing.
        """
        value, _, _, expires_at_ms, _, _ = self._records.remove(key)
        self.data_bytes -= len(key) + len(value)
        if expires_at_ms != NEVER:
            self._due.remove(_due_key(expires_at_ms, key))

    def items(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Record]]:
        """(stored key, record) in order, from *start* on, before *end*; also those that are due."""
        return ((key, Record._make(stored)) for key, stored in self._records.items(start, end))

    def due(self, until_ms: int, limit: int) -> list[bytes]:
        """Stored keys of records that are due at that log time, the longest due first."""
        end = (until_ms + 1).to_bytes(9, "big")
        return [due_key[9:] for due_key, _ in islice(self._due.items(end=end), limit)]

    def next_due_ms(self) -> int | None:
        """The log time at which the next record or session is due; may be past."""
        times = [int.from_bytes(key[:9], "big") for key, _ in islice(self._due.items(), 1)]
        session_ms = self.sessions.next_due_ms()
        return min(times if session_ms is None else [*times, session_ms], default=None)

    def freeze(self) -> View:
        """The contents at this moment.

        It takes a pointer for every few hundred keys and one for each session; what changes
        afterwards is copied first, a leaf or a session at a time, once.
        """
        return View(
            self.generation,
            self.revision,
            self.applied_index,
            self.log_time_ms,
            self.sessions.freeze(),
            self._records.freeze(),
        )


def _due_key(expires_at_ms: int, key: bytes) -> bytes:
    # Nine bytes, since the end of a range can be one past the highest time.
    return expires_at_ms.to_bytes(9, "big") + key
