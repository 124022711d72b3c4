"""The store: what many ask for in one turn is committed together, and nobody waits for the disk.

``write`` hands a batch in and returns a Deferred that fires when it is durable. One commit is under
way at a time; all that comes meanwhile goes with the next: *group commit*, over all partitions of a
node. Callers get their answers in the order in which they asked.

What can happen to the store::

    OPEN --a commit finds the disk full--> FULL --room again, opened anew--> OPEN
    OPEN, FULL --anything else goes wrong--> FAILED

In FULL, writes are refused with `DiskFull`, reads go on; whoever was told `OutcomeUnknown` of a
write learns by `on_reopened` that all state has to be read from the disk again (S2, S8). FAILED is
for ever: `on_failed` is told once, and the node has to end (S1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from kvtwist.errors import DiskFull, OutcomeUnknown, StorageError, StoreFailed
from kvtwist.storage.engine import Batch, Engine, NotCached
from kvtwist.storage.marks import Mark, Marks
from kvtwist.storage.worker import Worker

REOPEN_SECONDS: Final = 1.0
"""How long to wait between two attempts to go on after a full disk."""

_Result = TypeVar("_Result")


class Condition(Enum):
    """How the store is."""

    OPEN = "open"
    FULL = "the disk is full"
    FAILED = "the disk has failed"


class Store:
    """An engine that does not make the reactor wait.

    :param reactor: for timers only.
    :param writer: commits; nobody else may.
    :param reader: reads what is not in memory; opens the engine anew.
    :param marks: raised after the commits that say so; `None` for a store that keeps nothing.

    :ivar condition: how it is.
    :ivar trouble: why it is not open, for people.
    """

    def __init__(
        self,
        reactor: Any,
        engine: Engine,
        writer: Worker,
        reader: Worker,
        marks: Marks | None = None,
    ) -> None:
        self._reactor = reactor
        self._engine = engine
        self._writer = writer
        self._reader = reader
        self._marks = marks
        self._gathered = Batch()
        self._gathered_marks: dict[int, Mark] = {}
        self._sync = False
        self._waiting: list[Deferred[None]] = []
        self._committing = False
        self._flushing = False
        self._retry: Any = None
        self._closing: Deferred[None] | None = None
        self._is_ending = False
        self._when_failed: list[Callable[[StorageError], None]] = []
        self._when_full: list[Callable[[], None]] = []
        self._when_reopened: list[Callable[[], None]] = []
        self.condition = Condition.OPEN
        self.trouble = ""
        self.commits = 0

    def on_failed(self, notify: Callable[[StorageError], None]) -> None:
        """Have *notify* called when it is over with this store."""
        self._when_failed.append(notify)

    def on_full(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when the disk is full. Views should be given up then: they pin what
        could make room (S5), and do not outlast the opening anew."""
        self._when_full.append(notify)

    def on_reopened(self, notify: Callable[[], None]) -> None:
        """Have *notify* called when there is room again, and all state is as on the disk."""
        self._when_reopened.append(notify)

    # -- writing ------------------------------------------------------------------------------

    def write(
        self,
        batch: Batch,
        *,
        sync: bool = True,
        marks: Mapping[int, Mark] | None = None,
        at_once: bool = False,
    ) -> Deferred[None]:
        """Have *batch* committed; fires when it is durable, or without *sync* when it is done.

        The commit begins when the reactor's turn ends, with all that was asked for by then, or when
        the one that is under way is done.

        :param marks: to be raised with it, durably, before it fires.
        :param at_once: whether it need not wait for the turn's end.

        Fails with `DiskFull` or `StoreFailed`: nothing was done; or with `OutcomeUnknown`: the
        commit that it was in has failed.
        """
        if self.condition is not Condition.OPEN or self._closing is not None:
            return fail(self._refusal())
        self._gathered.extend(batch)
        self._sync = self._sync or sync
        if marks:
            self._gathered_marks.update(marks)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if at_once:
            self._flush()
        elif not self._committing and not self._flushing:
            self._flushing = True
            self._reactor.callLater(0, self._flush)  # what this turn still brings goes with it
        return done

    def _refusal(self) -> StorageError:
        if self.condition is Condition.FULL:
            return DiskFull(f"nothing can be written: {self.trouble}")
        return StoreFailed(f"nothing can be written: {self.trouble or 'the store is closed'}")

    def _flush(self) -> None:
        self._flushing = False
        if self._committing or not self._waiting or self.condition is not Condition.OPEN:
            return
        batch, self._gathered = self._gathered, Batch()
        marks, self._gathered_marks = self._gathered_marks, {}
        sync, self._sync = self._sync, False
        waiting, self._waiting = self._waiting, []
        self._committing = True
        self.commits += 1
        committed = self._writer.do(lambda: self._commit(batch, sync, marks))
        committed.addBoth(self._committed, waiting)

    def _commit(self, batch: Batch, sync: bool, marks: dict[int, Mark]) -> None:
        """On the writer's thread. The marks come second: ahead of the store, they would condemn
        it."""
        self._engine.commit(batch, sync=sync)
        if marks and self._marks is not None:
            self._marks.raise_to(marks)

    def _committed(self, result: Failure | None, waiting: list[Deferred[None]]) -> None:
        self._committing = False
        if isinstance(result, Failure):
            self._broken(result, waiting)
        else:
            for done in waiting:
                done.callback(None)
            self._flush()
        self._end_if_closing()

    def _broken(self, failure: Failure, unknown: list[Deferred[None]]) -> None:
        """A commit has failed: whether it will be there after all cannot be said (S1, S2)."""
        error = failure.value
        trouble = error if isinstance(error, StorageError) else StoreFailed(repr(error))
        self.trouble = str(trouble)
        refused, self._waiting = self._waiting, []
        self._gathered, self._sync, self._gathered_marks = Batch(), False, {}
        if isinstance(trouble, DiskFull):
            self.condition = Condition.FULL
            self._retry = self._reactor.callLater(REOPEN_SECONDS, self._reopen)
            for notify in self._when_full:
                notify()
        else:
            self._fail(trouble)
        for done in unknown:
            done.errback(OutcomeUnknown(f"it may have been written or not: {self.trouble}"))
        for done in refused:
            done.errback(self._refusal())

    def _fail(self, trouble: StorageError) -> None:
        self.condition = Condition.FAILED
        self.trouble = str(trouble)
        for notify in self._when_failed:
            notify(trouble)

    # -- after a full disk --------------------------------------------------------------------

    def _reopen(self) -> None:
        self._retry = None
        self._committing = True
        # The reader does it, so that nothing is read meanwhile; nor is anything written.
        self._reader.do(self._opened_with_room).addBoth(self._reopened)

    def _opened_with_room(self) -> None:
        self._engine.reopen()
        if self._marks is not None:
            self._marks.reopen()
        self._engine.commit(Batch(), sync=True)

    def _reopened(self, result: Failure | None) -> None:
        self._committing = False
        if not isinstance(result, Failure):
            self.condition, self.trouble = Condition.OPEN, ""
            for notify in self._when_reopened:
                notify()
        elif isinstance(result.value, DiskFull) and self._closing is None:
            self.trouble = str(result.value)  # it may say how much room is needed
            self._retry = self._reactor.callLater(REOPEN_SECONDS, self._reopen)
        else:
            self._fail(StoreFailed(f"it could not be opened again: {result.getErrorMessage()}"))
        self._end_if_closing()

    # -- reading ------------------------------------------------------------------------------

    def get_cached(self, key: bytes) -> bytes | NotCached | None:
        """What was committed last under *key*, if that is known without waiting."""
        return self._engine.get_cached(key)

    def read(self, job: Callable[[Engine], _Result]) -> Deferred[_Result]:
        """Have *job* read from the engine, on a thread; fires with what it returns.

        Jobs must not commit.
        """
        if self.condition is Condition.FAILED or self._closing is not None:
            return fail(self._refusal())
        return self._reader.do(lambda: job(self._engine))

    # -- the end ------------------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """Commit what was asked for, then close; fires when that is done."""
        if self._closing is None:
            self._closing = Deferred()
            if self._retry is not None:
                self._retry.cancel()
                self._retry = None
            self._flush()
            self._end_if_closing()
        return self._closing

    def _end_if_closing(self) -> None:
        closing = self._closing
        if closing is None or self._is_ending or self._committing or self._waiting:
            return
        self._is_ending = True
        reading = self._reader.stop()
        reading.addCallback(lambda _: self._writer.do(self._close))
        reading.addBoth(lambda result: self._writer.stop().addCallback(lambda _: result))
        reading.chainDeferred(closing)

    def _close(self) -> None:
        self._engine.close()
        if self._marks is not None:
            self._marks.close()
