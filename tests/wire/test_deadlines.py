"""Time limits of calls: kept nearly to the point, by one timer that is only there when needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger, capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvtwist.errors import NoAnswer
from kvtwist.wire.boxes import ANSWER, ASK, BoxLimits, BoxReader, write_box
from kvtwist.wire.commands import Ping
from kvtwist.wire.connection import Connection
from kvtwist.wire.deadlines import TICK_SECONDS, Deadlines
from kvtwist.wire.seldom import INTERVAL_SECONDS, Seldom


class Task:
    """Something with one deadline.

    :ivar ended: when it was ended, if it was.
    """

    def __init__(self, deadline: float) -> None:
        self.deadline: float | None = deadline
        self.ended: float | None = None
        self.looks = 0

    def expire(self, now: float) -> bool:
        """End it, if it is overdue."""
        self.looks += 1
        if self.deadline is not None and self.deadline <= now:
            self.ended, self.deadline = now, None
        return self.deadline is not None


class DeadlinesTests(SynchronousTestCase):
    """The timer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)

    def run_for(self, seconds: float) -> None:
        """Let time pass in small steps."""
        self.clock.pump([TICK_SECONDS / 5] * round(5 * seconds / TICK_SECONDS))

    def test_on_time(self) -> None:
        """T7: else a call ends before its time, or long after."""
        tasks = [Task(deadline) for deadline in (0.01, 0.5, 0.52, 1.0, 3.0)]
        for task in tasks:
            self.deadlines.watch(task)
        deadlines = [task.deadline for task in tasks]
        self.run_for(3.5)
        for task, deadline in zip(tasks, deadlines, strict=True):
            assert task.ended is not None
            assert deadline is not None
            self.assertGreaterEqual(task.ended, deadline)
            self.assertLessEqual(task.ended, deadline + 1.21 * TICK_SECONDS)

    def test_one_that_fails(self) -> None:
        """Else one bug ends the time limits of all calls, and each waits for ever."""
        bad, good = Task(0.1), Task(1.0)
        self.patch(bad, "expire", lambda _: 1 / 0)
        for task in (bad, good):
            self.deadlines.watch(task)
        self.run_for(1.2)
        self.assertIsNotNone(good.ended)
        self.assertGreater(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.deadlines.forget(bad)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_timer_when_idle(self) -> None:
        """Else an idle process wakes up twenty times a second, for nothing."""
        self.assertEqual(self.clock.getDelayedCalls(), [])
        for _ in range(3):
            self.deadlines.watch(Task(self.clock.seconds() + 0.2))
            self.assertEqual(len(self.clock.getDelayedCalls()), 1)
            self.run_for(0.5)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        """Else time limits cost as much as the requests themselves."""
        tasks = [Task(1.0) for _ in range(100)]
        for task in tasks:
            self.deadlines.watch(task)
            self.deadlines.watch(task)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.run_for(1.2)
        self.assertLess(max(task.looks for task in tasks), 1.2 / TICK_SECONDS + 1)

    def test_nobody_looks_at_what_is_over(self) -> None:
        """Else a node slows down with each connection that there ever was."""
        short, long = Task(0.1), Task(1.0)
        self.deadlines.watch(short)
        self.deadlines.watch(long)
        self.run_for(1.2)
        self.assertLess(short.looks, 5)

    def test_watched_again_while_looking(self) -> None:
        """Else a call made because another one's time was up has no time limit."""
        later = Task(1.0)

        class Again(Task):
            def expire(again, now: float) -> bool:  # noqa: N805
                self.deadlines.watch(later)
                return super().expire(now)

        self.deadlines.watch(Again(0.1))
        self.run_for(1.5)
        self.assertIsNotNone(later.ended)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_forgotten(self) -> None:
        """T11: else an embedded node that was stopped leaves a timer in its host's reactor."""
        one, other = Task(1.0), Task(1.0)
        self.deadlines.watch(one)
        self.deadlines.watch(other)
        self.deadlines.forget(one)
        self.deadlines.forget(one)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.deadlines.forget(other)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.run_for(2.0)
        self.assertEqual((one.looks, other.looks), (0, 0))
        self.deadlines.watch(one)
        self.run_for(0.1)
        self.assertIsNotNone(one.ended)

    def test_forgotten_while_looking(self) -> None:
        """The same, when one call's time limit ends a connection, and with it other calls."""
        tasks: list[Task] = []

        class Last(Task):
            def expire(last, now: float) -> bool:  # noqa: N805
                for task in tasks:
                    self.deadlines.forget(task)
                return super().expire(now)

        tasks += [Last(0.1), Last(9.0), Task(9.0)]
        for task in tasks:
            self.deadlines.watch(task)
        self.run_for(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_clock(self) -> None:
        """T1: else a wall clock that is set forward ends every call of an embedded node, whose
        reactor has no other clock."""
        elapsed = Clock()
        deadlines = Deadlines(self.clock, elapsed.seconds)
        task = Task(1.0)
        deadlines.watch(task)
        self.clock.advance(3600.0)
        self.assertIsNone(task.ended)
        elapsed.advance(1.0)
        self.clock.advance(TICK_SECONDS)
        self.assertEqual(task.ended, 1.0)


STEP_SECONDS = TICK_SECONDS / 4
LATE_SECONDS_MAX = TICK_SECONDS + STEP_SECONDS


@dataclass
class Call:
    """A call: when it is made, how long it may take, when it is answered (never: ``None``)."""

    at: int
    limit: int
    answered_after: int | None
    connection: int
    tag: bytes = b""
    ended_at: float | None = None
    result: Any = None

    def made(self, deferred: Deferred[Any], clock: Clock) -> None:
        """Watch how it ends."""

        def ended(result: Any) -> None:
            assert self.ended_at is None, "it ended twice"
            self.ended_at, self.result = clock.seconds(), result

        deferred.addBoth(ended)


calls = st.lists(
    st.builds(
        Call,
        at=st.integers(0, 40),
        limit=st.integers(1, 60),
        answered_after=st.none() | st.integers(0, 70),
        connection=st.integers(0, 4),
    ),
    max_size=12,
)


class Answering:
    """A connection to a peer that answers what it is told to."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.connection = Connection(deadlines)
        self.transport = StringTransport()
        self.connection.makeConnection(self.transport)
        self._reader = BoxReader(BoxLimits(1 << 20, 100))

    def ask(self, seconds: float) -> tuple[bytes, Deferred[Any]]:
        """Make a call; its tag, and how it ends."""
        deferred = self.connection.call(Ping, {}, seconds)
        (box,) = self._reader.feed(self.transport.value())
        self.transport.clear()
        return box[ASK], deferred

    def answer(self, tag: bytes) -> None:
        """Answer it."""
        self.connection.dataReceived(write_box({ANSWER: tag}))


class CallTests(SynchronousTestCase):
    """T7: time limits of calls, over many connections that share one timer."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.deadlines = Deadlines(self.clock)
        self.peers = [Answering(self.deadlines) for _ in range(5)]

    def pending(self) -> int:
        """How many timers there are."""
        return len(self.clock.getDelayedCalls())

    def test_one_timer_for_all(self) -> None:
        """Else each request costs a timer of its own, a tenth of all its time; or a process that
        does nothing wakes up for nothing."""
        self.assertEqual(self.pending(), 0)
        asked = [(peer, *peer.ask(5.0)) for peer in self.peers for _ in range(200)]
        self.assertEqual(self.pending(), 1)
        for peer, tag, deferred in asked:
            self.assertEqual(self.pending(), 1)
            peer.answer(tag)
            self.assertEqual(self.successResultOf(deferred), {})
        self.clock.advance(TICK_SECONDS)
        self.assertEqual(self.pending(), 0)

    def test_no_timer_after_the_last(self) -> None:
        """The same, when the calls end in other ways."""
        (failed,), (cancelled,), (lost,) = ([peer.ask(0.2)] for peer in self.peers[:3])
        cancelled[1].addErrback(lambda _: None)
        cancelled[1].cancel()
        self.peers[2].connection.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(lost[1], NoAnswer)
        self.clock.pump([TICK_SECONDS] * 6)
        self.failureResultOf(failed[1], NoAnswer)
        self.assertEqual(self.pending(), 0)

    def test_again_after_a_pause(self) -> None:
        """Else only the first calls of a process have a time limit."""
        for _ in range(3):
            _, deferred = self.peers[0].ask(1.0)
            self.clock.pump([TICK_SECONDS] * 22)
            self.failureResultOf(deferred, NoAnswer)
            self.assertEqual(self.pending(), 0)
            self.clock.advance(100.0)

    def test_lost_and_called_again_in_one_look(self) -> None:
        """Else a caller that hangs up because its time is up, and asks somebody else at once,
        starts a second timer beside the first, and a third the next time."""
        gone, other = self.peers[:2]
        asked: list[Deferred[Any]] = []

        def elsewhere(_: object) -> None:
            gone.connection.connectionLost(Failure(ConnectionDone()))
            asked.append(other.ask(1.0)[1])

        gone.ask(0.2)[1].addErrback(elsewhere)
        self.clock.pump([TICK_SECONDS] * 5)
        self.assertEqual((len(asked), self.pending()), (1, 1))
        self.clock.pump([TICK_SECONDS] * 22)
        self.failureResultOf(asked[0], NoAnswer)
        self.assertEqual(self.pending(), 0)

    def test_a_call_after_each_failure(self) -> None:
        """Else a caller that tries again as soon as its time is up waits for ever."""
        ends: list[float] = []

        def again(_: object) -> None:
            ends.append(self.clock.seconds())
            if len(ends) < 5:
                self.peers[len(ends)].ask(1.0)[1].addErrback(again)

        self.peers[0].ask(1.0)[1].addErrback(again)
        self.clock.pump([STEP_SECONDS] * round(6 / STEP_SECONDS))
        self.assertEqual(len(ends), 5)
        for number, end in enumerate(ends, start=1):
            self.assertGreaterEqual(end, number)
            self.assertLessEqual(end, number * (1 + LATE_SECONDS_MAX))
        self.assertEqual(self.pending(), 0)

    @settings(deadline=None, max_examples=200)
    @given(calls)
    def test_any_calls(self, made: list[Call]) -> None:
        """Else a call ends before its time, or long after, or twice, or is failed although it was
        answered; or what others do changes when it ends."""
        self.setUp()
        for step in range(150):
            now = self.clock.seconds()
            for call in made:
                peer = self.peers[call.connection]
                if call.at == step:
                    call.tag, deferred = peer.ask(call.limit * STEP_SECONDS)
                    call.made(deferred, self.clock)
                if call.answered_after is not None and call.at + call.answered_after == step:
                    peer.answer(call.tag)
            under_way = [call for call in made if call.at <= step and call.ended_at is None]
            self.assertLessEqual(self.pending(), 1)
            if under_way:
                self.assertEqual(self.pending(), 1)
            self.clock.advance((step + 1) * STEP_SECONDS - now)
        self.assertEqual(self.pending(), 0)
        for call in made:
            self.assert_ended_well(call)

    def assert_ended_well(self, call: Call) -> None:
        """A call has ended as it should, and when."""
        assert call.ended_at is not None, "it has never ended"
        took = call.ended_at - call.at * STEP_SECONDS
        limit = call.limit * STEP_SECONDS
        if isinstance(call.result, Failure):
            self.assertIsInstance(call.result.value, NoAnswer)
            self.assertGreaterEqual(took, limit - 1e-9)
            self.assertLessEqual(took, limit + LATE_SECONDS_MAX + 1e-9)
            if call.answered_after is not None:
                self.assertGreaterEqual(call.answered_after, call.limit)
        else:
            assert call.answered_after is not None
            self.assertEqual(call.result, {})
            self.assertApproximates(took, call.answered_after * STEP_SECONDS, 1e-9)


class SeldomTests(SynchronousTestCase):
    """Lines that a peer can provoke."""

    def test_at_most_one_a_second(self) -> None:
        """T5: else whoever reaches the port fills the disk with log lines; and how many were kept
        back is said, since it says how bad it is."""
        clock = Clock()
        seldom = Seldom(Logger(namespace="kvtwist.tests"), clock.seconds)
        with capturedLogs() as events:
            for number in range(100):
                seldom.warn(f"line {number}")
                clock.advance(INTERVAL_SECONDS / 4)
        lines = [event["line"] + event["more"] for event in events]
        self.assertEqual(len(lines), 25)
        self.assertEqual(lines[0], "line 0")
        self.assertEqual(lines[1], "line 4 (and 3 more such lines)")

    def test_after_a_while(self) -> None:
        """Else the first line after a quiet time speaks of lines of long ago."""
        clock = Clock()
        seldom = Seldom(Logger(namespace="kvtwist.tests"), clock.seconds)
        with capturedLogs() as events:
            for line in ("first", "kept", "second", "third"):
                seldom.warn(line)
                clock.advance(0.0 if line == "first" else 60.0)
        self.assertEqual(
            [(event["line"], event["more"]) for event in events],
            [("first", ""), ("second", " (and 1 more such lines)"), ("third", "")],
        )

    def test_braces(self) -> None:
        """Else a peer's text is taken for a format, and the line is lost."""
        with capturedLogs() as events:
            Seldom(Logger(namespace="kvtwist.tests"), Clock().seconds).warn("{peer} {0} {")
        self.assertEqual(events[0]["line"], "{peer} {0} {")
