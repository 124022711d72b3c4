"""The threads that wait for disks, so that the reactor does not.

One thread does its jobs one after the other. Twisted's ``deferToThread`` would do, but costs a
quarter of a millisecond for each job, since it starts, finds and wakes threads by way of a pool.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

_Result = TypeVar("_Result")


class Worker(Protocol):
    """Whoever does jobs elsewhere, one after the other, in the order in which they come."""

    def do(self, job: Callable[[], _Result]) -> Deferred[_Result]:
        """Have *job* done; fires, on the reactor, with what it returns or raises."""

    def stop(self) -> Deferred[None]:
        """Finish what has been given, then end; fires when all is done."""


class Thread:
    """A `Worker` that is a thread, started with its first job.

    :param reactor: an ``IReactorFromThreads``.
    """

    def __init__(self, reactor: Any, name: str) -> None:
        self._reactor = reactor
        self._name = name
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Deferred[Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopped: Deferred[None] | None = None

    def do(self, job: Callable[[], _Result]) -> Deferred[_Result]:
        """Have *job* done."""
        assert self._stopped is None, "a worker that was stopped takes no jobs"
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        done: Deferred[_Result] = Deferred()
        self._jobs.put((job, done))
        return done

    def stop(self) -> Deferred[None]:
        """Finish, and end."""
        if self._stopped is None:
            self._stopped = Deferred()
            if self._thread is None:
                self._stopped.callback(None)
            else:
                self._jobs.put(None)
        return self._stopped

    def _work(self) -> None:
        while (task := self._jobs.get()) is not None:
            job, done = task
            try:
                result = job()
            except BaseException:
                self._reactor.callFromThread(done.errback, Failure())
            else:
                self._reactor.callFromThread(done.callback, result)
        self._reactor.callFromThread(self._end)

    def _end(self) -> None:
        thread, stopped = self._thread, self._stopped
        assert thread is not None and stopped is not None
        thread.join()
        stopped.callback(None)
