"""The store: group commit, and what it does when the disk does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import DiskFull, NotDone, OutcomeUnknown, StoreFailed
from kvtwist.storage.engine import Batch
from kvtwist.storage.memory import MemoryEngine
from kvtwist.storage.store import REOPEN_SECONDS, Condition, Store


class Slow:
    """A worker that does a job when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Callable[[], Any], Deferred[Any]]] = []
        self.stopped = False

    def do(self, job: Callable[[], Any]) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()
        self.jobs.append((job, done))
        return done

    def stop(self) -> Deferred[None]:
        self.stopped = True
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def work(self) -> None:
        """One job."""
        job, done = self.jobs.pop(0)
        try:
            result = job()
        except Exception:
            done.errback(Failure())
        else:
            done.callback(result)


class Disk(MemoryEngine):
    """An engine whose disk can break."""

    def __init__(self) -> None:
        super().__init__()
        self.trouble: Exception | None = None
        self.commits: list[tuple[int, bool]] = []
        self.reopened = 0
        self.closed = False

    def commit(self, batch: Batch, *, sync: bool) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.commits.append((len(batch.operations), sync))
        super().commit(batch, sync=sync)

    def reopen(self) -> None:
        self.reopened += 1
        if self.trouble is not None:
            raise self.trouble

    def close(self) -> None:
        self.closed = True


def put(key: bytes) -> Batch:
    batch = Batch()
    batch.put(key, b"value")
    return batch


class StoreCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.disk = Clock(), Disk()
        self.writer, self.reader = Slow(), Slow()
        self.store = Store(self.clock, self.disk, self.writer, self.reader)

    def turn(self) -> None:
        """The reactor's turn ends."""
        self.clock.advance(0)


class GroupCommitTests(StoreCase):
    def test_nothing_is_durable_before_the_commit(self) -> None:
        """R1: an acknowledgement before the sync is a promise that a crash breaks."""
        done = self.store.write(put(b"a"))
        self.turn()
        self.assertNoResult(done)
        self.writer.work()
        self.assertIsNone(self.successResultOf(done))
        self.assertEqual(self.disk.commits, [(1, True)])

    def test_one_turn_one_commit(self) -> None:
        """All partitions share one sync (R18); each has its own answer."""
        done = [self.store.write(put(b"%d" % number)) for number in range(50)]
        self.turn()
        self.assertEqual(len(self.writer.jobs), 1)
        self.writer.work()
        for each in done:
            self.successResultOf(each)
        self.assertEqual(self.disk.commits, [(50, True)])

    def test_what_comes_meanwhile_goes_together(self) -> None:
        """While one sync is under way the next batch gathers."""
        first = self.store.write(put(b"a"))
        self.turn()
        later = [self.store.write(put(b"%d" % number)) for number in range(10)]
        self.turn()
        self.assertEqual(len(self.writer.jobs), 1)
        self.writer.work()
        self.successResultOf(first)
        for each in later:
            self.assertNoResult(each)
        self.writer.work()
        for each in later:
            self.successResultOf(each)
        self.assertEqual(self.disk.commits, [(1, True), (10, True)])

    def test_without_sync(self) -> None:
        """What need not be durable costs no sync, unless it goes with what must."""
        self.store.write(put(b"a"), sync=False)
        self.turn()
        self.writer.work()
        self.store.write(put(b"b"), sync=False)
        self.store.write(put(b"c"))
        self.turn()
        self.writer.work()
        self.assertEqual(self.disk.commits, [(1, False), (2, True)])

    def test_answers_come_in_order(self) -> None:
        """Whoever asked first is answered first."""
        order: list[int] = []
        for number in range(5):
            done = self.store.write(put(b"%d" % number))
            done.addCallback(lambda _, mine: order.append(mine), number)
        self.turn()
        self.writer.work()
        self.assertEqual(order, [0, 1, 2, 3, 4])

    def test_reads_do_not_wait_for_writes(self) -> None:
        """A slow sync must not make reads slow."""
        self.store.write(put(b"a"))
        self.turn()
        read = self.store.read(lambda engine: engine.get(b"a"))
        self.reader.work()
        self.assertIsNone(self.successResultOf(read))


class FailureTests(StoreCase):
    def broken(self, trouble: Exception) -> tuple[Deferred[None], Deferred[None]]:
        """A write in a commit that fails with *trouble*, and one that waited for the next."""
        failing = self.store.write(put(b"failing"))
        self.turn()
        waiting = self.store.write(put(b"waiting"))
        self.disk.trouble = trouble
        self.writer.work()
        return failing, waiting

    def test_after_a_failed_sync_it_is_over(self) -> None:
        """S1: the next sync may succeed, and lie."""
        told: list[object] = []
        self.store.on_failed(told.append)
        failing, waiting = self.broken(StoreFailed("fdatasync: Input/output error"))
        self.failureResultOf(failing, OutcomeUnknown)
        self.failureResultOf(waiting, StoreFailed)
        self.disk.trouble = None
        self.failureResultOf(self.store.write(put(b"later")), StoreFailed)
        self.clock.advance(60)
        self.assertEqual(self.writer.jobs, [])
        self.assertIs(self.store.condition, Condition.FAILED)
        self.assertEqual(len(told), 1)
        self.assertIn("Input/output error", str(told[0]))

    def test_a_bug_is_a_failure_too(self) -> None:
        """Whatever a commit raises, nothing is written after it."""
        failing, waiting = self.broken(RuntimeError("a bug"))
        self.failureResultOf(failing, OutcomeUnknown)
        self.failureResultOf(waiting, StoreFailed)
        self.assertIs(self.store.condition, Condition.FAILED)

    def test_a_full_disk_refuses_definitely(self) -> None:
        """S2: what was not begun is not done, and says so; reads go on."""
        failing, waiting = self.broken(DiskFull("No space left on device"))
        self.failureResultOf(failing, OutcomeUnknown)
        refused = self.failureResultOf(waiting, DiskFull)
        self.assertIsInstance(refused.value, NotDone)
        self.failureResultOf(self.store.write(put(b"later")), DiskFull)
        read = self.store.read(lambda engine: engine.get(b"a"))
        self.reader.work()
        self.successResultOf(read)

    def test_with_room_again_it_goes_on(self) -> None:
        """S8: opened anew, in the same process, and whoever keeps state is told to read it; who
        holds views was told to give them up."""
        told: list[str] = []
        self.store.on_full(lambda: told.append("full"))
        self.store.on_reopened(lambda: told.append("again"))
        for lost in self.broken(DiskFull("full")):
            self.failureResultOf(lost)
        self.assertEqual(told, ["full"])
        self.clock.advance(REOPEN_SECONDS)
        self.reader.work()
        self.assertIs(self.store.condition, Condition.FULL)
        self.disk.trouble = DiskFull("it needs 9 MiB to go on")
        self.clock.advance(REOPEN_SECONDS)
        self.reader.work()
        self.assertIn("9 MiB", self.store.trouble)
        self.disk.trouble = None
        self.clock.advance(REOPEN_SECONDS)
        self.reader.work()
        self.assertEqual((self.store.condition, told), (Condition.OPEN, ["full", "again"]))
        self.assertEqual(self.writer.jobs, [])
        done = self.store.write(put(b"later"))
        self.turn()
        self.writer.work()
        self.successResultOf(done)

    def test_what_fails_at_reopening_is_final(self) -> None:
        """A disk that was full and is now broken is broken."""
        for lost in self.broken(DiskFull("full")):
            self.failureResultOf(lost)
        self.disk.trouble = StoreFailed("Input/output error")
        self.clock.advance(REOPEN_SECONDS)
        self.reader.work()
        self.assertIs(self.store.condition, Condition.FAILED)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ClosingTests(StoreCase):
    def test_what_was_asked_for_is_committed_first(self) -> None:
        """A stop in order loses nothing."""
        done = self.store.write(put(b"a"))
        closed = self.store.close()
        self.writer.work()
        self.successResultOf(done)
        self.writer.work()
        self.successResultOf(closed)
        self.assertTrue(self.disk.closed)
        self.assertTrue(self.reader.stopped and self.writer.stopped)

    def test_closed_by_whoever_is_told_that_it_is_done(self) -> None:
        """A node may be stopped by an answer; it is stopped once."""
        done = self.store.write(put(b"a"))
        closed = done.addCallback(lambda _: self.store.close())
        self.turn()
        self.writer.work()
        self.assertEqual(len(self.writer.jobs), 1)
        self.writer.work()
        self.successResultOf(closed)
        self.assertEqual(self.writer.jobs, [])

    def test_after_that_nothing_is_taken(self) -> None:
        """With an error that says so."""
        closed = self.store.close()
        self.failureResultOf(self.store.write(put(b"a")), StoreFailed)
        self.failureResultOf(self.store.read(lambda engine: engine.get(b"a")), StoreFailed)
        self.writer.work()
        self.successResultOf(closed)

    def test_while_full(self) -> None:
        """A node with a full disk can be stopped."""
        failing = self.store.write(put(b"a"))
        self.turn()
        self.disk.trouble = DiskFull("full")
        self.writer.work()
        self.failureResultOf(failing, OutcomeUnknown)
        closed = self.store.close()
        self.writer.work()
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])
