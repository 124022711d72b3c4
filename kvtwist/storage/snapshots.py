"""Snapshots of a partition in a node's store: out of it as a stream, and a stream into it.

The stream is that of `kvtwist.core.state.snapshot`, to the byte: a replica on a disk has the digest
of one in memory.

**Out.** `outgoing` reads from one view, so that header, sessions and records are of one moment. The
records are read, and their checksums verified (S3), as chunks are asked for: on a thread, which
must not take for ever, since a view pins space (S5).

**In.** `Incoming` makes batches out of chunks, which fill a generation of keys that nothing reads;
one small batch then makes it the group's own, together with everything that has to change with it
(R13). Until that is committed nothing of the group has changed, whatever was wrong with the stream.
In this order: commit what `Incoming.feed` returns for each chunk, unsynced, and then what
`Incoming.finish` does; hand the snapshot to the Raft core; if it takes it, commit what
`Incoming.install` puts into a batch, synced, and load the state anew. In any other case commit
`Incoming.discard`. What a crash leaves of it, `remove_orphans` finds at the next start.
"""

from __future__ import annotations

from collections.abc import Iterator

from kvtwist.core.raft import Ready
from kvtwist.core.state.contents import Contents
from kvtwist.core.state.contents import View as StateView
from kvtwist.core.state.fields import MalformedBytes
from kvtwist.core.state.records import Record, Stored, encode_record
from kvtwist.core.state.sessions import Sessions
from kvtwist.core.state.snapshot import Restore, Snapshot
from kvtwist.errors import StoreDamaged
from kvtwist.storage import logs
from kvtwist.storage.engine import Batch, View
from kvtwist.storage.frames import sealed
from kvtwist.storage.layout import (
    DUE,
    GENERATION_BYTES,
    PER_GENERATION,
    RECORD,
    STATE,
    generation_of,
    generation_prefix,
    generation_range,
    group_of,
    groups_range,
)
from kvtwist.storage.records import read_record
from kvtwist.storage.states import (
    Header,
    StoredState,
    load_header,
    load_sessions,
    remove_generation,
    save_header,
    save_sessions,
)

BATCH_BYTES = 1 << 20
"""A batch that fills a generation has no more than this, one record (or session) apart."""


def outgoing(view: View, group: int) -> Snapshot | None:
    """What *view* has of a group, as a snapshot; ``None``: it has no state there.

    Its chunks may be asked for on any thread, one after the other, and as long as the view lasts.

    :raises StoreDamaged: when something cannot be read as what was written; so do the chunks. A
        stream that has broken off so is refused by whoever is sent it.
    """
    header = load_header(group, view)
    if header is None:
        return None
    sessions = sorted(load_sessions(view, group, header.generation), key=lambda each: each.id)
    return Snapshot(
        StateView(
            header.partition_generation,
            header.revision,
            header.applied_index,
            header.log_time_ms,
            sessions,
            _KeptRecords(view, group, header),
        )
    )


class _KeptRecords:
    """The records of a generation, read as they are asked for."""

    def __init__(self, view: View, group: int, header: Header) -> None:
        self._view = view
        self._group = group
        self._header = header

    def __len__(self) -> int:
        return self._header.key_count

    def __iter__(self) -> Iterator[tuple[bytes, Stored]]:
        generation = self._header.generation
        found = 0
        for place, frame in self._view.scan(*generation_range(RECORD, self._group, generation)):
            found += 1
            yield place[GENERATION_BYTES:], read_record(place, frame)
        if found != len(self):
            raise StoreDamaged(f"group {self._group} has {found} records, and not {len(self)}")


class Incoming:
    """A snapshot that is coming in. One that has raised is of no more use but to `discard`.

    :param generation: that the group's data stands in now.
    :param index: of the last entry that the snapshot is said to have.

    :ivar generation: the one that is filled.
    """

    def __init__(
        self, group: int, generation: int, index: int, batch_bytes: int = BATCH_BYTES
    ) -> None:
        self.generation = generation + 1
        self._group = group
        self._index = index
        self._filling = _Filling(batch_bytes)
        self._filling.begin(self.discard())  # an earlier one may have left something
        records = _FilledRecords(self._filling, group, self.generation)
        due = _FilledDue(self._filling, group, self.generation)
        self._restore = Restore(Contents(0, 0, records, due))
        self._header: Header | None = None

    def feed(self, chunk: bytes) -> list[Batch]:
        """Take the next chunk; the batches that are to be committed before the one after it.

        :raises MalformedBytes: when this can be no snapshot's.
        :raises UnknownKind: when a later release made it; or it is damaged just so.
        """
        self._restore.feed(chunk)
        return self._filling.take_full()

    def finish(self, *, with_sessions: bool = True) -> Iterator[Batch]:
        """All chunks have been fed; the batches that are still to be committed.

        :param with_sessions: whether the sessions are kept.
        :raises MalformedBytes: when the snapshot was cut off or damaged, or is another one.
        """
        contents = self._restore.finish()
        if contents.applied_index != self._index:
            raise MalformedBytes(
                f"a snapshot at {contents.applied_index}, where {self._index} was announced"
            )
        if not with_sessions:
            contents.sessions = Sessions()
        self._header = Header(
            self.generation,
            contents.generation,
            contents.revision,
            contents.applied_index,
            contents.log_time_ms,
            contents.data_bytes,
            contents.key_count,
        )
        return self._last_batches(contents)

    def _last_batches(self, contents: Contents) -> Iterator[Batch]:
        yield from self._filling.take_all()
        sessions = contents.sessions.freeze()
        for batch in save_sessions(self._group, self.generation, sessions):
            self._filling.extend(batch)
            yield from self._filling.take_full()
        yield from self._filling.take_all()

    def install(self, batch: Batch, ready: Ready, replaced: StoredState) -> int:
        """Put into *batch* all that makes this the group's state and log, and *ready*'s own.

        To be committed with a sync, after all that filled it.

        :param replaced: whose place it takes; it must not be asked for batches any more.
        :returns: the last entry that is in the log's place now, as `logs.save` does.
        """
        base, header = ready.snapshot, self._header
        assert base is not None and header is not None, "there is nothing to install"
        assert base.index == header.applied_index, (base.index, header.applied_index)
        assert self.generation == replaced.generation + 1, "another one was installed meanwhile"
        assert base.index > replaced.machine.applied_index, "a snapshot that is behind (R13)"
        save_header(batch, self._group, header)
        remove_generation(batch, self._group, replaced.generation)
        logs.save_replaced(batch, self._group, base)
        return logs.save(batch, self._group, ready, base.index)

    def begin(self, batch: Batch, partition_generation: int) -> None:
        """Put into *batch* that this is the state of a group that there was nothing of here. Its
        log begins after that, which is for the caller to save."""
        assert self._header is not None, "there is nothing to begin with"
        header = self._header._replace(partition_generation=partition_generation)
        save_header(batch, self._group, header)

    def discard(self) -> Batch:
        """What removes all that was filled."""
        batch = Batch()
        remove_generation(batch, self._group, self.generation)
        return batch


class _Filling:
    """Batches that are full in turn."""

    def __init__(self, batch_bytes: int) -> None:
        self._batch_bytes = batch_bytes
        self._batch = Batch()
        self._full: list[Batch] = []

    def begin(self, batch: Batch) -> None:
        """Do that first."""
        self._batch = batch

    def put(self, key: bytes, payload: bytes) -> None:
        """Keep *payload* under *key*."""
        self._batch.put(key, sealed(key, payload))
        self._close_if_full()

    def extend(self, batch: Batch) -> None:
        """Do all that *batch* says."""
        self._batch.extend(batch)
        self._close_if_full()

    def _close_if_full(self) -> None:
        if self._batch.size_bytes >= self._batch_bytes:
            self._full.append(self._batch)
            self._batch = Batch()

    def take_full(self) -> list[Batch]:
        """Those that are full."""
        full, self._full = self._full, []
        return full

    def take_all(self) -> list[Batch]:
        """The last one too."""
        batch, self._batch = self._batch, Batch()
        return [*self.take_full(), batch] if batch else self.take_full()


class _FilledRecords:
    """`kvtwist.core.state.contents.Records` that are put, each once, and not looked at."""

    def __init__(self, filling: _Filling, group: int, generation: int) -> None:
        self._filling = filling
        self._prefix = generation_prefix(RECORD, group, generation)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, key: bytes, value: Stored) -> None:
        """Put it there; a snapshot has each key once, so that nothing was there before."""
        self._filling.put(self._prefix + key, encode_record(Record._make(value)))
        self._count += 1

    def get(self, key: bytes) -> Stored | None:
        raise AssertionError("a state that is being filled is not read")

    def remove(self, key: bytes) -> Stored:
        raise AssertionError("a state that is being filled is not read")

    def items(self, start: bytes, end: bytes | None) -> Iterator[tuple[bytes, Stored]]:
        raise AssertionError("a state that is being filled is not read")

    def freeze(self) -> _KeptRecords:
        raise AssertionError("a state that is being filled is not read")


class _FilledDue:
    """`kvtwist.core.state.contents.Due`, likewise."""

    def __init__(self, filling: _Filling, group: int, generation: int) -> None:
        self._filling = filling
        self._prefix = generation_prefix(DUE, group, generation)

    def put(self, key: bytes, value: bool) -> None:
        """Note one."""
        self._filling.put(self._prefix + key, b"")

    def remove(self, key: bytes) -> bool:
        raise AssertionError("a state that is being filled is not read")

    def items(self, start: bytes = b"", end: bytes | None = None) -> Iterator[tuple[bytes, bool]]:
        raise AssertionError("a state that is being filled is not read")


# -- what a crash leaves --------------------------------------------------------------------------


def remove_orphans(view: View) -> Batch:
    """What removes all generations that are no group's own: snapshots that never were whole.

    It looks for one key of each generation, not at all keys.
    """
    batch = Batch()
    for group, generation in sorted(_generations(view) - _current(view)):
        remove_generation(batch, group, generation)
    return batch


def _current(view: View) -> set[tuple[int, int]]:
    groups = [group_of(key) for key, _ in view.scan(*groups_range(STATE))]
    headers = ((group, load_header(group, view)) for group in groups)
    return {(group, header.generation) for group, header in headers if header is not None}


def _generations(view: View) -> set[tuple[int, int]]:
    """Each group and generation that there is a key of."""
    found: set[tuple[int, int]] = set()
    for kind in PER_GENERATION:
        start, end = groups_range(kind)
        while (key := next((key for key, _ in view.scan(start, end)), None)) is not None:
            group, generation = group_of(key), generation_of(key)
            found.add((group, generation))
            start = generation_range(kind, group, generation)[1]
    return found
