"""A partition's records on an engine, for a state machine that cannot wait for one.

What the machine changes goes into a batch, and stays at hand (*fresh*) until that batch is
committed. What it reads is fresh, or was fetched for it, or was used not long ago
(`kvtwist.storage.recent`), or is in the engine's own memory; whoever drives it has to `fetch` first
what is `missing`, on a thread.

Nobody else changes these records. What takes the place of all of them (a snapshot that is
installed, a store that was opened again) is read by a new object. So what this one has in memory is
what the engine has, but for what is fresh, which is looked at first.

In this order, for each row of entries: ask what is `missing` of the keys that they need; have that
read by `fetch`, hand it to `have_fetched`, and ask again, until nothing is missing; carry the
entries out; take the batch and commit it; when that is done, `committed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from kvtwist.core.state.fields import MalformedBytes, UnknownKind
from kvtwist.core.state.ordered import Frozen, Ordered
from kvtwist.core.state.records import Stored, decode_fields, encode_fields
from kvtwist.errors import StoreDamaged
from kvtwist.storage.engine import NOT_CACHED, Batch, Engine, NotCached, View
from kvtwist.storage.frames import opened, sealed
from kvtwist.storage.layout import DUE, RECORD, generation_prefix
from kvtwist.storage.recent import Recent

Cached = Callable[[bytes], bytes | NotCached | None]
"""`kvtwist.storage.engine.Engine.get_cached`."""


_Fresh: TypeAlias = "tuple[Stored | None, int]"
"""A record that is not committed yet (``None``: one that is removed), and the number of its batch.
Plain, since one is made for each write."""


class Write:
    """The changes of one batch, which several of a partition's objects share.

    :ivar number: counts the batches.
    """

    def __init__(self) -> None:
        self.batch = Batch()
        self.number = 1

    def take(self) -> Batch:
        """The batch with all changes since the last one."""
        batch, self.batch = self.batch, Batch()
        self.number += 1
        return batch


class StoredRecords:
    """`kvtwist.core.state.contents.Records` in one generation of a group's data.

    :param view: where `items` and `freeze` read; they wait for the disk.
    :param count: how many records there are.
    :param recent_bytes_max: how much of them is kept in memory.
    """

    def __init__(
        self,
        write: Write,
        cached: Cached,
        view: View,
        group: int,
        generation: int,
        count: int,
        recent_bytes_max: int,
    ) -> None:
        self._write = write
        self._cached = cached
        self._view = view
        self._prefix = generation_prefix(RECORD, group, generation)
        self._end = generation_prefix(RECORD, group, generation + 1)
        self._count = count
        self._fresh: dict[bytes, _Fresh] = {}
        self._fetched: dict[bytes, Stored | None] = {}
        self._recent = Recent(recent_bytes_max)
        self._changed: list[bytes] = []
        self._written: deque[tuple[int, list[bytes]]] = deque()

    def __len__(self) -> int:
        return self._count

    @property
    def recent_bytes_max(self) -> int:
        """How much of the records is kept in memory."""
        return self._recent.bytes_max

    # -- for the state machine ----------------------------------------------------------------

    def get(self, key: bytes) -> Stored | None:
        """What is under *key*, which is not `missing`."""
        fresh = self._fresh.get(key)
        if fresh is not None:
            return fresh[0]
        fetched = self._fetched.get(key, NOT_CACHED)
        if isinstance(fetched, NotCached):
            raise AssertionError(f"{key!r} was not asked for")
        return fetched

    def put(self, key: bytes, value: Stored) -> Stored | None:
        """Put it there; what was there before."""
        before, write = self.get(key), self._write
        self._fresh[key] = value, write.number
        self._changed.append(key)
        place = self._prefix + key
        write.batch.put(place, sealed(place, encode_fields(value)))
        if before is None:
            self._count += 1
        return before

    def remove(self, key: bytes) -> Stored:
        """Remove what is there.

        :raises KeyError: when there is nothing.
        """
        before = self.get(key)
        if before is None:
            raise KeyError(key)
        self._fresh[key] = None, self._write.number
        self._changed.append(key)
        self._write.batch.delete(self._prefix + key)
        self._count -= 1
        return before

    def items(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, Stored]]:
        """(key, record) from *start* on, before *end*; may wait for the disk."""
        last = self._end if end is None else self._prefix + end
        kept = {
            place[len(self._prefix) :]: frame
            for place, frame in self._view.scan(self._prefix + start, last)
        }
        fresh = {key for key in self._fresh if start <= key and (end is None or key < end)}
        for key in sorted(kept.keys() | fresh):
            stored = self._fresh[key][0] if key in fresh else self._read(key, kept[key])
            if stored is not None:
                yield key, stored

    def freeze(self) -> Frozen[Stored]:
        """A copy of all; for tests and checks. A snapshot is read from the engine's own view."""
        copy: Ordered[Stored] = Ordered()
        for key, stored in self.items():
            copy.put(key, stored)
        return copy.freeze()

    # -- for whoever drives it ----------------------------------------------------------------

    def missing(self, keys: list[bytes]) -> list[bytes]:
        """Those of *keys* that have to be fetched before they are looked at.

        What is in memory, here or in the engine, is taken from there now: it may go at any time.
        """
        missing: list[bytes] = []
        for key in keys:
            if key in self._fresh or key in self._fetched:
                continue
            stored = self._recent.find(key)
            if isinstance(stored, NotCached):
                frame = self._cached(self._prefix + key)
                if isinstance(frame, NotCached):
                    missing.append(key)
                    continue
                stored = self._read(key, frame)
                self._recent.put(key, stored)
            self._fetched[key] = stored
        return missing

    def fetch(self, engine: Engine, keys: Sequence[bytes]) -> dict[bytes, Stored | None]:
        """Read *keys*; waits for the disk, and may be called on any thread.

        :raises StoreDamaged: when one cannot be read as what was written.
        """
        frames = engine.get_many([self._prefix + key for key in keys])
        frames.reverse()
        # Each frame goes when it has been read: they may be large.
        return {key: self._read(key, frames.pop()) for key in keys}

    def have_fetched(self, found: Mapping[bytes, Stored | None]) -> None:
        """These were fetched; they are kept until `forget_fetched`."""
        for key, stored in found.items():
            if key not in self._fresh:
                self._fetched[key] = stored

    def forget_fetched(self) -> None:
        """Nothing that was asked for is needed any more."""
        self._fetched.clear()

    def taken(self) -> int:
        """The batch with all changes so far is being taken; its number, for `committed`."""
        number = self._write.number
        self._written.append((number, self._changed))
        self._changed = []
        return number

    def committed(self, number: int) -> None:
        """All batches up to *number* are in the engine: what they changed can be read there."""
        while self._written and self._written[0][0] <= number:
            _, keys = self._written.popleft()
            for key in keys:
                fresh = self._fresh.get(key)
                if fresh is not None and fresh[1] <= number:
                    del self._fresh[key]
                    self._recent.put(key, fresh[0])
                    # What was fetched before it was changed is out of date.
                    self._fetched.pop(key, None)

    def _read(self, key: bytes, frame: bytes | None) -> Stored | None:
        return None if frame is None else read_record(self._prefix + key, frame)


def read_record(place: bytes, frame: bytes) -> Stored:
    """The record that was kept at *place*.

    :raises StoreDamaged: when it cannot be read as what was written.
    """
    payload = opened(place, frame)
    try:
        return decode_fields(payload)
    except (MalformedBytes, UnknownKind) as error:
        raise StoreDamaged(f"the record {place[:60].hex()}: {error}") from error


class StoredDue(Ordered[bool]):
    """`kvtwist.core.state.contents.Due`: all of it in memory, and on the engine too.

    Only records that expire have a place here.
    """

    __slots__ = ("_prefix", "_write")

    def __init__(self, write: Write, view: View, group: int, generation: int) -> None:
        super().__init__()
        self._prefix = generation_prefix(DUE, group, generation)
        self._write = write
        for place, _ in view.scan(self._prefix, generation_prefix(DUE, group, generation + 1)):
            super().put(place[len(self._prefix) :], True)

    def put(self, key: bytes, value: bool) -> bool | None:
        """Note one."""
        place = self._prefix + key
        self._write.batch.put(place, sealed(place, b""))
        return super().put(key, value)

    def remove(self, key: bytes) -> bool:
        """Forget one."""
        self._write.batch.delete(self._prefix + key)
        return super().remove(key)
