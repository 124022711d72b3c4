"""A disk in virtual time: what was synced is there after a crash, what was not may be."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from kvtwist.core.state.ordered import Ordered
from kvtwist.errors import StorageError
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import NOT_CACHED, Batch, NotCached, View
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.opening import Storage
from kvtwist.storage.recent import Recent
from kvtwist.storage.records import StoredRecords
from kvtwist.storage.store import Store

SYNC_SECONDS = 0.002
READ_SECONDS = 0.001


class Platter:
    """What is on a node's disk, over all its lives; and what happens to it.

    :ivar trouble: raised by each commit, while it is set: by its sync, so that what it does can be
        read from then on, until the store is opened anew; then it is gone.
    :ivar read_trouble: raised by each read that does not come out of memory; likewise.
    :ivar is_cold: whether nothing is in the engine's memory.
    :ivar commits: how many there have been.
    """

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kvtwist-test-")
        self.path = Path(self._temporary.name)
        self.synced = MemoryEngine()
        self.unsynced: list[Batch] = []
        self.trouble: StorageError | None = None
        self.read_trouble: Exception | None = None
        self.is_cold = False
        self.commits = 0

    def crash(self, kept: int = 0) -> None:
        """Lose what was not synced, but for the first *kept* batches of it."""
        for batch in self.unsynced[:kept]:
            self.synced.commit(batch, sync=True)
        self.unsynced.clear()

    def cleanup(self) -> None:
        """Remove the directory that the marks are in."""
        self._temporary.cleanup()


def forget(records: StoredRecords) -> None:
    """Have nothing in memory of a partition's records, now and from now on, but what is fresh: the
    engine is asked each time."""
    records._recent = Recent(0)


class SimulatedEngine(MemoryEngine):
    """One life's view of the platter: all that was committed in it.

    :ivar views: how many are open.
    """

    def __init__(self, platter: Platter) -> None:
        super().__init__()
        self._platter = platter
        self.views = 0
        self._load()

    def _load(self) -> None:
        self._content = Ordered()
        everything = Batch()
        for key, value in self._platter.synced.scan(b"", b"\xff"):
            everything.put(key, value)
        for batch in everything, *self._platter.unsynced:
            super().commit(batch, sync=True)

    def get_cached(self, key: bytes) -> bytes | NotCached | None:  # type: ignore[override]
        return NOT_CACHED if self._platter.is_cold else super().get_cached(key)

    def get(self, key: bytes) -> bytes | None:
        if self._platter.read_trouble is not None:
            raise self._platter.read_trouble
        return super().get(key)

    @contextmanager
    def view(self) -> Iterator[View]:
        with super().view() as view:
            self.views += 1
            try:
                yield view
            finally:
                self.views -= 1

    def commit(self, batch: Batch, *, sync: bool) -> None:
        platter = self._platter
        super().commit(batch, sync=sync)
        if platter.trouble is not None:
            raise platter.trouble
        platter.commits += 1
        platter.unsynced.append(batch)
        if sync:
            platter.crash(kept=len(platter.unsynced))

    def reopen(self) -> None:
        if self._platter.trouble is not None:
            raise self._platter.trouble
        self._load()


class Later:
    """A worker whose jobs take some time on a simulated host; a dead host does none."""

    def __init__(self, host: Any, seconds: float) -> None:
        self._host = host
        self._seconds = seconds
        self._free_at = 0.0

    def do(self, job: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        now = self._host.seconds()
        self._free_at = max(now, self._free_at) + self._seconds
        self._host.callLater(self._free_at - now, self._work, job, done)
        return done

    def _work(self, job: Callable[[], Any], done: Deferred[Any]) -> None:
        try:
            result = job()
        except Exception:
            done.errback(Failure())
        else:
            done.callback(result)

    def stop(self) -> Deferred[None]:
        return succeed(None)


def opener(platter: Platter) -> Callable[[Any, Path, str, str], Storage]:
    """Opens the store on *platter*, whatever the path."""

    def open_storage(host: Any, _: Path, name: str, new_identity: str) -> Storage:
        directory = DataDirectory(
            platter.path, lambda _: SimulatedEngine(platter), name, new_identity
        )
        writer, reader = Later(host, SYNC_SECONDS), Later(host, READ_SECONDS)
        store = Store(host, directory.engine, writer, reader, directory.marks)
        return Storage(directory, store)

    return open_storage
