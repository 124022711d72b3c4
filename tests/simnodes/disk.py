"""Disks of simulated machines: slow at times, full at times, failing, and never more than synced.

A `Disk` outlives its machine's crashes; an `Engine` is one life's view of it. What was written and
not synced is in order, as in a write-ahead log: a crash keeps some first part of it. A commit that
is under way when the machine crashes may be there afterwards, whole or not at all, with its marks
or without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from kvtwist.errors import DiskFull, StorageError, StoreFailed
from kvtwist.storage.directory import DataDirectory
from kvtwist.storage.engine import NOT_CACHED, Batch, NotCached
from kvtwist.storage.marks import Mark, Marks
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.opening import Storage
from kvtwist.storage.store import Store
from tests.simnodes.network import Host
from tests.simnodes.plan import Disks


class PowerLost(Exception):
    """The machine crashes now."""


class Disk:
    """What is on a machine's disk, over all its lives; and what happens to it.

    :ivar synced: what is certain to be there after a crash.
    :ivar unsynced: what may be, in its order.
    :ivar marks: the file of marks; what is noted there is synced.
    :ivar trouble: raised by each commit, while it is set.
    :ivar cold: share of look-ups that are not in the engine's memory.
    :ivar stalled_until: a sync that ends sooner ends then.
    """

    def __init__(self, random: Random, plan: Disks) -> None:
        self.synced = MemoryEngine()
        self.unsynced: list[Batch] = []
        self.marks: dict[int, Mark] = {}
        self.trouble: StorageError | None = None
        self.cold = plan.cold
        self.stalled_until = 0.0
        self.counts: Counter[str] = Counter()
        self.plan = plan
        self._random = random
        self._limbo: list[Batch] = []
        self._writer: Worker | None = None
        self._is_losing_power = False

    # -- what engines and workers do ----------------------------------------------------------

    def write(self, batch: Batch) -> bool:
        """Write *batch*; whether it can be read from then on, however its sync ends."""
        if self.trouble is None:
            self.unsynced.append(batch)
        elif self._random.random() < 0.5:
            self._limbo.append(batch)
        else:
            return False
        return True

    def commit(self, sync: bool) -> None:
        """End a commit: with *sync*, all that was written is synced.

        :raises StorageError: whether what was written last is done is unknown then.
        """
        if self.trouble is not None:
            raise self.trouble
        if sync:
            self.counts["syncs"] += 1
            self._keep(len(self.unsynced))

    def raise_to(self, marks: Mapping[int, Mark]) -> None:
        """Note marks, synced."""
        if self._is_losing_power:
            raise PowerLost
        if self.trouble is not None:
            raise self.trouble
        self.marks.update(marks)

    def reopen(self) -> None:
        """Open it again after a full disk: what was written is found.

        :raises StorageError: while there is trouble.
        """
        if self.trouble is not None:
            raise self.trouble
        self.unsynced += self._limbo
        self._limbo = []

    def sync_seconds(self, now: float) -> float:
        """How long the next commit takes."""
        seconds = self.plan.sync_seconds * (0.5 + self._random.random())
        return max(seconds, self.stalled_until - now)

    def is_cold(self) -> bool:
        """Whether the next look-up has to wait for the disk."""
        return self.cold > 0 and self._random.random() < self.cold

    def _keep(self, batches: int) -> None:
        for batch in self.unsynced[:batches]:
            self.synced.commit(batch, sync=True)
        del self.unsynced[:batches]

    # -- what happens to it -------------------------------------------------------------------

    def crash(self) -> None:
        """The machine crashes, under whatever the disk is doing."""
        random, writer, self._writer = self._random, self._writer, None
        if writer is not None and writer.under_way is not None and random.random() < 0.6:
            self._is_losing_power = random.random() < 0.3
            self.counts["commits under a crash"] += 1
            with suppress(PowerLost, StorageError):
                writer.under_way()
            self._is_losing_power = False
        if self._limbo:
            self.unsynced += self._limbo
            self._limbo = []
        there = len(self.unsynced)
        kept = random.choice((0, there, random.randrange(there + 1)))
        self.counts["unsynced writes lost"] += there - kept
        self._keep(kept)
        self.unsynced.clear()

    def open(self, host: Host, _: Path, name: str, new_identity: str) -> Storage:
        """`kvtwist.storage.opening.OpenStorage`, on this disk."""
        directory = DataDirectory(
            Path("disk"),
            lambda _: Engine(self),
            name,
            new_identity,
            make_marks=lambda _: SimulatedMarks(self),
        )
        self._writer = Worker(host, lambda: self.sync_seconds(host.network.clock.now))
        reader = Worker(host, lambda: self.plan.read_seconds * (0.5 + self._random.random()))
        store = Store(host, directory.engine, self._writer, reader, directory.marks)
        return Storage(directory, store)


class Engine(MemoryEngine):
    """One life's view of a disk: all that was committed in it."""

    def __init__(self, disk: Disk) -> None:
        super().__init__()
        self._disk = disk
        everything = Batch()
        for key, value in disk.synced.scan(b"", b"\xff"):
            everything.put(key, value)
        super().commit(everything, sync=True)

    def get_cached(self, key: bytes) -> bytes | NotCached | None:  # type: ignore[override]
        """Sometimes it does not know."""
        return NOT_CACHED if self._disk.is_cold() else super().get_cached(key)

    def commit(self, batch: Batch, *, sync: bool) -> None:
        """As the disk does: what was written can be read, also when the sync fails then."""
        if self._disk.write(batch):
            super().commit(batch, sync=sync)
        self._disk.commit(sync)

    def reopen(self) -> None:
        """What could be read of what was on its way is there now."""
        self._disk.reopen()


class SimulatedMarks(Marks):
    """The file of marks, on a disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.known = dict(disk.marks)

    def raise_to(self, marks: Mapping[int, Mark]) -> None:
        """Note them."""
        self._disk.raise_to(marks)
        self.known.update(marks)

    def reopen(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Worker:
    """A thread that works for a host: a `kvtwist.storage.worker.Worker`.

    What it does takes effect when it ends. A host that is frozen or dead starts no more jobs, and
    is told of none.

    :param takes_seconds: how long the next job takes.
    :ivar under_way: the job that it is at.
    """

    def __init__(self, host: Host, takes_seconds: Callable[[], float]) -> None:
        self._host = host
        self._takes_seconds = takes_seconds
        self._waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.under_way: Callable[[], Any] | None = None

    def do(self, job: Callable[[], Any]) -> Deferred[Any]:
        """Have *job* done, after those before it."""
        done: Deferred[Any] = Deferred()
        self._waiting.append((job, done))
        if self.under_way is None:
            self._begin()
        return done

    def stop(self) -> Deferred[None]:
        """All that was given is done by then, as the store sees to it."""
        return succeed(None)

    def _begin(self) -> None:
        job, done = self._waiting.pop(0)
        self.under_way = job
        self._host.network.clock.after(self._takes_seconds(), self._end, (job, done))

    def _end(self, task: tuple[Callable[[], Any], Deferred[Any]]) -> None:
        job, done = task
        if not self._host.is_alive:
            self._waiting.append(task)  # for good
            return
        try:
            result = job()
        except Exception:
            result = Failure()
        self.under_way = None
        # The disk has it, whatever becomes of the host; the reactor hears of it in its turn.
        self._host.run(lambda: self._tell(done, result))

    def _tell(self, done: Deferred[Any], result: Any) -> None:
        done.callback(result)  # which takes a failure for one
        if self.under_way is None and self._waiting:
            self._begin()


def failed() -> StorageError:
    """What a sync that fails says."""
    return StoreFailed("fdatasync: Input/output error")


def full() -> StorageError:
    """What a full disk says."""
    return DiskFull("the disk is full")
