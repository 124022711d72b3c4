"""The thread that waits for disks."""

from __future__ import annotations

import threading
from functools import partial
from queue import Queue
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kvtwist.storage.worker import Thread


class Reactor:
    """Takes calls from threads, and makes them when it is told to."""

    def __init__(self) -> None:
        self.calls: Queue[tuple[Any, tuple[Any, ...]]] = Queue()

    def callFromThread(self, function: Any, *arguments: Any) -> None:
        self.calls.put((function, arguments))

    def make_one(self) -> None:
        function, arguments = self.calls.get(timeout=10)
        function(*arguments)


class ThreadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Reactor()
        self.thread = Thread(self.reactor, "test")

    def stop(self) -> None:
        stopped = self.thread.stop()
        self.reactor.make_one()
        self.successResultOf(stopped)

    def test_jobs_are_done_elsewhere(self) -> None:
        """The reactor goes on meanwhile."""
        done = self.thread.do(threading.get_ident)
        self.assertNoResult(done)
        self.reactor.make_one()
        self.assertNotEqual(self.successResultOf(done), threading.get_ident())
        self.stop()

    def test_what_a_job_raises_is_its_result(self) -> None:
        """And the next job is done all the same."""
        failing, following = self.thread.do(lambda: 1 // 0), self.thread.do(lambda: "done")
        self.reactor.make_one()
        self.failureResultOf(failing, ZeroDivisionError)
        self.reactor.make_one()
        self.assertEqual(self.successResultOf(following), "done")
        self.stop()

    def test_one_after_the_other(self) -> None:
        """Commits are in the order in which they were asked for."""
        order: list[int] = []
        for number in range(20):
            self.thread.do(partial(order.append, number))
        for _ in range(20):
            self.reactor.make_one()
        self.assertEqual(order, list(range(20)))
        self.stop()

    def test_what_was_given_is_finished(self) -> None:
        """A stop loses no commit, and leaves no thread behind."""
        done = self.thread.do(lambda: "done")
        stopped = self.thread.stop()
        self.reactor.make_one()
        self.assertEqual(self.successResultOf(done), "done")
        self.reactor.make_one()
        self.successResultOf(stopped)
        self.assertNotIn("test", [thread.name for thread in threading.enumerate()])

    def test_a_thread_that_was_never_needed(self) -> None:
        """There is none to wait for."""
        self.successResultOf(self.thread.stop())
